package security

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"ottla/config"
)

// The mechanisms that are offered, by their registered names.
const (
	Plain       = "PLAIN"
	ScramSHA256 = "SCRAM-SHA-256"
	ScramSHA512 = "SCRAM-SHA-512"
)

var mechanisms = []string{Plain, ScramSHA256, ScramSHA512}

// UsesSASL reports whether a security protocol has clients log in.
func UsesSASL(protocol string) bool { return strings.HasPrefix(protocol, "SASL_") }

// UsesTLS reports whether a security protocol encrypts.
func UsesTLS(protocol string) bool { return strings.HasSuffix(protocol, "SSL") }

// logins are the login modules of a snapshot's listeners and mechanisms, and of the JAAS file.
type logins struct {
	file    map[string][]loginModule // contexts of the JAAS file; read once, as Java reads it
	fileErr error
}

func readLogins(getenv func(string) string) *logins {
	name := jaasFileOf(getenv("KAFKA_OPTS"))
	if name == "" {
		return &logins{}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return &logins{fileErr: fmt.Errorf("JAAS file of KAFKA_OPTS: %w", err)}
	}
	contexts, err := parseJAASFile(string(text))
	if err != nil {
		return &logins{fileErr: fmt.Errorf("JAAS file %s: %w", name, err)}
	}
	return &logins{file: contexts}
}

// of finds the login modules for a mechanism of a listener. The order is Kafka's: listener.name.NAME.MECHANISM.sasl.jaas.config,
// then the contexts NAME.KafkaServer and KafkaServer of the JAAS file; at last sasl.jaas.config without prefix, which Kafka does
// not look at. Nothing found is no error. Source: KIP-85.
func (l *logins) of(s *config.Snapshot, listener, mechanism string) ([]loginModule, error) {
	setting := "listener.name." + strings.ToLower(listener) + "." + strings.ToLower(mechanism) + "." + config.SASLJAASConfig.Name
	if text, _, set := s.Value(setting); set {
		return parseSetting(setting, text)
	}
	if l.fileErr != nil {
		return nil, l.fileErr
	}
	for _, context := range []string{strings.ToLower(listener) + ".KafkaServer", "KafkaServer"} {
		if modules, ok := l.file[context]; ok {
			return modules, nil
		}
	}
	if text := config.SASLJAASConfig.For(s, listener); text != "" {
		return parseSetting(config.SASLJAASConfig.Name, string(text))
	}
	return nil, nil
}

func parseSetting(key, text string) ([]loginModule, error) {
	modules, err := parseJAAS(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return modules, nil
}

func moduleOf(mechanism string) string {
	if mechanism == Plain {
		return plainModule
	}
	return scramModule
}

// listenerLogins is what a listener needs to let clients log in, and to log in itself at another broker's.
type listenerLogins struct {
	mechanisms []string
	plain      *plainUsers
}

// loginsOf prepares a SASL listener; the error says what is missing in the settings.
func (l *logins) loginsOf(s *config.Snapshot, listener string) (*listenerLogins, error) {
	out := &listenerLogins{}
	for _, m := range config.SASLEnabledMechanisms.For(s, listener) {
		if !slices.Contains(mechanisms, m) {
			return nil, fmt.Errorf("listener %s: SASL mechanism %s is not available; sasl.enabled.mechanisms may name %s", listener, m, strings.Join(mechanisms, ", "))
		}
		out.mechanisms = append(out.mechanisms, m)
		modules, err := l.of(s, listener, m)
		if err != nil {
			return nil, err
		}
		if m != Plain {
			continue
		}
		if out.plain, err = plainUsersOf(modules); err != nil {
			return nil, fmt.Errorf("listener %s: PLAIN: %w; set listener.name.%s.plain.sasl.jaas.config, or name a JAAS file in KAFKA_OPTS",
				listener, err, strings.ToLower(listener))
		}
	}
	return out, nil
}

// clientOf finds name and password with which this broker logs in at others: of the login module of the mechanism, else of the first
// module that has a name.
func clientOf(modules []loginModule, mechanism string) (name string, password config.Password, err error) {
	own := slices.IndexFunc(modules, func(m loginModule) bool { return m.name == moduleOf(mechanism) && m.options["username"] != "" })
	if own < 0 {
		own = slices.IndexFunc(modules, func(m loginModule) bool { return m.options["username"] != "" })
	}
	if own < 0 {
		return "", "", errors.New("no login module has username and password for logging in at other brokers")
	}
	return modules[own].options["username"], config.Password(modules[own].options["password"]), nil
}

// cache keeps what was made of a snapshot until the next one.
type cache[T any] struct {
	mu   sync.Mutex
	of   *config.Snapshot
	made map[string]T
}

func (c *cache[T]) get(s *config.Snapshot, name string, make func() (T, error)) (T, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of != s {
		c.of, c.made = s, map[string]T{}
	}
	if v, ok := c.made[name]; ok {
		return v, nil
	}
	v, err := make()
	if err == nil {
		c.made[name] = v
	}
	return v, err
}
