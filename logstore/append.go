package logstore

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
	"ottla/internal/invariant"
)

// What an append costs: one pass over the bytes for the CRC (before the lock), the lock, one write(2) of the caller's own
// bytes, at most one index entry in memory per batch, one allocation (the next view). No copy, no fsync.

// AppendParams is one append on the leader.
type AppendParams struct {
	Records        []byte // owned by the caller, patched in place, not kept
	Epoch          cluster.LeaderEpoch
	Origin         Origin
	ProduceVersion int16 // -1 when not from a Produce request
	Guard          Guard
	Now            time.Time
}

// AppendInfo is the outcome of an append.
type AppendInfo struct {
	FirstOffset    int64 // -1 when nothing was appended
	LastOffset     int64 // inclusive
	LogAppendTime  int64 // ms since 1970, -1 for CreateTime
	LogStartOffset int64
	MaxTimestamp   int64 // ms since 1970, -1 none
	Duplicate      bool  // the batch was in the log already: the offsets are the old ones, nothing was written
	RecordErrors   []RecordError
	ErrorMessage   string
}

func nothingAppended(logStart int64) AppendInfo {
	return AppendInfo{FirstOffset: -1, LastOffset: -1, LogAppendTime: -1, MaxTimestamp: -1, LogStartOffset: logStart}
}

// appendSet is what one append writes: whole batches with their final offsets.
type appendSet struct {
	bytes        []byte
	first, last  int64 // offsets; last is inclusive
	maxTimestamp int64
	now          time.Time
	origin       Origin
}

// AppendAsLeader validates records, gives them offsets and the epoch, and writes them with one write(2).
//
// Errors: a kerr verdict (RecordErrors and ErrorMessage then say more), or a *StorageError, which is also
// KAFKA_STORAGE_ERROR; after one that is Full (no space, or less than the reserve: ErrReserve) the log is whole and goes on.
func (l *Log) AppendAsLeader(p AppendParams) (AppendInfo, error) {
	c := l.Config()
	if p.Origin == OriginClient {
		if err := l.owner.reserve.admit(len(p.Records), p.Now); err != nil {
			return refused(l.LogStartOffset(), err)
		}
	}
	params := c.validateParams(&p)
	params.Partition = l.tp
	v, err := Validate(p.Records, &params)
	if err != nil {
		return refused(l.LogStartOffset(), err)
	}
	if len(v.Batches) == 0 {
		return nothingAppended(l.LogStartOffset()), nil
	}
	if len(v.Batches) > c.SegmentBytes {
		return refused(l.LogStartOffset(), refuse(kerr.RecordListTooLarge, "%d bytes do not fit into a segment of %d", len(v.Batches), c.SegmentBytes))
	}
	info, err := l.appendValidated(&v, &p, c)
	if err != nil {
		return refused(l.LogStartOffset(), err)
	}
	l.maybeFlush(c)
	return info, nil
}

func (c *Config) validateParams(p *AppendParams) ValidateParams {
	return ValidateParams{
		Compacted:       c.Compact,
		MaxMessageBytes: c.MaxMessageBytes,
		TimestampType:   c.TimestampType,
		BeforeMax:       c.TimestampBeforeMax,
		AfterMax:        c.TimestampAfterMax,
		Target:          c.Compression,
		Origin:          p.Origin,
		ProduceVersion:  p.ProduceVersion,
		Now:             p.Now,
	}
}

// refused fills in what the answer says beside the code. The error becomes the plain verdict.
func refused(logStart int64, err error) (AppendInfo, error) {
	info := nothingAppended(logStart)
	var refusal *ValidationError
	if errors.As(err, &refusal) {
		info.RecordErrors, info.ErrorMessage = refusal.RecordErrors, refusal.Message
		return info, refusal.Err
	}
	if errors.Is(err, ErrReserve) {
		info.ErrorMessage = err.Error()
	}
	return info, err
}

func (l *Log) appendValidated(v *Validated, p *AppendParams, c *Config) (AppendInfo, error) {
	if err := l.lock(); err != nil {
		return AppendInfo{}, err
	}
	defer l.unlock()
	before := l.view.Load()
	set := appendSet{bytes: v.Batches, first: before.logEnd, maxTimestamp: v.MaxTimestamp, now: p.Now, origin: p.Origin}
	set.last = v.Assign(set.first, p.Epoch)
	err := l.mu.producers.PrepareGuarded(&l.mu.update, set.bytes, p.Origin, p.Guard)
	d, duplicate := l.mu.update.Duplicate, l.mu.update.IsDuplicate
	if err != nil {
		if d, duplicate = l.recallLocked(err, set.bytes); !duplicate {
			return AppendInfo{}, err
		}
	}
	if duplicate {
		return AppendInfo{
			FirstOffset: d.FirstOffset, LastOffset: d.LastOffset, Duplicate: true,
			LogAppendTime: duplicateAppendTime(c, d), MaxTimestamp: d.Timestamp, LogStartOffset: before.logStart,
		}, nil
	}
	l.epochs.Assign(p.Epoch, set.first)
	if err := l.writeLocked(c, &set); err != nil {
		return AppendInfo{}, err
	}
	return AppendInfo{
		FirstOffset: set.first, LastOffset: set.last, LogAppendTime: v.LogAppendTime,
		MaxTimestamp: v.MaxTimestamp, LogStartOffset: before.logStart,
	}, nil
}

