// Package quota holds rates to their limits: the throttles of replication (KIP-73).
package quota

import (
	"math"
	"sync"
	"time"
)

// Rate measures bytes a second over the last samples, as Kafka does: one sample a second, the last one growing. Until the
// window has filled once, the measure is taken over the whole window less the growing sample, so that a start may burst.
type Rate struct {
	samples int
	mu      struct {
		sync.Mutex
		sums  []float64
		began []time.Time // of each sample; zero: never used
		at    int
	}
}

const sampleSpan = time.Second // replication.quota.window.size.seconds

// NewRate measures over so many samples (replication.quota.window.num, 11 by default).
func NewRate(samples int) *Rate {
	r := &Rate{samples: samples}
	r.mu.sums, r.mu.began = make([]float64, samples), make([]time.Time, samples)
	return r
}

// Record counts n bytes.
func (r *Rate) Record(n int, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Sub(r.mu.began[r.mu.at]) >= sampleSpan {
		r.mu.at = (r.mu.at + 1) % r.samples
		r.mu.sums[r.mu.at], r.mu.began[r.mu.at] = 0, now
	}
	r.mu.sums[r.mu.at] += float64(n)
}

// PerSecond is the present rate.
func (r *Rate) PerSecond(now time.Time) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	window := time.Duration(r.samples) * sampleSpan
	var sum float64
	oldest := now
	for i, began := range r.mu.began {
		if began.IsZero() || now.Sub(began) > window {
			continue
		}
		sum += r.mu.sums[i]
		if began.Before(oldest) {
			oldest = began
		}
	}
	over := max(now.Sub(oldest), window-sampleSpan, sampleSpan)
	return sum / over.Seconds()
}

// Throttle is one side's limit on the replication of listed partitions: a leader's, or a follower's.
type Throttle struct {
	rate  *Rate
	limit func() float64 // bytes a second; +Inf: none
	mu    struct {
		sync.RWMutex
		topics map[string]partitions
	}
}

// partitions are those of a topic that are throttled here.
type partitions struct {
	all    bool
	listed map[int32]bool
}

// NewThrottle returns a throttle on nothing. limit is asked at each look.
func NewThrottle(samples int, limit func() float64) *Throttle {
	t := &Throttle{rate: NewRate(samples), limit: limit}
	t.mu.topics = map[string]partitions{}
	return t
}

// SetTopic takes a topic's list: all of its partitions, or those listed; neither ends its throttling.
func (t *Throttle) SetTopic(topic string, all bool, listed map[int32]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !all && len(listed) == 0 {
		delete(t.mu.topics, topic)
		return
	}
	t.mu.topics[topic] = partitions{all, listed}
}

// Lists reports whether a partition is among the throttled ones.
func (t *Throttle) Lists(topic string, partition int32) bool {
	t.mu.RLock()
	defer t.mu.RUnlock()
	if len(t.mu.topics) == 0 {
		return false
	}
	p := t.mu.topics[topic]
	return p.all || p.listed[partition]
}

// Exceeded reports whether the quota is used up.
func (t *Throttle) Exceeded(now time.Time) bool {
	limit := t.limit()
	return !math.IsInf(limit, 1) && t.rate.PerSecond(now) > limit
}

// Record counts bytes of a throttled partition.
func (t *Throttle) Record(bytes int, now time.Time) {
	if bytes > 0 {
		t.rate.Record(bytes, now)
	}
}
