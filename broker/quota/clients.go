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
		buckets map[cluster.ClientEntity]*bucket
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
	c.mu.buckets = map[cluster.ClientEntity]*bucket{}
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

// Take counts an amount against a client's limit and says for how long the client has to be quiet.
func (c *Clients) Take(k Kind, user, client string, amount float64, now time.Time) time.Duration {
	whose, most, ok := c.limits.Load().Find(k, user, client)
	if !ok {
		return 0
	}
	wait := c.rate(meter{k, whose}).Take(amount, most, now)
	if k == Request {
		wait = min(wait, c.window.Span) // as Kafka bounds it: the next request is judged anew
	}
	return wait
}

// TakeFetch is Take for bytes that are sent only if that is within the limit; otherwise nothing is counted. What a client whose window
// is empty fetches is always sent, or a batch larger than its limit could never be read.
func (c *Clients) TakeFetch(user, client string, bytes int, now time.Time) (wait time.Duration, send bool) {
	whose, most, ok := c.limits.Load().Find(Fetch, user, client)
	if !ok {
		return 0, true
	}
	r := c.rate(meter{Fetch, whose})
	first := r.PerSecond(now) == 0
	wait = r.Take(float64(bytes), most, now)
	if wait == 0 || first {
		return wait, true
	}
	r.Record(-float64(bytes), now)
	return wait, false
}

// FetchMax is how many bytes one fetch may bring: what the limit allows in a whole window.
func (c *Clients) FetchMax(user, client string, otherwise int) int {
	most, ok := c.Limit(Fetch, user, client)
	if !ok {
		return otherwise
	}
	inWindow := most * float64(c.window.Samples-1) * c.window.Span.Seconds()
	if inWindow >= float64(otherwise) {
		return otherwise
	}
	return max(1, int(inWindow))
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
	for e, b := range c.mu.buckets {
		if b.full(now) {
			delete(c.mu.buckets, e)
		}
	}
}
