package security

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"ottla/config"
	"ottla/internal/testcert"
)

func TestKeyStores(t *testing.T) {
	ca := testcert.NewAuthority(t, "ca")
	p := ca.Issue(t, pkix.Name{CommonName: "broker"})
	for name, data := range map[string][]byte{
		"JKS":    p.JKS(t, "changeit"),
		"PKCS12": p.PKCS12(t, "changeit"),
		"PEM":    []byte(p.KeyPEM(t) + p.ChainPEM()),
		"PEM, certificates first and the wrong way round": []byte(ca.PEM() + p.ChainPEM() + p.KeyPEM(t)),
	} {
		c, err := readKeyStore(data, "changeit", "")
		require.NoError(t, err, name)
		require.Equal(t, p.Certificate.Raw, c.Certificate[0], name)
		require.Len(t, c.Certificate, 2, name)
		if name[:3] != "PEM" {
			_, err = readKeyStore(data, "wrong!", "")
			require.ErrorIs(t, err, errPassword, name)
		}
		_, err = readTrustStore(data, "changeit")
		if name[:3] != "PEM" {
			require.Error(t, err, "%s: a key store is no trust store", name)
		}
	}
	for name, data := range map[string][]byte{"JKS": ca.JKS(t, "changeit"), "PKCS12": ca.PKCS12(t, "changeit"), "PEM": []byte(ca.PEM())} {
		list, err := readTrustStore(data, "changeit")
		require.NoError(t, err, name)
		require.Len(t, list, 1)
		require.Equal(t, ca.Certificate.Raw, list[0].Raw)
		if name != "PEM" {
			_, err = readTrustStore(data, "wrong!")
			require.ErrorIs(t, err, errPassword, name)
		}
		_, err = readKeyStore(data, "changeit", "")
		require.Error(t, err, name)
	}
	list, err := readTrustStore(ca.JKS(t, "changeit"), "")
	require.NoError(t, err, "Java reads certificates without the password")
	require.Len(t, list, 1)
	other := ca.Issue(t, pkix.Name{CommonName: "other"})
	_, err = readKeyStore([]byte(p.KeyPEM(t)+other.ChainPEM()), "", "")
	require.ErrorIs(t, err, errNoKey, "the key of another certificate")
	for _, junk := range []string{"", "junk", "-----BEGIN X", "-----BEGIN X-----", "-----BEGIN CERTIFICATE-----!!-----END CERTIFICATE-----", "\xfe\xed\xfe\xed", "0\x82"} {
		_, err := readKeyStore([]byte(junk), "x", "")
		require.Error(t, err)
		_, err = readTrustStore([]byte(junk), "x")
		require.Error(t, err)
	}
}

// TestPEMOnOneLine is what comes out of a properties file or a variable.
func TestPEMOnOneLine(t *testing.T) {
	ca := testcert.NewAuthority(t, "ca")
	p := ca.Issue(t, pkix.Name{CommonName: "broker"})
	c, err := readPEMKey(strings.ReplaceAll(p.KeyPEM(t), "\n", " "), strings.ReplaceAll(p.ChainPEM(), "\n", ""), "")
	require.NoError(t, err)
	require.Len(t, c.Certificate, 2)
}

