package partition

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/broker/replication"
	"ottla/internal/cluster"
	"ottla/internal/invariant"
	"ottla/logstore"
)

// Partition is one replica on this broker. The zero value is not usable; see Set.
type Partition struct {
	id  cluster.TopicPartition // constant after newPartition
	set *Set                   // constant after newPartition

	traffic *Traffic     // of the topic; constant after newPartition
	lag     atomic.Int64 // see NoteLag

	fetches waiters              // guards itself
	view    atomic.Pointer[view] // immutable once stored; stored by the holder of mu

	// gate is held shared by whoever writes to the log, from the check of the role to the end of the write, and exclusively
	// by a change of role: once a demotion has returned, no append of the old epoch reaches the log any more. Taken before mu.
	gate sync.RWMutex

	mu struct {
		sync.Mutex
		state   *replication.State
		log     *logstore.Log // nil until opened; constant afterwards, except that a deletion ends it
		topicID cluster.TopicID
		offline error // set while the log's directory or the log itself has failed
		minISR  int   // min.insync.replicas, as configured
		// mustReach is the high watermark that was known before the restart. A log that recovery has cut below it lacks
		// acknowledged records and must not lead until it has reached it again by following.
		mustReach int64
		cutParked bool // replication is parked: the leader asked us to cut committed records
		appends   appendWaits
		deletes   []deleteWait
		timer     deadlineTimer
		active    bool       // in Set.active: something to check periodically
		refused   isrRefusal // the last ISR change that was not made, as it was told
	}
}

// view is what reads need of the state: published whole whenever a part of it changes. The offsets that move all the time
// are published by the log.
type view struct {
	log             *logstore.Log // nil: not opened yet
	topicID         cluster.TopicID
	offline         error
	role            replication.Role
	leader          cluster.BrokerID
	leaderEpoch     cluster.LeaderEpoch
	partitionEpoch  cluster.PartitionEpoch
	controllerEpoch cluster.ControllerEpoch
	epochStart      int64
	replicas        []cluster.BrokerID
	isr             []cluster.BrokerID
	pendingISR      []cluster.BrokerID
	minISR          int // effective
	reassigning     bool
	underReplicated bool // of the committed set, without replicas that are being added
}

func newPartition(set *Set, id cluster.TopicPartition) *Partition {
	p := &Partition{id: id, set: set, traffic: set.traffic.join(id.Topic)}
	p.mu.state = replication.NewState(set.options.BrokerID, 0, 0, 0)
	p.mu.minISR = set.minISR(id.Topic)
	p.publishLocked() // nobody else knows p yet
	return p
}

// TopicPartition returns the partition's name.
func (p *Partition) TopicPartition() cluster.TopicPartition { return p.id }

// TopicID returns the topic's id, zero when the controller has told none.
func (p *Partition) TopicID() cluster.TopicID { return p.view.Load().topicID }

// IsLeader reports whether this replica leads, and in which epoch.
func (p *Partition) IsLeader() (cluster.LeaderEpoch, bool) {
	v := p.view.Load()
	return v.leaderEpoch, v.role == replication.Leader && v.offline == nil
}

// Leader returns the leader as last decided, with its epoch.
func (p *Partition) Leader() (cluster.BrokerID, cluster.LeaderEpoch) {
	v := p.view.Load()
	return v.leader, v.leaderEpoch
}

// Log returns the partition's log, nil when it is not open. It is for those who read it whole (coordinators that load their
// state, tools) and for the cleaner; appends go through the Partition.
func (p *Partition) Log() *logstore.Log { return p.view.Load().log }

// publishLocked makes the state visible to readers.
func (p *Partition) publishLocked() {
	s := p.mu.state
	p.view.Store(&view{
		log: p.mu.log, topicID: p.mu.topicID, offline: p.mu.offline,
		role: s.Role(), leader: s.Leader(), leaderEpoch: s.LeaderEpoch(), partitionEpoch: s.PartitionEpoch(),
		controllerEpoch: s.ControllerEpoch(), epochStart: s.EpochStart(), replicas: s.Replicas(),
		isr: s.ISR(), pendingISR: s.PendingISR(), minISR: s.EffectiveMinISR(p.mu.minISR),
		reassigning: s.Reassigning(), underReplicated: s.UnderReplicated(),
	})
}

func (p *Partition) envLocked(now time.Time) replication.Env {
	return p.set.env(now, p.mu.minISR)
}

// settledLocked follows every event on the state: it publishes the high watermark, collects the waits that are over, and
// keeps the periodic check informed. The result is to be delivered after unlocking.
func (p *Partition) settledLocked(moved replication.Moved, env replication.Env) after {
	var a after
	if moved.HighWatermark {
		p.mu.log.SetHighWatermark(p.mu.state.HighWatermark())
		a.wake |= WakeOnHighWatermark
		a.appends = p.mu.appends.takeReady(p.mu.state, env)
	}
	if moved.FollowerLogStart && len(p.mu.deletes) > 0 {
		a.deletes = p.takeDeletesLocked(env)
	}
	if moved.Propose != nil {
		a.propose = moved.Propose
		p.publishLocked()
	}
	p.markActiveLocked()
	if invariant.Checked {
		_ = p.mu.state.Verify()
	}
	return a
}

