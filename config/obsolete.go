package config

import (
	"maps"
	"slices"
	"strings"
)

// translate maps the settings of older releases that people still have, and fills broker.id and node.id from each other as Kafka does.
func translate(in map[string]string) (map[string]string, []Warning) {
	out := map[string]string{}
	for k, v := range in {
		out[k] = trim(v)
	}
	var warnings []Warning
	warnings = append(warnings, translateAddress(out, "host.name", "port", "listeners")...)
	warnings = append(warnings, translateAddress(out, "advertised.host.name", "advertised.port", "advertised.listeners")...)
	for _, name := range slices.Sorted(maps.Keys(out)) {
		if why := gone[name]; why != "" {
			delete(out, name)
			warnings = append(warnings, Warning{name, "is obsolete and has no effect: " + why})
		}
		if i := byName[name]; i != nil && i.Dynamic {
			delete(out, name)
			warnings = append(warnings, Warning{name, "has an effect at run time only: set it with kafka-configs"})
		}
	}
	if id, set := out[BrokerID.Name]; set && out[NodeID.Name] == "" {
		out[NodeID.Name] = id
	} else if id, set := out[NodeID.Name]; set && out[BrokerID.Name] == "" {
		out[BrokerID.Name] = id
	}
	return out, warnings
}

// translateAddress turns a host and a port, as settings were until Kafka 0.9, into a listener.
func translateAddress(out map[string]string, host, port, target string) []Warning {
	h, hostSet := out[host]
	p, portSet := out[port]
	delete(out, host)
	delete(out, port)
	if !hostSet && !portSet {
		return nil
	}
	used := host
	if !hostSet {
		used = port
	}
	if out[target] != "" {
		return []Warning{{used, "is obsolete and has no effect, because " + target + " is set"}}
	}
	if p == "" {
		p = "9092"
	}
	if strings.Contains(h, ":") {
		h = "[" + h + "]"
	}
	value := "PLAINTEXT://" + h + ":" + p
	if target == "advertised.listeners" && advertisesOthers(out) {
		return []Warning{{used, "is obsolete and has no effect, because listeners names others than PLAINTEXT; set advertised.listeners"}}
	}
	out[target] = value
	return []Warning{{used, "is obsolete; taken as " + target + "=" + value}}
}

// advertisesOthers reports whether listeners is set to something that one PLAINTEXT address cannot stand for.
func advertisesOthers(out map[string]string) bool {
	text, set := out["listeners"]
	return set && (strings.Contains(text, ",") || !strings.HasPrefix(strings.ToUpper(text), "PLAINTEXT://"))
}

// gone are settings without successor.
var gone = map[string]string{
	"zookeeper.sync.time.ms":        "ZooKeeper's followers need no such allowance",
	"replica.lag.max.messages":      "replicas are judged by replica.lag.time.max.ms alone",
	"quota.producer.default":        "quotas are set with kafka-configs",
	"quota.consumer.default":        "quotas are set with kafka-configs",
	"log.retention.hours.per.topic": "topics have settings of their own",
	"log.retention.bytes.per.topic": "topics have settings of their own",
	"topic.flush.intervals.ms":      "topics have settings of their own",
	"log.default.flush.interval.ms": "the name is log.flush.interval.ms",
}
