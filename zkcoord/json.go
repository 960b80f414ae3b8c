package zkcoord

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"unicode/utf8"

	"ottla/internal/cluster"
)

// Kafka's JSON: objects are read by exact key (Go's struct decoding folds case), numbers and strings are not coerced, null is a
// missing value where a value is optional, and wrong elsewhere.

// object is a JSON object whose values are not looked at yet.
type object map[string]json.RawMessage

// parseObject reads one JSON object and nothing after it.
func parseObject(data []byte) (object, error) {
	var o object
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if o == nil {
		return nil, fmt.Errorf("%w: no JSON object", ErrInvalid)
	}
	return o, nil
}

// has reports whether the key has a value other than null.
func (o object) has(key string) bool {
	raw, found := o[key]
	return found && string(raw) != "null"
}

// required reads the value of a key that must be there.
func required[T any](o object, key string) (v T, err error) {
	if !o.has(key) {
		return v, fmt.Errorf("%w: no %q", ErrInvalid, key)
	}
	return optional(o, key, v)
}

// optional reads the value of a key that may be missing or null.
func optional[T any](o object, key string, otherwise T) (T, error) {
	if !o.has(key) {
		return otherwise, nil
	}
	var v T
	if err := json.Unmarshal(o[key], &v); err != nil {
		return otherwise, fmt.Errorf("%w: %q: %w", ErrInvalid, key, err)
	}
	return v, nil
}

// only refuses keys other than these, where Kafka does.
func (o object) only(keys ...string) error {
	for key := range o {
		if !slices.Contains(keys, key) {
			return fmt.Errorf("%w: unknown key %q", ErrInvalid, key)
		}
	}
	return nil
}

// strings reads an object whose values are all strings.
func (o object) strings(key string) (map[string]string, error) {
	raw, err := required[map[string]*string](o, key)
	if err != nil {
		return nil, err
	}
	values := make(map[string]string, len(raw))
	for name, value := range raw {
		if value == nil {
			return nil, fmt.Errorf("%w: %q: the value of %q is null", ErrInvalid, key, name)
		}
		values[name] = *value
	}
	return values, nil
}

// appendQuoted appends a JSON string as Jackson writes it: only quotes, backslashes and control characters are escaped.
func appendQuoted(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	b = append(b, '"')
	for i := 0; i < len(s); {
		c := s[i]
		if c >= utf8.RuneSelf {
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r) // what is no UTF-8 becomes U+FFFD
			i += n
			continue
		}
		i++
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, '\\', 'n')
		case c == '\r':
			b = append(b, '\\', 'r')
		case c == '\t':
			b = append(b, '\\', 't')
		case c == '\b':
			b = append(b, '\\', 'b')
		case c == '\f':
			b = append(b, '\\', 'f')
		case c < 0x20:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xf])
		default:
			b = append(b, c)
		}
	}
	return append(b, '"')
}

// appendObject appends {"key":value,…} in the order of the keys.
func appendObject[V any](b []byte, m map[string]V, value func([]byte, V) []byte) []byte {
	b = append(b, '{')
	for i, key := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendQuoted(b, key), ':')
		b = value(b, m[key])
	}
	return append(b, '}')
}

func appendList[V any](b []byte, list []V, value func([]byte, V) []byte) []byte {
	b = append(b, '[')
	for i, v := range list {
		if i > 0 {
			b = append(b, ',')
		}
		b = value(b, v)
	}
	return append(b, ']')
}

func appendBrokerID(b []byte, id cluster.BrokerID) []byte { return strconv.AppendInt(b, int64(id), 10) }

func appendBrokerIDs(b []byte, ids []cluster.BrokerID) []byte {
	return appendList(b, ids, appendBrokerID)
}

func appendInt[T ~int8 | ~int16 | ~int32 | ~int64](b []byte, v T) []byte {
	return strconv.AppendInt(b, int64(v), 10)
}

// BadNode is a znode whose payload is unreadable.
type BadNode struct {
	Path string
	Err  error
}

// BadNodesError accompanies the result of reading many znodes: the result holds what is readable, this names the rest. One stray
// znode must not stop a broker or a controller; whoever ignores the error must not take the named ones for missing.
type BadNodesError struct{ Nodes []BadNode }

func (e *BadNodesError) Error() string {
	return fmt.Sprintf("%d unreadable znodes, the first is %s: %v", len(e.Nodes), e.Nodes[0].Path, e.Nodes[0].Err)
}

func (e *BadNodesError) Unwrap() error { return ErrInvalid }

type badNodes []BadNode

func (b *badNodes) add(path string, err error) { *b = append(*b, BadNode{Path: path, Err: err}) }

func (b badNodes) err() error {
	if len(b) == 0 {
		return nil
	}
	return &BadNodesError{Nodes: b}
}
