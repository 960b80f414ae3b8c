package security

import (
	"context"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
)

// world is a broker's SASL with alice, who may use everything: PLAIN "wonder", SCRAM "land".
func world(t *testing.T, settings map[string]string) *SASL {
	t.Helper()
	all := map[string]string{
		"sasl.jaas.config": plainModule + ` required user_alice="wonder" user_bob="builder" username="alice" password="wonder";`,
	}
	for k, v := range settings {
		all[k] = v
	}
	s := snapshot(t, all)
	credentials := &Credentials{}
	stored := map[string]string{"producer_byte_rate": "1024"}
	for _, m := range []string{ScramSHA256, ScramSHA512} {
		c, err := NewScramCredential(m, "land", 4096)
		require.NoError(t, err)
		stored[m] = c.Format()
	}
	require.NoError(t, credentials.Set("alice", stored))
	return NewSASL(func() *config.Snapshot { return s }, credentials, noEnvironment)
}

func plainToken(authorization, name, password string) []byte {
	return []byte(authorization + "\x00" + name + "\x00" + password)
}

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func TestPlainLogin(t *testing.T) {
	for _, row := range []struct {
		token []byte
		want  string // "" goes well
	}{
		{plainToken("", "alice", "wonder"), ""},
		{plainToken("alice", "alice", "wonder"), ""},
		{plainToken("bob", "alice", "wonder"), "Authentication failed: Client requested an authorization id that is different from username"},
		{plainToken("", "alice", "wonde"), "Authentication failed: Invalid username or password"},
		{plainToken("", "alice", "wonder2"), "Authentication failed: Invalid username or password"},
		{plainToken("", "mallory", "wonder"), "Authentication failed: Invalid username or password"},
		{plainToken("", "", "wonder"), "Authentication failed: username not specified"},
		{plainToken("", "alice", ""), "Authentication failed: password not specified"},
		{[]byte("alice"), "Authentication failed during authentication due to invalid credentials with SASL mechanism PLAIN"},
		{nil, "Authentication failed during authentication due to invalid credentials with SASL mechanism PLAIN"},
		{[]byte("\x00alice\x00wonder\x00"), "Authentication failed during authentication due to invalid credentials with SASL mechanism PLAIN"},
	} {
		l := world(t, nil).NewLogin("LOGIN")
		require.NoError(t, l.Handshake(Plain, noon))
		reply, done, err := l.Step(row.token, noon)
		if row.want == "" {
			require.NoError(t, err)
			require.True(t, done)
			require.Empty(t, reply)
			require.Equal(t, "User:alice", l.Principal())
			continue
		}
		require.EqualError(t, err, row.want)
		require.ErrorIs(t, err, ErrFailed)
		require.False(t, done)
		require.Empty(t, l.Principal())
		_, _, err = l.Step(plainToken("", "alice", "wonder"), noon)
		require.ErrorIs(t, err, ErrState, "one attempt a connection")
		require.ErrorIs(t, l.Handshake(Plain, noon), ErrState)
	}
}

// scramLogin runs a client of the library's against a login.
func scramLogin(l *Login, mechanism, name, password, authorization string) error {
	if err := l.Handshake(mechanism, noon); err != nil {
		return err
	}
	client, err := scramHash(mechanism).NewClientUnprepped(name, password, authorization)
	if err != nil {
		return err
	}
	c := client.NewConversation()
	var reply []byte
	for done := false; !done; {
		token, err := c.Step(string(reply))
		if err != nil {
			return err
		}
		if reply, done, err = l.Step([]byte(token), noon); err != nil {
			return err
		}
	}
	if _, err := c.Step(string(reply)); err != nil {
		return err
	}
	if !c.Valid() {
		return errors.New("the broker did not prove itself")
	}
	return nil
}

