package logstore

import (
	"errors"
	"path/filepath"
	"sync"
)

// sharedRun lets callers share runs of one costly function: each returns with the result of a run that began after its call.
// The caller that finds nobody running runs; those who come meanwhile elect one that runs next, for all of them.
type sharedRun struct {
	mu      sync.Mutex
	current *run
	next    *run
}

type run struct {
	done chan struct{}
	err  error
}

func (s *sharedRun) do(fn func() error) error {
	s.mu.Lock()
	if next := s.next; next != nil {
		s.mu.Unlock()
		<-next.done
		return next.err
	}
	mine := &run{done: make(chan struct{})}
	if before := s.current; before != nil {
		s.next = mine
		s.mu.Unlock()
		<-before.done
		s.mu.Lock()
		s.next = nil
	}
	s.current = mine
	s.mu.Unlock()

	mine.err = fn()

	s.mu.Lock()
	s.current = nil
	s.mu.Unlock()
	close(mine.done)
	return mine.err
}

// Flush returns once everything below upTo is durable. Callers share fdatasync calls: one that comes while another flushes
// waits for the next, which flushes for all who wait (group commit). It never holds the log's lock while it syncs.
// A failed sync is not retried (the kernel may have dropped the pages): the log is parked.
func (l *Log) Flush(upTo int64) error {
	if upTo <= l.flushed.Load() {
		return nil
	}
	return l.flushRuns.do(l.flushOnce)
}

// flushAndNote returns once everything below offset is durable and the recovery point in the checkpoint says so: a loader then looks
// for holes that a loss of power left only above it, and the cleaner makes holes only below.
func (l *Log) flushAndNote(offset int64) error {
	if err := l.Flush(offset); err != nil {
		return err
	}
	if noted, ok := l.owner.recoveryPoints.get(l.tp); ok && noted >= offset {
		return nil
	}
	return l.owner.recoveryPoints.write()
}

// FlushSoon starts a flush of everything written so far in the background; OnFlushed hears of it.
func (l *Log) FlushSoon() {
	if l.flushPending.Load() || l.flushPending.Swap(true) {
		return // whoever is about to flush will see what was written
	}
	started := l.owner.background.start(func() {
		l.owner.flushers <- struct{}{}
		defer func() { <-l.owner.flushers }()
		l.flushPending.Store(false)
		_ = l.Flush(l.LogEndOffset()) // a fault was reported and parked the log
	})
	if !started {
		l.flushPending.Store(false)
	}
}

// flushOnce syncs what is not yet durable: sealed segments with their indexes and snapshots, the active .log, new names.
// The active segment's indexes need no sync: a start after a crash rebuilds them.
func (l *Log) flushOnce() error {
	if err := l.lock(); err != nil {
		return err
	}
	v, truncations := l.view.Load(), l.mu.truncations
	from := l.flushed.Load()
	l.unlock()
	l.lastFlush.Store(l.owner.now().UnixNano())
	if from >= v.logEnd && !l.dirDirty.Load() {
		return nil
	}
	if err := l.syncSegments(v, from); err != nil {
		return l.park(err)
	}
	if err := l.syncDir(); err != nil {
		return l.park(err)
	}
	if err := l.flushEpochs(); err != nil {
		return err
	}
	if !l.raiseFlushed(v.logEnd, truncations) {
		return nil
	}
	l.owner.recoveryPoints.touch()
	if fn := l.onFlushed.Load(); fn != nil {
		(*fn)(l.flushed.Load())
	}
	return nil
}

// flushEpochs makes the history of epochs durable. Without space nothing is lost but this flush.
func (l *Log) flushEpochs() error {
	err := l.epochs.Flush()
	if err == nil {
		return nil
	}
	fault := storageError("write", filepath.Join(l.Dir(), EpochCheckpointFile), err)
	if fault.Full {
		return fault
	}
	return l.park(fault)
}

// raiseFlushed publishes a flush, unless something was cut while it ran: then the next flush will.
func (l *Log) raiseFlushed(offset int64, truncations int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.truncations != truncations || offset <= l.flushed.Load() {
		return false
	}
	l.flushed.Store(offset)
	return true
}

func (l *Log) park(err error) error {
	l.mu.Lock()
	defer l.unlock()
	return l.parkLocked(err)
}

// syncSegments syncs the segments from the one that holds offset on. One that was removed meanwhile needs no sync.
func (l *Log) syncSegments(v *view, from int64) error {
	for i := v.find(from); i < len(v.segments); i++ {
		s := v.segments[i]
		err := s.sync(v.isActive(i))
		if errors.Is(err, errSegmentGone) || err != nil && s.gone.Load() {
			continue
		}
		if err != nil {
			return err
		}
		if v.isActive(i) {
			continue
		}
		snapshot := l.path(v.segments[i+1].base, snapshotSuffix)
		if err := syncFile(l.fs, snapshot); err != nil {
			return storageError("sync", snapshot, err)
		}
	}
	return nil
}

func (s *segment) sync(active bool) error {
	if err := s.syncOne(&s.file, logSuffix); err != nil || active {
		return err
	}
	if err := s.syncOne(&s.idx, indexSuffix); err != nil {
		return err
	}
	if err := s.syncOne(&s.tidx, timeIndexSuffix); err != nil {
		return err
	}
	if x := s.txn.Load(); x != nil {
		if err := x.Sync(); err != nil {
			return storageError("sync", s.path(txnIndexSuffix), err)
		}
	}
	return nil
}

func (s *segment) syncOne(f *lazyFile, suffix string) error {
	open, err := f.acquire(s, suffix, 0)
	if err != nil {
		return err
	}
	defer open.release()
	if err := open.file.Sync(); err != nil {
		return storageError("sync", s.path(suffix), err)
	}
	return nil
}

// syncDir makes new names durable when there are any.
func (l *Log) syncDir() error {
	if !l.dirDirty.Swap(false) {
		return nil
	}
	if err := l.fs.SyncDir(l.Dir()); err != nil {
		return storageError("sync", l.Dir(), err)
	}
	return nil
}
