package security

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strings"

	"github.com/pavlo-v-chernykh/keystore-go/v4"
	"software.sslmate.com/src/go-pkcs12"

	"ottla/config"
)

// Key stores and trust stores: JKS, PKCS12 and PEM. The form is told by the content, as Java tells JKS and PKCS12 apart whatever
// ssl.keystore.type says. Errors name the problem, never a password or a key.

var (
	errPassword = errors.New("the password is wrong, or the file is damaged")
	errNoKey    = errors.New("no private key with its certificate in it")
)

// readKeyStore finds the first private key and its chain of certificates.
func readKeyStore(data []byte, storePassword, keyPassword config.Password) (*tls.Certificate, error) {
	if keyPassword == "" {
		keyPassword = storePassword
	}
	switch formOf(data) {
	case formPEM:
		return readPEMKey(string(data), string(data), keyPassword)
	case formPKCS12:
		key, certificate, others, err := pkcs12.DecodeChain(data, string(storePassword))
		if err != nil {
			return nil, pkcs12Error(err)
		}
		return pair(key, append([]*x509.Certificate{certificate}, others...))
	case formJKS:
		return readJKSKey(data, storePassword, keyPassword)
	}
	return nil, errors.New("neither JKS, PKCS12 nor PEM")
}

// readTrustStore finds the certificates that are trusted.
func readTrustStore(data []byte, password config.Password) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	var err error
	switch formOf(data) {
	case formPEM:
		out, err = readPEMCertificates(string(data))
	case formPKCS12:
		if out, err = pkcs12.DecodeTrustStore(data, string(password)); err != nil {
			err = pkcs12Error(err)
		}
	case formJKS:
		out, err = readJKSTrust(data, password)
	default:
		err = errors.New("neither JKS, PKCS12 nor PEM")
	}
	if err == nil && len(out) == 0 {
		err = errors.New("no trusted certificate in it")
	}
	return out, err
}

type storeForm int

const (
	formUnknown storeForm = iota
	formPEM
	formPKCS12
	formJKS
)

func formOf(data []byte) storeForm {
	switch {
	case bytes.HasPrefix(data, []byte{0xfe, 0xed, 0xfe, 0xed}):
		return formJKS
	case bytes.Contains(data, []byte("-----BEGIN ")):
		return formPEM
	case bytes.HasPrefix(data, []byte{0x30}):
		return formPKCS12
	}
	return formUnknown
}

func pkcs12Error(err error) error {
	if errors.Is(err, pkcs12.ErrIncorrectPassword) || errors.Is(err, pkcs12.ErrDecryption) {
		return errPassword
	}
	return err
}

func loadJKS(data []byte, password config.Password) (keystore.KeyStore, error) {
	ks := keystore.New(keystore.WithOrderedAliases(), keystore.WithCaseExactAliases())
	err := ks.Load(bytes.NewReader(data), []byte(password))
	if err != nil && password == "" && len(ks.Aliases()) > 0 {
		err = nil // without a password Java does not check the digest either
	}
	if err != nil {
		return ks, errPassword
	}
	return ks, nil
}

func readJKSKey(data []byte, storePassword, keyPassword config.Password) (*tls.Certificate, error) {
	ks, err := loadJKS(data, storePassword)
	if err != nil {
		return nil, err
	}
	for _, alias := range ks.Aliases() {
		if !ks.IsPrivateKeyEntry(alias) {
			continue
		}
		entry, err := ks.GetPrivateKeyEntry(alias, []byte(keyPassword))
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", alias, errPassword)
		}
		key, err := x509.ParsePKCS8PrivateKey(entry.PrivateKey)
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", alias, err)
		}
		var chain []*x509.Certificate
		for _, c := range entry.CertificateChain {
			certificate, err := x509.ParseCertificate(c.Content)
			if err != nil {
				return nil, fmt.Errorf("key %s: %w", alias, err)
			}
			chain = append(chain, certificate)
		}
		return pair(key, chain)
	}
	return nil, errNoKey
}