func TestScramLogin(t *testing.T) {
	for _, m := range []string{ScramSHA256, ScramSHA512} {
		s := world(t, nil)
		l := s.NewLogin("LOGIN")
		require.NoError(t, scramLogin(l, m, "alice", "land", ""))
		require.Equal(t, "User:alice", l.Principal())
		require.NoError(t, scramLogin(s.NewLogin("LOGIN"), m, "alice", "land", "alice"))

		invalid := "Authentication failed during authentication due to invalid credentials with SASL mechanism " + m
		require.EqualError(t, scramLogin(s.NewLogin("LOGIN"), m, "alice", "lan", ""), invalid)
		require.EqualError(t, scramLogin(s.NewLogin("LOGIN"), m, "mallory", "land", ""), invalid)
		require.EqualError(t, scramLogin(s.NewLogin("LOGIN"), m, "alice", "land", "bob"),
			"Authentication failed: Client requested an authorization id that is different from username")
	}
}

// TestScramForgivesADoubledNonce, which librdkafka sent before 2.6.1 and Kafka lets in.
func TestScramForgivesADoubledNonce(t *testing.T) {
	for _, prefix := range []string{"", "abc"} {
		s := world(t, nil)
		stored, _ := s.credentials.Get("alice", ScramSHA256)
		x := &scramExchange{mechanism: ScramSHA256, from: s.credentials}
		first, _, err := x.step([]byte("n,,n=alice,r=abc"))
		require.NoError(t, err)
		without := "c=biws,r=" + prefix + x.nonce
		salted, err := pbkdf2.Key(sha256.New, "land", stored.Salt, stored.Iterations, sha256.Size)
		require.NoError(t, err)
		key := x.mac(salted, []byte("Client Key"))
		signature := x.mac(stored.StoredKey, []byte("n=alice,r=abc,"+string(first)+","+without))
		subtle.XORBytes(key, key, signature)
		_, done, err := x.step([]byte(without + ",p=" + base64.StdEncoding.EncodeToString(key)))
		require.NoError(t, err)
		require.True(t, done)
		require.Equal(t, "alice", x.user())
	}
}

func TestNamesInScramTokens(t *testing.T) {
	for s, want := range map[string]string{"alice": "alice", "a=2Cb=3Dc": "a,b=c", "=3D2C": "=2C", "ä": "ä"} {
		got, ok := decodeSASLName(s, true)
		require.True(t, ok, s)
		require.Equal(t, want, got)
	}
	for _, s := range []string{"", "=", "a=2cb", "a\x00"} {
		_, ok := decodeSASLName(s, true)
		require.False(t, ok, s)
	}
}

// TestScramOfAnUnknownUserLooksLikeAnyOther: the first answer has a salt and iterations, and the same ones each time.
func TestScramOfAnUnknownUserLooksLikeAnyOther(t *testing.T) {
	first := func(name string) string {
		l := world(t, nil).NewLogin("LOGIN")
		require.NoError(t, l.Handshake(ScramSHA256, noon))
		reply, done, err := l.Step([]byte("n,,n="+name+",r=abc"), noon)
		require.NoError(t, err)
		require.False(t, done)
		return string(reply)[len("r=abc")+len(rand.Text()):] // behind the nonces
	}
	mallory := first("mallory")
	require.Equal(t, mallory, first("mallory"))
	require.NotEqual(t, mallory, first("trudy"))
	require.Len(t, first("alice"), len(mallory))
	require.Regexp(t, `^,s=.{28},i=4096$`, mallory)
}

func TestScramTokensThatAreWrong(t *testing.T) {
	for _, token := range []string{"", "n,,", "n,,n=alice", "p=tls-unique,,n=alice,r=x", "n,,n=al=ice,r=x", "\x00", "n,,n=,r=x"} {
		l := world(t, nil).NewLogin("LOGIN")
		require.NoError(t, l.Handshake(ScramSHA512, noon))
		_, done, err := l.Step([]byte(token), noon)
		if err == nil {
			require.False(t, done, token)
			_, _, err = l.Step([]byte("c=biws,r=x,p=AAAA"), noon)
		}
		require.ErrorIs(t, err, ErrFailed, token)
	}
}

