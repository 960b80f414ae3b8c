package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/magiconair/properties"
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

type value struct {
	text   string
	source Source
}

// Snapshot is all settings of a broker at one moment. It is immutable; a change makes a new one.
type Snapshot struct {
	static  map[string]string // as loaded; what WithDynamic starts from
	values  map[string]value  // everything that is set, prefixed and unknown keys too
	cluster map[string]string // /config/brokers/<default>
	broker  map[string]string // /config/brokers/N
	parsed  []any             // by Info.index; nil: not set and without default
}

// Warning is about a setting that is accepted but deserves a look.
type Warning struct{ Key, Message string }

func (w Warning) String() string { return w.Key + ": " + w.Message }

// Load reads the settings: properties files in their order, then the environment (KAFKA_… as the container images map it), then
// overrides. The error names the first value that is not allowed.
func Load(files []string, environ []string, overrides map[string]string) (*Snapshot, []Warning, error) {
	static := map[string]string{}
	for _, name := range files {
		read, err := ReadFile(name)
		if err != nil {
			return nil, nil, err
		}
		maps.Copy(static, read)
	}
	maps.Copy(static, FromEnvironment(environ))
	maps.Copy(static, overrides)
	return build(static)
}

// FromMap makes a snapshot of static settings.
func FromMap(static map[string]string) (*Snapshot, error) {
	s, _, err := build(static)
	return s, err
}

func build(static map[string]string) (*Snapshot, []Warning, error) {
	static, warnings := translateObsolete(static)
	s := &Snapshot{static: static}
	if err := s.resolve(); err != nil {
		return nil, warnings, err
	}
	warnings = append(warnings, s.unknown()...)
	if err := s.crossCheck(); err != nil {
		return nil, warnings, err
	}
	return s, warnings, nil
}

// resolve lays the sources over each other and parses the result.
func (s *Snapshot) resolve() error {
	s.values = map[string]value{}
	for k, v := range s.static {
		s.values[k] = value{v, StaticFile}
	}
	for k, v := range s.cluster {
		s.values[k] = value{v, DynamicDefaultBroker}
	}
	for k, v := range s.broker {
		s.values[k] = value{v, DynamicBroker}
	}
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
			return err
		}
		s.parsed[i.index] = parsed
	}
	return nil
}

// WithDynamic lays the settings of ZooKeeper over the static ones. What is not allowed, or cannot change at run time, is left
// out and warned about: a bad znode must not stop a broker.
func (s *Snapshot) WithDynamic(clusterDefault, perBroker map[string]string) (*Snapshot, []Warning, error) {
	var warnings []Warning
	admit := func(in map[string]string, forAll bool) map[string]string {
		out := map[string]string{}
		for _, k := range slices.Sorted(maps.Keys(in)) {
			if err := CheckDynamic(k, in[k], forAll); err != nil {
				warnings = append(warnings, Warning{k, err.Error()})
				continue
			}
			out[k] = in[k]
		}
		return out
	}
	next := &Snapshot{static: s.static, cluster: admit(clusterDefault, true), broker: admit(perBroker, false)}
	if err := next.resolve(); err != nil {
		return nil, warnings, err
	}
	if err := next.crossCheck(); err != nil {
		return nil, warnings, err
	}
	return next, warnings, nil
}

// CheckDynamic judges one dynamic setting: for all brokers, or for one.
func CheckDynamic(name, text string, forAll bool) error {
	i, ok := byName[dynamicName(name)]
	switch {
	case !ok:
		return nil // kept for plugins, as Kafka keeps it
	case i.Mode == ReadOnly:
		return fmt.Errorf("%s cannot be changed at run time", name)
	case i.Mode == PerBroker && forAll && dynamicName(name) == name:
		return fmt.Errorf("%s can be changed for single brokers only", name)
	}
	_, err := i.check(text)
	return err
}

