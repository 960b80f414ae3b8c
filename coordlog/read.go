package coordlog

import (
	"errors"
	"io"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/logstore"
)

var errNoLog = errors.New("the partition has no log that can be read")

// Read gives each batch of the shard's partition to fn, from the log's start to the end that it had when this began (later records
// are this broker's own), some bytes at a time. It ends early when the shard is closed. Batches are valid during fn only.
func (s *Shard) Read(bytes int, fn func(logstore.Batch) error) error {
	next, end := s.led.Load().Bounds()
	s.end = end
	if end < 0 {
		return errNoLog
	}
	var buf []byte
	for next < end && !s.Closed() {
		data, err := s.led.Load().Read(next, bytes, buf)
		if errors.Is(err, kerr.OffsetOutOfRange) { // the log's start moved
			if start, _ := s.led.Load().Bounds(); start > next {
				next = start
				continue
			}
		}
		if err != nil {
			return err
		}
		if len(data) == 0 { // compaction has left nothing between here and the end
			return nil
		}
		buf = data
		if next, err = eachBatch(data, next, fn); err != nil {
			return err
		}
	}
	return nil
}

// committedPoll is how often WaitCommitted looks.
const committedPoll = 5 * time.Millisecond

// WaitCommitted waits until what Read has read is in all in-sync replicas, or the shard is closed. Before that, what somebody has
// been told of could be gone with this broker. Nothing could be written meanwhile either.
func (s *Shard) WaitCommitted() {
	for s.led.Load().Committed() < s.end && s.Loading() {
		time.Sleep(committedPoll)
	}
}

// eachBatch takes a chunk and returns the offset after its last whole batch.
func eachBatch(data []byte, next int64, fn func(logstore.Batch) error) (int64, error) {
	from := next
	for {
		b, rest, err := logstore.NextBatch(data)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			if next == from {
				return next, io.ErrUnexpectedEOF // not even one batch
			}
			return next, nil
		}
		if err != nil {
			return next, err
		}
		if err := fn(b); err != nil {
			return next, err
		}
		next, data = b.NextOffset(), rest
	}
}
