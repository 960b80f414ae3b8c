package security

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Distinguished names as Java writes them, and the rules that make principals of them (ssl.principal.mapping.rules, KIP-371).

// attributeNames are the attributes that Java's X500Principal.getName writes by their names; all others stand as their object
// identifier with the value in hex. Source: RFC 2253, 2.3.
var attributeNames = map[string]string{
	"2.5.4.3": "CN", "2.5.4.6": "C", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.9": "STREET",
	"0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
}

type attribute struct {
	Type  asn1.ObjectIdentifier
	Value asn1.RawValue
}

type attributeSET []attribute // of one relative name; the suffix SET tells package asn1 how it is encoded

// distinguishedName writes a certificate's subject as RFC 2253 has it: last part first.
func distinguishedName(rawSubject []byte) (string, error) {
	var parts []attributeSET
	rest, err := asn1.Unmarshal(rawSubject, &parts)
	if err != nil || len(rest) > 0 {
		return "", errors.New("the certificate's subject is unreadable")
	}
	var b strings.Builder
	for i := len(parts) - 1; i >= 0; i-- {
		for j, a := range parts[i] {
			if j > 0 {
				b.WriteByte('+')
			}
			a.write(&b)
		}
		if i > 0 {
			b.WriteByte(',')
		}
	}
	return b.String(), nil
}

func (a attribute) write(b *strings.Builder) {
	name, known := attributeNames[a.Type.String()]
	var text string
	_, err := asn1.Unmarshal(a.Value.FullBytes, &text)
	if !known || err != nil {
		if !known {
			name = a.Type.String()
		}
		b.WriteString(name + "=#" + hex.EncodeToString(a.Value.FullBytes))
		return
	}
	b.WriteString(name + "=")
	for i, r := range text {
		last := i+len(string(r)) == len(text)
		if strings.ContainsRune(`,+"\<>;=`, r) && r != '=' || i == 0 && (r == '#' || r == ' ') || last && r == ' ' {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
}

// mappingRule is RULE:pattern/replacement/[L|U], or DEFAULT (pattern nil), which keeps the name.
type mappingRule struct {
	pattern     *regexp.Regexp
	replacement string
	letters     byte // 'L', 'U' or 0
}

// parseMappingRules reads ssl.principal.mapping.rules. Patterns are Java's as far as Go's regular expressions know them.
func parseMappingRules(text string) ([]mappingRule, error) {
	var rules []mappingRule
	for rest := strings.TrimSpace(text); rest != ""; {
		var r mappingRule
		if after, ok := strings.CutPrefix(rest, "DEFAULT"); ok {
			rest = after
		} else if after, ok := strings.CutPrefix(rest, "RULE:"); ok {
			var err error
			if r, rest, err = parseMappingRule(after); err != nil {
				return nil, err
			}
		} else {
			return nil, fmt.Errorf("want RULE:pattern/replacement/ with L or U behind it, or DEFAULT, with commas between; got %q", rest)
		}
		rules = append(rules, r)
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			break
		}
		after, ok := strings.CutPrefix(rest, ",")
		if !ok {
			return nil, fmt.Errorf("want a comma before %q", rest)
		}
		rest = strings.TrimLeft(after, " \t")
	}
	if len(rules) == 0 {
		rules = []mappingRule{{}}
	}
	return rules, nil
}

func parseMappingRule(text string) (r mappingRule, rest string, err error) {
	pattern, rest, ok := cutUnescaped(text)
	if !ok {
		return r, "", fmt.Errorf("want RULE:pattern/replacement/, got RULE:%s", text)
	}
	replacement, rest, ok := cutUnescaped(rest)
	if !ok {
		return r, "", fmt.Errorf("want RULE:pattern/replacement/, got RULE:%s", text)
	}
	if r.pattern, err = regexp.Compile(`^(?:` + pattern + `)$`); err != nil {
		return r, "", err
	}
	r.replacement = goReplacement(replacement, r.pattern.NumSubexp())
	if rest != "" && (rest[0] == 'L' || rest[0] == 'U') {
		r.letters, rest = rest[0], rest[1:]
	}
	return r, rest, nil
}

// cutUnescaped cuts at the first slash that has no backslash before it.
func cutUnescaped(s string) (before, after string, ok bool) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '/':
			return s[:i], s[i+1:], true
		}
	}
	return "", "", false
}

// goReplacement turns Java's $1 into Go's ${1}; a dollar that names no group stands for itself, and so does what a backslash precedes.
func goReplacement(java string, groups int) string {
	var b strings.Builder
	for i := 0; i < len(java); i++ {
		c := java[i]
		switch {
		case c == '\\' && i+1 < len(java):
			i++
			if java[i] == '$' {
				b.WriteByte('$')
			}
			b.WriteByte(java[i])
		case c == '$' && i+1 < len(java) && java[i+1] >= '0' && java[i+1] <= '9' && int(java[i+1]-'0') <= groups:
			n := int(java[i+1] - '0')
			for i++; i+1 < len(java) && java[i+1] >= '0' && java[i+1] <= '9' && n*10+int(java[i+1]-'0') <= groups; i++ {
				n = n*10 + int(java[i+1]-'0')
			}
			b.WriteString("${" + strconv.Itoa(n) + "}")
		case c == '$':
			b.WriteString("$$")
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// mapName applies the first rule that fits. Without one nobody is let in.
func mapName(rules []mappingRule, name string) (string, error) {
	for _, r := range rules {
		if r.pattern == nil {
			return name, nil
		}
		if !r.pattern.MatchString(name) {
			continue
		}
		mapped := r.pattern.ReplaceAllString(name, r.replacement)
		switch r.letters {
		case 'L':
			mapped = strings.ToLower(mapped)
		case 'U':
			mapped = strings.ToUpper(mapped)
		}
		return mapped, nil
	}
	return "", fmt.Errorf("no rule of ssl.principal.mapping.rules fits the certificate's name %q", name)
}
