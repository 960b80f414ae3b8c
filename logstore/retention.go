package logstore

import (
	"errors"
	"slices"
	"time"
)

// Retain applies retention: segments wholly below the log start go; with cleanup.policy=delete also those that are too
// much (retention.bytes) or too old (retention.ms). Always the oldest first, up to the first one that stays, and nothing at or
// above the high watermark. When all go, an empty segment begins at the log's end. It returns how many went.
//
// Files are renamed to .deleted at once and removed by the next DeletePass after file.delete.delay.ms.
func (l *Log) Retain(now time.Time) (removed int, err error) {
	c := l.Config()
	err = l.withView(func(v *view) error {
		e, err := v.expired(c, now)
		if e.segments() == 0 || err != nil {
			return err
		}
		removed, err = l.removeOldest(c, v, e, now)
		return err
	})
	return removed, err
}

// expiry is how many of the oldest segments are to go, for each reason.
type expiry struct{ belowStart, tooMuch, tooOld int }

func (e expiry) segments() int { return max(e.belowStart, e.tooMuch, e.tooOld) }

// reason says why the i-th segment goes: the one that needs no setting first.
func (e expiry) reason(i int) string {
	switch {
	case i < e.belowStart:
		return "below the log start"
	case i < e.tooOld:
		return "retention.ms"
	}
	return "retention.bytes"
}

func (v *view) expired(c *Config, now time.Time) (e expiry, err error) {
	e.belowStart = v.belowStart()
	if !c.Delete {
		return e, nil
	}
	e.tooMuch = v.tooMuch(c)
	e.tooOld, err = v.tooOld(c, now)
	return e, err
}

// deletable: everything in it is below the high watermark, and it is not the empty segment at the end.
func (v *view) deletable(i int) bool {
	return v.highWatermark >= v.segmentEnd(i) && (!v.isActive(i) || v.size > 0)
}

func (v *view) belowStart() int {
	n := 0
	for n+1 < len(v.segments) && v.segments[n+1].base <= v.logStart && v.deletable(n) {
		n++
	}
	return n
}

// tooMuch never goes below retention.bytes.
func (v *view) tooMuch(c *Config) int {
	if c.RetentionBytes < 0 {
		return 0
	}
	over := v.totalSize() - c.RetentionBytes
	n := 0
	for n < len(v.segments) && over-v.segmentSize(n) >= 0 && v.deletable(n) {
		over -= v.segmentSize(n)
		n++
	}
	return n
}

func (v *view) tooOld(c *Config, now time.Time) (int, error) {
	if c.RetentionMs < 0 {
		return 0, nil
	}
	n := 0
	for n < len(v.segments) && v.deletable(n) {
		newest, err := v.largestTimestamp(n)
		if err != nil {
			return 0, err
		}
		if now.UnixMilli()-newest <= c.RetentionMs {
			break
		}
		n++
	}
	return n, nil
}

// removeOldest removes the segments of seen that are to go, when they still are the oldest.
func (l *Log) removeOldest(c *Config, seen *view, e expiry, now time.Time) (int, error) {
	oldest := seen.segments[:e.segments()]
	if err := l.lock(); err != nil {
		return 0, err
	}
	defer l.unlock()
	v := l.view.Load()
	if len(v.segments) < len(oldest) || !slices.Equal(v.segments[:len(oldest)], oldest) {
		return 0, errSegmentGone
	}
	if len(v.segments) == len(oldest) {
		if v.highWatermark < v.logEnd { // something was appended meanwhile
			return 0, nil
		}
		err := l.rollLocked(c, v.logEnd, now)
		var fault *StorageError
		switch {
		case err == nil:
			v = l.view.Load()
		case errors.As(err, &fault) && fault.Full && len(oldest) > 1: // what goes makes room for the next pass
			oldest = oldest[:len(oldest)-1]
		default:
			return 0, err
		}
	}
	left := v.segments[len(oldest):]
	start := max(v.logStart, left[0].base)
	l.moveLogStartLocked(start)
	l.publish(func(v *view) { v.segments = slices.Clone(left) })
	var fault error
	for _, s := range oldest {
		fault = errors.Join(fault, l.discard(s))
	}
	l.owner.touchAll()
	if fault != nil {
		return len(oldest), l.faultLocked(fault)
	}
	l.tellRemoved(seen, e, len(oldest), start)
	return len(oldest), nil
}

