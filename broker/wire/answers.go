package wire

import (
	"io"
	"net"
	"sync"
	"time"
)

// Answers leave in the order of the requests. Each connection keeps the queue of its requests; an answer that is complete waits
// there until it is at the head. Whoever makes the head complete takes all that is ready and writes it, without blocking; what
// the socket does not take is left to a writer goroutine that lives until the queue's ready part is written.
//
// The reader may cork the queue: while it has further complete requests in its buffer, answers collect, and the reader lets them
// out with one write. Where the connection has no non-blocking interface (TLS, pipes) the queue is corked during each handler: the
// reader writes, blocking; those who complete answers later leave the writing to a writer goroutine.

// writer is the answering side of a connection.
type writer struct {
	closed chan struct{}         // closed with the connection
	step   func(fd uintptr) bool // tryWrite as a value, made once
	batch  batch                 // belongs to whoever has set mu.writing

	mu struct {
		sync.Mutex
		changed sync.Cond // for the reader: something that it waits for may have happened

		head, tail  *Request // in the order of their arrival; taken off when written
		pending     int      // requests not yet answered and written
		unsent      int      // bytes of answers not yet written
		corked      bool
		writing     bool // somebody writes, and will look at the queue again before leaving
		readerWaits bool
		mutedUntil  time.Time
		isClosed    bool
	}
}

func (w *writer) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.isClosed
}

func (w *writer) wakeReader() {
	w.mu.Lock()
	w.mu.changed.Broadcast()
	w.mu.Unlock()
}

// enqueue gives a request its place. cork holds answers back until the reader lets them out.
func (c *Conn) enqueue(r *Request, cork bool) {
	m := &c.out.mu
	m.Lock()
	if m.tail == nil {
		m.head = r
	} else {
		m.tail.next = r
	}
	m.tail = r
	m.pending++
	m.corked = m.corked || cork
	m.Unlock()
}

// answered takes a request's answer, and writes if that is what the queue was waiting for.
func (c *Conn) answered(r *Request, a answer) {
	m := &c.out.mu
	m.Lock()
	r.answer, r.done = a, true
	m.unsent += a.bytes
	if r.mute > 0 {
		c.muteLocked(r.mute)
	}
	if m.readerWaits {
		m.changed.Broadcast()
	}
	if m.isClosed {
		m.Unlock()
		a.release()
		return
	}
	if m.writing || m.head != r || (m.corked && m.unsent < burstBytes) {
		m.Unlock()
		return
	}
	c.flushLocked(c.raw == nil && !m.corked)
}

func (c *Conn) muteLocked(d time.Duration) {
	m := &c.out.mu
	until := time.Now().Add(d)
	if until.After(m.mutedUntil) {
		m.mutedUntil = until
		time.AfterFunc(d, c.out.wakeReader)
	}
}

// uncork lets answers out. Only the reader calls it.
func (c *Conn) uncork() {
	m := &c.out.mu
	m.Lock()
	if !c.uncorkLocked() {
		m.Unlock()
	}
}

// uncorkLocked reports whether it has written; the lock is given back then.
func (c *Conn) uncorkLocked() bool {
	m := &c.out.mu
	if !m.corked {
		return false
	}
	m.corked = false
	if m.writing || m.isClosed || m.head == nil || !m.head.done {
		return false
	}
	c.flushLocked(false)
	return true
}

// waitForRoom holds the reader while too many requests or answers wait, and while the connection is muted.
func (c *Conn) waitForRoom(letOut bool) error {
	m := &c.out.mu
	m.Lock()
	for {
		room := m.pending < c.server.o.MaxPending && m.unsent <= c.server.o.MaxPendingBytes
		free := room && (m.mutedUntil.IsZero() || !time.Now().Before(m.mutedUntil))
		if (letOut || !free) && c.uncorkLocked() {
			m.Lock()
			continue
		}
		switch {
		case m.isClosed:
			m.Unlock()
			return net.ErrClosed
		case c.stopping.Load():
			m.Unlock()
			return errStopping
		case free:
			m.mutedUntil = time.Time{}
			m.Unlock()
			return nil
		}
		m.readerWaits = true
		m.changed.Wait()
		m.readerWaits = false
	}
}

