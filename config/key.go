// Package config knows every setting: Kafka's name, type, default, range, whether it changes at run time. Each is one line of
// the keys_*.go tables; parsing, suggestions for misspelt names, DescribeConfigs, the documentation and `ottla config check`
// all read the same lines.
package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Type is a key's type, with the codes of DescribeConfigs (KIP-569).
type Type int8

// The types of keys.
const (
	Boolean Type = iota + 1
	String
	Int
	Short
	Long
	Double
	List
	Class
	PasswordType
)

var typeNames = [...]string{"", "boolean", "string", "int", "short", "long", "double", "list", "class", "password"}

func (t Type) String() string { return typeNames[t] }

// Mode says whether and for whom a key changes at run time. Source: KIP-226.
type Mode int8

// The modes of keys.
const (
	ReadOnly    Mode = iota // takes a restart
	PerBroker               // at run time, each broker for itself
	ClusterWide             // at run time, for one broker or for all
)

func (m Mode) String() string { return [...]string{"read-only", "per-broker", "cluster-wide"}[m] }

// Password is a secret; it prints as stars.
type Password string

func (Password) String() string { return "***" }

// GoString keeps %#v from telling.
func (Password) GoString() string { return "***" }

// MarshalText keeps encoders from telling.
func (Password) MarshalText() ([]byte, error) { return []byte("***"), nil }

// Info is one line of the table.
type Info struct {
	Name     string
	Type     Type
	Default  string // as text; "" with Unset
	Unset    bool   // there is no default (Kafka: null)
	Doc      string
	Allowed  string // what values are allowed, in words; "" for anything of the type
	Mode     Mode
	Inert    bool // accepted, but without effect here
	Internal bool // not shown by DescribeConfigs
	Synonyms []string

	index int
	check func(text string) (any, error)
	from  []synonym // topic keys: the broker keys that give the default, most specific first
}

// Sensitive reports whether the value must not be shown.
func (i *Info) Sensitive() bool { return i.Type == PasswordType }

// Key is a typed key; Of reads it.
type Key[T any] struct {
	*Info
	fallback func(*Snapshot) T // value when the key is not set and has no default of its own; nil: the zero value
}

var (
	table  []*Info
	byName = map[string]*Info{}
)

// register adds a line to the table. A default that its own rule refuses is a mistake in the table.
func register(i *Info) *Info {
	if byName[i.Name] != nil {
		panic("config: key " + i.Name + " twice")
	}
	if !i.Unset {
		if _, err := i.check(i.Default); err != nil {
			panic(fmt.Sprintf("config: default of %s: %v", i.Name, err))
		}
	}
	i.index = len(table)
	table = append(table, i)
	byName[i.Name] = i
	return i
}

// Lookup finds a key by its name.
func Lookup(name string) (*Info, bool) {
	i, ok := byName[name]
	return i, ok
}

// All returns every broker key, in the order of the tables.
func All() []*Info { return table }

// rule narrows the values of a type.
type rule[T any] struct {
	words string
	ok    func(T) bool
}

func anything[T any]() rule[T] { return rule[T]{"", func(T) bool { return true }} }

type number interface{ ~int | ~int64 | ~float64 }

func atLeast[T number](min T) rule[T] {
	return rule[T]{fmt.Sprintf("at least %v", min), func(v T) bool { return v >= min }}
}

func between[T number](min, max T) rule[T] {
	return rule[T]{fmt.Sprintf("%v to %v", min, max), func(v T) bool { return v >= min && v <= max }}
}

func betweenOr[T number](min, max, other T) rule[T] {
	return rule[T]{fmt.Sprintf("%v to %v, or %v", min, max, other), func(v T) bool { return v == other || v >= min && v <= max }}
}

func oneOf(names ...string) rule[string] {
	return rule[string]{"one of " + strings.Join(names, ", "), func(v string) bool {
		for _, n := range names {
			if v == n {
				return true
			}
		}
		return false
	}}
}

func eachOf(names ...string) rule[[]string] {
	one := oneOf(names...)
	return rule[[]string]{"a list of " + strings.Join(names, ", "), func(list []string) bool {
		for _, v := range list {
			if !one.ok(v) {
				return false
			}
		}
		return true
	}}
}

// ValueError says that a value is not allowed for a key.
type ValueError struct{ Key, Value, Want string }

func (e *ValueError) Error() string {
	return fmt.Sprintf("%s=%s is not allowed: want %s", e.Key, e.Value, e.Want)
}

// unset marks a key without default.
const unset = "\x00"

