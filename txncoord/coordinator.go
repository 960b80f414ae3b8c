package txncoord

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/coordlog"
	"ottla/internal/cluster"
)

// StateTopic holds the state of transactional ids.
const StateTopic = "__transaction_state"

// Options are what a Coordinator is made of.
type Options struct {
	TimeoutMax    time.Duration // transaction.max.timeout.ms
	IDExpiration  time.Duration // transactional.id.expiration.ms
	AppendTimeout time.Duration // how long a record waits for its replicas
	LoadBytes     int           // transaction.state.log.load.buffer.size

	// Partitions is how many partitions __transaction_state has, as far as the metadata tells; 0: no such topic.
	Partitions func() int32
	// Lease reports whether the session with ZooKeeper is proven to live: without it another broker may coordinate already.
	Lease func() bool
	// NewProducerID gives a producer id that nobody has. done must not be called under a lock.
	NewProducerID func(done func(id int64, err error))
	// Leader is who leads a partition now, NoBroker for nobody that lives. known is false for a partition that does not exist.
	Leader func(cluster.TopicPartition) (leader cluster.BrokerID, known bool)
	// Send asks a broker and waits for its answer.
	Send func(ctx context.Context, to cluster.BrokerID, req kmsg.Request) (kmsg.Response, error)

	Logger  zerolog.Logger
	Metrics *Metrics
	Now     func() time.Time // nil: time.Now
}

// Coordinator coordinates the transactional ids whose partition of __transaction_state this broker leads. It guards itself.
type Coordinator struct {
	o       Options
	log     zerolog.Logger
	shards  *coordlog.Shards[*shard]
	markers *markers
}

// New makes a coordinator.
func New(o Options) *Coordinator {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	c := &Coordinator{o: o, log: o.Logger.With().Str("component", "transactions").Logger()}
	c.shards = coordlog.NewShards("transactions", c.log, c.load, c.unload)
	c.markers = newMarkers(c)
	return c
}

func (c *Coordinator) now() time.Time { return c.o.Now() }

// Close ends the sending of markers, and returns when nothing runs any more.
func (c *Coordinator) Close() {
	c.shards.Stop()
	c.markers.close()
	c.shards.Wait()
}

// Elected loads a partition that this broker leads from now on. It returns at once; requests are told
// COORDINATOR_LOAD_IN_PROGRESS meanwhile.
func (c *Coordinator) Elected(number int32, epoch cluster.LeaderEpoch, p coordlog.Partition) {
	c.shards.Elected(newShard(c, number, epoch, p))
}

// Resigned drops a partition that this broker does not lead any more.
func (c *Coordinator) Resigned(number int32) { c.shards.Resigned(number) }

func (c *Coordinator) unload(s *shard) {
	s.mu.Lock()
	s.Close()
	n := len(s.mu.entries)
	s.mu.entries = map[string]*entry{}
	s.mu.Unlock()
	line := c.log.Info()
	if n == 0 {
		line = c.log.Debug()
	}
	line.Int32("partition", s.Number).Int32("leader_epoch", int32(s.Epoch())).Int("transactional_ids", n).Msg("resigned as coordinator of transactions")
}

// usable finds the shard of a transactional id, or says why this broker cannot serve it.
func (c *Coordinator) usable(id string) (*shard, error) {
	if c.shards.Stopped() {
		return nil, kerr.CoordinatorNotAvailable
	}
	if id == "" {
		return nil, kerr.InvalidRequest
	}
	n := c.o.Partitions()
	if n <= 0 || !c.o.Lease() {
		return nil, kerr.NotCoordinator
	}
	return c.shards.Find(coordlog.PartitionOf(id, n))
}

// shard is one partition of __transaction_state that this broker leads, in one leader epoch, with its transactional ids.
type shard struct {
	*coordlog.Shard
	c  *Coordinator // constant
	mu struct {
		sync.RWMutex
		entries map[string]*entry
	}
}

func newShard(c *Coordinator, number int32, epoch cluster.LeaderEpoch, p coordlog.Partition) *shard {
	s := &shard{Shard: coordlog.NewShard(number, coordlog.NewWriter(p, epoch, c.o.AppendTimeout, c.now)), c: c}
	s.mu.entries = map[string]*entry{}
	return s
}

// entry is one transactional id: a small lock around the pure core.
type entry struct {
	shard *shard
	mu    struct {
		sync.Mutex
		*transaction
	}
}

func (s *shard) newEntry(id string) *entry {
	e := &entry{shard: s}
	e.mu.transaction = newTransaction(id)
	return e
}

// get returns an entry, or nil.
func (s *shard) get(id string) *entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.entries[id]
}

// getOrAdd returns an entry, made when it did not exist; nil when the shard was closed.
func (s *shard) getOrAdd(id string) *entry {
	if e := s.get(id); e != nil {
		return e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Closed() {
		return nil
	}
	e := s.mu.entries[id]
	if e == nil {
		e = s.newEntry(id)
		s.mu.entries[id] = e
	}
	return e
}

// drop forgets an entry.
func (s *shard) drop(e *entry, id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.entries[id] == e {
		delete(s.mu.entries, id)
	}
}

// all lists the entries, in no order.
func (s *shard) all() []*entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*entry, 0, len(s.mu.entries))
	for _, e := range s.mu.entries {
		out = append(out, e)
	}
	return out
}

// storeLocked gives the image that was decided its place in the order of the log. The caller unlocks the entry and flushes the
// shard. done is told how it went, with what the transaction has become then.
func (e *entry) storeLocked(done func(error)) {
	t := e.mu.transaction
	from := t.now.state
	e.shard.Enqueue(&coordlog.Write{
		Records: []coordlog.Record{{Key: encodeKey(t.id), Value: encodeImage(t.next)}},
		Done: func(_ int64, err error) {
			if err = verdict(err); err == nil && e.shard.Closed() {
				err = kerr.NotCoordinator // stored, but another broker decides on from here
			}
			e.mu.Lock()
			t.stored(err)
			to := t.now
			e.mu.Unlock()
			if err == nil {
				e.shard.c.report(t.id, from, &to)
			}
			done(err)
		},
	})
}

// report logs and counts a change of state.
func (c *Coordinator) report(id string, from State, to *image) {
	switch to.state {
	case CompleteCommit:
		c.o.Metrics.committed.Inc()
	case CompleteAbort:
		c.o.Metrics.aborted.Inc()
	}
	c.log.Debug().Str("transactional_id", id).Stringer("from", from).Stringer("to", to.state).Int64("producer_id", to.ID).
		Int16("producer_epoch", to.Epoch).Int("partitions", len(to.partitions)).Msg("transaction changed its state")
}

// verdict turns a failed append into what the client is told.
func verdict(err error) error {
	switch err {
	case nil:
		return nil
	case kerr.UnknownTopicOrPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend, kerr.RequestTimedOut:
		return kerr.CoordinatorNotAvailable
	case kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch:
		return kerr.NotCoordinator
	case kerr.MessageTooLarge, kerr.RecordListTooLarge:
		return kerr.UnknownServerError
	}
	return err
}
