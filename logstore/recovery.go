package logstore

import (
	"errors"
	"io"
	"sync"
)

// recover checks the segments that may be damaged: after an unclean stop those from the recovery point on.
func (ld *loader) recover() error {
	ld.recovery.Unclean = !ld.state.clean
	first := len(ld.segments)
	if !ld.state.clean {
		v := view{segments: ld.segments}
		first = v.find(ld.state.recoveryPoint)
	}
	ld.tellRecovery(first)
	for i := 0; i < len(ld.segments); i++ {
		if i < first && !ld.damaged[ld.segments[i].base] {
			continue
		}
		if i > first {
			if ld.segments[i].base > ld.mu.producers.MapEnd() && !ld.mayBeCleaned(i-1) {
				return ld.cutHole(i)
			}
			ld.mu.producers.SetMapEnd(ld.segments[i].base) // the one before was recovered too: its producers go on
		}
		if err := ld.recoverSegment(i, i >= first); err != nil {
			return err
		}
	}
	return nil
}

// recoveryWorthTelling is how much there must be to read for a line of its own.
const recoveryWorthTelling = 64 << 20

func (ld *loader) tellRecovery(first int) {
	bytes := int64(0)
	for _, s := range ld.segments[first:] {
		bytes += s.sealedSize
	}
	if bytes >= recoveryWorthTelling {
		ld.event(ld.owner.logger.Info()).Int("segments", len(ld.segments)-first).Int("of", len(ld.segments)).Int64("bytes", bytes).
			Int64("recovery_point", ld.state.recoveryPoint).Msg("checking the segments past the recovery point")
	}
}

// mayBeCleaned reports whether the end of a segment that is recovered can be missing because a cleaner took it: then the hole must
// stay. Ours cleans only below the recovery point in the file. Kafka's may have been ahead of it, up to the cleaner's checkpoint, or
// beyond while it was cleaning; the sources of its last work are then still there, as .deleted files.
func (ld *loader) mayBeCleaned(i int) bool {
	if !ld.config.Compact {
		return false
	}
	return ld.state.recoveryPoint <= 0 || ld.leftovers || ld.segments[i].base < ld.state.cleanedTo
}

// cutHole removes the segments from i on, which a loss of power left behind a hole: the end of the segment before was not yet
// on the disk. Kept, they would hide for ever that records are missing; cut, they come again from the leader.
func (ld *loader) cutHole(i int) error {
	s := ld.segments[i-1]
	end := ld.mu.producers.MapEnd()
	cut, err := ld.removeFrom(i)
	if err != nil {
		return err
	}
	ld.recovery.CutBytes += cut
	ld.recovery.CutFrom = end
	ld.event(ld.owner.logger.Warn()).Str("file", s.path(logSuffix)).Int64("position", s.sealedSize).Int64("bytes", cut).
		Int64("offset", end).Msg("cut the segments behind a hole that an unclean stop left")
	return nil
}

// removeFrom removes segment i and all that follow, durably. It returns their bytes.
func (ld *loader) removeFrom(i int) (bytes int64, err error) {
	later := ld.segments[i:]
	for _, gone := range later {
		bytes += gone.sealedSize
		for _, suffix := range append(segmentSuffixes, snapshotSuffix) {
			if err := ld.remove(fileName(gone.base, suffix)); err != nil {
				return bytes, err
			}
		}
		gone.retire()
	}
	ld.segments = ld.segments[:i]
	if len(later) == 0 {
		return 0, nil
	}
	return bytes, ld.syncDir()
}

// recoverSegment reads a segment from its start, checks every batch, cuts at the first one that is not whole and sound, and
// rebuilds its indexes, the epochs and the producers. After a cut in a log that was not stopped cleanly (cutLater) all later
// segments go: their offsets have no predecessors.
func (ld *loader) recoverSegment(i int, cutLater bool) error {
	s := ld.segments[i]
	if err := ld.producersAt(s.base); err != nil {
		return err
	}
	f, err := s.acquireLog()
	if err != nil {
		return err
	}
	defer f.release()
	if err := ld.resetIndexes(s); err != nil {
		return err
	}
	t := newTail(s, ld.owner.now(), 0)
	t.indexFiles = true
	next := s.base
	pos, cause, err := readBatches(f.file, 0, s.sealedSize, func(pos int64, b Batch) error {
		if err := checkRecovered(b, s.base, next); err != nil {
			return err
		}
		if err := ld.replay(s, b); err != nil {
			return err
		}
		ld.owner.recovered.Add(int64(len(b)))
		t.noteBatch(ld.config, b)
		if len(t.index) > tailEntriesMax {
			if err := t.spillTo(0); err != nil {
				return err
			}
		}
		next = b.NextOffset()
		return nil
	})
	if err != nil {
		return storageError("recover", s.path(logSuffix), err)
	}
	if err := t.seal(ld.config); err != nil {
		return err
	}
	ld.mu.producers.SetMapEnd(next)
	s.sealedTimes.Store(nil)
	if cause == nil {
		return nil
	}
	return ld.cutDamage(i, cutLater, f.file, pos, next, cause)
}

