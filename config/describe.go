package config

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// What DescribeConfigs tells, as Kafka 3.9 tells it, with its peculiarities: a value that comes only from a coarser key of the file
// (log.retention.hours behind retention.ms) is told as a default without synonyms.

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
		if !i.Internal && (!i.Dynamic && !i.Foreign || s.mentions(i.Name)) {
			out = append(out, s.describe(i.Name))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		if byName[name] == nil {
			out = append(out, s.describe(name))
		}
	}
	return out
}

// DescribeClusterDefault lists what is set for all brokers in ZooKeeper.
func DescribeClusterDefault(s *Snapshot) []Entry {
	var out []Entry
	for _, name := range slices.Sorted(maps.Keys(s.cluster)) {
		e := s.describe(name)
		e.Value = shown(infoOf(name), s.cluster[name])
		e.Synonyms = slices.DeleteFunc(e.Synonyms, func(y Synonym) bool { return y.Source != DynamicDefaultBroker })
		e.Source = DynamicDefaultBroker
		out = append(out, e)
	}
	return out
}

// describe tells one broker setting. What nobody knows may be a secret.
func (s *Snapshot) describe(name string) Entry {
	i := infoOf(name)
	if i != nil && i.Foreign {
		i = nil
	}
	e := Entry{Name: name, Source: Default, Type: Unknown, ReadOnly: true, Sensitive: true, Synonyms: s.synonyms(name, i)}
	if i != nil {
		e.Type, e.Sensitive, e.Doc = i.Type, i.Sensitive(), i.Doc
		e.ReadOnly = i.Mode == ReadOnly || i.Name != name || i.Dynamic
	}
	if text, _, set := s.Value(name); set {
		e.Value = shown(i, text)
	}
	if len(e.Synonyms) > 0 {
		e.Source = e.Synonyms[0].Source
	}
	return e
}

// synonyms are the places that a value could come from: each layer with the names of the key in it, uppermost first. Names before
// the key's own first one are left out, as Kafka does.
func (s *Snapshot) synonyms(name string, i *Info) []Synonym {
	names := []string{name}
	switch {
	case i == nil:
	case i.Name != name:
		names = append(names, i.Name)
	case i != LogDirs.Info: // Kafka tells nothing of log.dir here
		names = append(names, i.Synonyms...)
	}
	var out []Synonym
	layers := s.layers()
	for _, layer := range slices.Backward(layers[:]) {
		for _, n := range names {
			if text, ok := layer.values[n]; ok {
				out = append(out, Synonym{n, hidden(i, text), layer.source})
			}
		}
	}
	for _, n := range names {
		if d := byName[n]; d != nil && !d.Unset && !d.Dynamic && !d.Foreign {
			out = append(out, Synonym{n, hidden(i, d.Default), Default})
		}
	}
	first := slices.IndexFunc(out, func(y Synonym) bool { return y.Name == name })
	if first < 0 {
		return nil
	}
	return out[first:]
}

// DescribeTopic lists a topic's settings.
func DescribeTopic(t *Topic) []Entry {
	var out []Entry
	for _, i := range topicTable {
		v := t.values[i.index]
		e := Entry{Name: i.Name, Value: shown(i, v.text), Source: Default, Type: i.Type, Doc: i.Doc}
		if v.source == DynamicTopic {
			e.Synonyms = append(e.Synonyms, Synonym{i.Name, e.Value, DynamicTopic})
		}
		if len(i.from) > 0 {
			e.Synonyms = append(e.Synonyms, t.broker.synonyms(i.from[0].Name, i.from[0].Info)...)
		}
		if len(e.Synonyms) > 0 {
			e.Source = e.Synonyms[0].Source
		}
		out = append(out, e)
	}
	for _, name := range slices.Sorted(maps.Keys(t.overrides)) {
		if topicByName[name] == nil {
			out = append(out, Entry{Name: name, Source: DynamicTopic, Type: Unknown, Sensitive: true, Synonyms: []Synonym{{name, nil, DynamicTopic}}})
		}
	}
	return out
}

// hidden is a text, or nil for a secret.
func hidden(i *Info, text string) *string {
	if i == nil || i.Sensitive() {
		return nil
	}
	return &text
}

// shown is a value in the form that Kafka gives it after parsing.
func shown(i *Info, text string) *string {
	if i == nil || i.Sensitive() {
		return nil
	}
	switch i.Type {
	case Boolean:
		text = strings.ToLower(text)
	case Int, Short, Long:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			text = strconv.FormatInt(n, 10)
		}
	case Double:
		if f, why := readDouble(text); why == "" {
			text = javaDouble(f)
		}
	case List:
		list, _ := readList(text)
		text = strings.Join(list, ",")
	}
	return &text
}
