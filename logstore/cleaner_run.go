package logstore

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// errMapTooSmall: not even one record more fits into the map than at the last time.
var errMapTooSmall = errors.New("the keys of one batch do not fit into the dedupe buffer")

// cleanRun is one cleaning of one log.
type cleanRun struct {
	cleanPlan
	ctx      context.Context
	throttle *throttle
	now      time.Time
	keys     *offsetMap
	end      int64 // exclusive: how far the map has seen
	filter   cleanFilter
}

func (c *Cleaner) clean(ctx context.Context, plan cleanPlan, now time.Time) (cleanStats, error) {
	settings := c.o.Settings()
	c.throttle.set(settings.BytesPerSecond)
	r := &cleanRun{cleanPlan: plan, ctx: ctx, throttle: &c.throttle, now: now, keys: settings.newMap()}
	if err := r.buildMap(); err != nil {
		return r.filter.stats, err
	}
	if r.end <= r.firstDirty {
		return r.filter.stats, errMapTooSmall
	}
	if err := r.log.flushAndNote(r.end); err != nil {
		return r.filter.stats, err
	}
	if err := r.prepareFilter(); err != nil {
		return r.filter.stats, err
	}
	for _, group := range r.groups() {
		if err := r.cleanGroup(group); err != nil {
			return r.filter.stats, err
		}
	}
	r.log.setCleanedTo(r.end)
	return r.filter.stats, r.log.owner.cleanPoints.write()
}

// eachBatch reads a segment's batches from pos on. Every one is whole and has its right checksum.
func (r *cleanRun) eachBatch(i int, pos int64, fn func(b Batch) error) error {
	s := r.view.segments[i]
	f, err := s.acquireLog()
	if err != nil {
		return err
	}
	defer f.release()
	_, cause, err := readBatches(f.file, pos, r.view.segmentSize(i), func(pos int64, b Batch) error {
		if err := r.throttle.pass(r.ctx, len(b)); err != nil {
			return err
		}
		if err := b.VerifyCRC(); err != nil {
			return fmt.Errorf("%s at %d: %w", s.path(logSuffix), pos, err)
		}
		if err := fn(b); err != nil {
			return fmt.Errorf("%s at %d: %w", s.path(logSuffix), pos, err)
		}
		return nil
	})
	if cause != nil {
		err = cause
		if !errors.Is(cause, ErrCorrupt) { // a size that leads out of the segment
			err = &CorruptError{What: s.path(logSuffix), Cause: cause}
		}
	}
	if err != nil && s.gone.Load() { // cut or removed under our hands
		return errSegmentGone
	}
	if err == nil || errors.Is(err, ErrCorrupt) || r.ctx.Err() != nil {
		return err
	}
	if errors.Is(err, errMapFull) {
		return err
	}
	return storageError("clean", s.path(logSuffix), err)
}

// errMapFull ends the filling of the map. It is no fault.
var errMapFull = errors.New("the dedupe buffer is full")

// buildMap reads [firstDirty, firstUncleanable), as far as the map has room.
func (r *cleanRun) buildMap() error {
	v := r.view
	txns := newCleanedTxns()
	aborted, err := r.log.AbortedTransactions(r.firstDirty, r.firstUncleanable)
	if err != nil {
		return err
	}
	txns.add(aborted)
	r.end = r.firstDirty
	for i := v.find(r.firstDirty); v.segments[i].base < r.firstUncleanable; i++ {
		pos := int64(0)
		if v.segments[i].base < r.firstDirty {
			if pos, err = v.offsetIndex(i).floorPos(r.firstDirty - v.segments[i].base); err != nil {
				return err
			}
		}
		err := r.eachBatch(i, pos, func(b Batch) error { return r.mapBatch(b, txns) })
		if errors.Is(err, errMapFull) {
			return nil
		}
		if err != nil {
			return err
		}
		r.end = v.segmentEnd(i) // also over a gap at the segment's end
	}
	return nil
}

func (r *cleanRun) mapBatch(b Batch, txns *cleanedTxns) error {
	if b.LastOffset() < r.firstDirty {
		return nil
	}
	if b.IsControl() {
		if _, _, err := txns.marker(b); err != nil {
			return err
		}
		r.end = b.NextOffset()
		return nil
	}
	if txns.data(b) {
		r.end = b.NextOffset()
		return nil
	}
	full := false
	err := r.filter.eachRecord(b, func(offset int64, key []byte, keyed, _ bool) {
		if full || !keyed || offset < r.firstDirty {
			return
		}
		if full = !r.keys.put(key, offset); !full {
			r.end = offset + 1
		}
	})
	if err != nil {
		return err
	}
	if full {
		return errMapFull
	}
	r.end = b.NextOffset()
	return nil
}

