package logstore

import (
	"time"

	"ottla/internal/cluster"
)

// Log is the log of one partition: segments, indexes, leader epochs, producers. It guards itself. Readers take no lock.
type Log struct{}

// AppendParams is one append on the leader.
type AppendParams struct {
	Records        []byte // owned by the caller, patched in place, not kept
	Epoch          cluster.LeaderEpoch
	Origin         Origin
	ProduceVersion int16 // -1 when not from a Produce request
	Now            time.Time
}

// AppendInfo is the outcome of an append.
type AppendInfo struct {
	FirstOffset    int64 // -1 when nothing was appended
	LastOffset     int64
	LogAppendTime  int64 // ms since 1970, -1 for CreateTime
	LogStartOffset int64
	MaxTimestamp   int64 // ms since 1970, -1 none
	Duplicate      bool  // the batch was in the log already: the offsets are the old ones, nothing was written
	RecordErrors   []RecordError
	ErrorMessage   string
}

// Dir is the partition's directory.
func (l *Log) Dir() string { panic("todo") }

// TopicPartition is whose log it is.
func (l *Log) TopicPartition() cluster.TopicPartition { panic("todo") }

// TopicID is the topic's id from partition.metadata.
func (l *Log) TopicID() (cluster.TopicID, bool) { panic("todo") }

// SetTopicID writes partition.metadata, durably; kerr.InconsistentTopicID when the log has another id.
func (l *Log) SetTopicID(id cluster.TopicID) error { panic("todo") }

// Config is the current configuration.
func (l *Log) Config() *Config { panic("todo") }

// SetConfig replaces the configuration; it applies from the next append or pass on.
func (l *Log) SetConfig(c *Config) { panic("todo") }

// AppendAsLeader validates records, gives them offsets and the epoch, and writes them.
func (l *Log) AppendAsLeader(p AppendParams) (AppendInfo, error) { panic("todo") }

// AppendAsFollower writes what a leader sent.
func (l *Log) AppendAsFollower(records []byte, requestEpoch cluster.LeaderEpoch) (AppendInfo, error) {
	panic("todo")
}

// Read finds the batches from offset on; see Slice.
func (l *Log) Read(offset int64, maxBytes int, end int64, minOneBatch bool) (Slice, error) {
	panic("todo")
}

// SliceEnd is an exclusive upper bound of the offsets in a slice, for AbortedTransactions.
func (l *Log) SliceEnd(s *Slice) int64 { panic("todo") }

// LogStartOffset is the first offset that can be read.
func (l *Log) LogStartOffset() int64 { panic("todo") }

// LogEndOffset is the next offset to be written.
func (l *Log) LogEndOffset() int64 { panic("todo") }

// HighWatermark is the exclusive end of what is replicated.
func (l *Log) HighWatermark() int64 { panic("todo") }

// LastStableOffset is the exclusive end of what read_committed may see.
func (l *Log) LastStableOffset() int64 { panic("todo") }

// FlushedOffset is the exclusive end of what surely survives a loss of power: the recovery point.
func (l *Log) FlushedOffset() int64 { panic("todo") }

// Size is the number of bytes of all segments.
func (l *Log) Size() int64 { panic("todo") }

// LatestEpoch is the newest leader epoch in the log's history.
func (l *Log) LatestEpoch() (cluster.LeaderEpoch, bool) { panic("todo") }

// EpochAt is the leader epoch of the record at offset, by the log's history.
func (l *Log) EpochAt(offset int64) (cluster.LeaderEpoch, bool) { panic("todo") }

// SetHighWatermark moves the high watermark (clamped into [log start, log end]) and with it the last stable offset.
func (l *Log) SetHighWatermark(offset int64) { panic("todo") }

// AssignEpochStart notes that epoch starts at the log's end; durable before it returns.
func (l *Log) AssignEpochStart(epoch cluster.LeaderEpoch) error { panic("todo") }

// EndOffsetForEpoch answers OffsetForLeaderEpoch; (-1, -1) undefined.
func (l *Log) EndOffsetForEpoch(e cluster.LeaderEpoch) (cluster.LeaderEpoch, int64) { panic("todo") }

// EpochEntries is the history of leader epochs; not to be changed.
func (l *Log) EpochEntries() []EpochEntry { panic("todo") }

// TruncateTo removes everything from offset on.
func (l *Log) TruncateTo(offset int64) error { panic("todo") }

// TruncateFullyAndStartAt removes everything and starts anew at offset.
func (l *Log) TruncateFullyAndStartAt(offset int64) error { panic("todo") }

// IncrementLogStart moves the log start (DeleteRecords, the leader's log start); a lower offset is ignored.
func (l *Log) IncrementLogStart(offset int64) error { panic("todo") }

// OffsetForTimestamp finds the first record with a timestamp of at least ts (ms since 1970).
func (l *Log) OffsetForTimestamp(ts int64) (offset, timestamp int64, epoch cluster.LeaderEpoch, found bool, err error) {
	panic("todo")
}

// MaxTimestamp finds the first record with the largest timestamp.
func (l *Log) MaxTimestamp() (offset, timestamp int64, epoch cluster.LeaderEpoch, found bool, err error) {
	panic("todo")
}

// AbortedTransactions lists the aborted transactions that overlap [from, to).
func (l *Log) AbortedTransactions(from, to int64) ([]AbortedTxn, error) { panic("todo") }

// ActiveProducers lists the known producers.
func (l *Log) ActiveProducers() []ProducerInfo { panic("todo") }

// Flush returns once everything below upTo is durable; callers share fdatasync calls.
func (l *Log) Flush(upTo int64) error { panic("todo") }

// FlushSoon starts a flush in the background; OnFlushed hears of it.
func (l *Log) FlushSoon() { panic("todo") }

// OnFlushed sets the function that is called (from the flushing goroutine, without locks) after FlushedOffset moved.
func (l *Log) OnFlushed(fn func(flushed int64)) { panic("todo") }
