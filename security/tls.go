package security

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"ottla/config"
)

// handshakeTimeout bounds a TLS handshake: a connection that does not get that far is of no use to anybody.
const handshakeTimeout = 10 * time.Second

// TLS encrypts the connections of listeners, and those to other brokers' listeners of the same name. Key and trust stores are read
// again when their files or settings change; what cannot be read leaves the earlier ones in force.
type TLS struct {
	config func() *config.Snapshot
	log    zerolog.Logger

	mu        sync.Mutex
	listeners map[string]*tlsListener
}

// tlsListener is one listener's material and what it was made of.
type tlsListener struct {
	print    string // of the settings and files that it was made of
	refused  string // of those that were last refused, so that this is told once
	material *tlsMaterial
}

// tlsMaterial is immutable.
type tlsMaterial struct {
	server     *tls.Config
	client     *tls.Config // without ServerName
	verifyName bool
	rules      []mappingRule
	leaf       *x509.Certificate
}

// NewTLS makes it of the settings at hand; nothing is read before Check.
func NewTLS(config func() *config.Snapshot, log zerolog.Logger) *TLS {
	return &TLS{config: config, log: log.With().Str("component", "tls").Logger(), listeners: map[string]*tlsListener{}}
}

// Check reads a listener's stores; the error says what is missing.
func (t *TLS) Check(l config.Listener) error {
	_, err := t.of(l.Name, l.Protocol)
	return err
}

// of gives a listener's material.
func (t *TLS) of(listener, protocol string) (*tlsMaterial, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l := t.listeners[listener]; l != nil {
		return l.material, nil
	}
	s := t.config()
	m, err := readMaterial(s, listener, protocol)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", listener, err)
	}
	t.listeners[listener] = &tlsListener{print: fingerprint(s, listener, protocol), material: m}
	return m, nil
}

// Poll reads again what has changed since the last time.
func (t *TLS) Poll() {
	s := t.config()
	listeners, err := config.Listeners(s)
	if err != nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, l := range listeners {
		if own := t.listeners[l.Name]; own != nil {
			t.refreshLocked(s, l, own)
		}
	}
}

func (t *TLS) refreshLocked(s *config.Snapshot, l config.Listener, own *tlsListener) {
	print := fingerprint(s, l.Name, l.Protocol)
	if print == own.print || print == own.refused {
		return
	}
	m, err := readMaterial(s, l.Name, l.Protocol)
	if err == nil {
		err = compatible(s, l.Name, own.material.leaf, m.leaf)
	}
	if err != nil {
		own.refused = print
		t.log.Error().Err(err).Str("listener", l.Name).Msg("changed key or trust store is not taken over; the earlier one stays in force")
		return
	}
	own.print, own.refused, own.material = print, "", m
	line := t.log.Info().Str("listener", l.Name)
	if m.leaf != nil {
		line = line.Str("subject", m.leaf.Subject.String()).Time("not_after", m.leaf.NotAfter)
	}
	line.Msg("key and trust store read again")
}

// compatible refuses a new certificate that names something else, unless that is allowed. Source: KIP-978.
func compatible(s *config.Snapshot, listener string, old, new *x509.Certificate) error {
	switch {
	case old == nil || new == nil:
		return nil
	case !config.SSLAllowDNChanges.For(s, listener) && !slices.Equal(old.RawSubject, new.RawSubject):
		return fmt.Errorf("the new certificate is for %q, the old one for %q: set ssl.allow.dn.changes=true if that is wanted", new.Subject, old.Subject)
	case !config.SSLAllowSANChanges.For(s, listener) && !covers(new, old):
		return errors.New("the new certificate lacks alternative names of the old one: set ssl.allow.san.changes=true if that is wanted")
	}
	return nil
}

// covers reports whether a has all alternative names of b.
func covers(a, b *x509.Certificate) bool {
	names := func(c *x509.Certificate) []string {
		out := slices.Concat(c.DNSNames, c.EmailAddresses)
		for _, ip := range c.IPAddresses {
			out = append(out, ip.String())
		}
		for _, u := range c.URIs {
			out = append(out, u.String())
		}
		return out
	}
	own := names(a)
	return !slices.ContainsFunc(names(b), func(n string) bool { return !slices.Contains(own, n) })
}

