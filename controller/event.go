package controller

import (
	"sync"
	"time"
)

// event is one thing to do on the loop. Events are small: most say that something under a path changed, and what it is now is
// read when they run.
type event struct {
	name     string // constant; the label of its metrics
	key      string // events that wait under the same key (and reign) are one
	reign    *reign // the reign it belongs to; nil: any
	run      func()
	drop     func() // called instead of run when its reign has ended, or the queue is closed; may be nil
	queuedAt time.Time
}

func (e *event) dropped() {
	if e.drop != nil {
		e.drop()
	}
}

type eventKey struct {
	reign *reign
	key   string
}

// queue is the loop's only input: unbounded, because its producers (watches, senders) must not block; what could flood it shares
// a key. Requests are bounded by their connections.
type queue struct {
	wake chan struct{} // capacity 1
	mu   struct {
		sync.Mutex
		events []event
		keys   map[eventKey]struct{}
		closed bool
	}
}

func newQueue() *queue {
	q := &queue{wake: make(chan struct{}, 1)}
	q.mu.keys = map[eventKey]struct{}{}
	return q
}

// put appends an event, unless one with the same key waits already. On a closed queue the event is dropped.
func (q *queue) put(e event) {
	e.queuedAt = time.Now()
	k := eventKey{e.reign, e.key}
	q.mu.Lock()
	if q.mu.closed {
		q.mu.Unlock()
		e.dropped()
		return
	}
	if e.key != "" {
		if _, waits := q.mu.keys[k]; waits {
			q.mu.Unlock()
			return
		}
		q.mu.keys[k] = struct{}{}
	}
	q.mu.events = append(q.mu.events, e)
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take waits for the next event; false when the queue is closed and empty.
func (q *queue) take() (event, bool) {
	for {
		q.mu.Lock()
		if len(q.mu.events) > 0 {
			e := q.mu.events[0]
			q.mu.events[0] = event{}
			q.mu.events = q.mu.events[1:]
			delete(q.mu.keys, eventKey{e.reign, e.key})
			q.mu.Unlock()
			return e, true
		}
		closed := q.mu.closed
		q.mu.Unlock()
		if closed {
			return event{}, false
		}
		<-q.wake
	}
}

// dropReign removes the events of an ended reign and answers them.
func (q *queue) dropReign(r *reign) {
	q.mu.Lock()
	kept := make([]event, 0, len(q.mu.events))
	var dropped []event
	for _, e := range q.mu.events {
		if e.reign != r {
			kept = append(kept, e)
			continue
		}
		delete(q.mu.keys, eventKey{e.reign, e.key})
		dropped = append(dropped, e)
	}
	q.mu.events = kept
	q.mu.Unlock()
	for i := range dropped {
		dropped[i].dropped()
	}
}

// close lets take end after dropping everything that waits.
func (q *queue) close() {
	q.mu.Lock()
	dropped := q.mu.events
	q.mu.events, q.mu.closed = nil, true
	clear(q.mu.keys)
	q.mu.Unlock()
	for i := range dropped {
		dropped[i].dropped()
	}
	q.signal()
}

func (q *queue) length() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.mu.events)
}
