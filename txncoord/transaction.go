package txncoord

import (
	"maps"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

const (
	noProducerID    = -1
	noProducerEpoch = -1
	noTimestamp     = -1
	// epochExhausted is the first epoch with which a producer id is not used any more: it leaves one for fencing.
	epochExhausted = math.MaxInt16 - 1
)

// Producer is a producer id with its epoch.
type Producer struct {
	ID    int64
	Epoch int16
}

// partitions are those that take part in a transaction. A set is not changed once it is in an image.
type partitions map[cluster.TopicPartition]struct{}

// image is what a record tells of a transactional id. It is a value.
type image struct {
	Producer
	previousID int64 // the producer id before this one; not in the records
	lastEpoch  int16 // the epoch before a bump that its producer asked for, else -1; not in the records
	timeoutMs  int32
	state      State
	partitions partitions
	startedMs  int64 // of the transaction, ms since 1970; -1: none
	updatedMs  int64
}

// transaction is one transactional id. PURE: requests become the next image, which counts once it is stored.
//
// Invariants: one image at most is on its way; epochs of a producer id never fall; partitions only in Ongoing and while ending.
type transaction struct {
	id  string
	now image
	// next is on its way to the log, nil when nothing is.
	next *image
	// fenceFailed: the epoch was raised to fence the producer, but that could not be stored. It was told to nobody, so the next
	// attempt takes the same.
	fenceFailed bool
}

func newTransaction(id string) *transaction {
	return &transaction{id: id, now: image{
		Producer: Producer{noProducerID, noProducerEpoch}, previousID: noProducerID, lastEpoch: noProducerEpoch,
		startedMs: noTimestamp, updatedMs: noTimestamp,
	}}
}

// unused reports whether nothing was ever stored under the id.
func (t *transaction) unused() bool { return t.now.ID == noProducerID }

// initVerdict is what is to be done for an InitProducerId.
type initVerdict struct {
	next    *image // to be stored; nil with one of the others
	err     error
	needsID bool // decide again with a fresh producer id
	fenced  bool // next aborts the open transaction: the client is to come again
}

// init decides InitProducerId. expected is what the producer believes itself to be, nil when it begins anew (KIP-360). fresh is a
// producer id that nobody has, or -1.
func (t *transaction) init(expected *Producer, timeoutMs int32, fresh int64, now time.Time) initVerdict {
	switch {
	case t.next != nil || t.now.state.ending() || t.now.state == Dead:
		return initVerdict{err: kerr.ConcurrentTransactions}
	case expected != nil && !t.mayBe(*expected):
		return initVerdict{err: kerr.ProducerFenced}
	case t.now.state == Ongoing:
		return initVerdict{next: t.fence(now), fenced: true}
	}
	next := image{
		Producer: t.now.Producer, previousID: t.now.ID, lastEpoch: noProducerEpoch, timeoutMs: timeoutMs, state: Empty,
		startedMs: noTimestamp, updatedMs: now.UnixMilli(),
	}
	switch {
	case expected != nil && !t.unused() && expected.Epoch == t.now.lastEpoch:
		next.previousID, next.lastEpoch = t.now.previousID, t.now.lastEpoch // it asks again for what it was given
	case expected != nil && !t.unused() && *expected != t.now.Producer:
		return initVerdict{err: kerr.ProducerFenced}
	case t.unused() || t.now.Epoch >= epochExhausted:
		if fresh == noProducerID {
			return initVerdict{needsID: true}
		}
		next.Producer = Producer{fresh, 0}
		if expected != nil {
			next.lastEpoch = t.now.Epoch
		}
	default:
		next.Epoch++
		if expected != nil {
			next.lastEpoch = t.now.Epoch
		}
	}
	t.next = &next
	return initVerdict{next: t.next}
}

// mayBe reports whether a producer may be this one, or one that did not hear of its new id.
func (t *transaction) mayBe(p Producer) bool {
	switch {
	case t.unused():
		return true // nothing is known of it: it goes on after its id was forgotten
	case p.ID == t.now.ID:
		return t.now.state != Ongoing || p.Epoch >= t.now.Epoch // a former one does not end what its successor has begun
	}
	return p.ID == t.now.previousID && p.Epoch >= epochExhausted
}

// fence aborts the open transaction and raises the epoch: its producer is told when it comes again. Source: KIP-588.
func (t *transaction) fence(now time.Time) *image {
	if !t.fenceFailed && t.now.Epoch < math.MaxInt16 {
		t.now.Epoch++
	}
	t.now.lastEpoch = noProducerEpoch
	t.fenceFailed = true // until it is stored
	next := t.now
	next.state, next.updatedMs = PrepareAbort, now.UnixMilli()
	t.next = &next
	return t.next
}

// timedOut reports whether the open transaction has to be aborted.
func (t *transaction) timedOut(now time.Time) bool {
	return t.next == nil && t.now.state == Ongoing && t.now.startedMs+int64(t.now.timeoutMs) < now.UnixMilli()
}

// check judges what an open transaction's requests have in common.
func (t *transaction) check(p Producer) error {
	switch {
	case t.unused() || t.now.state == Dead || t.now.ID != p.ID:
		return kerr.InvalidProducerIDMapping
	case t.now.Epoch != p.Epoch:
		return kerr.ProducerFenced
	}
	return nil
}

// add lets partitions take part. A nil image without error: they do already.
func (t *transaction) add(p Producer, tps []cluster.TopicPartition, now time.Time) (*image, error) {
	if err := t.check(p); err != nil {
		return nil, err
	}
	if t.next != nil || t.now.state.ending() {
		return nil, kerr.ConcurrentTransactions
	}
	if t.now.state == Ongoing && t.now.holds(tps) {
		return nil, nil
	}
	next := t.now
	next.state, next.updatedMs = Ongoing, now.UnixMilli()
	if t.now.state != Ongoing {
		next.startedMs = next.updatedMs
	}
	next.partitions = maps.Clone(t.now.partitions)
	if next.partitions == nil {
		next.partitions = partitions{}
	}
	for _, tp := range tps {
		next.partitions[tp] = struct{}{}
	}
	t.next = &next
	return t.next, nil
}

func (i *image) holds(tps []cluster.TopicPartition) bool {
	for _, tp := range tps {
		if _, ok := i.partitions[tp]; !ok {
			return false
		}
	}
	return true
}

// verify tells of each partition whether it takes part, for the leaders that are about to take its first records.
func (t *transaction) verify(p Producer, tps []cluster.TopicPartition) ([]error, error) {
	if err := t.check(p); err != nil {
		return nil, err
	}
	if t.now.state.ending() {
		return nil, kerr.ConcurrentTransactions
	}
	each := make([]error, len(tps))
	for i, tp := range tps {
		if _, ok := t.now.partitions[tp]; !ok {
			each[i] = kerr.TransactionAbortable
		}
	}
	return each, nil
}

// end decides how the transaction ends. A nil image without error: it has ended so already.
func (t *transaction) end(p Producer, commit bool, now time.Time) (*image, error) {
	if err := t.check(p); err != nil {
		return nil, err
	}
	switch {
	case t.next != nil || t.now.state.ending():
		return nil, kerr.ConcurrentTransactions
	case t.now.state == prepared(commit).completed():
		return nil, nil
	case t.now.state != Ongoing:
		return nil, kerr.InvalidTxnState
	}
	next := t.now
	next.state, next.updatedMs = prepared(commit), now.UnixMilli()
	t.next = &next
	return t.next, nil
}

// complete ends the transaction once every partition has its marker.
func (t *transaction) complete(now time.Time) *image {
	next := t.now
	next.state, next.partitions, next.updatedMs = t.now.state.completed(), nil, now.UnixMilli()
	t.next = &next
	return t.next
}

// expire forgets an id that was idle for too long. nil: not yet.
func (t *transaction) expire(now time.Time, after time.Duration) *image {
	if t.next != nil || !t.now.state.idle() || t.unused() || now.UnixMilli()-t.now.updatedMs < after.Milliseconds() {
		return nil
	}
	next := t.now
	next.state, next.partitions = Dead, nil
	t.next = &next
	return t.next
}

// stored tells what became of the image on its way.
func (t *transaction) stored(err error) {
	next := t.next
	t.next = nil
	if err != nil {
		return
	}
	t.now = *next
	t.fenceFailed = false
}
