package broker

import (
	"sync"
	"time"
)

// gate is open or shut; those who come while it is shut may wait for it.
type gate struct {
	mu     sync.Mutex
	opened chan struct{} // closed while open
	ended  chan struct{} // closed by end
}

func newGate() *gate { return &gate{opened: make(chan struct{}), ended: make(chan struct{})} }

// end lets nobody wait any more. Once only.
func (g *gate) end() { close(g.ended) }

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.opened:
	default:
		close(g.opened)
	}
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	select {
	case <-g.opened:
		g.opened = make(chan struct{})
	default:
	}
}

func (g *gate) channel() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened
}

func (g *gate) isOpen() bool {
	select {
	case <-g.channel():
		return true
	default:
		return false
	}
}

// wait waits until the gate is open, at most so long and not beyond its end.
func (g *gate) wait(limit time.Duration) bool {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-g.channel():
		return true
	case <-g.ended:
		return g.isOpen()
	case <-timer.C:
		return false
	}
}
