package logstore

import (
	"errors"
	"fmt"
	"os"
	"time"

	"ottla/internal/invariant"
)

// unknownTimestamp: the first batch of the segment was not looked at yet.
const unknownTimestamp int64 = -2

// tailEntriesMax is how many entries of each index are kept in memory; the older half is then written to the file. Lookups
// near the end of the log, which are nearly all, need no file, and a busy partition takes some KiB.
// Checked builds keep few, so that every test sees both places.
var tailEntriesMax = func() int {
	if invariant.Checked {
		return 6
	}
	return 512
}()

// tail is the writer's side of the active segment. Its slices are shared with views: entries are only appended, or replaced by
// new slices, never changed in place.
type tail struct {
	seg         *segment
	size        int64
	sinceIndex  int // bytes since the last index entry
	index       []indexEntry
	indexOnDisk int
	times       []timeEntry
	timesOnDisk int
	lastTime    int64 // timestamp of the last time index entry, -1 none
	max         segmentTimes

	firstTimestamp int64 // of the first batch; unknownTimestamp: not read yet
	created        time.Time
	jitter         time.Duration
	indexFiles     bool // both index files exist
}

func newTail(s *segment, now time.Time, jitter time.Duration) tail {
	return tail{
		seg: s, lastTime: NoTimestamp, max: segmentTimes{max: NoTimestamp, maxOffset: s.base},
		firstTimestamp: unknownTimestamp, created: now, jitter: jitter,
	}
}

// show copies into a view what readers need.
func (t *tail) show(v *view) {
	v.index, v.indexOnDisk = t.index, t.indexOnDisk
	v.times, v.timesOnDisk = t.times, t.timesOnDisk
	v.size, v.max = t.size, t.max
}

func (t *tail) full(c *Config) bool {
	return t.indexOnDisk+len(t.index) >= c.maxIndexEntries() || t.timesOnDisk+len(t.times) >= c.maxTimeIndexEntries()
}

// note accounts for batches that were written at the end.
func (t *tail) note(c *Config, set *appendSet) {
	if t.size == 0 {
		t.firstTimestamp = firstTimestampOf(set.bytes)
	}
	for rest := set.bytes; len(rest) > 0; {
		b, next, err := NextBatch(rest)
		if err != nil {
			break // they were walked before the write
		}
		t.noteBatch(c, b)
		rest = next
	}
}

// noteBatch accounts for one batch at the end. b may be only its header.
func (t *tail) noteBatch(c *Config, b Batch) {
	if t.sinceIndex > c.IndexIntervalBytes && t.indexOnDisk+len(t.index) < c.maxIndexEntries() {
		t.updateMax(b)
		t.index = append(t.index, indexEntry{rel: uint32(b.LastOffset() - t.seg.base), pos: uint32(t.size)})
		t.addTime(c.maxTimeIndexEntries())
		t.sinceIndex = 0
	} else {
		t.updateMax(b)
	}
	t.sinceIndex += b.Size()
	t.size += int64(b.Size())
}

func (t *tail) updateMax(b Batch) {
	if ts := b.MaxTimestamp(); ts > t.max.max {
		t.max = segmentTimes{max: ts, maxOffset: b.LastOffset()}
	}
}

// addTime tries a time index entry for the maximum so far.
func (t *tail) addTime(limit int) {
	if t.max.max <= t.lastTime || t.timesOnDisk+len(t.times) >= limit {
		return
	}
	t.times = append(t.times, timeEntry{timestamp: t.max.max, rel: uint32(t.max.maxOffset - t.seg.base)})
	t.lastTime = t.max.max
}

// firstTimestampOf is what rolling by time is measured from: the first batch's max timestamp, as in Kafka.
func firstTimestampOf(bytes []byte) int64 {
	if b, _, err := NextBatch(bytes); err == nil {
		return b.MaxTimestamp()
	}
	return NoTimestamp
}

// firstTimestamp reads it from a segment's file.
func (l *Log) firstTimestamp(s *segment, size int64) (int64, error) {
	f, err := s.acquireLog()
	if err != nil {
		return 0, err
	}
	defer f.release()
	scan := newScanner(f.file, size)
	defer scan.done()
	b, err := scan.at(0)
	if err != nil {
		return 0, storageError("read", s.path(logSuffix), err)
	}
	return b.MaxTimestamp(), nil
}

// spill writes the older half of the entries once there are many. Failing is no harm: they stay in memory, and an unclean
// start does not believe the file.
func (t *tail) spill() {
	if len(t.index) > tailEntriesMax {
		_ = t.spillTo(tailEntriesMax / 2)
	}
}

// spillTo writes entries to the files until at most keep are left in memory. The next view shows it.
func (t *tail) spillTo(keep int) error {
	if n := len(t.index) - keep; n > 0 || !t.indexFiles {
		n = max(n, 0)
		buf := make([]byte, n*indexEntrySize)
		for i, e := range t.index[:n] {
			e.put(buf[i*indexEntrySize:])
		}
		if err := t.writeIndex(&t.seg.idx, indexSuffix, buf, t.indexOnDisk*indexEntrySize); err != nil {
			return err
		}
		t.index, t.indexOnDisk = append([]indexEntry(nil), t.index[n:]...), t.indexOnDisk+n
	}
	if n := len(t.times) - keep; n > 0 || !t.indexFiles {
		n = max(n, 0)
		buf := make([]byte, n*timeEntrySize)
		for i, e := range t.times[:n] {
			e.put(buf[i*timeEntrySize:])
		}
		if err := t.writeIndex(&t.seg.tidx, timeIndexSuffix, buf, t.timesOnDisk*timeEntrySize); err != nil {
			return err
		}
		t.times, t.timesOnDisk = append([]timeEntry(nil), t.times[n:]...), t.timesOnDisk+n
	}
	t.indexFiles = true
	return nil
}

