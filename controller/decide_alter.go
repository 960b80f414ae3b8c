package controller

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// proposal is one partition of an AlterPartition request: the ISR that its leader wants.
type proposal struct {
	leaderEpoch    cluster.LeaderEpoch
	partitionEpoch cluster.PartitionEpoch
	isr            []cluster.BrokerID
	brokerEpochs   []cluster.BrokerEpoch // of isr, as the leader learnt them from fetches; nil or NoBrokerEpoch: unknown
	recovery       cluster.LeaderRecoveryState
}

// decideAlter judges a proposal. It returns the state to write, errUnchanged when the proposal is what is already there, or the
// verdict of the protocol. ineligible is the verdict for members that may not be in an ISR; it depends on the request's version.
//
// The order of the tests is Kafka's, with two differences: ISRs are compared as sets, and a member whose broker epoch is not the
// registered one is refused, because the leader judged an earlier incarnation of it (KIP-903).
// Source: KIP-497, KIP-841, KAFKA-14140, KAFKA-14144.
func (m *model) decideAlter(p *partition, ask proposal, ineligible error) (zkcoord.PartitionState, error) {
	cur := p.state
	switch {
	case !p.known:
		return cur, kerr.UnknownTopicOrPartition
	case ask.partitionEpoch > p.version || ask.leaderEpoch > cur.LeaderEpoch:
		return cur, kerr.NotController // the leader knows more than we: we are the zombie
	case ask.leaderEpoch < cur.LeaderEpoch:
		return cur, kerr.FencedLeaderEpoch
	case sameSet(ask.isr, cur.ISR) && ask.recovery == cur.Recovery:
		return cur, errUnchanged
	case ask.partitionEpoch < p.version:
		return cur, kerr.InvalidUpdateVersion
	case ask.recovery == cluster.Recovering && (len(ask.isr) > 1 || cur.Recovery == cluster.Recovered):
		return cur, kerr.InvalidRequest
	case len(ask.isr) == 0 || hasDuplicates(ask.isr) || !slices.Contains(ask.isr, cur.Leader):
		return cur, kerr.InvalidRequest
	}
	for i, id := range ask.isr {
		if !m.idOnline(p, id) || !m.currentIncarnation(id, ask.brokerEpochs, i) {
			return cur, ineligible
		}
	}
	return zkcoord.PartitionState{
		Leader:          cur.Leader,
		LeaderEpoch:     cur.LeaderEpoch,
		ISR:             ask.isr,
		ControllerEpoch: m.epoch,
		Recovery:        ask.recovery,
	}, nil
}

func (m *model) currentIncarnation(id cluster.BrokerID, epochs []cluster.BrokerEpoch, i int) bool {
	if i >= len(epochs) || epochs[i] == cluster.NoBrokerEpoch {
		return true
	}
	b := m.brokers[id]
	return b != nil && b.Epoch == epochs[i]
}
