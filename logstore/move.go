package logstore

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

// A move of a log between two directories (KIP-113). The copy grows in a -future directory, as a follower of the log; when it has
// caught up, and nobody can append for a moment, it takes the log's place:
//
//  1. The copy is durable as far as the log was, with its epochs, producers and offsets.
//  2. The log's directory is renamed to -delete, durably.
//  3. The copy's is renamed to the partition's name, durably.
//
// So a crash never leaves two logs of a partition, which no broker would start with. One between 2 and 3 leaves a -future and a
// -delete directory and no log: the next start completes the move. Everything earlier leaves the log, and a copy that goes on.

// Log directories' errors.
var errNoFuture = errors.New("the partition is not being moved")

// Future returns the copy of a partition that is being moved.
func (m *Manager) Future(tp cluster.TopicPartition) (*Log, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	l, ok := m.mu.futures[tp]
	return l, ok
}

// Futures lists the copies, in no order.
func (m *Manager) Futures() []*Log {
	m.mu.RLock()
	defer m.mu.RUnlock()
	out := make([]*Log, 0, len(m.mu.futures))
	for _, l := range m.mu.futures {
		out = append(out, l)
	}
	return out
}

// Prefer notes in which directory a partition shall be created here, should it come. Source: KIP-113.
func (m *Manager) Prefer(tp cluster.TopicPartition, dir string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mu.preferred[tp] = filepath.Clean(dir)
}

// CheckDir judges a directory that somebody names: kerr.LogDirNotFound when it is none of log.dirs, KAFKA_STORAGE_ERROR when it
// is offline.
func (m *Manager) CheckDir(dir string) error {
	d := m.dirOf(dir)
	if d == nil || !filepath.IsAbs(dir) && !slices.Contains(m.options.Dirs, dir) {
		return kerr.LogDirNotFound
	}
	return d.fault()
}

func (m *Manager) dirOf(path string) *logDir {
	path = filepath.Clean(path)
	for _, d := range m.dirs {
		if d.path == path {
			return d
		}
	}
	return nil
}

func futureDirName(tp cluster.TopicPartition) string {
	var unique [16]byte
	_, _ = rand.Read(unique[:])
	return fmt.Sprintf("%s.%s%s", tp, hex.EncodeToString(unique[:]), futureSuffix)
}

// CreateFuture begins a move: it returns the copy, which is empty and begins where the log begins. A copy that exists is returned
// as it is.
func (m *Manager) CreateFuture(tp cluster.TopicPartition, dir string) (*Log, error) {
	lock := m.creationLock(tp)
	lock.Lock()
	defer lock.Unlock()
	if l, ok := m.Future(tp); ok {
		return l, nil
	}
	log, ok := m.Get(tp)
	d := m.dirOf(dir)
	switch {
	case !ok:
		return nil, kerr.ReplicaNotAvailable
	case d == nil:
		return nil, kerr.LogDirNotFound
	case d == log.owner:
		return nil, fmt.Errorf("%s is in %s already", tp, dir)
	case len(futureDirName(tp)) > fileNameMax:
		return nil, kerr.InvalidTopicException
	}
	id, _ := log.TopicID()
	cleaned := log.cleanedTo() // what is copied from now on is at least as clean
	l, err := d.createIn(futureDirName(tp), tp, id, log.Config(), log.LogStartOffset())
	if err != nil {
		fault := storageError("create", filepath.Join(d.path, tp.String()), err)
		if !fault.Full {
			d.fail(fault)
		}
		return nil, fault
	}
	l.setCleanedTo(cleaned)
	m.mu.Lock()
	m.mu.futures[tp] = l
	m.mu.Unlock()
	d.add(l)
	d.touchAll()
	return l, nil
}

// AbandonFuture ends a move: the copy goes.
func (m *Manager) AbandonFuture(tp cluster.TopicPartition) error {
	lock := m.creationLock(tp)
	lock.Lock()
	defer lock.Unlock()
	return m.abandonLocked(tp)
}

// abandonLocked needs the creation lock.
func (m *Manager) abandonLocked(tp cluster.TopicPartition) error {
	m.mu.Lock()
	l, ok := m.mu.futures[tp]
	delete(m.mu.futures, tp)
	m.mu.Unlock()
	if !ok {
		return nil
	}
	l.owner.drop(tp)
	return m.discard(l)
}

// CopyChunk copies what follows the end of the partition's copy, up to len(buf) bytes (one batch at least). It returns how many
// bytes it copied, 0 when there is nothing left at this moment. It runs beside appends, truncations and cleanings of the log.
//
// Errors: kerr verdicts for batches that cannot be copied; a *StorageError of either directory.
func (m *Manager) CopyChunk(tp cluster.TopicPartition, buf []byte) (int, error) {
	log, ok := m.Get(tp)
	future, copying := m.Future(tp)
	if !ok || !copying {
		return 0, errNoFuture
	}
	for range viewTries {
		n, again, err := future.follow(log, buf)
		if !again {
			return n, err
		}
	}
	return 0, nil // the log is truncated all the time: later
}

