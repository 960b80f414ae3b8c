package replication

import (
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

// Instant is a moment on the broker's monotonic clock, in nanoseconds since an arbitrary start. Wall clocks jump; an ISR
// must not follow them.
type Instant int64

// Never is before every Instant.
const Never Instant = math.MinInt64

// Add returns the instant d later.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Since returns how long before t the instant u was; a very long time for Never.
func (t Instant) Since(u Instant) time.Duration {
	if u == Never {
		return math.MaxInt64
	}
	return time.Duration(t - u)
}

// Role is what a replica does for its partition.
type Role int8

// The roles. A replica without role knows of no decision, has stopped leading, or was stopped.
const (
	NoRole Role = iota
	Follower
	Leader
)

func (r Role) String() string {
	switch r {
	case Follower:
		return "follower"
	case Leader:
		return "leader"
	default:
		return "none"
	}
}

// Env is what the decisions need to know from outside.
type Env struct {
	Now    Instant
	LagMax time.Duration // replica.lag.time.max.ms
	MinISR int           // min.insync.replicas of the topic, as configured
	// Alive reports whether a broker is registered, as far as this broker's metadata knows. Nil means that all are.
	Alive func(cluster.BrokerID) bool
}

func (e Env) alive(id cluster.BrokerID) bool { return e.Alive == nil || e.Alive(id) }

// Change is the controller's decision about one partition: one entry of LeaderAndIsr.
type Change struct {
	ControllerEpoch cluster.ControllerEpoch
	Leader          cluster.BrokerID
	LeaderEpoch     cluster.LeaderEpoch
	PartitionEpoch  cluster.PartitionEpoch
	ISR             []cluster.BrokerID
	Replicas        []cluster.BrokerID
	Adding          []cluster.BrokerID
	Removing        []cluster.BrokerID
	Recovery        cluster.LeaderRecoveryState
	IsNew           bool
}

// State is one replica's view of its partition. The zero value is not usable; see NewState. It is not safe for concurrent
// use: its owner guards it.
type State struct {
	self            cluster.BrokerID
	role            Role
	leader          cluster.BrokerID
	leaderEpoch     cluster.LeaderEpoch // -1 before the first decision
	partitionEpoch  cluster.PartitionEpoch
	controllerEpoch cluster.ControllerEpoch
	replicas        []cluster.BrokerID // immutable once stored, as are isr, adding, removing
	adding          []cluster.BrokerID
	removing        []cluster.BrokerID

	// highWatermark <= logEnd. Within one leadership it never falls.
	highWatermark int64
	logEnd        int64 // written
	countedEnd    int64 // what counts towards the high watermark: logEnd, or the flushed end with flush before acknowledgement

	// resumable: the replica stopped leading without a decision (session lost, failed change), so a decision of the same
	// epoch may be taken again, as after a restart.
	resumable bool
	// uncleanEpoch is the newest epoch that was announced as elected uncleanly, NoLeaderEpoch if none.
	uncleanEpoch cluster.LeaderEpoch

	// The rest is the leader's.
	isr          []cluster.BrokerID // committed; contains self
	pending      *pending           // the one ISR change under way
	doubt        *pending           // the change that was under way when leading ended without a decision; see BecomeLeader
	epochStart   int64              // log end when the epoch began
	reignStart   cluster.LeaderEpoch
	followers    []follower // one per other replica, in the order of the assignment
	nextProposal uint64
	oneByOne     bool // an addition of several was refused: propose single ones
}

// NewState returns the state of a replica that has heard of no decision yet, with the checkpointed high watermark. The
// high watermark is clamped to the log.
func NewState(self cluster.BrokerID, logStart, logEnd, highWatermark int64) *State {
	return &State{
		self:          self,
		leader:        cluster.NoBroker,
		leaderEpoch:   cluster.NoLeaderEpoch,
		uncleanEpoch:  cluster.NoLeaderEpoch,
		logEnd:        logEnd,
		countedEnd:    logEnd,
		highWatermark: min(max(highWatermark, logStart), logEnd),
	}
}

// Role returns what the replica does.
func (s *State) Role() Role { return s.role }

// Leader returns the leader as last decided; NoBroker when there is none or it is unknown.
func (s *State) Leader() cluster.BrokerID { return s.leader }

// LeaderEpoch returns the epoch of the last decision, NoLeaderEpoch before the first.
func (s *State) LeaderEpoch() cluster.LeaderEpoch { return s.leaderEpoch }

// PartitionEpoch returns the version of the state znode that is known here.
func (s *State) PartitionEpoch() cluster.PartitionEpoch { return s.partitionEpoch }

// ControllerEpoch returns the epoch of the controller that took the last decision.
func (s *State) ControllerEpoch() cluster.ControllerEpoch { return s.controllerEpoch }

// Replicas returns the assignment. It must not be changed.
func (s *State) Replicas() []cluster.BrokerID { return s.replicas }

// Reassigning reports whether the assignment is being changed. Source: KIP-455.
func (s *State) Reassigning() bool { return len(s.adding)+len(s.removing) > 0 }

// UnderReplicated reports whether a replica is missing from the committed in-sync set, those that are being added aside.
func (s *State) UnderReplicated() bool {
	for _, id := range s.replicas {
		if !slices.Contains(s.isr, id) && !slices.Contains(s.adding, id) {
			return true
		}
	}
	return false
}

// HighWatermark is the exclusive end of the committed prefix, as known here. At most LogEnd.
func (s *State) HighWatermark() int64 { return s.highWatermark }

// LogEnd is the exclusive end of what is written here.
func (s *State) LogEnd() int64 { return s.logEnd }

// EpochStart is where the log ended when this leader's epoch began. Until the high watermark has reached it, the committed
// end is not known and clients are not told an end (KIP-207).
func (s *State) EpochStart() int64 { return s.epochStart }

// Resumable reports whether a decision of the current epoch may be taken again.
func (s *State) Resumable() bool { return s.resumable }

// Admit judges a decision before anything is done about it. STALE_CONTROLLER_EPOCH for an epoch that has passed (the answer
// that Kafka gives for equal epochs too), UNKNOWN_TOPIC_OR_PARTITION when this broker is not assigned. skip means that the
// decision is older in its partition epoch and is to be ignored without an error.
func (s *State) Admit(c Change) (skip bool, err error) {
	if c.LeaderEpoch < s.leaderEpoch || c.LeaderEpoch == s.leaderEpoch && !s.resumable {
		return false, kerr.StaleControllerEpoch
	}
	if !slices.Contains(c.Replicas, s.self) {
		return false, kerr.UnknownTopicOrPartition
	}
	return c.PartitionEpoch < s.partitionEpoch, nil
}

func (s *State) take(c Change) {
	s.leader = c.Leader
	s.leaderEpoch = c.LeaderEpoch
	s.partitionEpoch = c.PartitionEpoch
	s.controllerEpoch = c.ControllerEpoch
	s.replicas = slices.Clone(c.Replicas)
	s.adding = slices.Clone(c.Adding)
	s.removing = slices.Clone(c.Removing)
	s.pending = nil
	s.resumable = false
	if c.Recovery == cluster.Recovering {
		s.uncleanEpoch = c.LeaderEpoch
	}
}

// BecomeLeader takes an admitted decision that names this replica. The log's ends are those of the log after the epoch's
// start was recorded in it.
//
// Every position of a follower is forgotten, also when this replica led before: between two of its epochs there may have
// been another leader of which it never heard, to which the followers truncated (I13).
func (s *State) BecomeLeader(c Change, logEnd, countedEnd int64, env Env) Moved {
	if s.role != Leader {
		s.reignStart = c.LeaderEpoch
	}
	s.take(c)
	s.role = Leader
	s.isr = slices.Clone(c.ISR)
	if d := s.doubt; d != nil && d.sent.LeaderEpoch == c.LeaderEpoch && d.sent.PartitionEpoch == c.PartitionEpoch {
		s.pending = d
		s.pending.stuck, s.pending.since, s.pending.settleAt = true, env.Now, env.Now.Add(settleAfter)
		s.pending.doubtful, s.pending.doubtAt = true, math.MaxInt32 // who was asked is forgotten
	}
	s.doubt = nil
	s.oneByOne = false
	s.logEnd, s.countedEnd = logEnd, countedEnd
	s.epochStart = logEnd
	s.resetFollowers(env.Now)
	return Moved{HighWatermark: s.advance(env)}
}

// BecomeFollower takes an admitted decision that names another leader, or none. It needs nothing else: an end of
// leadership must never fail or wait.
func (s *State) BecomeFollower(c Change) {
	s.take(c)
	s.role = Follower
	s.forgetLeadership()
}

// StandDown ends leadership without a decision: the session with ZooKeeper is gone, or a change could not be carried out. The
// epoch is kept, and a decision of the same epoch is admitted again. It reports whether the replica led.
func (s *State) StandDown() bool {
	led := s.role == Leader
	if led {
		s.role = NoRole
		s.leader = cluster.NoBroker
		s.forgetLeadership()
	}
	s.resumable = s.resumable || s.role == NoRole
	return led
}

// Stop ends every role, on StopReplica. The epoch is raised to the request's where that is newer.
func (s *State) Stop(epoch cluster.LeaderEpoch) {
	s.role = NoRole
	s.leader = cluster.NoBroker
	s.leaderEpoch = max(s.leaderEpoch, epoch)
	s.resumable = true
	s.forgetLeadership()
}

func (s *State) forgetLeadership() {
	if s.pending != nil {
		s.doubt = s.pending
	}
	s.isr = nil
	s.pending = nil
	s.followers = nil
}

// CheckEpoch compares the leader epoch that a request believes in with the current one: FENCED_LEADER_EPOCH when it is
// behind, UNKNOWN_LEADER_EPOCH when it is ahead. NoLeaderEpoch is not compared. Source: KIP-320.
func (s *State) CheckEpoch(epoch cluster.LeaderEpoch) error {
	switch {
	case epoch == cluster.NoLeaderEpoch || epoch == s.leaderEpoch:
		return nil
	case epoch < s.leaderEpoch:
		return kerr.FencedLeaderEpoch
	default:
		return kerr.UnknownLeaderEpoch
	}
}

// CheckLeader is CheckEpoch followed by NOT_LEADER_OR_FOLLOWER for a replica that does not lead.
func (s *State) CheckLeader(epoch cluster.LeaderEpoch) error {
	if err := s.CheckEpoch(epoch); err != nil {
		return err
	}
	if s.role != Leader {
		return kerr.NotLeaderForPartition
	}
	return nil
}

// Moved says what an event has moved; the owner wakes whoever waits for it.
type Moved struct {
	HighWatermark bool
	// FollowerLogStart: some follower's log start offset rose, so the low watermark may have.
	FollowerLogStart bool
	// Propose is an ISR change to send to the controller, already pending here.
	Propose *Proposal
}

// SetEnds records the log's ends after an append, a flush or a truncation on this replica.
func (s *State) SetEnds(logEnd, countedEnd int64, env Env) Moved {
	if s.role == Leader && logEnd > s.logEnd {
		s.settleFollowers()
	}
	s.logEnd, s.countedEnd = logEnd, min(countedEnd, logEnd)
	s.highWatermark = min(s.highWatermark, logEnd)
	return Moved{HighWatermark: s.advance(env)}
}

// Adopted tells the state which log it has, once it is open: its ends and the checkpointed high watermark.
func (s *State) Adopted(logStart, logEnd, highWatermark int64) {
	s.logEnd, s.countedEnd = logEnd, logEnd
	s.highWatermark = min(max(highWatermark, logStart), logEnd)
}

// Forget makes a decision of the current epoch admissible again, because carrying it out has failed.
func (s *State) Forget() {
	s.role = NoRole
	s.leader = cluster.NoBroker
	s.resumable = true
}
