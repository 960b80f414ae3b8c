package controller

import (
	"slices"

	"ottla/internal/cluster"
)

// brokerDiff is what changed between the registrations that are known and those that were read. A bounced broker is in gone and in
// come: it was away between two looks, so everything that was sent to its earlier process may be lost. Source: KIP-380.
type brokerDiff struct {
	gone     []cluster.BrokerID
	come     []cluster.Broker
	modified []cluster.Broker // other end points or rack in the same registration
}

func (d brokerDiff) empty() bool { return len(d.gone) == 0 && len(d.come) == 0 && len(d.modified) == 0 }

func (m *model) diffBrokers(read []cluster.Broker) brokerDiff {
	var d brokerDiff
	seen := map[cluster.BrokerID]struct{}{}
	for _, b := range read {
		seen[b.ID] = struct{}{}
		known := m.brokers[b.ID]
		switch {
		case known == nil:
			d.come = append(d.come, b)
		case b.Epoch > known.Epoch:
			d.gone = append(d.gone, b.ID)
			d.come = append(d.come, b)
		case b.Epoch == known.Epoch && (!slices.Equal(b.Endpoints, known.Endpoints) || b.Rack != known.Rack):
			d.modified = append(d.modified, b)
		}
	}
	for _, id := range m.registeredIDs() {
		if _, there := seen[id]; !there {
			d.gone = append(d.gone, id)
		}
	}
	slices.Sort(d.gone)
	slices.SortFunc(d.come, func(a, b cluster.Broker) int { return int(a.ID) - int(b.ID) })
	return d
}
