package security

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ottla/config"
)

// UserPrincipal is the principal of a user, as ACLs name it.
func UserPrincipal(name string) string { return "User:" + name }

// Anonymous is the principal of those who need not say who they are.
const Anonymous = "User:ANONYMOUS"

// refusal is a reason that the client may be told. All other reasons are replaced by one sentence.
type refusal string

func refuse(text string) error  { return refusal(text) }
func (r refusal) Error() string { return string(r) }

// The verdicts of a login; the broker has an error code for each.
var (
	ErrMechanism = errors.New("SASL mechanism is not enabled")
	ErrState     = errors.New("not expected at this point of a login")
	ErrFailed    = errors.New("authentication failed")
)

// FailedError is a login that failed. Its text is for the client.
type FailedError struct {
	Text      string
	Mechanism string
}

func (e *FailedError) Error() string { return e.Text }

// Is makes it an ErrFailed.
func (e *FailedError) Is(target error) bool { return target == ErrFailed }

// exchange is the broker's side of a mechanism.
type exchange interface {
	// step takes the client's next token. done says that user may be asked.
	step(token []byte) (reply []byte, done bool, err error)
	user() string
}

// SASL lets clients log in by the settings at hand.
type SASL struct {
	config      func() *config.Snapshot
	credentials *Credentials
	logins      *logins
	listeners   cache[*listenerLogins]
}

// NewSASL reads the JAAS file that KAFKA_OPTS names. credentials are those for SCRAM.
func NewSASL(config func() *config.Snapshot, credentials *Credentials, getenv func(string) string) *SASL {
	return &SASL{config: config, credentials: credentials, logins: readLogins(getenv)}
}

// Check says what is missing in the settings of a listener that asks for a login.
func (s *SASL) Check(listener string) error {
	_, err := s.of(listener)
	return err
}

// CheckClient says what is missing for logging in at other brokers' listener.
func (s *SASL) CheckClient(listener string) error {
	_, _, _, err := s.client(listener)
	return err
}

func (s *SASL) of(listener string) (*listenerLogins, error) {
	snapshot := s.config()
	return s.listeners.get(snapshot, listener, func() (*listenerLogins, error) { return s.logins.loginsOf(snapshot, listener) })
}

func (s *SASL) client(listener string) (mechanism, name string, password config.Password, err error) {
	snapshot := s.config()
	mechanism = config.SASLMechanismInterBrokerProtocol.Of(snapshot)
	if !slices.Contains(mechanisms, mechanism) {
		return "", "", "", fmt.Errorf("sasl.mechanism.inter.broker.protocol: %s is not available; it may be %s", mechanism, strings.Join(mechanisms, ", "))
	}
	modules, err := s.logins.of(snapshot, listener, mechanism)
	if err != nil {
		return "", "", "", err
	}
	if name, password, err = clientOf(modules, mechanism); err != nil {
		return "", "", "", fmt.Errorf("listener %s, mechanism %s: %w", listener, mechanism, err)
	}
	return mechanism, name, password, nil
}

// Login is one connection's way in: Handshake chooses a mechanism, Step exchanges tokens until somebody is logged in. It may be gone
// again, by the same user with the same mechanism, where logins expire. One goroutine uses it at a time. Source: KIP-43, KIP-152, KIP-368.
type Login struct {
	sasl     *SASL
	listener string

	exchange  exchange // nil: none under way
	mechanism string   // of the last handshake
	name      string   // who is logged in; "" nobody yet
	as        string   // mechanism of the last login
	life      time.Duration
	began     time.Time // of the last login
	failed    bool
}

// NewLogin begins a connection on a listener.
func (s *SASL) NewLogin(listener string) *Login { return &Login{sasl: s, listener: listener} }

// Mechanisms are those that the listener offers.
func (l *Login) Mechanisms() []string {
	own, err := l.sasl.of(l.listener)
	if err != nil {
		return nil
	}
	return own.mechanisms
}

// Handshake chooses a mechanism. ErrState: a login is under way or over; ErrMechanism: it is not enabled.
func (l *Login) Handshake(mechanism string, now time.Time) error {
	if l.failed || l.exchange != nil || !l.mayBegin(now) {
		return ErrState
	}
	own, err := l.sasl.of(l.listener)
	if err != nil || !slices.Contains(own.mechanisms, mechanism) {
		l.failed = true
		return ErrMechanism
	}
	l.mechanism = mechanism
	if mechanism == Plain {
		l.exchange = &plainExchange{users: own.plain}
		return nil
	}
	l.exchange = &scramExchange{mechanism: mechanism, from: l.sasl.credentials}
	return nil
}

// mayBegin: the first login, or another one where logins expire, at most one a second.
func (l *Login) mayBegin(now time.Time) bool {
	return l.name == "" || l.life > 0 && now.Sub(l.began) >= time.Second
}

// Step takes the client's next token. After an error the connection has to be closed; a *FailedError is for the client to see.
func (l *Login) Step(token []byte, now time.Time) (reply []byte, done bool, err error) {
	if l.failed || l.exchange == nil {
		return nil, false, ErrState
	}
	reply, done, err = l.exchange.step(token)
	if err == nil && done {
		err = l.finish(now)
	}
	if err == nil {
		return reply, done, nil
	}
	l.failed = true
	var told refusal
	if errors.As(err, &told) {
		return nil, false, &FailedError{string(told), l.mechanism}
	}
	what := "authentication"
	if l.name != "" {
		what = "re-authentication"
	}
	return nil, false, &FailedError{"Authentication failed during " + what + " due to invalid credentials with SASL mechanism " + l.mechanism, l.mechanism}
}

// finish ends a login that went well.
func (l *Login) finish(now time.Time) error {
	name := l.exchange.user()
	switch {
	case name == "":
		return errors.New("no name")
	case l.name != "" && name != l.name:
		return refuse("Cannot change principals during re-authentication from " + UserPrincipal(l.name) + ": " + UserPrincipal(name))
	case l.as != "" && l.mechanism != l.as:
		return refuse("Cannot change SASL mechanism during re-authentication from " + l.as + " to " + l.mechanism)
	}
	l.name, l.as, l.began, l.exchange = name, l.mechanism, now, nil
	l.life = config.ConnectionsMaxReauthMs.ForMechanism(l.sasl.config(), l.listener, l.mechanism)
	return nil
}

// Principal is who is logged in, "" before.
func (l *Login) Principal() string {
	if l.name == "" {
		return ""
	}
	return UserPrincipal(l.name)
}

// Mechanism is that of the last handshake.
func (l *Login) Mechanism() string { return l.mechanism }

// Life is for how long the login holds; 0 is for ever.
func (l *Login) Life() time.Duration { return max(l.life, 0) }
