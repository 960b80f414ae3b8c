package partition

import (
	"sync"
	"sync/atomic"
)

// waiters are the parked fetches of a partition.
type waiters struct {
	any atomic.Uint32 // union of what is waited for; read without the lock
	mu  struct {
		sync.Mutex
		list []waiting
	}
}

type waiting struct {
	waiter Waiter
	on     WakeOn
}

// wakeOnAll tells of changes of role: everybody's business.
const wakeOnAll = WakeOnLogEnd | WakeOnHighWatermark

func (ws *waiters) add(w Waiter, on WakeOn) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.mu.list = append(ws.mu.list, waiting{waiter: w, on: on})
	ws.any.Store(ws.any.Load() | uint32(on))
}

func (ws *waiters) remove(w Waiter) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	list := ws.mu.list
	for i := range list {
		if list[i].waiter != w {
			continue
		}
		last := len(list) - 1
		list[i] = list[last]
		list[last] = waiting{}
		ws.mu.list = list[:last]
		break
	}
	var union WakeOn
	for i := range ws.mu.list {
		union |= ws.mu.list[i].on
	}
	ws.any.Store(uint32(union))
}

// wake tells those who wait for one of on. Nobody is called under the lock.
func (ws *waiters) wake(p *Partition, on WakeOn) {
	if WakeOn(ws.any.Load())&on == 0 {
		return
	}
	var few [8]Waiter
	ready := few[:0]
	ws.mu.Lock()
	for i := range ws.mu.list {
		if ws.mu.list[i].on&on != 0 {
			ready = append(ready, ws.mu.list[i].waiter)
		}
	}
	ws.mu.Unlock()
	for _, w := range ready {
		w.Wake(p)
	}
}

// AddWaiter registers w until RemoveWaiter. A waiter that stays registered over many fetches (a fetch session) is welcome.
func (p *Partition) AddWaiter(w Waiter, on WakeOn) { p.fetches.add(w, on) }

// RemoveWaiter ends AddWaiter. A Wake may still be under way.
func (p *Partition) RemoveWaiter(w Waiter) { p.fetches.remove(w) }
