package controller

import (
	"errors"
	"fmt"
	"slices"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// strategy is a way to choose a leader. Candidates are always tried in assignment order, those whose disk is full
// last; the order of the ISR never matters.
type strategy int

const (
	// electOffline: the leader is gone. A member of the ISR that is online; the ISR loses those that are not.
	electOffline strategy = iota
	// electUnclean is electOffline that falls back to any online replica, which then is the whole ISR, and recovering.
	electUnclean
	// electReassigned: the leader is not in the target of a reassignment. A target replica in the ISR.
	electReassigned
	// electPreferred: the first assigned replica or nobody.
	electPreferred
	// electShutdown: the leader is shutting down. A member of the ISR that is not; the ISR loses all that are.
	electShutdown
	// electRoom: the leader's disk is full. A member of the ISR that has room; the ISR stays.
	electRoom
)

func (s strategy) String() string {
	return [...]string{"offline", "unclean", "reassigned", "preferred", "shutdown", "room"}[s]
}

var (
	// errNoCandidate: no replica may lead under the strategy. The state stays as it is.
	errNoCandidate = errors.New("no replica is eligible to lead")
	// errNewerController: the state was written by a later controller than this one: this reign is over.
	errNewerController = errors.New("the state was written by a newer controller")
	// errUnchanged: nothing needs to be written.
	errUnchanged = errors.New("nothing to change")
	// errUnreadable: the partition has a state znode, but not one that can be understood. Nothing is done to it.
	errUnreadable = errors.New("the partition's state is unreadable")
	// errNoState: the partition has no state znode.
	errNoState = errors.New("the partition has no state")
)

// decision is a new state for a partition, and who must hear of it by LeaderAndIsr (all brokers hear by UpdateMetadata).
type decision struct {
	state      zkcoord.PartitionState
	recipients []cluster.BrokerID
	unclean    bool
}

// next is the current state with a new leader and ISR, a raised leader epoch and this controller's epoch.
func (m *model) next(cur zkcoord.PartitionState, leader cluster.BrokerID, isr []cluster.BrokerID) zkcoord.PartitionState {
	return zkcoord.PartitionState{
		Leader:          leader,
		LeaderEpoch:     cur.LeaderEpoch + 1,
		ISR:             isr,
		ControllerEpoch: m.epoch,
		Recovery:        cur.Recovery,
	}
}

// decideLeader chooses a leader for a partition whose state was just read.
// Source: Kafka's election algorithms; KIP-704 for the recovery state.
func (m *model) decideLeader(p *partition, cur zkcoord.PartitionState, s strategy) (decision, error) {
	if cur.ControllerEpoch > m.epoch {
		return decision{}, fmt.Errorf("%w: epoch %d", errNewerController, cur.ControllerEpoch)
	}
	switch s {
	case electOffline, electUnclean:
		return m.decideOffline(p, cur, s == electUnclean)
	case electReassigned:
		return m.decideAmong(p, cur, m.withRoomFirst(p.targets()), p.targets())
	case electPreferred:
		return m.decideAmong(p, cur, m.withRoom(p.ids()[:min(1, len(p.replicas))]), p.ids())
	case electRoom:
		return m.decideAmong(p, cur, m.withRoom(p.ids()), p.ids())
	default:
		return m.decideShutdown(p, cur)
	}
}

func (m *model) decideOffline(p *partition, cur zkcoord.PartitionState, unclean bool) (decision, error) {
	if d, ok, err := m.decideRecovered(p, cur, unclean); ok {
		return d, err
	}
	isr := keep(cur.ISR, func(id cluster.BrokerID) bool { return m.idOnline(p, id) && !m.cameBackUnclean(p, cur, id) })
	online := m.onlineIDs(p)
	for _, id := range m.withRoomFirst(online) {
		if slices.Contains(isr, id) {
			return decision{state: m.next(cur, id, isr), recipients: online}, nil
		}
	}
	if !unclean || len(online) == 0 {
		return decision{}, errNoCandidate
	}
	st := m.next(cur, online[0], online[:1:1])
	st.Recovery = cluster.Recovering
	return decision{state: st, recipients: online, unclean: true}, nil
}

// decideAmong elects the first candidate that is online and in the ISR, and keeps the ISR.
func (m *model) decideAmong(p *partition, cur zkcoord.PartitionState, candidates, recipients []cluster.BrokerID) (decision, error) {
	for _, id := range candidates {
		if m.idOnline(p, id) && slices.Contains(cur.ISR, id) && !m.cameBackUnclean(p, cur, id) {
			return decision{state: m.next(cur, id, cur.ISR), recipients: recipients}, nil
		}
	}
	return decision{}, errNoCandidate
}

func (m *model) decideShutdown(p *partition, cur zkcoord.PartitionState) (decision, error) {
	isr := keep(cur.ISR, func(id cluster.BrokerID) bool { return !m.shuttingDown(id) && !m.cameBackUnclean(p, cur, id) })
	for _, id := range m.withRoomFirst(m.onlineIDs(p)) {
		if slices.Contains(isr, id) {
			return decision{state: m.next(cur, id, isr), recipients: m.reachableIDs(p)}, nil
		}
	}
	return decision{}, errNoCandidate
}

// decideShrink removes from the ISR the members that pass gone. The last members are never removed: when all are gone the ISR
// stays whole, so that any of them, which all hold every committed record, can lead when it returns. A leader that is gone
// becomes "none". Sources: KAFKA-5083; Kafka itself would keep only the member that it happens to look at last.
func (m *model) decideShrink(p *partition, cur zkcoord.PartitionState, gone func(cluster.BrokerID) bool) (decision, error) {
	if cur.ControllerEpoch > m.epoch {
		return decision{}, fmt.Errorf("%w: epoch %d", errNewerController, cur.ControllerEpoch)
	}
	isr := keep(cur.ISR, func(id cluster.BrokerID) bool { return !gone(id) })
	if len(isr) == 0 {
		isr = cur.ISR
	}
	leader := cur.Leader
	if leader != cluster.NoBroker && (gone(leader) || m.cameBackUnclean(p, cur, leader)) {
		leader = cluster.NoBroker
	}
	if leader == cluster.NoBroker && m.allUnclean(p, cur, isr) {
		isr = cur.ISR // one that is still to come may have lost less
	}
	if leader == cur.Leader && len(isr) == len(cur.ISR) {
		return decision{}, errUnchanged
	}
	recipients := keep(p.ids(), func(id cluster.BrokerID) bool { return !gone(id) })
	return decision{state: m.next(cur, leader, isr), recipients: recipients}, nil
}

// decideBounced takes members out of the ISR that registered anew after the state was written: they were put there as what they
// were before, and may have lost records since. Those that did not, stay; if there is none that could lead, so do all.
func (m *model) decideBounced(p *partition, cur zkcoord.PartitionState, bounced func(cluster.BrokerID) bool) (decision, error) {
	if cur.ControllerEpoch > m.epoch {
		return decision{}, fmt.Errorf("%w: epoch %d", errNewerController, cur.ControllerEpoch)
	}
	isr := keep(cur.ISR, func(id cluster.BrokerID) bool { return !bounced(id) })
	if len(isr) == len(cur.ISR) {
		return decision{}, errUnchanged
	}
	if slices.Contains(isr, cur.Leader) && m.idReachable(p, cur.Leader) {
		return decision{state: m.next(cur, cur.Leader, isr), recipients: m.reachableIDs(p)}, nil
	}
	for _, id := range m.withRoomFirst(m.onlineIDs(p)) {
		if slices.Contains(isr, id) {
			return decision{state: m.next(cur, id, isr), recipients: m.reachableIDs(p)}, nil
		}
	}
	return decision{}, errNoCandidate
}

// decideBump raises the leader epoch, so that the same leader's replicas take a new assignment.
func (m *model) decideBump(p *partition) (decision, error) {
	if p.state.ControllerEpoch > m.epoch {
		return decision{}, fmt.Errorf("%w: epoch %d", errNewerController, p.state.ControllerEpoch)
	}
	return decision{state: m.next(p.state, p.state.Leader, p.state.ISR), recipients: p.ids()}, nil
}

// decideFirst is the first state of a new partition: the first online replica leads, all online ones are the ISR.
func (m *model) decideFirst(p *partition) (decision, error) {
	online := m.onlineIDs(p)
	if len(online) == 0 {
		return decision{}, errNoCandidate
	}
	return decision{state: zkcoord.PartitionState{Leader: m.withRoomFirst(online)[0], ISR: online, ControllerEpoch: m.epoch}, recipients: online}, nil
}

func (m *model) onlineIDs(p *partition) []cluster.BrokerID {
	ids := make([]cluster.BrokerID, 0, len(p.replicas))
	for i := range p.replicas {
		if m.online(&p.replicas[i]) {
			ids = append(ids, p.replicas[i].broker)
		}
	}
	return ids
}

func (m *model) reachableIDs(p *partition) []cluster.BrokerID {
	ids := make([]cluster.BrokerID, 0, len(p.replicas))
	for i := range p.replicas {
		if m.reachable(&p.replicas[i]) {
			ids = append(ids, p.replicas[i].broker)
		}
	}
	return ids
}

// offlineIDs are the replicas that the brokers' metadata shows as offline: shutting-down brokers count as offline, as in Kafka.
func (m *model) offlineIDs(p *partition) []cluster.BrokerID {
	var ids []cluster.BrokerID
	for i := range p.replicas {
		if !m.online(&p.replicas[i]) {
			ids = append(ids, p.replicas[i].broker)
		}
	}
	return ids
}

// keep returns the ids that pass, in order; a new slice unless all pass.
func keep(ids []cluster.BrokerID, pass func(cluster.BrokerID) bool) []cluster.BrokerID {
	out := make([]cluster.BrokerID, 0, len(ids))
	for _, id := range ids {
		if pass(id) {
			out = append(out, id)
		}
	}
	return out
}

// without returns the ids that are not in others, in order.
func without(ids, others []cluster.BrokerID) []cluster.BrokerID {
	return keep(ids, func(id cluster.BrokerID) bool { return !slices.Contains(others, id) })
}

// subset reports whether every id is in others.
func subset(ids, others []cluster.BrokerID) bool { return len(without(ids, others)) == 0 }

func sameSet(a, b []cluster.BrokerID) bool { return len(a) == len(b) && subset(a, b) && subset(b, a) }
