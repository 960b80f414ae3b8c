package quota

import "time"

// bucket holds the partitions that may still be created or deleted. It fills at the limit's rate up to a window's worth, and may be
// overdrawn by the one request that empties it. Source: KIP-599. Guarded by Clients.mu.
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

// bucketLocked is a client's bucket as of now, nil without a limit.
func (c *Clients) bucketLocked(user, client string, now time.Time) *bucket {
	whose, most, ok := c.limits.Load().Find(Mutation, user, client)
	if !ok {
		return nil
	}
	room := most * float64(c.mutations.Samples) * c.mutations.Span.Seconds()
	b := c.mu.buckets[whose]
	if b == nil {
		b = &bucket{tokens: room, filled: now}
		c.mu.buckets[whose] = b
	}
	b.rate, b.most = most, room
	b.fill(now)
	return b
}

// MayMutate counts changes to so many partitions if the client's limit is not used up. If it is, wait says until when. Without a
// limit everything goes.
func (c *Clients) MayMutate(user, client string, partitions int, now time.Time) (wait time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.bucketLocked(user, client, now)
	switch {
	case b == nil:
		return 0, true
	case b.tokens < 0:
		return b.overdrawn(), false
	}
	b.tokens -= float64(partitions)
	return 0, true
}

// Mutate counts changes to so many partitions, a negative number takes back what came to nothing. It says how long the client, which
// is too old to be refused, has to be quiet.
func (c *Clients) Mutate(user, client string, partitions int, now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.bucketLocked(user, client, now)
	if b == nil {
		return 0
	}
	b.tokens = min(b.most, b.tokens-float64(partitions))
	return b.overdrawn()
}

// HasMutationLimit reports whether a client's changes are counted at all.
func (c *Clients) HasMutationLimit(user, client string) bool {
	_, ok := c.Limit(Mutation, user, client)
	return ok
}
