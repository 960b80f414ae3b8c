package integration

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	kafkagosasl "github.com/segmentio/kafka-go/sasl"
	kafkagoplain "github.com/segmentio/kafka-go/sasl/plain"
	kafkagoscram "github.com/segmentio/kafka-go/sasl/scram"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"ottla/integration/harness"
	"ottla/internal/freeport"
	"ottla/internal/testcert"
)

// The door of the tests below: each security protocol on a listener of its own. User alice has one password for PLAIN and another
// for SCRAM.
const (
	alice      = "alice"
	alicePlain = "wonder-of-plain"
	aliceScram = "wonder-of-scram"
)

// door is how a client comes in.
type door struct {
	protocol  string // SASL_PLAINTEXT, …
	mechanism string // "" without SASL
	address   string
	name      string
	password  string
	keys      *tlsKeys       // nil without TLS
	shown     *testcert.Pair // certificate that the client shows, nil for none
	wrong     bool           // nobody should come in here: clients that try for ever need not try for long
}

func (d door) patience() time.Duration {
	if d.wrong {
		return 3 * time.Second
	}
	return 15 * time.Second
}

func (d door) String() string { return strings.Trim(d.protocol+" "+d.mechanism, " ") }

// secured is a cluster of one broker with a listener for each protocol, beside the plain one that brokers use.
type secured struct {
	*harness.Cluster
	addresses map[string]string // by protocol
	keys      *tlsKeys
}

// tlsKeys are the authority that signs everybody's certificate, and alice's, in files for those who want files.
type tlsKeys struct {
	ca    *testcert.Authority
	alice *testcert.Pair
	dir   string
}

func newTLSKeys(t testing.TB) *tlsKeys {
	k := &tlsKeys{ca: testcert.NewAuthority(t, "test authority"), dir: t.TempDir()}
	k.alice = k.ca.Issue(t, pkix.Name{CommonName: alice, Organization: []string{"Acme"}})
	testcert.Write(t, k.dir, "ca.pem", []byte(k.ca.PEM()))
	return k
}

// files writes a certificate with its key as PEM.
func (k *tlsKeys) files(t testing.TB, p *testcert.Pair) (chain, key, both string) {
	name := fmt.Sprint(p.Certificate.SerialNumber)
	return testcert.Write(t, k.dir, name+".crt", []byte(p.ChainPEM())), testcert.Write(t, k.dir, name+".key", []byte(p.KeyPEM(t))),
		testcert.Write(t, k.dir, name+".pem", []byte(p.KeyPEM(t)+p.ChainPEM()))
}

func (k *tlsKeys) caFile() string { return filepath.Join(k.dir, "ca.pem") }

func (d door) tls() *tls.Config {
	if d.keys == nil {
		return nil
	}
	c := &tls.Config{RootCAs: d.keys.ca.Pool(), ServerName: "127.0.0.1"}
	if d.shown != nil {
		own := d.shown.TLS()
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil }
	}
	return c
}

