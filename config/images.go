package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
)

// Variables of confluentinc/cp-kafka and bitnami/kafka that stand for several settings, or for one by way of a file. What they say only
// fills gaps: a setting of its own name wins.

const (
	cpSecrets    = "/etc/kafka/secrets"
	bitnamiCerts = "/opt/bitnami/kafka/config/certs"
)

// fromImages is what such variables stand for. given are the settings at hand, read reads a file.
func fromImages(environ []string, given map[string]string, read func(name string) ([]byte, error)) (map[string]string, error) {
	env := map[string]string{}
	for _, e := range environ {
		if name, text, ok := strings.Cut(e, "="); ok && text != "" {
			env[name] = text
		}
	}
	out := map[string]string{}
	if advertised := env["KAFKA_ADVERTISED_LISTENERS"]; advertised != "" && given[ListenersKey.Name] == "" {
		out[ListenersKey.Name] = everyHost(advertised)
	}
	if err := cpStores(env, out, read); err != nil {
		return nil, err
	}
	bitnamiStores(env, out)
	if slices.ContainsFunc(environ, func(e string) bool { return strings.HasPrefix(e, "KAFKA_CFG_") }) {
		maps.Copy(out, sampleFile)
	}
	if err := bitnamiUsers(env, out); err != nil {
		return nil, err
	}
	switch protocol := strings.ToUpper(env["KAFKA_ZOOKEEPER_PROTOCOL"]); protocol {
	case "", "PLAINTEXT":
	case "SSL":
		out[ZookeeperSSLClientEnable.Name] = "true"
	default:
		return nil, fmt.Errorf("KAFKA_ZOOKEEPER_PROTOCOL=%s is not available; it may be PLAINTEXT or SSL", protocol)
	}
	maps.DeleteFunc(out, func(key, _ string) bool { return given[key] != "" })
	return out, nil
}

// sampleFile is what Kafka's own server.properties sets beyond the defaults; bitnami/kafka starts from it.
var sampleFile = map[string]string{
	"offsets.topic.replication.factor": "1", "transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
	"group.initial.rebalance.delay.ms": "0",
}

// everyHost listens on all addresses where others are told to connect to one.
func everyHost(advertised string) string {
	list := strings.Split(advertised, ",")
	for i, l := range list {
		name, address, ok := strings.Cut(strings.TrimSpace(l), "://")
		if at := strings.LastIndexByte(address, ':'); ok && at >= 0 {
			list[i] = name + "://0.0.0.0" + address[at:]
		}
	}
	return strings.Join(list, ",")
}

// cpStores names key and trust stores below the folder for secrets, and takes their passwords from files there.
func cpStores(env, out map[string]string, read func(string) ([]byte, error)) error {
	for variable, key := range map[string]string{
		"KAFKA_SSL_KEYSTORE_FILENAME": "ssl.keystore.location", "KAFKA_SSL_TRUSTSTORE_FILENAME": "ssl.truststore.location",
	} {
		if name := env[variable]; name != "" {
			out[key] = filepath.Join(cpSecrets, name)
		}
	}
	for variable, key := range map[string]string{
		"KAFKA_SSL_KEYSTORE_CREDENTIALS": "ssl.keystore.password", "KAFKA_SSL_KEY_CREDENTIALS": "ssl.key.password",
		"KAFKA_SSL_TRUSTSTORE_CREDENTIALS": "ssl.truststore.password",
	} {
		if name := env[variable]; name != "" {
			text, err := read(filepath.Join(cpSecrets, name))
			if err != nil {
				return fmt.Errorf("%s: %w", variable, err)
			}
			out[key] = strings.TrimRight(string(text), "\r\n")
		}
	}
	return nil
}

func bitnamiStores(env, out map[string]string) {
	kind := strings.ToLower(env["KAFKA_TLS_TYPE"])
	if kind == "" {
		return
	}
	out["ssl.keystore.location"] = filepath.Join(bitnamiCerts, "kafka.keystore."+kind)
	out["ssl.truststore.location"] = filepath.Join(bitnamiCerts, "kafka.truststore."+kind)
	if password := env["KAFKA_CERTIFICATE_PASSWORD"]; password != "" {
		out["ssl.keystore.password"], out["ssl.truststore.password"], out["ssl.key.password"] = password, password, password
	}
	if auth := env["KAFKA_TLS_CLIENT_AUTH"]; auth != "" {
		out["ssl.client.auth"] = auth
	}
}

// bitnamiUsers makes JAAS texts of lists of users. Those for SCRAM are made in ZooKeeper, see ImageUsers.
func bitnamiUsers(env, out map[string]string) error {
	users, err := listedUsers(env)
	if err != nil || len(users) == 0 {
		return err
	}
	own := ""
	if name := env["KAFKA_INTER_BROKER_USER"]; name != "" {
		own = " username=" + jaasQuote(name) + " password=" + jaasQuote(env["KAFKA_INTER_BROKER_PASSWORD"])
	}
	plain := ""
	for _, u := range users {
		plain += " user_" + u.Name + "=" + jaasQuote(string(u.Password))
	}
	out[SASLJAASConfig.Name] = "org.apache.kafka.common.security.plain.PlainLoginModule required" + own + plain + "; " +
		"org.apache.kafka.common.security.scram.ScramLoginModule required" + own + ";"
	return nil
}

func jaasQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// ImageUser is a user that the variables of an image name.
type ImageUser struct {
	Name     string
	Password Password
}

// ImageUsers lists the users that bitnami/kafka's image makes at its start: KAFKA_CLIENT_USERS and KAFKA_CLIENT_PASSWORDS, lists with
// commas or semicolons between, and KAFKA_INTER_BROKER_USER.
func ImageUsers(environ []string) ([]ImageUser, error) {
	env := map[string]string{}
	for _, e := range environ {
		if name, text, ok := strings.Cut(e, "="); ok {
			env[name] = text
		}
	}
	return listedUsers(env)
}

func listedUsers(env map[string]string) ([]ImageUser, error) {
	split := func(text string) []string {
		return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ';' })
	}
	names, passwords := split(env["KAFKA_CLIENT_USERS"]), split(env["KAFKA_CLIENT_PASSWORDS"])
	if len(names) != len(passwords) {
		return nil, fmt.Errorf("KAFKA_CLIENT_USERS names %d users, KAFKA_CLIENT_PASSWORDS has %d passwords", len(names), len(passwords))
	}
	var out []ImageUser
	for i, name := range names {
		out = append(out, ImageUser{strings.TrimSpace(name), Password(strings.TrimSpace(passwords[i]))})
	}
	own := env["KAFKA_INTER_BROKER_USER"]
	if own != "" && !slices.ContainsFunc(out, func(u ImageUser) bool { return u.Name == own }) {
		out = append(out, ImageUser{own, Password(env["KAFKA_INTER_BROKER_PASSWORD"])})
	}
	return out, nil
}
