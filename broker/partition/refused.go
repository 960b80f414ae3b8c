package partition

import (
	"errors"
	"sync"
	"time"

	"ottla/logstore"
)

// refused are the replicas that answered KAFKA_STORAGE_ERROR though their directory has not failed: the disk was full, or the log
// too short to lead. The controller takes them for lost, and in Kafka only a restart brings them back. So it is asked to look again
// once there is room: it tells them of their leader, and they follow. In 3.9's terms it is told of a change of the log directory.
type refused struct {
	mu         sync.Mutex
	partitions map[*Partition]struct{}
	next       time.Time // not to be asked again before
	pause      time.Duration
}

const (
	askPauseMin = time.Second
	askPauseMax = time.Minute // a log that stays too short is elected and refuses each time
	askRoom     = 1 << 20     // free bytes with which a role can be taken
)

func (r *refused) add(p *Partition) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.partitions == nil {
		r.partitions = map[*Partition]struct{}{}
	}
	r.partitions[p] = struct{}{}
}

// retry has the controller asked if there are replicas that may serve again.
func (r *refused) retry(s *Set, now time.Time) {
	if r.due(now) && s.options.AskAgain != nil {
		s.background(s.options.AskAgain)
	}
}

func (r *refused) due(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.next) {
		return false
	}
	due := false
	for p := range r.partitions {
		if log := p.Log(); log == nil || log.FreeBytes() >= askRoom {
			delete(r.partitions, p)
			due = true
		}
	}
	if due {
		r.pause = min(max(2*r.pause, askPauseMin), askPauseMax)
	} else if now.Sub(r.next) > askPauseMax {
		r.pause = 0
	}
	if due || len(r.partitions) > 0 {
		r.next = now.Add(max(r.pause, askPauseMin))
	}
	return due
}

// full reports a disk without room.
func full(err error) bool {
	var fault *logstore.StorageError
	return errors.As(err, &fault) && fault.Full
}
