package config

import (
	"fmt"
	"maps"
	"os"
)

// Source says where a value comes from, with the codes of DescribeConfigs (KIP-226).
type Source int8

// The sources of values.
const (
	DynamicTopic         Source = 1 // /config/topics/T
	DynamicBroker        Source = 2 // /config/brokers/N
	DynamicDefaultBroker Source = 3 // /config/brokers/<default>
	StaticFile           Source = 4 // properties file, environment or command line
	Default              Source = 5
)

var sourceNames = [...]string{"UNKNOWN", "DYNAMIC_TOPIC_CONFIG", "DYNAMIC_BROKER_CONFIG", "DYNAMIC_DEFAULT_BROKER_CONFIG",
	"STATIC_BROKER_CONFIG", "DEFAULT_CONFIG"}

// String is the source's name as Kafka's tools print it.
func (s Source) String() string { return sourceNames[s] }

type value struct {
	text   string
	source Source
}

// Snapshot is all settings of a broker at one moment. It is immutable; a change makes a new one.
type Snapshot struct {
	static  map[string]string // as loaded; what WithDynamic starts from
	cluster map[string]string // /config/brokers/<default>
	broker  map[string]string // /config/brokers/N
	values  map[string]value  // everything that is set, prefixed and unknown keys too
	parsed  []any             // by Info.index; nil: not set and without default
	topic   *Topic            // a topic without overrides
}

// Warning is about a setting that is accepted but deserves a look.
type Warning struct{ Key, Message string }

func (w Warning) String() string { return w.Key + ": " + w.Message }

// Load reads the settings: properties files in their order, then the environment (KAFKA_… as the container images map it), then
// overrides. The error is one line that names the first value that is not allowed, and says what is.
func Load(files []string, environ []string, overrides map[string]string) (*Snapshot, []Warning, error) {
	static, warnings, err := gather(files, environ, overrides)
	if err != nil {
		return nil, nil, err
	}
	s, more, errs := build(static)
	warnings = append(warnings, more...)
	switch len(errs) {
	case 0:
		return s, warnings, nil
	case 1:
		return nil, warnings, errs[0]
	}
	return nil, warnings, fmt.Errorf("%w (and %d more: see 'ottla config check')", errs[0], len(errs)-1)
}

func gather(files, environ []string, overrides map[string]string) (map[string]string, []Warning, error) {
	static := map[string]string{}
	var warnings []Warning
	for _, name := range files {
		read, more, err := readFile(name)
		if err != nil {
			return nil, nil, err
		}
		warnings = append(warnings, more...)
		maps.Copy(static, read)
	}
	maps.Copy(static, FromEnvironment(environ))
	maps.Copy(static, overrides)
	filled, err := fromImages(environ, static, os.ReadFile)
	if err != nil {
		return nil, nil, err
	}
	maps.Copy(static, filled)
	return static, warnings, askProviders(static, environ)
}

// FromMap makes a snapshot of static settings.
func FromMap(static map[string]string) (*Snapshot, error) {
	s, _, errs := build(static)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return s, nil
}

func build(static map[string]string) (*Snapshot, []Warning, []error) {
	static, warnings := translate(static)
	s := &Snapshot{static: static}
	errs := s.resolve()
	warnings = append(warnings, s.unknown()...)
	if len(errs) == 0 {
		errs = s.crossCheck()
	}
	if len(errs) > 0 {
		return nil, warnings, errs
	}
	return s, append(warnings, s.doubts()...), nil
}

// resolve lays the sources over each other and parses the result.
func (s *Snapshot) resolve() []error {
	s.values = map[string]value{}
	for _, layer := range s.layers() {
		for k, v := range layer.values {
			s.values[k] = value{v, layer.source}
		}
	}
	var errs []error
	s.parsed = make([]any, len(table))
	for _, i := range table {
		text := i.Default
		if v, set := s.values[i.Name]; set {
			text = v.text
		} else if i.Unset {
			continue
		}
		parsed, err := i.check(text)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.parsed[i.index] = parsed
	}
	for name, v := range s.values {
		if i := infoOf(name); i != nil && i.Name != name {
			if _, refused := i.read(v.text); refused != nil {
				errs = append(errs, &ValueError{Key: name, Value: masked(i, v.text), Want: i.want(), refusal: *refused})
			}
		}
	}
	if len(errs) > 0 {
		return errs
	}
	topic, err := defaultTopic(s)
	if err != nil {
		return []error{err}
	}
	s.topic = topic
	return nil
}

type layer struct {
	values map[string]string
	source Source
}

// layers are the places that values come from, the strongest last.
func (s *Snapshot) layers() [3]layer {
	return [...]layer{{s.static, StaticFile}, {s.cluster, DynamicDefaultBroker}, {s.broker, DynamicBroker}}
}

// Value returns a setting's text and where it comes from. ok is false for a key without any value.
func (s *Snapshot) Value(name string) (text string, source Source, ok bool) {
	if v, set := s.values[name]; set {
		return v.text, v.source, true
	}
	if i := byName[name]; i != nil && !i.Unset {
		return i.Default, Default, true
	}
	return "", Default, false
}

// masked is a value as people may see it.
func masked(i *Info, text string) string {
	if i.Sensitive() {
		return "***"
	}
	return text
}

// mentions reports whether a key is set, known or not.
func (s *Snapshot) mentions(name string) bool {
	_, set := s.values[name]
	return set
}
