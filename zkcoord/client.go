package zkcoord

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/rs/zerolog"
)

// Client keeps one session open with the ensemble.
//
// The client library replaces an expired session by itself, and requests that it had queued then run in the new session. Here every
// session has a library connection of its own: the callback that the library makes, inside its connection loop, when the server
// has declared the session expired, closes that connection before it can open another session. So nothing of the old session can
// ever run in the next one, which is opened, by the one goroutine that also tells the listener, after the listener has let go of
// the old.
type Client struct {
	options     Options
	log         zerolog.Logger
	servers     []string
	chroot      string // "" = none
	maxInFlight int
	noMultiRead atomic.Bool // learned from the server

	ctx     context.Context
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	events  *eventQueue
	current atomic.Pointer[session]
}

// Defaults of Options.
const (
	defaultMaxInFlight     = 64
	defaultTickTime        = 2 * time.Second
	defaultSyncLimit       = 5
	defaultMaxRequestBytes = 0xfffff // jute.maxbuffer of a server
	reopenPause            = time.Second
	leaseWarning           = 2 * time.Second
)

// errClosed is the cause of the end of a session that its owner closed.
var errClosed = errors.New("closed by its owner")

// errExpired is the cause of the end of a session that the ensemble gave up.
var errExpired = errors.New("expired: the ensemble did not hear of it for the session timeout")

// Connect opens the first session and creates the chroot if it is missing. It does not call SessionEstablished for the first session.
// It fails after ConnectionTimeout or when ctx ends.
func Connect(ctx context.Context, o Options) (*Client, error) {
	servers, chroot, err := parseConnect(o.Connect)
	if err != nil {
		return nil, err
	}
	if o.SessionTimeout <= 0 {
		return nil, fmt.Errorf("%w: zookeeper.session.timeout.ms must be positive", ErrInvalid)
	}
	o.setDefaults()
	c := &Client{options: o, log: o.Logger, servers: servers, chroot: chroot, maxInFlight: o.MaxInFlight, events: newEventQueue()}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	first, cancel := context.WithTimeout(ctx, o.ConnectionTimeout)
	defer cancel()
	s, err := c.openSession(first)
	if err == nil {
		err = c.ensureChroot(first, s)
	}
	if err != nil {
		c.cancel()
		if s != nil {
			s.close()
		}
		return nil, fmt.Errorf("connect to ZooKeeper at %s: %w", o.Connect, err)
	}
	c.current.Store(s)
	c.wg.Go(c.runLoop)
	return c, nil
}

func (o *Options) setDefaults() {
	setDefault(&o.ConnectionTimeout, o.SessionTimeout)
	setDefault(&o.MaxInFlight, defaultMaxInFlight)
	setDefault(&o.TickTime, defaultTickTime)
	setDefault(&o.SyncLimit, defaultSyncLimit)
	setDefault(&o.MaxRequestBytes, defaultMaxRequestBytes)
	if o.Dial == nil {
		o.Dial = net.DialTimeout
	}
	if o.BootTime == nil {
		o.BootTime = newBootClock().now
	}
}

func setDefault[T int | time.Duration](v *T, otherwise T) {
	if *v <= 0 {
		*v = otherwise
	}
}

// Session returns the current session. It may be over.
func (c *Client) Session() Session { return c.current.Load() }

// Connected reports whether the current session has a connection now.
func (c *Client) Connected() bool { return c.current.Load().isConnected() }

// LeaseValid reports whether the current session still lives for certain; see LeaseRemaining.
func (c *Client) LeaseValid() bool { return c.LeaseRemaining() > 0 }

// LeaseRemaining returns for how long the current session lives at least, seen from now, even if the ensemble is never reached
// again. It takes no lock and asks nobody.
func (c *Client) LeaseRemaining() time.Duration {
	s := c.current.Load()
	if s.isOver() {
		return 0
	}
	return s.lease.remaining()
}

// LeaseLength returns the length of a fresh lease, and whether it is proven by the ensemble's ticks. If it is not, because the
// session timeout is too small for them, a third of the session timeout is used.
func (c *Client) LeaseLength() (length time.Duration, proven bool) {
	s := c.current.Load()
	return s.lease.length, s.leaseProven
}

// Close closes the session, so that its ephemeral znodes go at once, and waits for the client's goroutines. The listener hears
// nothing of it.
func (c *Client) Close() {
	c.cancel()
	c.current.Load().close()
	c.wg.Wait()
	c.current.Load().close() // one that was opened meanwhile
}

// runLoop tells the listener what happens, in order, and opens the next session when one is over.
func (c *Client) runLoop() {
	for {
		ev, ok := c.events.next(c.ctx)
		if !ok {
			return
		}
		if ev.session != c.current.Load() {
			continue // of a session that never became current
		}
		switch ev.kind {
		case eventLost:
			c.log.Warn().Str("session", hexID(ev.session.ID())).Err(ev.cause).Msg("zookeeper session lost")
			c.wg.Go(ev.session.close) // lets its goroutines end
			c.tell(func(l Listener) { l.SessionLost(ev.session.ID(), ev.cause) })
			c.replaceSession()
		case eventConnected, eventDisconnected:
			connected := ev.kind == eventConnected
			c.log.Info().Str("session", hexID(ev.session.ID())).Bool("connected", connected).Msg("zookeeper connection changed")
			c.tell(func(l Listener) { l.ConnectionChanged(connected) })
		}
	}
}

