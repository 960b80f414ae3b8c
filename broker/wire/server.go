package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/rs/zerolog"
)

// Listener is one named listener of the broker.
type Listener struct {
	Name     string // upper case, e.g. PLAINTEXT
	Protocol string // PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL; told by Conn.Protocol
	Addr     string // host:port to bind; port 0 takes any
	// Listener, when set, is used instead of binding Addr. The server closes it.
	Listener net.Listener
	// Wrap, when set, turns an accepted connection into the one that is spoken on (TLS). It runs on the connection's own
	// goroutine and may block for its handshake; the idle bound ends it.
	Wrap func(net.Conn) (net.Conn, error)
	// A connection with a method Principal() string tells who the client is, unless it has to log in.
	//
	// Login says that a client must log in first: until Conn.SetPrincipal only ApiVersions, SaslHandshake and
	// SaslAuthenticate are served, in frames of at most Options.LoginMaxBytes.
	Login bool
	// MaxConnections bounds the connections of this listener, 0 means no bound.
	MaxConnections int
	// Protected lets the brokers' own connections in although max.connections is reached.
	Protected bool
}

// Limits bound the connections. The zero value bounds nothing.
type Limits struct {
	Connections int            // max.connections, 0: no bound; beyond it connections wait in the backlog
	PerIP       int            // max.connections.per.ip, 0: no bound; beyond it connections are closed
	Overrides   map[string]int // max.connections.per.ip.overrides: the bound of single addresses, host names resolved
}

// Options are a server's settings. Zero values mean Kafka's defaults.
type Options struct {
	Table     *Table
	Listeners []Listener

	MaxRequestBytes       int           // socket.request.max.bytes, default 100 MiB
	LoginMaxBytes         int           // sasl.server.max.receive.size, default 512 KiB: bounds frames before login
	QueuedMaxRequestBytes int64         // queued.max.request.bytes, 0 or less: no bound
	MaxIdle               time.Duration // connections.max.idle.ms, default 10 minutes; negative: never
	Limits                func() Limits // asked for each new connection; nil: none
	SendBufferBytes       int           // socket.send.buffer.bytes, 0 or -1: the system's
	ReceiveBufferBytes    int           // socket.receive.buffer.bytes, 0 or -1: the system's
	// MaxPending bounds the requests of one connection that wait for their answer or for its writing, default 128.
	MaxPending int
	// MaxPendingBytes bounds the answers of one connection that wait for the socket: beyond it no further request is taken.
	// Default 4 MiB.
	MaxPendingBytes int

	// Admit is asked for every new connection by its address; where it gives a time, the connection is closed after that, unserved.
	// nil admits everybody. Source: KIP-612.
	Admit func(host string) time.Duration

	// Features is asked for every ApiVersions answer; nil means none.
	Features func() Features
	Hooks    Hooks // nil: none
	Logger   zerolog.Logger
}

func (o *Options) setDefaults() {
	setDefault(&o.MaxRequestBytes, 100<<20)
	setDefault(&o.LoginMaxBytes, 512<<10)
	setDefault(&o.MaxIdle, 10*time.Minute)
	setDefault(&o.MaxPending, 128)
	setDefault(&o.MaxPendingBytes, 4<<20)
	if o.Limits == nil {
		o.Limits = func() Limits { return Limits{} }
	}
}

func setDefault[T comparable](v *T, to T) {
	var zero T
	if *v == zero {
		*v = to
	}
}

// Hooks hears of connections and requests; methods are called from the connections' goroutines and must not block.
type Hooks interface {
	ConnOpened(c *Conn)
	ConnClosed(c *Conn)
	// Answering is called with every answer that has a body, before it is encoded; the encoder must not be kept.
	Answering(r *Request, enc Encoder)
	// RequestDone is called once per answered request, after its answer was built and before it is written.
	RequestDone(r *Request, t RequestTimes)
	// AnswerSent is called once the socket has taken an answer, with the time since RequestDone.
	AnswerSent(r *Request, took time.Duration)
	// RequestRefused counts frames that were answered by closing the connection.
	RequestRefused(c *Conn, key, version int16, reason error)
}

// RequestTimes is what one request cost.
type RequestTimes struct {
	RequestBytes  int           // frame, without its length field
	ResponseBytes int           // frame, without its length field; 0 without answer
	Total         time.Duration // from ReceivedAt until the answer was built
	Local         time.Duration // the part of Total until the handler returned; the rest was waiting
}

// listener is a Listener with what the server counts for it.
type listener struct {
	Listener
	conns int // guarded by Server.mu
}

// Server accepts connections and serves the table on them.
type Server struct {
	o         Options
	listeners []*listener
	fallback  *api // ApiVersions requests of a version that is not served
	token     *api // frames that hold a login's token
	memory    memory
	refusals  zerolog.Logger // sampled: foreign input can repeat
	stop      chan struct{}  // closed when accepting ends
	stopOnce  sync.Once

	mu struct {
		sync.Mutex
		changed    sync.Cond // a connection or goroutine has ended
		conns      map[*Conn]struct{}
		perHost    map[string]int
		goroutines int
		closed     bool // no further connection or writer starts
	}
}

