package wire

import (
	"context"
	"net"
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
	// goroutine and may block for its handshake until the connection's deadline.
	Wrap func(net.Conn) (net.Conn, error)
	// Login says that a client must log in first: until Conn.SetPrincipal only ApiVersions, SaslHandshake and
	// SaslAuthenticate are served, in frames of at most 512 KiB.
	Login bool
	// MaxConnections bounds the connections of this listener, 0 means no bound.
	MaxConnections int
}

// Options are a server's settings. Zero values mean Kafka's defaults.
type Options struct {
	Table     *Table
	Listeners []Listener

	MaxRequestBytes       int           // socket.request.max.bytes, default 100 MiB
	QueuedMaxRequestBytes int64         // queued.max.request.bytes, 0 or less: no bound
	MaxIdle               time.Duration // connections.max.idle.ms, default 10 minutes; negative: never
	MaxConnections        int           // max.connections, 0: no bound
	MaxConnectionsPerIP   int           // max.connections.per.ip, 0: no bound
	// MaxConnectionsOverrides has the bound of single addresses: max.connections.per.ip.overrides, host names resolved.
	MaxConnectionsOverrides map[string]int
	SendBufferBytes         int // socket.send.buffer.bytes, 0 or -1: the system's
	ReceiveBufferBytes      int // socket.receive.buffer.bytes, 0 or -1: the system's
	// MaxPending bounds the requests of one connection that wait for their answer or for its writing, default 128.
	MaxPending int
	// MaxPendingBytes bounds the answers of one connection that wait for the socket, default 4 MiB beyond the last.
	MaxPendingBytes int

	// Features is asked for every ApiVersions answer; nil means none.
	Features func() Features
	Hooks    Hooks // nil: none
	Logger   zerolog.Logger
}

// Hooks hears of connections and requests; methods are called from the connections' goroutines and must not block.
type Hooks interface {
	ConnOpened(c *Conn)
	ConnClosed(c *Conn)
	// RequestDone is called once per answered request, after its answer was built and before it is written.
	RequestDone(r *Request, t RequestTimes)
	// RequestRefused counts frames that were answered by closing the connection; key is -1 when it could not be read.
	RequestRefused(c *Conn, key, version int16, reason error)
}

// RequestTimes is what one request cost.
type RequestTimes struct {
	RequestBytes  int // frame, without its length field
	ResponseBytes int // frame, without its length field; 0 without answer
	Handled       time.Duration
	Total         time.Duration // from ReceivedAt until the answer was built
}

// Server accepts connections and serves the table on them.
type Server struct{}

// NewServer binds the listeners. Connections are accepted from Serve on.
func NewServer(o Options) (*Server, error) { panic("todo") }

// Serve starts accepting and returns.
func (s *Server) Serve() { panic("todo") }

// Addr is the address that a listener is bound to, nil for an unknown name.
func (s *Server) Addr(listener string) net.Addr { panic("todo") }

// StopAccepting closes the listeners; connections live on.
func (s *Server) StopAccepting() { panic("todo") }

// Close stops accepting and reading, lets pending answers go out until ctx ends, closes the connections and waits for their
// goroutines. It returns ctx's error when answers were cut off.
func (s *Server) Close(ctx context.Context) error { panic("todo") }
