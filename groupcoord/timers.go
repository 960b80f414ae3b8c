package groupcoord

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// timers wakes groups at their deadlines: one goroutine and one timer for all. A heartbeat moves a deadline back without
// telling: the group is then woken too early once, looks, and is put back. So heartbeats cost nothing here.
type timers struct {
	wake chan struct{}
	mu   struct {
		sync.Mutex
		heap timerHeap
	}
}

// timer is one group's place in the heap. Guarded by timers.mu.
type timer struct {
	entry *entry
	at    time.Time
	index int // in the heap, -1: not in it
}

func newTimers() *timers { return &timers{wake: make(chan struct{}, 1)} }

// atLatest has the group woken no later than at; a zero time asks for nothing.
func (t *timers) atLatest(e *entry, at time.Time) {
	if at.IsZero() {
		return
	}
	t.mu.Lock()
	tm := &e.timer
	first := false
	switch {
	case tm.index < 0:
		tm.at = at
		heap.Push(&t.mu.heap, tm)
		first = tm.index == 0
	case at.Before(tm.at):
		tm.at = at
		heap.Fix(&t.mu.heap, tm.index)
		first = tm.index == 0
	}
	t.mu.Unlock()
	if first {
		select {
		case t.wake <- struct{}{}:
		default:
		}
	}
}

// due takes out what is due, and says when the next one is.
func (t *timers) due(now time.Time) (due []*entry, next time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := &t.mu.heap
	for len(*h) > 0 && !(*h)[0].at.After(now) {
		due = append(due, heap.Pop(h).(*timer).entry)
	}
	if len(*h) > 0 {
		next = (*h)[0].at
	}
	return due, next
}

// loop wakes groups until ctx ends.
func (t *timers) loop(ctx context.Context, now func() time.Time, fire func(*entry)) {
	clock := time.NewTimer(time.Hour)
	defer clock.Stop()
	for {
		due, next := t.due(now())
		for _, e := range due {
			fire(e)
		}
		if len(due) > 0 {
			continue
		}
		wait := time.Hour
		if !next.IsZero() {
			wait = next.Sub(now())
		}
		clock.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-t.wake:
		case <-clock.C:
		}
	}
}

// timerHeap is a container/heap of timers, the earliest first.
type timerHeap []*timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}
func (h *timerHeap) Push(x any) {
	t := x.(*timer)
	t.index = len(*h)
	*h = append(*h, t)
}
func (h *timerHeap) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.index = -1
	return t
}
