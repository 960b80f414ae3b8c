package logstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"ottla/internal/cluster"
)

// loadState is what the log directory knows of a partition before its log is loaded.
type loadState struct {
	clean         bool  // the directory was stopped cleanly: what is in it is whole, also the indexes
	recoveryPoint int64 // everything below is durable
	logStart      int64
	highWatermark int64
}

// loader loads one log. It is thrown away afterwards.
type loader struct {
	*Log
	state     loadState
	config    *Config
	files     map[string]fs.DirEntry
	segments  []*segment
	damaged   map[int64]bool // bases of segments that need recovery although the start is clean
	snapshots []int64        // ascending
	hadNone   bool           // there was no snapshot at all
}

// loadLog opens the log in dir, which exists.
func loadLog(d *logDir, dir string, tp cluster.TopicPartition, c *Config, state loadState) (*Log, error) {
	l := &Log{tp: tp, fs: d.fs, owner: d}
	l.dir.Store(&dir)
	l.config.Store(c)
	l.mu.producers = NewProducerState()
	l.lastFlush.Store(d.now().UnixNano())
	l.recovery.CheckpointedHighWatermark = state.highWatermark
	l.recovery.CheckpointedRecoveryPoint = state.recoveryPoint
	l.mu.completeAt = -1
	ld := &loader{Log: l, state: state, config: c, damaged: map[int64]bool{}}
	if err := ld.load(); err != nil {
		l.closeFiles()
		return nil, fmt.Errorf("load %s: %w", dir, err)
	}
	return l, nil
}

func (ld *loader) load() error {
	if err := ld.list(); err != nil {
		return err
	}
	if err := ld.openSmallFiles(); err != nil {
		return err
	}
	if err := ld.finishSwaps(); err != nil {
		return err
	}
	if err := ld.openSegments(); err != nil {
		return err
	}
	if err := ld.recover(); err != nil {
		return err
	}
	return ld.finish()
}

// list reads the directory and removes what a crash may have left.
func (ld *loader) list() error {
	entries, err := ld.fs.ReadDir(ld.Dir())
	if err != nil {
		return storageError("list", ld.Dir(), err)
	}
	ld.files = make(map[string]fs.DirEntry, len(entries))
	for _, e := range entries {
		name := e.Name()
		leftover := strings.HasSuffix(name, deletedSuffix) && !strings.HasSuffix(name, ".checkpoint"+deletedSuffix)
		if leftover || strings.HasSuffix(name, ".tmp") {
			if err := ld.remove(name); err != nil {
				return err
			}
			continue
		}
		ld.files[name] = e
	}
	return nil
}

func (ld *loader) remove(name string) error {
	path := filepath.Join(ld.Dir(), name)
	if err := removeIfThere(ld.fs, path); err != nil {
		return storageError("remove", path, err)
	}
	delete(ld.files, name)
	ld.dirDirty.Store(true)
	return nil
}

// openSmallFiles reads topic id and epochs. A malformed epoch history is rebuilt from the batches: all of them.
func (ld *loader) openSmallFiles() error {
	if id, ok, err := ReadPartitionMetadata(ld.fs, ld.Dir()); err != nil {
		return err
	} else if ok {
		ld.topicID.Store(&id)
	}
	epochs, err := OpenEpochCache(ld.fs, ld.Dir())
	if errors.Is(err, ErrCheckpoint) {
		ld.event(ld.owner.logger.Warn()).Err(err).Msg("epoch history is malformed: rebuilding it from all batches")
		if err := ld.remove(EpochCheckpointFile); err != nil {
			return err
		}
		ld.state.clean, ld.state.recoveryPoint = false, 0
		epochs, err = OpenEpochCache(ld.fs, ld.Dir())
	}
	ld.epochs = epochs
	return err
}

