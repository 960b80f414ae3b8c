package logstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"ottla/internal/cluster"
)

// loadState is what the log directory knows of a partition before its log is loaded.
type loadState struct {
	clean         bool  // the directory was stopped cleanly: what is in it is whole, also the indexes
	recoveryPoint int64 // everything below is durable
	logStart      int64
	highWatermark int64
	cleanedTo     int64 // as the cleaner's checkpoint says; 0: nothing
}

// loader loads one log. It is thrown away afterwards.
type loader struct {
	*Log
	state      loadState
	config     *Config
	files      map[string]fs.DirEntry
	segments   []*segment
	damaged    map[int64]bool // bases of segments that need recovery although the start is clean
	snapshots  []int64        // ascending
	hadNone    bool           // there was no snapshot at all
	epochsLost bool           // the history of epochs is rebuilt as a whole
	leftovers  bool           // files of removed or cleaned segments were found
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
			ld.leftovers = true
			if err := ld.remove(name); err != nil {
				return err
			}
			continue
		}
		ld.leftovers = ld.leftovers || strings.HasSuffix(name, cleanedSuffix) || strings.HasSuffix(name, swapSuffix)
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
		ld.state.clean, ld.state.recoveryPoint, ld.epochsLost = false, 0, true
		epochs, err = OpenEpochCache(ld.fs, ld.Dir())
	}
	ld.epochs = epochs
	return err
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
	if ld.epochsLost {
		if err := ld.epochs.Flush(); err != nil {
			return err
		}
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
	ld.epochsLost = true
	ld.mu.producers.Reset(ld.state.logStart)
	s, err := ld.createSegment(ld.state.logStart)
	if err != nil {
		return tail{}, err
	}
	ld.segments = []*segment{s}
	return newTail(s, ld.owner.now(), ld.owner.jitter(ld.config)), nil
}
