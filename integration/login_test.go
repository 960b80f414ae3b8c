package integration

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
	"ottla/internal/freeport"
	"ottla/internal/testcert"
)

// Frames that no modern client sends, or not in this order.

func plainTokenOf(name, password string) []byte { return []byte("\x00" + name + "\x00" + password) }

func shakeHands(c *harness.Conn, version int16, mechanism string) *kmsg.SASLHandshakeResponse {
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Version, req.Mechanism = version, mechanism
	return harness.Ask[*kmsg.SASLHandshakeResponse](c, req)
}

func authenticate(c *harness.Conn, token []byte) *kmsg.SASLAuthenticateResponse {
	req := kmsg.NewPtrSASLAuthenticateRequest()
	req.Version, req.SASLAuthBytes = 2, token
	return harness.Ask[*kmsg.SASLAuthenticateResponse](c, req)
}

func metadataOf(c *harness.Conn) *kmsg.MetadataResponse {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 1
	return harness.Ask[*kmsg.MetadataResponse](c, req)
}

func mustClose(t *testing.T, c *harness.Conn, after string) {
	t.Helper()
	if closed, sent := c.Closed(5 * time.Second); !closed || sent > 0 {
		t.Errorf("%s: closed %v after %d bytes", after, closed, sent)
	}
}

func TestLoginsStepByStep(t *testing.T) {
	s := startSecured(t, map[string]string{"listener.name.sasl_plaintext.plain.connections.max.reauth.ms": "3000"})
	address := s.addresses["SASL_PLAINTEXT"]

	t.Run("tokens without header", func(t *testing.T) {
		send := func(password string) *harness.Conn {
			c := harness.Dial(t, address)
			if r := shakeHands(c, 0, "PLAIN"); r.ErrorCode != 0 {
				t.Fatal(r.ErrorCode)
			}
			token := plainTokenOf(alice, password)
			if _, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(token))), token...)); err != nil {
				t.Fatal(err)
			}
			return c
		}
		c := send(alicePlain)
		var length [4]byte
		if _, err := io.ReadFull(c, length[:]); err != nil || length != [4]byte{} {
			t.Fatalf("answer %v, %v", length, err)
		}
		if r := metadataOf(c); len(r.Brokers) != 1 {
			t.Errorf("%+v", r)
		}
		mustClose(t, send("wrong"), "wrong password")
	})

	t.Run("request before login", func(t *testing.T) {
		c := harness.Dial(t, address)
		if _, err := c.Write(harness.Frame(kmsg.NewPtrMetadataRequest(), 1)); err != nil {
			t.Fatal(err)
		}
		mustClose(t, c, "metadata")
	})

	t.Run("mechanism that is not enabled", func(t *testing.T) {
		c := harness.Dial(t, address)
		r := shakeHands(c, 1, "GSSAPI")
		if r.ErrorCode != kerr.UnsupportedSaslMechanism.Code || !slices.Contains(r.SupportedMechanisms, "SCRAM-SHA-512") {
			t.Errorf("%+v", r)
		}
		mustClose(t, c, "refusal")
	})

	t.Run("token without handshake", func(t *testing.T) {
		c := harness.Dial(t, address)
		if r := authenticate(c, plainTokenOf(alice, alicePlain)); r.ErrorCode != kerr.IllegalSaslState.Code {
			t.Errorf("%+v", r)
		}
	})

	t.Run("handshake where nobody logs in", func(t *testing.T) {
		c := harness.Dial(t, s.Broker(1).Address)
		if r := shakeHands(c, 1, "PLAIN"); r.ErrorCode != kerr.IllegalSaslState.Code || len(r.SupportedMechanisms) > 0 {
			t.Errorf("%+v", r)
		}
		if r := metadataOf(c); len(r.Brokers) != 1 {
			t.Errorf("%+v", r)
		}
	})

	t.Run("failure is answered late, once, and closes", func(t *testing.T) {
		c := harness.Dial(t, address)
		shakeHands(c, 1, "PLAIN")
		began := time.Now()
		r := authenticate(c, plainTokenOf(alice, "wrong"))
		if took := time.Since(began); took < 100*time.Millisecond || r.ErrorCode != kerr.SaslAuthenticationFailed.Code ||
			r.ErrorMessage == nil || *r.ErrorMessage != "Authentication failed: Invalid username or password" {
			t.Errorf("after %v: %+v", took, r)
		}
		mustClose(t, c, "failure")
	})

	t.Run("login that expires", func(t *testing.T) {
		enter := func() *harness.Conn {
			c := harness.Dial(t, address)
			shakeHands(c, 1, "PLAIN")
			if r := authenticate(c, plainTokenOf(alice, alicePlain)); r.ErrorCode != 0 || r.SessionLifetimeMillis != 3000 {
				t.Fatalf("%+v", r)
			}
			return c
		}
		renewed, left := enter(), enter()
		time.Sleep(2 * time.Second)
		if r := shakeHands(renewed, 1, "PLAIN"); r.ErrorCode != 0 {
			t.Fatalf("%+v", r)
		}
		if r := authenticate(renewed, plainTokenOf(alice, alicePlain)); r.ErrorCode != 0 {
			t.Fatalf("%+v", r)
		}
		time.Sleep(1500 * time.Millisecond)
		metadataOf(renewed)
		if _, err := left.Write(harness.Frame(kmsg.NewPtrMetadataRequest(), 9)); err != nil {
			t.Fatal(err)
		}
		mustClose(t, left, "expiry")

		another := enter()
		time.Sleep(1100 * time.Millisecond)
		shakeHands(another, 1, "PLAIN")
		if r := authenticate(another, plainTokenOf("mallory", alicePlain)); r.ErrorCode != kerr.SaslAuthenticationFailed.Code {
			t.Errorf("%+v", r)
		}
		mustClose(t, another, "login as somebody else")
	})
}

