package security

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"unicode/utf16"

	"ottla/config"
)

// Passwords among a broker's dynamic settings are encrypted before they go to ZooKeeper, in Kafka's form:
//
//	encryptedPassword:…,initializationVector:…,salt:…,keyFactoryAlgorithm:…,cipherAlgorithm:…,keyLength:…,iterations:…,passwordLength:…
//
// with base64 for bytes, in any order. The key is made of password.encoder.secret by PBKDF2. Source: KIP-226.

// ErrNoEncoderSecret: a password is to be stored, and there is nothing to encrypt it with.
var ErrNoEncoderSecret = errors.New("password.encoder.secret is not set")

// errEncoded does not quote what it is about.
var errEncoded = errors.New("not an encrypted password, or encrypted with another secret")

// encoderHashes are the algorithms that make a key of the secret.
var encoderHashes = map[string]func() hash.Hash{
	"PBKDF2WithHmacSHA1": sha1.New, "PBKDF2WithHmacSHA256": sha256.New, "PBKDF2WithHmacSHA384": sha512.New384, "PBKDF2WithHmacSHA512": sha512.New,
}

const (
	cipherCBC = "AES/CBC/PKCS5Padding"
	cipherGCM = "AES/GCM/NoPadding"

	encoderSaltBytes     = 256
	encoderIterationsMax = 10_000_000 // of what others have stored
)

// EncodePassword encrypts a password as the settings say.
func EncodePassword(s *config.Snapshot, password config.Password) (string, error) {
	secret := config.PasswordEncoderSecret.Of(s)
	if secret == "" {
		return "", ErrNoEncoderSecret
	}
	algorithm := config.PasswordEncoderKeyfactoryAlgorithm.Of(s)
	if algorithm == "" {
		algorithm = "PBKDF2WithHmacSHA512"
	}
	salt := make([]byte, encoderSaltBytes)
	_, _ = rand.Read(salt)
	e := encoded{
		algorithm: algorithm, cipher: config.PasswordEncoderCipherAlgorithm.Of(s), salt: salt,
		keyBits: config.PasswordEncoderKeyLength.Of(s), iterations: config.PasswordEncoderIterations.Of(s), length: javaLength(string(password)),
	}
	if err := e.seal(secret, []byte(password)); err != nil {
		return "", err
	}
	return e.String(), nil
}

// DecodePassword decrypts what EncodePassword, or Kafka, has stored, with password.encoder.secret or else password.encoder.old.secret.
// old reports that it took the old one.
func DecodePassword(s *config.Snapshot, text string) (password config.Password, old bool, err error) {
	secret, before := config.PasswordEncoderSecret.Of(s), config.PasswordEncoderOldSecret.Of(s)
	if secret == "" && before == "" {
		return "", false, ErrNoEncoderSecret
	}
	e, err := parseEncoded(text)
	if err != nil {
		return "", false, err
	}
	if secret != "" {
		if password, err = e.open(secret); err == nil {
			return password, false, nil
		}
	}
	if before != "" {
		if password, err = e.open(before); err == nil {
			return password, true, nil
		}
	}
	return "", false, err
}

// javaLength counts as Java does.
func javaLength(s string) int { return len(utf16.Encode([]rune(s))) }

// encoded is a password with what it takes, besides the secret, to decrypt it.
type encoded struct {
	algorithm, cipher string
	salt, iv, sealed  []byte
	keyBits           int
	iterations        int
	length            int // of the password in Java's characters
	tagBits           int // GCM only
}

func (e *encoded) key(secret config.Password) (cipher.Block, error) {
	h, ok := encoderHashes[e.algorithm]
	if !ok {
		return nil, fmt.Errorf("password.encoder.keyfactory.algorithm: %s is not available", e.algorithm)
	}
	key, err := pbkdf2.Key(h, string(secret), e.salt, e.iterations, e.keyBits/8)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("password.encoder.key.length: %d is not available", e.keyBits)
	}
	return block, nil
}