// finishSwaps completes or discards what the cleaner was doing: .cleaned files are output that is not yet valid, .swap files
// are valid and replace the segments in their range.
func (ld *loader) finishSwaps() error {
	smallestCleaned := int64(-1)
	var swaps []string
	for name := range ld.files {
		offset, _, ok := parseFileName(name)
		switch {
		case !ok:
		case strings.HasSuffix(name, cleanedSuffix):
			if smallestCleaned < 0 || offset < smallestCleaned {
				smallestCleaned = offset
			}
		case strings.HasSuffix(name, swapSuffix):
			swaps = append(swaps, name)
		}
	}
	var valid []string
	for _, name := range swaps {
		offset, _, _ := parseFileName(name)
		if smallestCleaned >= 0 && offset >= smallestCleaned { // not all outputs of that cleaning were renamed
			if err := ld.remove(name); err != nil {
				return err
			}
			continue
		}
		valid = append(valid, name)
	}
	for name := range ld.files {
		if strings.HasSuffix(name, cleanedSuffix) {
			if err := ld.remove(name); err != nil {
				return err
			}
		}
	}
	return ld.swapIn(valid)
}

func (ld *loader) swapIn(swaps []string) error {
	if len(swaps) == 0 {
		return nil
	}
	for _, name := range swaps {
		base, suffix, _ := parseFileName(name)
		if suffix != logSuffix+swapSuffix {
			continue
		}
		end, err := ld.endOfFile(name, base)
		if err != nil {
			return err
		}
		if err := ld.removeRange(base, end); err != nil {
			return err
		}
	}
	for _, name := range swaps {
		final := strings.TrimSuffix(name, swapSuffix)
		if err := ld.fs.Rename(filepath.Join(ld.Dir(), name), filepath.Join(ld.Dir(), final)); err != nil {
			return storageError("rename", filepath.Join(ld.Dir(), name), err)
		}
		delete(ld.files, name)
	}
	ld.dirDirty.Store(true)
	if err := ld.syncDir(); err != nil {
		return err
	}
	return ld.list()
}

// endOfFile is the exclusive end of the offsets in a .log.
func (ld *loader) endOfFile(name string, base int64) (int64, error) {
	path := filepath.Join(ld.Dir(), name)
	f, err := ld.fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return 0, storageError("open", path, err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return 0, storageError("stat", path, err)
	}
	scan := newScanner(f, info.Size())
	defer scan.done()
	end := base
	for pos := int64(0); ; {
		b, err := scan.at(pos)
		if err != nil {
			return end, nil // its recovery will say what is wrong
		}
		end = b.NextOffset()
		pos += int64(b.Size())
	}
}

func (ld *loader) removeRange(from, to int64) error {
	for name := range ld.files {
		offset, _, ok := parseFileName(name)
		if !ok || strings.HasSuffix(name, swapSuffix) || offset < from || offset >= to {
			continue
		}
		if err := ld.remove(name); err != nil {
			return err
		}
	}
	return nil
}

// openSegments makes the list of segments. Nothing is read yet, except transaction indexes where there are any.
func (ld *loader) openSegments() error {
	var leftovers []string
	for name, e := range ld.files {
		base, suffix, ok := parseFileName(name)
		if !ok {
			continue
		}
		switch suffix {
		case logSuffix:
			info, err := e.Info()
			if err != nil {
				return storageError("stat", filepath.Join(ld.Dir(), name), err)
			}
			ld.segments = append(ld.segments, &segment{log: ld.Log, base: base, sealedSize: info.Size()})
		case snapshotSuffix:
			ld.snapshots = append(ld.snapshots, base)
		case indexSuffix, timeIndexSuffix, txnIndexSuffix:
			if _, ok := ld.files[fileName(base, logSuffix)]; !ok {
				leftovers = append(leftovers, name)
			}
		}
	}
	for _, name := range leftovers {
		if err := ld.remove(name); err != nil {
			return err
		}
	}
	slices.SortFunc(ld.segments, func(a, b *segment) int { return compareOffsets(a.base, b.base) })
	slices.Sort(ld.snapshots)
	ld.hadNone = len(ld.snapshots) == 0
	for _, s := range ld.segments {
		if err := ld.openSegment(s); err != nil {
			return err
		}
	}
	if len(ld.segments) > 0 {
		return nil
	}
	s, err := ld.createSegment(max(ld.state.logStart, 0))
	ld.segments = append(ld.segments, s)
	return err
}

