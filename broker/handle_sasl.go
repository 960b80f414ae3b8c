package broker

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/config"
	"ottla/security"
	"ottla/zkcoord"
)

// SaslHandshake v0–1 and SaslAuthenticate v0–2: a client logs in.
//   - The handshake chooses a mechanism. With v1 tokens travel in SaslAuthenticate (KIP-152), with v0 in frames without header, and a
//     login that fails is told by nothing but the end of the connection.
//   - A login that fails is answered after connection.failed.authentication.delay.ms (KIP-306), then the connection is closed.
//   - Where connections.max.reauth.ms is set, the answer says when a client has to log in again; it does so on the same connection, as
//     the same user with the same mechanism (KIP-368).
//   - Unlike Kafka's, other requests are served while a client logs in again: the earlier login still holds.

func (b *Broker) handleSASLHandshake(r *wire.Request, req *kmsg.SASLHandshakeRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.SASLHandshakeResponse)
	if !security.UsesSASL(r.Conn.Protocol()) {
		resp.ErrorCode = kerr.IllegalSaslState.Code
		return resp
	}
	login, ok := r.Conn.Login().(*security.Login)
	if !ok {
		login = b.sasl.NewLogin(r.Conn.Listener())
		r.Conn.SetLogin(login)
	}
	err := login.Handshake(req.Mechanism, time.Now())
	switch {
	case errors.Is(err, security.ErrMechanism):
		resp.ErrorCode, resp.SupportedMechanisms = kerr.UnsupportedSaslMechanism.Code, login.Mechanisms()
		b.refuseLogin(r, resp, fmt.Errorf("%w: it asked for one of %d bytes", err, len(req.Mechanism)))
		return nil
	case err != nil && login.Principal() != "": // logins of this listener do not expire, or it comes too soon
		resp.ErrorCode = kerr.IllegalSaslState.Code
		return resp
	case err != nil:
		r.Close(err)
		return nil
	}
	resp.SupportedMechanisms = login.Mechanisms()
	r.Respond(resp)
	if r.Version == 0 {
		r.Conn.TakeTokens(b.takeToken)
	}
	return nil
}

func (b *Broker) handleSASLAuthenticate(r *wire.Request, req *kmsg.SASLAuthenticateRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.SASLAuthenticateResponse)
	login, ok := r.Conn.Login().(*security.Login)
	if !ok {
		resp.ErrorCode = kerr.IllegalSaslState.Code
		resp.ErrorMessage = kmsg.StringPtr("SaslAuthenticate request received without a SaslHandshake before it")
		return resp
	}
	reply, done, err := login.Step(req.SASLAuthBytes, time.Now())
	clear(req.SASLAuthBytes) // frames are used again; passwords shall not wait in them
	var failed *security.FailedError
	switch {
	case errors.As(err, &failed):
		resp.ErrorCode, resp.ErrorMessage = kerr.SaslAuthenticationFailed.Code, &failed.Text
		b.refuseLogin(r, resp, err)
		return nil
	case err != nil:
		resp.ErrorCode, resp.ErrorMessage = kerr.IllegalSaslState.Code, kmsg.StringPtr("SaslAuthenticate request received after successful authentication")
		return resp
	}
	resp.SASLAuthBytes = reply
	if done {
		resp.SessionLifetimeMillis = b.loggedIn(r.Conn, login)
	}
	return resp
}

// takeToken is handleSASLAuthenticate for clients of SaslHandshake v0.
func (b *Broker) takeToken(r *wire.Request, token []byte) {
	login := r.Conn.Login().(*security.Login)
	reply, done, err := login.Step(token, time.Now())
	clear(token)
	if err != nil {
		b.refuseLogin(r, nil, err)
		return
	}
	if done {
		b.loggedIn(r.Conn, login)
		r.Conn.TakeTokens(nil)
	}
	r.RespondToken(reply)
}

// loggedIn lets the client in, and returns for how many milliseconds; 0 is for ever.
func (b *Broker) loggedIn(c *wire.Conn, login *security.Login) int64 {
	b.metrics.logins.Count(c.Listener(), c.Principal() != "", false)
	c.SetPrincipal(login.Principal())
	life := login.Life()
	if life == 0 {
		c.SetExpiry(time.Time{})
		return 0
	}
	c.SetExpiry(time.Now().Add(life))
	return life.Milliseconds()
}