func FuzzLogin(f *testing.F) {
	f.Add([]byte("\x00alice\x00wonder"), []byte("c=biws,r=x,p=AAAA"))
	f.Add([]byte("n,,n=alice,r=abc"), []byte("c=biws,r=abc,p=AAAA"))
	s := &SASL{credentials: &Credentials{}}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		for _, m := range []string{ScramSHA256, ScramSHA512} {
			x := &scramExchange{mechanism: m, from: s.credentials}
			for _, token := range [][]byte{first, second} {
				if _, done, err := x.step(token); done || err != nil {
					require.False(t, done, "nobody is known here")
					break
				}
			}
		}
		x := &plainExchange{users: &plainUsers{}}
		_, done, err := x.step(first)
		require.True(t, !done && err != nil)
	})
}

func TestHandshake(t *testing.T) {
	l := world(t, nil).NewLogin("LOGIN")
	_, _, err := l.Step(plainToken("", "alice", "wonder"), noon)
	require.ErrorIs(t, err, ErrState, "no token before the handshake")
	require.ErrorIs(t, l.Handshake("GSSAPI", noon), ErrMechanism)
	require.Equal(t, []string{Plain, ScramSHA256, ScramSHA512}, l.Mechanisms())

	l = world(t, nil).NewLogin("LOGIN")
	require.NoError(t, l.Handshake(Plain, noon))
	require.ErrorIs(t, l.Handshake(Plain, noon), ErrState, "one at a time")
	_, _, err = l.Step(plainToken("", "alice", "wonder"), noon)
	require.NoError(t, err)
	require.Zero(t, l.Life())
	require.ErrorIs(t, l.Handshake(Plain, noon.Add(time.Hour)), ErrState, "logins do not expire here")
	require.Equal(t, "User:alice", l.Principal())
}

func TestLoginAgain(t *testing.T) {
	begin := func() *Login {
		l := world(t, map[string]string{"listener.name.login.plain.connections.max.reauth.ms": "60000"}).NewLogin("LOGIN")
		require.NoError(t, l.Handshake(Plain, noon))
		_, done, err := l.Step(plainToken("", "alice", "wonder"), noon)
		require.NoError(t, err)
		require.True(t, done)
		require.Equal(t, time.Minute, l.Life())
		return l
	}
	l := begin()
	require.ErrorIs(t, l.Handshake(Plain, noon.Add(time.Millisecond)), ErrState, "at most once a second")
	require.NoError(t, l.Handshake(Plain, noon.Add(time.Minute)))
	require.Equal(t, "User:alice", l.Principal(), "the earlier login holds meanwhile")
	_, _, err := l.Step(plainToken("", "alice", "wonder"), noon)
	require.NoError(t, err)

	l = begin()
	require.NoError(t, l.Handshake(Plain, noon.Add(time.Minute)))
	_, _, err = l.Step(plainToken("", "bob", "builder"), noon)
	require.EqualError(t, err, "Cannot change principals during re-authentication from User:alice: User:bob")

	l = begin()
	require.NoError(t, l.Handshake(Plain, noon.Add(time.Minute)))
	_, _, err = l.Step(plainToken("", "alice", "no"), noon)
	require.EqualError(t, err, "Authentication failed: Invalid username or password")

	require.EqualError(t, func() error {
		l := begin()
		require.ErrorIs(t, l.Handshake(ScramSHA256, noon), ErrState)
		l.began = noon.Add(-time.Hour)
		return scramLogin(l, ScramSHA256, "alice", "land", "")
	}(), "Cannot change SASL mechanism during re-authentication from PLAIN to SCRAM-SHA-256")
}

