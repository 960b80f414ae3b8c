package wire

import (
	"context"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DialOptions are the settings of a client connection. Zero values are useful.
type DialOptions struct {
	ClientID string
	// Source, when set, is the local address to bind; port 0 takes any.
	Source net.Addr
	// Dial replaces the dialling, for tests and TLS.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Wrap, when set, turns the new connection into the one that is spoken on (TLS, SASL).
	Wrap func(ctx context.Context, c net.Conn) (net.Conn, error)
	// Timeout bounds connecting and each request, default 30 seconds; an earlier deadline of the context wins.
	Timeout time.Duration
	// Negotiate asks ApiVersions first and lowers each request to what the broker serves. Brokers of one cluster do not ask:
	// inter.broker.protocol.version decides.
	Negotiate          bool
	MaxResponseBytes   int // default 256 MiB
	SendBufferBytes    int // 0 or -1: the system's
	ReceiveBufferBytes int // 0 or -1: the system's
}

// Client is a connection to a broker with one request in flight at a time. It is safe for concurrent use, one after the other.
// After an error of the network the connection is over: dial again.
type Client struct{}

// Dial connects to addr (host:port).
func Dial(ctx context.Context, addr string, o DialOptions) (*Client, error) { panic("todo") }

// RoundTrip sends req in the version that it is set to (or lowered to what the broker serves) and waits for the answer.
// The answer is the caller's. A Produce with acks=0 has none: nil is returned.
func (c *Client) RoundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	panic("todo")
}

// Borrow is RoundTrip for large answers: byte slices and strings of the response point into a pooled frame. The caller calls
// release once it has done with them; release is never nil.
func (c *Client) Borrow(ctx context.Context, req kmsg.Request) (resp kmsg.Response, release func(), err error) {
	panic("todo")
}

// Versions is what the broker serves, as far as it was asked (Negotiate).
func (c *Client) Versions(key int16) (min, max int16, ok bool) { panic("todo") }

// Close closes the connection; a round trip under way fails.
func (c *Client) Close() error { panic("todo") }

// LocalAddr and RemoteAddr are the connection's ends.
func (c *Client) LocalAddr() net.Addr { panic("todo") }

// RemoteAddr is the broker's address.
func (c *Client) RemoteAddr() net.Addr { panic("todo") }
