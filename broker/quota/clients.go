package quota

import (
	"sync"
	"sync/atomic"
	"time"

	"ottla/internal/cluster"
)

// Window is how rates are measured: so many samples of a span.
type Window struct {
	Samples int
	Span    time.Duration
}

// Clients holds clients to their limits. It guards itself; where nobody has a limit, a question costs a look at a pointer.
type Clients struct {
	window, mutations Window
	limits            atomic.Pointer[Limits]

	mu struct {
		sync.Mutex
		rates   map[meter]*Rate
		buckets map[meter]*bucket
	}
}

// meter names a measured rate.
type meter struct {
	kind Kind
	of   cluster.ClientEntity
}

// NewClients limits nobody. mutations is the window of changes to topics, window that of all else.
func NewClients(window, mutations Window) *Clients {
	c := &Clients{window: window, mutations: mutations}
	c.limits.Store(&Limits{})
	c.mu.rates = map[meter]*Rate{}
	c.mu.buckets = map[meter]*bucket{}
	return c
}

// Replace takes the settings of all entities.
func (c *Clients) Replace(all map[cluster.ClientEntity]map[string]string) {
	l := &Limits{}
	for e, settings := range all {
		l = l.With(e, settings)
	}
	c.limits.Store(l)
}

// Set takes one entity's settings; none ends its limits. Calls must not overlap, nor with Replace.
func (c *Clients) Set(e cluster.ClientEntity, settings map[string]string) {
	c.limits.Store(c.limits.Load().With(e, settings))
}

// Limit is what a client may do of a kind; ok is false without one.
func (c *Clients) Limit(k Kind, user, client string) (most float64, ok bool) {
	_, most, ok = c.limits.Load().Find(k, user, client)
	return most, ok
}

// TakeTime counts time of a processor, in percent of a second, and says for how long the client has to be quiet: at most a sample, as
// Kafka bounds it, since the next request is judged anew.
func (c *Clients) TakeTime(user, client string, percent float64, now time.Time) time.Duration {
	whose, most, ok := c.limits.Load().Find(Request, user, client)
	if !ok {
		return 0
	}
	return min(c.rate(meter{Request, whose}).Take(percent, most, now), c.window.Span)
}

// TakeBytes counts bytes that a client has sent and says for how long it has to be quiet.
func (c *Clients) TakeBytes(user, client string, bytes int, now time.Time) time.Duration {
	if !c.limits.Load().any[Produce] {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.bucketLocked(Produce, user, client, now)
	if b == nil {
		return 0
	}
	b.tokens -= float64(bytes)
	return b.overdrawn()
}

// TakeFetch counts bytes that a client shall be sent, unless it has had too many before: those are not sent, and not counted. wait is
// for how long the client has to be quiet in either case.
func (c *Clients) TakeFetch(user, client string, bytes int, now time.Time) (wait time.Duration, send bool) {
	if !c.limits.Load().any[Fetch] {
		return 0, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.bucketLocked(Fetch, user, client, now)
	switch {
	case b == nil:
		return 0, true
	case b.tokens < 0:
		return b.overdrawn(), false
	}
	b.tokens -= float64(bytes)
	return b.overdrawn(), true
}

// FetchMax is how many bytes one fetch may bring: what the limit allows in a sample, beside the first batch.
func (c *Clients) FetchMax(user, client string, otherwise int) int {
	most, ok := c.Limit(Fetch, user, client)
	if !ok || most*c.window.Span.Seconds() >= float64(otherwise) {
		return otherwise
	}
	return max(1, int(most*c.window.Span.Seconds()))
}

// TakeConnection counts a new connection and says for how long it has to be kept waiting before it is closed; 0 lets it in. One that is
// not let in is not counted. Source: KIP-612.
func (c *Clients) TakeConnection(ip string, now time.Time) time.Duration {
	l := c.limits.Load()
	if !l.any[Connections] {
		return 0
	}
	most, ok := l.FindIP(ip)
	if !ok {
		return 0
	}
	r := c.rate(meter{Connections, cluster.ClientEntity{IP: ip}})
	wait := r.Take(1, most, now)
	if wait > 0 {
		r.Record(-1, now)
	}
	return min(wait, time.Duration(c.window.Samples)*c.window.Span)
}

func (c *Clients) rate(m meter) *Rate {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.mu.rates[m]
	if r == nil {
		r = NewRate(c.window.Samples, c.window.Span)
		c.mu.rates[m] = r
	}
	return r
}

// Forget drops what is measured of clients that have been quiet for a window: it counts for nothing.
func (c *Clients) Forget(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for m, r := range c.mu.rates {
		if r.idle(now) {
			delete(c.mu.rates, m)
		}
	}
	for m, b := range c.mu.buckets {
		if b.full(now) {
			delete(c.mu.buckets, m)
		}
	}
}
