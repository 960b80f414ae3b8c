package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"golang.org/x/sys/unix"
)

// socket is a blocking TCP connection: a thread that waits in the kernel is woken by it, without the runtime's poller between.
type socket struct {
	fd   int
	buf  []byte
	have int // bytes in buf
}

// socketPatience bounds each read and write, so that a broker that hangs ends a round.
var socketPatience = unix.Timeval{Sec: 30}

func dial(address string) (*socket, error) {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	s := &socket{fd: fd, buf: make([]byte, 64<<10)}
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &socketPatience),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &socketPatience),
		unix.Connect(fd, &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}),
	)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return s, nil
}

func (s *socket) close() { _ = unix.Close(s.fd) }

// shutdown ends both directions: whoever reads or writes comes back.
func (s *socket) shutdown() { _ = unix.Shutdown(s.fd, unix.SHUT_RDWR) }

func (s *socket) write(p []byte) error {
	for len(p) > 0 {
		n, err := unix.Write(s.fd, p)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("write: %w", err)
		}
		p = p[n:]
	}
	return nil
}

// fill reads once, until at least one byte has come.
func (s *socket) fill() error {
	for {
		n, err := unix.Read(s.fd, s.buf[s.have:])
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		s.have += n
		return nil
	}
}

// need reads until buf holds n bytes.
func (s *socket) need(n int) error {
	for s.have < n {
		if err := s.fill(); err != nil {
			return err
		}
	}
	return nil
}

// take drops the first n bytes of buf.
func (s *socket) take(n int) { s.have = copy(s.buf, s.buf[n:s.have]) }

// frames reads once and calls each with every whole answer, without its length. Answers must fit the buffer.
func (s *socket) frames(each func(answer []byte) error) error {
	if err := s.fill(); err != nil {
		return err
	}
	at := 0
	for s.have-at >= 4 {
		size := int(binary.BigEndian.Uint32(s.buf[at:]))
		if 4+size > len(s.buf) {
			return fmt.Errorf("answer of %d bytes", size)
		}
		if s.have-at < 4+size {
			break
		}
		if err := each(s.buf[at : at+4+size]); err != nil {
			return err
		}
		at += 4 + size
	}
	s.take(at)
	return nil
}

// skip drops n bytes: what is buffered, and the rest inside the kernel, uncopied.
func (s *socket) skip(n int) error {
	k := min(n, s.have)
	s.take(k)
	n -= k
	for n > 0 {
		got, _, err := unix.Recvfrom(s.fd, skipped[:min(n, len(skipped))], unix.MSG_TRUNC|unix.MSG_WAITALL)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return fmt.Errorf("read: %w", err)
		case got == 0:
			return io.ErrUnexpectedEOF
		}
		n -= got
	}
	return nil
}

// skipped is never written: it tells the kernel how much to drop.
var skipped = make([]byte, 4<<20)
