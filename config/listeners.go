package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Listener is one entry of listeners or advertised.listeners.
type Listener struct {
	Name     string // upper case
	Protocol string // PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
	Host     string // "" for all addresses, or for the machine's own name when advertised
	Port     int
}

// Listeners returns where the broker listens.
func Listeners(s *Snapshot) ([]Listener, error) {
	text, _, _ := s.Value(ListenersKey.Name)
	list, err := parseListeners(s, ListenersKey.Name, text)
	if err != nil {
		return nil, err
	}
	ports := map[int]string{}
	for _, l := range list {
		if other, taken := ports[l.Port]; taken && l.Port != 0 {
			return nil, &ValueError{ListenersKey.Name, text, "a port of its own for each listener: " + other + " and " + l.Name + " share " + strconv.Itoa(l.Port)}
		}
		ports[l.Port] = l.Name
	}
	return list, nil
}

// AdvertisedListeners returns what the broker tells others about where it listens.
func AdvertisedListeners(s *Snapshot) ([]Listener, error) {
	listeners, err := Listeners(s)
	if err != nil {
		return nil, err
	}
	text, _, ok := s.Value(AdvertisedListenersKey.Name)
	if !ok || text == "" {
		for i := range listeners {
			if listeners[i].Host == "0.0.0.0" || listeners[i].Host == "::" {
				return nil, &ValueError{ListenersKey.Name, listeners[i].Name + "://" + listeners[i].Host,
					"an address that others can reach; set advertised.listeners, which is taken from listeners when unset"}
			}
		}
		return listeners, nil
	}
	advertised, err := parseListeners(s, AdvertisedListenersKey.Name, text)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, l := range listeners {
		known[l.Name] = true
	}
	for _, l := range advertised {
		if !known[l.Name] {
			return nil, &ValueError{AdvertisedListenersKey.Name, text, "names from listeners only; " + l.Name + " is not among them"}
		}
		if l.Host == "0.0.0.0" || l.Host == "::" {
			return nil, &ValueError{AdvertisedListenersKey.Name, text, "addresses that others can reach, not " + l.Host}
		}
	}
	return advertised, nil
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
		for _, l := range listeners {
			if l.Name == name {
				return name, nil
			}
		}
		return "", &ValueError{InterBrokerListenerName.Name, name, "the name of one of listeners"}
	}
	protocol := SecurityInterBrokerProtocol.Of(s)
	for _, l := range listeners {
		if l.Name == protocol {
			return l.Name, nil
		}
	}
	return "", &ValueError{SecurityInterBrokerProtocol.Name, protocol, "a protocol that names one of listeners, or set inter.broker.listener.name"}
}

func parseListeners(s *Snapshot, key, text string) ([]Listener, error) {
	protocols, err := protocolMap(s)
	if err != nil {
		return nil, err
	}
	const want = "NAME://host:port,…"
	var out []Listener
	seen := map[string]bool{}
	for entry := range strings.SplitSeq(text, ",") {
		name, address, ok := strings.Cut(strings.TrimSpace(entry), "://")
		if !ok {
			return nil, &ValueError{key, text, want}
		}
		name = strings.ToUpper(name)
		host, portText, err := net.SplitHostPort(address)
		port, portErr := strconv.Atoi(portText)
		if err != nil || portErr != nil || port < 0 || port > 65535 || name == "" {
			return nil, &ValueError{key, text, want}
		}
		if seen[name] {
			return nil, &ValueError{key, text, "each name once; " + name + " comes twice"}
		}
		seen[name] = true
		protocol, ok := protocols[name]
		if !ok {
			return nil, &ValueError{key, text, "names that listener.security.protocol.map knows; " + name + " is not among them"}
		}
		out = append(out, Listener{Name: name, Protocol: protocol, Host: host, Port: port})
	}
	return out, nil
}

func protocolMap(s *Snapshot) (map[string]string, error) {
	text := ListenerSecurityProtocolMap.Of(s)
	out := map[string]string{}
	for entry := range strings.SplitSeq(text, ",") {
		name, protocol, ok := strings.Cut(strings.TrimSpace(entry), ":")
		protocol = strings.ToUpper(strings.TrimSpace(protocol))
		if !ok || !securityProtocols.ok(protocol) {
			return nil, &ValueError{ListenerSecurityProtocolMap.Name, text, "NAME:PROTOCOL,… with protocols " + securityProtocols.words}
		}
		out[strings.ToUpper(strings.TrimSpace(name))] = protocol
	}
	return out, nil
}

var securityProtocols = oneOf("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
