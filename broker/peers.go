package broker

import (
	"context"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/internal/cluster"
)

// peers carries requests of one kind to other brokers, over one connection to each, and to this broker itself without one. A
// request waits for the one before it; each may be repeated. One under way ends as soon as its broker is not registered any more: a broker that hangs
// would not say so for the whole timeout.
type peers struct {
	b     *Broker
	local func(req kmsg.Request, done func(kmsg.Response))
	mu    struct {
		sync.Mutex
		closed bool
		links  map[cluster.BrokerID]*peer
	}
}

// peer is the connection to one broker.
type peer struct {
	turn   chan struct{} // holds one token: who has it may use what follows
	client *wire.Client
	to     cluster.Broker
}

func newPeers(b *Broker, local func(kmsg.Request, func(kmsg.Response))) *peers {
	p := &peers{b: b, local: local}
	p.mu.links = map[cluster.BrokerID]*peer{}
	return p
}

// RoundTrip asks a broker once and waits for its answer.
func (p *peers) RoundTrip(ctx context.Context, id cluster.BrokerID, req kmsg.Request) (kmsg.Response, error) {
	ctx, cancel := context.WithTimeout(ctx, p.b.requestTimeout())
	defer cancel()
	if id == p.b.id {
		answer := make(chan kmsg.Response, 1)
		p.local(req, func(resp kmsg.Response) { answer <- resp })
		select {
		case resp := <-answer:
			return resp, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	l, err := p.link(id)
	if err != nil {
		return nil, err
	}
	select {
	case <-l.turn:
		defer func() { l.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return p.ask(ctx, l, id, req)
}

func (p *peers) link(id cluster.BrokerID) (*peer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.closed {
		return nil, context.Canceled
	}
	l := p.mu.links[id]
	if l == nil {
		l = &peer{turn: make(chan struct{}, 1)}
		l.turn <- struct{}{}
		p.mu.links[id] = l
	}
	return l, nil
}

// ask needs the peer's turn.
func (p *peers) ask(ctx context.Context, l *peer, id cluster.BrokerID, req kmsg.Request) (kmsg.Response, error) {
	to, ok := p.b.metadata.load().brokers[id]
	if !ok {
		return nil, fmt.Errorf("broker %d is not registered: %w", id, kerr.BrokerNotAvailable)
	}
	if l.client != nil && !sameEndpoint(l.to, to, p.b.interBrokerListener()) {
		l.drop()
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go p.giveUpLoop(ctx, cancel, id)
	used := l.client != nil
	resp, err := p.once(ctx, l, to, req)
	if err != nil && used { // the connection may be one to the broker's life before; the request may be repeated
		return p.once(ctx, l, to, req)
	}
	return resp, err
}

// once asks over the peer's connection, made when there is none.
func (p *peers) once(ctx context.Context, l *peer, to cluster.Broker, req kmsg.Request) (kmsg.Response, error) {
	if l.client == nil {
		c, err := p.b.dial(ctx, to)
		if err != nil {
			return nil, err
		}
		l.client, l.to = c, to
	}
	resp, err := l.client.RoundTrip(ctx, req)
	if err != nil {
		l.drop()
	}
	return resp, err
}

// giveUpLoop ends with the request.
func (p *peers) giveUpLoop(ctx context.Context, cancel context.CancelFunc, id cluster.BrokerID) {
	for {
		changed := p.b.controllerLink.changed()
		if !p.b.metadata.load().alive(id) {
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

func (l *peer) drop() {
	if l.client != nil {
		_ = l.client.Close()
		l.client = nil
	}
}

// close closes the connections. Nobody asks any more.
func (p *peers) close() {
	p.mu.Lock()
	links := p.mu.links
	p.mu.closed, p.mu.links = true, nil
	p.mu.Unlock()
	for _, l := range links {
		<-l.turn
		l.drop()
		l.turn <- struct{}{}
	}
}
