package controller

import (
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
)

// Versions of the requests that the controller sends, and how many partitions one request carries at most. A broker keeps serving
// while it takes a request apart, and a request stays far below socket.request.max.bytes.
const (
	leaderAndISRVersion   = 7
	updateMetadataVersion = 8
	stopReplicaVersion    = 4

	partitionsPerRequestMax = 4000
)

// batch collects what brokers must hear. It holds pointers: what is sent is the state of the model when it is flushed, so the last
// state of a partition wins. isNew and delete stay once they were asked for.
type batch struct {
	leaderAndISR map[cluster.BrokerID]map[*partition]bool // value: isNew
	stop         map[cluster.BrokerID]map[*partition]bool // value: delete
	update       map[*partition]struct{}                  // to every broker
	updateTo     map[cluster.BrokerID]map[*partition]struct{}
	updateAll    bool // UpdateMetadata to every broker, even without partitions: the list of brokers changed
}

func newBatch() *batch {
	return &batch{
		leaderAndISR: map[cluster.BrokerID]map[*partition]bool{},
		stop:         map[cluster.BrokerID]map[*partition]bool{},
		update:       map[*partition]struct{}{},
		updateTo:     map[cluster.BrokerID]map[*partition]struct{}{},
	}
}

func (b *batch) empty() bool {
	return len(b.leaderAndISR) == 0 && len(b.stop) == 0 && len(b.update) == 0 && len(b.updateTo) == 0 && !b.updateAll
}

// addLeaderAndISR tells some brokers of a partition's role, and all brokers of its metadata.
func (b *batch) addLeaderAndISR(p *partition, to []cluster.BrokerID, isNew bool) {
	for _, id := range to {
		addSticky(b.leaderAndISR, id, p, isNew)
	}
	b.addUpdate(p)
}

func (b *batch) addStop(p *partition, id cluster.BrokerID, del bool) { addSticky(b.stop, id, p, del) }

func (b *batch) addUpdate(p *partition) { b.update[p] = struct{}{} }

// addUpdateTo tells one broker of a partition's metadata: one that has just come and knows nothing yet.
func (b *batch) addUpdateTo(id cluster.BrokerID, p *partition) {
	if b.updateTo[id] == nil {
		b.updateTo[id] = map[*partition]struct{}{}
	}
	b.updateTo[id][p] = struct{}{}
}

func addSticky(m map[cluster.BrokerID]map[*partition]bool, id cluster.BrokerID, p *partition, flag bool) {
	if m[id] == nil {
		m[id] = map[*partition]bool{}
	}
	m[id][p] = m[id][p] || flag
}

// outgoing is one request to one broker.
type outgoing struct {
	to  cluster.BrokerID
	req kmsg.Request
}

// requests builds what the batch asks for, in the order in which each broker must get it: LeaderAndIsr, UpdateMetadata,
// StopReplica. What is addressed to a broker that is not registered is left out.
func (b *batch) requests(m *model, self cluster.BrokerID, listener string) []outgoing {
	var out []outgoing
	for _, id := range slices.Sorted(maps.Keys(b.leaderAndISR)) {
		if m.registered(id) {
			out = b.appendLeaderAndISR(out, m, self, id, listener)
		}
	}
	out = b.appendUpdates(out, m, self)
	for _, id := range slices.Sorted(maps.Keys(b.stop)) {
		if m.registered(id) {
			out = b.appendStop(out, m, self, id)
		}
	}
	return out
}

func (b *batch) appendLeaderAndISR(out []outgoing, m *model, self, to cluster.BrokerID, listener string) []outgoing {
	partitions := sortedKeys(b.leaderAndISR[to], func(p *partition) bool { return p.known })
	for chunk := range slices.Chunk(partitions, partitionsPerRequestMax) {
		req := kmsg.NewPtrLeaderAndISRRequest()
		req.Version = leaderAndISRVersion
		req.ControllerID, req.ControllerEpoch = int32(self), int32(m.epoch)
		req.BrokerEpoch = int64(m.brokers[to].Epoch)
		leaders := map[cluster.BrokerID]struct{}{}
		for topic := range byTopic(chunk) {
			ts := kmsg.NewLeaderAndISRRequestTopicState()
			ts.Topic, ts.TopicID = topic[0].topic.name, topic[0].topic.id
			ts.PartitionStates = make([]kmsg.LeaderAndISRRequestTopicPartition, len(topic))
			for i, p := range topic {
				ts.PartitionStates[i] = leaderAndISRPartition(p, b.leaderAndISR[to][p])
				leaders[p.state.Leader] = struct{}{}
			}
			req.TopicStates = append(req.TopicStates, ts)
		}
		for _, id := range slices.Sorted(maps.Keys(leaders)) {
			if l := m.brokers[id]; l != nil {
				live := kmsg.NewLeaderAndISRRequestLiveLeader()
				live.BrokerID = int32(id)
				if e, ok := l.Endpoint(listener); ok {
					live.Host, live.Port = e.Host, e.Port
				}
				req.LiveLeaders = append(req.LiveLeaders, live)
			}
		}
		out = append(out, outgoing{to, req})
	}
	return out
}