func (c *Client) tell(what func(Listener)) {
	if c.options.Listener != nil {
		what(c.options.Listener)
	}
}

// replaceSession opens sessions until one stands, for ever.
func (c *Client) replaceSession() {
	for c.ctx.Err() == nil {
		s, err := c.openSession(c.ctx)
		if err == nil {
			c.current.Store(s)
			c.tell(func(l Listener) { l.ConnectionChanged(true) })
			c.tell(func(l Listener) { l.SessionEstablished(s) })
			return
		}
		if s != nil {
			s.close()
		}
		c.log.Warn().Err(err).Msg("no new zookeeper session yet, trying again")
		select {
		case <-c.ctx.Done():
		case <-time.After(reopenPause):
		}
	}
}

// openSession opens a session and waits until it stands and its lease is fresh. On error the session is returned too if it needs
// closing.
func (c *Client) openSession(ctx context.Context) (*session, error) {
	s := newSession(c)
	conn, events, err := zk.Connect(c.servers, c.options.SessionTimeout,
		zk.WithDialer(s.dial), zk.WithHostProvider(s.hosts), zk.WithEventCallback(s.onEvent), zk.WithLogger(s), zk.WithLogInfo(false),
		zk.WithMaxBufferSize(frameMax))
	if err != nil {
		return nil, err
	}
	s.start(conn, events)
	select {
	case <-s.ready:
	case <-s.done:
		return s, s.lostError()
	case <-ctx.Done():
		return s, s.noSession(context.Cause(ctx))
	}
	if c.options.Digest != "" { // the library shows it again on every later connection
		if err := conn.AddAuth("digest", []byte(c.options.Digest)); err != nil {
			return s, s.noSession(err)
		}
	}
	if !s.probe() {
		return s, s.noSession(errors.New("the new session does not answer"))
	}
	s.announce()
	return s, nil
}

// ensureChroot creates the chroot with its parents. It looks first: the broker may have no rights above its chroot.
func (c *Client) ensureChroot(ctx context.Context, s *session) error {
	if c.chroot == "" {
		return nil
	}
	stop := context.AfterFunc(ctx, s.close) // operations wait for a connection for as long as the session may live
	defer stop()
	found, _, err := s.Exists("/")
	if err != nil || found {
		return err
	}
	err = s.createAllFull(c.chroot, nil)
	if errors.Is(err, ErrNodeExists) {
		return nil
	}
	return err
}

func (s *session) noSession(cause error) error {
	if last := s.dialError.Load(); last != nil {
		return fmt.Errorf("no session: %w; last attempt: %w", cause, *last)
	}
	return fmt.Errorf("no session: %w", cause)
}

// announce logs the session, and warns of settings that make the lease useless.
func (s *session) announce() {
	s.log.Info().Str("session", hexID(s.ID())).Dur("timeout_ms", s.timeout).Dur("lease_ms", s.lease.length).
		Msg("zookeeper session established")
	if !s.leaseProven || s.lease.length < leaseWarning {
		s.log.Warn().Dur("timeout_ms", s.timeout).Dur("lease_ms", s.lease.length).Bool("proven", s.leaseProven).
			Dur("tick_ms", s.client.options.TickTime).Int("sync_limit", s.client.options.SyncLimit).
			Msg("zookeeper.session.timeout.ms is small for the ensemble's tickTime and syncLimit: answers stop soon after the connection does")
	}
}

func hexID(id int64) string { return fmt.Sprintf("0x%x", uint64(id)) }

type eventKind int

const (
	eventConnected eventKind = iota
	eventDisconnected
	eventLost
)

type event struct {
	kind    eventKind
	session *session
	cause   error
}

// eventQueue carries events out of the library's connection loop, which must not wait: it has no bound, but holds two events per
// reconnect at most.
type eventQueue struct {
	mu     sync.Mutex
	queue  []event
	signal chan struct{}
}

func newEventQueue() *eventQueue { return &eventQueue{signal: make(chan struct{}, 1)} }

func (q *eventQueue) put(ev event) {
	q.mu.Lock()
	q.queue = append(q.queue, ev)
	q.mu.Unlock()
	select {
	case q.signal <- struct{}{}:
	default:
	}
}

func (q *eventQueue) next(ctx context.Context) (event, bool) {
	for {
		q.mu.Lock()
		if len(q.queue) > 0 {
			ev := q.queue[0]
			q.queue = q.queue[1:]
			q.mu.Unlock()
			return ev, ctx.Err() == nil
		}
		q.mu.Unlock()
		select {
		case <-ctx.Done():
			return event{}, false
		case <-q.signal:
		}
	}
}
