package security

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ottla/config"
)

func encoderSettings(t testing.TB, more ...string) *config.Snapshot {
	t.Helper()
	all := map[string]string{"zookeeper.connect": "unused:2181", "password.encoder.secret": "open sesame"}
	for i := 0; i < len(more); i += 2 {
		all[more[i]] = more[i+1]
	}
	s, err := config.FromMap(all)
	require.NoError(t, err)
	return s
}

func TestPasswordsComeBackAsTheyWere(t *testing.T) {
	for _, settings := range [][]string{
		nil,
		{"password.encoder.keyfactory.algorithm", "PBKDF2WithHmacSHA1", "password.encoder.key.length", "256"},
		{"password.encoder.cipher.algorithm", "AES/GCM/NoPadding", "password.encoder.iterations", "1024"},
	} {
		s := encoderSettings(t, settings...)
		for _, password := range []config.Password{"x", "exactly 16 bytes", "pässwörd 🐟", config.Password(strings.Repeat("long", 100))} {
			text, err := EncodePassword(s, password)
			require.NoError(t, err)
			if len(password) > 4 {
				require.NotContains(t, text, string(password))
			}
			again, err := EncodePassword(s, password)
			require.NoError(t, err)
			require.NotEqual(t, text, again, "salted anew")
			decoded, old, err := DecodePassword(s, text)
			require.NoError(t, err)
			require.False(t, old)
			require.Equal(t, password, decoded)

			_, _, err = DecodePassword(encoderSettings(t, "password.encoder.secret", "another"), text)
			require.Error(t, err)
			decoded, old, err = DecodePassword(encoderSettings(t, "password.encoder.secret", "another", "password.encoder.old.secret", "open sesame"), text)
			require.NoError(t, err)
			require.True(t, old)
			require.Equal(t, password, decoded)
		}
	}
}

func TestPasswordsNeedASecret(t *testing.T) {
	s := encoderSettings(t, "password.encoder.secret", "")
	_, err := EncodePassword(s, "x")
	require.ErrorIs(t, err, ErrNoEncoderSecret)
	_, _, err = DecodePassword(s, "anything")
	require.ErrorIs(t, err, ErrNoEncoderSecret)
	_, err = EncodePassword(encoderSettings(t, "password.encoder.cipher.algorithm", "ROT13"), "x")
	require.ErrorContains(t, err, "ROT13")
}

func FuzzDecodePassword(f *testing.F) {
	s := encoderSettings(f, "password.encoder.iterations", "1024")
	for _, algorithm := range []string{cipherCBC, cipherGCM} {
		e := encoded{algorithm: "PBKDF2WithHmacSHA512", cipher: algorithm, salt: []byte("salt"), keyBits: 128, iterations: 1024, length: 1}
		require.NoError(f, e.seal("open sesame", []byte("x")))
		f.Add(e.String())
	}
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := parseEncoded(text); err != nil || e.iterations > 2000 {
			return
		}
		_, _, _ = DecodePassword(s, text)
	})
}
