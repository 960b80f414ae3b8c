package logstore

import (
	"hash/maphash"
	"path/filepath"
	"sync"

	"ottla/internal/cluster"
)

// GetOrCreate returns the log of a partition, and creates it, durably, in the directory with the fewest partitions when there is
// none. isNew says that the controller has just made the partition. id may be zero for "unknown".
//
// Errors: kerr.InconsistentTopicID; kerr.KafkaStorageError, also when a directory is offline and !isNew: the log may be there.
func (m *Manager) GetOrCreate(tp cluster.TopicPartition, id cluster.TopicID, isNew bool) (*Log, error) {
	l, ok := m.Get(tp)
	if !ok {
		var err error
		if l, err = m.create(tp, id, isNew); err != nil {
			return nil, err
		}
	}
	if id.IsZero() {
		return l, nil
	}
	return l, l.SetTopicID(id)
}

func (m *Manager) create(tp cluster.TopicPartition, id cluster.TopicID, isNew bool) (*Log, error) {
	lock := m.creationLock(tp)
	lock.Lock()
	defer lock.Unlock()
	if l, ok := m.Get(tp); ok {
		return l, nil
	}
	m.mu.RLock()
	closed := m.mu.closed
	m.mu.RUnlock()
	if closed {
		return nil, ErrClosed
	}
	if l, found, err := m.openPutOff(tp); found {
		return l, err
	}
	d, err := m.dirForNew(tp, isNew)
	if err != nil {
		return nil, err
	}
	defer d.pending.Add(-1)
	l, err := d.createIn(tp.String(), tp, id, m.options.Defaults(tp.Topic), 0)
	if err != nil {
		fault := storageError("create", filepath.Join(d.path, tp.String()), err)
		if !fault.Full {
			d.fail(fault)
		}
		return nil, fault
	}
	m.mu.Lock()
	m.mu.logs[tp] = l
	delete(m.mu.preferred, tp)
	m.mu.Unlock()
	d.add(l)
	d.touchAll()
	return l, nil
}

// openPutOff tries again to open a log for which there was no space.
func (m *Manager) openPutOff(tp cluster.TopicPartition) (l *Log, found bool, err error) {
	for _, d := range m.dirs {
		j, ok := d.takePutOff(tp)
		if !ok {
			continue
		}
		l, err := loadLog(d, filepath.Join(d.path, j.name), tp, m.options.Defaults(tp.Topic), j.state)
		if err != nil {
			d.putOff(j)
			return nil, true, err
		}
		return l, true, m.adopt(j, l)
	}
	return nil, false, nil
}

func (m *Manager) creationLock(tp cluster.TopicPartition) *sync.Mutex {
	h := maphash.String(m.seed, tp.Topic) + uint64(tp.Partition)
	return &m.creating[h%uint64(len(m.creating))]
}

// dirForNew chooses the directory: the one that was asked for, else that with the fewest partitions, with those that are just
// being created. The caller takes it out of pending when it is done.
func (m *Manager) dirForNew(tp cluster.TopicPartition, isNew bool) (*logDir, error) {
	m.mu.Lock() // one choice at a time
	defer m.mu.Unlock()
	var best *logDir
	for _, d := range m.dirs {
		if err := d.fault(); err != nil {
			if !isNew {
				return nil, err
			}
			continue
		}
		if d.path == m.mu.preferred[tp] {
			best = d
			break
		}
		if best == nil || d.count() < best.count() {
			best = d
		}
	}
	if best == nil {
		return nil, m.dirs[0].fault()
	}
	best.pending.Add(1)
	return best, nil
}

// createIn makes a log in a directory of the given name, which begins at offset start.
func (d *logDir) createIn(name string, tp cluster.TopicPartition, id cluster.TopicID, c *Config, start int64) (*Log, error) {
	for _, checkpoint := range []*checkpointer{&d.recoveryPoints, &d.logStarts, &d.highWatermarks, &d.cleanPoints} {
		if err := checkpoint.forget(tp); err != nil {
			return nil, err
		}
	}
	dir := filepath.Join(d.path, name)
	if err := d.fs.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	l, err := loadLog(d, dir, tp, c, loadState{clean: true, logStart: start})
	if err != nil {
		return nil, err
	}
	// All names first, then the syncs: each of them is a commit of the file system's journal only when there is news.
	if err := d.makeDurable(l, id); err != nil {
		l.closeFiles()
		return nil, err
	}
	l.recovery.New = true
	return l, nil
}

func (d *logDir) makeDurable(l *Log, id cluster.TopicID) error {
	if !id.IsZero() {
		if err := WritePartitionMetadata(d.fs, l.Dir(), id); err != nil {
			return err
		}
		l.topicID.Store(&id)
		l.dirDirty.Store(false) // WritePartitionMetadata synced it
	}
	if err := l.syncDir(); err != nil {
		return err
	}
	return d.syncNames()
}