func (r *cleanRun) prepareFilter() error {
	r.filter = cleanFilter{
		keys: r.keys, mapEnd: r.end, txns: newCleanedTxns(), producers: map[int64]ProducerInfo{},
		now: r.now, deleteRetention: r.config.DeleteRetention, roundEnd: r.end,
	}
	for _, p := range r.log.ActiveProducers() {
		r.filter.producers[p.ProducerID] = p
	}
	return nil
}

// groups are the segments to copy, each group into one: all below the end of the map, as many together as one segment may hold.
func (r *cleanRun) groups() [][]int {
	v, c := r.view, r.config
	var groups [][]int
	var bytes, indexBytes, timeBytes int64
	for i := 0; i < len(v.segments)-1 && v.segments[i].base < r.end; i++ {
		size := v.segmentSize(i)
		index, times := r.indexBytes(i)
		fits := len(groups) > 0 &&
			bytes+size <= int64(c.SegmentBytes) && indexBytes+index <= int64(c.IndexBytes) && timeBytes+times <= int64(c.IndexBytes) &&
			v.segmentEnd(i)-1-v.segments[groups[len(groups)-1][0]].base <= math.MaxInt32
		if !fits {
			groups = append(groups, nil)
			bytes, indexBytes, timeBytes = 0, 0, 0
		}
		last := &groups[len(groups)-1]
		*last = append(*last, i)
		bytes, indexBytes, timeBytes = bytes+size, indexBytes+index, timeBytes+times
	}
	return groups
}

// indexBytes are the sizes of a segment's index files; an unreadable one counts as none.
func (r *cleanRun) indexBytes(i int) (index, times int64) {
	s := r.view.segments[i]
	if info, err := r.log.fs.Stat(s.path(indexSuffix)); err == nil {
		index = info.Size()
	}
	if info, err := r.log.fs.Stat(s.path(timeIndexSuffix)); err == nil {
		times = info.Size()
	}
	return index, times
}

// cleanGroup copies a group of segments without what is superseded, and swaps the copy in.
func (r *cleanRun) cleanGroup(group []int) error {
	v := r.view
	out, err := createCleaned(r.log, r.config, v.segments[group[0]].base)
	if err != nil {
		return err
	}
	if err := r.copyGroup(group, out); err != nil {
		out.discard()
		return err
	}
	sources := make([]*segment, len(group))
	for n, i := range group {
		sources[n] = v.segments[i]
	}
	return r.log.replaceSegments(sources, out)
}

func (r *cleanRun) copyGroup(group []int, out *cleanedSegment) error {
	v := r.view
	var mtime time.Time
	for _, i := range group {
		s := v.segments[i]
		var err error
		if mtime, err = s.modTime(); err != nil {
			return err
		}
		r.filter.keepOldDeletes = mtime.After(r.oldDeletesUntil())
		aborted, err := r.log.AbortedTransactions(s.base, v.segmentEnd(i))
		if err != nil {
			return err
		}
		r.filter.txns.add(aborted)
		if err := r.eachBatch(i, 0, func(b Batch) error { return r.copyBatch(b, out) }); err != nil {
			return err
		}
	}
	return out.finish(mtime)
}

// oldDeletesUntil is, for tombstones of magic 0 and 1, the time up to which segments must have been written for theirs to go.
func (r *cleanRun) oldDeletesUntil() time.Time {
	v := r.view
	for i := len(v.segments) - 2; i >= 0; i-- {
		if v.segmentEnd(i) <= r.firstDirty {
			if mtime, err := v.segments[i].modTime(); err == nil {
				return mtime.Add(-r.config.DeleteRetention)
			}
		}
	}
	return time.Time{}
}

func (r *cleanRun) copyBatch(b Batch, out *cleanedSegment) error {
	kept, err := r.filter.filter(b)
	if err != nil {
		return err
	}
	if kept.aborted != nil {
		out.aborted = append(out.aborted, *kept.aborted)
	}
	if kept.batch == nil {
		return nil
	}
	r.filter.stats.BytesWritten += int64(len(kept.batch))
	if err := r.throttle.pass(r.ctx, len(kept.batch)); err != nil {
		return err
	}
	return out.add(kept.batch)
}