// duplicateAppendTime is the old batch's: with LogAppendTime its max timestamp is the time at which it was appended.
func duplicateAppendTime(c *Config, d DuplicateBatch) int64 {
	if c.TimestampType == LogAppendTime {
		return d.Timestamp
	}
	return NoTimestamp
}

// AppendAsFollower writes what a leader sent in answer to a fetch that named requestEpoch. Offsets and epochs are taken as
// they are, gaps are fine (compaction). A partial batch at the end is left out, and so is everything from the first batch of an
// epoch newer than requestEpoch on: the leader changed while it answered, and what it sent may be cut again (KAFKA-18723).
//
// Errors: kerr.CorruptMessage (bad CRC or shape: nothing is written), kerr.OffsetOutOfRange (offsets that do not follow the
// log), or a *StorageError.
func (l *Log) AppendAsFollower(records []byte, requestEpoch cluster.LeaderEpoch) (AppendInfo, error) {
	set, err := checkReplicated(records, requestEpoch)
	if err != nil {
		return refused(l.LogStartOffset(), err)
	}
	if len(set.bytes) == 0 {
		return nothingAppended(l.LogStartOffset()), nil
	}
	c := l.Config()
	if err := l.appendReplicated(c, &set); err != nil {
		return refused(l.LogStartOffset(), err)
	}
	l.maybeFlush(c)
	return AppendInfo{FirstOffset: set.first, LastOffset: set.last, LogAppendTime: -1, MaxTimestamp: set.maxTimestamp, LogStartOffset: l.LogStartOffset()}, nil
}

// checkReplicated verifies CRCs and order, without the lock.
func checkReplicated(records []byte, requestEpoch cluster.LeaderEpoch) (appendSet, error) {
	set := appendSet{first: -1, last: -1, maxTimestamp: NoTimestamp, origin: OriginReplication}
	rest := records
	for len(rest) > 0 {
		b, next, err := NextBatch(rest)
		if errors.Is(err, ErrCorrupt) {
			return set, refuseCorrupt(err)
		}
		if err != nil || b.LeaderEpoch() > requestEpoch { // err: the fetch cut the last batch
			break
		}
		if err := b.VerifyCRC(); err != nil {
			return set, refuseCorrupt(fmt.Errorf("batch at offset %d: %w", b.BaseOffset(), err))
		}
		if b.LastOffset() <= set.last || b.BaseOffset() <= set.last || b.LastOffset() < b.BaseOffset() || b.BaseOffset() < 0 {
			return set, refuse(kerr.OffsetOutOfRange, "batch [%d, %d] follows offset %d", b.BaseOffset(), b.LastOffset(), set.last)
		}
		if set.first < 0 {
			if set.first, err = b.FirstOffset(); err != nil {
				return set, refuseCorrupt(err)
			}
		}
		set.last = b.LastOffset()
		set.maxTimestamp = max(set.maxTimestamp, b.MaxTimestamp())
		rest = next
	}
	set.bytes = records[:len(records)-len(rest)]
	return set, nil
}

// takeBackEpochs forgets the epochs of an append that failed. An epoch that lies behind the log's end would make the next batch of
// an older one look like a new beginning, and its true start would be lost.
func (l *Log) takeBackEpochs(before []EpochEntry, err error) error {
	l.epochs.Replace(before)
	return err
}

func (l *Log) appendReplicated(c *Config, set *appendSet) error {
	if err := l.lock(); err != nil {
		return err
	}
	defer l.unlock()
	set.now = l.owner.now()
	logStart := int64(-1)
	v := l.view.Load()
	if set.first < v.logEnd {
		if set.last < v.logEnd || v.logEnd != v.logStart {
			return refuse(kerr.OffsetOutOfRange, "offset %d is below the log's end %d", set.first, v.logEnd)
		}
		// The leader's log start lies inside of its first batch (DeleteRecords): the empty log begins with that batch.
		logStart = v.logStart
		if err := l.truncateFullyLocked(set.first); err != nil {
			return err
		}
	}
	if err := l.mu.producers.Prepare(&l.mu.update, set.bytes, OriginReplication); err != nil {
		return refuseCorrupt(err)
	}
	epochs := l.epochs.Entries()
	if err := l.assignEpochsLocked(set.bytes); err != nil {
		return l.takeBackEpochs(epochs, err)
	}
	if err := l.writeLocked(c, set); err != nil {
		return l.takeBackEpochs(epochs, err)
	}
	if logStart > set.first {
		l.moveLogStartLocked(min(logStart, set.last+1))
	}
	return nil
}

// assignEpochsLocked notes the epochs of the batches that are about to be written; only a new epoch costs something. Batches
// of the old formats have none: what follows them could not be told apart, so the history is given up, as in Kafka.
func (l *Log) assignEpochsLocked(batches []byte) error {
	for len(batches) > 0 {
		b, rest, err := NextBatch(batches)
		if err != nil {
			return refuseCorrupt(err)
		}
		batches = rest
		if b.Magic() < 2 {
			l.epochs.Clear()
			continue
		}
		l.epochs.Assign(b.LeaderEpoch(), b.BaseOffset())
	}
	return nil
}

