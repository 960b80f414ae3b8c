package security

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
)

// LogIn logs this broker in at another one's listener, over round trips that ask makes. It returns for how long that holds; 0 is for
// ever. Source: sasl.mechanism.inter.broker.protocol, KIP-368.
func (s *SASL) LogIn(ctx context.Context, listener string, ask func(context.Context, kmsg.Request) (kmsg.Response, error)) (time.Duration, error) {
	mechanism, name, password, err := s.client(listener)
	if err != nil {
		return 0, err
	}
	tokens, err := newClientTokens(mechanism, name, password)
	if err != nil {
		return 0, err
	}
	if err := chooseMechanism(ctx, mechanism, ask); err != nil {
		return 0, err
	}
	return tokens.exchange(ctx, ask)
}

func chooseMechanism(ctx context.Context, mechanism string, ask func(context.Context, kmsg.Request) (kmsg.Response, error)) error {
	req := kmsg.NewPtrSASLHandshakeRequest()
	req.Version, req.Mechanism = 1, mechanism
	resp, err := ask(ctx, req)
	if err != nil {
		return err
	}
	answer := resp.(*kmsg.SASLHandshakeResponse)
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		return fmt.Errorf("mechanism %s is refused, %v are offered: %w", mechanism, answer.SupportedMechanisms, err)
	}
	return nil
}

// clientTokens is the client's side of a mechanism. next takes the broker's token, nil at first; done says that the broker has
// proven what it has to.
type clientTokens struct {
	next func(token []byte) (reply []byte, err error)
	done func() bool
}

func newClientTokens(mechanism, name string, password config.Password) (*clientTokens, error) {
	if mechanism == Plain {
		return &clientTokens{
			next: func([]byte) ([]byte, error) {
				return bytes.Join([][]byte{nil, []byte(name), []byte(password)}, []byte{0}), nil
			},
			done: func() bool { return true },
		}, nil
	}
	// Without SASLprep, as Kafka does it: name and password are taken as they are.
	client, err := scramHash(mechanism).NewClientUnprepped(name, string(password), "")
	if err != nil {
		return nil, errors.New("name or password cannot be used with " + mechanism)
	}
	conversation := client.NewConversation()
	return &clientTokens{
		next: func(token []byte) ([]byte, error) {
			reply, err := conversation.Step(string(token))
			return []byte(reply), err
		},
		done: func() bool { return conversation.Valid() },
	}, nil
}

// exchange sends tokens until the broker is satisfied, and so are we.
func (t *clientTokens) exchange(ctx context.Context, ask func(context.Context, kmsg.Request) (kmsg.Response, error)) (time.Duration, error) {
	var from []byte
	for range 4 {
		token, err := t.next(from)
		if err != nil {
			return 0, err
		}
		req := kmsg.NewPtrSASLAuthenticateRequest()
		req.Version, req.SASLAuthBytes = 1, token
		resp, err := ask(ctx, req)
		if err != nil {
			return 0, err
		}
		answer := resp.(*kmsg.SASLAuthenticateResponse)
		if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
			if answer.ErrorMessage != nil {
				err = fmt.Errorf("%w: %s", err, *answer.ErrorMessage)
			}
			return 0, err
		}
		from = answer.SASLAuthBytes
		life := time.Duration(answer.SessionLifetimeMillis) * time.Millisecond
		if t.done() {
			return life, nil
		}
		if bytes.HasPrefix(from, []byte("v=")) { // the broker's proof, to be checked
			if _, err := t.next(from); err != nil {
				return 0, err
			}
			if !t.done() {
				return 0, errors.New("the other broker did not prove that it knows the password")
			}
			return life, nil
		}
	}
	return 0, errors.New("the login does not end")
}