// TestKeyStoresOfTheUsualTools reads what keytool and openssl write.
func TestKeyStoresOfTheUsualTools(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a JVM several times: not in the short form")
	}
	run := func(name string, args ...string) {
		t.Helper()
		path, err := exec.LookPath(name)
		if err != nil {
			t.Skipf("%s is not installed", name)
		}
		out, err := exec.Command(path, args...).CombinedOutput()
		require.NoError(t, err, string(out))
	}
	dir := t.TempDir()
	ca := testcert.NewAuthority(t, "ca")
	p := ca.Issue(t, pkix.Name{CommonName: "broker"})
	key := testcert.Write(t, dir, "key.pem", []byte(p.KeyPEM(t)))
	chain := testcert.Write(t, dir, "chain.pem", []byte(p.ChainPEM()))
	caFile := testcert.Write(t, dir, "ca.pem", []byte(ca.PEM()))
	at := func(name string) string { return filepath.Join(dir, name) }
	read := func(name string) []byte {
		data, err := os.ReadFile(at(name))
		require.NoError(t, err)
		return data
	}

	run("openssl", "pkcs12", "-export", "-inkey", key, "-in", chain, "-out", at("o.p12"), "-passout", "pass:changeit")
	_, err := readKeyStore(read("o.p12"), "changeit", "")
	require.NoError(t, err)
	for _, with := range [][]string{{"-v2", "aes256"}, {"-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA512"}, {"-v2", "des3", "-v2prf", "hmacWithSHA1"}} {
		run("openssl", append([]string{"pkcs8", "-topk8", "-in", key, "-out", at("enc.pem"), "-passout", "pass:changeit"}, with...)...)
		_, err = readPEMKey(string(read("enc.pem")), p.ChainPEM(), "changeit")
		require.NoError(t, err, with)
		_, err = readPEMKey(string(read("enc.pem")), p.ChainPEM(), "wrong")
		require.Error(t, err, with)
	}

	for _, form := range []string{"JKS", "PKCS12"} {
		run("keytool", "-importkeystore", "-srckeystore", at("o.p12"), "-srcstoretype", "PKCS12", "-srcstorepass", "changeit",
			"-destkeystore", at("k."+form), "-deststoretype", form, "-deststorepass", "changeit", "-noprompt")
		run("keytool", "-importcert", "-file", caFile, "-alias", "ca", "-keystore", at("t."+form), "-storetype", form, "-storepass", "changeit", "-noprompt")
		c, err := readKeyStore(read("k."+form), "changeit", "")
		require.NoError(t, err, form)
		require.Len(t, c.Certificate, 2)
		list, err := readTrustStore(read("t."+form), "changeit")
		require.NoError(t, err, form)
		require.Equal(t, ca.Certificate.Raw, list[0].Raw)
	}
	run("keytool", "-genkeypair", "-alias", "x", "-keyalg", "RSA", "-dname", "CN=x", "-keystore", at("g.jks"), "-storetype", "JKS",
		"-storepass", "changeit", "-keypass", "otherpass")
	_, err = readKeyStore(read("g.jks"), "changeit", "otherpass")
	require.NoError(t, err, "a key with a password of its own")
}

func FuzzStores(f *testing.F) {
	ca := testcert.NewAuthority(f, "ca")
	p := ca.Issue(f, pkix.Name{CommonName: "broker"})
	for _, data := range [][]byte{p.JKS(f, "x"), p.PKCS12(f, "x"), []byte(p.KeyPEM(f) + p.ChainPEM()), ca.JKS(f, "x"), ca.PKCS12(f, "x")} {
		f.Add(data[:min(len(data), 200)])
	}
	f.Fuzz(func(_ *testing.T, data []byte) {
		if formOf(data) != formPEM { // the other two are libraries, read from a trusted place
			return
		}
		_, _ = readKeyStore(data, "x", "")
		_, _ = readTrustStore(data, "x")
	})
}

func TestDistinguishedNames(t *testing.T) {
	uid, email := asn1.ObjectIdentifier{0, 9, 2342, 19200300, 100, 1, 1}, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
	for want, name := range map[string]pkix.RDNSequence{
		// As Java's X500Principal.getName() has them.
		"CN=kafka-1,OU=Brokers,O=Acme\\, Inc.,L=Z\u00fcrich,C=CH": {
			{{Type: asn1.ObjectIdentifier{2, 5, 4, 6}, Value: "CH"}}, {{Type: asn1.ObjectIdentifier{2, 5, 4, 7}, Value: "Z\u00fcrich"}},
			{{Type: asn1.ObjectIdentifier{2, 5, 4, 10}, Value: "Acme, Inc."}}, {{Type: asn1.ObjectIdentifier{2, 5, 4, 11}, Value: "Brokers"}},
			{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "kafka-1"}},
		},
		"UID=alice,CN=\\#a\\+b":        {{{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "#a+b"}}, {{Type: uid, Value: "alice"}}},
		"1.2.840.113549.1.9.1=#130161": {{{Type: email, Value: "a"}}},
		"":                             {},
	} {
		der, err := asn1.Marshal(name)
		require.NoError(t, err)
		got, err := distinguishedName(der)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	_, err := distinguishedName([]byte("junk"))
	require.Error(t, err)
}