func startSecured(t *testing.T, properties map[string]string) *secured {
	t.Helper()
	s := &secured{addresses: map[string]string{}, keys: newTLSKeys(t)}
	broker := s.keys.ca.Issue(t, pkix.Name{CommonName: "broker"})
	all := map[string]string{
		"ssl.keystore.location":                                       testcert.Write(t, s.keys.dir, "broker.p12", broker.PKCS12(t, "store-secret")),
		"ssl.keystore.type":                                           "PKCS12",
		"ssl.keystore.password":                                       "store-secret",
		"ssl.truststore.location":                                     testcert.Write(t, s.keys.dir, "trust.jks", s.keys.ca.JKS(t, "trust-secret")),
		"ssl.truststore.type":                                         "JKS",
		"ssl.truststore.password":                                     "trust-secret",
		"ssl.client.auth":                                             "required",
		"ssl.principal.mapping.rules":                                 "RULE:^CN=(.*?),.*$/$1/L,DEFAULT",
		"sasl.enabled.mechanisms":                                     "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		"listener.name.sasl_plaintext.plain.sasl.jaas.config":         plainJAAS(alice, alicePlain),
		"listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config": scramJAAS,
		"listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config": scramJAAS,
		"listener.name.sasl_ssl.plain.sasl.jaas.config":               plainJAAS(alice, alicePlain),
		"listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config":       scramJAAS,
		"listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config":       scramJAAS,
		"inter.broker.listener.name":                                  "PLAINTEXT",
	}
	maps.Copy(all, testKeyStore(t, s.keys, "broker"))
	maps.Copy(all, properties)
	s.Cluster = harness.Start(t, harness.Options{Prepare: func(b *harness.Broker) {
		listeners := []string{"PLAINTEXT://" + b.Address}
		ports := freeport.Find(t, len(protocols))
		for i, protocol := range protocols {
			s.addresses[protocol] = fmt.Sprintf("127.0.0.1:%d", ports[i])
			listeners = append(listeners, protocol+"://"+s.addresses[protocol])
		}
		all["listeners"] = strings.Join(listeners, ",")
		addProperties(t, b, all)
	}})
	return s
}

// testKeyStore are the settings of a broker with a certificate.
func testKeyStore(t testing.TB, keys *tlsKeys, name string) map[string]string {
	own := keys.ca.Issue(t, pkix.Name{CommonName: name})
	return map[string]string{
		"ssl.keystore.location":   testcert.Write(t, keys.dir, name+".p12", own.PKCS12(t, "store-secret")),
		"ssl.keystore.type":       "PKCS12",
		"ssl.keystore.password":   "store-secret",
		"ssl.truststore.location": testcert.Write(t, keys.dir, "trust.jks", keys.ca.JKS(t, "trust-secret")),
		"ssl.truststore.type":     "JKS",
		"ssl.truststore.password": "trust-secret",
	}
}

