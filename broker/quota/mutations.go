package quota

import "time"

// MayMutate counts changes to so many partitions if the client's limit is not used up. If it is, wait says until when. Without a
// limit everything goes.
func (c *Clients) MayMutate(user, client string, partitions int, now time.Time) (wait time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	b := c.bucketLocked(Mutation, user, client, now)
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
	b := c.bucketLocked(Mutation, user, client, now)
	if b == nil {
		return 0
	}
	b.tokens = min(b.most, b.tokens-float64(partitions))
	return b.overdrawn()
}
