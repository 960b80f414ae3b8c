package quota

import "time"

// bucket holds what may still be done. It fills at the limit's rate, and may be overdrawn by the one request that empties it; what is
// missing then is the time to be quiet. Guarded by Clients.mu.
type bucket struct {
	tokens float64
	rate   float64
	most   float64
	filled time.Time
}

func (b *bucket) fill(now time.Time) {
	b.tokens = min(b.most, b.tokens+b.rate*now.Sub(b.filled).Seconds())
	b.filled = now
}

func (b *bucket) full(now time.Time) bool {
	return b.tokens+b.rate*now.Sub(b.filled).Seconds() >= b.most
}

// overdrawn says how long it takes until the bucket is no longer overdrawn.
func (b *bucket) overdrawn() time.Duration {
	if b.tokens >= 0 {
		return 0
	}
	return quietFor(-b.tokens/b.rate, time.Second)
}

// bucketLocked is a client's bucket as of now, nil without a limit. For changes to topics it holds a window's worth, as Kafka's; for
// bytes a sample's, where Kafka averages over the window: so that a client over its quota goes at an even pace, and not in bursts of a
// window's length.
func (c *Clients) bucketLocked(k Kind, user, client string, now time.Time) *bucket {
	whose, most, ok := c.limits.Load().Find(k, user, client)
	if !ok {
		return nil
	}
	room := most * c.window.Span.Seconds()
	if k == Mutation {
		room = most * float64(c.mutations.Samples) * c.mutations.Span.Seconds()
	}
	b := c.mu.buckets[meter{k, whose}]
	if b == nil {
		b = &bucket{tokens: room, filled: now}
		c.mu.buckets[meter{k, whose}] = b
	}
	b.rate, b.most = most, room
	b.fill(now)
	return b
}
