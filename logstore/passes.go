package logstore

import (
	"errors"
	"time"
)

// RetentionPass applies retention to all logs that are not compacted; it returns how many segments went. Compacted logs
// are the cleaner's.
func (m *Manager) RetentionPass(now time.Time) int {
	removed := 0
	for _, l := range m.Logs() {
		if l.Config().Compact {
			continue
		}
		n, err := l.Retain(now)
		removed += n
		if err != nil && !errors.Is(err, ErrClosed) && !errors.Is(err, ErrDirOffline) {
			l.event(m.options.Logger.Warn()).Err(err).Msg("retention failed")
		}
	}
	return removed
}

func (m *Manager) eachDir(fn func(d *logDir) error) error {
	var all []error
	for _, d := range m.dirs {
		if d.fault() == nil {
			all = append(all, fn(d))
		}
	}
	return errors.Join(all...)
}

// CheckpointRecoveryPoints writes recovery-point-offset-checkpoint where something changed.
func (m *Manager) CheckpointRecoveryPoints() error {
	return m.eachDir(func(d *logDir) error { return d.recoveryPoints.writeIfDirty() })
}

// CheckpointLogStarts writes log-start-offset-checkpoint where something changed.
func (m *Manager) CheckpointLogStarts() error {
	return m.eachDir(func(d *logDir) error { return d.logStarts.writeIfDirty() })
}

// CheckpointHighWatermarks writes replication-offset-checkpoint where something changed.
func (m *Manager) CheckpointHighWatermarks() error {
	return m.eachDir(func(d *logDir) error { return d.highWatermarks.writeIfDirty() })
}

// DeletePass removes files and directories whose delay is over.
func (m *Manager) DeletePass(now time.Time) {
	for _, d := range m.dirs {
		if d.fault() == nil {
			d.emptyTrash(now)
		}
	}
}

// FlushPass flushes logs that have unflushed data and were last flushed flush.ms ago. It waits for the flushes.
func (m *Manager) FlushPass(now time.Time) error {
	var all []error
	for _, l := range m.Logs() {
		end := l.LogEndOffset()
		if end == l.FlushedOffset() || now.Sub(time.Unix(0, l.lastFlush.Load())) < l.Config().FlushMs {
			continue
		}
		if err := l.Flush(end); err != nil && !errors.Is(err, ErrClosed) {
			all = append(all, err)
		}
	}
	return errors.Join(all...)
}

// ExpireProducers forgets producers that were idle for producer.id.expiration.ms.
func (m *Manager) ExpireProducers(now time.Time) {
	for _, l := range m.Logs() {
		l.expireProducers(now)
	}
}

// CloseIdleFiles closes the descriptors that were not used since the last call, and gives back memory of idle logs.
func (m *Manager) CloseIdleFiles() {
	for _, l := range m.Logs() {
		l.closeIdleFiles()
	}
}