// follow is one step of a copy. again: the log was cut meanwhile.
func (l *Log) follow(log *Log, buf []byte) (n int, again bool, err error) {
	cuts := log.cuts.Load()
	if err := l.alignWith(log); err != nil {
		return 0, false, err
	}
	at := l.LogEndOffset()
	s, err := log.Read(at, len(buf), math.MaxInt64, true)
	if errors.Is(err, kerr.OffsetOutOfRange) {
		return 0, true, nil // retention or a truncation was faster
	}
	if err != nil {
		return 0, log.cuts.Load() != cuts, err
	}
	defer s.Release()
	if s.Empty() {
		return 0, log.cuts.Load() != cuts, nil
	}
	if s.Len > int64(len(buf)) {
		buf = make([]byte, s.Len)
	}
	buf = buf[:s.Len]
	if _, err := s.ReadAt(buf, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, log.cuts.Load() != cuts, storageError("read", log.Dir(), err)
	}
	// What was read belongs to the history that was compared only if nothing was cut in between.
	if log.cuts.Load() != cuts {
		return 0, true, nil
	}
	info, err := l.AppendAsFollower(buf, math.MaxInt32)
	if err != nil {
		return 0, false, err
	}
	if info.FirstOffset < 0 {
		return 0, false, kerr.CorruptMessage
	}
	return len(buf), false, nil
}

// alignWith brings a copy to where it can follow the log: its history must be a part of the log's. Offset and epoch identify a
// record, so the epochs' ends are all there is to compare.
func (l *Log) alignWith(log *Log) error {
	start, end := log.LogStartOffset(), log.LogEndOffset()
	if l.LogEndOffset() < start {
		return l.TruncateFullyAndStartAt(start)
	}
	if l.LogEndOffset() > end {
		if err := l.TruncateTo(end); err != nil {
			return err
		}
	}
	for range len(l.EpochEntries()) + 1 {
		mine, ok := l.LatestEpoch()
		if !ok || l.LogEndOffset() == l.LogStartOffset() {
			break
		}
		epoch, epochEnd := log.EndOffsetForEpoch(mine)
		if epoch == mine && epochEnd >= l.LogEndOffset() {
			break
		}
		if epoch < 0 { // the log knows nothing of it
			return l.TruncateFullyAndStartAt(start)
		}
		if epoch != mine {
			_, ownEnd := l.EndOffsetForEpoch(epoch)
			epochEnd = min(epochEnd, max(ownEnd, l.LogStartOffset()))
		}
		if err := l.TruncateTo(min(epochEnd, l.LogEndOffset())); err != nil {
			return err
		}
	}
	if l.LogStartOffset() < start {
		return l.IncrementLogStart(start)
	}
	return nil
}

// FlushFuture makes the copy durable so far, so that little is left to do when it takes the log's place.
func (m *Manager) FlushFuture(tp cluster.TopicPartition) error {
	l, ok := m.Future(tp)
	if !ok {
		return errNoFuture
	}
	return l.Flush(l.LogEndOffset() + 1)
}

// Promote ends a move: the copy takes the log's place, and is returned. The caller has seen to it that nobody appends to the log
// or cuts it, and that CopyChunk finds nothing more. When it fails before the log was touched, the log goes on.
func (m *Manager) Promote(tp cluster.TopicPartition) (*Log, error) {
	lock := m.creationLock(tp)
	lock.Lock()
	defer lock.Unlock()
	log, ok := m.Get(tp)
	future, copying := m.Future(tp)
	if !ok || !copying {
		return nil, errNoFuture
	}
	if err := future.prepareToReplace(log); err != nil {
		return nil, err
	}
	away := filepath.Join(log.owner.path, deletedDirName(tp))
	if err := log.moveAway(away); err != nil {
		return nil, m.judgeRemoval(log, err)
	}
	log.owner.drop(tp)
	future.inherit(log)
	m.mu.Lock()
	m.mu.logs[tp] = future
	delete(m.mu.futures, tp)
	m.mu.Unlock()
	if err := log.owner.syncNames(); err != nil {
		log.owner.fail(err) // its disk is bad, the copy is not
	}
	if err := future.moveTo(filepath.Join(future.owner.path, tp.String())); err != nil {
		future.owner.fail(err)
		return nil, err // the next start completes it
	}
	log.owner.trash.addDir(m.options.Now().Add(time.Duration(m.deleteDelay.Load())), away)
	log.owner.touchAll()
	future.owner.touchAll()
	if future.LogEndOffset() > future.FlushedOffset() {
		future.FlushSoon()
	}
	future.event(m.options.Logger.Info()).Str("from", log.owner.path).Str("to", future.owner.path).Int64("bytes", future.Size()).
		Msg("log moved to another directory")
	return future, nil
}