func readJKSTrust(data []byte, password config.Password) ([]*x509.Certificate, error) {
	ks, err := loadJKS(data, password)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for _, alias := range ks.Aliases() {
		if !ks.IsTrustedCertificateEntry(alias) {
			continue
		}
		entry, err := ks.GetTrustedCertificateEntry(alias)
		if err != nil {
			return nil, err
		}
		certificate, err := x509.ParseCertificate(entry.Certificate.Content)
		if err != nil {
			return nil, fmt.Errorf("certificate %s: %w", alias, err)
		}
		out = append(out, certificate)
	}
	return out, nil
}

// pair puts the key's own certificate first and its issuers behind it, whatever the order in the store.
func pair(key any, certificates []*x509.Certificate) (*tls.Certificate, error) {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a private key of type %T cannot be used", key)
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	if !ok {
		return nil, fmt.Errorf("a private key of type %T cannot be used", key)
	}
	var leaf *x509.Certificate
	for _, c := range certificates {
		if public.Equal(c.PublicKey) {
			leaf = c
			break
		}
	}
	if leaf == nil {
		return nil, errNoKey
	}
	out := &tls.Certificate{PrivateKey: key, Leaf: leaf, Certificate: [][]byte{leaf.Raw}}
	for last := leaf; len(out.Certificate) <= len(certificates); {
		next := issuerOf(last, certificates)
		if next == nil {
			break
		}
		out.Certificate = append(out.Certificate, next.Raw)
		last = next
	}
	return out, nil
}

func issuerOf(c *x509.Certificate, among []*x509.Certificate) *x509.Certificate {
	if bytes.Equal(c.RawIssuer, c.RawSubject) {
		return nil
	}
	for _, candidate := range among {
		if bytes.Equal(candidate.RawSubject, c.RawIssuer) {
			return candidate
		}
	}
	return nil
}

// pemBlock is one -----BEGIN KIND----- … -----END KIND----- of a text. Unlike encoding/pem's, the body may stand on one line, or have
// blanks instead of line ends, as it does when it comes through a properties file.
type pemBlock struct {
	kind string
	der  []byte
}

func pemBlocks(text string) ([]pemBlock, error) {
	var out []pemBlock
	for {
		_, rest, ok := strings.Cut(text, "-----BEGIN ")
		if !ok {
			return out, nil
		}
		kind, rest, ok := strings.Cut(rest, "-----")
		if !ok {
			return nil, errors.New("a PEM block without an end")
		}
		body, rest, ok := strings.Cut(rest, "-----END "+kind+"-----")
		if !ok {
			return nil, fmt.Errorf("PEM block %s without an end", kind)
		}
		text = rest
		if strings.Contains(body, "Proc-Type:") {
			return nil, fmt.Errorf("PEM block %s has the encryption of old OpenSSL: convert it with 'openssl pkcs8 -topk8'", kind)
		}
		der, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(body), ""))
		if err != nil {
			return nil, fmt.Errorf("PEM block %s is not base64", kind)
		}
		out = append(out, pemBlock{kind, der})
	}
}