// define makes a line of the table out of how its text is read.
func define[T any](name string, t Type, def string, r rule[T], m Mode, doc string, kind string, read func(string) (T, bool)) *Key[T] {
	want := kind
	if r.words != "" {
		want += ", " + r.words
	}
	i := &Info{Name: name, Type: t, Default: def, Doc: doc, Allowed: r.words, Mode: m}
	if def == unset {
		i.Default, i.Unset = "", true
	}
	i.check = func(text string) (any, error) {
		v, ok := read(strings.TrimSpace(text))
		if !ok || !r.ok(v) {
			shown := text
			if i.Sensitive() {
				shown = "***"
			}
			return nil, &ValueError{name, shown, want}
		}
		return v, nil
	}
	return &Key[T]{Info: register(i)}
}

func readInt(bits int) func(string) (int, bool) {
	return func(s string) (int, bool) {
		v, err := strconv.ParseInt(s, 10, bits)
		return int(v), err == nil
	}
}

func intKey(name, def string, r rule[int], m Mode, doc string) *Key[int] {
	return define(name, Int, def, r, m, doc, "a whole number", readInt(32))
}

func shortKey(name, def string, r rule[int], m Mode, doc string) *Key[int] {
	return define(name, Short, def, r, m, doc, "a whole number", readInt(16))
}

func longKey(name, def string, r rule[int64], m Mode, doc string) *Key[int64] {
	return define(name, Long, def, r, m, doc, "a whole number", func(s string) (int64, bool) {
		v, err := strconv.ParseInt(s, 10, 64)
		return v, err == nil
	})
}

func doubleKey(name, def string, r rule[float64], m Mode, doc string) *Key[float64] {
	return define(name, Double, def, r, m, doc, "a number", func(s string) (float64, bool) {
		v, err := strconv.ParseFloat(s, 64)
		return v, err == nil && !math.IsNaN(v)
	})
}

func boolKey(name, def string, m Mode, doc string) *Key[bool] {
	return define(name, Boolean, def, anything[bool](), m, doc, "true or false", func(s string) (bool, bool) {
		switch strings.ToLower(s) {
		case "true":
			return true, true
		case "false":
			return false, true
		}
		return false, false
	})
}

func textKey(name, def string, r rule[string], m Mode, doc string) *Key[string] {
	return define(name, String, def, r, m, doc, "a text", func(s string) (string, bool) { return s, true })
}

func classKey(name, def string, m Mode, doc string) *Key[string] {
	return define(name, Class, def, anything[string](), m, doc, "a class name", func(s string) (string, bool) { return s, true })
}

func passwordKey(name, def string, m Mode, doc string) *Key[Password] {
	return define(name, PasswordType, def, anything[Password](), m, doc, "a text", func(s string) (Password, bool) { return Password(s), true })
}

func listKey(name, def string, r rule[[]string], m Mode, doc string) *Key[[]string] {
	return define(name, List, def, r, m, doc, "a list separated by commas", readList)
}

// textListKey is a list that Kafka's table calls a string.
func textListKey(name, def string, m Mode, doc string) *Key[[]string] {
	return define(name, String, def, anything[[]string](), m, doc, "a list separated by commas", readList)
}

func readList(s string) ([]string, bool) {
	if s == "" {
		return nil, true
	}
	var list []string
	for part := range strings.SplitSeq(s, ",") {
		list = append(list, strings.TrimSpace(part))
	}
	return list, true
}

// timeKey is a span of time, counted in unit. Values too large for a time.Duration mean the largest one.
func timeKey(name string, t Type, def string, unit time.Duration, r rule[int64], m Mode, doc string) *Key[time.Duration] {
	within := rule[time.Duration]{r.words, func(time.Duration) bool { return true }}
	bits := 64
	if t == Int {
		bits = 32
	}
	return define(name, t, def, within, m, doc, "a whole number", func(s string) (time.Duration, bool) {
		v, err := strconv.ParseInt(s, 10, bits)
		if err != nil || !r.ok(v) {
			return 0, false
		}
		return times(v, unit), true
	})
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

func msKey(name string, t Type, def string, r rule[int64], m Mode, doc string) *Key[time.Duration] {
	return timeKey(name, t, def, time.Millisecond, r, m, doc)
}

// inert marks a key that is accepted without effect.
func inert[T any](k *Key[T]) *Key[T] {
	k.Inert = true
	return k
}

// internal marks a key that DescribeConfigs does not show.
func internal[T any](k *Key[T]) *Key[T] {
	k.Internal = true
	return k
}

// or gives a key without default the value of another.
func (k *Key[T]) or(fallback func(*Snapshot) T, synonyms ...string) *Key[T] {
	k.fallback = fallback
	k.Synonyms = synonyms
	return k
}

// Of reads the key.
func (k *Key[T]) Of(s *Snapshot) T {
	if v := s.parsed[k.index]; v != nil {
		return v.(T)
	}
	if k.fallback != nil {
		return k.fallback(s)
	}
	var zero T
	return zero
}

// IsSet reports whether anybody has set the key.
func (k *Key[T]) IsSet(s *Snapshot) bool {
	_, set := s.values[k.Name]
	return set
}
