package wire

import (
	"errors"
	"io"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// errShortFile means that a file has become shorter than the length that was announced to the client: the answer cannot be
// completed, and the connection must end.
var errShortFile = errors.New("file ends before the announced records")

// rawConn gives non-blocking access to a TCP connection, nil for anything else.
func rawConn(nc net.Conn) syscall.RawConn {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		return nil
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// tryRead is one non-blocking read. It reports false when there is nothing yet and it may wait, and keeps no buffer then.
func (c *Conn) tryRead(fd uintptr) bool {
	q := &c.in.poll
	var fresh *[readBufferBytes]byte
	if q.into == nil {
		fresh = readBuffers.Get().(*[readBufferBytes]byte)
	}
	n, err := c.readOnce(int(fd), fresh)
	switch {
	case n > 0:
		q.n = n
		if fresh != nil {
			c.in.buf, c.in.start, c.in.end = fresh, 0, n
		}
		return true
	case err == nil:
		q.err = io.EOF
	case err != unix.EAGAIN:
		q.err = err
	case !q.wait:
		q.err = errNothingYet
	}
	if fresh != nil {
		readBuffers.Put(fresh)
	}
	return q.err != nil
}

func (c *Conn) readOnce(fd int, fresh *[readBufferBytes]byte) (n int, err error) {
	for {
		switch q := &c.in.poll; {
		case fresh != nil:
			n, err = unix.Read(fd, fresh[:c.in.freshBytes()])
		case len(q.into) == 1:
			n, err = unix.Read(fd, q.into[0])
		default:
			n, err = unix.Readv(fd, q.into)
		}
		if err != unix.EINTR {
			return n, err
		}
	}
}

// tryWrite writes of the current batch what the socket takes. It reports true when it is done, has failed, or must not wait.
func (c *Conn) tryWrite(fd uintptr) bool {
	b := &c.out.batch
	for {
		mem, file, ok := b.next()
		if !ok {
			return true
		}
		var n int
		var err error
		if len(mem) > 0 {
			n, err = send(int(fd), mem, b.inRanges())
		} else {
			n, err = sendFile(int(fd), file, b.filePos)
		}
		switch {
		case n > 0:
			b.advance(n)
			c.activity.Add(1)
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			b.full = true
			return !b.wait
		case err != nil:
			b.err = err
			return true
		case len(mem) == 0:
			b.err = errShortFile
			return true
		}
	}
}

// send writes bytes; more says that a file's bytes follow at once, so that the header does not leave alone.
func send(fd int, p []byte, more bool) (int, error) {
	if !more {
		return unix.Write(fd, p)
	}
	return unix.SendmsgN(fd, p, nil, nil, unix.MSG_MORE)
}

// sendFileMax is how much one sendfile call may take, so that one connection does not hold its thread for a whole answer.
const sendFileMax = 4 << 20

// sendFile sends of a range what follows pos (relative to the range), at an explicit offset: the descriptor is shared by all who
// read the segment. It never asks for bytes past the range.
func sendFile(fd int, r FileRange, pos int64) (int, error) {
	start, length := r.Range()
	f := r.File()
	if f == nil {
		return 0, errShortFile
	}
	off := start + pos
	return unix.Sendfile(fd, int(f.Fd()), &off, int(min(length-pos, sendFileMax)))
}

// userTimeout is how long bytes may stay unacknowledged before the system ends a connection between brokers: a peer that is cut off
// is noticed although nothing is refused.
const userTimeout = 30000 // ms

// tuneDialled prepares a socket between brokers.
func tuneDialled(_, _ string, raw syscall.RawConn) error {
	var set error
	if err := raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, userTimeout)
	}); err != nil {
		return err
	}
	return set
}
