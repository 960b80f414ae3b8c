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
// the delay. A copy that was on its way to another directory goes as well. Without a log it does nothing. After an error that is
// Full the log is still there, closed, and can be deleted again.
func (m *Manager) Delete(tp cluster.TopicPartition) error {
	lock := m.creationLock(tp)
	lock.Lock()
	defer lock.Unlock()
	if err := m.abandonLocked(tp); err != nil {
		return err
	}
	l, ok := m.Get(tp)
	if !ok {
		return m.deletePutOff(tp)
	}
	if err := m.discard(l); err != nil {
		return err
	}
	l.owner.drop(tp)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.mu.logs, tp)
	delete(m.mu.preferred, tp)
	return nil
}

// deletePutOff removes a log that is there but could not be opened.
func (m *Manager) deletePutOff(tp cluster.TopicPartition) error {
	for _, d := range m.dirs {
		j, ok := d.takePutOff(tp)
		if !ok {
			continue
		}
		to := filepath.Join(d.path, deletedDirName(tp))
		if err := d.fs.Rename(filepath.Join(d.path, j.name), to); err != nil {
			d.putOff(j)
			return storageError("delete", filepath.Join(d.path, j.name), err)
		}
		d.trash.addDir(m.options.Now().Add(time.Duration(m.deleteDelay.Load())), to)
		return d.syncNames()
	}
	return nil
}

// discard renames a log's directory to -delete.
func (m *Manager) discard(l *Log) error {
	d := l.owner
	to := filepath.Join(d.path, deletedDirName(l.tp))
	if err := l.moveAway(to); err != nil {
		return m.judgeRemoval(l, err)
	}
	d.trash.addDir(m.options.Now().Add(time.Duration(m.deleteDelay.Load())), to)
	d.touchAll()
	if err := d.syncNames(); err != nil {
		return m.judgeRemoval(l, err)
	}
	return nil
}

// judgeRemoval takes a directory offline for a fault, but not for want of space: nothing was lost then.
func (m *Manager) judgeRemoval(l *Log, err error) error {
	fault := storageError("delete", l.Dir(), err)
	if fault.Full {
		return fault
	}
	l.owner.fail(fault)
	return l.owner.fault()
}

func deletedDirName(tp cluster.TopicPartition) string {
	var unique [16]byte
	_, _ = rand.Read(unique[:])
	tail := fmt.Sprintf("-%d.%s%s", tp.Partition, hex.EncodeToString(unique[:]), deleteSuffix)
	topic := tp.Topic
	return topic[:min(len(topic), fileNameMax-len(tail))] + tail
}

// moveAway renames a log's directory and ends the log. Slices in use stay readable. After an error the log is as before.
func (l *Log) moveAway(to string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.fs.Rename(l.Dir(), to); err != nil {
		return err
	}
	l.dir.Store(&to)
	if l.mu.err == nil {
		l.mu.err = ErrClosed
	}
	for _, s := range l.view.Load().segments {
		s.retire()
	}
	return nil
}