func compareOffsets(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// openSegment looks for damage that can be seen from outside.
func (ld *loader) openSegment(s *segment) error {
	if s.sealedSize > 0 {
		e, ok := ld.files[fileName(s.base, indexSuffix)]
		if !ok || !wholeEntries(e, indexEntrySize) || !ld.wholeIfThere(s, timeIndexSuffix, timeEntrySize) {
			ld.damaged[s.base] = true
		}
	}
	if _, ok := ld.files[fileName(s.base, txnIndexSuffix)]; !ok {
		return nil
	}
	x, err := OpenTxnIndex(ld.fs, s.path(txnIndexSuffix))
	if err != nil {
		return storageError("open", s.path(txnIndexSuffix), err)
	}
	s.txn.Store(x)
	if err := x.Check(s.base); err != nil {
		ld.event(ld.owner.logger.Warn()).Str("file", s.path(txnIndexSuffix)).Err(err).Msg("transaction index is damaged: rebuilding it from the batches")
		ld.damaged[s.base] = true
	}
	return nil
}

func (ld *loader) wholeIfThere(s *segment, suffix string, entrySize int64) bool {
	e, ok := ld.files[fileName(s.base, suffix)]
	return !ok || wholeEntries(e, entrySize)
}

func wholeEntries(e fs.DirEntry, size int64) bool {
	info, err := e.Info()
	return err == nil && info.Size()%size == 0
}

// recover checks the segments that may be damaged: after an unclean stop those from the recovery point on.
func (ld *loader) recover() error {
	ld.recovery.Unclean = !ld.state.clean
	first := len(ld.segments)
	if !ld.state.clean {
		v := view{segments: ld.segments}
		first = v.find(ld.state.recoveryPoint)
	}
	for i := 0; i < len(ld.segments); i++ {
		if i < first && !ld.damaged[ld.segments[i].base] {
			continue
		}
		if i > first {
			if ld.segments[i].base > ld.mu.producers.MapEnd() && !ld.config.Compact {
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

// cutHole removes the segments from i on, which a loss of power left behind a hole: the end of the segment before was not yet
// on the disk. Kept, they would hide for ever that records are missing; cut, they come again from the leader. In a compacted
// log a hole can be the cleaner's work, and must stay.
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
	if newest, ok := ld.epochs.Latest(); b.Magic() == 2 && (!ok || b.LeaderEpoch() > newest.Epoch) {
		ld.epochs.AssignInMemory(b.LeaderEpoch(), b.BaseOffset())
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

// finish decides where the log begins and ends, and publishes the first view.
func (ld *loader) finish() error {
	l := ld.Log
	last := ld.segments[len(ld.segments)-1]
	t, end, err := ld.openTail(last)
	if errors.Is(err, ErrCorrupt) || errors.Is(err, io.ErrUnexpectedEOF) {
		// A clean marker lied, or somebody touched the files.
		ld.damaged[last.base] = true
		if err := ld.recoverSegment(len(ld.segments)-1, false); err != nil {
			return err
		}
		t, end, err = ld.openTail(last)
	}
	if err != nil {
		return err
	}
	if end < ld.state.logStart {
		ld.event(ld.owner.logger.Warn()).Int64("offset", end).Int64("log_start", ld.state.logStart).Msg("log ends below its start: beginning anew")
		if t, err = ld.startOver(); err != nil {
			return err
		}
		end = ld.state.logStart
	}
	start := max(ld.state.logStart, ld.segments[0].base)
	ld.epochs.TruncateFromEnd(end)
	ld.epochs.TruncateFromStart(start)
	if err := ld.epochs.Flush(); err != nil {
		return err
	}
	if err := ld.tidySnapshots(t.seg.base, end); err != nil {
		return err
	}
	if err := ld.producersAt(end); err != nil {
		return err
	}
	l.mu.tail = t
	l.mu.idleEnd = end
	if ld.state.clean && len(ld.damaged) == 0 && !ld.hadNone {
		l.mu.completeAt = end
	}
	flushed := end
	if !ld.state.clean {
		flushed = max(min(ld.state.recoveryPoint, end), start)
	}
	l.flushed.Store(flushed)
	v := &view{segments: ld.segments, last: lastAppend{base: -1}, logStart: start, logEnd: end, highWatermark: ld.state.highWatermark, firstUnstable: noUnstable}
	t.show(v)
	v.settle()
	l.mu.producers.OnHighWatermark(v.highWatermark)
	v.firstUnstable = l.firstUnstableLocked()
	v.settle()
	l.view.Store(v)
	return nil
}

// openTail takes over the last segment: its indexes stay in their files.
func (ld *loader) openTail(s *segment) (tail, int64, error) {
	t := newTail(s, ld.owner.now(), ld.owner.jitter(ld.config))
	t.size = s.sealedSize
	if t.size == 0 {
		return t, s.base, nil
	}
	t.indexFiles = true
	index, err := s.acquireIndex()
	if err != nil {
		return t, 0, err
	}
	defer index.release()
	if t.indexOnDisk, err = entriesIn(index.file, indexEntrySize); err != nil {
		return t, 0, storageError("stat", s.path(indexSuffix), err)
	}
	times, err := s.acquireTimeIndex()
	if err != nil {
		return t, 0, err
	}
	defer times.release()
	if t.timesOnDisk, err = entriesIn(times.file, timeEntrySize); err != nil {
		return t, 0, storageError("stat", s.path(timeIndexSuffix), err)
	}
	end, err := ld.scanTail(&t)
	s.closeFiles() // an idle partition needs no descriptor
	return t, end, err
}

// scanTail reads the batch headers from the last index entry on, and completes what the tail knows: its largest timestamp,
// and how far the last entry is. It returns the log's end: the offset after the last batch.
func (l *Log) scanTail(t *tail) (end int64, err error) {
	s := t.seg
	pos, err := t.lastIndexed()
	if err != nil {
		return 0, err
	}
	if err := t.readLastTime(); err != nil {
		return 0, err
	}
	t.sinceIndex = int(t.size - pos)
	end = s.base
	if pos >= t.size {
		if t.size == 0 {
			return end, nil
		}
		return 0, corrupt("index position", pos, t.size)
	}
	f, err := s.acquireLog()
	if err != nil {
		return 0, err
	}
	defer f.release()
	scan := newScanner(f.file, t.size)
	defer scan.done()
	for {
		b, err := scan.at(pos)
		if errors.Is(err, io.EOF) {
			return end, nil
		}
		if err != nil {
			return 0, fmt.Errorf("%s at %d: %w", s.path(logSuffix), pos, err)
		}
		t.updateMax(b)
		end = b.NextOffset()
		pos += int64(b.Size())
	}
}

// lastIndexed is the position of the last index entry, 0 when there is none.
func (t *tail) lastIndexed() (int64, error) {
	if n := len(t.index); n > 0 {
		return int64(t.index[n-1].pos), nil
	}
	if t.indexOnDisk == 0 {
		return 0, nil
	}
	var e [indexEntrySize]byte
	x := offsetIndex{seg: t.seg}
	if err := x.readDisk(t.indexOnDisk-1, e[:]); err != nil {
		return 0, err
	}
	return int64(parseIndexEntry(e[:]).pos), nil
}

func (t *tail) readLastTime() error {
	var e timeEntry
	switch n := len(t.times); {
	case n > 0:
		e = t.times[n-1]
	case t.timesOnDisk == 0:
		return nil
	default:
		f, err := t.seg.acquireTimeIndex()
		if err != nil {
			return err
		}
		defer f.release()
		if e, err = readTimeEntry(f.file, t.timesOnDisk-1); err != nil {
			return t.seg.readFault(timeIndexSuffix, err)
		}
	}
	t.lastTime = e.timestamp
	t.max = segmentTimes{max: e.timestamp, maxOffset: t.seg.base + int64(e.rel)}
	return nil
}

// startOver replaces a log that ends below its start.
func (ld *loader) startOver() (tail, error) {
	for _, s := range ld.segments {
		s.retire()
		for _, suffix := range append(segmentSuffixes, snapshotSuffix) {
			if err := ld.remove(fileName(s.base, suffix)); err != nil {
				return tail{}, err
			}
		}
	}
	ld.epochs.Clear()
	ld.mu.producers.Reset(ld.state.logStart)
	s, err := ld.createSegment(ld.state.logStart)
	if err != nil {
		return tail{}, err
	}
	ld.segments = []*segment{s}
	return newTail(s, ld.owner.now(), ld.owner.jitter(ld.config)), nil
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
