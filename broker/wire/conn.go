package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Conn is one client's connection. Its reader goroutine (readLoop) takes in frames and calls the handlers; whoever completes the
// request at the head of the queue writes (see answers.go).
type Conn struct {
	// Constant.
	id       uint64
	server   *Server
	listener *listener
	accepted net.Conn        // as accepted
	nc       net.Conn        // what is spoken on; differs from accepted under TLS, set before the first byte is read
	raw      syscall.RawConn // non-blocking access to nc, nil where nc is no plain socket
	host     string

	// activity counts reads and writes, for the idle check.
	activity  atomic.Uint32
	principal atomic.Pointer[string] // nil before login
	software  atomic.Pointer[software]
	stopping  atomic.Bool  // no further request is taken
	expires   atomic.Int64 // when the login ends, ns since 1970; 0: never

	in  reader
	out writer
}

type software struct{ name, version string }

// anonymous is the principal of those who need not log in.
const anonymous = "User:ANONYMOUS"

// Listener is the name of the listener that the client came in on.
func (c *Conn) Listener() string { return c.listener.Name }

// Protocol is the security protocol of that listener.
func (c *Conn) Protocol() string { return c.listener.Protocol }

// RemoteAddr is the client's address.
func (c *Conn) RemoteAddr() net.Addr { return c.accepted.RemoteAddr() }

// RemoteHost is the client's address without port, e.g. 10.0.0.1.
func (c *Conn) RemoteHost() string { return c.host }

// Principal is who logged in, e.g. User:alice; User:ANONYMOUS on listeners without login, "" before login.
func (c *Conn) Principal() string {
	if p := c.principal.Load(); p != nil {
		return *p
	}
	return ""
}

// SetPrincipal ends the login phase.
func (c *Conn) SetPrincipal(principal string) { c.principal.Store(&principal) }

func (c *Conn) loggedIn() bool { return c.principal.Load() != nil }

// SetExpiry lets the login end at a time: from then on only a new login is served, anything else closes the connection. The zero
// time is never. Source: KIP-368.
func (c *Conn) SetExpiry(t time.Time) {
	if t.IsZero() {
		c.expires.Store(0)
		return
	}
	c.expires.Store(t.UnixNano())
}

func (c *Conn) expired() bool {
	at := c.expires.Load()
	return at != 0 && time.Now().UnixNano() > at
}

// Login is what SetLogin has left: the state of this connection's login. Both are for handlers, while they run.
func (c *Conn) Login() any { return c.in.login }

// SetLogin keeps the state of this connection's login.
func (c *Conn) SetLogin(state any) { c.in.login = state }

// TakeTokens makes every further frame a token of the login, without header, and hands it to fn, which answers with
// RespondToken; nil ends that. It is for handlers, while they run. Source: SaslHandshake v0.
func (c *Conn) TakeTokens(fn func(r *Request, token []byte)) { c.in.tokens = fn }

// CloseAfter takes no further request and closes the connection once the pending answers are written.
func (c *Conn) CloseAfter(reason error) {
	c.stopping.Store(true)
	last := &Request{Conn: c}
	c.enqueue(last, false)
	c.answered(last, answer{close: reason})
}

// Software is the client library's name and version as told by ApiVersions v3 and later. Source: KIP-511.
func (c *Conn) Software() (name, version string) {
	if s := c.software.Load(); s != nil {
		return s.name, s.version
	}
	return "", ""
}

func (c *Conn) setSoftware(name, version string) { c.software.Store(&software{name, version}) }

// ID tells connections apart in logs; it is unique within the process.
func (c *Conn) ID() uint64 { return c.id }

// Close closes the connection at once; pending answers are dropped.
func (c *Conn) Close(reason error) { c.close(reason) }

// reader is the state of a connection's reader goroutine, which alone uses it.
type reader struct {
	buf        *[readBufferBytes]byte // nil while waiting for readability
	start, end int                    // unread bytes of buf
	largest    int                    // longest frame that has arrived in full
	clientID   string                 // of the last request: most clients never change it
	burst      int                    // requests handled since answers were last let out
	burstSize  int                    // and their bytes
	last       int                    // length of the last frame
	handling   *Request               // while its handler runs
	poll       poll
	login      any                            // see Conn.SetLogin
	tokens     func(r *Request, token []byte) // see Conn.TakeTokens
}

// poll is one non-blocking read and where its bytes go.
type poll struct {
	try  func(fd uintptr) bool // tryRead as a value, made once
	into [][]byte              // nil: a fresh read buffer
	both [2][]byte             // room for into
	wait bool                  // for readability
	n    int
	err  error // errNothingYet: nothing to read, and not waited
}