func TestPrincipalMappingRules(t *testing.T) {
	const dn = "CN=Kafka-1,OU=ServiceUsers,O=Acme,C=US"
	for rules, want := range map[string]string{
		"":                                       dn,
		"DEFAULT":                                dn,
		"RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/":  "Kafka-1",
		"RULE:^CN=(.*?),OU=ServiceUsers.*$/$1/L": "kafka-1",
		"RULE:^CN=(.*?),OU=ServiceUsers.*$/$1@$2/U,DEFAULT":                           "KAFKA-1@$2",
		"RULE:^CN=(.*?),OU=Other.*$/$1/L,RULE:^.*O=([A-Za-z]*).*$/org-$1/L , DEFAULT": "org-acme",
		"RULE:CN=(.*?),.*/a\\/$1/":                                                    "a/Kafka-1",
		"RULE:^CN=(.*?),OU=Nobody.*$/$1/":                                             "",
	} {
		list, err := parseMappingRules(rules)
		require.NoError(t, err, rules)
		got, err := mapName(list, dn)
		if want == "" {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, want, got, rules)
	}
	for _, wrong := range []string{"RULE:", "RULE:a", "RULE:a/b", "RULE:(/b/", "RULE:a/b/X", "default", "DEFAULT DEFAULT", "RULE:a/b/LL"} {
		_, err := parseMappingRules(wrong)
		require.Error(t, err, wrong)
	}
}

// tlsWorld is a broker's TLS on listener DOOR, and what clients need.
type tlsWorld struct {
	*TLS
	ca       *testcert.Authority
	dir      string
	keyFile  string
	settings map[string]string
	snapshot *config.Snapshot
	log      bytes.Buffer
}

func newTLSWorld(t *testing.T, settings map[string]string) *tlsWorld {
	t.Helper()
	w := &tlsWorld{ca: testcert.NewAuthority(t, "ca"), dir: t.TempDir()}
	w.keyFile = testcert.Write(t, w.dir, "key.jks", w.ca.Issue(t, pkix.Name{CommonName: "broker"}).JKS(t, "changeit"))
	w.settings = map[string]string{
		"zookeeper.connect": "z", "log.dirs": w.dir, "listeners": "PLAINTEXT://localhost:9092,DOOR://localhost:9093",
		"listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,DOOR:SSL",
		"ssl.keystore.location":          w.keyFile, "ssl.keystore.password": "changeit",
		"ssl.truststore.location": testcert.Write(t, w.dir, "trust.p12", w.ca.PKCS12(t, "trustme")), "ssl.truststore.password": "trustme",
	}
	w.set(t, settings)
	w.TLS = NewTLS(func() *config.Snapshot { return w.snapshot }, zerolog.New(&w.log))
	return w
}

func (w *tlsWorld) set(t *testing.T, settings map[string]string) {
	t.Helper()
	for k, v := range settings {
		w.settings[k] = v
	}
	s, err := config.FromMap(w.settings)
	require.NoError(t, err)
	w.snapshot = s
}

// visit has a client come in; it returns its principal, the broker's certificate and the error of either side.
func (w *tlsWorld) visit(t *testing.T, client *tls.Config) (principal string, seen *x509.Certificate, err error) {
	t.Helper()
	a, b := tcpPair(t)
	type outcome struct {
		c   net.Conn
		err error
	}
	broker := make(chan outcome, 1)
	go func() {
		c, err := w.Accept("DOOR", "SSL", a)
		if err == nil {
			_, err = c.Write([]byte("x"))
		} else {
			_ = a.Close()
		}
		broker <- outcome{c, err}
	}()
	c := tls.Client(b, client)
	_, clientErr := io.ReadFull(c, make([]byte, 1))
	if clientErr != nil {
		_ = b.Close()
	}
	o := <-broker
	if err := errors.Join(o.err, clientErr); err != nil {
		return "", nil, err
	}
	return o.c.(*Conn).Principal(), c.ConnectionState().PeerCertificates[0], nil
}

func tcpPair(t *testing.T) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	b, err = net.Dial("tcp", l.Addr().String())
	require.NoError(t, err)
	a, err = l.Accept()
	require.NoError(t, err)
	t.Cleanup(func() { _ = a.Close(); _ = b.Close() })
	for _, c := range []net.Conn{a, b} {
		require.NoError(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	}
	return a, b
}

func (w *tlsWorld) client(certificates ...tls.Certificate) *tls.Config {
	return &tls.Config{RootCAs: w.ca.Pool(), ServerName: "localhost", Certificates: certificates}
}

