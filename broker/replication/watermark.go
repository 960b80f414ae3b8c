package replication

import (
	"slices"

	"ottla/internal/cluster"
)

// EffectiveMinISR is min.insync.replicas, but no more than there are replicas. Kafka caps it so, and clients rely on it.
func (s *State) EffectiveMinISR(minISR int) int { return max(1, min(minISR, len(s.replicas))) }

// ISR returns the committed in-sync replicas, nil unless leading. It must not be changed.
func (s *State) ISR() []cluster.BrokerID { return s.isr }

// PendingISR returns the in-sync replicas that were proposed and not yet answered, nil when nothing is pending.
func (s *State) PendingISR() []cluster.BrokerID {
	if s.pending == nil {
		return nil
	}
	return s.pending.isr
}

// MaximalISR returns every replica that may be in the ISR in ZooKeeper: the committed members and a proposed addition that
// is not answered. A proposed removal still counts. The high watermark waits for all of them (I4).
func (s *State) MaximalISR() []cluster.BrokerID {
	if s.pending != nil && s.pending.kind == expand {
		return s.pending.isr
	}
	return s.isr
}

// advance moves the leader's high watermark as far as it may go and reports whether it moved. It never falls (I6).
//
// It stands still while the committed ISR is smaller than the effective minimum: otherwise a lone leader would commit records
// that nobody else has, and no other replica could be elected later (KIP-966's first half). Replicas that are caught up and
// about to join hold it back as members do; otherwise a lone leader would outrun every joiner.
func (s *State) advance(env Env) bool {
	if s.role != Leader || len(s.isr) < s.EffectiveMinISR(env.MinISR) {
		return false
	}
	end := s.countedEnd
	if end <= s.highWatermark {
		return false
	}
	maximal := s.MaximalISR()
	for i := range s.followers {
		f := &s.followers[i]
		if f.logEnd >= end {
			continue
		}
		if slices.Contains(maximal, f.id) || env.alive(f.id) && s.caughtUp(f, env) {
			end = f.logEnd
		}
	}
	if end <= s.highWatermark {
		return false
	}
	s.highWatermark = end
	return true
}

// Advance tries to move the high watermark for a reason outside: the configuration changed.
func (s *State) Advance(env Env) Moved { return Moved{HighWatermark: s.advance(env)} }

// FollowHighWatermark takes the leader's high watermark from a fetch answer, bounded by the own log end, and reports whether
// the own one moved. A leader that was just elected may know less than we do; what was committed stays committed, so ours
// does not fall.
func (s *State) FollowHighWatermark(leaders int64) bool {
	if s.role != Follower {
		return false
	}
	hw := min(leaders, s.logEnd)
	if hw <= s.highWatermark {
		return false
	}
	s.highWatermark = hw
	return true
}

// RaiseLogStart lifts the high watermark to a log start that has passed it: everything below was committed and deleted.
func (s *State) RaiseLogStart(logStart int64) {
	s.highWatermark = min(max(s.highWatermark, logStart), s.logEnd)
}

// Restart is for a follower that dropped its whole log and starts again at offset, the leader's log start.
func (s *State) Restart(offset int64) {
	s.logEnd, s.countedEnd, s.highWatermark = offset, offset, offset
}

// EndKnown reports whether the leader's high watermark has reached the start of its epoch. Until then it may be older than
// what its predecessor told clients, so ListOffsets answers OFFSET_NOT_AVAILABLE (KIP-207).
func (s *State) EndKnown() bool { return s.role != Leader || s.highWatermark >= s.epochStart }