// writeLocked writes a checked set: roll, one write(2), index, producers, view. mu.update is prepared. After an error the log
// is as before, in memory and on disk, or parked.
func (l *Log) writeLocked(c *Config, set *appendSet) error {
	t := &l.mu.tail
	roll, err := l.mustRollLocked(c, set)
	if err != nil {
		return err
	}
	if roll {
		// The log's end, not the first offset that comes: so a new segment never begins behind a hole, and the loader can
		// tell what a crash lost at the end of the one before.
		base := l.view.Load().logEnd
		if set.last-base > math.MaxInt32 {
			base = set.first
		}
		if err := l.rollLocked(c, base, set.now); err != nil {
			return err
		}
	}
	f, err := t.seg.acquireLog()
	if err != nil {
		return l.faultLocked(err)
	}
	defer f.release()
	if _, err := f.file.WriteAt(set.bytes, t.size); err != nil {
		return l.cutBackLocked(f.file, storageError("append", t.seg.path(logSuffix), err))
	}
	pos := t.size
	t.note(c, set)
	for _, a := range l.mu.producers.Commit(&l.mu.update) {
		if err := l.appendAbortedLocked(a); err != nil {
			return l.rewindLocked(set.first, err)
		}
	}
	l.mu.producers.SetMapEnd(set.last + 1)
	first := l.firstUnstableLocked()
	last := lastAppend{base: set.first, pos: pos, size: Batch(set.bytes).Size()}
	l.publish(func(v *view) {
		t.show(v)
		v.last = last
		v.logEnd = set.last + 1
		v.firstUnstable = first
	})
	t.spill()
	if want := pos + int64(len(set.bytes)); t.size != want {
		return l.parkLocked(invariant.Check(false, "tail of %s is %d, want %d", l.tp, t.size, want))
	}
	return nil
}

// cutBackLocked removes what a failed write left, so that the file ends with a whole batch again. If even that fails, the
// log is parked: the loader will cut.
func (l *Log) cutBackLocked(f File, fault *StorageError) error {
	if err := f.Truncate(l.mu.tail.size); err != nil {
		fault.Full = false
		return l.parkLocked(fault)
	}
	return l.faultLocked(fault)
}

// rewindLocked takes back an append whose records were written but whose abort entry was not: nobody has seen them yet.
func (l *Log) rewindLocked(to int64, cause error) error {
	if err := l.cutLocked(to); err != nil {
		return l.parkLocked(err)
	}
	return l.faultLocked(cause)
}

func (l *Log) appendAbortedLocked(a AbortedTxn) error {
	s := l.mu.tail.seg
	x := s.txn.Load()
	if x == nil {
		opened, err := OpenTxnIndex(l.fs, s.path(txnIndexSuffix))
		if err != nil {
			return storageError("open", s.path(txnIndexSuffix), err)
		}
		x = opened
		s.txn.Store(x)
		l.dirDirty.Store(true)
	}
	if err := x.Append(a); err != nil {
		return storageError("append", s.path(txnIndexSuffix), err)
	}
	return nil
}

// mustRollLocked applies Kafka's five conditions. Time is the records': an idle segment is not rolled by the clock.
func (l *Log) mustRollLocked(c *Config, set *appendSet) (bool, error) {
	t := &l.mu.tail
	if set.last-t.seg.base > math.MaxInt32 {
		return true, nil
	}
	if t.size == 0 {
		return false, nil
	}
	if t.size+int64(len(set.bytes)) > int64(c.SegmentBytes) || t.full(c) {
		return true, nil
	}
	waited, err := l.tailAgeLocked(set)
	return err == nil && waited > c.maxSegmentAge()-t.jitter, err
}

// tailAgeLocked is the time that the active segment would span with the new records; by the clock when they have none.
func (l *Log) tailAgeLocked(set *appendSet) (time.Duration, error) {
	t := &l.mu.tail
	if t.firstTimestamp == unknownTimestamp {
		first, err := l.firstTimestamp(t.seg, t.size)
		if err != nil {
			return 0, l.faultLocked(err)
		}
		t.firstTimestamp = first
	}
	if t.firstTimestamp >= 0 {
		return milliseconds(set.maxTimestamp - t.firstTimestamp), nil
	}
	return set.now.Sub(t.created), nil
}

// milliseconds converts without wrapping: timestamps are foreign.
func milliseconds(ms int64) time.Duration {
	const most = math.MaxInt64 / int64(time.Millisecond)
	return time.Duration(max(min(ms, most), -most)) * time.Millisecond
}

// maybeFlush starts what a roll or flush.messages asks for, in the background.
func (l *Log) maybeFlush(c *Config) {
	rolled := l.rolled.Load() && l.rolled.Swap(false)
	if rolled || l.LogEndOffset()-l.FlushedOffset() >= c.FlushMessages {
		l.FlushSoon()
	}
}
