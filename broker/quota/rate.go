// Package quota holds rates to their limits: the throttles of replication (KIP-73), and what users, clients and addresses are
// allowed (KIP-13, KIP-55, KIP-124, KIP-599, KIP-612).
package quota

import (
	"math"
	"sync"
	"time"
)

// Rate measures an amount a second over the last samples, as Kafka does: the last sample is still growing, and until the window
// has filled once the measure is taken over the whole window less that sample, so that a start may burst.
type Rate struct {
	samples int
	span    time.Duration // of a sample
	mu      struct {
		sync.Mutex
		sums  []float64
		began []time.Time // of each sample; zero: never used
		at    int
	}
}

// NewRate measures over so many samples of a span (quota.window.num and quota.window.size.seconds and their likes).
func NewRate(samples int, span time.Duration) *Rate {
	r := &Rate{samples: samples, span: span}
	r.mu.sums, r.mu.began = make([]float64, samples), make([]time.Time, samples)
	return r
}

// Record counts an amount; a negative one takes back what has been counted just now.
func (r *Rate) Record(amount float64, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recordLocked(amount, now)
}

func (r *Rate) recordLocked(amount float64, now time.Time) {
	if now.Sub(r.mu.began[r.mu.at]) >= r.span {
		r.mu.at = (r.mu.at + 1) % r.samples
		r.mu.sums[r.mu.at], r.mu.began[r.mu.at] = 0, now
	}
	r.mu.sums[r.mu.at] += amount
}

// PerSecond is the present rate.
func (r *Rate) PerSecond(now time.Time) float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	rate, _ := r.measureLocked(now)
	return rate
}

// measureLocked is the present rate, and what span it was taken over.
func (r *Rate) measureLocked(now time.Time) (rate float64, over time.Duration) {
	var sum float64
	oldest := now
	for i, began := range r.mu.began {
		if began.IsZero() || now.Sub(began) > time.Duration(r.samples)*r.span {
			continue
		}
		sum += r.mu.sums[i]
		if began.Before(oldest) {
			oldest = began
		}
	}
	over = now.Sub(oldest)
	if missing := r.samples - 1 - int(over/r.span); missing > 0 {
		over += time.Duration(missing) * r.span
	}
	over = max(over, r.span)
	return sum / over.Seconds(), over
}

// Take counts an amount and says for how long its cause has to be quiet for the rate to come back to the limit; 0 is below it.
func (r *Rate) Take(amount, limit float64, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.recordLocked(amount, now)
	rate, over := r.measureLocked(now)
	if rate <= limit {
		return 0
	}
	return quietFor((rate-limit)/limit, over)
}

// quietFor is a share of a span, bounded by what clients can be told. The share is infinite with a limit of nothing.
func quietFor(share float64, over time.Duration) time.Duration {
	const most = time.Hour
	if d := share * float64(over); d < float64(most) {
		return time.Duration(d)
	}
	return most
}

// idle reports whether nothing has been counted within the window.
func (r *Rate) idle(now time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return now.Sub(r.mu.began[r.mu.at]) > time.Duration(r.samples+1)*r.span
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
func NewThrottle(samples int, span time.Duration, limit func() float64) *Throttle {
	t := &Throttle{rate: NewRate(samples, span), limit: limit}
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
		t.rate.Record(float64(bytes), now)
	}
}
