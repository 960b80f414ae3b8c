package config

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
)

// Listener is one entry of listeners or advertised.listeners.
type Listener struct {
	Name     string // upper case
	Protocol string // PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
	Host     string // "" for all addresses, or for the machine's own name when advertised; IPv6 without brackets
	Port     int
}

// Listeners returns where the broker listens.
func Listeners(s *Snapshot) ([]Listener, error) {
	text, _, _ := s.Value(ListenersKey.Name)
	list, err := parseListeners(s, ListenersKey.Name, text)
	if err != nil {
		return nil, err
	}
	for i, l := range list {
		for _, other := range list[:i] {
			if l.Port != 0 && l.Port == other.Port && !differentFamilies(l.Host, other.Host) {
				return nil, unfit(ListenersKey.Name, text, "a port of its own for each listener: %s and %s share %d", other.Name, l.Name, l.Port)
			}
		}
	}
	return list, nil
}

// differentFamilies reports whether one host is an IPv4 and the other an IPv6 address: two such listeners may share a port (KIP-797).
func differentFamilies(a, b string) bool {
	x, y := net.ParseIP(a), net.ParseIP(b)
	return x != nil && y != nil && (x.To4() == nil) != (y.To4() == nil)
}

// AdvertisedListeners returns what the broker tells others about where it listens.
func AdvertisedListeners(s *Snapshot) ([]Listener, error) {
	listeners, err := Listeners(s)
	if err != nil {
		return nil, err
	}
	text, _, set := s.Value(AdvertisedListenersKey.Name)
	if !set {
		for _, l := range listeners {
			if l.Host == "0.0.0.0" {
				return nil, unfit(ListenersKey.Name, l.Name+"://"+l.Host, "an address that others can reach; set advertised.listeners, which is taken from listeners when unset")
			}
		}
		return listeners, nil
	}
	advertised, err := parseListeners(s, AdvertisedListenersKey.Name, text)
	if err != nil {
		return nil, err
	}
	for _, l := range advertised {
		if !named(listeners, l.Name) {
			return nil, unfit(AdvertisedListenersKey.Name, text, "names from listeners only; %s is not among them", l.Name)
		}
		if l.Host == "0.0.0.0" {
			return nil, unfit(AdvertisedListenersKey.Name, text, "addresses that others can reach, not 0.0.0.0")
		}
	}
	return advertised, nil
}

func named(list []Listener, name string) bool {
	return slices.ContainsFunc(list, func(l Listener) bool { return l.Name == name })
}

// InterBrokerListener is the name of the listener on which brokers talk to each other.
func InterBrokerListener(s *Snapshot) (string, error) {
	listeners, err := Listeners(s)
	if err != nil {
		return "", err
	}
	if name := strings.ToUpper(InterBrokerListenerName.Of(s)); name != "" {
		if SecurityInterBrokerProtocol.IsSet(s) {
			return "", fmt.Errorf("%s and %s exclude each other: set one of them", InterBrokerListenerName.Name, SecurityInterBrokerProtocol.Name)
		}
		if !named(listeners, name) {
			return "", unfit(InterBrokerListenerName.Name, name, "the name of one of listeners")
		}
		return name, nil
	}
	protocol := SecurityInterBrokerProtocol.Of(s)
	if !named(listeners, protocol) {
		return "", unfit(SecurityInterBrokerProtocol.Name, protocol, "a protocol that names one of listeners, or set inter.broker.listener.name")
	}
	return protocol, nil
}

// parseListeners reads NAME://host:port,… The host may be empty, a name, an IPv4 address or an IPv6 address, with or without brackets.
func parseListeners(s *Snapshot, key, text string) ([]Listener, error) {
	protocols, err := protocolMap(s)
	if err != nil {
		return nil, err
	}
	const want = "NAME://host:port with commas between"
	var out []Listener
	for entry := range strings.SplitSeq(text, ",") {
		name, address, ok := strings.Cut(trim(entry), "://")
		colon := strings.LastIndexByte(address, ':')
		if !ok || name == "" || colon < 0 {
			return nil, unfit(key, text, want)
		}
		host, hostOK := hostOf(address[:colon])
		port, err := strconv.ParseUint(address[colon+1:], 10, 16)
		if !hostOK || err != nil {
			return nil, unfit(key, text, want+", ports from 0 to 65535")
		}
		name = strings.ToUpper(name)
		if named(out, name) {
			return nil, unfit(key, text, "each name once; %s comes twice", name)
		}
		protocol, known := protocols[name]
		if !known {
			return nil, unfit(key, text, "names that listener.security.protocol.map knows; %s is not among them", name)
		}
		out = append(out, Listener{Name: name, Protocol: protocol, Host: host, Port: int(port)})
	}
	return out, nil
}

// hostOf takes the brackets off an IPv6 address, and refuses what cannot be a host.
func hostOf(s string) (string, bool) {
	if inner, ok := strings.CutPrefix(s, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		return inner, ok && strings.Contains(inner, ":") && !strings.ContainsAny(inner, "[]/@ ")
	}
	return s, !strings.ContainsAny(s, "[]/@ \t\n")
}

// protocolMap reads NAME:PROTOCOL,… Of a name that comes twice the last one counts, as in Kafka.
func protocolMap(s *Snapshot) (map[string]string, error) {
	text := ListenerSecurityProtocolMap.Of(s)
	out := map[string]string{}
	for entry := range strings.SplitSeq(text, ",") {
		if entry = trim(entry); entry == "" {
			continue
		}
		colon := strings.LastIndexByte(entry, ':')
		protocol := strings.ToUpper(trim(entry[colon+1:]))
		if colon < 1 || securityProtocols.judge(protocol) != nil {
			return nil, unfit(ListenerSecurityProtocolMap.Name, text, "NAME:PROTOCOL with commas between; protocols are %s", strings.TrimPrefix(securityProtocols.words, "one of "))
		}
		out[strings.ToUpper(trim(entry[:colon]))] = protocol
	}
	return out, nil
}

var securityProtocols = oneOf("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
