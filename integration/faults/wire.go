package faults

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// wireConn is a bare connection to a broker: requests are written at once, whatever is outstanding, and each answer is handed to
// the function that was given with its request. When the connection ends, all that are outstanding are called with an error.
type wireConn struct {
	conn net.Conn
	mu   struct {
		sync.Mutex
		pending []pendingAnswer // in the order of their requests
		next    int32
		err     error // set once the connection is over
	}
}

type pendingAnswer struct {
	correlation int32
	request     kmsg.Request
	done        func(kmsg.Response, error)
}

const outstandingMax = 1000

func dialWire(address string) (*wireConn, error) {
	conn, err := net.DialTimeout("tcp", address, 500*time.Millisecond)
	if err != nil {
		return nil, err
	}
	c := &wireConn{conn: conn}
	go c.readLoop() // ends with the connection
	return c, nil
}

// send writes a request. sent says whether any byte of it may have left; if not, done is not called.
func (c *wireConn) send(req kmsg.Request, done func(kmsg.Response, error)) (sent bool) {
	c.mu.Lock()
	if c.mu.err != nil || len(c.mu.pending) >= outstandingMax {
		c.mu.Unlock()
		return false
	}
	c.mu.next++
	frame := kmsg.NewRequestFormatter(kmsg.FormatterClientID("ottla-faults")).AppendRequest(nil, req, c.mu.next)
	c.mu.pending = append(c.mu.pending, pendingAnswer{c.mu.next, req, done})
	// Under the lock, so that the order of the requests is that of pending. The deadline bounds it.
	_ = c.conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	_, err := c.conn.Write(frame)
	c.mu.Unlock()
	if err != nil {
		c.end(err)
	}
	return true
}

func (c *wireConn) readLoop() {
	var head [8]byte
	for {
		if _, err := io.ReadFull(c.conn, head[:]); err != nil {
			c.end(err)
			return
		}
		body := make([]byte, max(0, int(binary.BigEndian.Uint32(head[:]))-4))
		if _, err := io.ReadFull(c.conn, body); err != nil {
			c.end(err)
			return
		}
		if err := c.answer(int32(binary.BigEndian.Uint32(head[4:])), body); err != nil {
			c.end(err)
			return
		}
	}
}

func (c *wireConn) answer(correlation int32, body []byte) error {
	c.mu.Lock()
	if len(c.mu.pending) == 0 || c.mu.pending[0].correlation != correlation {
		c.mu.Unlock()
		return fmt.Errorf("an answer with correlation id %d is not due", correlation)
	}
	p := c.mu.pending[0]
	c.mu.pending = c.mu.pending[1:]
	c.mu.Unlock()
	resp := p.request.ResponseKind()
	resp.SetVersion(p.request.GetVersion())
	if resp.IsFlexible() && len(body) > 0 {
		body = body[1:] // no tagged fields in the header
	}
	if err := resp.ReadFrom(body); err != nil {
		p.done(nil, err)
		return err
	}
	p.done(resp, nil)
	return nil
}

func (c *wireConn) end(err error) {
	c.mu.Lock()
	if c.mu.err == nil {
		c.mu.err = err
	}
	pending := c.mu.pending
	c.mu.pending = nil
	c.mu.Unlock()
	_ = c.conn.Close()
	for _, p := range pending {
		p.done(nil, err)
	}
}

func (c *wireConn) over() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.err != nil
}

// ask sends a request and waits for its answer.
func (c *wireConn) ask(req kmsg.Request, patience time.Duration) (kmsg.Response, error) {
	type result struct {
		resp kmsg.Response
		err  error
	}
	done := make(chan result, 1)
	if !c.send(req, func(resp kmsg.Response, err error) { done <- result{resp, err} }) {
		return nil, io.ErrClosedPipe
	}
	select {
	case r := <-done:
		return r.resp, r.err
	case <-time.After(patience):
		c.end(fmt.Errorf("no answer within %v", patience))
		r := <-done
		return r.resp, r.err
	}
}

// oneRecord is a batch of one record with a value, of no producer id.
func oneRecord(value []byte) []byte {
	record := kmsg.Record{Value: value}
	record.Length = int32(len(record.AppendTo(nil)) - 1) // without the length itself, which is one byte while it is 0
	now := time.Now().UnixMilli()
	batch := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2, FirstTimestamp: now, MaxTimestamp: now, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1,
		NumRecords: 1, Records: record.AppendTo(nil),
	}
	raw := batch.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	return raw
}
