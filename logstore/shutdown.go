package logstore

import (
	"errors"
	"path/filepath"
	"sync"

	"ottla/internal/cluster"
	"ottla/internal/parallel"
)

// Close stops everything and unlocks the directories. clean: flush, snapshots, exact index lengths, checkpoints, and then the
// marker, in every directory where all of that went well.
func (m *Manager) Close(clean bool) error {
	for i := range m.creating {
		m.creating[i].Lock()
		defer m.creating[i].Unlock()
	}
	m.mu.Lock()
	closed := m.mu.closed
	m.mu.closed = true
	m.mu.Unlock()
	if closed {
		return nil
	}
	var (
		wg  sync.WaitGroup
		mu  sync.Mutex
		all []error
	)
	for _, d := range m.dirs {
		wg.Go(func() {
			err := d.close(clean, m.options.RecoveryThreads, cluster.BrokerEpoch(m.brokerEpoch.Load()))
			mu.Lock()
			defer mu.Unlock()
			all = append(all, err)
		})
	}
	wg.Wait()
	return errors.Join(all...)
}

func (d *logDir) close(clean bool, threads int, epoch cluster.BrokerEpoch) error {
	d.background.wait()
	clean = clean && d.fault() == nil
	err := d.closeLogs(clean, threads)
	if clean && err == nil {
		err = d.markClean(epoch)
	}
	return errors.Join(err, d.unlockDir())
}

// closersPerDir is how many logs of a directory are closed side by side, at least: closing waits for the disk.
const closersPerDir = 8

func (d *logDir) closeLogs(clean bool, threads int) error {
	logs := d.logs()
	faults := make([]error, len(logs))
	parallel.For(len(logs), max(threads, closersPerDir), func(i int) { faults[i] = logs[i].close(clean) })
	return errors.Join(faults...)
}

func (d *logDir) markClean(epoch cluster.BrokerEpoch) error {
	for _, c := range []*checkpointer{&d.recoveryPoints, &d.logStarts, &d.highWatermarks, &d.cleanPoints} {
		if err := c.write(); err != nil {
			return err
		}
	}
	if len(d.absent()) > 0 {
		return nil // a log that could not be opened has not been recovered
	}
	if err := WriteCleanMarker(d.fs, d.path, epoch); err != nil {
		return storageError("write", filepath.Join(d.path, CleanShutdownFile), err)
	}
	return nil
}