var (
	errIdle          = errors.New("idle for too long")
	errStopping      = errors.New("broker is stopping")
	errFrameSize     = errors.New("frame length out of range")
	errLoginRequired = errors.New("request before login")
	errLoginExpired  = errors.New("login has expired")
	errHandlerPanic  = errors.New("handler panicked")
)

// burstMax bounds the requests that are handled before answers are let out, burstTaken their bytes, and burstBytes the answers'.
const (
	burstMax   = 64
	burstTaken = 128 << 10
	burstBytes = 256 << 10
)

// readLoop serves the connection until it ends.
func (c *Conn) readLoop() {
	err := c.serve()
	c.in.giveBack()
	if errors.Is(err, io.EOF) || c.out.isClosed() {
		c.close(err)
		return
	}
	var ne net.Error
	if errors.As(err, &ne) && !c.stopping.Load() {
		c.close(err)
		return
	}
	if c.stopping.Load() {
		err = errStopping
	}
	// Earlier requests get their answers first.
	c.uncork()
	last := &Request{Conn: c}
	c.enqueue(last, false)
	c.answered(last, answer{close: err})
}

func (c *Conn) serve() (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errHandlerPanic, p)
			if r := c.in.handling; r != nil {
				r.abandon(err)
			}
			c.server.o.Logger.Error().Str("client", c.host).Interface("panic", p).Bytes("stack", debug.Stack()).
				Msg("handler panicked; closing the connection")
		}
	}()
	if err := c.prepare(); err != nil {
		return err
	}
	for {
		if err := c.mayRead(); err != nil {
			return err
		}
		f, size, err := c.nextFrame()
		if err != nil {
			return err
		}
		if err := c.dispatch(f, size); err != nil {
			return err
		}
	}
}

// prepare finishes what a new connection needs before its first byte is read.
func (c *Conn) prepare() error {
	if wrap := c.listener.Wrap; wrap != nil {
		nc, err := wrap(c.accepted)
		if err != nil {
			return err
		}
		c.nc = nc
		if peer, ok := nc.(interface{ Principal() string }); ok && !c.listener.Login {
			c.SetPrincipal(peer.Principal())
		}
		return nil
	}
	c.raw = rawConn(c.nc)
	c.in.poll.try = c.tryRead
	c.out.step = c.tryWrite
	return nil
}

// mayRead holds the reader back: to let answers out once a burst ends, while too many of them wait, and while muted. A burst also
// ends when the reader would have to wait (read).
func (c *Conn) mayRead() error {
	if c.stopping.Load() {
		return errStopping
	}
	in := &c.in
	letOut := in.burst >= burstMax || in.burstSize >= burstTaken || c.raw == nil && !in.holdsFrame()
	if letOut {
		in.burst, in.burstSize = 0, 0
	}
	return c.waitForRoom(letOut)
}

// holdsFrame reports whether a complete frame is buffered.
func (in *reader) holdsFrame() bool {
	n := in.end - in.start
	return n >= 4 && uint64(n-4) >= uint64(binary.BigEndian.Uint32(in.buf[in.start:]))
}

func (in *reader) giveBack() {
	if in.buf != nil {
		readBuffers.Put(in.buf)
	}
	in.buf, in.start, in.end = nil, 0, 0
}

// nextFrame returns the next frame, without its length field. Its bytes count against the server's bound from here on.
func (c *Conn) nextFrame() (*frame, int, error) {
	in := &c.in
	for {
		n := in.end - in.start
		size, known, err := c.frameSize()
		switch {
		case err != nil:
			return nil, 0, err
		case known && n-4 >= size:
			return c.takeBuffered(size)
		case known && 4+size > readBufferBytes:
			return c.readLarge(size)
		}
		if err := c.fill(); err != nil {
			return nil, 0, err
		}
	}
}

// frameSize is the length that the frame at hand claims to have, within the bounds of its kind. It is known once the length, the
// request key and the rest of a minimal header are buffered.
func (c *Conn) frameSize() (size int, known bool, err error) {
	b := c.in.buffered()
	if len(b) < 4 {
		return 0, false, nil
	}
	size, limit := int(int32(binary.BigEndian.Uint32(b))), c.server.o.MaxRequestBytes
	if !c.loggedIn() {
		limit = min(limit, c.server.o.LoginMaxBytes)
	}
	if c.in.tokens != nil {
		if size < 0 || size > limit {
			return 0, false, fmt.Errorf("%w: %d, at most %d", errFrameSize, size, limit)
		}
		return size, true, nil
	}
	if known = len(b) >= 4+minHeaderBytes; known {
		limit = c.server.o.Table.maxBytes(int16(binary.BigEndian.Uint16(b[4:])), limit)
	}
	if size < minHeaderBytes || size > limit {
		return 0, false, fmt.Errorf("%w: %d, at most %d", errFrameSize, size, limit)
	}
	return size, known, nil
}

