package wire

import (
	"net"
	"sync"
)

// memory bounds the bytes of frames that a server holds: queued.max.request.bytes. As in Kafka the bound is soft by one frame: one
// that does not fit is let in as long as anything is free, so that no frame is too large for ever. Those who wait are served in
// order; a connection that waits is not read.
type memory struct {
	limit int64 // 0 or less: no bound, nothing is counted
	mu    struct {
		sync.Mutex
		used    int64
		waiters []*memoryWaiter
	}
}

type memoryWaiter struct {
	size    int64
	granted chan struct{}
}

func (m *memory) tryAcquire(size int) bool {
	if m.limit <= 0 {
		return true
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.mu.waiters) > 0 || m.mu.used >= m.limit {
		return false
	}
	m.mu.used += int64(size)
	return true
}

// acquire waits for room, or until closed is closed.
func (m *memory) acquire(size int, closed <-chan struct{}) error {
	w := &memoryWaiter{size: int64(size), granted: make(chan struct{})}
	m.mu.Lock()
	m.mu.waiters = append(m.mu.waiters, w)
	m.grantLocked()
	m.mu.Unlock()
	select {
	case <-w.granted:
		return nil
	case <-closed:
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, other := range m.mu.waiters {
		if other == w {
			m.mu.waiters = append(m.mu.waiters[:i], m.mu.waiters[i+1:]...)
			return net.ErrClosed
		}
	}
	m.mu.used -= w.size // granted meanwhile
	m.grantLocked()
	return net.ErrClosed
}

func (m *memory) release(size int) {
	if m.limit <= 0 {
		return
	}
	m.mu.Lock()
	m.mu.used -= int64(size)
	m.grantLocked()
	m.mu.Unlock()
}

func (m *memory) grantLocked() {
	for len(m.mu.waiters) > 0 && m.mu.used < m.limit {
		w := m.mu.waiters[0]
		m.mu.waiters = m.mu.waiters[1:]
		m.mu.used += w.size
		close(w.granted)
	}
}
