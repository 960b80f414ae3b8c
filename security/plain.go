package security

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"strings"
)

// plainUsers are the names and passwords of a PlainLoginModule: options user_NAME="password".
type plainUsers struct {
	digests map[string][sha256.Size]byte
	nobody  [sha256.Size]byte // compared with when there is no such user; no password has this digest
}

func plainUsersOf(modules []loginModule) (*plainUsers, error) {
	u := &plainUsers{digests: map[string][sha256.Size]byte{}}
	_, _ = rand.Read(u.nobody[:])
	found := false
	for _, m := range modules {
		if m.name != plainModule {
			continue
		}
		found = true
		for option, password := range m.options {
			if name, ok := strings.CutPrefix(option, "user_"); ok {
				u.digests[name] = sha256.Sum256([]byte(password))
			}
		}
	}
	if !found {
		return nil, errors.New("no PlainLoginModule in the JAAS configuration")
	}
	return u, nil
}

// check compares in a time that depends neither on the stored password nor on whether there is such a user.
func (u *plainUsers) check(name, password string) bool {
	want, known := u.digests[name]
	if !known {
		want = u.nobody
	}
	got := sha256.Sum256([]byte(password))
	return subtle.ConstantTimeCompare(want[:], got[:]) == 1 && known
}

// plainExchange is one login by PLAIN: a single token [authorization id] NUL name NUL password. Source: RFC 4616.
type plainExchange struct {
	users *plainUsers
	name  string
}

func (x *plainExchange) step(token []byte) (reply []byte, done bool, err error) {
	authorization, name, password, err := splitPlain(token)
	if err != nil {
		return nil, false, err
	}
	if !x.users.check(name, password) {
		return nil, false, refuse("Authentication failed: Invalid username or password")
	}
	if authorization != "" && authorization != name {
		return nil, false, refuse("Authentication failed: Client requested an authorization id that is different from username")
	}
	x.name = name
	return []byte{}, true, nil
}

func (x *plainExchange) user() string { return x.name }

func splitPlain(token []byte) (authorization, name, password string, err error) {
	parts := strings.Split(string(token), "\x00")
	switch {
	case len(parts) != 3:
		return "", "", "", errors.New("a PLAIN token does not have three parts")
	case parts[1] == "":
		return "", "", "", refuse("Authentication failed: username not specified")
	case parts[2] == "":
		return "", "", "", refuse("Authentication failed: password not specified")
	}
	return parts[0], parts[1], parts[2], nil
}