func (in *reader) buffered() []byte {
	if in.buf == nil {
		return nil
	}
	return in.buf[in.start:in.end]
}

// takeBuffered copies a frame that is complete in the read buffer: it may be pending for long, the read buffer goes on.
func (c *Conn) takeBuffered(size int) (*frame, int, error) {
	if err := c.acquire(size); err != nil {
		return nil, 0, err
	}
	in := &c.in
	f := newFrame(size)
	f.b = append(f.b, in.buf[in.start+4:in.start+4+size]...)
	in.start += 4 + size
	in.last, in.largest = size, max(in.largest, size)
	return f, size, nil
}

// trustedBytes is how much room is made for a frame on its word alone; beyond, room grows as bytes arrive. A connection that has
// delivered long frames before is trusted to do so again.
const trustedBytes = 512 << 10

// readLarge reads a frame that does not fit the read buffer straight into a frame of its own.
func (c *Conn) readLarge(size int) (*frame, int, error) {
	if err := c.acquire(size); err != nil {
		return nil, 0, err
	}
	in := &c.in
	f := newFrame(min(size, max(trustedBytes, 2*in.largest)))
	f.b = append(f.b, in.buf[in.start+4:in.end]...)
	in.start, in.end = 0, 0
	for len(f.b) < size {
		if len(f.b) == cap(f.b) {
			f = f.grow(size)
		}
		room, next := f.b[len(f.b):min(size, cap(f.b))], []byte(nil)
		if len(f.b)+len(room) == size {
			next = in.buf[:headBytes]
		}
		n, err := c.read(room, next)
		got := min(n, len(room))
		f.b, in.end = f.b[:len(f.b)+got], n-got
		if err != nil && len(f.b) < size {
			f.recycle()
			c.server.memory.release(size)
			return nil, 0, unexpected(err)
		}
	}
	in.last, in.largest = size, max(in.largest, size)
	return f, size, nil
}