var errStill = errors.New("still the old one")

func dialTLS(t testing.TB, address string, keys *tlsKeys) *tls.Conn {
	t.Helper()
	c, err := tls.Dial("tcp", address, (door{keys: keys, shown: keys.alice}).tls())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCertificateIsRenewedWhileTheBrokerRuns replaces the key store's file.
func TestCertificateIsRenewedWhileTheBrokerRuns(t *testing.T) {
	s := startSecured(t, nil)
	serial := func() string {
		c := dialTLS(t, s.addresses["SSL"], s.keys)
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	testKeyStore(t, s.keys, "broker")
	harness.Eventually(t, 10*time.Second, "another certificate", func() error {
		if serial() == before {
			return errStill
		}
		return nil
	})
}

// TestJAASFileOfTheEnvironment is how kafka-go's own integration set-up configures its broker: a JAAS file named through KAFKA_OPTS, a
// SCRAM user made straight in ZooKeeper, the authorizer by its old name, open where there are no ACLs.
func TestJAASFileOfTheEnvironment(t *testing.T) {
	file := testcert.Write(t, t.TempDir(), "kafka_server_jaas.conf", []byte(`KafkaServer {
  org.apache.kafka.common.security.scram.ScramLoginModule required
    username="adminscram"
    password="admin-secret";
  org.apache.kafka.common.security.plain.PlainLoginModule required
    username="adminplain"
    password="admin-secret"
    user_adminplain="admin-secret";
};
`))
	t.Setenv("KAFKA_OPTS", "-Xmx256m -Djava.security.auth.login.config="+file)
	address := fmt.Sprintf("127.0.0.1:%d", freeport.Find(t, 1)[0])
	c := harness.Start(t, harness.Options{Brokers: []harness.Kind{harness.Ottla}, Prepare: func(b *harness.Broker) {
		addProperties(t, b, map[string]string{
			"listeners":                      "PLAINTEXT://" + b.Address + ",SASL_PLAINTEXT://" + address,
			"sasl.enabled.mechanisms":        "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
			"authorizer.class.name":          "kafka.security.auth.SimpleAclAuthorizer",
			"allow.everyone.if.no.acl.found": "true",
			"message.max.bytes":              "200000000",
			"delete.topic.enable":            "true",
			"advertised.host.name":           "localhost",
			"advertised.port":                "9092",
		})
	}})
	runTool(t, "kafka-configs", "--zookeeper", c.Connect, "--alter", "--entity-type", "users", "--entity-name", "adminscram",
		"--add-config", "SCRAM-SHA-256=[password=admin-secret-256],SCRAM-SHA-512=[password=admin-secret-512]")
	createTopic(t, c, "topic", 1, 1, nil)
	for _, d := range []door{
		{mechanism: "PLAIN", name: "adminplain", password: "admin-secret"},
		{mechanism: "SCRAM-SHA-256", name: "adminscram", password: "admin-secret-256"},
		{mechanism: "SCRAM-SHA-512", name: "adminscram", password: "admin-secret-512"},
	} {
		d.protocol, d.address = "SASL_PLAINTEXT", address
		if err := kafkaGoWrite(t, d, "topic", d.mechanism); err != nil {
			t.Errorf("%s: %v", d.mechanism, err)
		}
		d.password, d.wrong = "admin-secret-999", true
		if err := kafkaGoWrite(t, d, "topic", d.mechanism); err == nil {
			t.Errorf("%s: written with a wrong password", d.mechanism)
		}
	}
}
