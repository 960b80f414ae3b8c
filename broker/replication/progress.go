package replication

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

// Session is a follower's fetch session, as far as the ISR is concerned: the time of its last fetch. A fetch that names
// nothing is a fetch of every partition in the session; instead of walking them, each follower's entry keeps a pointer to
// its session and looks at the time when it needs it. Safe for concurrent use.
type Session struct{ last atomic.Int64 }

// Touch records a fetch.
func (s *Session) Touch(now Instant) { s.last.Store(int64(now)) }

// Last returns the time of the last fetch.
func (s *Session) Last() Instant { return Instant(s.last.Load()) }

// follower is what a leader knows of one other replica in its current epoch.
type follower struct {
	id          cluster.BrokerID
	incarnation cluster.BrokerEpoch // newest registration that fetched, NoBrokerEpoch if unknown
	// logEnd is the offset asked for last, thus the follower's log end; -1 until it fetched in this epoch. Stored in the
	// same step that checked the epoch, and forgotten with it (I13).
	logEnd           int64
	logStart         int64 // -1 until known
	lastFetch        Instant
	leaderEndAtFetch int64
	lastCaughtUp     Instant // latest moment at which the follower is known to have held all that the leader had
	session          *Session
	expandAfter      Instant // no proposal to add it before: the controller has just refused it
	refusals         int     // in a row
}

const unknownOffset = -1

// resetFollowers forgets all positions. Members get the benefit of the doubt for one lag time, others none.
func (s *State) resetFollowers(now Instant) {
	old := s.followers
	s.followers = make([]follower, 0, max(len(s.replicas)-1, 0))
	for _, id := range s.replicas {
		if id == s.self {
			continue
		}
		f := follower{
			id: id, incarnation: cluster.NoBrokerEpoch, logEnd: unknownOffset, logStart: unknownOffset,
			lastFetch: Never, leaderEndAtFetch: unknownOffset, lastCaughtUp: Never, expandAfter: Never,
		}
		if i := slices.IndexFunc(old, func(o follower) bool { return o.id == id }); i >= 0 {
			f.incarnation = old[i].incarnation // an earlier registration stays refused
		}
		if slices.Contains(s.isr, id) {
			f.lastCaughtUp = now
		}
		s.followers = append(s.followers, f)
	}
}

func (s *State) follower(id cluster.BrokerID) *follower {
	for i := range s.followers {
		if s.followers[i].id == id {
			return &s.followers[i]
		}
	}
	return nil
}

// settle brings the entry up to date with what its session did since, as long as nothing was appended since.
func (f *follower) settle(leaderEnd int64) {
	if f.session == nil || f.logEnd < leaderEnd {
		return
	}
	if last := f.session.Last(); last > f.lastFetch {
		f.lastFetch = last
		f.lastCaughtUp = max(f.lastCaughtUp, last)
	}
}

// settleFollowers must run before the log end moves: after that a follower's old offset no longer means "caught up".
func (s *State) settleFollowers() {
	for i := range s.followers {
		s.followers[i].settle(s.logEnd)
	}
}

// Fetch is a follower's fetch of this partition.
type Fetch struct {
	Replica     cluster.BrokerID
	Incarnation cluster.BrokerEpoch // NoBrokerEpoch when the request did not say (Fetch below 15)
	Epoch       cluster.LeaderEpoch
	Offset      int64
	LogStart    int64 // -1 when unknown
	Session     *Session
}

// CheckFetch judges a follower's fetch without recording it: the leader epoch, the leadership, that the replica is assigned
// (else UNKNOWN_LEADER_EPOCH, retriable: the assignment may be under way), and that it does not come from an earlier
// registration of that broker.
//
// A fetch that names no epoch (below version 9) cannot count: nobody knows which leader it acknowledges.
func (s *State) CheckFetch(f Fetch) error {
	if f.Epoch == cluster.NoLeaderEpoch {
		return kerr.UnknownLeaderEpoch
	}
	if err := s.CheckLeader(f.Epoch); err != nil {
		return err
	}
	known := s.follower(f.Replica)
	if known == nil {
		return kerr.UnknownLeaderEpoch
	}
	if f.Incarnation != cluster.NoBrokerEpoch && f.Incarnation < known.incarnation {
		return kerr.UnknownLeaderEpoch
	}
	return nil
}

