// Package config knows every setting: Kafka's name, type, default, range, whether it changes at run time. Each is one line of
// the keys_*.go tables; parsing, suggestions for misspelt names, DescribeConfigs, docs/configuration.md and `ottla config check`
// all read the same lines.
package config

import "fmt"

// Type is a key's type, with the codes of DescribeConfigs (KIP-569).
type Type int8

// The types of keys.
const (
	Unknown Type = iota
	Boolean
	String
	Int
	Short
	Long
	Double
	List
	Class
	PasswordType
)

var typeNames = [...]string{"unknown", "boolean", "string", "int", "short", "long", "double", "list", "class", "password"}

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

// Effect says what a key does in Ottla.
type Effect int8

// The effects of keys.
const (
	Effective Effect = iota // does what Kafka's documentation says
	Planned                 // accepted; what it steers is not built yet
	None                    // accepted; what it steers does not exist here
)

func (e Effect) String() string { return [...]string{"effective", "planned", "none"}[e] }

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
	Effect   Effect
	Internal bool     // not shown by DescribeConfigs
	Dynamic  bool     // exists in ZooKeeper only, never in a file; shown when set
	Foreign  bool     // not in Kafka's own table: shown when set, as a secret
	Synonyms []string // keys that give the value when this one is not set, most specific first

	index int
	read  func(text string) (any, *refusal)
	from  []synonym // topic keys: the broker keys that give the default, most specific first
}

// Sensitive reports whether the value must not be shown.
func (i *Info) Sensitive() bool { return i.Type == PasswordType }

// check parses a value.
func (i *Info) check(text string) (any, error) {
	v, refused := i.read(trim(text))
	if refused == nil {
		return v, nil
	}
	e := &ValueError{Key: i.Name, Value: text, Want: i.want(), refusal: *refused}
	if i.Sensitive() {
		e.Value, e.value = "***", "[hidden]"
	}
	return nil, e
}

func (i *Info) want() string {
	kind := kinds[i.Type]
	switch {
	case i.Allowed == "":
		return kind
	case i.Type == String:
		return i.Allowed
	}
	return kind + ", " + i.Allowed
}

var kinds = [...]string{Boolean: "true or false", String: "a text", Int: "a whole number", Short: "a whole number", Long: "a whole number",
	Double: "a number", List: "a list with commas between", Class: "a class name", PasswordType: "a text"}

// ValueError says that a value is not allowed for a key.
type ValueError struct {
	Key, Value string
	Want       string // what is allowed, in words
	refusal
}

// refusal is Kafka's verdict on a value.
type refusal struct {
	value string // the value as Kafka shows it: parsed, or the one element of a list
	why   string
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("%s=%s is not allowed: want %s", e.Key, e.Value, e.Want)
}

// Kafka is the same in Kafka's words, for clients that read INVALID_CONFIG messages.
func (e *ValueError) Kafka() string {
	if e.why == "" {
		return e.Error()
	}
	return fmt.Sprintf("Invalid value %s for configuration %s: %s", e.value, e.Key, e.why)
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

// Lookup finds a broker key by its name.
func Lookup(name string) (*Info, bool) {
	i, ok := byName[name]
	return i, ok
}

// All returns every broker key, in the order of the tables.
func All() []*Info { return table }

// Key is a typed broker key; Of reads it.
type Key[T any] struct {
	*Info
	fallback func(*Snapshot) T // the value when the key is not set and has no default of its own; nil: the zero value
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

// For reads the key for one listener: listener.name.LISTENER.KEY where that is set, else the key itself. Source: KIP-103.
func (k *Key[T]) For(s *Snapshot, listener string) T {
	return k.prefixed(s, listenerPrefix(listener), k.Of)
}

// ForMechanism reads the key for a SASL mechanism of a listener: listener.name.LISTENER.MECHANISM.KEY, else as For. Source: KIP-85.
func (k *Key[T]) ForMechanism(s *Snapshot, listener, mechanism string) T {
	return k.prefixed(s, listenerPrefix(listener)+lower(mechanism)+".", func(s *Snapshot) T { return k.For(s, listener) })
}

func (k *Key[T]) prefixed(s *Snapshot, prefix string, otherwise func(*Snapshot) T) T {
	if v, set := s.values[prefix+k.Name]; set {
		if parsed, refused := k.read(v.text); refused == nil {
			return parsed.(T)
		}
	}
	return otherwise(s)
}

func listenerPrefix(listener string) string { return "listener.name." + lower(listener) + "." }

// or gives a key without default the value of another.
func (k *Key[T]) or(fallback func(*Snapshot) T, synonyms ...string) *Key[T] {
	k.fallback = fallback
	k.Synonyms = synonyms
	return k
}

// inert marks a key that is accepted without effect.
func inert[T any](k *Key[T]) *Key[T] {
	k.Effect = None
	return k
}

// later marks a key whose effect is still to be built.
func later[T any](k *Key[T]) *Key[T] {
	k.Effect = Planned
	return k
}

// internal marks a key that DescribeConfigs does not show.
func internal[T any](k *Key[T]) *Key[T] {
	k.Internal = true
	return k
}

// dynamicOnly marks a key that exists in ZooKeeper only.
func dynamicOnly[T any](k *Key[T]) *Key[T] {
	k.Dynamic = true
	return k
}

// foreign marks a key that Kafka reads outside its own table.
func foreign[T any](k *Key[T]) *Key[T] {
	k.Foreign = true
	return k
}