func TestClientCertificates(t *testing.T) {
	for auth, row := range map[string]struct{ without, own, foreign string }{
		"none":      {Anonymous, Anonymous, Anonymous},
		"requested": {Anonymous, "User:CN=alice,O=Acme", ""},
		"required":  {"", "User:CN=alice,O=Acme", ""},
	} {
		w := newTLSWorld(t, map[string]string{"ssl.client.auth": "none", "listener.name.door.ssl.client.auth": auth})
		require.NoError(t, w.Check(config.Listener{Name: "DOOR", Protocol: "SSL"}))
		alice := w.ca.Issue(t, pkix.Name{CommonName: "alice", Organization: []string{"Acme"}}).TLS()
		mallory := testcert.NewAuthority(t, "evil").Issue(t, pkix.Name{CommonName: "alice", Organization: []string{"Acme"}}).TLS()
		for want, config := range map[*tls.Config]string{
			w.client(): row.without, w.client(alice): row.own,
			{RootCAs: w.ca.Pool(), ServerName: "localhost", GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &mallory, nil }}: row.foreign,
		} {
			principal, _, err := w.visit(t, want)
			if config == "" {
				require.Error(t, err, auth)
				continue
			}
			require.NoError(t, err, auth)
			require.Equal(t, config, principal, auth)
		}
	}
}

func TestCertificateNamesAreMapped(t *testing.T) {
	w := newTLSWorld(t, map[string]string{"ssl.client.auth": "required", "ssl.principal.mapping.rules": "RULE:^CN=(.*?),O=Acme$/$1/U"})
	principal, _, err := w.visit(t, w.client(w.ca.Issue(t, pkix.Name{CommonName: "alice", Organization: []string{"Acme"}}).TLS()))
	require.NoError(t, err)
	require.Equal(t, "User:ALICE", principal)
	_, _, err = w.visit(t, w.client(w.ca.Issue(t, pkix.Name{CommonName: "alice"}).TLS()))
	require.ErrorContains(t, err, "ssl.principal.mapping.rules")
}

func TestVersionsAndCiphers(t *testing.T) {
	w := newTLSWorld(t, map[string]string{"ssl.enabled.protocols": "TLSv1.2", "ssl.cipher.suites": "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"})
	c := w.client()
	_, _, err := w.visit(t, c)
	require.NoError(t, err)
	c.MinVersion = tls.VersionTLS13
	_, _, err = w.visit(t, c)
	require.Error(t, err)

	modern, err := versionsAndCiphers([]string{"TLSv1.3", "TLSv1.2"}, []string{"TLS_AES_128_GCM_SHA256"})
	require.NoError(t, err)
	require.EqualValues(t, tls.VersionTLS13, modern.MinVersion)
	old, err := versionsAndCiphers([]string{"TLSv1.3", "TLSv1.2"}, []string{"TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"})
	require.NoError(t, err)
	require.EqualValues(t, tls.VersionTLS12, old.MaxVersion)
	_, err = versionsAndCiphers([]string{"SSLv3"}, nil)
	require.ErrorContains(t, err, "SSLv3")
	_, err = versionsAndCiphers([]string{"TLSv1.2"}, []string{"TLS_DHE_RSA_WITH_AES_128_CBC_SHA"})
	require.ErrorContains(t, err, "TLS_DHE_RSA")
	_, err = versionsAndCiphers([]string{"TLSv1.2"}, []string{"TLS_AES_128_GCM_SHA256"})
	require.Error(t, err)
}

func TestRenewedCertificateIsTakenOver(t *testing.T) {
	w := newTLSWorld(t, nil)
	_, first, err := w.visit(t, w.client())
	require.NoError(t, err)
	replace := func(p *testcert.Pair) {
		testcert.Write(t, w.dir, "key.jks", p.JKS(t, "changeit"))
		require.NoError(t, os.Chtimes(w.keyFile, time.Now(), time.Now().Add(time.Duration(time.Now().UnixNano()%1e9))))
		w.Poll()
	}
	now := func() *x509.Certificate {
		_, seen, err := w.visit(t, w.client())
		require.NoError(t, err)
		return seen
	}

	renewed := w.ca.Issue(t, pkix.Name{CommonName: "broker"})
	replace(renewed)
	require.Equal(t, renewed.Certificate.Raw, now().Raw)
	require.NotEqual(t, first.Raw, now().Raw)

	replace(w.ca.Issue(t, pkix.Name{CommonName: "another"}))
	require.Equal(t, renewed.Certificate.Raw, now().Raw, "another name needs ssl.allow.dn.changes")
	require.Contains(t, w.log.String(), "ssl.allow.dn.changes")
	replace(w.ca.Issue(t, pkix.Name{CommonName: "broker"}, func(c *x509.Certificate) { c.IPAddresses = nil }))
	require.Equal(t, renewed.Certificate.Raw, now().Raw)
	require.Contains(t, w.log.String(), "ssl.allow.san.changes")

	w.log.Reset()
	testcert.Write(t, w.dir, "key.jks", []byte("half a fi"))
	w.Poll()
	w.Poll()
	require.Equal(t, renewed.Certificate.Raw, now().Raw, "a broken file changes nothing")
	require.Equal(t, 1, strings.Count(w.log.String(), "stays in force"), "told once")
	require.NotContains(t, w.log.String(), "changeit")

	w.set(t, map[string]string{"ssl.allow.dn.changes": "true"})
	replace(w.ca.Issue(t, pkix.Name{CommonName: "another"}))
	require.Equal(t, "another", now().Subject.CommonName)
}