func (t *tail) writeIndex(f *lazyFile, suffix string, buf []byte, pos int) error {
	open, err := f.acquire(t.seg, suffix, os.O_CREATE)
	if err != nil {
		return err
	}
	defer open.release()
	if len(buf) == 0 {
		return nil
	}
	if _, err := open.file.WriteAt(buf, int64(pos)); err != nil {
		return storageError("write", t.seg.path(suffix), err)
	}
	return nil
}

// seal completes the index files: all entries, the final one of the time index, and no byte more. Kafka trusts the lengths
// after a clean stop: a tail of zeros in a time index would make it delete the segment as data of 1970.
func (t *tail) seal(c *Config) error {
	t.addTime(c.maxTimeIndexEntries() + 1) // one slot is reserved for it
	if err := t.spillTo(0); err != nil {
		return err
	}
	if err := t.trim(&t.seg.idx, indexSuffix, t.indexOnDisk*indexEntrySize); err != nil {
		return err
	}
	if err := t.trim(&t.seg.tidx, timeIndexSuffix, t.timesOnDisk*timeEntrySize); err != nil || !c.Preallocate {
		return err
	}
	return t.giveBackSpace()
}

// giveBackSpace ends the reservation of a preallocated segment behind its last byte.
func (t *tail) giveBackSpace() error {
	f, err := t.seg.acquireLog()
	if err != nil {
		return err
	}
	defer f.release()
	if err := f.file.Truncate(t.size); err != nil {
		return storageError("give back space of", t.seg.path(logSuffix), err)
	}
	return nil
}

func (t *tail) trim(f *lazyFile, suffix string, size int) error {
	open, err := f.acquire(t.seg, suffix, os.O_CREATE)
	if err != nil {
		return err
	}
	defer open.release()
	info, err := open.file.Stat()
	if err == nil && info.Size() != int64(size) {
		err = open.file.Truncate(int64(size))
	}
	if err != nil {
		return storageError("trim", t.seg.path(suffix), err)
	}
	return nil
}

// rollLocked seals the active segment and begins one at base. A segment that holds no byte is replaced when it has the same
// base. The new file's name is made durable by the flush that follows in the background, before FlushedOffset passes it.
func (l *Log) rollLocked(c *Config, base int64, now time.Time) error {
	t := &l.mu.tail
	if t.size == 0 && t.seg.base == base {
		return nil
	}
	if err := t.seal(c); err != nil {
		return l.faultLocked(err)
	}
	if err := l.writeSnapshotLocked(base); err != nil {
		return l.faultLocked(err)
	}
	next, err := l.createSegment(base)
	if err != nil {
		return l.faultLocked(err)
	}
	sealed := t.seg
	sealed.sealedSize = t.size
	sealed.sealedTimes.Store(&segmentTimes{max: t.max.max, maxOffset: t.max.maxOffset})
	*t = newTail(next, now, l.owner.jitter(c))
	old := l.view.Load().segments
	segments := append(old[:len(old):len(old)], next)
	l.publish(func(v *view) {
		v.segments = segments
		v.last = lastAppend{base: -1}
		t.show(v)
	})
	sealed.idx.close() // nearly nobody will look at it again
	sealed.tidx.close()
	l.rolled.Store(true)
	return nil
}

// createSegment creates an empty segment's .log. A leftover of that name is emptied.
func (l *Log) createSegment(base int64) (*segment, error) {
	s := &segment{log: l, base: base}
	for _, suffix := range []string{indexSuffix, timeIndexSuffix, txnIndexSuffix} {
		if err := removeIfThere(l.fs, s.path(suffix)); err != nil {
			return nil, storageError("remove", s.path(suffix), err)
		}
	}
	path := s.path(logSuffix)
	file, err := l.fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, storageError("create", path, err)
	}
	if c := l.Config(); c.Preallocate {
		if err := file.Reserve(int64(c.SegmentBytes)); err != nil {
			return nil, storageError("reserve space for", path, errors.Join(err, file.Close()))
		}
	}
	s.file.adopt(file).release()
	l.dirDirty.Store(true)
	return s, nil
}

// writeSnapshotLocked writes the producers' state below offset. It is made durable by the next flush; a torn one fails its
// CRC and the loader takes an older one.
func (l *Log) writeSnapshotLocked(offset int64) error {
	path := l.path(offset, snapshotSuffix)
	if err := putFile(l.fs, path, l.mu.producers.Snapshot()); err != nil {
		_ = l.fs.Remove(path)
		return storageError("write", path, err)
	}
	l.dirDirty.Store(true)
	return nil
}

func (l *Log) path(offset int64, suffix string) string {
	return fmt.Sprintf("%s/%s", l.Dir(), fileName(offset, suffix))
}
