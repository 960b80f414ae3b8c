package logstore

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
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
	syncRuns   sharedRun // of the directory itself

	recoveryPoints checkpointer
	logStarts      checkpointer
	highWatermarks checkpointer
	cleanPoints    checkpointer // how far the cleaner came

	mu struct {
		sync.Mutex
		logs map[cluster.TopicPartition]*Log
		lock io.Closer
		meta Meta
	}
}

func newLogDir(path string, fsys FS, logger zerolog.Logger, now func() time.Time, onFailure func(string, error)) *logDir {
	d := &logDir{path: path, fs: fsys, logger: logger, now: now, onFailure: onFailure, flushers: make(chan struct{}, flushersPerDir)}
	d.reserve.dir, d.reserve.fs, d.reserve.logger = path, fsys, logger
	d.mu.logs = map[cluster.TopicPartition]*Log{}
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
	return len(d.mu.logs)
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

// checkpointer writes one offset checkpoint of a directory, and only when something may have changed. It guards itself.
type checkpointer struct {
	dir   *logDir
	path  string
	value func(l *Log) (offset int64, listed bool)
	dirty atomic.Bool
	runs  sharedRun

	mu struct {
		sync.Mutex
		written map[cluster.TopicPartition]int64 // what the file holds
	}
}

func (c *checkpointer) init(d *logDir, name string, value func(*Log) (int64, bool)) {
	c.dir, c.path, c.value = d, filepath.Join(d.path, name), value
}

// load reads the file. A malformed one counts as empty, as in Kafka: recovery reads more then.
func (c *checkpointer) load() error {
	offsets, err := ReadOffsetCheckpoint(c.dir.fs, c.path)
	if errors.Is(err, ErrCheckpoint) {
		c.dir.logger.Warn().Str("file", c.path).Err(err).Msg("checkpoint is malformed: taken as empty")
		offsets, err = nil, nil
		c.dirty.Store(true)
	}
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.written = offsets
	return nil
}

func (c *checkpointer) get(tp cluster.TopicPartition) (int64, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	offset, ok := c.mu.written[tp]
	return offset, ok
}

func (c *checkpointer) touch() {
	if !c.dirty.Load() {
		c.dirty.Store(true)
	}
}

// lower returns once the file does not claim more than offset for l: what is appended next must not be trusted unseen.
func (c *checkpointer) lower(l *Log, offset int64) error {
	if written, ok := c.get(l.tp); !ok || written <= offset {
		c.touch()
		return nil
	}
	return c.write()
}

// forget returns once the file has no entry of a partition that has no log (any more): a log to be created must not inherit it.
func (c *checkpointer) forget(tp cluster.TopicPartition) error {
	if _, ok := c.get(tp); !ok {
		return nil
	}
	return c.write()
}

// writeIfDirty is the periodic write.
func (c *checkpointer) writeIfDirty() error {
	if !c.dirty.Load() {
		return nil
	}
	return c.write()
}

func (c *checkpointer) write() error { return c.runs.do(c.writeOnce) }

func (c *checkpointer) writeOnce() error {
	if err := c.dir.fault(); err != nil {
		return err
	}
	c.dirty.Store(false)
	offsets := map[cluster.TopicPartition]int64{}
	for _, l := range c.dir.logs() {
		if offset, listed := c.value(l); listed {
			offsets[l.tp] = offset
		}
	}
	if err := WriteOffsetCheckpoint(c.dir.fs, c.path, offsets); err != nil {
		c.dirty.Store(true)
		fault := storageError("write", c.path, err)
		if !fault.Full {
			c.dir.fail(fault)
		}
		return fault
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.written = offsets
	return nil
}

// trash is what waits for its removal. It guards itself.
type trash struct {
	mu    sync.Mutex
	items []trashItem
}

type trashItem struct {
	due   time.Time
	names []string
	dir   bool
}

func (t *trash) add(due time.Time, names ...string) {
	if len(names) == 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.items = append(t.items, trashItem{due: due, names: names})
}

func (t *trash) addDir(due time.Time, name string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.items = append(t.items, trashItem{due: due, names: []string{name}, dir: true})
}

// take returns what is due.
func (t *trash) take(now time.Time) []trashItem {
	t.mu.Lock()
	defer t.mu.Unlock()
	var due []trashItem
	t.items = slices.DeleteFunc(t.items, func(i trashItem) bool {
		if i.due.After(now) {
			return false
		}
		due = append(due, i)
		return true
	})
	return due
}

// empty removes what is due. What cannot be removed is reported and left to the next start.
func (d *logDir) emptyTrash(now time.Time) {
	for _, item := range d.trash.take(now) {
		for _, name := range item.names {
			remove := removeIfThere
			if item.dir {
				remove = removeAll
			}
			if err := remove(d.fs, name); err != nil {
				d.logger.Warn().Str("file", name).Err(err).Msg("could not remove; the next start will")
			}
		}
	}
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