var connIDs atomic.Uint64

// NewServer binds the listeners. Connections are accepted from Serve on.
func NewServer(o Options) (*Server, error) {
	o.setDefaults()
	s := &Server{o: o, stop: make(chan struct{})}
	s.memory.limit = o.QueuedMaxRequestBytes
	s.refusals = o.Logger.Sample(&zerolog.BurstSampler{Burst: 10, Period: time.Second})
	s.mu.changed.L = &s.mu
	s.mu.conns = make(map[*Conn]struct{})
	s.mu.perHost = make(map[string]int)
	s.fallback = &api{
		API:  API{Key: keyAPIVersions, Handle: func(r *Request) { r.RespondWith(o.Table.apiVersionsFallback()) }},
		name: requestName(keyAPIVersions),
	}
	s.token = &api{API: API{Key: keySASLAuthenticate}, name: requestName(keySASLAuthenticate)}
	for _, l := range o.Listeners {
		if l.Listener == nil {
			bound, err := net.Listen("tcp", l.Addr)
			if err != nil {
				s.StopAccepting()
				return nil, fmt.Errorf("listener %s: %w", l.Name, err)
			}
			l.Listener = bound
		}
		s.listeners = append(s.listeners, &listener{Listener: l})
	}
	return s, nil
}

// Serve starts accepting and returns.
func (s *Server) Serve() {
	for _, l := range s.listeners {
		s.spawn(func() { s.acceptLoop(l) })
	}
	if s.o.MaxIdle > 0 {
		s.spawn(s.idleLoop)
	}
}

// Addr is the address that a listener is bound to, nil for an unknown name.
func (s *Server) Addr(name string) net.Addr {
	for _, l := range s.listeners {
		if l.Name == name {
			return l.Listener.Listener.Addr()
		}
	}
	return nil
}

// ConnsByListener is the number of open connections of each listener.
func (s *Server) ConnsByListener() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make(map[string]int, len(s.listeners))
	for _, l := range s.listeners {
		out[l.Name] = l.conns
	}
	return out
}

// Conns is the number of open connections.
func (s *Server) Conns() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.conns)
}

// spawn starts a goroutine that Close waits for; false when the server is closed.
func (s *Server) spawn(f func()) bool {
	s.mu.Lock()
	if s.mu.closed {
		s.mu.Unlock()
		return false
	}
	s.mu.goroutines++
	s.mu.Unlock()
	go func() {
		defer func() {
			s.mu.Lock()
			s.mu.goroutines--
			s.mu.changed.Broadcast()
			s.mu.Unlock()
		}()
		f()
	}()
	return true
}

// acceptPause is how long accepting rests after an error, such as too many open files.
const acceptPause = 50 * time.Millisecond

func (s *Server) acceptLoop(l *listener) {
	for s.waitForSlot(l) {
		nc, err := l.Listener.Listener.Accept()
		if err == nil {
			s.accept(l, nc)
			continue
		}
		if s.stopped() || errors.Is(err, net.ErrClosed) {
			return
		}
		s.refusals.Error().Err(err).Str("listener", l.Name).Msg("cannot accept connections")
		select {
		case <-time.After(acceptPause):
		case <-s.stop:
			return
		}
	}
}

// Stopped reports whether accepting has ended.
func (s *Server) Stopped() bool { return s.stopped() }

func (s *Server) stopped() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// LimitsChanged has connections that wait looked at again.
func (s *Server) LimitsChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.changed.Broadcast()
}

// waitForSlot waits until max.connections allows one more; false when accepting has ended.
func (s *Server) waitForSlot(l *listener) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.stopped() {
		limit := s.o.Limits().Connections
		full := limit > 0 && len(s.mu.conns) >= limit && !l.Protected ||
			l.MaxConnections > 0 && l.conns >= l.MaxConnections
		if !full {
			return true
		}
		s.mu.changed.Wait()
	}
	return false
}

func (s *Server) accept(l *listener, nc net.Conn) {
	if admit := s.o.Admit; admit != nil {
		if wait := admit(hostOf(nc.RemoteAddr())); wait > 0 {
			s.closeLater(l, nc, wait)
			return
		}
	}
	s.tune(nc)
	c := &Conn{id: connIDs.Add(1), server: s, listener: l, accepted: nc, nc: nc, host: hostOf(nc.RemoteAddr())}
	c.initOut()
	if !l.Login {
		c.SetPrincipal(anonymous)
	}
	if err := s.add(c); err != nil {
		_ = nc.Close()
		s.refusals.Info().Err(err).Str("listener", l.Name).Str("client", c.host).Msg("connection refused")
		return
	}
	if h := s.o.Hooks; h != nil {
		h.ConnOpened(c)
	}
	if !s.spawn(c.readLoop) {
		c.close(errStopping)
	}
}

// closeLater lets a connection that comes too soon wait before it is closed, so that its client does not come again at once.
func (s *Server) closeLater(l *listener, nc net.Conn, wait time.Duration) {
	s.refusals.Info().Str("listener", l.Name).Str("client", hostOf(nc.RemoteAddr())).Dur("wait_ms", wait).
		Msg("connection refused: its address opens too many")
	if !s.spawn(func() {
		select {
		case <-time.After(wait):
		case <-s.stop:
		}
		_ = nc.Close()
	}) {
		_ = nc.Close()
	}
}

