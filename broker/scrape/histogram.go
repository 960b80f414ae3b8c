package scrape

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"time"
)

// Histogram counts durations in buckets that grow by an eighth of a power of two, so that a quantile is at most 6 % off. Observing is
// three atomic additions. The zero value is ready.
type Histogram struct {
	sum     atomic.Int64 // ns
	counts  [buckets]atomic.Uint64
	windows struct {
		sync.Mutex // serialises scrapes
		old, young *state
	}
}

// state is a histogram's counts at some moment.
type state struct {
	at     time.Time
	counts [buckets]uint64
}

const (
	subBits = 3
	// buckets reach to 2^34 µs, almost five hours; what takes longer is counted in the last.
	buckets = (34-subBits+1)<<subBits + 1
)

// Observe counts a duration.
func (h *Histogram) Observe(d time.Duration) {
	h.counts[bucketOf(d)].Add(1)
	h.sum.Add(int64(d))
}

// bucketOf numbers the buckets: below 2^subBits µs one for each, above as many for each power of two.
func bucketOf(d time.Duration) int {
	us := uint64(max(d, 0)) / uint64(time.Microsecond)
	e := bits.Len64(us)
	if e <= subBits {
		return int(us)
	}
	b := (e-subBits)<<subBits + int(us>>(e-1-subBits)&(1<<subBits-1))
	return min(b, buckets-1)
}

// middleOf is the duration that a bucket stands for.
func middleOf(b int) time.Duration {
	if b < 1<<subBits {
		return time.Duration(b) * time.Microsecond
	}
	e, sub := b>>subBits+subBits, uint64(b&(1<<subBits-1))
	low := uint64(1)<<(e-1) | sub<<(e-1-subBits)
	width := uint64(1) << (e - 1 - subBits)
	return time.Duration(low)*time.Microsecond + time.Duration(width)*time.Microsecond/2
}

// Quantiles are the quantiles that Kafka tells of its histograms, with the text of their labels.
var Quantiles = [...]struct {
	Label string
	Of    float64
}{{"0.50", 0.50}, {"0.75", 0.75}, {"0.95", 0.95}, {"0.98", 0.98}, {"0.99", 0.99}, {"0.999", 0.999}}

// Summary is what a histogram says when it is asked.
type Summary struct {
	Count     uint64        // since the start
	Sum       time.Duration // since the start
	Quantiles [len(Quantiles)]time.Duration
}

// window is how long the recent past is at least, over which quantiles are told. Kafka weighs the last five minutes most.
const window = time.Minute

// Summary tells counts since the start, and quantiles of the last one to two minutes (longer if nobody asked).
func (h *Histogram) Summary(now time.Time) Summary {
	current := &state{at: now}
	s := Summary{Sum: time.Duration(h.sum.Load())}
	for b := range h.counts {
		n := h.counts[b].Load()
		current.counts[b] = n
		s.Count += n
	}
	h.windows.Lock()
	old := h.windows.old
	if h.windows.young == nil || now.Sub(h.windows.young.at) >= window {
		h.windows.old, h.windows.young = h.windows.young, current
		if h.windows.old != nil {
			old = h.windows.old
		}
	}
	h.windows.Unlock()
	if old == nil {
		old = &state{}
	}
	s.Quantiles = quantilesBetween(old, current)
	return s
}

func quantilesBetween(old, current *state) (out [len(Quantiles)]time.Duration) {
	total := uint64(0)
	for b := range current.counts {
		total += current.counts[b] - old.counts[b]
	}
	if total == 0 {
		return out
	}
	seen, q := uint64(0), 0
	for b := range current.counts {
		seen += current.counts[b] - old.counts[b]
		for q < len(Quantiles) && float64(seen) >= Quantiles[q].Of*float64(total) {
			out[q] = middleOf(b)
			q++
		}
	}
	return out
}