// tellRemoved writes a line for each removed segment: what it held, and why it went.
func (l *Log) tellRemoved(seen *view, e expiry, n int, start int64) {
	for i := range n {
		newest := NoTimestamp
		if t := seen.segments[i].sealedTimes.Load(); t != nil {
			newest = t.max
		}
		l.event(l.owner.logger.Info()).Int64("base", seen.segments[i].base).Int64("end", seen.segmentEnd(i)).Int64("bytes", seen.segmentSize(i)).
			Int64("newest_ms", newest).Str("reason", e.reason(i)).Int64("log_start", start).Msg("retention removed a segment")
	}
}

// closeIdleFiles closes descriptors that were not used since the last call, and moves an idle log's index entries from memory
// to their files.
func (l *Log) closeIdleFiles() {
	for _, s := range l.view.Load().segments {
		s.closeIdle()
	}
	if l.lock() != nil {
		return
	}
	defer l.unlock()
	t, end := &l.mu.tail, l.view.Load().logEnd
	if end == l.mu.idleEnd && len(t.index)+len(t.times) > 0 && t.spillTo(0) == nil {
		l.publish(t.show)
	}
	l.mu.idleEnd = end
}

// expireProducers forgets producers that were idle for too long.
func (l *Log) expireProducers(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.producers.Len() > 0 {
		l.mu.producers.Expire(now, l.Config().producerExpiration())
	}
}

// close ends the log. clean leaves everything durable and complete: segments, indexes of exact length, epochs, a snapshot.
func (l *Log) close(clean bool) error {
	var err error
	if clean {
		err = l.Flush(l.LogEndOffset() + 1) // also new names without data
		if err == nil {
			err = l.completeFiles()
		}
	}
	l.mu.Lock()
	if l.mu.err == nil {
		l.mu.err = ErrClosed
	}
	l.mu.Unlock()
	l.closeFiles()
	return err
}

func (l *Log) closeFiles() {
	v := l.view.Load()
	if v == nil {
		return
	}
	for _, s := range v.segments {
		s.closeFiles()
	}
}

func (l *Log) completeFiles() error {
	if err := l.lock(); err != nil {
		return err
	}
	defer l.unlock()
	l.epochs.TruncateFromEnd(l.view.Load().logEnd) // one without records would be forgotten by the next start
	t := &l.mu.tail
	if l.mu.completeAt == l.view.Load().logEnd && l.mu.truncations == 0 && !l.dirDirty.Load() {
		return l.flushEpochsLocked() // untouched since a clean start: stopping costs nothing
	}
	if t.size > 0 {
		if err := t.seal(l.Config()); err != nil {
			return l.faultLocked(err)
		}
		if err := t.seg.sync(false); err != nil {
			return l.parkLocked(err)
		}
	}
	end := l.view.Load().logEnd
	if err := l.completeSnapshotLocked(end); err != nil {
		return l.faultLocked(err)
	}
	if err := l.flushEpochsLocked(); err != nil {
		return err
	}
	l.dirDirty.Store(true)
	if err := l.syncDir(); err != nil {
		return l.parkLocked(err)
	}
	return nil
}

// completeSnapshotLocked leaves a durable snapshot at the log's end: without any, Kafka would take the log to have no
// producers and no open transactions.
func (l *Log) completeSnapshotLocked(end int64) error {
	if end == 0 {
		return nil
	}
	if err := l.removeSnapshots(func(at int64) bool { return at > end }); err != nil {
		return err
	}
	path := l.path(end, snapshotSuffix)
	if err := writeFile(l.fs, path, l.mu.producers.Snapshot()); err != nil {
		return storageError("write", path, err)
	}
	return nil
}