func TestScramCredentialFormat(t *testing.T) {
	// Written by kafka-configs of Kafka 3.9 for the password "secret".
	golden := "salt=MTJtZHl4MTZqdHh5Z25rajh1cXJmZTFvN3E=,stored_key=SvSicjdyxlBLnWob3h6nYhvHbr+bzXVB1TJXxzPO0p4=," +
		"server_key=ajoIs4bD8GuYJIXtsUq4nXpyyhFbr6Y+/WUhgfK09/Y=,iterations=4096"
	kafkas, err := ParseScramCredential(golden)
	require.NoError(t, err)
	require.Equal(t, golden, kafkas.Format())
	salted, err := pbkdf2.Key(sha256.New, "secret", kafkas.Salt, 4096, sha256.Size)
	require.NoError(t, err)
	require.Equal(t, kafkas, SaltedScramCredential(ScramSHA256, kafkas.Salt, salted, 4096))

	c, err := NewScramCredential(ScramSHA512, "secret", 8192)
	require.NoError(t, err)
	back, err := ParseScramCredential(c.Format())
	require.NoError(t, err)
	require.Equal(t, c, back)
	for _, wrong := range []string{"", "salt=AA==", "salt=AA==,stored_key=AA==,server_key=AA==,iterations=x", "salt=AA==,stored_key=AA==,server_key=AA==,iterations=0",
		"salt=AA==,salt=AA==,stored_key=AA==,server_key=AA==,iterations=1", "salt=!,stored_key=AA==,server_key=AA==,iterations=1", "salt=AA==,stored_key=AA==,server_key=AA==,iterations=1,x=y"} {
		_, err := ParseScramCredential(wrong)
		require.Error(t, err, wrong)
	}
}

func TestCredentialsFollowTheirZnodes(t *testing.T) {
	var c Credentials
	good, err := NewScramCredential(ScramSHA256, "x", 4096)
	require.NoError(t, err)
	require.NoError(t, c.Set("alice", map[string]string{ScramSHA256: good.Format()}))
	require.ErrorContains(t, c.Set("bob", map[string]string{ScramSHA256: good.Format(), ScramSHA512: "junk"}), "SCRAM-SHA-512")
	_, ok := c.Get("bob", ScramSHA256)
	require.True(t, ok)
	_, ok = c.Get("bob", ScramSHA512)
	require.False(t, ok)
	require.NoError(t, c.Set("alice", nil))
	_, ok = c.Get("alice", ScramSHA256)
	require.False(t, ok)
	c.Keep(nil)
	_, ok = c.Get("bob", ScramSHA256)
	require.False(t, ok)
}

// TestBrokersLogInAtEachOther runs the client's side against the broker's.
func TestBrokersLogInAtEachOther(t *testing.T) {
	for _, m := range []string{Plain, ScramSHA256, ScramSHA512} {
		password := map[string]string{Plain: "wonder"}[m]
		if password == "" {
			password = "land"
		}
		login := func(password string) (time.Duration, error) {
			s := world(t, map[string]string{
				"sasl.mechanism.inter.broker.protocol": m,
				"connections.max.reauth.ms":            "5000",
				"sasl.jaas.config": plainModule + ` required user_alice="wonder";` +
					moduleOf(m) + ` required username="alice" password="` + password + `";`,
			})
			require.NoError(t, s.CheckClient("LOGIN"))
			l := s.NewLogin("LOGIN")
			return s.LogIn(t.Context(), "LOGIN", func(_ context.Context, req kmsg.Request) (kmsg.Response, error) {
				switch req := req.(type) {
				case *kmsg.SASLHandshakeRequest:
					return req.ResponseKind(), l.Handshake(req.Mechanism, noon)
				case *kmsg.SASLAuthenticateRequest:
					resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
					reply, done, err := l.Step(req.SASLAuthBytes, noon)
					if done {
						resp.SessionLifetimeMillis = l.Life().Milliseconds()
					}
					resp.SASLAuthBytes = reply
					return resp, err
				}
				panic("not asked for")
			})
		}
		life, err := login(password)
		require.NoError(t, err, m)
		require.Equal(t, 5*time.Second, life)
		_, err = login("wrong")
		require.ErrorIs(t, err, ErrFailed, m)
	}
	s := world(t, map[string]string{"sasl.jaas.config": plainModule + " required;", "sasl.mechanism.inter.broker.protocol": "PLAIN"})
	require.ErrorContains(t, s.CheckClient("LOGIN"), "no login module has username")
}

// An unknown user is compared with something, and never let in.
func TestPlainChecksUnknownUsersToo(t *testing.T) {
	u, err := plainUsersOf([]loginModule{{plainModule, map[string]string{"user_alice": "wonder"}}})
	require.NoError(t, err)
	require.True(t, u.check("alice", "wonder"))
	require.False(t, u.check("alice", ""))
	require.False(t, u.check("nobody", string(u.nobody[:])))
}
