package broker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/broker/wire"
	"ottla/internal/cluster"
)

// controllerLink carries this broker's requests to whoever is controller: AlterPartition, AllocateProducerIds,
// ControlledShutdown. It finds the controller in the metadata, and starts over when that one is unreachable or says that it
// is not the controller. One request at a time.
type controllerLink struct {
	self     cluster.BrokerID
	metadata *metadataCache
	listener func() string // the one that controllers listen on
	local    func(kmsg.Request, func(kmsg.Response))
	dial     func(ctx context.Context, b cluster.Broker) (*wire.Client, error)
	log      zerolog.Logger

	turn chan struct{} // holds one token: who has it may use conn
	conn struct {
		*wire.Client
		to cluster.Broker
	}
	mu struct {
		sync.Mutex
		changed chan struct{} // closed at the next change of metadata
	}
}

// controllerRetry is the pause after a controller could not be reached or was none.
const controllerRetry = 50 * time.Millisecond

func newControllerLink() *controllerLink {
	l := &controllerLink{turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	l.mu.changed = make(chan struct{})
	return l
}

// wake ends the pause of a request that waits for a controller.
func (l *controllerLink) wake() {
	l.mu.Lock()
	close(l.mu.changed)
	l.mu.changed = make(chan struct{})
	l.mu.Unlock()
}

func (l *controllerLink) changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.changed
}

// RoundTrip sends req to the controller until it has been answered by one that is, or ctx ends. Each attempt may have had
// an effect that its lost answer did not tell: every request of this link can be repeated.
func (l *controllerLink) RoundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	for {
		changed := l.changed()
		resp, _, err := l.attempt(ctx, req)
		if err == nil && !notController(resp) {
			return resp, nil
		}
		if err == nil {
			err = kerr.NotController
		}
		last := err
		select {
		case <-changed:
		case <-time.After(controllerRetry):
		case <-ctx.Done():
			return nil, fmt.Errorf("%s to the controller: %w (last: %w)", kmsg.NameForKey(req.Key()), ctx.Err(), last)
		}
	}
}

// attempt asks once. An error leaves open whether the controller that was asked carried the request out.
func (l *controllerLink) attempt(ctx context.Context, req kmsg.Request) (kmsg.Response, partition.Asked, error) {
	select {
	case <-l.turn:
		defer func() { l.turn <- struct{}{} }()
		return l.try(ctx, req)
	case <-ctx.Done():
		return nil, nobody, ctx.Err()
	}
}

// nobody was asked: nothing was sent.
var nobody = partition.Asked{Broker: cluster.NoBroker}

// try needs the turn.
func (l *controllerLink) try(ctx context.Context, req kmsg.Request) (kmsg.Response, partition.Asked, error) {
	m := l.metadata.load()
	asked := partition.Asked{Broker: m.controller, Epoch: m.controllerEpoch}
	controller, ok := m.brokers[m.controller]
	switch {
	case m.controller == l.self:
		resp, err := l.tryLocal(ctx, req)
		return resp, asked, err
	case !ok:
		return nil, nobody, errNoController
	}
	if l.conn.Client != nil && !sameEndpoint(l.conn.to, controller, l.listener()) {
		l.drop()
	}
	if l.conn.Client == nil {
		c, err := l.dial(ctx, controller)
		if err != nil {
			return nil, nobody, err
		}
		l.conn.Client, l.conn.to = c, controller
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go l.giveUpLoop(ctx, cancel, m.controller)
	resp, err := l.conn.RoundTrip(ctx, req)
	if err != nil || notController(resp) {
		l.drop()
	}
	return resp, asked, err
}

// giveUpLoop ends a request to a controller that is none any more: one that hangs would not say so for its whole timeout. It ends
// with the request.
func (l *controllerLink) giveUpLoop(ctx context.Context, cancel context.CancelFunc, asked cluster.BrokerID) {
	for {
		changed := l.changed()
		if l.metadata.load().controller != asked {
			cancel()
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

func (l *controllerLink) drop() {
	if l.conn.Client != nil {
		l.conn.Close()
		l.conn.Client = nil
	}
}

func (l *controllerLink) tryLocal(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	answer := make(chan kmsg.Response, 1)
	l.local(req, func(resp kmsg.Response) { answer <- resp })
	select {
	case resp := <-answer:
		return resp, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *controllerLink) close() {
	<-l.turn
	l.drop()
	l.turn <- struct{}{}
}

var errNoController = fmt.Errorf("no controller is known yet")

func sameEndpoint(a, b cluster.Broker, listener string) bool {
	ea, _ := a.Endpoint(listener)
	eb, _ := b.Endpoint(listener)
	return a.ID == b.ID && ea == eb
}

// notController reports whether the asked broker denied being the controller.
func notController(resp kmsg.Response) bool {
	switch r := resp.(type) {
	case *kmsg.AlterPartitionResponse:
		return r.ErrorCode == kerr.NotController.Code
	case *kmsg.AllocateProducerIDsResponse:
		return r.ErrorCode == kerr.NotController.Code
	case *kmsg.ControlledShutdownResponse:
		return r.ErrorCode == kerr.NotController.Code || r.ErrorCode == kerr.StaleControllerEpoch.Code
	}
	return false
}

// alterChannel is the link for ISR changes: they judge each attempt by themselves.
type alterChannel struct{ link *controllerLink }

func (c alterChannel) RoundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, partition.Asked, error) {
	return c.link.attempt(ctx, req)
}
