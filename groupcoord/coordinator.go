package groupcoord

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/coordlog"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// Options are what a Coordinator is made of.
type Options struct {
	Limits        Limits
	MetadataMax   int           // offset.metadata.max.bytes, compared with the length in UTF-16 units
	CommitTimeout time.Duration // offsets.commit.timeout.ms
	Retention     time.Duration // offsets.retention.minutes
	LoadBytes     int           // offsets.load.buffer.size

	InZooKeeper bool // offsets.storage=zookeeper
	Dual        bool // dual.commit.enabled

	// Partitions is how many partitions __consumer_offsets has, as far as the metadata tells; 0: no such topic.
	Partitions func() int32
	// Lease reports whether the session with ZooKeeper is proven to live: without it another broker may coordinate already.
	Lease func() bool
	// Session is the current session with ZooKeeper, for offsets that live there.
	Session func() zkcoord.Session
	// Run runs what waits for ZooKeeper on a goroutine of its own.
	Run func(func())

	Logger  zerolog.Logger
	Metrics *Metrics
	NewID   func() string    // for member ids; nil: random UUIDs
	Now     func() time.Time // nil: time.Now
}

// Coordinator coordinates the groups whose partition of __consumer_offsets this broker leads. It guards itself.
type Coordinator struct {
	o      Options
	log    zerolog.Logger
	timers *timers

	cancel context.CancelFunc
	loops  sync.WaitGroup
	shards *coordlog.Shards[*shard]
}

// New makes a coordinator. Start must follow.
func New(o Options) *Coordinator {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.NewID == nil {
		o.NewID = randomID
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	c := &Coordinator{
		o: o, log: o.Logger.With().Str("component", "groups").Logger(), timers: newTimers(),
	}
	c.shards = coordlog.NewShards("groups", c.log, c.load, c.unload)
	return c
}

func (c *Coordinator) now() time.Time { return c.o.Now() }

// Start starts the one goroutine that minds the deadlines.
func (c *Coordinator) Start() {
	ctx, cancel := context.WithCancel(context.Background())
	c.cancel = cancel
	c.loops.Go(func() { c.timers.loop(ctx, c.now, (*entry).tick) })
}

// Close answers everybody who waits, and returns when nothing runs any more.
func (c *Coordinator) Close() {
	c.shards.Stop()
	c.cancel()
	c.loops.Wait()
	c.shards.Wait()
}

// Elected loads the groups of a partition that this broker leads from now on. It returns at once; requests are told
// COORDINATOR_LOAD_IN_PROGRESS meanwhile.
func (c *Coordinator) Elected(number int32, epoch cluster.LeaderEpoch, p coordlog.Partition) {
	c.shards.Elected(newShard(c, number, epoch, p))
}

// Resigned drops the groups of a partition that this broker does not lead any more; whoever waits is told NOT_COORDINATOR.
func (c *Coordinator) Resigned(number int32) { c.shards.Resigned(number) }

func (c *Coordinator) unload(s *shard) {
	s.mu.Lock()
	s.Close()
	groups := s.mu.groups
	s.mu.groups = map[string]*entry{}
	s.mu.Unlock()
	for _, e := range groups {
		e.decide(func(d *decision, g *group) { g.kill(d, kerr.NotCoordinator) })
	}
	line := c.log.Info()
	if len(groups) == 0 {
		line = c.log.Debug()
	}
	line.Int32("partition", s.Number).Int32("leader_epoch", int32(s.Epoch())).Int("groups", len(groups)).Msg("resigned as coordinator")
}

// usable finds the shard of a group, or says why this broker cannot serve it.
func (c *Coordinator) usable(group string) (*shard, error) {
	if c.shards.Stopped() {
		return nil, kerr.CoordinatorNotAvailable
	}
	n := c.o.Partitions()
	if n <= 0 || !c.o.Lease() {
		return nil, kerr.NotCoordinator
	}
	return c.shards.Find(coordlog.PartitionOf(group, n))
}

// member is usable for the requests of members, which need a group id.
func (c *Coordinator) usableNamed(group string) (*shard, error) {
	if group == "" {
		return nil, kerr.InvalidGroupID
	}
	return c.usable(group)
}

// stateChange is what the log tells of a decision.
type stateChange struct {
	id         string
	from, to   State
	generation int32
	members    int
}

// report logs and counts what was decided.
func (c *Coordinator) report(d *decision, s stateChange) {
	m := c.o.Metrics
	m.rebalances.Add(float64(d.rebalances))
	m.completed.Add(float64(d.completed))
	m.expiredMembers.Add(float64(d.expired))
	if len(d.notes) == 0 && s.from == s.to {
		return
	}
	for _, n := range d.notes {
		c.log.Debug().Str("group", s.id).Str("member", n.member).Str("what", n.what).Msg("group changed")
	}
	if s.from != s.to && s.to != Dead {
		c.log.Info().Str("group", s.id).Stringer("from", s.from).Stringer("to", s.to).Int32("generation", s.generation).
			Int("members", s.members).Msg("group changed its state")
	}
}
