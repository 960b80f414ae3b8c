package logstore

import (
	"errors"
	"io/fs"
	"slices"
)

// listSnapshots returns the offsets of the producer snapshots in the directory, ascending.
func (l *Log) listSnapshots() ([]int64, error) {
	entries, err := l.fs.ReadDir(l.Dir())
	if err != nil {
		return nil, storageError("list", l.Dir(), err)
	}
	var offsets []int64
	for _, e := range entries {
		if offset, suffix, ok := parseFileName(e.Name()); ok && suffix == snapshotSuffix {
			offsets = append(offsets, offset)
		}
	}
	slices.Sort(offsets)
	return offsets, nil
}

// removeSnapshots removes the snapshots whose offset is chosen.
func (l *Log) removeSnapshots(chosen func(offset int64) bool) error {
	offsets, err := l.listSnapshots()
	if err != nil {
		return err
	}
	for _, offset := range offsets {
		if !chosen(offset) {
			continue
		}
		if err := removeIfThere(l.fs, l.path(offset, snapshotSuffix)); err != nil {
			return storageError("remove", l.path(offset, snapshotSuffix), err)
		}
		l.dirDirty.Store(true)
	}
	return nil
}

// rebuildProducersLocked sets the producers to what they were at offset, the log's end after a cut. A state that knows no
// producer had none below either, but for expired ones.
func (l *Log) rebuildProducersLocked(offset int64) error {
	if err := l.removeSnapshots(func(at int64) bool { return at > offset }); err != nil {
		return err
	}
	if l.mu.producers.Len() == 0 {
		l.mu.producers.Reset(offset)
		return nil
	}
	snapshots, err := l.listSnapshots()
	if err != nil {
		return err
	}
	v := l.view.Load()
	if err := l.loadProducers(snapshots, v.segments, offset); err != nil {
		return err
	}
	l.mu.producers.OnHighWatermark(min(v.highWatermark, offset))
	return nil
}

// loadProducers takes the newest readable snapshot at or below offset and replays the batches from there to offset.
// Unreadable ones are removed. segments are those of the log, the sizes of all but the last are known; that one is read to its end.
func (l *Log) loadProducers(snapshots []int64, segments []*segment, offset int64) error {
	p := l.mu.producers
	p.Reset(segments[0].base)
	for _, at := range slices.Backward(snapshots) {
		if at > offset || at < segments[0].base {
			continue
		}
		if ok, err := l.readSnapshot(at); err != nil {
			return err
		} else if ok {
			break
		}
	}
	for i, s := range segments {
		if s.base >= offset || p.MapEnd() >= offset { // the snapshot of a clean stop is of the very end
			break
		}
		if i+1 < len(segments) && segments[i+1].base <= p.MapEnd() {
			continue
		}
		if err := l.replaySegment(s, offset); err != nil {
			return err
		}
	}
	p.SetMapEnd(offset)
	return nil
}

func (l *Log) readSnapshot(at int64) (ok bool, err error) {
	path := l.path(at, snapshotSuffix)
	data, err := readFile(l.fs, path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, storageError("read", path, err)
	}
	if err := l.mu.producers.LoadSnapshot(data, at, l.owner.now(), l.Config().producerExpiration()); err != nil {
		l.event(l.owner.logger.Warn()).Str("file", path).Err(err).Msg("producer snapshot is damaged: taking an older one")
		return false, removeIfThere(l.fs, path)
	}
	return true, nil
}

// replaySegment feeds the batches of a segment below offset to the producers. Its transaction index is not touched.
func (l *Log) replaySegment(s *segment, offset int64) error {
	f, err := s.acquireLog()
	if err != nil {
		return err
	}
	defer f.release()
	info, err := f.file.Stat()
	if err != nil {
		return storageError("stat", s.path(logSuffix), err)
	}
	from, err := s.positionOf(l.mu.producers.MapEnd())
	if err != nil {
		return err
	}
	_, cause, err := readBatches(f.file, from, info.Size(), func(_ int64, b Batch) error {
		if b.LastOffset() < l.mu.producers.MapEnd() || b.BaseOffset() >= offset || !b.HasProducerID() {
			return nil
		}
		if err := l.mu.producers.Prepare(&l.mu.update, b, OriginReplication); err != nil {
			return err
		}
		l.mu.producers.Commit(&l.mu.update)
		return nil
	})
	if err != nil {
		return storageError("read", s.path(logSuffix), err)
	}
	if cause != nil {
		return storageError("read", s.path(logSuffix), cause)
	}
	return nil
}

// positionOf is a position from which a scan finds offset, by the index file alone.
func (s *segment) positionOf(offset int64) (int64, error) {
	if offset <= s.base {
		return 0, nil
	}
	return offsetIndex{seg: s, onDisk: -1}.floorPos(offset - s.base)
}

// producersAt is loadProducers while loading. A log that was stopped cleanly without any snapshot is taken to have no producers,
// as in Kafka: it comes from before there were any.
func (ld *loader) producersAt(offset int64) error {
	if p := ld.mu.producers; p.MapEnd() == offset && (offset > ld.segments[0].base || p.Len() == 0) {
		return nil
	}
	if ld.state.clean && ld.hadNone && len(ld.damaged) == 0 {
		ld.mu.producers.Reset(offset)
		return nil
	}
	return ld.loadProducers(ld.snapshots, ld.segments, offset)
}

// tidySnapshots removes those that belong to no segment, except the newest one behind the last base, and those of what was cut.
func (ld *loader) tidySnapshots(lastBase, end int64) error {
	bases := make(map[int64]bool, len(ld.segments))
	for _, s := range ld.segments {
		bases[s.base] = true
	}
	newest := int64(-1)
	for _, at := range ld.snapshots {
		if at <= end {
			newest = at
		}
	}
	kept := ld.snapshots[:0]
	for _, at := range ld.snapshots {
		if at <= end && (bases[at] || at == newest && at > lastBase) {
			kept = append(kept, at)
			continue
		}
		if err := ld.remove(fileName(at, snapshotSuffix)); err != nil {
			return err
		}
	}
	ld.snapshots = kept
	return nil
}
