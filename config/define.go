package config

import (
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The constructors of the tables' lines. Each says how the text of a type is read; line puts the rule behind it.

// unset marks a key without default.
const unset = "\x00"

// line makes a line of a table out of how its text is read; read returns Kafka's sentence for a text that it cannot read.
func line[T any](name string, t Type, def string, r rule[T], m Mode, doc string, read func(string) (T, string)) *Info {
	i := &Info{Name: name, Type: t, Default: def, Doc: doc, Allowed: r.words, Mode: m}
	if def == unset {
		i.Default, i.Unset = "", true
	}
	i.read = func(text string) (any, *refusal) {
		v, why := read(text)
		if why != "" {
			return nil, &refusal{text, why}
		}
		if refused := r.judge(v); refused != nil {
			if strings.HasPrefix(refused.why, " ") { // the sentence begins with the key
				refused.why = name + refused.why
			}
			return nil, refused
		}
		return v, nil
	}
	return i
}

func define[T any](name string, t Type, def string, r rule[T], m Mode, doc string, read func(string) (T, string)) *Key[T] {
	return &Key[T]{Info: register(line(name, t, def, r, m, doc, read))}
}

func intKey(name, def string, r rule[int], m Mode, doc string) *Key[int] {
	return define(name, Int, def, r, m, doc, readInt)
}

func shortKey(name, def string, r rule[int], m Mode, doc string) *Key[int] {
	return define(name, Short, def, r, m, doc, readShort)
}

func longKey(name, def string, r rule[int64], m Mode, doc string) *Key[int64] {
	return define(name, Long, def, r, m, doc, readLong)
}

// limitKey is a longKey of which every negative value means unlimited; it reads as -1.
func limitKey(name, def string, r rule[int64], m Mode, doc string) *Key[int64] {
	return define(name, Long, def, r, m, doc, func(s string) (int64, string) {
		v, why := readLong(s)
		return max(v, -1), why
	})
}

func doubleKey(name, def string, r rule[float64], m Mode, doc string) *Key[float64] {
	return define(name, Double, def, r, m, doc, readDouble)
}

func boolKey(name, def string, m Mode, doc string) *Key[bool] {
	return define(name, Boolean, def, anything[bool](), m, doc, readBool)
}

func textKey(name, def string, r rule[string], m Mode, doc string) *Key[string] {
	return define(name, String, def, r, m, doc, readText)
}

func classKey(name, def string, m Mode, doc string) *Key[string] {
	return define(name, Class, def, anything[string](), m, doc, readText)
}

func passwordKey(name, def string, m Mode, doc string) *Key[Password] {
	return define(name, PasswordType, def, anything[Password](), m, doc, func(s string) (Password, string) { return Password(s), "" })
}

func listKey(name, def string, r rule[[]string], m Mode, doc string) *Key[[]string] {
	return define(name, List, def, r, m, doc, readList)
}

// textListKey is a list that Kafka's table calls a string; empty elements count for nothing.
func textListKey(name, def string, m Mode, doc string) *Key[[]string] {
	return define(name, String, def, anything[[]string](), m, doc, readTextList)
}

// timeKey is a span of time, counted in unit. Values too large for a time.Duration mean the largest one.
func timeKey(name string, t Type, def string, unit time.Duration, r rule[int64], m Mode, doc string) *Key[time.Duration] {
	return &Key[time.Duration]{Info: register(timeLine(name, t, def, unit, r, m, doc))}
}

func timeLine(name string, t Type, def string, unit time.Duration, r rule[int64], m Mode, doc string) *Info {
	i := line(name, t, def, r, m, doc, func(s string) (int64, string) {
		if t == Int {
			v, why := readInt(s)
			return int64(v), why
		}
		return readLong(s)
	})
	count := i.read
	i.read = func(text string) (any, *refusal) {
		v, refused := count(text)
		if refused != nil {
			return nil, refused
		}
		return times(v.(int64), unit), nil
	}
	return i
}

func times(v int64, unit time.Duration) time.Duration {
	switch {
	case v > math.MaxInt64/int64(unit):
		return math.MaxInt64
	case v < math.MinInt64/int64(unit):
		return math.MinInt64
	}
	return time.Duration(v) * unit
}

func readWhole(s string, bits int, kind string) (int64, string) {
	v, err := strconv.ParseInt(s, 10, bits)
	if err != nil {
		return 0, "Not a number of type " + kind
	}
	return v, ""
}

func readInt(s string) (int, string) {
	v, why := readWhole(s, 32, "INT")
	return int(v), why
}

func readShort(s string) (int, string) {
	v, why := readWhole(s, 16, "SHORT")
	return int(v), why
}

func readLong(s string) (int64, string) { return readWhole(s, 64, "LONG") }

// readDouble reads what Double.parseDouble reads, but for NaN: Kafka accepts it and then no comparison holds.
func readDouble(s string) (float64, string) {
	digits := s
	if n := len(s); n > 1 && strings.ContainsRune("fFdD", rune(s[n-1])) && !strings.ContainsAny(s, "xX") {
		digits = s[:n-1]
	}
	v, err := strconv.ParseFloat(digits, 64)
	if err != nil && !math.IsInf(v, 0) || math.IsNaN(v) {
		return 0, "Not a number of type DOUBLE"
	}
	return v, ""
}

func readBool(s string) (bool, string) {
	switch {
	case strings.EqualFold(s, "true"):
		return true, ""
	case strings.EqualFold(s, "false"):
		return false, ""
	}
	return false, "Expected value to be either true or false"
}

func readText(s string) (string, string) { return s, "" }

func readList(s string) ([]string, string) {
	if s == "" {
		return nil, ""
	}
	var list []string
	for part := range strings.SplitSeq(s, ",") {
		list = append(list, trim(part))
	}
	return list, ""
}

func readTextList(s string) ([]string, string) {
	list, _ := readList(s)
	return slices.DeleteFunc(list, func(e string) bool { return e == "" }), ""
}
