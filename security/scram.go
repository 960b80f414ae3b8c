package security

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"sync"

	"github.com/xdg-go/scram"
)

// The bounds of SCRAM iterations. Source: Kafka's ScramMechanism and KIP-554.
const (
	ScramIterationsMin = 4096
	ScramIterationsMax = 16384
)

// ScramCredential is what is stored of a password: enough to check it, not to know it. It prints without its keys.
type ScramCredential struct {
	Salt, StoredKey, ServerKey []byte
	Iterations                 int
}

// String keeps keys out of whatever prints it.
func (c ScramCredential) String() string { return fmt.Sprintf("(%d iterations)", c.Iterations) }

// GoString does so too.
func (c ScramCredential) GoString() string { return c.String() }

// Format is the value as Kafka stores it under SCRAM-SHA-256 or -512 in /config/users/NAME.
func (c ScramCredential) Format() string {
	b64 := base64.StdEncoding.EncodeToString
	return "salt=" + b64(c.Salt) + ",stored_key=" + b64(c.StoredKey) + ",server_key=" + b64(c.ServerKey) + ",iterations=" + strconv.Itoa(c.Iterations)
}

var errCredential = errors.New("not a SCRAM credential")

// ParseScramCredential reads what Format writes. The error does not quote it.
func ParseScramCredential(text string) (ScramCredential, error) {
	var c ScramCredential
	fields := map[string]string{}
	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || fields[name] != "" {
			return c, errCredential
		}
		fields[name] = value
	}
	for name, to := range map[string]*[]byte{"salt": &c.Salt, "stored_key": &c.StoredKey, "server_key": &c.ServerKey} {
		decoded, err := base64.StdEncoding.DecodeString(fields[name])
		if err != nil || len(decoded) == 0 {
			return c, errCredential
		}
		*to = decoded
	}
	n, err := strconv.Atoi(fields["iterations"])
	if err != nil || n < 1 || len(fields) != 4 {
		return c, errCredential
	}
	c.Iterations = n
	return c, nil
}

// scramHash is for the client's side, which the library does; the broker's side has to forgive what Kafka's forgives.
func scramHash(mechanism string) scram.HashGeneratorFcn {
	if mechanism == ScramSHA512 {
		return scram.SHA512
	}
	return scram.SHA256
}

func newHash(mechanism string) func() hash.Hash {
	if mechanism == ScramSHA512 {
		return sha512.New
	}
	return sha256.New
}

// NewScramCredential makes a credential of a password.
func NewScramCredential(mechanism, password string, iterations int) (ScramCredential, error) {
	salt := make([]byte, 20)
	_, _ = rand.Read(salt)
	h := newHash(mechanism)
	salted, err := pbkdf2.Key(h, password, salt, iterations, h().Size())
	if err != nil {
		return ScramCredential{}, err
	}
	return SaltedScramCredential(mechanism, salt, salted, iterations), nil
}

// SaltedScramCredential makes a credential of a password that was salted elsewhere, as AlterUserScramCredentials sends it.
func SaltedScramCredential(mechanism string, salt, saltedPassword []byte, iterations int) ScramCredential {
	h := newHash(mechanism)
	mac := func(text string) []byte {
		m := hmac.New(h, saltedPassword)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	stored := h()
	stored.Write(mac("Client Key"))
	return ScramCredential{Salt: salt, StoredKey: stored.Sum(nil), ServerKey: mac("Server Key"), Iterations: iterations}
}

// Credentials are the SCRAM credentials of all users. The zero value is empty; it guards itself.
type Credentials struct {
	mu    sync.RWMutex
	users map[string]map[string]ScramCredential // by name and mechanism
}

// Set replaces what is known of a user by what /config/users/NAME holds; other settings, such as quotas, are passed over. The
// error names the mechanisms whose value is unreadable; they are as good as absent.
func (c *Credentials) Set(user string, settings map[string]string) error {
	own := map[string]ScramCredential{}
	var bad []string
	for _, m := range mechanisms[1:] {
		text, ok := settings[m]
		if !ok {
			continue
		}
		credential, err := ParseScramCredential(text)
		if err != nil {
			bad = append(bad, m)
			continue
		}
		own[m] = credential
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.users == nil {
		c.users = map[string]map[string]ScramCredential{}
	}
	delete(c.users, user)
	if len(own) > 0 {
		c.users[user] = own
	}
	if len(bad) > 0 {
		return fmt.Errorf("user %s: %s: %w", user, strings.Join(bad, ", "), errCredential)
	}
	return nil
}

// Keep forgets the users that keep does not name.
func (c *Credentials) Keep(keep map[string]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for user := range c.users {
		if !keep[user] {
			delete(c.users, user)
		}
	}
}

// Get finds a user's credential for a mechanism.
func (c *Credentials) Get(user, mechanism string) (ScramCredential, bool) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	credential, ok := c.users[user][mechanism]
	return credential, ok
}

// made is a key that lives as long as the process; made-up credentials come from it.
var made = func() []byte {
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	return key
}()

// madeUp is the credential that an unknown user is checked against. It is the same for every attempt, and nobody knows a password
// for it.
func madeUp(mechanism, user string) ScramCredential {
	derive := func(what string, n int) []byte {
		m := hmac.New(newHash(mechanism), made)
		m.Write([]byte(what + "\x00" + user))
		return m.Sum(nil)[:n]
	}
	n := newHash(mechanism)().Size()
	// As long as the salts of Kafka's tools are in base64.
	return ScramCredential{Salt: derive("salt", 20), StoredKey: derive("stored", n), ServerKey: derive("server", n), Iterations: ScramIterationsMin}
}