// grow makes room for up to four times the bytes that have arrived.
func (f *frame) grow(size int) *frame {
	g := newFrame(min(size, 4*len(f.b)))
	g.b = append(g.b, f.b...)
	f.recycle()
	return g
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// acquire waits until the server has room for a frame.
func (c *Conn) acquire(size int) error {
	if c.server.memory.tryAcquire(size) {
		return nil
	}
	c.uncork()
	return c.server.memory.acquire(size, c.out.closed)
}

// fill reads more into the read buffer, which it takes from the pool once there is something to read.
func (c *Conn) fill() error {
	in := &c.in
	if in.start == in.end {
		if c.raw != nil {
			in.giveBack()
			return c.waitAndRead()
		}
		in.start, in.end = 0, 0
	}
	if in.buf == nil {
		in.buf = readBuffers.Get().(*[readBufferBytes]byte)
	}
	if in.start > 0 {
		in.end = copy(in.buf[:], in.buf[in.start:in.end])
		in.start = 0
	}
	n, err := c.read(in.buf[in.end:], nil)
	in.end += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	if in.end > 0 {
		err = unexpected(err)
	}
	return err
}

// headBytes is how much of the next frame is read together with the end of a long one: enough to know its length; the rest goes
// straight to where it stays.
const headBytes = 4 << 10

// freshBytes is how much is read into a fresh buffer.
func (in *reader) freshBytes() int {
	if in.last > readBufferBytes {
		return headBytes
	}
	return readBufferBytes
}

// read reads once into p, and what comes behind that into next.
func (c *Conn) read(p, next []byte) (int, error) {
	if c.raw == nil {
		n, err := c.nc.Read(p)
		c.activity.Add(1)
		return n, err
	}
	q := &c.in.poll
	q.both = [2][]byte{p, next}
	q.into = q.both[:1]
	if len(next) > 0 {
		q.into = q.both[:2]
	}
	err := c.waitAndRead()
	q.both, q.into = [2][]byte{}, nil
	return q.n, err
}

// waitAndRead reads once, waiting for readability if need be; before that it lets out the answers that the burst has held back.
// Without a place of its own for the bytes it holds no buffer while it waits.
func (c *Conn) waitAndRead() error {
	q := &c.in.poll
	q.wait = c.in.burst == 0
	for {
		q.n, q.err = 0, nil
		if err := c.raw.Read(q.try); err != nil {
			return err
		}
		if q.err != errNothingYet {
			c.activity.Add(1)
			return q.err
		}
		c.in.burst, c.in.burstSize, q.wait = 0, 0, true
		c.uncork()
	}
}

// errNothingYet never leaves waitAndRead.
var errNothingYet = errors.New("nothing to read yet")

// dispatch decodes a frame and calls its handler. An error closes the connection, as Kafka does for what it cannot read.
func (c *Conn) dispatch(f *frame, size int) error {
	if c.in.tokens != nil {
		return c.dispatchToken(f, size)
	}
	r, err := c.decode(f, size)
	if err != nil {
		f.recycle()
		c.server.memory.release(size)
		return err
	}
	pipelined := r.api.Pipelined
	cork := c.raw == nil || pipelined || c.in.holdsFrame()
	if !cork {
		c.uncork() // the handler may take its time
	}
	c.in.burst++
	c.in.burstSize += size
	c.enqueue(r, cork)
	c.in.handling = r
	r.api.Handle(r)
	c.in.handling = nil
	if c.server.o.Hooks != nil && !r.once.Load() {
		r.handled.Store(int64(time.Since(r.ReceivedAt)))
	}
	if !pipelined || r.holds {
		return c.awaitAnswer(r)
	}
	return nil
}

// dispatchToken hands a login's token to whoever takes it.
func (c *Conn) dispatchToken(f *frame, size int) error {
	r := &Request{Key: keySASLAuthenticate, Conn: c, ReceivedAt: time.Now(), Size: size, api: c.server.token, frame: f}
	c.enqueue(r, c.raw == nil || c.in.holdsFrame())
	c.in.handling = r
	c.in.tokens(r, f.b)
	c.in.handling = nil
	return c.awaitAnswer(r)
}

// decode makes a request of a frame.
func (c *Conn) decode(f *frame, size int) (*Request, error) {
	h, body, err := parseHeader(f.b)
	if err != nil {
		c.refused(h, err)
		return nil, fmt.Errorf("%s v%d: %w", requestName(h.key), h.version, err)
	}
	api := c.server.o.Table.lookup(h.key)
	if err := c.admissible(api, h); err != nil {
		c.refused(h, err)
		return nil, fmt.Errorf("%s v%d: %w", requestName(h.key), h.version, err)
	}
	r := &Request{
		Key:           h.key,
		Version:       h.version,
		CorrelationID: h.correlationID,
		ClientID:      c.internClientID(h.clientID),
		Conn:          c,
		ReceivedAt:    time.Now(),
		Size:          size,
		api:           api,
		frame:         f,
	}
	if h.version < api.Min || h.version > api.Max { // ApiVersions only; its body is not read
		r.api = c.server.fallback
		return r, nil
	}
	if r.Body, err = decodeBody(api, h.version, body); err != nil {
		c.refused(h, err)
		return nil, fmt.Errorf("%s v%d: %w", api.name, h.version, err)
	}
	return r, nil
}

// admissible says why a request is refused before its body is looked at.
func (c *Conn) admissible(api *api, h header) error {
	switch {
	case api == nil:
		return errUnknownKey
	case h.key != keyAPIVersions && (h.version < api.Min || h.version > api.Max):
		return errUnsupportedVersion
	case !c.loggedIn() && h.key != keyAPIVersions && h.key != keySASLHandshake && h.key != keySASLAuthenticate:
		return errLoginRequired
	case h.key != keySASLHandshake && h.key != keySASLAuthenticate && c.expired():
		return errLoginExpired
	}
	return nil
}

func decodeBody(api *api, version int16, body []byte) (kmsg.Request, error) {
	if err := Check(api.Key, version, body); err != nil {
		return nil, err
	}
	if api.Key == keyStopReplica && version == stopReplicaFixed {
		stopReplicaFromKafka(body)
	}
	req := kmsg.RequestForKey(api.Key)
	req.SetVersion(version)
	if unsafe, ok := req.(kmsg.UnsafeReadFrom); ok && api.Borrow {
		return req, unsafe.UnsafeReadFrom(body)
	}
	return req, req.ReadFrom(body)
}

// internClientID turns the client id into a string without allocating for the same one again.
func (c *Conn) internClientID(id []byte) string {
	if string(id) != c.in.clientID {
		c.in.clientID = string(id)
	}
	return c.in.clientID
}

func (c *Conn) refused(h header, err error) {
	if hooks := c.server.o.Hooks; hooks != nil {
		hooks.RequestRefused(c, h.key, h.version, err)
	}
}

// stopReading lets the reader end after the request that it is handling.
func (c *Conn) stopReading() {
	c.stopping.Store(true)
	_ = c.accepted.SetReadDeadline(time.Unix(1, 0))
	c.out.wakeReader()
}

// initOut must be called before the connection is used.
func (c *Conn) initOut() {
	c.out.closed = make(chan struct{})
	c.out.mu.changed = sync.Cond{L: &c.out.mu}
}
