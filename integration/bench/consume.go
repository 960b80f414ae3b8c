package bench

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"time"
)

// fetchBytes is max.partition.fetch.bytes.
const fetchBytes = 1 << 20

// consumer fetches one partition that holds nothing but copies of one batch.
type consumer struct {
	s         *socket
	request   []byte
	offsetAt  int
	errorAt   int
	recordsAt int
	batch     batch
	turn      int64 // start over at this offset; 0: wait for more at the end
	arrived   func(from, to int64, at time.Time)

	offset  int64
	seq     uint32
	stop    atomic.Bool
	fetched atomic.Int64 // payload bytes
}

func newConsumer(address, topic string, partition int32, b batch) (*consumer, error) {
	s, err := dial(address)
	if err != nil {
		return nil, err
	}
	c := &consumer{s: s, batch: b, errorAt: fetchErrorAt(topic), recordsAt: fetchRecordsAt(topic)}
	c.request, c.offsetAt = fetchFrame(topic, partition, fetchBytes)
	return c, nil
}

func (c *consumer) run() error {
	for !c.stop.Load() {
		if err := c.fetch(); err != nil {
			return err
		}
	}
	return nil
}

func (c *consumer) fetch() error {
	binary.BigEndian.PutUint32(c.request[correlationAt:], c.seq)
	binary.BigEndian.PutUint64(c.request[c.offsetAt:], uint64(c.offset))
	if err := c.s.write(c.request); err != nil {
		return err
	}
	if err := c.s.need(4); err != nil {
		return err
	}
	size := 4 + int(binary.BigEndian.Uint32(c.s.buf))
	head := min(size, c.recordsAt+binary.MaxVarintLen32)
	if err := c.s.need(head); err != nil {
		return err
	}
	length, err := c.recordsIn(c.s.buf[:head])
	if err != nil {
		return err
	}
	if err := c.s.skip(size); err != nil {
		return err
	}
	c.seq++
	whole := length / len(c.batch.bytes)
	from := c.offset
	c.offset += int64(whole) * int64(c.batch.records)
	c.fetched.Add(int64(length))
	if c.arrived != nil && whole > 0 {
		c.arrived(from, c.offset, time.Now())
	}
	if c.turn > 0 && c.offset >= c.turn {
		c.offset = 0
	}
	return nil
}

// recordsIn reads the length of the records from an answer's head.
func (c *consumer) recordsIn(head []byte) (int, error) {
	if got := binary.BigEndian.Uint32(head[4:]); got != c.seq {
		return 0, fmt.Errorf("answer %d came, %d was due", got, c.seq)
	}
	if len(head) < c.recordsAt {
		return 0, fmt.Errorf("fetch refused: answer of %d bytes", len(head))
	}
	if code := int16(binary.BigEndian.Uint16(head[c.errorAt:])); code != 0 {
		return 0, fmt.Errorf("fetch refused: error %d", code)
	}
	length, n := binary.Uvarint(head[c.recordsAt:])
	if n <= 0 || length == 0 {
		return 0, fmt.Errorf("no records' length in %x", head[c.recordsAt:])
	}
	return int(length) - 1, nil
}
