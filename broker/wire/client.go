package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// DialOptions are the settings of a client connection. Zero values are useful.
type DialOptions struct {
	ClientID string
	// Source, when set, is the local address to bind; port 0 takes any.
	Source net.Addr
	// Dial replaces the dialling, for tests and TLS.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Wrap, when set, turns the new connection into the one that is spoken on (TLS).
	Wrap func(ctx context.Context, c net.Conn) (net.Conn, error)
	// Login, when set, logs in over the new connection with round trips of its own, and says for how long that holds; 0 is for
	// ever. It is called again before a login ends. Source: KIP-368.
	Login func(ctx context.Context, ask func(context.Context, kmsg.Request) (kmsg.Response, error)) (time.Duration, error)
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
type Client struct {
	nc       net.Conn
	o        DialOptions
	versions map[int16]kmsg.ApiVersionsResponseApiKey // nil unless negotiated

	turn          chan struct{} // holds one token: who has it may use what follows
	correlationID int32
	broken        error
	head          [4]byte
	largest       int       // longest answer that has arrived
	loginAgain    time.Time // zero: never

	closeOnce sync.Once
	closeErr  error
}

var (
	errCorrelation  = errors.New("answer to another request")
	errResponseSize = errors.New("response length out of range")
	errNotServed    = errors.New("request is not served by this broker")
	errLeftOver     = errors.New("connection was given up after an error")
)

// Dial connects to addr (host:port).
func Dial(ctx context.Context, addr string, o DialOptions) (*Client, error) {
	setDefault(&o.Timeout, 30*time.Second)
	setDefault(&o.MaxResponseBytes, 256<<20)
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	nc, err := dial(ctx, addr, &o)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	c := &Client{nc: nc, o: o, turn: make(chan struct{}, 1)}
	c.turn <- struct{}{}
	if err := c.login(ctx); err != nil {
		_ = nc.Close()
		return nil, fmt.Errorf("log in to %s: %w", addr, err)
	}
	if o.Negotiate {
		if err := c.negotiate(ctx); err != nil {
			_ = nc.Close()
			return nil, fmt.Errorf("ask %s for its versions: %w", addr, err)
		}
	}
	return c, nil
}

// login logs in, for the first time or again. Who calls it has the turn, or the only reference.
func (c *Client) login(ctx context.Context) error {
	if c.o.Login == nil {
		return nil
	}
	life, err := c.o.Login(ctx, func(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
		f, err := c.bounded(ctx, req)
		if err != nil {
			return nil, err
		}
		resp := req.ResponseKind()
		return resp, resp.ReadFrom(f.body)
	})
	if err != nil {
		return err
	}
	c.loginAgain = time.Time{}
	if life > 0 {
		c.loginAgain = time.Now().Add(life - life/8) // well before it ends, as Java clients do
	}
	return nil
}

// loginIfDue renews a login that is about to end.
func (c *Client) loginIfDue(ctx context.Context) error {
	if c.loginAgain.IsZero() || time.Now().Before(c.loginAgain) {
		return nil
	}
	return c.login(ctx)
}

func dial(ctx context.Context, addr string, o *DialOptions) (net.Conn, error) {
	open := o.Dial
	if open == nil {
		d := net.Dialer{LocalAddr: o.Source, Control: tuneDialled}
		open = d.DialContext
	}
	nc, err := open(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	if tcp, ok := nc.(*net.TCPConn); ok {
		if o.SendBufferBytes > 0 {
			_ = tcp.SetWriteBuffer(o.SendBufferBytes)
		}
		if o.ReceiveBufferBytes > 0 {
			_ = tcp.SetReadBuffer(o.ReceiveBufferBytes)
		}
	}
	if o.Wrap == nil {
		return nc, nil
	}
	wrapped, err := o.Wrap(ctx, nc)
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return wrapped, nil
}

// negotiate asks for the broker's versions, in the oldest layout, which all brokers answer.
func (c *Client) negotiate(ctx context.Context) error {
	resp, err := c.RoundTrip(ctx, kmsg.NewPtrApiVersionsRequest())
	if err != nil {
		return err
	}
	r := resp.(*kmsg.ApiVersionsResponse)
	if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
		return err
	}
	c.versions = make(map[int16]kmsg.ApiVersionsResponseApiKey, len(r.ApiKeys))
	for _, k := range r.ApiKeys {
		c.versions[k.ApiKey] = k
	}
	return nil
}

// Versions is what the broker serves, as far as it was asked (Negotiate).
func (c *Client) Versions(key int16) (min, max int16, ok bool) {
	k, ok := c.versions[key]
	return k.MinVersion, k.MaxVersion, ok
}

// RoundTrip sends req in the version that it is set to (or lowered to what the broker serves) and waits for the answer.
// The answer is the caller's. A Produce with acks=0 has none: nil is returned.
func (c *Client) RoundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	resp, f, err := c.roundTrip(ctx, req)
	if err != nil || resp == nil {
		return nil, err
	}
	if err := resp.ReadFrom(f.body); err != nil {
		return nil, c.fail(fmt.Errorf("decode the answer: %w", err))
	}
	// Byte slices of the answer point into the frame, which therefore is left to the collector.
	return resp, nil
}

// Borrow is RoundTrip for large answers: byte slices and strings of the response point into a pooled frame. The caller calls
// release once it has done with them; release is never nil.
func (c *Client) Borrow(ctx context.Context, req kmsg.Request) (resp kmsg.Response, release func(), err error) {
	resp, f, err := c.roundTrip(ctx, req)
	if err != nil || resp == nil {
		return nil, func() {}, err
	}
	decode := resp.ReadFrom
	if u, ok := resp.(kmsg.UnsafeReadFrom); ok {
		decode = u.UnsafeReadFrom
	}
	if err := decode(f.body); err != nil {
		f.frame.recycle()
		return nil, func() {}, c.fail(fmt.Errorf("decode the answer: %w", err))
	}
	return resp, f.frame.recycle, nil
}

