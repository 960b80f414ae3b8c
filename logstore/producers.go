package logstore

import (
	"time"
)

// ProducerState is what a partition knows of idempotent and transactional producers. It is pure: no I/O, no clock, no lock.
type ProducerState struct{}

// NewProducerState returns an empty state whose map ends at offset 0.
func NewProducerState() *ProducerState { panic("todo") }

// ProducerUpdate collects what one append will change; reuse it, Prepare resets it.
type ProducerUpdate struct {
	Duplicate *DuplicateBatch // set: the append is a retry of a batch that is in the log
}

// DuplicateBatch is where a retried batch already is.
type DuplicateBatch struct {
	FirstOffset, LastOffset int64
	Timestamp               int64
}

// Prepare checks batches whose offsets are assigned and computes the change; nothing is changed before Commit.
// Errors are kerr values: INVALID_PRODUCER_EPOCH, OUT_OF_ORDER_SEQUENCE_NUMBER, INVALID_TXN_STATE, TRANSACTION_COORDINATOR_FENCED.
func (s *ProducerState) Prepare(u *ProducerUpdate, batches []byte, origin Origin) error {
	panic("todo")
}

// Commit applies a prepared change after the batches were written. It returns the entries for the segment's transaction index.
func (s *ProducerState) Commit(u *ProducerUpdate) []AbortedTxn { panic("todo") }

// MapEnd is the offset up to which (exclusive) the state covers the log.
func (s *ProducerState) MapEnd() int64 { panic("todo") }

// SetMapEnd moves MapEnd, after appends.
func (s *ProducerState) SetMapEnd(offset int64) { panic("todo") }

// FirstUnstableOffset is the first offset of the earliest transaction that is open, or ended by a marker at or above the high watermark.
func (s *ProducerState) FirstUnstableOffset() (int64, bool) { panic("todo") }

// OnHighWatermark forgets ended transactions whose marker is below the high watermark.
func (s *ProducerState) OnHighWatermark(highWatermark int64) { panic("todo") }

// Expire drops producers without open transaction whose last timestamp is older than the retention (producer.id.expiration.ms).
func (s *ProducerState) Expire(now time.Time, retention time.Duration) { panic("todo") }

// Snapshot encodes the state as the content of a .snapshot file.
func (s *ProducerState) Snapshot() []byte { panic("todo") }

// LoadSnapshot replaces the state by a snapshot's; mapEnd is the offset in the file's name. The error matches ErrCorrupt.
func (s *ProducerState) LoadSnapshot(data []byte, mapEnd int64, now time.Time, retention time.Duration) error {
	panic("todo")
}

// Reset forgets everything and sets MapEnd.
func (s *ProducerState) Reset(mapEnd int64) { panic("todo") }

// TruncateHead is told of a new log start: transactions and producers below it are judged anew.
func (s *ProducerState) TruncateHead(logStart int64) { panic("todo") }

// ProducerInfo describes one producer, for DescribeProducers and the cleaner.
type ProducerInfo struct {
	ProducerID            int64
	ProducerEpoch         int16
	LastSequence          int32
	LastOffset            int64 // of its last data batch, -1 unknown
	LastTimestamp         int64
	CoordinatorEpoch      int32
	CurrentTxnStartOffset int64 // -1 no open transaction
}

// Producers lists the known producers in order of their ids.
func (s *ProducerState) Producers() []ProducerInfo { panic("todo") }
