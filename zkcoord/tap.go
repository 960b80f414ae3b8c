package zkcoord

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// tap is the net.Conn under the client library. It sees whole frames in both directions, which gives what the library lacks:
//
//   - a handshake that cannot eat the session: the library allows it ten times its receive timeout, the tap until handshakeEnd;
//   - frames that are checked before the library allocates and slices by the length they claim;
//   - requests of our own (multiRead, reads with a watch) on the same connection, and so in the same session and in order with the
//     library's requests. They carry xids that the library never uses; their answers go to the caller of call, and the library
//     sees only their header, so that it knows the newest transaction when it reconnects.
//
// A frame is int32 length, then the payload. Requests start with int32 xid, int32 opcode; answers with int32 xid, int64 zxid,
// int32 error; the first pair, connect request and answer, has no such header.
type tap struct {
	net.Conn
	r            *bufio.Reader // only the library's reader uses it, and head and body
	head         []byte        // bytes to hand out before the rest of the frame
	body         int           // bytes of the current frame that are still unread
	scratch      [handshakeMax + 4]byte
	handshakeEnd time.Time
	established  atomic.Bool
	onHandshake  func(handshake)

	mu struct {
		sync.Mutex
		closed  bool
		lastXid int32
		calls   map[int32]chan answer
	}
	writing sync.Mutex // one frame at a time
}

// handshake is the server's answer to the connect request. A session id of 0 means: expired.
type handshake struct {
	timeout   time.Duration
	sessionID int64
}

// answer is the server's answer to a request of our own.
type answer struct {
	code int32
	body []byte
	err  error
}

const (
	handshakeMin = 16      // protocol version, timeout, session id
	handshakeMax = 1024    // 37 bytes in fact
	headerBytes  = 16      // xid, zxid, error
	frameMax     = 1 << 28 // the largest answer that is taken in: listings of millions of children
	firstOwnXid  = -1001   // and downwards. -1 … -9 are ZooKeeper's own, the library counts from 1 upwards
	unknownXid   = 0       // never outstanding in the library
)

var (
	errTapClosed = errors.New("connection closed")
	errTooLarge  = fmt.Errorf("%w: answer larger than %d bytes", ErrInvalid, frameMax)
)

func newTap(conn net.Conn, handshakeEnd time.Time, onHandshake func(handshake)) *tap {
	t := &tap{Conn: conn, r: bufio.NewReaderSize(conn, 64<<10), handshakeEnd: handshakeEnd, onHandshake: onHandshake}
	t.mu.lastXid = firstOwnXid
	t.mu.calls = make(map[int32]chan answer)
	return t
}

// Read hands the library its frames.
func (t *tap) Read(p []byte) (int, error) {
	for {
		if len(t.head) > 0 {
			n := copy(p, t.head)
			t.head = t.head[n:]
			return n, nil
		}
		if t.body > 0 {
			n, err := t.r.Read(p[:min(len(p), t.body)])
			t.body -= n
			return n, err
		}
		if err := t.nextFrame(); err != nil {
			return 0, err
		}
	}
}

func (t *tap) nextFrame() error {
	if _, err := io.ReadFull(t.r, t.scratch[:4]); err != nil {
		return err
	}
	length := int64(binary.BigEndian.Uint32(t.scratch[:4]))
	if !t.established.Load() {
		return t.takeHandshake(length)
	}
	if length < headerBytes {
		return fmt.Errorf("%w: a frame of %d bytes from the server", ErrInvalid, length)
	}
	if _, err := io.ReadFull(t.r, t.scratch[4:4+headerBytes]); err != nil {
		return err
	}
	xid := int32(binary.BigEndian.Uint32(t.scratch[4:]))
	if xid <= firstOwnXid {
		return t.takeAnswer(xid, length-headerBytes)
	}
	if length > frameMax {
		return errTooLarge
	}
	t.head, t.body = t.scratch[:4+headerBytes], int(length)-headerBytes
	return nil
}

func (t *tap) takeHandshake(length int64) error {
	if length < handshakeMin || length > handshakeMax {
		return fmt.Errorf("%w: this is no ZooKeeper server: a handshake of %d bytes", ErrInvalid, length)
	}
	frame := t.scratch[:4+length]
	if _, err := io.ReadFull(t.r, frame[4:]); err != nil {
		return err
	}
	h := handshake{
		timeout:   time.Duration(int32(binary.BigEndian.Uint32(frame[8:]))) * time.Millisecond,
		sessionID: int64(binary.BigEndian.Uint64(frame[12:])),
	}
	if err := checkHandshake(frame[4:], h); err != nil {
		return err
	}
	t.onHandshake(h)
	t.established.Store(true)
	t.head = frame
	return nil
}

