package logstore

import (
	"fmt"
	"math"
	"slices"
	"sort"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// cachedBatches is how many batches of a producer are remembered, to recognise retries. It equals what a producer may have
// in flight (max.in.flight.requests.per.connection of an idempotent producer).
const cachedBatches = 5

// batchMeta is what is remembered of one batch of a producer.
type batchMeta struct {
	lastSequence int32
	offsetDelta  int32 // last offset - first offset
	lastOffset   int64
	timestamp    int64
}

func (m batchMeta) firstSequence() int32 { return subSequence(m.lastSequence, m.offsetDelta) }

// producerEntry is one producer. It is a value: an update works on a copy.
type producerEntry struct {
	epoch            int16 // -1: not known
	count            int8  // used places of batches, oldest first; all of epoch
	batches          [cachedBatches]batchMeta
	coordinatorEpoch int32
	lastTimestamp    int64
	txnFirstOffset   int64 // -1: no open transaction
}

func newProducerEntry() producerEntry {
	return producerEntry{epoch: -1, coordinatorEpoch: -1, lastTimestamp: NoTimestamp, txnFirstOffset: -1}
}

func (e *producerEntry) last() (batchMeta, bool) {
	if e.count == 0 {
		return batchMeta{lastSequence: NoSequence, lastOffset: -1, timestamp: NoTimestamp}, false
	}
	return e.batches[e.count-1], true
}

// setEpoch takes a new epoch; batches of another epoch are forgotten.
func (e *producerEntry) setEpoch(epoch int16) {
	if e.epoch != epoch {
		e.epoch, e.count = epoch, 0
	}
}

func (e *producerEntry) push(m batchMeta) {
	if e.count == cachedBatches {
		copy(e.batches[:], e.batches[1:])
		e.count--
	}
	e.batches[e.count] = m
	e.count++
	e.lastTimestamp = m.timestamp
}

func (e *producerEntry) find(b Batch) (batchMeta, bool) {
	if b.ProducerEpoch() != e.epoch {
		return batchMeta{}, false
	}
	first, last := b.BaseSequence(), b.LastSequence()
	for _, m := range e.batches[:e.count] {
		if m.firstSequence() == first && m.lastSequence == last {
			return m, true
		}
	}
	return batchMeta{}, false
}

// txn is one transaction: open, or ended by a marker at or above the high watermark.
type txn struct {
	producerID  int64
	firstOffset int64
	lastOffset  int64 // of the marker; -1 while open
}

// ProducerState is what a partition knows of idempotent and transactional producers: how far their sequences came, and which
// transactions are open. It is pure: no I/O, no clock. It has no lock: the log's lock guards it. Source: KIP-98, KIP-360.
//
// Invariants: ongoing and unreplicated ascend by first offset; every entry with an open transaction has it in ongoing.
type ProducerState struct {
	producers    map[int64]*producerEntry
	ongoing      []txn
	unreplicated []txn // ended, marker not yet below the high watermark
	verifying    verifications
	mapEnd       int64
}

// NewProducerState returns an empty state whose map ends at offset 0.
func NewProducerState() *ProducerState {
	return &ProducerState{producers: map[int64]*producerEntry{}}
}

// Reset forgets everything and sets MapEnd.
func (s *ProducerState) Reset(mapEnd int64) {
	*s = ProducerState{producers: map[int64]*producerEntry{}, mapEnd: mapEnd}
}

// MapEnd is the offset up to which (exclusive) the state covers the log.
func (s *ProducerState) MapEnd() int64 { return s.mapEnd }

// SetMapEnd moves MapEnd, after appends.
func (s *ProducerState) SetMapEnd(offset int64) { s.mapEnd = offset }

// Len returns the number of known producers.
func (s *ProducerState) Len() int { return len(s.producers) }

// DuplicateBatch is where a retried batch already is in the log.
type DuplicateBatch struct {
	FirstOffset int64
	LastOffset  int64 // inclusive
	Timestamp   int64 // its max timestamp, ms since 1970
}

// ProducerUpdate collects what one append will change. It is reused: Prepare resets it. The zero value is usable.
type ProducerUpdate struct {
	IsDuplicate bool // the append is a retry of a batch that is in the log: nothing is to be written
	Duplicate   DuplicateBatch

	changes []producerChange
	opened  []txn // all that begin in the append, also those that end in it
	ended   []endedTxn
}

type producerChange struct {
	producerID    int64
	entry         producerEntry
	transactional bool
}

type endedTxn struct {
	txn
	aborted bool
}

func (u *ProducerUpdate) reset() {
	u.IsDuplicate, u.Duplicate = false, DuplicateBatch{}
	u.changes, u.opened, u.ended = u.changes[:0], u.opened[:0], u.ended[:0]
}

// change returns the pending change of a producer, beginning with what is known.
func (u *ProducerUpdate) change(s *ProducerState, producerID int64) *producerChange {
	for i := range u.changes {
		if u.changes[i].producerID == producerID {
			return &u.changes[i]
		}
	}
	entry := newProducerEntry()
	if known, ok := s.producers[producerID]; ok {
		entry = *known
	}
	u.changes = append(u.changes, producerChange{producerID: producerID, entry: entry})
	return &u.changes[len(u.changes)-1]
}

// Prepare checks whole batches whose offsets are assigned and computes the change; nothing is changed before Commit.
// Batches without producer id cost nothing.
//
// Verdicts, with the facts in the text: INVALID_PRODUCER_EPOCH (an older epoch than known), OUT_OF_ORDER_SEQUENCE_NUMBER,
// INVALID_TXN_STATE (a plain batch inside of the producer's transaction), TRANSACTION_COORDINATOR_FENCED. What is replicated
// is never refused, as the leader has decided; only corrupt markers are (ErrCorrupt).
func (s *ProducerState) Prepare(u *ProducerUpdate, batches []byte, origin Origin) error {
	return s.PrepareGuarded(u, batches, origin, Guard{})
}

// PrepareGuarded is Prepare for an append that must show that its transaction was verified: INVALID_TXN_STATE when neither the
// transaction is open in this log nor the guard is the one that was given out for it.
func (s *ProducerState) PrepareGuarded(u *ProducerUpdate, batches []byte, origin Origin, g Guard) error {
	u.reset()
	for len(batches) > 0 {
		b, rest, err := NextBatch(batches)
		if err != nil {
			return err
		}
		batches = rest
		if !b.HasProducerID() {
			continue
		}
		if origin == OriginClient && s.isDuplicate(u, b) {
			return nil
		}
		if err := s.checkVerified(b, origin, g); err != nil {
			return err
		}
		if err := s.prepareBatch(u, b, origin); err != nil {
			return err
		}
	}
	return nil
}

func (s *ProducerState) isDuplicate(u *ProducerUpdate, b Batch) bool {
	known, ok := s.producers[b.ProducerID()]
	if !ok || b.IsControl() {
		return false
	}
	m, ok := known.find(b)
	if !ok {
		return false
	}
	u.IsDuplicate = true
	u.Duplicate = DuplicateBatch{FirstOffset: m.lastOffset - int64(m.offsetDelta), LastOffset: m.lastOffset, Timestamp: m.timestamp}
	return true
}

func (s *ProducerState) prepareBatch(u *ProducerUpdate, b Batch, origin Origin) error {
	if !b.IsControl() {
		if err := s.verifying.checkSequence(b, origin); err != nil {
			return err
		}
		c := u.change(s, b.ProducerID())
		c.transactional = c.transactional || b.IsTransactional()
		return prepareData(u, &c.entry, b, origin)
	}
	m, ok, err := b.EndTxnMarker()
	if err != nil || !ok { // a control record of another kind, or a marker that the cleaner emptied
		return err
	}
	c := u.change(s, b.ProducerID())
	c.transactional = true
	return prepareMarker(u, &c.entry, b, m, origin)
}

func prepareData(u *ProducerUpdate, e *producerEntry, b Batch, origin Origin) error {
	if err := checkEpoch(e, b, origin); err != nil {
		return err
	}
	if origin == OriginClient {
		if err := checkSequence(e, b); err != nil {
			return err
		}
	}
	inTxn := e.txnFirstOffset >= 0
	if inTxn && !b.IsTransactional() && origin != OriginReplication {
		return verdict(kerr.InvalidTxnState, b, "a transaction that began at offset %d is open", e.txnFirstOffset)
	}
	e.setEpoch(b.ProducerEpoch())
	e.push(batchMeta{lastSequence: b.LastSequence(), offsetDelta: b.LastOffsetDelta(), lastOffset: b.LastOffset(), timestamp: b.MaxTimestamp()})
	if !inTxn && b.IsTransactional() {
		e.txnFirstOffset = b.BaseOffset()
		u.opened = append(u.opened, txn{producerID: b.ProducerID(), firstOffset: b.BaseOffset(), lastOffset: -1})
	}
	return nil
}

func prepareMarker(u *ProducerUpdate, e *producerEntry, b Batch, m EndTxnMarker, origin Origin) error {
	if err := checkEpoch(e, b, origin); err != nil {
		return err
	}
	if e.coordinatorEpoch > m.CoordinatorEpoch && origin != OriginReplication {
		return verdict(kerr.TransactionCoordinatorFenced, b, "coordinator epoch %d is older than %d", m.CoordinatorEpoch, e.coordinatorEpoch)
	}
	if e.txnFirstOffset >= 0 {
		u.ended = append(u.ended, endedTxn{
			txn:     txn{producerID: b.ProducerID(), firstOffset: e.txnFirstOffset, lastOffset: b.LastOffset()},
			aborted: !m.Commit,
		})
	}
	e.setEpoch(b.ProducerEpoch())
	e.coordinatorEpoch = m.CoordinatorEpoch
	e.lastTimestamp = m.Timestamp
	e.txnFirstOffset = -1
	return nil
}

func checkEpoch(e *producerEntry, b Batch, origin Origin) error {
	if b.ProducerEpoch() >= e.epoch || origin == OriginReplication {
		return nil
	}
	return verdict(kerr.InvalidProducerEpoch, b, "epoch is older than %d", e.epoch)
}

// checkSequence demands the next sequence of the epoch. A producer that is not known may begin anywhere: its state was lost
// by retention or expiry (KIP-360).
func checkSequence(e *producerEntry, b Batch) error {
	first := b.BaseSequence()
	if e.epoch < 0 {
		return nil
	}
	want := int32(0)
	if last, ok := e.last(); ok && b.ProducerEpoch() == e.epoch {
		want = addSequence(last.lastSequence, 1)
	}
	if first != want {
		return verdict(kerr.OutOfOrderSequenceNumber, b, "sequence is %d, want %d", first, want)
	}
	return nil
}

// verdict adds the facts to a protocol error.
func verdict(code *kerr.Error, b Batch, format string, args ...any) error {
	return fmt.Errorf("producer %d, epoch %d: %s: %w", b.ProducerID(), b.ProducerEpoch(), fmt.Sprintf(format, args...), code)
}

// Commit applies a prepared change after the batches were written, and forgets it. It returns the entries for the transaction
// index of the segment that holds the markers; usually none.
func (s *ProducerState) Commit(u *ProducerUpdate) []AbortedTxn {
	for i := range u.changes {
		c := &u.changes[i]
		entry, ok := s.producers[c.producerID]
		if !ok {
			entry = new(producerEntry)
			s.producers[c.producerID] = entry
		}
		*entry = c.entry
		s.verifying.end(c)
	}
	for _, t := range u.opened {
		s.ongoing = insertTxn(s.ongoing, t)
	}
	var aborted []AbortedTxn
	for _, e := range u.ended {
		if e.aborted {
			aborted = append(aborted, AbortedTxn{ProducerID: e.producerID, FirstOffset: e.firstOffset, LastOffset: e.lastOffset, LastStableOffset: s.lastStableOffsetAfter(e.txn)})
		}
		s.end(e.txn)
	}
	u.reset()
	return aborted
}

func (s *ProducerState) end(t txn) {
	s.ongoing = slices.DeleteFunc(s.ongoing, func(o txn) bool { return o.firstOffset == t.firstOffset })
	s.unreplicated = insertTxn(s.unreplicated, t)
}

func insertTxn(txns []txn, t txn) []txn {
	at := sort.Search(len(txns), func(i int) bool { return txns[i].firstOffset >= t.firstOffset })
	if at < len(txns) && txns[at].firstOffset == t.firstOffset {
		txns[at] = t
		return txns
	}
	return slices.Insert(txns, at, t)
}

// lastStableOffsetAfter is the last stable offset once t has ended: the first offset of the earliest transaction that another
// producer has open, else the offset after the marker.
func (s *ProducerState) lastStableOffsetAfter(t txn) int64 {
	for _, o := range s.ongoing {
		if o.producerID != t.producerID {
			return o.firstOffset
		}
	}
	return t.lastOffset + 1
}

// FirstUnstableOffset is the first offset of the earliest transaction that is open, or that was ended by a marker which is not
// yet below the high watermark. The last stable offset is the smaller of it and the high watermark.
func (s *ProducerState) FirstUnstableOffset() (int64, bool) {
	first := int64(math.MaxInt64)
	if len(s.ongoing) > 0 {
		first = s.ongoing[0].firstOffset
	}
	if len(s.unreplicated) > 0 {
		first = min(first, s.unreplicated[0].firstOffset)
	}
	return first, first != math.MaxInt64
}

// OnHighWatermark forgets ended transactions whose marker is below the high watermark. It reports whether there were any.
func (s *ProducerState) OnHighWatermark(highWatermark int64) (changed bool) {
	before := len(s.unreplicated)
	s.unreplicated = slices.DeleteFunc(s.unreplicated, func(t txn) bool { return t.lastOffset < highWatermark })
	return len(s.unreplicated) != before
}

// TruncateHead is told of a new log start. Producers stay (KIP-360); ended transactions wholly below it are forgotten.
func (s *ProducerState) TruncateHead(logStart int64) {
	s.OnHighWatermark(logStart)
	s.mapEnd = max(s.mapEnd, logStart)
}

// Expire drops producers without open transaction whose last timestamp is at least the retention old
// (producer.id.expiration.ms). The timestamps are the records', not those of arrival, as in Kafka. It returns how many went.
func (s *ProducerState) Expire(now time.Time, retention time.Duration) int {
	dropped := 0
	for id, e := range s.producers {
		if e.expired(now, retention) {
			delete(s.producers, id)
			dropped++
		}
	}
	s.verifying.expire(now, retention)
	return dropped
}

func (e *producerEntry) expired(now time.Time, retention time.Duration) bool {
	return e.txnFirstOffset < 0 && now.UnixMilli()-e.lastTimestamp >= retention.Milliseconds()
}

// ProducerInfo describes one producer, for DescribeProducers (KIP-664) and the cleaner.
type ProducerInfo struct {
	ProducerID            int64
	ProducerEpoch         int16
	LastSequence          int32 // -1 unknown
	LastOffset            int64 // of its last data batch, -1 unknown
	LastTimestamp         int64 // ms since 1970
	CoordinatorEpoch      int32 // -1 unknown
	CurrentTxnStartOffset int64 // -1 no open transaction
}

func (e *producerEntry) info(id int64) ProducerInfo {
	last, _ := e.last()
	return ProducerInfo{
		ProducerID: id, ProducerEpoch: e.epoch, LastSequence: last.lastSequence, LastOffset: last.lastOffset,
		LastTimestamp: e.lastTimestamp, CoordinatorEpoch: e.coordinatorEpoch, CurrentTxnStartOffset: e.txnFirstOffset,
	}
}

// Producers lists the known producers in order of their ids.
func (s *ProducerState) Producers() []ProducerInfo {
	list := make([]ProducerInfo, 0, len(s.producers))
	for id, e := range s.producers {
		list = append(list, e.info(id))
	}
	slices.SortFunc(list, func(a, b ProducerInfo) int {
		if a.ProducerID < b.ProducerID {
			return -1
		}
		return 1
	})
	return list
}
