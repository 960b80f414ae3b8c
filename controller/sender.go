package controller

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
)

// sender brings requests to one registration of one broker: in order, one at a time, each until it is answered. A broker that does
// not answer is asked again until it is removed: its znode decides whether it lives, no timeout does.
type sender struct {
	dial    func(ctx context.Context, b cluster.Broker) (Conn, error)
	timeout time.Duration // for connecting, and for one answer
	answer  func(from cluster.Broker, req kmsg.Request, resp kmsg.Response)
	metrics *Metrics
	log     zerolog.Logger
	cancel  context.CancelFunc
	ctx     context.Context
	wake    chan struct{} // capacity 1
	mu      struct {
		sync.Mutex
		to    cluster.Broker // one registration; its end points may change
		queue []kmsg.Request
	}
}

// senderRetryInterval is the pause after a failed connection.
const senderRetryInterval = 100 * time.Millisecond

// enqueue appends requests. The queue is unbounded: it is the difference between the cluster's state and what the broker knows of
// it, and goes with the broker's registration.
func (s *sender) enqueue(reqs ...kmsg.Request) {
	s.mu.Lock()
	s.mu.queue = append(s.mu.queue, reqs...)
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// move makes the next connection go to the end points that the broker has now.
func (s *sender) move(to cluster.Broker) {
	s.mu.Lock()
	s.mu.to = to
	s.mu.Unlock()
}

func (s *sender) broker() cluster.Broker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.to
}

// stop ends the sender; requests that are not answered yet are dropped, also the one under way.
func (s *sender) stop() { s.cancel() }

func (s *sender) runLoop() {
	var conn Conn
	defer func() {
		if conn != nil {
			_ = conn.Close()
		}
	}()
	for {
		req, ok := s.next()
		if !ok {
			return
		}
		conn = s.deliver(conn, req)
		if s.ctx.Err() != nil {
			return
		}
	}
}

// next waits for a request; false when the sender is stopped.
func (s *sender) next() (kmsg.Request, bool) {
	for {
		s.mu.Lock()
		if len(s.mu.queue) > 0 {
			req := s.mu.queue[0]
			s.mu.queue[0] = nil
			s.mu.queue = s.mu.queue[1:]
			s.mu.Unlock()
			return req, true
		}
		s.mu.Unlock()
		select {
		case <-s.ctx.Done():
			return nil, false
		case <-s.wake:
		}
	}
}

// deliver sends one request until it is answered or the sender is stopped, and returns the connection to use next.
func (s *sender) deliver(conn Conn, req kmsg.Request) Conn {
	for failures := 0; s.ctx.Err() == nil; failures++ {
		resp, c, err := s.try(conn, req)
		if err == nil {
			s.metrics.requestsSent.WithLabelValues(kmsg.NameForKey(req.Key())).Inc()
			s.answer(s.broker(), req, resp)
			return c
		}
		conn = nil
		if s.ctx.Err() != nil {
			return nil
		}
		s.metrics.requestRetries.Inc()
		if failures == 0 {
			s.log.Warn().Err(err).Int32("broker", int32(s.broker().ID)).Str("api", kmsg.NameForKey(req.Key())).
				Msg("request to broker failed, retrying until it answers or goes")
		}
		s.pause()
	}
	return conn
}

func (s *sender) try(conn Conn, req kmsg.Request) (kmsg.Response, Conn, error) {
	ctx, cancel := context.WithTimeout(s.ctx, s.timeout)
	defer cancel()
	if conn == nil {
		c, err := s.dial(ctx, s.broker())
		if err != nil {
			return nil, nil, err
		}
		conn = c
	}
	resp, err := conn.RoundTrip(ctx, req)
	if err != nil {
		_ = conn.Close()
		return nil, nil, err
	}
	return resp, conn, nil
}

func (s *sender) pause() {
	t := time.NewTimer(senderRetryInterval)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
	}
}
