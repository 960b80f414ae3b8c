package config

import (
	"fmt"
	"maps"
	"slices"
)

// WithDynamic lays the settings of ZooKeeper over the static ones: clusterDefault is /config/brokers/<default>, perBroker
// /config/brokers/N. What is not allowed, cannot change at run time, or does not fit the rest, is left out and warned about: a bad
// znode must not stop a broker.
func (s *Snapshot) WithDynamic(clusterDefault, perBroker map[string]string) (*Snapshot, []Warning, error) {
	cluster, warnings := admit(clusterDefault, true)
	broker, more := admit(perBroker, false)
	warnings = append(warnings, more...)
	next, err := s.with(cluster, broker)
	if err == nil {
		return next, warnings, nil
	}
	return s.withFitting(cluster, broker, warnings)
}

func (s *Snapshot) with(cluster, broker map[string]string) (*Snapshot, error) {
	next := &Snapshot{static: s.static, cluster: cluster, broker: broker}
	errs := next.resolve()
	if len(errs) == 0 {
		errs = next.crossCheck()
	}
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return next, nil
}

// withFitting takes the settings one by one and leaves out those that do not fit the ones before.
func (s *Snapshot) withFitting(cluster, broker map[string]string, warnings []Warning) (*Snapshot, []Warning, error) {
	fitting := [2]map[string]string{{}, {}}
	next, err := s.with(nil, nil)
	for n, layer := range [...]map[string]string{cluster, broker} {
		for _, k := range slices.Sorted(maps.Keys(layer)) {
			fitting[n][k] = layer[k]
			with, err := s.with(maps.Clone(fitting[0]), maps.Clone(fitting[1]))
			if err != nil {
				delete(fitting[n], k)
				warnings = append(warnings, Warning{k, "is left out: " + err.Error()})
				continue
			}
			next = with
		}
	}
	return next, warnings, err
}

func admit(in map[string]string, forAll bool) (map[string]string, []Warning) {
	out := map[string]string{}
	var warnings []Warning
	for _, k := range slices.Sorted(maps.Keys(in)) {
		text := trim(in[k])
		if err := CheckDynamic(k, text, forAll); err != nil {
			warnings = append(warnings, Warning{k, "is left out: " + err.Error()})
			continue
		}
		out[k] = text
	}
	return out, warnings
}

// ValidateDynamic judges all settings that /config/brokers/N, or with forAll /config/brokers/<default>, would have after a change:
// each for itself, and whether they fit the rest. The text is the one for INVALID_REQUEST, which Kafka answers here.
func ValidateDynamic(s *Snapshot, settings map[string]string, forAll bool) error {
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		if err := CheckDynamic(k, settings[k], forAll); err != nil {
			return err
		}
	}
	trimmed, _ := admit(settings, forAll)
	cluster, broker := s.cluster, trimmed
	if forAll {
		cluster, broker = trimmed, s.broker
	}
	_, err := s.with(cluster, broker)
	return err
}

// CheckDynamic judges one dynamic setting, for all brokers or for one; the text is worded as Kafka's. Unknown settings are kept for
// plug-ins, as Kafka keeps them.
func CheckDynamic(name, text string, forAll bool) error {
	i := infoOf(name)
	prefixed := i != nil && i.Name != name
	if base, ok := listenerBase(name); ok && forAll && !clusterListenerKeys[base] {
		return notForAll(name)
	}
	switch {
	case i == nil:
		return nil
	case i.Mode == ReadOnly && !prefixed:
		return fmt.Errorf("Cannot update these configs dynamically: Set(%s)", name) //nolint:staticcheck // Kafka's words
	case perListener[name]:
		return fmt.Errorf("These security configs can be dynamically updated only per-listener using the listener prefix: Set(%s)", name) //nolint:staticcheck // Kafka's words
	case i.Mode == PerBroker && forAll:
		return notForAll(name)
	}
	if _, err := i.check(text); err != nil {
		return kafkaError(err, name)
	}
	return nil
}

func notForAll(name string) error {
	return fmt.Errorf("Cannot update these configs at default cluster level, broker id must be specified: Set(%s)", name) //nolint:staticcheck // Kafka's words
}

// clusterListenerKeys may be set for a listener of all brokers at once; all other keys of a listener only for one broker.
var clusterListenerKeys = setOf("max.connections max.connection.creation.rate num.network.threads")

// perListener change at run time with a listener's prefix only. Source: KIP-226.
var perListener = setOf(`ssl.keystore.type ssl.keystore.location ssl.keystore.password ssl.key.password ssl.keystore.certificate.chain
	ssl.keystore.key ssl.truststore.type ssl.truststore.location ssl.truststore.password ssl.truststore.certificates`)

// kafkaError words a refusal as Kafka does.
func kafkaError(err error, name string) error {
	e, ok := err.(*ValueError)
	if !ok {
		return err
	}
	renamed := *e
	renamed.Key = name
	return fmt.Errorf("%s", renamed.Kafka())
}