// fingerprint changes when a setting that matters changes, or the age or length of a file that it names.
func fingerprint(s *config.Snapshot, listener, protocol string) string {
	var b strings.Builder
	fmt.Fprintln(&b, protocol, clientAuth(s, listener, protocol), config.SSLEnabledProtocols.For(s, listener), config.SSLCipherSuites.For(s, listener),
		config.SSLEndpointIdentificationAlgorithm.For(s, listener), config.SSLPrincipalMappingRules.For(s, listener))
	for _, secret := range []*config.Key[config.Password]{config.SSLKeystorePassword, config.SSLKeyPassword, config.SSLKeystoreKey,
		config.SSLKeystoreCertificateChain, config.SSLTruststorePassword, config.SSLTruststoreCertificates} {
		fmt.Fprintf(&b, "%q\n", string(secret.For(s, listener)))
	}
	for _, file := range []*config.Key[string]{config.SSLKeystoreLocation, config.SSLTruststoreLocation} {
		name := file.For(s, listener)
		fmt.Fprintf(&b, "%q", name)
		if info, err := os.Stat(name); name != "" && err == nil {
			fmt.Fprint(&b, info.ModTime().UnixNano(), info.Size())
		}
		fmt.Fprintln(&b)
	}
	return b.String()
}

// clientAuth is ssl.client.auth. On SASL_SSL it counts only with the listener's prefix. Source: KIP-684.
func clientAuth(s *config.Snapshot, listener, protocol string) string {
	if UsesSASL(protocol) {
		if _, _, set := s.Value("listener.name." + strings.ToLower(listener) + "." + config.SSLClientAuth.Name); !set {
			return "none"
		}
	}
	return config.SSLClientAuth.For(s, listener)
}

func readMaterial(s *config.Snapshot, listener, protocol string) (*tlsMaterial, error) {
	m, err := clientMaterial(s, listener)
	if err != nil {
		return nil, err
	}
	if m.leaf == nil {
		return nil, errors.New("no certificate: set ssl.keystore.location, or ssl.keystore.key and ssl.keystore.certificate.chain")
	}
	rules, err := parseMappingRules(config.SSLPrincipalMappingRules.For(s, listener))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", config.SSLPrincipalMappingRules.Name, err)
	}
	m.rules, m.server = rules, m.client.Clone()
	m.server.ClientCAs, m.server.RootCAs = m.client.RootCAs, nil
	m.server.ClientAuth = map[string]tls.ClientAuthType{
		"required": tls.RequireAndVerifyClientCert, "requested": tls.VerifyClientCertIfGiven, "none": tls.NoClientCert,
	}[clientAuth(s, listener, protocol)]
	return m, nil
}

// keyOf reads the listener's key and certificates; nil when none are set.
func keyOf(s *config.Snapshot, listener string) (*tls.Certificate, error) {
	password := config.SSLKeyPassword.For(s, listener)
	if key := config.SSLKeystoreKey.For(s, listener); key != "" {
		c, err := readPEMKey(string(key), string(config.SSLKeystoreCertificateChain.For(s, listener)), password)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", config.SSLKeystoreKey.Name, err)
		}
		return c, nil
	}
	name := config.SSLKeystoreLocation.For(s, listener)
	if name == "" {
		return nil, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", config.SSLKeystoreLocation.Name, err)
	}
	c, err := readKeyStore(data, config.SSLKeystorePassword.For(s, listener), password)
	if err != nil {
		return nil, fmt.Errorf("%s=%s: %w", config.SSLKeystoreLocation.Name, name, err)
	}
	return c, nil
}

// rootsOf reads whom the listener trusts; nil, the system's own, when nothing is set.
func rootsOf(s *config.Snapshot, listener string) (*x509.CertPool, error) {
	var certificates []*x509.Certificate
	var err error
	name := config.SSLTruststoreLocation.For(s, listener)
	if text := config.SSLTruststoreCertificates.For(s, listener); text != "" {
		if certificates, err = readTrustStore([]byte(text), ""); err != nil {
			return nil, fmt.Errorf("%s: %w", config.SSLTruststoreCertificates.Name, err)
		}
	} else if name != "" {
		data, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", config.SSLTruststoreLocation.Name, err)
		}
		if certificates, err = readTrustStore(data, config.SSLTruststorePassword.For(s, listener)); err != nil {
			return nil, fmt.Errorf("%s=%s: %w", config.SSLTruststoreLocation.Name, name, err)
		}
	} else {
		return nil, nil
	}
	pool := x509.NewCertPool()
	for _, c := range certificates {
		pool.AddCert(c)
	}
	return pool, nil
}

var tlsVersions = map[string]uint16{"TLSv1": tls.VersionTLS10, "TLSv1.1": tls.VersionTLS11, "TLSv1.2": tls.VersionTLS12, "TLSv1.3": tls.VersionTLS13}

