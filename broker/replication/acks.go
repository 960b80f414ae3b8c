package replication

import (
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

// Wait is an acks=all append that waits for replication: its exclusive end offset and the leader epoch in which it was made.
type Wait struct {
	End   int64
	Epoch cluster.LeaderEpoch
}

// MayAppendAll judges an acks=all append before it is made: NOT_ENOUGH_REPLICAS when the committed ISR is smaller than the
// effective minimum. Nothing is written then.
func (s *State) MayAppendAll(env Env) error {
	if len(s.isr) < s.EffectiveMinISR(env.MinISR) {
		return kerr.NotEnoughReplicas
	}
	return nil
}

// Acknowledged reports whether a wait is over, and with which verdict: nil when the records are committed,
// NOT_ENOUGH_REPLICAS_AFTER_APPEND when they are below the high watermark but the ISR has shrunk under the minimum,
// NOT_LEADER_OR_FOLLOWER when this replica does not lead any more, or has not led without interruption since the append: in
// between its records may have been replaced by others at the same offsets (I7).
func (s *State) Acknowledged(w Wait, env Env) (over bool, err error) {
	if s.role != Leader || w.Epoch < s.reignStart {
		return true, kerr.NotLeaderForPartition
	}
	if s.highWatermark < w.End {
		return false, nil
	}
	if len(s.MaximalISR()) < s.EffectiveMinISR(env.MinISR) {
		return true, kerr.NotEnoughReplicasAfterAppend
	}
	return true, nil
}
