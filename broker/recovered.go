package broker

import (
	"slices"
	"time"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// recovered is what this broker tells the controller after a stop that may have cost it records: where its logs end, of partitions in whose in-sync set
// it still is beside others. The start sets it before the broker registers; from then on only its job uses it.
type recovered struct {
	b       *Broker
	session int64
	ends    map[cluster.TopicPartition]zkcoord.LogEnd
}

// tell is for the time between the recovery of the logs and the registration. Where only the process died there is nothing to tell.
func (r *recovered) tell(session zkcoord.Session) error {
	if sameBoot(r.b.config.Load()) {
		return nil
	}
	states, err := r.b.assignedStates(session)
	if err != nil {
		return err
	}
	ends := map[cluster.TopicPartition]zkcoord.LogEnd{}
	for tp, st := range states {
		if !slices.Contains(st.State.ISR, r.b.id) || len(st.State.ISR) < 2 {
			continue
		}
		end := zkcoord.LogEnd{StateEpoch: st.State.LeaderEpoch, Epoch: cluster.NoLeaderEpoch} // of a log that is not there
		if log, ok := r.b.logs.Get(tp); ok {
			end.End = log.LogEndOffset()
			if epoch, ok := log.LatestEpoch(); ok {
				end.Epoch = epoch
			}
		}
		ends[tp] = end
	}
	if len(ends) == 0 {
		return nil
	}
	if err := zkcoord.TellRecovered(session, r.b.id, ends); err != nil {
		return err
	}
	r.b.log.Warn().Int("partitions", len(ends)).Msg("the last stop was unclean, and no other member of some in-sync sets is there: " +
		"the controller is told where the logs end, so that the one that lost least leads")
	r.session, r.ends = session.ID(), ends
	return nil
}

// forget takes the word back once all those partitions have been led since.
func (r *recovered) forget(time.Time) {
	if len(r.ends) == 0 {
		return
	}
	session := r.b.zk.Session()
	if session.ID() == r.session {
		m := r.b.metadata.load()
		for tp, end := range r.ends {
			if p := m.partition(tp.Topic, tp.Partition); p != nil && (p.leader < 0 || p.leaderEpoch <= end.StateEpoch) {
				return
			}
		}
		if err := zkcoord.ForgetRecovered(session, r.b.id); err != nil {
			return // the session is being lost, or the next look tries again
		}
	}
	r.ends = nil
}