func propertiesOf(t testing.TB, b *harness.Broker) string {
	text, err := os.ReadFile(filepath.Join(b.Dir, "server.properties"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// runTool runs one of Kafka's tools where there is no cluster yet.
func runTool(t testing.TB, name string, args ...string) {
	t.Helper()
	if out, err := harness.NeedKafka(t).Tool(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
}

var protocols = []string{"SASL_PLAINTEXT", "SSL", "SASL_SSL"}

const scramJAAS = "org.apache.kafka.common.security.scram.ScramLoginModule required;"

func plainJAAS(name, password string) string {
	return fmt.Sprintf(`org.apache.kafka.common.security.plain.PlainLoginModule required username="%s" password="%s" user_%s="%s";`, name, password, name, password)
}

// addProperties appends settings to a broker's file; of a key that comes twice the last one counts.
func addProperties(t testing.TB, b *harness.Broker, properties map[string]string) {
	t.Helper()
	file := filepath.Join(b.Dir, "server.properties")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	kept := slices.DeleteFunc(strings.Split(string(text), "\n"), func(line string) bool {
		key, _, _ := strings.Cut(line, "=")
		_, again := properties[key]
		return again
	})
	for _, key := range slices.Sorted(maps.Keys(properties)) {
		kept = append(kept, key+"="+properties[key])
	}
	if err := os.WriteFile(file, []byte(strings.Join(kept, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// doors are all ways in, with the right credentials.
func (s *secured) doors() []door {
	var out []door
	for _, protocol := range protocols {
		if protocol == "SSL" {
			out = append(out, door{protocol: protocol, address: s.addresses[protocol], name: alice, keys: s.keys, shown: s.keys.alice})
			continue
		}
		var keys *tlsKeys
		if protocol == "SASL_SSL" {
			keys = s.keys
		}
		for _, m := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
			password := aliceScram
			if m == "PLAIN" {
				password = alicePlain
			}
			out = append(out, door{protocol: protocol, mechanism: m, address: s.addresses[protocol], name: alice, password: password, keys: keys})
		}
	}
	return out
}

// wrongs are ways of not getting in by a door.
func (d door) wrongs(t testing.TB) map[string]door {
	d.wrong = true
	if d.mechanism == "" {
		none, foreign := d, d
		none.shown = nil
		foreign.shown = testcert.NewAuthority(t, "test authority").Issue(t, pkix.Name{CommonName: alice, Organization: []string{"Acme"}})
		return map[string]door{"no certificate": none, "certificate of another authority": foreign}
	}
	password, user := d, d
	password.password += "x"
	user.name = "mallory"
	return map[string]door{"wrong password": password, "unknown user": user}
}

// addScramUser gives alice her passwords with Kafka's tool where there is one, straight in ZooKeeper: as before a first start.
func addScramUser(t testing.TB, s *secured, name, password string) {
	t.Helper()
	for _, m := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
		s.Tool(t, "kafka-configs", "--zookeeper", s.Connect, "--alter", "--entity-type", "users", "--entity-name", name,
			"--add-config", fmt.Sprintf("%s=[password=%s]", m, password))
	}
}

// securityClient is one family of clients. write and read return an error that tells at least whether it was the login, the
// right, or something else.
type securityClient struct {
	name  string
	write func(t testing.TB, d door, topic, value string) error
	read  func(t testing.TB, d door, topic string, count int) ([]string, error)
}

var securityClients = []securityClient{
	{"kafka-go", kafkaGoWrite, kafkaGoRead},
	{"franz-go", franzWrite, franzRead},
	{"kcat", kcatWrite, kcatRead},
	{"java", javaWrite, javaRead},
}

func kafkaGoMechanism(d door) kafkagosasl.Mechanism {
	switch d.mechanism {
	case "":
		return nil
	case "PLAIN":
		return kafkagoplain.Mechanism{Username: d.name, Password: d.password}
	}
	algorithm := kafkagoscram.SHA256
	if d.mechanism == "SCRAM-SHA-512" {
		algorithm = kafkagoscram.SHA512
	}
	m, err := kafkagoscram.Mechanism(algorithm, d.name, d.password)
	if err != nil {
		panic(err)
	}
	return m
}

func kafkaGoWrite(t testing.TB, d door, topic, value string) error {
	ctx, cancel := context.WithTimeout(t.Context(), d.patience())
	defer cancel()
	transport := &kafkago.Transport{SASL: kafkaGoMechanism(d), TLS: d.tls()}
	defer transport.CloseIdleConnections()
	w := &kafkago.Writer{Addr: kafkago.TCP(d.address), Transport: transport, Topic: topic, MaxAttempts: 1, BatchTimeout: time.Millisecond, RequiredAcks: kafkago.RequireAll}
	defer w.Close()
	return w.WriteMessages(ctx, kafkago.Message{Value: []byte(value)})
}

func kafkaGoRead(t testing.TB, d door, topic string, count int) ([]string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), d.patience())
	defer cancel()
	dialer := &kafkago.Dialer{Timeout: d.patience(), SASLMechanism: kafkaGoMechanism(d), TLS: d.tls()}
	conn, err := dialer.DialLeader(ctx, "tcp", d.address, topic, 0)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(d.patience()))
	var out []string
	for len(out) < count {
		m, err := conn.ReadMessage(1 << 20)
		if err != nil {
			return out, err
		}
		out = append(out, string(m.Value))
	}
	return out, nil
}

func franzAt(t testing.TB, d door, opts ...kgo.Opt) (*kgo.Client, error) {
	opts = append(opts, kgo.SeedBrokers(d.address), kgo.RetryTimeout(2*time.Second), kgo.RequestRetries(1), kgo.RecordRetries(1))
	if m := franzMechanism(d); m != nil {
		opts = append(opts, kgo.SASL(m))
	}
	if c := d.tls(); c != nil {
		opts = append(opts, kgo.DialTLSConfig(c))
	}
	client, err := kgo.NewClient(opts...)
	if err == nil {
		t.Cleanup(client.Close)
	}
	return client, err
}

func franzMechanism(d door) sasl.Mechanism {
	switch d.mechanism {
	case "":
		return nil
	case "PLAIN":
		return plain.Auth{User: d.name, Pass: d.password}.AsMechanism()
	case "SCRAM-SHA-256":
		return scram.Auth{User: d.name, Pass: d.password}.AsSha256Mechanism()
	}
	return scram.Auth{User: d.name, Pass: d.password}.AsSha512Mechanism()
}

func franzWrite(t testing.TB, d door, topic, value string) error {
	ctx, cancel := context.WithTimeout(t.Context(), d.patience())
	defer cancel()
	client, err := franzAt(t, d, kgo.DisableIdempotentWrite())
	if err != nil {
		return err
	}
	return client.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr()
}

func franzRead(t testing.TB, d door, topic string, count int) ([]string, error) {
	ctx, cancel := context.WithTimeout(t.Context(), d.patience())
	defer cancel()
	client, err := franzAt(t, d, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}))
	if err != nil {
		return nil, err
	}
	if err := client.Ping(ctx); err != nil {
		return nil, err
	}
	var out []string
	for len(out) < count {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			return out, err
		}
		for _, e := range fetches.Errors() {
			return out, e.Err
		}
		for _, r := range fetches.Records() {
			out = append(out, string(r.Value))
		}
	}
	return out, nil
}

