package integration

import (
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/go-zookeeper/zk"
	"github.com/twmb/franz-go/pkg/kadm"

	"ottla/config"
	"ottla/integration/harness"
	"ottla/internal/freeport"
	"ottla/internal/testcert"
	"ottla/internal/testzk"
	"ottla/security"
)

// TestZnodesAreProtected has brokers with zookeeper.set.acl: others may read what is no secret, and change nothing.
func TestZnodesAreProtected(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Ottla, 2), Properties: map[string]string{
		"zookeeper.set.acl": "true", "ottla.zookeeper.digest": "brokers:between-us", "password.encoder.secret": "open sesame",
	}})
	createTopic(t, c, "guarded", 2, 2, nil)
	produce(t, franz(t, c), "guarded", []string{"000000 x"})
	adm := kadm.NewClient(franz(t, c))
	if _, err := adm.AlterUserSCRAMs(t.Context(), nil, []kadm.UpsertSCRAM{{User: alice, Mechanism: kadm.ScramSha256, Iterations: 4096, Password: aliceScram}}); err != nil {
		t.Fatal(err)
	}
	v := c.View()
	if _, _, err := v.Get("/brokers/topics/guarded"); err != nil {
		t.Errorf("a reader cannot read: %v", err)
	}
	if _, _, err := v.Get("/config/users/alice"); !errors.Is(err, zk.ErrNoAuth) {
		t.Errorf("a reader reads credentials: %v", err)
	}
	for _, path := range []string{"/brokers/topics/guarded", "/controller_epoch", "/config/topics/guarded"} {
		if err := v.Set(path, []byte("mine")); !errors.Is(err, zk.ErrNoAuth) {
			t.Errorf("%s: a stranger writes: %v", path, err)
		}
	}
	if err := v.Create("/brokers/topics/forged", nil); !errors.Is(err, zk.ErrNoAuth) {
		t.Errorf("a stranger creates: %v", err)
	}
	c.Broker(1).Kill()
	c.Restart(c.Broker(1)) // the identity goes along to the next session
	createTopic(t, c, "later", 1, 2, nil)

	// A password among the settings is stored so that only brokers can read it.
	const key, password = "listener.name.plaintext.ssl.key.password", "hush-hush"
	set := func(value string) error {
		done, err := adm.AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, 1)
		if err != nil {
			return err
		}
		return done[0].Err
	}
	if err := set(password); err != nil {
		t.Fatal(err)
	}
	data, _, err := v.Get("/config/brokers/1")
	if err != nil || !strings.Contains(string(data), "encryptedPassword:") || strings.Contains(string(data), password) {
		t.Errorf("%s, %v", data, err)
	}
	for _, b := range c.Brokers {
		for _, secret := range []string{password, "between-us", "open sesame", aliceScram} {
			if strings.Contains(b.Log(), secret) {
				t.Errorf("broker %d's log has %q", b.ID, secret)
			}
		}
	}
	described, err := adm.DescribeBrokerConfigs(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range described {
		for _, s := range r.Configs {
			if s.Value != nil && (strings.Contains(*s.Value, password) || strings.Contains(*s.Value, "between-us") || strings.Contains(*s.Value, "open sesame")) {
				t.Errorf("%s tells %s", s.Key, *s.Value)
			}
		}
	}
}

// TestTLSToZooKeeper has brokers reach the ensemble by TLS alone, and protect their znodes by the name in their certificate.
func TestTLSToZooKeeper(t *testing.T) {
	keys := newTLSKeys(t)
	store := func(name string, subject pkix.Name) string {
		return testcert.Write(t, keys.dir, name, keys.ca.Issue(t, subject).PKCS12(t, "store-secret"))
	}
	trust := testcert.Write(t, keys.dir, "trust.jks", keys.ca.JKS(t, "trust-secret"))
	secure := freeport.Find(t, 1)[0]
	e := testzk.StartWith(t, 1, map[string]string{
		"serverCnxnFactory": "org.apache.zookeeper.server.NettyServerCnxnFactory", "secureClientPort": fmt.Sprint(secure),
		"authProvider.x509":     "org.apache.zookeeper.server.auth.X509AuthenticationProvider",
		"ssl.keyStore.location": store("zookeeper.p12", pkix.Name{CommonName: "zookeeper"}), "ssl.keyStore.password": "store-secret", "ssl.keyStore.type": "PKCS12",
		"ssl.trustStore.location": trust, "ssl.trustStore.password": "trust-secret", "ssl.trustStore.type": "JKS",
	})
	c := harness.Start(t, harness.Options{Ensemble: e, Brokers: harness.Same(harness.Ottla, 2), Properties: map[string]string{
		"zookeeper.connect":                 fmt.Sprintf("127.0.0.1:%d", secure),
		"zookeeper.ssl.client.enable":       "true",
		"zookeeper.ssl.keystore.location":   store("brokers.p12", pkix.Name{CommonName: "brokers"}),
		"zookeeper.ssl.keystore.password":   "store-secret",
		"zookeeper.ssl.truststore.location": trust,
		"zookeeper.ssl.truststore.password": "trust-secret",
		"zookeeper.set.acl":                 "true",
	}})
	createTopic(t, c, "guarded", 1, 2, nil)
	produce(t, franz(t, c), "guarded", []string{"000000 x"})
	if _, _, err := c.View().Get("/brokers/topics/guarded"); err != nil {
		t.Errorf("a reader cannot read: %v", err)
	}
	if err := c.View().Set("/brokers/topics/guarded", []byte("mine")); !errors.Is(err, zk.ErrNoAuth) {
		t.Errorf("a stranger writes: %v", err)
	}
}

// TestPasswordsAreKafkas has Kafka read what Ottla encrypted, and Ottla what Kafka did.
func TestPasswordsAreKafkas(t *testing.T) {
	if !harness.Long() {
		t.Skip("starts Kafka")
	}
	harness.NeedKafka(t)
	const secret, password, key = "open sesame", "hüsh-hush", "listener.name.plaintext.ssl.key.password"
	c := harness.Start(t, harness.Options{Brokers: []harness.Kind{harness.Ottla, harness.Kafka}, Properties: map[string]string{"password.encoder.secret": secret}})
	adm := kadm.NewClient(franz(t, c))
	value := password
	for _, b := range c.Brokers {
		done, err := adm.AlterBrokerConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, int32(b.ID))
		if err != nil || done[0].Err != nil {
			t.Fatalf("broker %d: %v %+v", b.ID, err, done)
		}
	}
	snapshot, err := config.FromMap(map[string]string{"zookeeper.connect": "x:2181", "password.encoder.secret": secret})
	if err != nil {
		t.Fatal(err)
	}
	stored := func(path string) string {
		data, _, err := c.View().Get(path)
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(string(data), `"`+key+`":"`)
		text, _, _ = strings.Cut(text, `"`)
		return text
	}
	if got, _, err := security.DecodePassword(snapshot, stored("/config/brokers/2")); err != nil || string(got) != password {
		t.Errorf("of Kafka's: %q, %v", got, err)
	}
	// Ottla's znode becomes that of a Kafka broker.
	data, _, err := c.View().Get("/config/brokers/1")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.View().Set("/config/brokers/2", data); err != nil {
		t.Fatal(err)
	}
	kafka := c.Broker(2)
	kafka.Terminate()
	if err := os.Truncate(kafka.LogFile(), 0); err != nil {
		t.Fatal(err)
	}
	c.Restart(kafka)
	if log := kafka.Log(); strings.Contains(log, "could not be decoded") || !strings.Contains(log, key) {
		t.Errorf("Kafka could not read it: %s", kafka.LogTail())
	}
}