func (e *encoded) seal(secret config.Password, password []byte) error {
	block, err := e.key(secret)
	if err != nil {
		return err
	}
	switch e.cipher {
	case cipherCBC:
		e.iv = make([]byte, block.BlockSize())
		_, _ = rand.Read(e.iv)
		pad := block.BlockSize() - len(password)%block.BlockSize()
		padded := append(append([]byte(nil), password...), strings.Repeat(string(rune(pad)), pad)...)
		e.sealed = make([]byte, len(padded))
		cipher.NewCBCEncrypter(block, e.iv).CryptBlocks(e.sealed, padded)
	case cipherGCM:
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			return err
		}
		e.iv, e.tagBits = make([]byte, gcm.NonceSize()), 8*gcm.Overhead()
		_, _ = rand.Read(e.iv)
		e.sealed = gcm.Seal(nil, e.iv, password, nil)
	default:
		return fmt.Errorf("password.encoder.cipher.algorithm: %s is not available; it may be %s or %s", e.cipher, cipherCBC, cipherGCM)
	}
	return nil
}

func (e *encoded) open(secret config.Password) (config.Password, error) {
	block, err := e.key(secret)
	if err != nil {
		return "", err
	}
	var plain []byte
	switch e.cipher {
	case cipherCBC:
		n := block.BlockSize()
		if len(e.iv) != n || len(e.sealed) == 0 || len(e.sealed)%n != 0 {
			return "", errEncoded
		}
		plain = make([]byte, len(e.sealed))
		cipher.NewCBCDecrypter(block, e.iv).CryptBlocks(plain, e.sealed)
		pad := int(plain[len(plain)-1])
		if pad < 1 || pad > n {
			return "", errEncoded
		}
		plain = plain[:len(plain)-pad]
	case cipherGCM:
		gcm, err := cipher.NewGCMWithNonceSize(block, max(1, len(e.iv)))
		if err != nil || e.tagBits != 8*gcm.Overhead() {
			return "", errEncoded
		}
		if plain, err = gcm.Open(nil, e.iv, e.sealed, nil); err != nil {
			return "", errEncoded
		}
	default:
		return "", errEncoded
	}
	if javaLength(string(plain)) != e.length {
		return "", errEncoded
	}
	return config.Password(plain), nil
}

// String is the form in which it is stored.
func (e *encoded) String() string {
	b64 := base64.StdEncoding.EncodeToString
	fields := []string{
		"keyFactoryAlgorithm:" + e.algorithm, "cipherAlgorithm:" + e.cipher, "keyLength:" + strconv.Itoa(e.keyBits), "salt:" + b64(e.salt),
		"iterations:" + strconv.Itoa(e.iterations), "encryptedPassword:" + b64(e.sealed), "passwordLength:" + strconv.Itoa(e.length),
		"initializationVector:" + b64(e.iv),
	}
	if e.cipher == cipherGCM {
		fields = append(fields, "authenticationTagLength:"+strconv.Itoa(e.tagBits))
	}
	return strings.Join(fields, ",")
}

func parseEncoded(text string) (*encoded, error) {
	fields := map[string]string{}
	for field := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(field), ":")
		if !ok {
			return nil, errEncoded
		}
		fields[name] = value
	}
	e := &encoded{algorithm: fields["keyFactoryAlgorithm"], cipher: fields["cipherAlgorithm"]}
	for name, to := range map[string]*[]byte{"salt": &e.salt, "initializationVector": &e.iv, "encryptedPassword": &e.sealed} {
		b, err := base64.StdEncoding.DecodeString(fields[name])
		if err != nil {
			return nil, errEncoded
		}
		*to = b
	}
	for name, to := range map[string]*int{"keyLength": &e.keyBits, "iterations": &e.iterations, "passwordLength": &e.length} {
		n, err := strconv.Atoi(fields[name])
		if err != nil || n < 0 {
			return nil, errEncoded
		}
		*to = n
	}
	e.tagBits, _ = strconv.Atoi(fields["authenticationTagLength"])
	if e.iterations < 1 || e.iterations > encoderIterationsMax || e.keyBits < 8 || e.keyBits > 256 {
		return nil, errEncoded
	}
	return e, nil
}
