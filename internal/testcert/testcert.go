// Package testcert makes certificates for tests: an authority and what it signs, as PEM, JKS and PKCS12.
package testcert

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"
)

// Authority signs certificates.
type Authority struct {
	Certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

// Pair is a certificate with its key.
type Pair struct {
	Certificate *x509.Certificate
	Key         *ecdsa.PrivateKey
	issuer      *x509.Certificate
}

// NewAuthority makes an authority of its own.
func NewAuthority(t testing.TB, name string) *Authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	return &Authority{sign(t, template, template, &key.PublicKey, key), key}
}

// Issue makes a certificate for 127.0.0.1 and localhost; change, when given, alters it before it is signed.
func (a *Authority) Issue(t testing.TB, subject pkix.Name, change ...func(*x509.Certificate)) *Pair {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	for _, c := range change {
		c(template)
	}
	return &Pair{sign(t, template, a.Certificate, &key.PublicKey, a.key), key, a.Certificate}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	return key
}

func serial(t testing.TB) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	check(t, err)
	return n
}

func sign(t testing.TB, template, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	check(t, err)
	c, err := x509.ParseCertificate(der)
	check(t, err)
	return c
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// PEM is the authority's certificate.
func (a *Authority) PEM() string { return certificatePEM(a.Certificate) }

// Pool trusts the authority.
func (a *Authority) Pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.Certificate)
	return p
}

// JKS is a trust store.
func (a *Authority) JKS(t testing.TB, password string) []byte {
	t.Helper()
	ks := keystore.New()
	check(t, ks.SetTrustedCertificateEntry("ca", keystore.TrustedCertificateEntry{CreationTime: time.Now(), Certificate: jksCertificate(a.Certificate)}))
	return stored(t, ks, password)
}

// PKCS12 is a trust store.
func (a *Authority) PKCS12(t testing.TB, password string) []byte {
	t.Helper()
	data, err := pkcs12.Modern.EncodeTrustStore([]*x509.Certificate{a.Certificate}, password)
	check(t, err)
	return data
}

// ChainPEM is the certificate and its issuer's.
func (p *Pair) ChainPEM() string { return certificatePEM(p.Certificate) + certificatePEM(p.issuer) }

// KeyPEM is the key, not encrypted.
func (p *Pair) KeyPEM(t testing.TB) string {
	t.Helper()
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: p.pkcs8(t)}))
}

// JKS is a key store; key and store have the same password.
func (p *Pair) JKS(t testing.TB, password string) []byte {
	t.Helper()
	ks := keystore.New()
	check(t, ks.SetPrivateKeyEntry("own", keystore.PrivateKeyEntry{
		CreationTime: time.Now(), PrivateKey: p.pkcs8(t), CertificateChain: []keystore.Certificate{jksCertificate(p.Certificate), jksCertificate(p.issuer)},
	}, []byte(password)))
	return stored(t, ks, password)
}

// PKCS12 is a key store.
func (p *Pair) PKCS12(t testing.TB, password string) []byte {
	t.Helper()
	data, err := pkcs12.Modern.Encode(p.Key, p.Certificate, []*x509.Certificate{p.issuer}, password)
	check(t, err)
	return data
}

// TLS is the pair as crypto/tls has it.
func (p *Pair) TLS() tls.Certificate {
	return tls.Certificate{Certificate: [][]byte{p.Certificate.Raw, p.issuer.Raw}, PrivateKey: p.Key, Leaf: p.Certificate}
}

func (p *Pair) pkcs8(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(p.Key)
	check(t, err)
	return der
}

func certificatePEM(c *x509.Certificate) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
}

func jksCertificate(c *x509.Certificate) keystore.Certificate {
	return keystore.Certificate{Type: "X509", Content: c.Raw}
}

func stored(t testing.TB, ks keystore.KeyStore, password string) []byte {
	t.Helper()
	var b bytes.Buffer
	check(t, ks.Store(&b, []byte(password)))
	return b.Bytes()
}

// Write puts data into a file of the test's folder and returns its path.
func Write(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	check(t, os.WriteFile(path, data, 0o600))
	return path
}