// dynamicName strips a listener's prefix.
func dynamicName(name string) string {
	if rest, ok := strings.CutPrefix(name, "listener.name."); ok {
		if _, key, ok := strings.Cut(rest, "."); ok {
			return key
		}
	}
	return name
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

// unknown warns about keys that nobody knows.
func (s *Snapshot) unknown() []Warning {
	var out []Warning
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		if byName[name] != nil || knownPrefix(name) {
			continue
		}
		w := Warning{name, "is not a known setting and has no effect"}
		if near := nearest(name); near != "" {
			w.Message += "; did you mean " + near + "?"
		}
		out = append(out, w)
	}
	return out
}

// knownPrefix recognises settings that name a listener or a plug-in's own.
func knownPrefix(name string) bool {
	if strings.HasPrefix(name, "listener.name.") {
		return byName[dynamicName(name)] != nil || strings.Contains(dynamicName(name), ".")
	}
	for _, p := range []string{"authorizer.", "super.users", "allow.everyone.if.no.acl.found", "kafka.metrics.", "metric."} {
		if strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

// ReadFile reads a Java properties file. ${…} stays as it is: that syntax belongs to Kafka's configuration providers.
func ReadFile(name string) (map[string]string, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	read, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("settings in %s: %w", name, err)
	}
	return read, nil
}

// Parse reads the text of a Java properties file.
func Parse(text []byte) (map[string]string, error) {
	loader := properties.Loader{Encoding: properties.UTF8, DisableExpansion: true}
	p, err := loader.LoadBytes(text)
	if err != nil {
		return nil, err
	}
	return p.Map(), nil
}

// FromEnvironment maps variables as the common images do: KAFKA_A_B is a.b, two underscores are one, three a dash; with
// KAFKA_CFG_ the same. Variables that configure the images or the JVM are left alone.
func FromEnvironment(environ []string) map[string]string {
	out := map[string]string{}
	for _, pass := range []string{"KAFKA_", "KAFKA_CFG_"} { // the longer prefix wins
		for _, e := range environ {
			name, text, ok := strings.Cut(e, "=")
			rest, mapped := strings.CutPrefix(name, pass)
			if !ok || !mapped || rest == "" || notSettings[name] || pass == "KAFKA_" && strings.HasPrefix(rest, "CFG_") {
				continue
			}
			out[keyOfVariable(rest)] = text
		}
	}
	return out
}

var notSettings = map[string]bool{
	"KAFKA_VERSION": true, "KAFKA_HEAP_OPTS": true, "KAFKA_LOG4J_OPTS": true, "KAFKA_OPTS": true, "KAFKA_JMX_OPTS": true,
	"KAFKA_JVM_PERFORMANCE_OPTS": true, "KAFKA_GC_LOG_OPTS": true, "KAFKA_LOG4J_ROOT_LOGLEVEL": true, "KAFKA_LOG4J_LOGGERS": true,
	"KAFKA_TOOLS_LOG4J_LOGLEVEL": true, "KAFKA_JMX_HOSTNAME": true, "KAFKA_JMX_PORT": true, "KAFKA_HOME": true,
	"KAFKA_CLIENT_USERS": true, "KAFKA_CLIENT_PASSWORDS": true, "KAFKA_INTER_BROKER_USER": true, "KAFKA_INTER_BROKER_PASSWORD": true,
	"KAFKA_ZOOKEEPER_USER": true, "KAFKA_ZOOKEEPER_PASSWORD": true, "KAFKA_ZOOKEEPER_PROTOCOL": true, "KAFKA_TLS_TYPE": true,
	"KAFKA_ENABLE_KRAFT": true, "KAFKA_KRAFT_CLUSTER_ID": true,
}

func keyOfVariable(rest string) string {
	var b strings.Builder
	for i := 0; i < len(rest); {
		n := 0
		for i+n < len(rest) && rest[i+n] == '_' {
			n++
		}
		switch {
		case n == 0:
			b.WriteByte(rest[i])
			i++
		case n >= 3:
			b.WriteByte('-')
			i += 3
		case n == 2:
			b.WriteByte('_')
			i += 2
		default:
			b.WriteByte('.')
			i++
		}
	}
	return strings.ToLower(b.String())
}

// translateObsolete maps settings of older releases that people still have.
func translateObsolete(in map[string]string) (map[string]string, []Warning) {
	out := maps.Clone(in)
	if out == nil {
		out = map[string]string{}
	}
	var warnings []Warning
	take := func(host, port, target string) {
		h, p := out[host], out[port]
		_, hostSet := out[host]
		_, portSet := out[port]
		delete(out, host)
		delete(out, port)
		if !hostSet && !portSet {
			return
		}
		used := host
		if !hostSet {
			used = port
		}
		if out[target] != "" {
			warnings = append(warnings, Warning{used, "is obsolete and has no effect because " + target + " is set"})
			return
		}
		if p == "" {
			p = "9092"
		}
		out[target] = "PLAINTEXT://" + h + ":" + p
		warnings = append(warnings, Warning{used, "is obsolete; taken as " + target + "=" + out[target]})
	}
	take("host.name", "port", "listeners")
	take("advertised.host.name", "advertised.port", "advertised.listeners")
	return out, warnings
}

// crossCheck judges settings that must fit each other.
func (s *Snapshot) crossCheck() error {
	if v, _, _ := s.Value(ZookeeperConnect.Name); strings.TrimSpace(v) == "" {
		return errors.New("zookeeper.connect is not set: name the ensemble, for example zookeeper.connect=localhost:2181")
	}
	if id, reserved := BrokerID.Of(s), ReservedBrokerMaxID.Of(s); BrokerIDGenerationEnable.Of(s) && id > reserved {
		return &ValueError{BrokerID.Name, fmt.Sprint(id), fmt.Sprintf("at most reserved.broker.max.id (%d) while broker.id.generation.enable=true", reserved)}
	} else if !BrokerIDGenerationEnable.Of(s) && id < 0 {
		return &ValueError{BrokerID.Name, fmt.Sprint(id), "0 or more when broker.id.generation.enable=false"}
	}
	if len(LogDirs.Of(s)) == 0 {
		return errors.New("log.dirs names no directory")
	}
	if wait, lag := ReplicaFetchWaitMaxMs.Of(s), ReplicaLagTimeMaxMs.Of(s); wait > lag {
		return &ValueError{ReplicaFetchWaitMaxMs.Name, fmt.Sprint(wait.Milliseconds()), fmt.Sprintf("at most replica.lag.time.max.ms (%d)", lag.Milliseconds())}
	}
	if LogRetentionMs.Of(s) == 0 {
		return &ValueError{LogRetentionMs.Name, "0", "-1 (unlimited) or at least 1"}
	}
	_, err := InterBrokerListener(s)
	if err != nil {
		return err
	}
	_, err = AdvertisedListeners(s)
	return err
}

// nearest is the known name that a misspelt one most likely means, or "".
func nearest(name string) string {
	best, bestDistance := "", 1+len(name)/5
	for _, i := range table {
		if d := distance(name, i.Name, bestDistance); d <= bestDistance && (best == "" || d < bestDistance) {
			best, bestDistance = i.Name, d
		}
	}
	return best
}

// distance is the edit distance of two names, or limit+1 when it is more than limit.
func distance(a, b string, limit int) int {
	if len(a)-len(b) > limit || len(b)-len(a) > limit {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		previous := row[0]
		row[0] = i + 1
		for j := range len(b) {
			d := previous
			if a[i] != b[j] {
				d = min(previous, row[j], row[j+1]) + 1
			}
			previous, row[j+1] = row[j+1], d
		}
	}
	return row[len(b)]
}

// retention is log.retention.ms where it is not set: minutes win over hours; any negative span is unlimited.
func retention(s *Snapshot) int64 {
	if LogRetentionMinutes.IsSet(s) {
		return span(LogRetentionMinutes.Of(s), 60_000)
	}
	return span(LogRetentionHours.Of(s), 3_600_000)
}

func span(n int, factor int64) int64 {
	if n < 0 {
		return -1
	}
	return int64(n) * factor
}
