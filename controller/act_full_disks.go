package controller

import (
	"fmt"
	"slices"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// A broker whose disk is full refuses what clients write, while other members of the in-sync set may have room: they lead instead,
// until it has space again. It stays in the in-sync set.

// onFullDisks reads whose disks are full.
func (r *reign) onFullDisks() error {
	full, err := zkcoord.FullDisks(r.s)
	if err != nil {
		return fmt.Errorf("read %s: %w", zkcoord.FullDisksPath, err)
	}
	for id := range full {
		if !r.m.fullDisks[id] {
			r.log.Warn().Int32("broker", int32(id)).Msg("the broker's disk is full, moving its leaders to replicas that have room")
		}
	}
	r.m.fullDisks = full
	return r.leaveFullDisks()
}

// leaveFullDisks elects other leaders where the disk of the leader is full and a member of the in-sync set has room.
func (r *reign) leaveFullDisks() error {
	if len(r.m.fullDisks) == 0 {
		return nil
	}
	_, err := r.elect(r.m.selectPartitions(r.m.hasRoomierLeader), electRoom)
	return err
}

// hasRoomierLeader reports whether the leader's disk is full and another member, as far as is known here, could lead instead.
func (m *model) hasRoomierLeader(p *partition) bool {
	return p.known && !p.topic.doomed() && m.fullDisks[p.state.Leader] && slices.ContainsFunc(m.withRoom(p.ids()), func(id cluster.BrokerID) bool {
		return m.idOnline(p, id) && slices.Contains(p.state.ISR, id)
	})
}

// withRoomFirst keeps the order, but puts those with a full disk last.
func (m *model) withRoomFirst(ids []cluster.BrokerID) []cluster.BrokerID {
	return append(m.withRoom(ids), keep(ids, func(id cluster.BrokerID) bool { return m.fullDisks[id] })...)
}

func (m *model) withRoom(ids []cluster.BrokerID) []cluster.BrokerID {
	return keep(ids, func(id cluster.BrokerID) bool { return !m.fullDisks[id] })
}
