// Package memlog has a coordinator's partition in memory, for tests.
package memlog

import (
	"errors"
	"io"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/coordlog"
	"ottla/internal/cluster"
	"ottla/logstore"
)

// Log is a partition in memory. Appends are committed at once, or later when held. The zero value is empty.
type Log struct {
	mu      sync.Mutex
	epoch   cluster.LeaderEpoch
	data    []byte
	end     int64
	held    bool
	waiting []func()
	refuse  error
	appends int
}

// Append implements coordlog.Partition.
func (l *Log) Append(batches []byte, a coordlog.Append, done func(int64, error)) {
	l.mu.Lock()
	switch {
	case a.Epoch != l.epoch:
		l.mu.Unlock()
		done(-1, kerr.FencedLeaderEpoch)
		return
	case l.refuse != nil:
		err := l.refuse
		l.mu.Unlock()
		done(-1, err)
		return
	}
	b := logstore.Batch(append([]byte(nil), batches...))
	b.SetBaseOffset(l.end)
	base := l.end
	l.data, l.end = append(l.data, b...), b.NextOffset()
	l.appends++
	if l.held {
		l.waiting = append(l.waiting, func() { done(base, nil) })
		l.mu.Unlock()
		return
	}
	l.mu.Unlock()
	done(base, nil)
}

// Bounds implements coordlog.Partition.
func (l *Log) Bounds() (int64, int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return 0, l.end
}

// Committed implements coordlog.Partition.
func (l *Log) Committed() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) > 0 {
		return 0
	}
	return l.end
}

// Read implements coordlog.Partition.
func (l *Log) Read(offset int64, maxBytes int, _ []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	rest := l.data
	for {
		b, after, err := logstore.NextBatch(rest)
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		if b.LastOffset() >= offset {
			return rest[:min(len(rest), max(maxBytes, b.Size()))], nil
		}
		rest = after
	}
}

// Hold keeps appends from being committed, or commits what was held.
func (l *Log) Hold(held bool) {
	l.mu.Lock()
	l.held = held
	waiting := l.waiting
	l.waiting = nil
	l.mu.Unlock()
	for _, done := range waiting {
		done()
	}
}

// SetEpoch makes it led in an epoch: appends of another one are refused.
func (l *Log) SetEpoch(epoch cluster.LeaderEpoch) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epoch = epoch
}

// Refuse has appends fail, or succeed again with nil.
func (l *Log) Refuse(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.refuse = err
}

// SetData replaces what is in the log.
func (l *Log) SetData(data []byte, end int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data, l.end = data, end
}

// Waiting is how many appends are held.
func (l *Log) Waiting() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting)
}

// Data is what is in the log.
func (l *Log) Data() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]byte(nil), l.data...)
}

// Appends is how many batches were appended.
func (l *Log) Appends() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.appends
}