// javaOptions are the properties of a Java client; librdkafka's have other names for the same things.
func javaOptions(t testing.TB, d door) map[string]string {
	o := map[string]string{"security.protocol": d.protocol}
	if d.keys != nil {
		o["ssl.truststore.type"], o["ssl.truststore.location"] = "PEM", d.keys.caFile()
		if d.shown != nil {
			o["ssl.keystore.type"] = "PEM"
			_, _, o["ssl.keystore.location"] = d.keys.files(t, d.shown)
		}
	}
	if d.mechanism != "" {
		o["sasl.mechanism"] = d.mechanism
		module := "scram.ScramLoginModule"
		if d.mechanism == "PLAIN" {
			module = "plain.PlainLoginModule"
		}
		o["sasl.jaas.config"] = fmt.Sprintf(`org.apache.kafka.common.security.%s required username="%s" password="%s";`, module, d.name, d.password)
	}
	return o
}

func kcatOptions(t testing.TB, d door) map[string]string {
	o := map[string]string{"security.protocol": d.protocol, "message.timeout.ms": "8000", "socket.timeout.ms": "8000"}
	if d.mechanism != "" {
		o["sasl.mechanisms"], o["sasl.username"], o["sasl.password"] = d.mechanism, d.name, d.password
	}
	if d.keys != nil {
		o["ssl.ca.location"] = d.keys.caFile()
		if d.shown != nil {
			o["ssl.certificate.location"], o["ssl.key.location"], _ = d.keys.files(t, d.shown)
		}
	}
	return o
}

func kcatAt(t testing.TB, d door, stdin string, args ...string) (string, error) {
	path, err := exec.LookPath("kcat")
	if err != nil {
		t.Skip("kcat is not installed (on Debian: apt install kcat)")
	}
	for k, v := range kcatOptions(t, d) {
		args = append(args, "-X", k+"="+v)
	}
	ctx, cancel := context.WithTimeout(t.Context(), d.patience())
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"-b", d.address}, args...)...)
	return runWith(cmd, stdin)
}

func runWith(cmd *exec.Cmd, stdin string) (string, error) {
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("%w: %s", err, stderr.String())
	}
	if text := stderr.String(); strings.Contains(text, "uthentication") || strings.Contains(text, "uthorization") || strings.Contains(text, "ERROR") {
		return stdout.String(), fmt.Errorf("%s", text) // tools that only print their errors
	}
	return stdout.String(), nil
}

func kcatWrite(t testing.TB, d door, topic, value string) error {
	_, err := kcatAt(t, d, value+"\n", "-P", "-t", topic, "-p", "0")
	return err
}