func TestHandshakeEndsInTime(t *testing.T) {
	w := newTLSWorld(t, nil)
	a, _ := tcpPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	m, err := w.of("DOOR", "SSL")
	require.NoError(t, err)
	_, err = handshake(ctx, a, tls.Server(a, m.server))
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// TestBrokersConnectToEachOther: with client certificates, and only to who is who he says.
func TestBrokersConnectToEachOther(t *testing.T) {
	connect := func(w *tlsWorld, host string) (string, error) {
		a, b := tcpPair(t)
		type outcome struct {
			principal string
			err       error
		}
		other := make(chan outcome, 1)
		go func() {
			c, err := w.Accept("DOOR", "SSL", a)
			if err != nil {
				_ = a.Close()
				other <- outcome{err: err}
				return
			}
			_, err = c.Write([]byte("x"))
			other <- outcome{c.(*Conn).Principal(), err}
		}()
		c, err := w.Connect(t.Context(), "DOOR", "SSL", host, b)
		if err == nil {
			_, err = io.ReadFull(c, make([]byte, 1))
		}
		if err != nil {
			_ = b.Close()
		}
		o := <-other
		return o.principal, errors.Join(err, o.err)
	}
	w := newTLSWorld(t, map[string]string{"ssl.client.auth": "required"})
	principal, err := connect(w, "localhost")
	require.NoError(t, err)
	require.Equal(t, "User:CN=broker", principal)
	_, err = connect(w, "elsewhere.example")
	require.ErrorContains(t, err, "elsewhere.example")

	w = newTLSWorld(t, map[string]string{"ssl.client.auth": "required", "listener.name.door.ssl.endpoint.identification.algorithm": ""})
	_, err = connect(w, "elsewhere.example")
	require.NoError(t, err, "names are not checked")

	w = newTLSWorld(t, nil)
	testcert.Write(t, w.dir, "key.jks", w.ca.Issue(t, pkix.Name{CommonName: "elsewhere.example"}, func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = nil, nil }).JKS(t, "changeit"))
	_, err = connect(w, "elsewhere.example")
	require.NoError(t, err, "without alternative names the common name counts")

	w = newTLSWorld(t, nil)
	w.set(t, map[string]string{"ssl.truststore.location": testcert.Write(t, w.dir, "other.p12", testcert.NewAuthority(t, "other").PKCS12(t, "trustme"))})
	_, err = connect(w, "localhost")
	require.ErrorContains(t, err, "unknown authority")
}

func TestSettingsWithoutAKeyAreRefused(t *testing.T) {
	for want, settings := range map[string]map[string]string{
		"no certificate":               {"ssl.keystore.location": ""},
		"ssl.keystore.location":        {"ssl.keystore.location": "/does/not/exist"},
		"ssl.truststore.location":      {"ssl.truststore.location": "/does/not/exist"},
		"password is wrong":            {"ssl.keystore.password": "hunter2"},
		"ssl.principal.mapping.rules":  {"ssl.principal.mapping.rules": "RULE:x"},
		"ssl.keystore.key: no private": {"ssl.keystore.key": "hunter2"},
	} {
		w := newTLSWorld(t, settings)
		err := w.Check(config.Listener{Name: "DOOR", Protocol: "SSL"})
		require.ErrorContains(t, err, want)
		require.NotContains(t, err.Error(), "hunter2")
	}
	// A certificate is asked for on SASL_SSL only by the listener's own setting.
	w := newTLSWorld(t, map[string]string{"ssl.client.auth": "required"})
	require.Equal(t, "none", clientAuth(w.snapshot, "DOOR", "SASL_SSL"))
	w.set(t, map[string]string{"listener.name.door.ssl.client.auth": "requested"})
	require.Equal(t, "requested", clientAuth(w.snapshot, "DOOR", "SASL_SSL"))
}
