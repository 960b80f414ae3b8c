package config

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// Java properties files, as java.util.Properties reads them:
//
//	# comment    ! comment    (the first character that is not blank)
//	key=value    key:value    key value    key = value
//	key=a,\
//	    b                     a backslash at the end continues the line; blanks before the rest go
//	a\ b=\u0041\t             escapes: \t \n \r \f \uXXXX; before anything else the backslash goes
//
// Kafka reads ISO-8859-1. Here a file that is valid UTF-8 is taken as such, anything else as ISO-8859-1. Expressions ${…} stay as they
// are; providers.go asks for them.

// entry is one setting of a file, with the number of the line that it starts on.
type entry struct {
	key, value string
	line       int
}

// ReadFile reads a properties file.
func ReadFile(name string) (map[string]string, error) {
	read, _, err := readFile(name)
	return read, err
}

func readFile(name string) (map[string]string, []Warning, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, nil, fmt.Errorf("settings: %w", err)
	}
	entries, err := parse(text)
	if err != nil {
		return nil, nil, fmt.Errorf("settings in %s: %w", name, err)
	}
	out := map[string]string{}
	seen := map[string]int{}
	var warnings []Warning
	for _, e := range entries {
		if first, twice := seen[e.key]; twice {
			warnings = append(warnings, Warning{e.key, fmt.Sprintf("is set twice in %s; line %d wins over line %d", name, e.line, first)})
		}
		seen[e.key] = e.line
		out[e.key] = e.value
	}
	return out, warnings, nil
}

// Parse reads the text of a properties file. Of a key that comes twice, the last value counts. The error names the line.
func Parse(text []byte) (map[string]string, error) {
	entries, err := parse(text)
	if err != nil {
		return nil, err
	}
	out := make(map[string]string, len(entries))
	for _, e := range entries {
		out[e.key] = e.value
	}
	return out, nil
}

func parse(text []byte) ([]entry, error) {
	var out []entry
	rest, number := decode(text), 0
	for rest != "" {
		var first string
		first, rest = cutLine(rest)
		number++
		start := number
		logical := strings.TrimLeft(first, blanks)
		if logical == "" || logical[0] == '#' || logical[0] == '!' {
			continue
		}
		for continues(logical) {
			logical = logical[:len(logical)-1]
			if rest == "" || logical == "" { // a lone backslash begins nothing
				break
			}
			var more string
			more, rest = cutLine(rest)
			number++
			logical += strings.TrimLeft(more, blanks)
		}
		if logical == "" {
			continue
		}
		e, err := splitEntry(logical)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", start, err)
		}
		e.line = start
		out = append(out, e)
	}
	return out, nil
}

const blanks = " \t\f"

// decode takes bytes for UTF-8 when they can be, else for ISO-8859-1.
func decode(text []byte) string {
	if utf8.Valid(text) {
		return strings.TrimPrefix(string(text), "\uFEFF")
	}
	runes := make([]rune, len(text))
	for i, b := range text {
		runes[i] = rune(b)
	}
	return string(runes)
}

// cutLine takes the first line off; \n, \r and \r\n end one.
func cutLine(s string) (first, rest string) {
	i := strings.IndexAny(s, "\r\n")
	switch {
	case i < 0:
		return s, ""
	case strings.HasPrefix(s[i:], "\r\n"):
		return s[:i], s[i+2:]
	}
	return s[:i], s[i+1:]
}

// continues reports whether a line ends in a backslash that is not itself escaped.
func continues(s string) bool {
	n := len(s) - len(strings.TrimRight(s, `\`))
	return n%2 == 1
}

// splitEntry takes a logical line apart at the first =, : or blank that is not escaped.
func splitEntry(s string) (entry, error) {
	end := 0
	for end < len(s) && !strings.ContainsRune("=: \t\f", rune(s[end])) {
		if s[end] == '\\' {
			end++
		}
		end++
	}
	end = min(end, len(s))
	key, err := unescape(s[:end])
	if err != nil {
		return entry{}, err
	}
	after := strings.TrimLeft(s[end:], blanks)
	if after != "" && (after[0] == '=' || after[0] == ':') {
		after = strings.TrimLeft(after[1:], blanks)
	}
	value, err := unescape(after)
	return entry{key: key, value: value}, err
}

// unescape resolves backslashes. Pairs of \uD8XX\uDCXX make one character, as Java's strings have it.
func unescape(s string) (string, error) {
	if !strings.Contains(s, `\`) {
		return s, nil
	}
	var out strings.Builder
	var high rune // the first half of a pair
	flush := func() {
		if high != 0 {
			out.WriteRune(utf8.RuneError)
			high = 0
		}
	}
	for s != "" {
		c, size := utf8.DecodeRuneInString(s)
		s = s[size:]
		if c != '\\' || s == "" {
			flush()
			if c != '\\' {
				out.WriteRune(c)
			}
			continue
		}
		c, size = utf8.DecodeRuneInString(s)
		s = s[size:]
		if c == 'u' {
			if len(s) < 4 {
				return "", fmt.Errorf(`\u needs four hexadecimal digits, not %q`, s)
			}
			unit, err := strconv.ParseUint(s[:4], 16, 16)
			if err != nil {
				return "", fmt.Errorf(`\u needs four hexadecimal digits, not %q`, s[:4])
			}
			s = s[4:]
			r := rune(unit)
			switch {
			case high != 0 && utf16.IsSurrogate(r) && utf16.DecodeRune(high, r) != utf8.RuneError:
				out.WriteRune(utf16.DecodeRune(high, r))
				high = 0
			case utf16.IsSurrogate(r):
				flush()
				high = r
			default:
				flush()
				out.WriteRune(r)
			}
			continue
		}
		flush()
		switch c {
		case 't':
			c = '\t'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 'f':
			c = '\f'
		}
		out.WriteRune(c)
	}
	flush()
	return out.String(), nil
}
