package config

import (
	"maps"
	"slices"
)

// Entry is one setting as DescribeConfigs tells it.
type Entry struct {
	Name      string
	Value     *string // nil: not set, or secret
	Source    Source
	Type      Type
	ReadOnly  bool
	Sensitive bool
	Synonyms  []Synonym // from the most specific to the default
	Doc       string
}

// Synonym is one place that a setting's value could come from.
type Synonym struct {
	Name   string
	Value  *string
	Source Source
}

// DescribeBroker lists a broker's settings.
func DescribeBroker(s *Snapshot) []Entry {
	var out []Entry
	for _, i := range table {
		if !i.Internal {
			out = append(out, s.describe(i))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		if byName[name] == nil {
			out = append(out, s.describeUnknown(name))
		}
	}
	return out
}

// DescribeClusterDefault lists what is set for all brokers in ZooKeeper.
func DescribeClusterDefault(s *Snapshot) []Entry {
	var out []Entry
	for _, name := range slices.Sorted(maps.Keys(s.cluster)) {
		e := Entry{Name: name, Source: DynamicDefaultBroker, Type: String}
		if i := byName[name]; i != nil {
			e = s.describe(i)
			e.Source = DynamicDefaultBroker
		}
		e.Value = shown(byName[name], s.cluster[name])
		e.Synonyms = slices.DeleteFunc(e.Synonyms, func(y Synonym) bool { return y.Source == DynamicBroker })
		out = append(out, e)
	}
	return out
}

func (s *Snapshot) describe(i *Info) Entry {
	e := Entry{Name: i.Name, Source: Default, Type: i.Type, ReadOnly: i.Mode == ReadOnly, Sensitive: i.Sensitive(), Doc: i.Doc}
	if text, source, ok := s.Value(i.Name); ok {
		e.Value, e.Source = shown(i, text), source
	}
	e.Synonyms = s.synonyms(i)
	for _, name := range i.Synonyms {
		e.Synonyms = append(e.Synonyms, s.synonyms(byName[name])...)
	}
	return e
}

// synonyms are the layers of one broker key, uppermost first.
func (s *Snapshot) synonyms(i *Info) []Synonym {
	var out []Synonym
	for _, layer := range []struct {
		values map[string]string
		source Source
	}{{s.broker, DynamicBroker}, {s.cluster, DynamicDefaultBroker}, {s.static, StaticFile}} {
		if text, ok := layer.values[i.Name]; ok {
			out = append(out, Synonym{i.Name, shown(i, text), layer.source})
		}
	}
	if !i.Unset {
		out = append(out, Synonym{i.Name, shown(i, i.Default), Default})
	}
	return out
}

// describeUnknown tells a setting that only a plug-in could know; it may be a secret.
func (s *Snapshot) describeUnknown(name string) Entry {
	v := s.values[name]
	if i := byName[dynamicName(name)]; i != nil {
		return Entry{Name: name, Value: shown(i, v.text), Source: v.source, Type: i.Type, ReadOnly: i.Mode == ReadOnly, Sensitive: i.Sensitive(), Doc: i.Doc}
	}
	return Entry{Name: name, Source: v.source, Type: String, ReadOnly: true, Sensitive: true}
}

// DescribeTopic lists a topic's settings.
func DescribeTopic(t *Topic) []Entry {
	var out []Entry
	for _, i := range topicTable {
		v := t.values[i.index]
		e := Entry{Name: i.Name, Value: shown(i, v.text), Source: v.source, Type: i.Type, Doc: i.Doc}
		if v.source == DynamicTopic {
			e.Synonyms = append(e.Synonyms, Synonym{i.Name, shown(i, v.text), DynamicTopic})
		}
		for _, from := range i.from {
			e.Synonyms = append(e.Synonyms, t.broker.synonyms(from.Info)...)
		}
		out = append(out, e)
	}
	return out
}

func shown(i *Info, text string) *string {
	if i != nil && i.Sensitive() {
		return nil
	}
	return &text
}