// refuseLogin answers a login that failed, after a pause that takes the speed out of guessing, and closes the connection. resp is nil
// for a client that gets no answer.
func (b *Broker) refuseLogin(r *wire.Request, resp kmsg.Response, reason error) {
	b.metrics.logins.Count(r.Conn.Listener(), r.Conn.Principal() != "", true)
	time.AfterFunc(config.ConnectionFailedAuthenticationDelayMs.Of(b.config.Load()), func() {
		if resp == nil {
			r.Close(reason)
			return
		}
		r.Conn.CloseAfter(reason)
		r.Respond(resp)
	})
}

// certificatePeriod is how often key and trust stores are looked at: a renewed certificate counts within this time.
const certificatePeriod = 2 * time.Second

// openSecurity makes ready what listeners need; it refuses settings that it cannot serve.
func (b *Broker) openSecurity() error {
	s := b.config.Load()
	if err := b.openAuthorizer(s); err != nil {
		return err
	}
	b.sasl = security.NewSASL(b.config.Load, &b.credentials, os.Getenv)
	listeners, err := config.Listeners(s)
	if err != nil {
		return err
	}
	b.tls = security.NewTLS(b.config.Load, b.log)
	for _, l := range listeners {
		if security.UsesTLS(l.Protocol) {
			if err := b.tls.Check(l); err != nil {
				return err
			}
		}
		if !security.UsesSASL(l.Protocol) {
			continue
		}
		if err := b.sasl.Check(l.Name); err != nil {
			return err
		}
		if l.Name == b.interBrokerListener() {
			if err := b.sasl.CheckClient(l.Name); err != nil {
				return err
			}
		}
	}
	return nil
}

// loadACLs reads all ACLs, where there is an authorizer.
func (b *Broker) loadACLs(s zkcoord.Session) error {
	if b.acls == nil {
		return nil
	}
	return b.acls.Load(s)
}

// followSecurity follows the changes of ACLs in a session, and reads again what may have changed before it: notifications come and
// go. close ends it.
func (b *Broker) followSecurity(s zkcoord.Session) (closeIt func(), err error) {
	closeIt = func() {}
	if b.acls != nil {
		changes, err := zkcoord.WatchACLChanges(s, b.log, func(r zkcoord.ACLResource) { b.aclsChanged(s, r) })
		if err != nil {
			return closeIt, err
		}
		closeIt = changes.Close
	}
	return closeIt, errors.Join(b.loadACLs(s), b.loadCredentials(s), b.loadQuotas(s))
}

func (b *Broker) aclsChanged(s zkcoord.Session, r zkcoord.ACLResource) {
	if err := b.acls.Reload(s, r); err != nil {
		b.log.Error().Err(err).Str("znode", zkcoord.ACLResourcePath(r)).Msg("a change of ACLs was not taken over")
		return
	}
	b.log.Info().Str("znode", zkcoord.ACLResourcePath(r)).Msg("ACLs changed")
}

// loadCredentials reads the SCRAM credentials of all users.
func (b *Broker) loadCredentials(s zkcoord.Session) error {
	names, err := zkcoord.EntityNames(s, zkcoord.EntityUsers)
	if err != nil {
		return err
	}
	if err := b.readCredentials(s, names); err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, n := range names {
		if user, err := zkcoord.DesanitizeEntity(n); err == nil {
			keep[user] = true
		}
	}
	b.credentials.Keep(keep)
	return nil
}

// readCredentials reads those of some users, named as in their znodes' paths. What is unreadable is told, and as good as absent.
func (b *Broker) readCredentials(s zkcoord.Session, names []string) error {
	read, err := zkcoord.ReadConfigs(s, zkcoord.EntityUsers, names)
	var bad *zkcoord.BadNodesError
	if errors.As(err, &bad) {
		b.log.Error().Err(err).Msg("settings of users are unreadable; they cannot log in by SCRAM")
		err = nil
	}
	if err != nil {
		return err
	}
	for _, n := range names {
		user, err := zkcoord.DesanitizeEntity(n)
		if err != nil || n == zkcoord.DefaultEntity {
			continue
		}
		if err := b.credentials.Set(user, read[n]); err != nil {
			b.log.Error().Err(err).Msg("a SCRAM credential is unreadable")
		}
	}
	return nil
}
