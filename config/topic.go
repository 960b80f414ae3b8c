package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"
)

// Topic is the settings of one topic: its overrides over the broker's. Immutable.
type Topic struct {
	broker    *Snapshot
	overrides map[string]string
	values    []value // by Info.index of the topic's table
	parsed    []any
}

// TopicKey is a typed topic-level key.
type TopicKey[T any] struct {
	*Info
	instead *TopicKey[T] // counts where this key has its default
}

// synonym is a broker key that gives a topic key its default.
type synonym struct {
	*Info
	factor    int64 // turns its unit into the topic's
	unlimited bool  // every negative value means -1
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

// topicKey adds a line to the table of topic-level keys. Its default comes from the broker keys in from, most specific first.
func topicKey[T any](i *Info, from ...synonym) *TopicKey[T] {
	i.from = from
	for _, s := range from {
		i.Synonyms = append(i.Synonyms, s.Name)
	}
	if len(from) > 0 && i.Doc == "" {
		i.Doc, i.Effect = from[0].Doc, from[0].Effect
	}
	i.Default = i.topicDefault(&Snapshot{}).text
	if _, err := i.check(i.Default); err != nil {
		panic(fmt.Sprintf("config: default of topics' %s: %v", i.Name, err))
	}
	i.index = len(topicTable)
	topicTable = append(topicTable, i)
	topicByName[i.Name] = i
	return &TopicKey[T]{Info: i}
}

// Of reads the key.
func (k *TopicKey[T]) Of(t *Topic) T {
	if k.instead != nil && t.values[k.index].text == k.Default {
		return k.instead.Of(t)
	}
	return t.parsed[k.index].(T)
}

// topicDefault is a topic key's value without override: the first broker key that is set, else Kafka's default.
func (i *Info) topicDefault(s *Snapshot) value {
	for _, from := range i.from {
		if v, set := s.values[from.Name]; set {
			return value{from.scale(v.text), v.source}
		}
	}
	for _, from := range i.from {
		if !from.Unset {
			return value{from.scale(from.Default), Default}
		}
	}
	return value{i.Default, Default}
}

// scale turns a broker key's text into the topic's unit.
func (s synonym) scale(text string) string {
	n, err := strconv.ParseInt(text, 10, 64)
	switch {
	case err != nil || s.factor == 1 && !s.unlimited:
		return text
	case s.unlimited && n < 0:
		return "-1"
	}
	return strconv.FormatInt(n*s.factor, 10)
}

// defaultTopic is a topic without overrides. The error names the broker key whose value no topic can have.
func defaultTopic(s *Snapshot) (*Topic, error) {
	t := &Topic{broker: s, values: make([]value, len(topicTable)), parsed: make([]any, len(topicTable))}
	for _, i := range topicTable {
		v := i.topicDefault(s)
		parsed, err := i.check(v.text)
		if err != nil {
			var e *ValueError
			if errors.As(err, &e) && len(i.from) > 0 {
				e.Key = setOne(s, i.from[0].Info)
			}
			return nil, err
		}
		t.values[i.index], t.parsed[i.index] = v, parsed
	}
	return t, nil
}

// ResolveTopic lays a topic's overrides over the broker's settings. Overrides that nobody knows are kept and have no effect.
// Topics without overrides share what the snapshot holds.
func ResolveTopic(s *Snapshot, overrides map[string]string) (*Topic, error) {
	if len(overrides) == 0 {
		return s.topic, nil
	}
	t := &Topic{broker: s, overrides: overrides, values: slices.Clone(s.topic.values), parsed: slices.Clone(s.topic.parsed)}
	for name, text := range overrides {
		i := topicByName[name]
		if i == nil {
			continue
		}
		parsed, err := i.check(text)
		if err != nil {
			return nil, err
		}
		t.values[i.index], t.parsed[i.index] = value{trim(text), DynamicTopic}, parsed
	}
	return t, nil
}

// Overrides returns the topic's own settings.
func (t *Topic) Overrides() map[string]string { return maps.Clone(t.overrides) }

// Value returns a key's text; "" for a key that is not known.
func (t *Topic) Value(name string) string {
	if i := topicByName[name]; i != nil {
		return t.values[i.index].text
	}
	return ""
}

// ValidateTopic judges a topic's overrides as CreateTopics and AlterConfigs must; the text is the one for INVALID_CONFIG, worded as
// Kafka 3.9 words it.
func ValidateTopic(s *Snapshot, overrides map[string]string) error {
	for _, name := range slices.Sorted(maps.Keys(overrides)) {
		if topicByName[name] == nil {
			return fmt.Errorf("Unknown topic config name: %s", name) //nolint:staticcheck // Kafka's words
		}
	}
	for _, i := range topicTable {
		if text, set := overrides[i.Name]; set {
			if _, err := i.check(text); err != nil {
				return kafkaError(err, i.Name)
			}
		}
	}
	t, err := ResolveTopic(s, overrides)
	if err != nil {
		return err
	}
	return t.crossCheck()
}

// crossCheck judges settings that must fit each other, or that ZooKeeper's side of Kafka refuses.
func (t *Topic) crossCheck() error {
	low, high := TopicMinCompactionLagMs, TopicMaxCompactionLagMs
	switch {
	case low.Of(t) > high.Of(t):
		return fmt.Errorf("conflict topic config setting %s (%s) > %s (%s)", low.Name, t.Value(low.Name), high.Name, t.Value(high.Name))
	case topicRemoteStorageEnable.Of(t):
		return errors.New("Tiered Storage functionality is disabled in the broker. Topic cannot be configured with remote log storage.") //nolint:staticcheck,revive // Kafka's words
	case topicRemoteLogCopyDisable.Of(t) || topicRemoteLogDeleteOnDisable.Of(t):
		return errors.New("It is invalid to set `remote.log.delete.on.disable` or `remote.log.copy.disable` under Zookeeper's mode.") //nolint:staticcheck,revive // Kafka's words
	}
	return nil
}

// The constructors of topic-level lines; rules are the topic's own, some stricter than the broker's.

func topicInt(name string, r rule[int], k *Key[int]) *TopicKey[int] {
	return topicKey[int](line(name, Int, k.Default, r, ClusterWide, "", readInt), same(k.Info))
}

func topicLong(name string, r rule[int64], from ...synonym) *TopicKey[int64] {
	return topicKey[int64](line(name, Long, "", r, ClusterWide, "", readLong), from...)
}

func topicMs(name string, r rule[int64], from ...synonym) *TopicKey[time.Duration] {
	return topicKey[time.Duration](timeLine(name, Long, "", time.Millisecond, r, ClusterWide, ""), from...)
}

func topicDouble(name string, r rule[float64], k *Key[float64]) *TopicKey[float64] {
	return topicKey[float64](line(name, Double, "", r, ClusterWide, "", readDouble), same(k.Info))
}

func topicBool(name string, k *Key[bool]) *TopicKey[bool] {
	return topicKey[bool](line(name, Boolean, "", anything[bool](), ClusterWide, "", readBool), same(k.Info))
}

func topicText(name string, r rule[string], k *Key[string]) *TopicKey[string] {
	return topicKey[string](line(name, String, "", r, ClusterWide, "", readText), same(k.Info))
}

func topicList(name string, r rule[[]string], doc string, from ...synonym) *TopicKey[[]string] {
	return topicKey[[]string](line(name, List, "", r, ClusterWide, doc, readList), from...)
}

// topicSwitch is a switch without a broker key behind it, for what does not exist here.
func topicSwitch(name, doc string) *TopicKey[bool] {
	i := line(name, Boolean, "false", anything[bool](), ClusterWide, doc, readBool)
	i.Effect = None
	return topicKey[bool](i)
}

func same(i *Info) synonym      { return synonym{Info: i, factor: 1} }
func hours(i *Info) synonym     { return synonym{Info: i, factor: 3_600_000} }
func minutes(i *Info) synonym   { return synonym{Info: i, factor: 60_000} }
func orNever(s synonym) synonym { s.unlimited = true; return s }

// unlessSet lets another key count where this one has its default.
func (k *TopicKey[T]) unlessSet(other *TopicKey[T]) *TopicKey[T] {
	k.instead = other
	return k
}
