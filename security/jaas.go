package security

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// The login modules that are known, by their Java names.
const (
	plainModule = "org.apache.kafka.common.security.plain.PlainLoginModule"
	scramModule = "org.apache.kafka.common.security.scram.ScramLoginModule"
)

// loginModule is one entry of a JAAS configuration: MODULE FLAG name="value" … ;
type loginModule struct {
	name    string
	options map[string]string
}

// String keeps passwords out of whatever prints it.
func (m loginModule) String() string { return m.name }

// GoString does so too.
func (m loginModule) GoString() string { return m.name }

// parseJAAS reads what a sasl.jaas.config setting holds: login modules without a context around them. Errors never quote values.
func parseJAAS(text string) ([]loginModule, error) {
	p := jaasParser{rest: text}
	var list []loginModule
	for {
		t, err := p.next()
		if err != nil {
			return nil, err
		}
		if t.kind == jaasEnd {
			break
		}
		m, err := p.module(t)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no login module in it")
	}
	return list, nil
}

// parseJAASFile reads a file of contexts: NAME { MODULE FLAG name="value" … ; … };
func parseJAASFile(text string) (map[string][]loginModule, error) {
	p := jaasParser{rest: text}
	contexts := map[string][]loginModule{}
	for {
		t, err := p.next()
		switch {
		case err != nil:
			return nil, err
		case t.kind == jaasEnd:
			return contexts, nil
		case t.kind == jaasSign:
			return nil, p.wrong("want the name of a context")
		case contexts[t.text] != nil:
			return nil, p.wrong("context " + t.text + " twice")
		}
		if contexts[t.text], err = p.context(); err != nil {
			return nil, err
		}
	}
}

type jaasKind int

const (
	jaasEnd jaasKind = iota
	jaasWord
	jaasQuoted
	jaasSign // one of { } ; =
)

type jaasToken struct {
	kind jaasKind
	text string
}

func (t jaasToken) is(sign string) bool { return t.kind == jaasSign && t.text == sign }

// jaasParser is a scanner of JAAS texts. Words run to the next space or sign; quoted text has backslash escapes; comments are
// those of Java.
type jaasParser struct {
	rest string
	line int // from 0
}

func (p *jaasParser) wrong(what string) error { return fmt.Errorf("line %d: %s", p.line+1, what) }

// context reads { MODULE … } ;
func (p *jaasParser) context() ([]loginModule, error) {
	if err := p.sign("{"); err != nil {
		return nil, err
	}
	list := []loginModule{}
	for {
		t, err := p.next()
		if err != nil {
			return nil, err
		}
		if t.is("}") {
			return list, p.sign(";")
		}
		m, err := p.module(t)
		if err != nil {
			return nil, err
		}
		list = append(list, m)
	}
}

// module reads the rest of a login module, up to its semicolon.
func (p *jaasParser) module(name jaasToken) (loginModule, error) {
	m := loginModule{name: name.text, options: map[string]string{}}
	if name.kind != jaasWord {
		return m, p.wrong("want the name of a login module")
	}
	flag, err := p.next()
	if err != nil {
		return m, err
	}
	switch {
	case flag.kind != jaasWord:
		return m, p.wrong("want a control flag, such as required, behind the login module")
	case !strings.Contains(" required requisite sufficient optional ", " "+strings.ToLower(flag.text)+" "):
		return m, p.wrong("want required, requisite, sufficient or optional behind the login module")
	}
	for {
		t, err := p.next()
		if err != nil {
			return m, err
		}
		if t.is(";") {
			return m, nil
		}
		if t.kind != jaasWord && t.kind != jaasQuoted {
			return m, p.wrong("want name=\"value\" or a semicolon at the end of the login module")
		}
		if err := p.sign("="); err != nil {
			return m, err
		}
		v, err := p.next()
		if err != nil {
			return m, err
		}
		if v.kind != jaasWord && v.kind != jaasQuoted {
			return m, p.wrong("an option without value")
		}
		m.options[t.text] = v.text
	}
}

