package logstore

import (
	"path/filepath"
	"slices"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
)

// TruncateTo removes everything from offset on: the batch that holds it goes whole. An offset at or above the log's end only
// cuts the epoch history. Below the first segment the log starts anew at offset. When it returns, the cut is durable, and so is
// the lowered recovery point: what is appended next cannot mix with what was cut after a crash.
//
// It needs room for the small files that it rewrites. Without any it changes nothing, and the error is a *StorageError that is Full.
func (l *Log) TruncateTo(offset int64) error {
	if err := l.roomToTruncate(); err != nil {
		return err
	}
	if err := l.truncate(offset); err != nil {
		return err
	}
	if err := l.lowerCleaned(offset); err != nil {
		return err
	}
	return l.lowerCheckpoints(offset)
}

// truncateRoom is more than the checkpoints of some thousand logs: half of a truncation could only be mended by a restart.
const truncateRoom = 256 << 10

func (l *Log) roomToTruncate() error {
	if l.FreeBytes() >= truncateRoom {
		return nil
	}
	return &StorageError{Op: "truncate", Path: l.Dir(), Full: true, Err: syscall.ENOSPC}
}

func (l *Log) truncate(offset int64) error {
	if err := l.lock(); err != nil {
		return err
	}
	defer l.unlock()
	v := l.view.Load()
	switch {
	case offset >= v.logEnd:
		l.epochs.TruncateFromEnd(v.logEnd)
		return l.flushEpochsLocked()
	case offset < v.segments[0].base:
		return l.truncateFullyLocked(offset)
	}
	if err := l.cutLocked(offset); err != nil {
		return l.parkLocked(err)
	}
	return nil
}

// lowerCheckpoints makes the files claim no more than what is left. A stale log start above the log's end would even make the
// loader begin anew.
func (l *Log) lowerCheckpoints(offset int64) error {
	d := l.owner
	for _, c := range []*checkpointer{&d.recoveryPoints, &d.logStarts, &d.highWatermarks} {
		if err := c.lower(l, offset); err != nil {
			return err
		}
	}
	return nil
}

// TruncateFullyAndStartAt removes everything, also epochs and producers, and starts anew at offset.
func (l *Log) TruncateFullyAndStartAt(offset int64) error {
	if err := l.roomToTruncate(); err != nil {
		return err
	}
	if err := l.truncateFully(offset); err != nil {
		return err
	}
	if err := l.lowerCleaned(offset); err != nil {
		return err
	}
	return l.lowerCheckpoints(offset)
}

func (l *Log) truncateFully(offset int64) error {
	if err := l.lock(); err != nil {
		return err
	}
	defer l.unlock()
	return l.truncateFullyLocked(offset)
}

func (l *Log) flushEpochsLocked() error {
	if err := l.epochs.Flush(); err != nil {
		return l.faultLocked(storageError("write", filepath.Join(l.Dir(), EpochCheckpointFile), err))
	}
	return nil
}

// cutLocked removes everything from offset on, which lies in one of the segments. Later segments go first, durably: else a
// crash could bring them back behind a hole. After an error the state is unknown.
func (l *Log) cutLocked(offset int64) error {
	l.cuts.Add(1)
	v := l.view.Load()
	i := v.find(offset)
	s := v.segments[i]
	f, err := s.acquireLog()
	if err != nil {
		return err
	}
	place, ok, err := v.locate(i, f.file, offset)
	if !ok {
		place.pos = v.segmentSize(i)
	}
	if err == nil {
		err = l.removeSegments(v.segments[i+1:])
	}
	var t tail
	if err == nil {
		t, err = l.cutSegment(v, i, f, offset, place.pos)
	}
	f.release()
	if err != nil {
		return err
	}
	l.mu.tail = t
	l.lowerFlushedLocked(offset)
	l.epochs.TruncateFromEnd(offset)
	if err := l.epochs.Flush(); err != nil {
		return storageError("write", filepath.Join(l.Dir(), EpochCheckpointFile), err)
	}
	segments := append(v.segments[:i:i], t.seg)
	l.publish(func(v *view) {
		v.segments = segments
		v.last = lastAppend{base: -1}
		t.show(v)
		v.logEnd = offset
		v.logStart = min(v.logStart, offset)
		v.firstUnstable = noUnstable
	})
	if err := l.rebuildProducersLocked(offset); err != nil {
		return err
	}
	first := l.firstUnstableLocked()
	l.publish(func(v *view) { v.firstUnstable = first })
	return nil
}

func (l *Log) lowerFlushedLocked(offset int64) {
	l.mu.truncations++
	if l.flushed.Load() > offset {
		l.flushed.Store(offset)
	}
}

// removeSegments takes segments away from the end of the log, durably.
func (l *Log) removeSegments(segments []*segment) error {
	if len(segments) == 0 {
		return nil
	}
	for _, s := range slices.Backward(segments) {
		if err := l.discard(s); err != nil {
			return err
		}
	}
	l.dirDirty.Store(true)
	return l.syncDir()
}

// discard renames a segment's files to .deleted and has them removed later.
func (l *Log) discard(s *segment) error {
	s.retire()
	names, err := s.markDeleted()
	l.owner.trash.add(l.owner.now().Add(l.Config().FileDeleteDelay), names...)
	return err
}