// awaitAnswer holds the reader until a request has been answered.
func (c *Conn) awaitAnswer(r *Request) error {
	m := &c.out.mu
	m.Lock()
	for {
		switch {
		case r.done || m.isClosed:
			m.Unlock()
			return nil
		case c.stopping.Load():
			m.Unlock()
			return errStopping
		}
		if c.uncorkLocked() {
			m.Lock()
			continue
		}
		m.readerWaits = true
		m.changed.Wait()
		m.readerWaits = false
	}
}

// flushLocked writes what is ready at the head of the queue. Called with the lock held and nobody writing; the lock is given back.
// handOver leaves all writing to a writer goroutine.
func (c *Conn) flushLocked(handOver bool) {
	m := &c.out.mu
	for {
		first, bytes, count := c.takeReadyLocked()
		if first == nil {
			m.Unlock()
			return
		}
		if first.answer.close != nil {
			m.Unlock()
			c.close(first.answer.close)
			return
		}
		m.writing = true
		m.Unlock()
		c.out.batch.load(first, bytes, count)
		if !handOver {
			c.push(c.raw == nil)
		}
		if handOver || c.out.batch.full {
			if !c.server.spawn(c.writeLoop) {
				c.out.batch.release()
				c.close(errStopping)
			}
			return
		}
		if err := c.wrote(); err != nil {
			c.close(err)
			return
		}
		m.Lock()
		m.writing = false
		if m.isClosed {
			m.Unlock()
			return
		}
	}
}

// takeReadyLocked takes the answered requests off the head of the queue. A request that closes the connection is taken alone.
func (c *Conn) takeReadyLocked() (first *Request, bytes, count int) {
	m := &c.out.mu
	var last *Request
	for r := m.head; r != nil && r.done && (first == nil || r.answer.close == nil); r = r.next {
		if first == nil {
			first = r
		}
		last, bytes, count = r, bytes+r.answer.bytes, count+1
		if r.answer.close != nil {
			break
		}
	}
	if first == nil {
		return nil, 0, 0
	}
	m.head, last.next = last.next, nil
	if m.head == nil {
		m.tail = nil
	}
	return first, bytes, count
}

// wrote ends a batch: what it held is given back.
func (c *Conn) wrote() error {
	b := &c.out.batch
	bytes, count, err := b.bytes, b.count, b.err
	if h := c.server.o.Hooks; h != nil && err == nil {
		b.tellSent(h)
	}
	b.release()
	c.activity.Add(1)
	m := &c.out.mu
	m.Lock()
	m.pending -= count
	m.unsent -= bytes
	if m.readerWaits {
		m.changed.Broadcast()
	}
	m.Unlock()
	return err
}

// writeLoop is a writer goroutine: it writes the batch at hand and what becomes ready meanwhile, waiting for the socket.
func (c *Conn) writeLoop() {
	m := &c.out.mu
	for {
		c.push(true)
		if err := c.wrote(); err != nil {
			c.close(err)
			return
		}
		m.Lock()
		first, bytes, count := c.takeReadyLocked()
		if first == nil || m.isClosed {
			m.writing = false
			m.Unlock()
			for ; first != nil; first = first.next {
				first.answer.release()
			}
			return
		}
		m.Unlock()
		if err := first.answer.close; err != nil {
			c.close(err)
			return
		}
		c.out.batch.load(first, bytes, count)
	}
}

// push writes the batch, waiting for the socket or as far as it goes at once.
func (c *Conn) push(wait bool) {
	b := &c.out.batch
	b.full, b.wait = false, wait
	if c.raw == nil {
		b.err = c.pushBlocking()
		return
	}
	if err := c.raw.Write(c.out.step); err != nil && b.err == nil {
		b.err = err
	}
}

// copyBytes is the piece in which a file is copied to a connection that cannot take it from the descriptor.
const copyBytes = 64 << 10

func (c *Conn) pushBlocking() error {
	b := &c.out.batch
	for {
		mem, file, ok := b.next()
		if !ok {
			return nil
		}
		if len(mem) > 0 {
			n, err := c.nc.Write(mem)
			b.advance(n)
			if err != nil {
				return err
			}
			continue
		}
		if err := c.copyFile(file); err != nil {
			return err
		}
	}
}