func (p *jaasParser) sign(want string) error {
	t, err := p.next()
	if err == nil && !t.is(want) {
		err = p.wrong("want " + want)
	}
	return err
}

const jaasSigns = "{};="

func (p *jaasParser) next() (jaasToken, error) {
	if err := p.skipSpace(); err != nil {
		return jaasToken{}, err
	}
	if p.rest == "" {
		return jaasToken{kind: jaasEnd}, nil
	}
	c := p.rest[0]
	switch {
	case strings.IndexByte(jaasSigns, c) >= 0:
		p.rest = p.rest[1:]
		return jaasToken{jaasSign, string(c)}, nil
	case c == '"' || c == '\'':
		return p.quoted(c)
	}
	n := strings.IndexAny(p.rest, jaasSigns+"\"' \t\r\n\f")
	if n < 0 {
		n = len(p.rest)
	}
	word := p.rest[:n]
	p.rest = p.rest[n:]
	return jaasToken{jaasWord, word}, nil
}

// skipSpace skips white space and comments.
func (p *jaasParser) skipSpace() error {
	for p.rest != "" {
		switch {
		case strings.IndexByte(" \t\r\f\n", p.rest[0]) >= 0:
			p.skip(1)
		case strings.HasPrefix(p.rest, "//"), p.rest[0] == '#':
			n := strings.IndexByte(p.rest, '\n')
			if n < 0 {
				n = len(p.rest)
			}
			p.skip(n)
		case strings.HasPrefix(p.rest, "/*"):
			n := strings.Index(p.rest[2:], "*/")
			if n < 0 {
				return p.wrong("a comment that does not end")
			}
			p.skip(n + 4)
		default:
			return nil
		}
	}
	return nil
}

func (p *jaasParser) skip(n int) {
	p.line += strings.Count(p.rest[:n], "\n")
	p.rest = p.rest[n:]
}

func (p *jaasParser) quoted(quote byte) (jaasToken, error) {
	var b strings.Builder
	for i := 1; i < len(p.rest); i++ {
		switch c := p.rest[i]; c {
		case quote:
			p.rest = p.rest[i+1:]
			return jaasToken{jaasQuoted, b.String()}, nil
		case '\n', '\r':
			return jaasToken{}, p.wrong("a quoted text that does not end")
		case '\\':
			n, ok := unescape(&b, p.rest[i:])
			if !ok {
				return jaasToken{}, p.wrong("a quoted text that does not end")
			}
			i += n - 1
		default:
			b.WriteByte(c)
		}
	}
	return jaasToken{}, p.wrong("a quoted text that does not end")
}

// unescape writes what an escape means, as Java's StreamTokenizer reads it; n is its length with the backslash.
func unescape(b *strings.Builder, s string) (n int, ok bool) {
	if len(s) < 2 {
		return 0, false
	}
	c := s[1]
	if c >= '0' && c <= '7' {
		limit := 3
		if c > '3' {
			limit = 2
		}
		v := rune(0)
		for n = 1; n < len(s) && n <= limit && s[n] >= '0' && s[n] <= '7'; n++ {
			v = v*8 + rune(s[n]-'0')
		}
		b.WriteRune(v)
		return n, true
	}
	if at := strings.IndexByte("abfnrtv", c); at >= 0 {
		b.WriteByte("\a\b\f\n\r\t\v"[at])
		return 2, true
	}
	_, size := utf8.DecodeRuneInString(s[1:])
	b.WriteString(s[1 : 1+size])
	return 1 + size, true
}

// jaasFileOf finds -Djava.security.auth.login.config=FILE in the options of a JVM, as images pass them in KAFKA_OPTS.
func jaasFileOf(options string) string {
	const property = "-Djava.security.auth.login.config="
	file := ""
	for _, o := range strings.Fields(options) {
		if value, ok := strings.CutPrefix(strings.Trim(o, `"'`), property); ok {
			file = strings.Trim(value, `"'`)
			file = strings.TrimPrefix(strings.TrimPrefix(file, "="), "file:") // == replaces the system's own, which does not exist here
		}
	}
	return file
}