// cutSegment cuts segment i of v at pos, durably, and returns the writer's side of what is left: a new segment object that
// shares the descriptor, so that readers of older views find out.
func (l *Log) cutSegment(v *view, i int, f *sharedFile, offset, pos int64) (tail, error) {
	old := v.segments[i]
	if err := f.file.Truncate(pos); err != nil {
		return tail{}, storageError("truncate", old.path(logSuffix), err)
	}
	if err := f.file.Sync(); err != nil {
		return tail{}, storageError("sync", old.path(logSuffix), err)
	}
	s := &segment{log: l, base: old.base}
	if f.retain() {
		s.file.cur.Store(f)
	}
	if x := old.txn.Swap(nil); x != nil {
		if err := x.TruncateTo(offset); err != nil {
			return tail{}, storageError("truncate", s.path(txnIndexSuffix), err)
		}
		s.txn.Store(x)
	}
	old.retire()
	t := newTail(s, l.owner.now(), l.owner.jitter(l.Config()))
	t.size, t.indexFiles = pos, true
	index, times := v.offsetIndex(i), v.timeIndex(i)
	index.seg, times.seg = s, s
	if err := t.cutIndex(index, pos); err != nil {
		return tail{}, err
	}
	if err := t.cutTimes(times, offset-s.base); err != nil {
		return tail{}, err
	}
	_, err := l.scanTail(&t)
	return t, err
}

// cutIndex takes over the entries below pos, and cuts the file where it has others.
func (t *tail) cutIndex(x offsetIndex, pos int64) error {
	f, err := t.seg.acquireIndex()
	if err != nil {
		return err
	}
	defer f.release()
	if x.onDisk < 0 {
		if x.onDisk, err = entriesIn(f.file, indexEntrySize); err != nil {
			return storageError("stat", t.seg.path(indexSuffix), err)
		}
	}
	var before [indexEntrySize]byte
	n, err := searchFile(f.file, x.onDisk, indexEntrySize, func(b []byte) bool { return int64(parseIndexEntry(b).pos) >= pos }, before[:])
	if err == nil {
		err = f.file.Truncate(int64(n) * indexEntrySize)
	}
	if err != nil {
		return storageError("truncate", t.seg.path(indexSuffix), err)
	}
	t.indexOnDisk = n
	for _, e := range x.memory {
		if n == x.onDisk && int64(e.pos) < pos {
			t.index = append(t.index, e)
		}
	}
	return nil
}

// cutTimes takes over the entries whose batch ends below rel, and cuts the file where it has others.
func (t *tail) cutTimes(x timeIndex, rel int64) error {
	f, err := t.seg.acquireTimeIndex()
	if err != nil {
		return err
	}
	defer f.release()
	if x.onDisk < 0 {
		if x.onDisk, err = entriesIn(f.file, timeEntrySize); err != nil {
			return storageError("stat", t.seg.path(timeIndexSuffix), err)
		}
	}
	var before [timeEntrySize]byte
	n, err := searchFile(f.file, x.onDisk, timeEntrySize, func(b []byte) bool { return int64(parseTimeEntry(b).rel) >= rel }, before[:])
	if err == nil {
		err = f.file.Truncate(int64(n) * timeEntrySize)
	}
	if err != nil {
		return storageError("truncate", t.seg.path(timeIndexSuffix), err)
	}
	t.timesOnDisk = n
	for _, e := range x.memory {
		if n == x.onDisk && int64(e.rel) < rel {
			t.times = append(t.times, e)
		}
	}
	return nil
}

// truncateFullyLocked replaces all segments by an empty one at offset.
func (l *Log) truncateFullyLocked(offset int64) error {
	l.cuts.Add(1)
	old := l.view.Load().segments
	if err := l.removeSegments(old); err != nil {
		return l.parkLocked(err)
	}
	if err := l.removeSnapshots(func(int64) bool { return true }); err != nil {
		return l.parkLocked(err)
	}
	s, err := l.createSegment(offset)
	if err == nil {
		err = l.syncDir()
	}
	if err != nil {
		return l.parkLocked(err)
	}
	l.epochs.Clear()
	if err := l.epochs.Flush(); err != nil {
		return l.parkLocked(storageError("write", filepath.Join(l.Dir(), EpochCheckpointFile), err))
	}
	l.mu.producers.Reset(offset)
	l.mu.tail = newTail(s, l.owner.now(), l.owner.jitter(l.Config()))
	l.mu.truncations++
	l.flushed.Store(offset)
	t := &l.mu.tail
	l.publish(func(v *view) {
		v.segments = []*segment{s}
		v.last = lastAppend{base: -1}
		t.show(v)
		v.logStart, v.logEnd, v.highWatermark = offset, offset, offset
		v.firstUnstable = noUnstable
	})
	l.owner.touchAll()
	return nil
}

// IncrementLogStart moves the log start (DeleteRecords, the leader's log start); an offset that is not above it is ignored.
// The high watermark follows when it is below. Segments below go with the next retention pass; the checkpoint follows.
// kerr.OffsetOutOfRange: offset is above the log's end.
func (l *Log) IncrementLogStart(offset int64) error {
	if offset <= l.LogStartOffset() {
		return nil
	}
	if err := l.lock(); err != nil {
		return err
	}
	defer l.unlock()
	v := l.view.Load()
	if offset > v.logEnd {
		return kerr.OffsetOutOfRange
	}
	l.moveLogStartLocked(offset)
	return nil
}

func (l *Log) moveLogStartLocked(offset int64) {
	if offset <= l.view.Load().logStart {
		return
	}
	l.epochs.TruncateFromStart(offset) // the file follows later: the loader cuts it the same way
	l.mu.producers.TruncateHead(offset)
	first := l.firstUnstableLocked()
	l.publish(func(v *view) {
		v.logStart = offset
		v.firstUnstable = first
	})
	if l.flushed.Load() < offset {
		l.mu.truncations++ // a flush in progress must not lower it again
		l.flushed.Store(offset)
	}
	l.owner.touchAll()
}