func readPEMCertificates(text string) ([]*x509.Certificate, error) {
	blocks, err := pemBlocks(text)
	if err != nil {
		return nil, err
	}
	var out []*x509.Certificate
	for _, b := range blocks {
		if b.kind != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(b.der)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// readPEMKey reads a key and its certificates, which may stand in the same text.
func readPEMKey(keyText, chainText string, password config.Password) (*tls.Certificate, error) {
	certificates, err := readPEMCertificates(chainText)
	if err != nil {
		return nil, err
	}
	blocks, err := pemBlocks(keyText)
	if err != nil {
		return nil, err
	}
	for _, b := range blocks {
		if !strings.HasSuffix(b.kind, "PRIVATE KEY") {
			continue
		}
		key, err := parseKey(b, password)
		if err != nil {
			return nil, err
		}
		return pair(key, certificates)
	}
	return nil, errNoKey
}

func parseKey(b pemBlock, password config.Password) (any, error) {
	switch b.kind {
	case "PRIVATE KEY":
		return x509.ParsePKCS8PrivateKey(b.der)
	case "RSA PRIVATE KEY":
		return x509.ParsePKCS1PrivateKey(b.der)
	case "EC PRIVATE KEY":
		return x509.ParseECPrivateKey(b.der)
	case "ENCRYPTED PRIVATE KEY":
		der, err := decryptPKCS8(b.der, password)
		if err != nil {
			return nil, err
		}
		key, err := x509.ParsePKCS8PrivateKey(der)
		if err != nil {
			return nil, errPassword
		}
		return key, nil
	}
	return nil, fmt.Errorf("a %s cannot be used", b.kind)
}

// The layouts of an encrypted PKCS #8 key with PBES2. Source: RFC 5958, RFC 8018.
type (
	encryptedKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Data      []byte
	}
	pbes2Params struct {
		Derivation, Encryption pkix.AlgorithmIdentifier
	}
	pbkdf2Params struct {
		Salt       []byte
		Iterations int
		KeyLength  int                      `asn1:"optional"`
		PRF        pkix.AlgorithmIdentifier `asn1:"optional"`
	}
)

var (
	oidPBES2  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 13}
	oidPBKDF2 = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 5, 12}

	prfs = map[string]func() hash.Hash{
		"":                    sha1.New, // the default
		"1.2.840.113549.2.7":  sha1.New,
		"1.2.840.113549.2.9":  sha256.New,
		"1.2.840.113549.2.10": sha512.New384,
		"1.2.840.113549.2.11": sha512.New,
	}
	ciphers = map[string]struct {
		keyBytes int
		block    func([]byte) (cipher.Block, error)
	}{
		"2.16.840.1.101.3.4.1.2":  {16, aes.NewCipher},
		"2.16.840.1.101.3.4.1.22": {24, aes.NewCipher},
		"2.16.840.1.101.3.4.1.42": {32, aes.NewCipher},
		"1.2.840.113549.3.7":      {24, des.NewTripleDESCipher},
	}
)

// iterationsMax bounds the work that a file can ask for.
const iterationsMax = 10_000_000

func decryptPKCS8(der []byte, password config.Password) ([]byte, error) {
	var k encryptedKey
	var params pbes2Params
	var derivation pbkdf2Params
	if _, err := asn1.Unmarshal(der, &k); err != nil {
		return nil, fmt.Errorf("encrypted private key: %w", err)
	}
	unsupported := errors.New("the encryption of the private key is not supported: convert it with 'openssl pkcs8 -topk8 -v2 aes256'")
	if !k.Algorithm.Algorithm.Equal(oidPBES2) {
		return nil, unsupported
	}
	if _, err := asn1.Unmarshal(k.Algorithm.Parameters.FullBytes, &params); err != nil || !params.Derivation.Algorithm.Equal(oidPBKDF2) {
		return nil, unsupported
	}
	if _, err := asn1.Unmarshal(params.Derivation.Parameters.FullBytes, &derivation); err != nil || derivation.Iterations > iterationsMax {
		return nil, unsupported
	}
	prf, scheme := prfs[derivation.PRF.Algorithm.String()], ciphers[params.Encryption.Algorithm.String()]
	var iv []byte
	if _, err := asn1.Unmarshal(params.Encryption.Parameters.FullBytes, &iv); err != nil || prf == nil || scheme.block == nil {
		return nil, unsupported
	}
	key, err := pbkdf2.Key(prf, string(password), derivation.Salt, derivation.Iterations, scheme.keyBytes)
	if err != nil {
		return nil, err
	}
	block, err := scheme.block(key)
	if err != nil {
		return nil, err
	}
	return decryptCBC(block, iv, k.Data)
}

// decryptCBC takes the padding off too. Source: RFC 8018, 6.1.1.
func decryptCBC(block cipher.Block, iv, data []byte) ([]byte, error) {
	n := block.BlockSize()
	if len(iv) != n || len(data) == 0 || len(data)%n != 0 {
		return nil, errPassword
	}
	out := make([]byte, len(data))
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(out, data)
	pad := int(out[len(out)-1])
	if pad < 1 || pad > n || !bytes.Equal(out[len(out)-pad:], bytes.Repeat([]byte{byte(pad)}, pad)) {
		return nil, errPassword
	}
	return out[:len(out)-pad], nil
}