func kcatRead(t testing.TB, d door, topic string, count int) ([]string, error) {
	out, err := kcatAt(t, d, "", "-C", "-q", "-t", topic, "-p", "0", "-o", "beginning", "-c", fmt.Sprint(count))
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n"), err
}

// javaAt runs one of Kafka's tools with a client's properties.
func javaAt(t testing.TB, d door, stdin, tool, configFlag string, args ...string) (string, error) {
	k := harness.NeedKafka(t)
	file := filepath.Join(t.TempDir(), "client.properties")
	var text strings.Builder
	for key, value := range javaOptions(t, d) {
		fmt.Fprintf(&text, "%s=%s\n", key, value)
	}
	for _, timeout := range []string{"request.timeout.ms=8000", "max.block.ms=8000", "delivery.timeout.ms=9000", "default.api.timeout.ms=9000"} {
		fmt.Fprintln(&text, timeout)
	}
	if err := os.WriteFile(file, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := k.Tool(tool, append([]string{"--bootstrap-server", d.address, configFlag, file}, args...)...)
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	return runWith(cmd, stdin)
}

func javaWrite(t testing.TB, d door, topic, value string) error {
	_, err := javaAt(t, d, value+"\n", "kafka-console-producer", "--producer.config", "--topic", topic, "--producer-property", "enable.idempotence=false")
	return err
}

func javaRead(t testing.TB, d door, topic string, count int) ([]string, error) {
	out, err := javaAt(t, d, "", "kafka-console-consumer", "--consumer.config", "--topic", topic, "--partition", "0", "--offset", "earliest",
		"--max-messages", fmt.Sprint(count), "--timeout-ms", "10000")
	if err != nil && strings.Contains(err.Error(), "Processed a total of "+fmt.Sprint(count)) {
		err = nil
	}
	return strings.Split(strings.TrimSuffix(out, "\n"), "\n"), err
}

// TestClientsLogIn has every client come in by every door with the right password, and none with a wrong one.
func TestClientsLogIn(t *testing.T) {
	s := startSecured(t, nil)
	addScramUser(t, s, alice, aliceScram)
	for i, d := range s.doors() {
		for j, c := range securityClients {
			// Every client and every door, but not each with each: some try for long, and a JVM takes its time.
			if !harness.Long() && (c.name == "java" && i%3 != 1 || c.name != "java" && (i+j)%3 != 0) {
				continue
			}
			t.Run(fmt.Sprint(d, " ", c.name), func(t *testing.T) {
				topic := strings.ToLower(strings.ReplaceAll(fmt.Sprint(d, "-", c.name), " ", "-"))
				createTopic(t, s.Cluster, topic, 1, 1, nil)
				if err := c.write(t, d, topic, "hello"); err != nil {
					t.Fatalf("write with the right password: %v", err)
				}
				got, err := c.read(t, d, topic, 1)
				if err != nil || !slices.Equal(got, []string{"hello"}) {
					t.Fatalf("read with the right password: %q, %v", got, err)
				}
				for name, wrong := range d.wrongs(t) {
					if c.name == "java" && name != "wrong password" && !harness.Long() {
						continue
					}
					began := time.Now()
					if err := c.write(t, wrong, topic, "intruder"); err == nil {
						t.Errorf("%s: written", name)
					} else if took := time.Since(began); took < 100*time.Millisecond && d.mechanism != "" {
						t.Errorf("%s: answered after %v, without a pause", name, took)
					}
					if got, err := c.read(t, wrong, topic, 1); err == nil {
						t.Errorf("%s: read %q", name, got)
					}
				}
				if total, _ := endOffsets(t, s.Cluster, topic); total != 1 {
					t.Errorf("%d records, want 1", total)
				}
			})
		}
	}
	log := s.Broker(1).Log()
	for _, secret := range []string{alicePlain, aliceScram, "store-secret", "trust-secret"} {
		if strings.Contains(log, secret) {
			t.Error("a password is in the log")
		}
	}
}
