package replication

import (
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

type changeKind int8

const (
	expand changeKind = iota
	shrink
)

// pending is the one ISR change that was proposed and may or may not have been made.
type pending struct {
	id    uint64
	kind  changeKind
	isr   []cluster.BrokerID
	sent  Proposal
	since Instant
	// stuck: the controller gave an answer that says neither yes nor no. It is settled by the next decision, or by reading
	// the state znode (Unsettled, Adopt).
	stuck bool
	// doubtful: a sending whose outcome is unknown may still be waiting at the controller of epoch doubtAt or an earlier one.
	doubtful bool
	doubtAt  cluster.ControllerEpoch
	settleAt Instant // a stuck change is settled then by reading the state znode
	settles  int     // how often it was
}

// Member is a replica in a proposed ISR with the registration that the leader has seen fetch (KIP-903), NoBrokerEpoch if it
// has not.
type Member struct {
	Broker cluster.BrokerID
	Epoch  cluster.BrokerEpoch
}

// Proposal is an ISR change for AlterPartition. Leader and leader epoch stay as they are.
type Proposal struct {
	ISR            []Member
	LeaderEpoch    cluster.LeaderEpoch
	PartitionEpoch cluster.PartitionEpoch // the expected version of the state znode
	// LastMember: the ISR shrinks to the leader alone. The owner flushes the log before it sends this, because from then on
	// the only electable copy is its own.
	LastMember bool
	id         uint64
}

// Answer is what the controller said to a Proposal.
type Answer struct {
	// Err is nil or the partition's error.
	Err            error
	LeaderEpoch    cluster.LeaderEpoch
	ISR            []cluster.BrokerID
	PartitionEpoch cluster.PartitionEpoch
	// Controller is the epoch of the controller that answered.
	Controller cluster.ControllerEpoch
	// Retried: an earlier sending of the same proposal had an unknown outcome, and this controller may still carry it out.
	Retried bool
}

// Outcome says how a proposal ended.
type Outcome int8

// The outcomes of a proposal.
const (
	Ignored    Outcome = iota // the answer is not for the pending change
	Committed                 // the change is made
	RolledBack                // the controller vouches that nothing was written
	Unsettled                 // nobody knows; stays pending until the next decision or until the znode is read
	Resend                    // ask again
)

const (
	expandBackoff    = time.Second // between a refused addition and the next try; doubled at each refusal in a row
	expandBackoffMax = 8 * time.Second
	settleAfter      = 2 * time.Second // a stuck change is settled by reading the state znode after this; doubled each time
	settleAfterMax   = 16 * time.Second
	doubtfulFor      = 30 * time.Second // how long a request that was sent before a lost connection may still be carried out
)

// propose makes the change pending and returns what to send.
func (s *State) propose(kind changeKind, isr []cluster.BrokerID, now Instant) *Proposal {
	s.nextProposal++
	p := Proposal{
		ISR: make([]Member, len(isr)), LeaderEpoch: s.leaderEpoch, PartitionEpoch: s.partitionEpoch,
		LastMember: kind == shrink && len(isr) == 1, id: s.nextProposal,
	}
	for i, id := range isr {
		p.ISR[i] = Member{Broker: id, Epoch: cluster.NoBrokerEpoch}
		if f := s.follower(id); f != nil {
			p.ISR[i].Epoch = f.incarnation
		}
	}
	s.pending = &pending{id: p.id, kind: kind, isr: isr, sent: p, since: now, settleAt: now.Add(settleAfter)}
	return &p
}

// maybeChangeOnFetch proposes what one follower's fetch gives reason for.
//
// A member that asks for less than the high watermark has lost committed records (it restarted without them, and nobody took
// it out of the ISR): it must not stay electable, so it is expelled at once.
func (s *State) maybeChangeOnFetch(f *follower, env Env) *Proposal {
	if s.pending != nil {
		return nil
	}
	if slices.Contains(s.isr, f.id) {
		if f.logEnd >= s.highWatermark {
			return nil
		}
		return s.propose(shrink, without(s.isr, f.id), env.Now)
	}
	if !s.mayJoin(f, env) {
		return nil
	}
	return s.propose(expand, append(slices.Clone(s.isr), f.id), env.Now)
}

// mayJoin reports whether a follower that is no member may be proposed: alive, with everything that is committed, and with
// everything up to the start of this epoch, since right after an election the high watermark may lag behind what is really
// committed (KAFKA-7128). While the high watermark is frozen for want of members, reaching it proves little, so then the
// follower must be caught up as well (KAFKA-19996).
func (s *State) mayJoin(f *follower, env Env) bool {
	if f.logEnd == unknownOffset || f.logEnd < s.highWatermark || f.logEnd < s.epochStart {
		return false
	}
	if env.Now < f.expandAfter || !env.alive(f.id) {
		return false
	}
	return len(s.isr) >= s.EffectiveMinISR(env.MinISR) || s.caughtUp(f, env)
}

// outOfSync reports whether a member is to be removed: it lacks something, and has lacked something for longer than the lag
// time. Source: replica.lag.time.max.ms.
func (s *State) outOfSync(f *follower, env Env) bool {
	if f.logEnd == s.logEnd {
		return false
	}
	f.settle(s.logEnd)
	return env.Now.Since(f.lastCaughtUp) > env.LagMax
}

// Check is the periodic look at the ISR: it removes members that lag, and proposes joiners whose fetch came at a moment
// when a change was pending or refused. quiet means that there is nothing to look at again until something is appended or
// the ISR changes.
func (s *State) Check(env Env) (moved Moved, quiet bool) {
	if s.role != Leader {
		return Moved{}, true
	}
	if s.pending != nil {
		return Moved{}, false
	}
	moved.Propose = s.maybeShrink(env)
	if moved.Propose == nil {
		moved.Propose = s.maybeExpand(env)
	}
	moved.HighWatermark = s.advance(env) // a joiner that was waited for may have fallen behind
	return moved, moved.Propose == nil && s.quiet()
}

func (s *State) quiet() bool {
	if len(s.isr) < len(s.replicas) || s.highWatermark < s.logEnd {
		return false
	}
	for i := range s.followers {
		if s.followers[i].logEnd != s.logEnd {
			return false
		}
	}
	return true
}

func (s *State) maybeShrink(env Env) *Proposal {
	var gone []cluster.BrokerID
	for i := range s.followers {
		f := &s.followers[i]
		if slices.Contains(s.isr, f.id) && s.outOfSync(f, env) {
			gone = append(gone, f.id)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	return s.propose(shrink, without(s.isr, gone...), env.Now)
}

func (s *State) maybeExpand(env Env) *Proposal {
	isr := s.isr
	for i := range s.followers {
		f := &s.followers[i]
		if !slices.Contains(s.isr, f.id) && s.mayJoin(f, env) {
			isr = append(slices.Clone(isr), f.id)
			if s.oneByOne {
				break
			}
		}
	}
	if len(isr) == len(s.isr) {
		return nil
	}
	return s.propose(expand, isr, env.Now)
}

// Answered takes the controller's answer to a proposal.
func (s *State) Answered(p Proposal, a Answer, env Env) (Outcome, Moved) {
	if s.role != Leader || p.LeaderEpoch != s.leaderEpoch {
		return Ignored, Moved{}
	}
	if s.pending == nil && a.Err == nil && a.LeaderEpoch == s.leaderEpoch && a.PartitionEpoch > s.partitionEpoch {
		return s.answeredYes(a, env) // given up here, carried out all the same
	}
	if s.pending == nil || s.pending.id != p.id {
		return Ignored, Moved{}
	}
	switch {
	case a.Retried:
		s.pending.doubtful, s.pending.doubtAt = true, a.Controller
	case a.Controller > s.pending.doubtAt:
		s.pending.doubtful = false // whatever an earlier controller still holds, it cannot write any more
	}
	if a.Err == nil {
		return s.answeredYes(a, env)
	}
	switch {
	case errors.Is(a.Err, kerr.IneligibleReplica), errors.Is(a.Err, kerr.OperationNotAttempted):
		if s.pending.doubtful && env.Now.Since(s.pending.since) < doubtfulFor {
			// An earlier sending may still be waiting in the controller's queue and be carried out: a proposed addition stays
			// in the maximal ISR (I4), and a removal must not go unnoticed.
			s.pending.stuck = true
			return Unsettled, Moved{}
		}
		s.rollBack(env.Now)
		return RolledBack, Moved{HighWatermark: s.advance(env)}
	case errors.Is(a.Err, kerr.UnknownTopicOrPartition), errors.Is(a.Err, kerr.UnknownTopicID),
		errors.Is(a.Err, kerr.FencedLeaderEpoch), errors.Is(a.Err, kerr.InvalidUpdateVersion),
		errors.Is(a.Err, kerr.InvalidRequest):
		s.pending.stuck = true
		return Unsettled, Moved{}
	default:
		return Resend, Moved{}
	}
}

func (s *State) answeredYes(a Answer, env Env) (Outcome, Moved) {
	if a.LeaderEpoch != s.leaderEpoch || a.PartitionEpoch < s.partitionEpoch || !slices.Contains(a.ISR, s.self) {
		// The controller has moved on; its decision is on the way.
		if s.pending != nil {
			s.pending.stuck = true
		}
		return Unsettled, Moved{}
	}
	s.commit(a.ISR, a.PartitionEpoch)
	return Committed, s.afterCommit(env)
}

func (s *State) commit(isr []cluster.BrokerID, epoch cluster.PartitionEpoch) {
	s.isr = slices.Clone(isr)
	s.partitionEpoch = epoch
	s.pending = nil
	s.oneByOne = s.oneByOne && len(isr) < len(s.replicas)
	for i := range s.followers {
		if f := &s.followers[i]; slices.Contains(isr, f.id) {
			f.expandAfter, f.refusals = Never, 0
		}
	}
}

func (s *State) afterCommit(env Env) Moved {
	moved := Moved{HighWatermark: s.advance(env)}
	moved.Propose = s.maybeExpand(env)
	return moved
}

// rollBack gives the pending change up, because the controller refuses it. It does not say which of several new members it
// refuses, so those are proposed one by one from then on; a single one has to wait.
func (s *State) rollBack(now Instant) {
	var refused []*follower
	for i := range s.followers {
		f := &s.followers[i]
		if slices.Contains(s.pending.isr, f.id) && !slices.Contains(s.isr, f.id) {
			refused = append(refused, f)
		}
	}
	if len(refused) == 1 {
		refused[0].expandAfter = now.Add(min(expandBackoff<<min(refused[0].refusals, 8), expandBackoffMax))
		refused[0].refusals++
	}
	s.oneByOne = s.oneByOne || len(refused) > 1
	s.pending = nil
}

// Unsettled reports whether a change has been stuck for so long that the owner should read the state znode and call Adopt.
func (s *State) Unsettled(now Instant) bool {
	return s.pending != nil && s.pending.stuck && now >= s.pending.settleAt
}

// Adopt settles a stuck change by what the state znode holds: its leader, epochs, ISR and version. If leader and leader epoch
// are still this replica's, the znode is the truth; a write that was thought lost had reached it. Otherwise a decision is on
// its way and nothing changes.
//
// The same version as ours means that nothing was written. The change is then asked for once more, because an earlier sending
// may still be carried out; it is given up when that cannot be any more.
func (s *State) Adopt(leader cluster.BrokerID, a Answer, env Env) (Outcome, Moved) {
	if s.role != Leader || s.pending == nil || !s.pending.stuck {
		return Ignored, Moved{}
	}
	s.pending.settles++
	s.pending.settleAt = env.Now.Add(min(settleAfter<<min(s.pending.settles, 8), settleAfterMax))
	if leader != s.self || a.LeaderEpoch != s.leaderEpoch {
		return Unsettled, Moved{}
	}
	if a.PartitionEpoch > s.partitionEpoch {
		s.commit(a.ISR, a.PartitionEpoch)
		return Committed, s.afterCommit(env)
	}
	if env.Now.Since(s.pending.since) < doubtfulFor {
		s.pending.stuck = false
		p := s.pending.sent
		return Resend, Moved{Propose: &p}
	}
	s.rollBack(env.Now)
	return RolledBack, Moved{HighWatermark: s.advance(env)}
}

func without(from []cluster.BrokerID, gone ...cluster.BrokerID) []cluster.BrokerID {
	return slices.DeleteFunc(slices.Clone(from), func(id cluster.BrokerID) bool { return slices.Contains(gone, id) })
}
