package security

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// scramExchange is one login by SCRAM: two tokens of the client, two of the broker. Source: RFC 5802, KIP-84.
//
//	client: n,[a=AUTHORIZATION],n=USER,r=NONCE[,EXTENSIONS]
//	broker: r=NONCE SERVERNONCE,s=SALT,i=ITERATIONS
//	client: c=CHANNEL,r=NONCE SERVERNONCE[,EXTENSIONS],p=PROOF
//	broker: v=SIGNATURE
//
// Names and passwords are taken as they are, without SASLprep, as Kafka does. librdkafka before 2.6.1 puts its nonce twice before
// the broker's; Kafka lets it in, and so must we: what counts is that the nonce ends in all of ours.
type scramExchange struct {
	mechanism string
	from      *Credentials

	header, bare, first string // gs2 header and rest of the client's first token, and our answer
	nonce               string
	name, authorization string
	credential          ScramCredential
	known               bool // the user has a credential
}

var errScram = errors.New("SCRAM exchange failed")

func (x *scramExchange) step(token []byte) (reply []byte, done bool, err error) {
	if x.first == "" {
		reply, err = x.begin(string(token))
		return reply, false, err
	}
	reply, err = x.finish(string(token))
	return reply, err == nil, err
}

func (x *scramExchange) user() string { return x.name }

func (x *scramExchange) begin(token string) ([]byte, error) {
	parts := strings.SplitN(token, ",", 3)
	if len(parts) < 3 || parts[0] != "n" && parts[0] != "y" { // channel binding is not offered
		return nil, errScram
	}
	x.header, x.bare = parts[0]+","+parts[1]+",", parts[2]
	if parts[1] != "" {
		id, ok := strings.CutPrefix(parts[1], "a=")
		if x.authorization, ok = decodeSASLName(id, ok); !ok {
			return nil, errScram
		}
	}
	fields := strings.SplitN(x.bare, ",", 3)
	if len(fields) < 2 {
		return nil, errScram
	}
	name, ok := strings.CutPrefix(fields[0], "n=")
	if x.name, ok = decodeSASLName(name, ok); !ok {
		return nil, errScram
	}
	nonce, ok := strings.CutPrefix(fields[1], "r=")
	if !ok || nonce == "" {
		return nil, errScram
	}
	if x.credential, x.known = x.from.Get(x.name, x.mechanism); !x.known {
		x.credential = madeUp(x.mechanism, x.name)
	}
	x.nonce = nonce + rand.Text()
	x.first = fmt.Sprintf("r=%s,s=%s,i=%d", x.nonce, base64.StdEncoding.EncodeToString(x.credential.Salt), x.credential.Iterations)
	return []byte(x.first), nil
}

// decodeSASLName undoes the escapes of commas and equal signs. ok is handed through.
func decodeSASLName(s string, ok bool) (string, bool) {
	if !ok || s == "" || strings.ContainsRune(s, 0) {
		return "", false
	}
	plain := strings.NewReplacer("=2C", ",", "=3D", "=").Replace(s)
	return plain, strings.Count(s, "=") == strings.Count(s, "=2C")+strings.Count(s, "=3D")
}

func (x *scramExchange) finish(token string) ([]byte, error) {
	at := strings.LastIndex(token, ",p=")
	if at < 0 {
		return nil, errScram
	}
	proof, err := base64.StdEncoding.DecodeString(token[at+len(",p="):])
	if err != nil {
		return nil, errScram
	}
	without := token[:at]
	fields := strings.SplitN(without, ",", 3)
	if len(fields) < 2 {
		return nil, errScram
	}
	channel, ok := strings.CutPrefix(fields[0], "c=")
	binding, err := base64.StdEncoding.DecodeString(channel)
	if !ok || err != nil || string(binding) != x.header {
		return nil, errScram
	}
	nonce, ok := strings.CutPrefix(fields[1], "r=")
	if !ok || !strings.HasSuffix(nonce, x.nonce) {
		return nil, errScram
	}
	message := []byte(x.bare + "," + x.first + "," + without)
	if !x.proven(message, proof) {
		return nil, errScram
	}
	if x.authorization != "" && x.authorization != x.name {
		return nil, refuse("Authentication failed: Client requested an authorization id that is different from username")
	}
	return []byte("v=" + base64.StdEncoding.EncodeToString(x.mac(x.credential.ServerKey, message))), nil
}

// proven checks the client's proof: its key, covered by a signature that only the holder of the stored key can make. The same work
// is done for a user that does not exist.
func (x *scramExchange) proven(message, proof []byte) bool {
	signature := x.mac(x.credential.StoredKey, message)
	key := bytes.Clone(signature)
	sameLength := subtle.ConstantTimeEq(int32(len(proof)), int32(len(signature)))
	if sameLength == 1 {
		subtle.XORBytes(key, signature, proof)
	}
	h := newHash(x.mechanism)()
	h.Write(key)
	return subtle.ConstantTimeCompare(h.Sum(nil), x.credential.StoredKey)&sameLength == 1 && x.known
}

func (x *scramExchange) mac(key, message []byte) []byte {
	m := hmac.New(newHash(x.mechanism), key)
	m.Write(message)
	return m.Sum(nil)
}
