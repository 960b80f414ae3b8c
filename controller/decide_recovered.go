package controller

import (
	"errors"
	"slices"
	"time"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// When a whole in-sync set loses power, each member may come back without the end of its log, and each lost another end. Whoever
// comes first must not lead at once and have the others cut down to it: members that say that they stopped uncleanly are waited
// for until all are there, at most for a while, and the one whose log reaches farthest leads. The others leave the set and catch up.

// errAwaitMembers: nobody is elected yet, because members of the ISR that may have lost less are still to come.
var errAwaitMembers = errors.New("waiting for the other members of the in-sync set to come back")

// recovering is what the model knows of brokers that came back after an unclean stop.
type recovering struct {
	ends  map[cluster.BrokerID]map[cluster.TopicPartition]zkcoord.LogEnd
	since map[*partition]time.Time // elections that wait
	now   time.Time                // of the election under way
	wait  time.Duration            // ottla.recovery.wait.ms
}

// recoveredEnd is where the log of a member ended when it came back unclean; false when it did not, or leaders were elected since.
func (m *model) recoveredEnd(p *partition, cur zkcoord.PartitionState, id cluster.BrokerID) (zkcoord.LogEnd, bool) {
	end, unclean := m.recovering.ends[id][p.tp()]
	return end, unclean && end.Stands(cur)
}

func (m *model) cameBackUnclean(p *partition, cur zkcoord.PartitionState, id cluster.BrokerID) bool {
	_, unclean := m.recoveredEnd(p, cur, id)
	return unclean
}

// decideRecovered elects where all members that could lead came back unclean. ok is false where that is not the case.
func (m *model) decideRecovered(p *partition, cur zkcoord.PartitionState, unclean bool) (d decision, ok bool, err error) {
	var best []cluster.BrokerID // those whose logs reach equally far
	var farthest zkcoord.LogEnd
	online := 0
	for _, id := range m.withRoomFirst(p.ids()) {
		if !slices.Contains(cur.ISR, id) || !m.idOnline(p, id) {
			continue
		}
		end, suspect := m.recoveredEnd(p, cur, id)
		if !suspect {
			return decision{}, false, nil
		}
		online++
		switch order := compareEnds(end, farthest); {
		case len(best) == 0 || order > 0:
			best, farthest = append(best[:0:0], id), end
		case order == 0:
			best = append(best, id)
		}
	}
	if online == 0 {
		return decision{}, false, nil
	}
	if online < len(cur.ISR) && !unclean && m.mayWait(p) {
		return decision{}, true, errAwaitMembers
	}
	isr := keep(cur.ISR, func(id cluster.BrokerID) bool { return slices.Contains(best, id) })
	return decision{state: m.next(cur, best[0], isr), recipients: m.onlineIDs(p)}, true, nil
}

// mayWait reports whether the election of a partition may be put off still.
func (m *model) mayWait(p *partition) bool {
	since, waits := m.recovering.since[p]
	if !waits {
		since = m.recovering.now
		m.recovering.since[p] = since
	}
	return m.recovering.now.Sub(since) < m.recovering.wait
}

func compareEnds(a, b zkcoord.LogEnd) int {
	switch {
	case a.Epoch != b.Epoch:
		return int(a.Epoch) - int(b.Epoch)
	case a.End > b.End:
		return 1
	case a.End < b.End:
		return -1
	}
	return 0
}

// led forgets what was said of a partition: it has a leader, to which the others adapt.
func (m *model) led(p *partition) {
	delete(m.recovering.since, p)
	for _, ends := range m.recovering.ends {
		delete(ends, p.tp())
	}
}

// allUnclean reports whether nobody of these members can vouch for the partition: all came back unclean.
func (m *model) allUnclean(p *partition, cur zkcoord.PartitionState, members []cluster.BrokerID) bool {
	return !slices.ContainsFunc(members, func(id cluster.BrokerID) bool { return !m.cameBackUnclean(p, cur, id) })
}