func hostOf(a net.Addr) string {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.IP.String()
	}
	host, _, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	return host
}

func (s *Server) tune(nc net.Conn) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	if n := s.o.SendBufferBytes; n > 0 {
		_ = tcp.SetWriteBuffer(n)
	}
	if n := s.o.ReceiveBufferBytes; n > 0 {
		_ = tcp.SetReadBuffer(n)
	}
}

var errTooManyConnections = errors.New("too many connections from this address")

func (s *Server) add(c *Conn) error {
	limits := s.o.Limits()
	limit, ok := limits.Overrides[c.host]
	if !ok {
		limit = limits.PerIP
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mu.closed || s.stopped():
		return errStopping
	case (limit > 0 || ok) && s.mu.perHost[c.host] >= limit:
		return errTooManyConnections
	}
	s.mu.conns[c] = struct{}{}
	s.mu.perHost[c.host]++
	c.listener.conns++
	return nil
}

// remove is called once per connection that add has let in, by Conn.close.
func (s *Server) remove(c *Conn, reason error) {
	s.mu.Lock()
	delete(s.mu.conns, c)
	c.listener.conns--
	if s.mu.perHost[c.host]--; s.mu.perHost[c.host] == 0 {
		delete(s.mu.perHost, c.host)
	}
	s.mu.changed.Broadcast()
	s.mu.Unlock()
	if h := s.o.Hooks; h != nil {
		h.ConnClosed(c)
	}
	if ordinaryEnd(reason) {
		s.o.Logger.Debug().AnErr("err", reason).Str("listener", c.Listener()).Str("client", c.host).Msg("connection closed")
		return
	}
	name, version := c.Software()
	s.refusals.Warn().Err(reason).Str("listener", c.Listener()).Str("client", c.host).Str("software", name+" "+version).
		Msg("connection closed because of what the client sent")
}

// ordinaryEnd tells the ends of a connection that need no attention.
func ordinaryEnd(err error) bool {
	for _, ordinary := range []error{
		io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, errIdle, errStopping, syscall.ECONNRESET, syscall.EPIPE, syscall.ETIMEDOUT,
	} {
		if errors.Is(err, ordinary) {
			return true
		}
	}
	return err == nil
}

// idleLoop closes connections on which nothing was read or written for MaxIdle. One look at all of them, eight times in that span, costs
// less than a deadline per read.
func (s *Server) idleLoop() {
	const looks = 8
	type seen struct {
		activity uint32
		since    int // look in which the activity was first seen
	}
	last := make(map[*Conn]seen)
	ticker := time.NewTicker(max(s.o.MaxIdle/looks, time.Millisecond))
	defer ticker.Stop()
	for look := 0; ; look++ {
		select {
		case <-ticker.C:
		case <-s.stop:
			return
		}
		var idle []*Conn
		s.mu.Lock()
		now := make(map[*Conn]seen, len(s.mu.conns))
		for c := range s.mu.conns {
			at := seen{c.activity.Load(), look}
			if old, ok := last[c]; ok && old.activity == at.activity {
				at.since = old.since
			}
			now[c] = at
			if look-at.since >= looks {
				idle = append(idle, c)
			}
		}
		s.mu.Unlock()
		last = now
		for _, c := range idle {
			c.close(errIdle)
		}
	}
}

// StopAccepting closes the listeners; connections live on.
func (s *Server) StopAccepting() {
	s.stopOnce.Do(func() {
		close(s.stop)
		s.mu.Lock()
		s.mu.changed.Broadcast()
		s.mu.Unlock()
		for _, l := range s.listeners {
			_ = l.Listener.Listener.Close()
		}
	})
}

// Close stops accepting and reading, lets pending answers go out until ctx ends, closes the connections and waits for their
// goroutines. It returns ctx's error when answers were cut off.
func (s *Server) Close(ctx context.Context) error {
	s.StopAccepting()
	for _, c := range s.connections() {
		c.stopReading()
	}
	wake := context.AfterFunc(ctx, func() {
		s.mu.Lock()
		s.mu.changed.Broadcast()
		s.mu.Unlock()
	})
	defer wake()

	s.mu.Lock()
	for len(s.mu.conns) > 0 && ctx.Err() == nil {
		s.mu.changed.Wait()
	}
	s.mu.closed = true
	s.mu.Unlock()

	cut := s.connections()
	for _, c := range cut {
		c.close(errStopping)
	}
	s.mu.Lock()
	for s.mu.goroutines > 0 {
		s.mu.changed.Wait()
	}
	s.mu.Unlock()
	if len(cut) > 0 {
		return fmt.Errorf("%d connections were closed with answers pending: %w", len(cut), ctx.Err())
	}
	return nil
}

func (s *Server) connections() []*Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]*Conn, 0, len(s.mu.conns))
	for c := range s.mu.conns {
		all = append(all, c)
	}
	return all
}
