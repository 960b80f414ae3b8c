package groupcoord

import (
	"ottla/internal/cluster"
)

// Snapshot is a group as metrics tell of it.
type Snapshot struct {
	Group      string
	State      State
	Members    int
	Generation int32
	Offsets    []CommittedOffset // in no order
	// External: there may be offsets in ZooKeeper, which are not in Offsets.
	External bool
}

// CommittedOffset is one partition's committed offset.
type CommittedOffset struct {
	cluster.TopicPartition
	Offset int64
}

// Snapshots describes the groups that this broker coordinates, in no order; those that are being loaded are left out.
func (c *Coordinator) Snapshots() []Snapshot {
	var out []Snapshot
	for _, s := range c.shards.All() {
		if !s.Ready() {
			continue
		}
		for _, e := range s.all() {
			if snap, ok := e.snapshot(); ok {
				out = append(out, snap)
			}
		}
	}
	return out
}

func (e *entry) snapshot() (Snapshot, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.mu.group
	s := Snapshot{Group: g.id, State: g.state, Members: len(g.order), Generation: g.generation, External: e.mu.external}
	s.Offsets = make([]CommittedOffset, 0, e.mu.offsets.count)
	for topic, partitions := range e.mu.offsets.topics {
		for number, c := range partitions {
			s.Offsets = append(s.Offsets, CommittedOffset{cluster.TopicPartition{Topic: topic, Partition: number}, c.Offset})
		}
	}
	return s, g.state != Dead
}