// markActiveLocked puts the partition on the list of the periodic check when there may be something to check.
func (p *Partition) markActiveLocked() {
	if p.mu.active || p.mu.state.Role() != replication.Leader || len(p.mu.state.Replicas()) < 2 {
		return
	}
	p.mu.active = true
	p.set.active.add(p)
}

// after is what is to be done once no lock is held.
type after struct {
	wake    WakeOn
	appends []completion
	deletes []deleteCompletion
	propose *replication.Proposal
}

// deliver does it.
func (p *Partition) deliver(a after) {
	if a.wake != 0 {
		p.fetches.wake(p, a.wake)
	}
	// The last first: answers leave a connection in the order of its requests, so all that became ready here leaves with one write,
	// once its oldest is complete.
	for i := len(a.appends) - 1; i >= 0; i-- {
		a.appends[i].done(a.appends[i].result)
	}
	for i := range a.deletes {
		a.deletes[i].done(a.deletes[i].low, a.deletes[i].err)
	}
	if a.propose != nil {
		p.propose(*a.propose)
	}
}

// leaderCheck judges a request that only the leader serves, without a lock.
func (v *view) leaderCheck(epoch cluster.LeaderEpoch) error {
	if err := v.available(); err != nil {
		return err
	}
	if err := v.epochCheck(epoch); err != nil {
		return err
	}
	if v.role != replication.Leader {
		return kerr.NotLeaderForPartition
	}
	return nil
}

func (v *view) available() error {
	if v.offline != nil {
		return kerr.KafkaStorageError
	}
	if v.log == nil {
		return kerr.NotLeaderForPartition
	}
	return nil
}

// epochCheck: see replication.State.CheckEpoch.
func (v *view) epochCheck(epoch cluster.LeaderEpoch) error {
	switch {
	case epoch == cluster.NoLeaderEpoch || epoch == v.leaderEpoch:
		return nil
	case epoch < v.leaderEpoch:
		return kerr.FencedLeaderEpoch
	default:
		return kerr.UnknownLeaderEpoch
	}
}

// flushCounts reports whether records count only once they are flushed: flush.messages=1.
func flushCounts(log *logstore.Log) bool { return log.Config().FlushMessages <= 1 }

// countedEnd is the log end that counts towards the high watermark: what is flushed, where the topic wants records flushed
// before they are acknowledged.
func countedEnd(log *logstore.Log) int64 {
	if flushCounts(log) {
		return log.FlushedOffset()
	}
	return log.LogEndOffset()
}

// syncEndsLocked tells the state where the log ends now.
func (p *Partition) syncEndsLocked(env replication.Env) replication.Moved {
	return p.mu.state.SetEnds(p.mu.log.LogEndOffset(), countedEnd(p.mu.log), env)
}

// flushed is called after the log's flushed end has moved.
func (p *Partition) flushed(int64) {
	now := p.set.now()
	p.mu.Lock()
	if p.mu.log == nil || !flushCounts(p.mu.log) {
		p.mu.Unlock()
		return
	}
	env := p.envLocked(now)
	a := p.settledLocked(p.syncEndsLocked(env), env)
	p.mu.Unlock()
	p.deliver(a)
}

// Snapshot describes the partition.
func (p *Partition) Snapshot() Status {
	now := p.set.instant(p.set.now())
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.mu.state
	st := Status{
		TopicPartition: p.id, TopicID: p.mu.topicID, Role: s.Role(), Leader: s.Leader(), LeaderEpoch: s.LeaderEpoch(),
		PartitionEpoch: s.PartitionEpoch(), Replicas: slices.Clone(s.Replicas()), ISR: slices.Clone(s.ISR()),
		PendingISR: slices.Clone(s.PendingISR()), MinISR: s.EffectiveMinISR(p.mu.minISR), Offline: p.mu.offline != nil,
		HighWatermark: s.HighWatermark(), LogEndOffset: s.LogEnd(), Followers: s.Followers(now),
	}
	if l := p.mu.log; l != nil && p.mu.offline == nil {
		st.LogStartOffset, st.LogEndOffset = l.LogStartOffset(), l.LogEndOffset()
		st.LastStableOffset, st.Size, st.Dir = l.LastStableOffset(), l.Size(), l.Dir()
	}
	return st
}

// InSync reports whether a replica is in the committed in-sync set, as this leader knows it.
func (p *Partition) InSync(id cluster.BrokerID) bool { return slices.Contains(p.view.Load().isr, id) }
