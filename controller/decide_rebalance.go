package controller

import (
	"slices"

	"ottla/internal/cluster"
)

// decideRebalance returns the partitions whose leader should move back to the preferred replica: of those preferred brokers that
// lead so few of the partitions they should lead that the missing share is above percent, and only where the preferred replica is
// online and in the ISR. Source: auto.leader.rebalance.enable, leader.imbalance.per.broker.percentage, KAFKA-9866.
func (m *model) decideRebalance(percent int) []*partition {
	type group struct {
		total     int
		misplaced []*partition
	}
	groups := map[cluster.BrokerID]*group{}
	for p := range m.eachPartition() {
		if p.topic.deleting() || !p.known {
			continue
		}
		g := groups[p.preferred()]
		if g == nil {
			g = &group{}
			groups[p.preferred()] = g
		}
		g.total++
		if p.state.Leader != p.preferred() {
			g.misplaced = append(g.misplaced, p)
		}
	}
	var out []*partition
	for id, g := range groups {
		if !m.live(id) || m.fullDisks[id] || len(g.misplaced)*100 <= percent*g.total {
			continue
		}
		for _, p := range g.misplaced {
			if !p.reassigning() && m.idOnline(p, id) && slices.Contains(p.state.ISR, id) {
				out = append(out, p)
			}
		}
	}
	sortPartitions(out)
	return out
}