// checkRecovered checks one batch of which the frame is whole.
func checkRecovered(b Batch, base, next int64) error {
	if b.Magic() == 2 && (b.LastOffsetDelta() < 0 || b.BaseOffset() < next) {
		return corrupt("offset", b.BaseOffset(), next)
	}
	if last := b.LastOffset(); last < next || last-base > 1<<31-1 {
		return corrupt("last offset", last, next)
	}
	return b.VerifyCRC()
}

func (ld *loader) resetIndexes(s *segment) error {
	for _, suffix := range []string{indexSuffix, timeIndexSuffix} {
		if err := putFile(ld.fs, s.path(suffix), nil); err != nil {
			return storageError("reset", s.path(suffix), err)
		}
	}
	ld.dirDirty.Store(true)
	if x := s.txn.Load(); x != nil {
		if err := x.Reset(); err != nil {
			return storageError("reset", s.path(txnIndexSuffix), err)
		}
	}
	return nil
}

// replay brings epochs, producers and the segment's transaction index up to a batch.
func (ld *loader) replay(s *segment, b Batch) error {
	// The file is as old as the recovery point, and may even tell of epochs that never had records: the batches know better.
	if known, ok := ld.epochs.EpochAt(b.BaseOffset()); b.Magic() == 2 && (!ok || known != b.LeaderEpoch()) {
		ld.epochs.TruncateFromEnd(b.BaseOffset())
		ld.epochs.Assign(b.LeaderEpoch(), b.BaseOffset())
	}
	if !b.HasProducerID() {
		return nil
	}
	if err := ld.mu.producers.Prepare(&ld.mu.update, b, OriginReplication); err != nil {
		return err
	}
	for _, a := range ld.mu.producers.Commit(&ld.mu.update) {
		x := s.txn.Load()
		if x == nil {
			opened, err := OpenTxnIndex(ld.fs, s.path(txnIndexSuffix))
			if err != nil {
				return err
			}
			x = opened
			s.txn.Store(x)
		}
		if err := x.Append(a); err != nil {
			return err
		}
	}
	return nil
}

// cutDamage removes what is not sound from pos on, and everything behind.
func (ld *loader) cutDamage(i int, cutLater bool, f File, pos, next int64, cause error) error {
	s := ld.segments[i]
	cut := s.sealedSize - pos
	if err := f.Truncate(pos); err != nil {
		return storageError("truncate", s.path(logSuffix), err)
	}
	if err := f.Sync(); err != nil { // else what is cut could come back behind what is appended next
		return storageError("sync", s.path(logSuffix), err)
	}
	s.sealedSize = pos
	later := 0
	if cutLater {
		later = len(ld.segments) - i - 1
		bytes, err := ld.removeFrom(i + 1)
		if err != nil {
			return err
		}
		cut += bytes
	}
	ld.recovery.CutBytes += cut
	ld.recovery.CutFrom = next
	ld.event(ld.owner.logger.Warn()).Str("file", s.path(logSuffix)).Int64("position", pos).Int64("bytes", cut).
		Int64("offset", next).Int("later_segments", later).AnErr("cause", cause).
		Msg("cut the end of a log that an unclean stop left damaged")
	return nil
}

var recoveryBuffers = sync.Pool{New: func() any {
	b := make([]byte, 1<<20)
	return &b
}}

// readBatches reads whole batches of a file's range and hands them to fn. It stops at the first place where no whole batch
// is, or where fn says so with an error that matches ErrCorrupt: pos is that place and cause says why; nil at the end of the
// range. err is a fault of reading, or another error of fn. Memory is bounded by the largest batch that the range can hold.
func readBatches(f File, from, to int64, fn func(pos int64, b Batch) error) (pos int64, cause, err error) {
	pooled := recoveryBuffers.Get().(*[]byte)
	defer recoveryBuffers.Put(pooled)
	buf := *pooled
	pos = from
	for pos < to {
		n := int(min(int64(len(buf)), to-pos))
		if err := readFull(f, buf[:n], pos); err != nil {
			return pos, nil, err
		}
		rest := buf[:n]
		for len(rest) > 0 {
			b, next, err := NextBatch(rest)
			if errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			if err != nil {
				return pos, err, nil
			}
			if err := fn(pos, b); errors.Is(err, ErrCorrupt) {
				return pos, err, nil
			} else if err != nil {
				return pos, nil, err
			}
			pos += int64(len(b))
			rest = next
		}
		if len(rest) < n {
			continue // read on from the batch that was cut
		}
		// Not even one batch fitted.
		size, err := BatchSize(rest)
		if err != nil || int64(size) > to-pos {
			return pos, io.ErrUnexpectedEOF, nil
		}
		buf = make([]byte, size)
	}
	return pos, nil, nil
}