// prepareToReplace makes the copy as durable as the log is.
func (l *Log) prepareToReplace(log *Log) error {
	end := log.LogEndOffset()
	if l.LogEndOffset() != end {
		return fmt.Errorf("the copy ends at %d, the log at %d", l.LogEndOffset(), end)
	}
	if start := log.LogStartOffset(); l.LogStartOffset() < start {
		if err := l.IncrementLogStart(start); err != nil {
			return err
		}
	}
	if err := l.lock(); err != nil {
		return err
	}
	l.epochs.Replace(log.EpochEntries())
	l.epochs.TruncateFromStart(l.view.Load().logStart)
	err := l.flushEpochsLocked()
	l.unlock()
	if err != nil || log.FlushedOffset() <= l.FlushedOffset() {
		return err
	}
	return l.Flush(end)
}

// inherit takes over from a log that has ended what is not in its bytes.
func (l *Log) inherit(log *Log) {
	l.SetConfig(log.Config())
	log.mu.Lock()
	producers := log.mu.producers
	log.mu.producers = NewProducerState() // nobody writes to it any more
	log.mu.Unlock()
	l.mu.Lock()
	l.mu.producers = producers
	first := l.firstUnstableLocked()
	l.publish(func(v *view) { v.firstUnstable = first })
	l.mu.Unlock()
	l.SetHighWatermark(log.HighWatermark())
	if cleaned := log.cleanedTo(); cleaned < l.cleanedTo() {
		l.setCleanedTo(cleaned)
	}
	l.onFlushed.Store(log.onFlushed.Load())
}

// moveTo gives a log's directory another name, durably.
func (l *Log) moveTo(to string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := l.Dir()
	if err := l.fs.Rename(from, to); err != nil {
		return storageError("rename", from, err)
	}
	l.renamedLocked(to)
	return l.owner.syncNames()
}

// renamedLocked tells everything that knows files by their names.
func (l *Log) renamedLocked(to string) {
	l.dir.Store(&to)
	l.epochs.SetDir(to)
	for _, s := range l.view.Load().segments {
		if x := s.txn.Load(); x != nil {
			x.SetPath(s.path(txnIndexSuffix))
		}
	}
}

// settleMoves looks at the copies that a stop left. A move that was interrupted between its two renames is completed: the copy
// was complete, and its log is on its way out. Others go on when the partition gets its role, if its log is there.
func (m *Manager) settleMoves(jobs map[*logDir][]job) error {
	live, moving := map[cluster.TopicPartition]*logDir{}, map[cluster.TopicPartition]*logDir{}
	for d, list := range jobs {
		for _, j := range list {
			if !j.future {
				live[j.tp] = d
			}
		}
	}
	for d, list := range jobs {
		for i := range list {
			j := &list[i]
			if !j.future {
				continue
			}
			if other, twice := moving[j.tp]; twice {
				return fmt.Errorf("partition %s is being moved to two log directories, %s and %s: remove one of the %s directories", j.tp, other.path, d.path, futureSuffix)
			}
			moving[j.tp] = d
			if live[j.tp] == nil && m.wasReplaced(j.tp) {
				if err := d.completeMove(j); err != nil {
					d.fail(storageError("complete the move of", filepath.Join(d.path, j.name), err))
				}
			}
		}
		jobs[d] = slices.DeleteFunc(list, func(j job) bool {
			lone := j.future && (live[j.tp] == nil || live[j.tp] == d)
			if lone {
				d.logger.Warn().Str("dir", filepath.Join(d.path, j.name)).Msg("the copy of a log that is not here: left alone; its log is on a failed disk, or was removed by hand")
			}
			return lone
		})
	}
	return nil
}

// wasReplaced reports whether a log of the partition is on its way out, and none can be in a directory that failed.
func (m *Manager) wasReplaced(tp cluster.TopicPartition) bool {
	found := false
	for _, d := range m.dirs {
		if d.fault() != nil {
			return false
		}
		found = found || slices.ContainsFunc(d.deleted, func(name string) bool { return isDeleted(name, tp) })
	}
	return found
}

// isDeleted reports whether a -delete directory was the partition's: its topic may be cut.
func isDeleted(name string, tp cluster.TopicPartition) bool {
	was, _, ok := PartitionDir(name)
	return ok && was.Partition == tp.Partition && (was.Topic == tp.Topic || len(name) == fileNameMax && len(was.Topic) > 0 && tp.Topic[:min(len(was.Topic), len(tp.Topic))] == was.Topic)
}

func (d *logDir) completeMove(j *job) error {
	to := j.tp.String()
	if err := d.fs.Rename(filepath.Join(d.path, j.name), filepath.Join(d.path, to)); err != nil {
		return err
	}
	d.logger.Info().Str("dir", filepath.Join(d.path, to)).Msg("completed a move between log directories that a stop had interrupted")
	j.name, j.future = to, false
	return d.syncNames()
}