// checkHandshake keeps the library from slicing beyond the frame, and from a timeout that its timers cannot bear.
func checkHandshake(payload []byte, h handshake) error {
	if h.sessionID != 0 && h.timeout < 6*time.Millisecond {
		return fmt.Errorf("%w: the server grants a session timeout of %v", ErrInvalid, h.timeout)
	}
	if len(payload) < handshakeMin+4 {
		return fmt.Errorf("%w: a handshake without password", ErrInvalid)
	}
	if n := int32(binary.BigEndian.Uint32(payload[handshakeMin:])); n < 0 || int(n) > len(payload)-handshakeMin-4 {
		return fmt.Errorf("%w: a handshake with a password of %d bytes", ErrInvalid, n)
	}
	return nil
}

// takeAnswer takes the answer to a request of our own off the stream, and leaves its header, under an xid that means nothing to
// the library.
func (t *tap) takeAnswer(xid int32, length int64) error {
	a := answer{code: int32(binary.BigEndian.Uint32(t.scratch[16:]))}
	if length > frameMax {
		a.err = errTooLarge
		if _, err := io.CopyN(io.Discard, t.r, length); err != nil {
			return err
		}
	} else {
		a.body = make([]byte, length)
		if _, err := io.ReadFull(t.r, a.body); err != nil {
			return err
		}
	}
	t.mu.Lock()
	ch := t.mu.calls[xid]
	delete(t.mu.calls, xid)
	t.mu.Unlock()
	if ch != nil {
		ch <- a // has room
	}
	binary.BigEndian.PutUint32(t.scratch[:], headerBytes)
	binary.BigEndian.PutUint32(t.scratch[4:], unknownXid)
	t.head = t.scratch[:4+headerBytes]
	return nil
}

// Write sends the library's frames; it gives one at a time. The library hands the error to the request's caller as it is, so it
// says here what it means: the frame may have reached the server.
func (t *tap) Write(p []byte) (int, error) {
	t.writing.Lock()
	defer t.writing.Unlock()
	n, err := t.Conn.Write(p)
	if err != nil {
		err = fmt.Errorf("%w: %w", ErrConnectionLost, err)
	}
	return n, err
}

// call sends a request of our own and waits for its answer. The error is errTapClosed when the connection goes first.
func (t *tap) call(opcode int32, payload []byte) answer {
	ch := make(chan answer, 1)
	t.mu.Lock()
	if t.mu.closed || !t.established.Load() {
		t.mu.Unlock()
		return answer{err: errTapClosed}
	}
	t.mu.lastXid--
	if t.mu.lastXid > firstOwnXid {
		t.mu.lastXid = firstOwnXid // wrapped around
	}
	xid := t.mu.lastXid
	t.mu.calls[xid] = ch
	t.mu.Unlock()

	frame := make([]byte, 12, 12+len(payload))
	binary.BigEndian.PutUint32(frame, uint32(8+len(payload)))
	binary.BigEndian.PutUint32(frame[4:], uint32(xid))
	binary.BigEndian.PutUint32(frame[8:], uint32(opcode))
	if _, err := t.Write(append(frame, payload...)); err != nil {
		_ = t.Close()
	}
	return <-ch // Close answers what the server does not
}

// Close closes the connection and fails the calls that are under way.
func (t *tap) Close() error {
	t.mu.Lock()
	t.mu.closed = true
	calls := t.mu.calls
	t.mu.calls = nil
	t.mu.Unlock()
	for _, ch := range calls {
		ch <- answer{err: errTapClosed}
	}
	return t.Conn.Close()
}

// SetReadDeadline, SetWriteDeadline and SetDeadline obey the library, but not beyond the end of the handshake while that lasts.
func (t *tap) SetReadDeadline(d time.Time) error  { return t.Conn.SetReadDeadline(t.bounded(d)) }
func (t *tap) SetWriteDeadline(d time.Time) error { return t.Conn.SetWriteDeadline(t.bounded(d)) }
func (t *tap) SetDeadline(d time.Time) error      { return t.Conn.SetDeadline(t.bounded(d)) }

func (t *tap) bounded(d time.Time) time.Time {
	if !t.established.Load() && (d.IsZero() || d.After(t.handshakeEnd)) {
		return t.handshakeEnd
	}
	return d
}
