package logstore

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"ottla/internal/cluster"
)

// ErrDirOffline: a fault of its disk took a log directory offline; it stays so until the next start.
var ErrDirOffline = errors.New("log directory is offline")

// flushersPerDir bounds the fdatasync calls that run in the background in one directory: file systems merge some, and a
// device serves some at a time.
const flushersPerDir = 8

// logDir is one entry of log.dirs: its logs, checkpoints, lock, and files that wait for their removal. It guards itself.
type logDir struct {
	path   string
	fs     FS
	logger zerolog.Logger
	now    func() time.Time

	failed    atomic.Pointer[StorageError]
	onFailure func(dir string, err error)

	reserve    reserve // of free space
	background group
	flushers   chan struct{} // a slot for each flush in the background
	trash      trash
	syncRuns   sharedRun     // of the directory itself
	pending    atomic.Int64  // logs that are just being created
	recovered  *atomic.Int64 // bytes that recovery has read, of all directories
	deleted    []string      // names of -delete directories that were found at the start

	recoveryPoints checkpointer
	logStarts      checkpointer
	highWatermarks checkpointer
	cleanPoints    checkpointer // how far the cleaner came

	mu struct {
		sync.Mutex
		logs   map[cluster.TopicPartition]*Log
		putOff map[cluster.TopicPartition]job // logs that could not be opened for want of space
		lock   io.Closer
		meta   Meta
	}
}

func newLogDir(path string, fsys FS, logger zerolog.Logger, now func() time.Time, onFailure func(string, error)) *logDir {
	d := &logDir{path: path, fs: fsys, logger: logger, now: now, onFailure: onFailure, flushers: make(chan struct{}, flushersPerDir)}
	d.reserve.dir, d.reserve.fs, d.reserve.logger = path, fsys, logger
	d.mu.logs, d.mu.putOff = map[cluster.TopicPartition]*Log{}, map[cluster.TopicPartition]job{}
	d.recoveryPoints.init(d, RecoveryPointCheckpoint, func(l *Log) (int64, bool) { return l.FlushedOffset(), true })
	d.logStarts.init(d, LogStartCheckpoint, func(l *Log) (int64, bool) {
		v := l.view.Load()
		return v.logStart, v.logStart > v.segments[0].base
	})
	d.highWatermarks.init(d, HighWatermarkCheckpoint, func(l *Log) (int64, bool) { return l.HighWatermark(), true })
	d.cleanPoints.init(d, CleanerCheckpoint, (*Log).cleanPoint)
	return d
}

// fault returns the error with which everything in an offline directory is refused; nil while it is online.
func (d *logDir) fault() error {
	if f := d.failed.Load(); f != nil {
		return f
	}
	return nil
}

// fail takes the directory offline, once. No lock may be held: the callback may look at anything.
func (d *logDir) fail(cause error) {
	fault := &StorageError{Op: "use", Path: d.path, Err: fmt.Errorf("%w: %w", ErrDirOffline, cause)}
	if !d.failed.CompareAndSwap(nil, fault) {
		return
	}
	d.logger.Error().Str("dir", d.path).Err(cause).Msg("log directory taken offline: check its disk, then restart")
	if d.onFailure != nil {
		d.onFailure(d.path, cause)
	}
}

// jitter draws what a new segment's age limit is shortened by, so that partitions of one birth do not roll together.
func (d *logDir) jitter(c *Config) time.Duration {
	limit := min(c.SegmentJitterMs, c.SegmentMs)
	if limit <= 0 {
		return 0
	}
	return rand.N(limit)
}

func (d *logDir) touchAll() {
	d.recoveryPoints.touch()
	d.logStarts.touch()
	d.highWatermarks.touch()
}

func (d *logDir) logs() []*Log {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.mu.logs))
}

func (d *logDir) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.mu.logs) + int(d.pending.Load())
}

func (d *logDir) add(l *Log) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.logs[l.tp] = l
}

func (d *logDir) drop(tp cluster.TopicPartition) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.mu.logs, tp)
}

func (d *logDir) putOff(j job) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.putOff[j.tp] = j
}

// takePutOff gives a log that was put off to whoever tries again.
func (d *logDir) takePutOff(tp cluster.TopicPartition) (job, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	j, ok := d.mu.putOff[tp]
	delete(d.mu.putOff, tp)
	return j, ok
}

// absent lists the partitions that are here and not open: what the checkpoints say of them stays.
func (d *logDir) absent() []cluster.TopicPartition {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.mu.putOff))
}

func (d *logDir) meta() Meta {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.mu.meta
}

// syncNames makes created and renamed partition directories durable; callers share syncs.
func (d *logDir) syncNames() error {
	return d.syncRuns.do(func() error {
		if err := d.fs.SyncDir(d.path); err != nil {
			return storageError("sync", d.path, err)
		}
		return nil
	})
}

func (d *logDir) unlockDir() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.mu.lock == nil {
		return nil
	}
	lock := d.mu.lock
	d.mu.lock = nil
	return lock.Close()
}

// group owns goroutines: start refuses after wait began.
type group struct {
	mu     sync.Mutex
	closed bool
	wg     sync.WaitGroup
}

func (g *group) start(fn func()) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.wg.Go(fn)
	return true
}

func (g *group) wait() {
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.wg.Wait()
}