type received struct {
	frame *frame
	body  []byte
}

// roundTrip returns an empty response of the right version and the frame to decode it from.
func (c *Client) roundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, received, error) {
	select {
	case <-c.turn:
		defer func() { c.turn <- struct{}{} }()
	case <-ctx.Done():
		return nil, received{}, ctx.Err()
	}
	if c.broken != nil {
		return nil, received{}, fmt.Errorf("%w: %w", errLeftOver, c.broken)
	}
	if err := c.settleVersion(req); err != nil {
		return nil, received{}, err
	}
	err := c.loginIfDue(ctx)
	var f received
	if err == nil {
		f, err = c.bounded(ctx, req)
	}
	if err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ctx.Err(), err)
		}
		c.broken = err
		_ = c.Close()
		return nil, received{}, fmt.Errorf("%s to %s: %w", requestName(req.Key()), c.nc.RemoteAddr(), err)
	}
	if f.frame == nil {
		return nil, f, nil
	}
	return req.ResponseKind(), f, nil
}

func (c *Client) fail(err error) error {
	<-c.turn
	c.broken = err
	c.turn <- struct{}{}
	_ = c.Close()
	return err
}

func (c *Client) settleVersion(req kmsg.Request) error {
	if c.versions == nil {
		return nil
	}
	k, ok := c.versions[req.Key()]
	v := min(req.GetVersion(), k.MaxVersion)
	if !ok || v < k.MinVersion {
		return fmt.Errorf("%s v%d: %w", requestName(req.Key()), req.GetVersion(), errNotServed)
	}
	req.SetVersion(v)
	return nil
}

// setDeadline bounds the exchange by the timeout and the context. A context that ends meanwhile ends the exchange.
func (c *Client) setDeadline(ctx context.Context) (release func(), err error) {
	deadline := time.Now().Add(c.o.Timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := c.nc.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if ctx.Done() == nil {
		return func() {}, nil
	}
	stop := context.AfterFunc(ctx, func() { _ = c.nc.SetDeadline(time.Unix(1, 0)) })
	return func() { stop() }, nil
}

// bounded is an exchange that ends in time.
func (c *Client) bounded(ctx context.Context, req kmsg.Request) (received, error) {
	release, err := c.setDeadline(ctx)
	if err != nil {
		return received{}, err
	}
	defer release()
	return c.exchange(req)
}

func (c *Client) exchange(req kmsg.Request) (received, error) {
	c.correlationID++
	if err := c.send(req); err != nil {
		return received{}, err
	}
	if p, ok := req.(*kmsg.ProduceRequest); ok && p.Acks == 0 {
		return received{}, nil
	}
	f, err := c.receive()
	if err != nil {
		return received{}, err
	}
	body, err := c.openResponse(req, f.b)
	if err != nil {
		f.recycle()
		return received{}, err
	}
	return received{f, body}, nil
}

func (c *Client) send(req kmsg.Request) error {
	f := newFrame(0)
	defer func() { f.recycle() }()
	b := append(f.b, 0, 0, 0, 0)
	b = appendRequestHeader(b, req.Key(), req.GetVersion(), c.correlationID, c.o.ClientID)
	body := len(b)
	b = req.AppendTo(b)
	if req.Key() == keyStopReplica && req.GetVersion() == stopReplicaFixed {
		stopReplicaToKafka(b[body:])
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	f.b = b
	_, err := c.nc.Write(b)
	return err
}

// receive reads one frame, without its length field.
func (c *Client) receive() (*frame, error) {
	if _, err := io.ReadFull(c.nc, c.head[:]); err != nil {
		return nil, err
	}
	size := int(int32(binary.BigEndian.Uint32(c.head[:])))
	if size < 4 || size > c.o.MaxResponseBytes {
		return nil, fmt.Errorf("%w: %d", errResponseSize, size)
	}
	f := newFrame(min(size, max(trustedBytes, 2*c.largest)))
	for len(f.b) < size {
		if len(f.b) == cap(f.b) {
			f = f.grow(size)
		}
		n, err := c.nc.Read(f.b[len(f.b):min(size, cap(f.b))])
		f.b = f.b[:len(f.b)+n]
		if err != nil && len(f.b) < size {
			f.recycle()
			return nil, unexpected(err)
		}
	}
	c.largest = max(c.largest, size)
	return f, nil
}

// openResponse checks the response header and returns the body.
func (c *Client) openResponse(req kmsg.Request, b []byte) ([]byte, error) {
	if got := int32(binary.BigEndian.Uint32(b)); got != c.correlationID {
		return nil, fmt.Errorf("%w: correlation id %d, want %d", errCorrelation, got, c.correlationID)
	}
	if b = b[4:]; !hasResponseTags(req.Key(), req.GetVersion()) {
		return b, nil
	}
	return skipTags(b)
}

// Close closes the connection; a round trip under way fails.
func (c *Client) Close() error {
	c.closeOnce.Do(func() { c.closeErr = c.nc.Close() })
	if errors.Is(c.closeErr, os.ErrClosed) {
		return nil
	}
	return c.closeErr
}

// LocalAddr is this end's address.
func (c *Client) LocalAddr() net.Addr { return c.nc.LocalAddr() }

// RemoteAddr is the broker's address.
func (c *Client) RemoteAddr() net.Addr { return c.nc.RemoteAddr() }
