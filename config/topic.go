package config

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
)

// Topic is the settings of one topic: its overrides over the broker's. Immutable.
type Topic struct {
	broker    *Snapshot
	overrides map[string]string
	values    []value // by Info.index of the topic's table
	parsed    []any
}

// TopicKey is a typed topic-level key.
type TopicKey[T any] struct{ *Info }

// synonym is a broker key that gives a topic key its default; factor turns its unit into the topic's.
type synonym struct {
	*Info
	factor int64
}

var (
	topicTable  []*Info
	topicByName = map[string]*Info{}
)

// LookupTopic finds a topic-level key by its name.
func LookupTopic(name string) (*Info, bool) {
	i, ok := topicByName[name]
	return i, ok
}

// TopicAll returns every topic-level key.
func TopicAll() []*Info { return topicTable }

// topicKey makes a topic-level key of a broker key's type and rule; from are the broker keys, most specific first.
func topicKey[T any](name string, like *Key[T], from ...synonym) *TopicKey[T] {
	i := *like.Info
	i.Name, i.Mode, i.Synonyms, i.from = name, ClusterWide, nil, from
	i.Inert = like.Inert
	check := like.check
	i.check = func(text string) (any, error) {
		v, err := check(text)
		if e, ok := err.(*ValueError); ok {
			return nil, &ValueError{name, e.Value, e.Want}
		}
		return v, err
	}
	for _, s := range from {
		i.Synonyms = append(i.Synonyms, s.Name)
	}
	return registerTopic[T](&i)
}

func registerTopic[T any](i *Info) *TopicKey[T] {
	i.index = len(topicTable)
	topicTable = append(topicTable, i)
	topicByName[i.Name] = i
	return &TopicKey[T]{i}
}

// Of reads the key.
func (k *TopicKey[T]) Of(t *Topic) T { return t.parsed[k.index].(T) }

// ResolveTopic lays a topic's overrides over the broker's settings. Overrides that nobody knows are kept and have no effect.
func ResolveTopic(s *Snapshot, overrides map[string]string) (*Topic, error) {
	t := &Topic{broker: s, overrides: overrides, values: make([]value, len(topicTable)), parsed: make([]any, len(topicTable))}
	for _, i := range topicTable {
		v := i.topicDefault(s)
		if text, ok := overrides[i.Name]; ok {
			v = value{text, DynamicTopic}
		}
		parsed, err := i.check(v.text)
		if err != nil {
			return nil, err
		}
		t.values[i.index], t.parsed[i.index] = v, parsed
	}
	return t, nil
}

// topicDefault is a topic key's value without override: the first broker key that is set, else Kafka's default.
func (i *Info) topicDefault(s *Snapshot) value {
	for _, from := range i.from {
		if v, set := s.values[from.Name]; set {
			return value{scale(v.text, from.factor), v.source}
		}
	}
	for _, from := range i.from {
		if !from.Unset {
			return value{scale(from.Default, from.factor), Default}
		}
	}
	return value{i.Default, Default}
}

// scale turns hours or minutes into milliseconds; any negative span means unlimited.
func scale(text string, factor int64) string {
	if factor == 1 {
		return text
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return text
	}
	if n < 0 {
		return "-1"
	}
	return strconv.FormatInt(n*factor, 10)
}

// Overrides returns the topic's own settings.
func (t *Topic) Overrides() map[string]string { return maps.Clone(t.overrides) }

// ValidateTopic judges a topic's overrides as CreateTopics and AlterConfigs must; the text is the one for INVALID_CONFIG.
func ValidateTopic(s *Snapshot, overrides map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		i := topicByName[name]
		if i == nil {
			return fmt.Errorf("Unknown topic config name: %s", name) //nolint:staticcheck // the client reads it as Kafka words it
		}
		if _, err := i.check(overrides[name]); err != nil {
			return fmt.Errorf("Invalid value %s for configuration %s: %s", overrides[name], name, wanted(err)) //nolint:staticcheck // as above
		}
	}
	t, err := ResolveTopic(s, overrides)
	if err != nil {
		return err
	}
	if low, high := TopicMinCompactionLagMs.Of(t), TopicMaxCompactionLagMs.Of(t); low > high {
		return fmt.Errorf("conflict topic config setting %s (%d) > %s (%d)", TopicMinCompactionLagMs.Name, low.Milliseconds(), TopicMaxCompactionLagMs.Name, high.Milliseconds())
	}
	return nil
}

func wanted(err error) string {
	if e, ok := err.(*ValueError); ok {
		return "want " + e.Want
	}
	return err.Error()
}

// Value returns a key's text; "" for a key that is not known.
func (t *Topic) Value(name string) string {
	if i := topicByName[name]; i != nil {
		return t.values[i.index].text
	}
	return ""
}
