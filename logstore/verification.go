package logstore

import (
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Guard shows that an append of transactional records may begin a transaction in the log. The zero value demands nothing.
//
// Before a producer's first append in a transaction its coordinator is asked whether the partition belongs to the transaction. The
// answer can be late: the transaction may have ended meanwhile. So each question has a guard that is void as soon as any record of
// the transaction, or its marker, has been written. Source: KIP-890, part 1.
type Guard struct {
	Required bool // the append must be part of an open transaction, or hold a valid id
	id       uint64
}

var guardIDs atomic.Uint64

// verifications are the questions that are open, by producer id. The log's lock guards them.
type verifications map[int64]verification

type verification struct {
	id             uint64
	epoch          int16
	lowestSequence int32
	since          time.Time
}

// begin returns the guard of a producer's question, which may be open already.
func (v *verifications) begin(producer int64, epoch int16, sequence int32, now time.Time) Guard {
	if *v == nil {
		*v = verifications{}
	}
	open, ok := (*v)[producer]
	switch {
	case !ok:
		open = verification{id: guardIDs.Add(1), epoch: epoch, lowestSequence: sequence, since: now}
	case epoch > open.epoch:
		open.epoch, open.lowestSequence = epoch, sequence
	case epoch == open.epoch:
		open.lowestSequence = min(open.lowestSequence, sequence)
	}
	(*v)[producer] = open
	return Guard{Required: true, id: open.id}
}

// end is told of a producer's change that was written.
func (v verifications) end(c *producerChange) {
	if len(v) > 0 && c.transactional {
		delete(v, c.producerID)
	}
}

func (v verifications) expire(now time.Time, retention time.Duration) {
	for id, open := range v {
		if now.Sub(open.since) >= retention {
			delete(v, id)
		}
	}
}

// checkSequence refuses to begin with a batch whose predecessor is known to be on its way, too.
func (v verifications) checkSequence(b Batch, origin Origin) error {
	open, ok := v[b.ProducerID()]
	if ok && origin == OriginClient && b.BaseSequence() > open.lowestSequence {
		return verdict(kerr.OutOfOrderSequenceNumber, b, "sequence is %d, %d was seen before", b.BaseSequence(), open.lowestSequence)
	}
	return nil
}

// inTransaction reports whether a producer has a transaction open in this log, in this epoch.
func (s *ProducerState) inTransaction(producer int64, epoch int16) bool {
	e, ok := s.producers[producer]
	return ok && e.txnFirstOffset >= 0 && e.epoch == epoch
}

func (s *ProducerState) checkVerified(b Batch, origin Origin, g Guard) error {
	if !g.Required || origin == OriginReplication || !b.IsTransactional() || b.IsControl() || s.inTransaction(b.ProducerID(), b.ProducerEpoch()) {
		return nil
	}
	if open, ok := s.verifying[b.ProducerID()]; ok && open.id == g.id {
		return nil
	}
	return verdict(kerr.InvalidTxnState, b, "the records are not part of an ongoing transaction")
}

// Verify prepares an append of transactional records. needed: the coordinator must be asked whether the transaction holds this
// partition, before records are appended with the guard.
func (l *Log) Verify(producer int64, epoch int16, sequence int32) (g Guard, needed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.producers.inTransaction(producer, epoch) {
		return Guard{Required: true}, false
	}
	return l.mu.producers.verifying.begin(producer, epoch, sequence, l.owner.now()), true
}
