package txncoord

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

// Init is an InitProducerId request with a transactional id.
type Init struct {
	ID        string
	TimeoutMs int32
	Expected  *Producer // what the producer believes itself to be; nil: it begins anew (KIP-360)
}

// Init gives a producer its id and an epoch that fences its predecessors. While a transaction of theirs is open it is aborted, and
// the producer told CONCURRENT_TRANSACTIONS until that is done.
func (c *Coordinator) Init(r *Init, done func(Producer, error)) {
	none := Producer{noProducerID, noProducerEpoch}
	if r.ID == "" {
		done(none, kerr.InvalidRequest)
		return
	}
	if r.TimeoutMs <= 0 || time.Duration(r.TimeoutMs)*time.Millisecond > c.o.TimeoutMax {
		done(none, kerr.InvalidTransactionTimeout)
		return
	}
	s, err := c.usable(r.ID)
	if err != nil {
		done(none, err)
		return
	}
	e := s.getOrAdd(r.ID)
	if e == nil {
		done(none, kerr.NotCoordinator)
		return
	}
	e.init(r, noProducerID, func(p Producer, err error) {
		if err != nil {
			p = none
		}
		done(p, err)
	})
}

func (e *entry) init(r *Init, fresh int64, done func(Producer, error)) {
	e.mu.Lock()
	v := e.mu.init(r.Expected, r.TimeoutMs, fresh, e.shard.c.now())
	switch {
	case v.err != nil:
		e.mu.Unlock()
		done(Producer{}, v.err)
		return
	case v.needsID:
		e.mu.Unlock()
		e.shard.c.o.NewProducerID(func(id int64, err error) {
			if err != nil {
				done(Producer{}, err)
				return
			}
			e.init(r, id, done)
		})
		return
	}
	next := v.next
	e.storeLocked(func(err error) {
		switch {
		case err == nil && v.fenced:
			e.shard.c.markers.begin(e)
			done(Producer{}, kerr.ConcurrentTransactions)
		default:
			done(next.Producer, err)
		}
	})
	e.mu.Unlock()
	e.shard.Flush()
}

// find returns the entry of an id that is known.
func (c *Coordinator) find(id string) (*entry, error) {
	s, err := c.usable(id)
	if err != nil {
		return nil, err
	}
	if e := s.get(id); e != nil {
		return e, nil
	}
	return nil, kerr.InvalidProducerIDMapping
}

// AddPartitions lets partitions take part in the producer's transaction, which begins with the first of them.
func (c *Coordinator) AddPartitions(id string, p Producer, tps []cluster.TopicPartition, done func(error)) {
	e, err := c.find(id)
	if err != nil {
		done(err)
		return
	}
	e.mu.Lock()
	next, err := e.mu.add(p, tps, c.now())
	e.storeOrAnswer(next, err, done)
}

// storeOrAnswer ends a decision, under whose lock it is called; it unlocks.
func (e *entry) storeOrAnswer(next *image, err error, done func(error)) {
	if next == nil {
		e.mu.Unlock()
		done(err)
		return
	}
	e.storeLocked(done)
	e.mu.Unlock()
	e.shard.Flush()
}

// VerifyPartitions tells of each partition whether it takes part in the producer's transaction (TRANSACTION_ABORTABLE if not), or
// why that cannot be told. Source: KIP-890.
func (c *Coordinator) VerifyPartitions(id string, p Producer, tps []cluster.TopicPartition) ([]error, error) {
	e, err := c.find(id)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.verify(p, tps)
}

// End commits or aborts the producer's transaction. done is called when that is decided; the markers follow.
func (c *Coordinator) End(id string, p Producer, commit bool, done func(error)) {
	e, err := c.find(id)
	if err != nil {
		done(err)
		return
	}
	e.mu.Lock()
	next, err := e.mu.end(p, commit, c.now())
	e.storeOrAnswer(next, err, func(err error) {
		if next != nil && err == nil {
			c.markers.begin(e)
		}
		done(err)
	})
}

// AbortTimedOut aborts the transactions whose time is over, and fences their producers. It is run every
// transaction.abort.timed.out.transaction.cleanup.interval.ms.
func (c *Coordinator) AbortTimedOut(now time.Time) {
	c.eachReady(func(s *shard, e *entry) {
		e.mu.Lock()
		if !e.mu.timedOut(now) {
			e.mu.Unlock()
			return
		}
		id, open := e.mu.id, now.UnixMilli()-e.mu.now.startedMs
		e.mu.fence(now)
		e.storeOrAnswer(e.mu.next, nil, func(err error) {
			if err == nil {
				c.markers.begin(e)
				c.o.Metrics.timedOut.Inc()
			}
			c.log.Info().Err(err).Str("transactional_id", id).Int64("open_ms", open).Msg("transaction ran out of time, aborting it")
		})
	})
}

// Expire forgets ids that were idle for transactional.id.expiration.ms. It is run every
// transaction.remove.expired.transaction.cleanup.interval.ms.
func (c *Coordinator) Expire(now time.Time) {
	c.eachReady(func(s *shard, e *entry) {
		e.mu.Lock()
		id, next := e.mu.id, e.mu.expire(now, c.o.IDExpiration)
		if next == nil {
			e.mu.Unlock()
			return
		}
		e.storeOrAnswer(next, nil, func(err error) {
			if err == nil {
				s.drop(e, id)
			}
		})
	})
}

// eachReady visits the entries of the shards that serve.
func (c *Coordinator) eachReady(fn func(*shard, *entry)) {
	for _, s := range c.shards.All() {
		if !s.Ready() || !c.o.Lease() {
			continue
		}
		for _, e := range s.all() {
			fn(s, e)
		}
	}
}
