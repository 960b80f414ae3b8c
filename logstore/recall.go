package logstore

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
)

// A snapshot of the producers keeps only the last batch of each, so after a restart, or after a truncation, the state does not know
// the four before it. A client that had five of them under way repeats them all; refused as out of order, it would begin a new epoch
// and write them twice. So before a batch is refused it is looked for in the log, shortly before the oldest batch that is known.
//
// Kafka 3.9 refuses them, and the records are doubled.

const (
	recallBytes    = 1 << 20 // of one read
	recallBytesMax = 8 << 20 // of all reads for one batch
	recallSequence = 1 << 24 // how far back a sequence may lie that is a repetition and not nonsense
)

// recallLocked finds a batch that the producers' state has refused because it forgot it.
func (l *Log) recallLocked(refusal error, batches []byte) (d DuplicateBatch, found bool) {
	if !errors.Is(refusal, kerr.OutOfOrderSequenceNumber) {
		return d, false
	}
	b, rest, err := NextBatch(batches)
	if err != nil || len(rest) > 0 {
		return d, false
	}
	before, ok := l.mu.producers.forgotten(b)
	if !ok {
		return d, false
	}
	start := l.LogStartOffset()
	for _, back := range []int64{500, 5_000, 50_000} {
		from := max(before-back, start)
		if d, found = l.findBatch(b, from, before); found || from == start {
			return d, found
		}
	}
	return d, false
}

// forgotten reports whether b may be an earlier batch of its producer than those that are known, and where the oldest of them is.
func (s *ProducerState) forgotten(b Batch) (before int64, ok bool) {
	e := s.producers[b.ProducerID()]
	if e == nil || e.epoch != b.ProducerEpoch() || e.count == 0 || e.count == cachedBatches || b.IsControl() {
		return 0, false
	}
	oldest := e.batches[0]
	behind := subSequence(oldest.firstSequence(), b.LastSequence())
	return oldest.lastOffset - int64(oldest.offsetDelta), behind > 0 && behind < recallSequence
}

// findBatch looks for a batch of the same producer, epoch and sequences between two offsets.
func (l *Log) findBatch(b Batch, from, before int64) (d DuplicateBatch, found bool) {
	for read := 0; from < before && read < recallBytesMax; {
		slice, err := l.Read(from, recallBytes, before, true)
		if err != nil || slice.Empty() {
			return d, false
		}
		body := make([]byte, slice.Len)
		_, err = slice.ReadAt(body, 0)
		slice.Release()
		if err != nil {
			return d, false
		}
		read += len(body)
		for len(body) > 0 {
			c, rest, err := NextBatch(body)
			if err != nil {
				break
			}
			body, from = rest, c.LastOffset()+1
			if c.HasProducerID() && c.ProducerID() == b.ProducerID() && c.ProducerEpoch() == b.ProducerEpoch() &&
				c.BaseSequence() == b.BaseSequence() && c.LastSequence() == b.LastSequence() {
				return DuplicateBatch{FirstOffset: c.BaseOffset(), LastOffset: c.LastOffset(), Timestamp: c.MaxTimestamp()}, true
			}
		}
	}
	return d, false
}