// versionsAndCiphers turns ssl.enabled.protocols and ssl.cipher.suites into a configuration. The ciphers of TLS 1.3 cannot be chosen
// among, only left out together with it.
func versionsAndCiphers(protocols, suites []string) (*tls.Config, error) {
	c := &tls.Config{}
	for _, p := range protocols {
		v, ok := tlsVersions[p]
		if !ok {
			return nil, fmt.Errorf("%s: %s is not available; it may name TLSv1.2 and TLSv1.3 (and TLSv1, TLSv1.1)", config.SSLEnabledProtocols.Name, p)
		}
		if c.MinVersion == 0 || v < c.MinVersion {
			c.MinVersion = v
		}
		c.MaxVersion = max(c.MaxVersion, v)
	}
	if len(suites) == 0 {
		return c, nil
	}
	known := slices.Concat(tls.CipherSuites(), tls.InsecureCipherSuites())
	newest := false
	for _, name := range suites {
		at := slices.IndexFunc(known, func(k *tls.CipherSuite) bool { return k.Name == name })
		switch {
		case at < 0:
			return nil, fmt.Errorf("%s: %s is not available", config.SSLCipherSuites.Name, name)
		case slices.Contains(known[at].SupportedVersions, tls.VersionTLS12):
			c.CipherSuites = append(c.CipherSuites, known[at].ID)
		default:
			newest = true
		}
	}
	switch {
	case len(c.CipherSuites) == 0:
		c.MinVersion = tls.VersionTLS13
	case !newest:
		c.MaxVersion = min(c.MaxVersion, tls.VersionTLS12)
	}
	if c.MinVersion > c.MaxVersion && c.MaxVersion != 0 {
		return nil, fmt.Errorf("%s fits none of %s", config.SSLCipherSuites.Name, config.SSLEnabledProtocols.Name)
	}
	return c, nil
}

// Conn is an encrypted connection that knows whose it is.
type Conn struct {
	*tls.Conn
	principal string
}

// Principal is made of the client's certificate; User:ANONYMOUS without one.
func (c *Conn) Principal() string { return c.principal }

// Accept does the handshake of a connection that came in on a listener.
func (t *TLS) Accept(listener, protocol string, nc net.Conn) (net.Conn, error) {
	m, err := t.of(listener, protocol)
	if err != nil {
		return nil, err
	}
	c, err := handshake(context.Background(), nc, tls.Server(nc, m.server))
	if err != nil {
		return nil, err
	}
	out := &Conn{c, Anonymous}
	if peers := c.ConnectionState().PeerCertificates; len(peers) > 0 {
		name, err := distinguishedName(peers[0].RawSubject)
		if err == nil {
			name, err = mapName(m.rules, name)
		}
		if err != nil {
			return nil, err
		}
		out.principal = UserPrincipal(name)
	}
	return out, nil
}

// Connect does the handshake of a connection to another broker's listener.
func (t *TLS) Connect(ctx context.Context, listener, protocol, host string, nc net.Conn) (net.Conn, error) {
	m, err := t.of(listener, protocol)
	if err != nil {
		return nil, err
	}
	return m.connect(ctx, host, nc)
}

func (m *tlsMaterial) connect(ctx context.Context, host string, nc net.Conn) (net.Conn, error) {
	c := m.client.Clone()
	c.ServerName = host
	// Java accepts a certificate without alternative names by its common name, Go does not: the check is made here, with the same chain.
	c.InsecureSkipVerify = true
	c.VerifyConnection = func(state tls.ConnectionState) error { return verifyServer(state, c.RootCAs, host, m.verifyName) }
	return handshake(ctx, nc, tls.Client(nc, c))
}

func handshake(ctx context.Context, nc net.Conn, c *tls.Conn) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("TLS handshake: %w", err)
	}
	return c, nc.SetDeadline(time.Time{})
}

// verifyServer checks the other side's chain and, if asked, its name.
func verifyServer(state tls.ConnectionState, roots *x509.CertPool, host string, name bool) error {
	if len(state.PeerCertificates) == 0 {
		return errors.New("the other side shows no certificate")
	}
	leaf := state.PeerCertificates[0]
	o := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	for _, c := range state.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(o); err != nil {
		return err
	}
	if !name {
		return nil
	}
	if len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0 && net.ParseIP(host) == nil && strings.EqualFold(leaf.Subject.CommonName, host) {
		return nil
	}
	return leaf.VerifyHostname(host)
}
