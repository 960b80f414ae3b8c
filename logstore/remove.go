package logstore

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"time"

	"ottla/internal/cluster"
)

// SetDeleteDelay sets how long the directories of deleted partitions stay: log.segment.delete.delay.ms of the broker.
func (m *Manager) SetDeleteDelay(d time.Duration) { m.deleteDelay.Store(int64(d)) }

// Delete removes a partition's log: its directory is renamed to -delete at once, durably, and removed by a DeletePass after
// the delay. Without a log it does nothing.
func (m *Manager) Delete(tp cluster.TopicPartition) error {
	lock := m.creationLock(tp)
	lock.Lock()
	defer lock.Unlock()
	m.mu.Lock()
	l, ok := m.mu.logs[tp]
	delete(m.mu.logs, tp)
	m.mu.Unlock()
	if !ok {
		return nil
	}
	d := l.owner
	d.drop(tp)
	name := deletedDirName(tp)
	if err := l.moveAway(filepath.Join(d.path, name)); err != nil {
		d.fail(storageError("delete", l.Dir(), err))
		return d.fault()
	}
	d.trash.addDir(m.options.Now().Add(time.Duration(m.deleteDelay.Load())), filepath.Join(d.path, name))
	d.touchAll()
	if err := d.syncNames(); err != nil {
		d.fail(storageError("sync", d.path, err))
		return d.fault()
	}
	return nil
}

func deletedDirName(tp cluster.TopicPartition) string {
	var unique [16]byte
	_, _ = rand.Read(unique[:])
	tail := fmt.Sprintf("-%d.%s%s", tp.Partition, hex.EncodeToString(unique[:]), deleteSuffix)
	topic := tp.Topic
	return topic[:min(len(topic), fileNameMax-len(tail))] + tail
}

// moveAway ends the log and renames its directory. Slices in use stay readable.
func (l *Log) moveAway(to string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.mu.err == nil {
		l.mu.err = ErrClosed
	}
	for _, s := range l.view.Load().segments {
		s.retire()
	}
	if err := l.fs.Rename(l.Dir(), to); err != nil {
		return err
	}
	l.dir.Store(&to)
	return nil
}