// RecordFetch takes note of a follower's position, joins it to the ISR or expels it if that is due, and moves the high
// watermark. The epoch is checked in the same step (I13). A fetch that was answered with a divergence must not be
// recorded: its offset is not one of our log's (KAFKA-13141).
func (s *State) RecordFetch(f Fetch, env Env) (Moved, error) {
	if err := s.CheckFetch(f); err != nil {
		return Moved{}, err
	}
	known := s.follower(f.Replica)
	var moved Moved
	if f.Incarnation > known.incarnation {
		if known.incarnation != cluster.NoBrokerEpoch {
			// The broker registered anew: it may have lost records, so nothing that it said before counts.
			known.logEnd, known.logStart = unknownOffset, unknownOffset
			known.leaderEndAtFetch = unknownOffset
		}
		known.expandAfter, known.refusals = Never, 0
		known.incarnation = f.Incarnation
	}
	known.settle(s.logEnd)
	switch {
	case f.Offset >= s.logEnd:
		known.lastCaughtUp = env.Now
	case f.Offset >= known.leaderEndAtFetch && known.leaderEndAtFetch != unknownOffset:
		known.lastCaughtUp = max(known.lastCaughtUp, known.lastFetch)
	}
	known.logEnd = f.Offset
	known.lastFetch = env.Now
	known.leaderEndAtFetch = s.logEnd
	known.session = f.Session
	if f.LogStart > known.logStart {
		known.logStart = f.LogStart
		moved.FollowerLogStart = true
	}
	moved.Propose = s.maybeChangeOnFetch(known, env)
	moved.HighWatermark = s.advance(env)
	return moved, nil
}

// caughtUp reports whether the follower holds everything, or held everything within the lag time.
func (s *State) caughtUp(f *follower, env Env) bool {
	if f.logEnd == unknownOffset {
		return false
	}
	if f.logEnd == s.logEnd {
		return true
	}
	f.settle(s.logEnd)
	return env.Now.Since(f.lastCaughtUp) <= env.LagMax
}

// LowWatermark is the lowest log start offset of this replica and the followers that are alive; a live follower that has not
// yet said its own makes it -1. It completes DeleteRecords. Source: KIP-107.
func (s *State) LowWatermark(logStart int64, env Env) int64 {
	low := logStart
	for i := range s.followers {
		if f := &s.followers[i]; env.alive(f.id) {
			low = min(low, f.logStart)
		}
	}
	return low
}

// FollowerStatus is a picture of one follower, for people.
type FollowerStatus struct {
	Broker      cluster.BrokerID
	BrokerEpoch cluster.BrokerEpoch
	LogEnd      int64 // -1 unknown in this epoch
	LogStart    int64
	InSync      bool
	CaughtUpAgo time.Duration // how long ago it last held everything; the largest duration for never
}

// Followers describes what the leader knows of the others.
func (s *State) Followers(now Instant) []FollowerStatus {
	out := make([]FollowerStatus, 0, len(s.followers))
	for i := range s.followers {
		f := &s.followers[i]
		f.settle(s.logEnd)
		out = append(out, FollowerStatus{
			Broker: f.id, BrokerEpoch: f.incarnation, LogEnd: f.logEnd, LogStart: f.logStart,
			InSync: slices.Contains(s.isr, f.id), CaughtUpAgo: now.Since(f.lastCaughtUp),
		})
	}
	return out
}

// PreferredReplicas returns the members that hold offset as far as the leader knows, the leader first: the candidates for a
// consumer that would rather read nearby (KIP-392).
func (s *State) PreferredReplicas(offset int64) []cluster.BrokerID {
	out := []cluster.BrokerID{s.self}
	for i := range s.followers {
		f := &s.followers[i]
		if slices.Contains(s.isr, f.id) && f.logStart <= offset && f.logEnd >= offset && f.logEnd != unknownOffset {
			out = append(out, f.id)
		}
	}
	return out
}