func (c *Conn) copyFile(file FileRange) error {
	b := &c.out.batch
	_, length := file.Range()
	f := newFrame(int(min(length-b.filePos, copyBytes)))
	defer f.recycle()
	p := f.b[:min(int64(cap(f.b)), length-b.filePos)]
	n, err := file.ReadAt(p, b.filePos)
	if n == 0 {
		if err == nil || err == io.EOF {
			err = errShortFile
		}
		return err
	}
	n, err = c.nc.Write(p[:n])
	if n > 0 {
		b.advance(n)
	}
	c.activity.Add(1)
	return err
}

// batch is a chain of answers on their way out, and how far they have got.
type batch struct {
	first *Request // all of them, until released
	cur   *Request // the one being written
	bytes int
	count int

	memPos  int   // in cur's bytes
	piece   int   // next of cur's file ranges
	filePos int64 // in that range
	wait    bool  // wait for the socket
	full    bool  // the socket took no more
	err     error
}

// coalesceBytes bounds what is copied together to go out in one write.
const coalesceBytes = 64 << 10

// load prepares a batch. Small answers without file ranges are copied behind the first one.
func (b *batch) load(first *Request, bytes, count int) {
	*b = batch{first: first, cur: first, bytes: bytes, count: count}
	for r := first; r != nil; r = r.next {
		a := &r.answer
		if a.mem == nil {
			continue
		}
		for n := r.next; n != nil && a.ranges == nil; n = r.next {
			if n.answer.mem == nil {
				r.next = n.next
				continue
			}
			if n.answer.ranges != nil || len(a.mem.b)+len(n.answer.mem.b) > coalesceBytes {
				break
			}
			a.mem.b = append(a.mem.b, n.answer.mem.b...)
			n.answer.release()
			r.next = n.next
			n.joined, r.joined = r.joined, n
		}
	}
	b.skipEmpty()
}

func (b *batch) skipEmpty() {
	for b.cur != nil && b.cur.answer.mem == nil {
		b.cur = b.cur.next
	}
}

// next is the piece to write now: bytes, or the rest of a file range from filePos on.
func (b *batch) next() (mem []byte, file FileRange, ok bool) {
	if b.cur == nil {
		return nil, nil, false
	}
	a := &b.cur.answer
	end := len(a.mem.b)
	if b.inRanges() {
		end = a.ranges.pieces[b.piece].at
	}
	if b.memPos < end {
		return a.mem.b[b.memPos:end], nil, true
	}
	return nil, a.ranges.pieces[b.piece].file, true
}

// inRanges reports whether a file range follows the bytes at hand.
func (b *batch) inRanges() bool {
	a := &b.cur.answer
	return a.ranges != nil && b.piece < len(a.ranges.pieces)
}

// advance notes that n bytes of the piece at hand were written.
func (b *batch) advance(n int) {
	a := &b.cur.answer
	switch {
	case b.inRanges() && b.memPos == a.ranges.pieces[b.piece].at:
		b.filePos += int64(n)
		if _, length := a.ranges.pieces[b.piece].file.Range(); b.filePos >= length {
			b.piece, b.filePos = b.piece+1, 0
		}
	default:
		b.memPos += n
	}
	if b.memPos == len(a.mem.b) && !b.inRanges() {
		b.cur, b.memPos, b.piece = b.cur.next, 0, 0
		b.skipEmpty()
	}
}

// tellSent tells the hooks of every answer that went out with this batch.
func (b *batch) tellSent(h Hooks) {
	now := time.Now()
	for head := b.first; head != nil; head = head.next {
		for r := head; r != nil; r = r.joined {
			if r.answer.bytes > 0 {
				h.AnswerSent(r, now.Sub(r.builtAt))
			}
		}
	}
}

func (b *batch) release() {
	for r := b.first; r != nil; r = r.next {
		r.answer.release()
	}
	*b = batch{}
}

// close ends the connection, once.
func (c *Conn) close(reason error) {
	m := &c.out.mu
	m.Lock()
	if m.isClosed {
		m.Unlock()
		return
	}
	m.isClosed = true
	close(c.out.closed)
	queue := m.head
	for r := queue; r != nil; r = r.next {
		if r.done {
			r.answer.release()
		}
	}
	m.head, m.tail = nil, nil
	m.changed.Broadcast()
	m.Unlock()
	_ = c.accepted.Close()
	c.server.remove(c, reason)
}
