package logstore

import (
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"

	"ottla/internal/cluster"
)

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
	for _, tp := range c.dir.absent() {
		if offset, ok := c.get(tp); ok {
			offsets[tp] = offset
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