func leaderAndISRPartition(p *partition, isNew bool) kmsg.LeaderAndISRRequestTopicPartition {
	s := kmsg.NewLeaderAndISRRequestTopicPartition()
	s.Topic, s.Partition = p.topic.name, p.number
	s.ControllerEpoch = int32(p.state.ControllerEpoch)
	s.Leader, s.LeaderEpoch = int32(p.state.Leader), int32(p.state.LeaderEpoch)
	s.ISR, s.ZKVersion = int32s(p.state.ISR), int32(p.version)
	s.Replicas, s.AddingReplicas, s.RemovingReplicas = int32s(p.ids()), int32s(p.adding), int32s(p.removing)
	s.IsNew, s.LeaderRecoveryState = isNew, int8(p.state.Recovery)
	return s
}

func (b *batch) appendUpdates(out []outgoing, m *model, self cluster.BrokerID) []outgoing {
	common := sortedKeys(b.update, func(p *partition) bool { return p.known || p.topic.deleting() })
	shared := updateBodies(m, self, common)
	if len(shared) == 0 && b.updateAll {
		shared = []*updateBody{newUpdateBody(m, self, nil)}
	}
	for _, to := range m.registeredIDs() {
		for _, body := range shared {
			out = append(out, outgoing{to, body.to(m.brokers[to].Epoch)})
		}
		own := sortedKeys(b.updateTo[to], func(p *partition) bool {
			_, covered := b.update[p]
			return p.known && !covered
		})
		for _, body := range updateBodies(m, self, own) {
			out = append(out, outgoing{to, body.to(m.brokers[to].Epoch)})
		}
	}
	return out
}

// updateBodies splits the partitions over as many requests as they need; none for none.
func updateBodies(m *model, self cluster.BrokerID, partitions []*partition) []*updateBody {
	var bodies []*updateBody
	for chunk := range slices.Chunk(partitions, partitionsPerRequestMax) {
		bodies = append(bodies, newUpdateBody(m, self, chunk))
	}
	return bodies
}

func (b *batch) appendStop(out []outgoing, m *model, self, to cluster.BrokerID) []outgoing {
	partitions := sortedKeys(b.stop[to], func(*partition) bool { return true })
	for chunk := range slices.Chunk(partitions, partitionsPerRequestMax) {
		req := kmsg.NewPtrStopReplicaRequest()
		req.Version = stopReplicaVersion
		req.ControllerID, req.ControllerEpoch = int32(self), int32(m.epoch)
		req.BrokerEpoch = int64(m.brokers[to].Epoch)
		for topic := range byTopic(chunk) {
			ts := kmsg.NewStopReplicaRequestTopic()
			ts.Topic = topic[0].topic.name
			for _, p := range topic {
				ps := kmsg.NewStopReplicaRequestTopicPartitionState()
				ps.Partition, ps.LeaderEpoch, ps.Delete = p.number, int32(stopEpoch(p)), b.stop[to][p]
				ts.PartitionStates = append(ts.PartitionStates, ps)
			}
			req.Topics = append(req.Topics, ts)
		}
		out = append(out, outgoing{to, req})
	}
	return out
}

// stopEpoch is the leader epoch of a StopReplica: -2 when the topic is being deleted, -1 when none is known. Source: KIP-570.
func stopEpoch(p *partition) cluster.LeaderEpoch {
	switch {
	case p.topic.deleting():
		return cluster.DeletedLeaderEpoch
	case !p.known:
		return cluster.NoLeaderEpoch
	}
	return p.state.LeaderEpoch
}

// byTopic yields the runs of partitions of one topic; partitions are sorted by topic.
func byTopic(partitions []*partition) func(yield func([]*partition) bool) {
	return func(yield func([]*partition) bool) {
		for start := 0; start < len(partitions); {
			end := start + 1
			for end < len(partitions) && partitions[end].topic == partitions[start].topic {
				end++
			}
			if !yield(partitions[start:end]) {
				return
			}
			start = end
		}
	}
}

func sortedKeys[V any](m map[*partition]V, pass func(*partition) bool) []*partition {
	out := make([]*partition, 0, len(m))
	for p := range m {
		if pass(p) {
			out = append(out, p)
		}
	}
	sortPartitions(out)
	return out
}

func int32s(ids []cluster.BrokerID) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out
}

func brokerIDs(ids []int32) []cluster.BrokerID {
	out := make([]cluster.BrokerID, len(ids))
	for i, id := range ids {
		out[i] = cluster.BrokerID(id)
	}
	return out
}
