package partition

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/replication"
	"ottla/internal/cluster"
	"ottla/internal/parallel"
)

// changeWorkers bounds how many partitions change their role at the same time: creating a log waits for the disk.
const changeWorkers = 16

// AcceptController checks the epochs of a request from the controller (UpdateMetadata too) and remembers the newest
// controller epoch. STALE_BROKER_EPOCH when the request was meant for an earlier registration of this broker; a later one
// is accepted, because the controller may know of it before we do. STALE_CONTROLLER_EPOCH for a controller that has been
// replaced.
func (s *Set) AcceptController(brokerEpoch, own cluster.BrokerEpoch, controllerEpoch cluster.ControllerEpoch) error {
	if brokerEpoch != cluster.NoBrokerEpoch && brokerEpoch < own {
		return kerr.StaleBrokerEpoch
	}
	for {
		seen := s.roles.controllerEpoch.Load()
		if int32(controllerEpoch) < seen {
			return kerr.StaleControllerEpoch
		}
		if s.roles.controllerEpoch.CompareAndSwap(seen, int32(controllerEpoch)) {
			return nil
		}
	}
}

// LeaderAndISR carries out the controller's decisions, versions 0 to 7. own is this broker's registration.
//
//   - The whole request is refused for an earlier registration or an earlier controller.
//   - Per partition: KAFKA_STORAGE_ERROR for a failed directory, INCONSISTENT_TOPIC_ID, STALE_CONTROLLER_EPOCH unless the
//     leader epoch is larger (an equal one may still tell a topic id), UNKNOWN_TOPIC_OR_PARTITION when we are not assigned.
//     A smaller partition epoch is skipped without an error.
//   - Demotions come first and depend on nothing, also when the new leader is unknown (Kafka skips those). Then leaders, then
//     the logs and fetchers of followers.
//   - A log that may lack acknowledged records does not lead: KAFKA_STORAGE_ERROR makes the controller choose another.
//   - The answer is by topic name up to version 4, by topic id from version 5 on.
func (s *Set) LeaderAndISR(req *kmsg.LeaderAndISRRequest, own cluster.BrokerEpoch) *kmsg.LeaderAndISRResponse {
	resp := req.ResponseKind().(*kmsg.LeaderAndISRResponse)
	s.roles.Lock()
	defer s.roles.Unlock()
	err := s.AcceptController(cluster.BrokerEpoch(req.BrokerEpoch), own, cluster.ControllerEpoch(req.ControllerEpoch))
	if err != nil {
		resp.ErrorCode = code(err)
		return resp
	}
	decisions := decisionsOf(req)
	s.decide(decisions)
	answerDecisions(resp, req, decisions)
	return resp
}

// decisionsOf flattens the two layouts of the request.
func decisionsOf(req *kmsg.LeaderAndISRRequest) []decision {
	var out []decision
	for i := range req.PartitionStates { // v0, v1
		out = append(out, decisionOf(strings.Clone(req.PartitionStates[i].Topic), cluster.TopicID{}, &req.PartitionStates[i]))
	}
	for i := range req.TopicStates {
		t := &req.TopicStates[i]
		for j := range t.PartitionStates {
			out = append(out, decisionOf(strings.Clone(t.Topic), cluster.TopicID(t.TopicID), &t.PartitionStates[j]))
		}
	}
	return out
}

func decisionOf(topic string, id cluster.TopicID, p *kmsg.LeaderAndISRRequestTopicPartition) decision {
	return decision{
		id:      cluster.TopicPartition{Topic: topic, Partition: p.Partition},
		topicID: id,
		Change: replication.Change{
			ControllerEpoch: cluster.ControllerEpoch(p.ControllerEpoch), Leader: cluster.BrokerID(p.Leader),
			LeaderEpoch: cluster.LeaderEpoch(p.LeaderEpoch), PartitionEpoch: cluster.PartitionEpoch(p.ZKVersion),
			ISR: brokers(p.ISR), Replicas: brokers(p.Replicas), Adding: brokers(p.AddingReplicas),
			Removing: brokers(p.RemovingReplicas), Recovery: cluster.LeaderRecoveryState(p.LeaderRecoveryState), IsNew: p.IsNew,
		},
	}
}

func brokers(list []int32) []cluster.BrokerID {
	out := make([]cluster.BrokerID, len(list))
	for i, id := range list {
		out[i] = cluster.BrokerID(id)
	}
	return out
}

// decide carries out decisions, in the three steps of LeaderAndISR.
func (s *Set) decide(decisions []decision) {
	now := s.now()
	var lead, follow []*decision
	for i := range decisions {
		d := &decisions[i]
		s.admit(d)
		switch {
		case !d.admitted:
		case d.Leader == s.options.BrokerID:
			lead = append(lead, d)
		default:
			follow = append(follow, d)
		}
	}
	for _, d := range follow {
		d.p.closeGate(d)
	}
	parallel.For(len(lead), changeWorkers, func(i int) {
		s.unfollow(lead[i].p)
		lead[i].p.becomeLeader(lead[i], now)
	})
	parallel.For(len(follow), changeWorkers, func(i int) { follow[i].p.becomeFollower(follow[i]) })
	s.afterDecisions(decisions)
}

func (s *Set) admit(d *decision) {
	p := s.lookup(d.id)
	if p != nil {
		p.admit(d)
		return
	}
	fresh := newPartition(s, d.id)
	fresh.admit(d)
	if d.admitted {
		d.p = s.lookupOrAdd(d.id)
	}
}

func (s *Set) afterDecisions(decisions []decision) {
	var became, resigned []*Partition
	failed, unchanged := 0, 0
	for i := range decisions {
		d := &decisions[i]
		switch {
		case d.changed && d.err == nil && d.Leader == s.options.BrokerID:
			became = append(became, d.p)
		case d.changed || d.led:
			resigned = append(resigned, d.p)
		case d.err != nil && !errors.Is(d.err, kerr.StaleControllerEpoch):
		default:
			unchanged++
		}
		if d.err != nil && !errors.Is(d.err, kerr.StaleControllerEpoch) {
			failed++
		}
	}
	s.log.Info().Int("leaders", len(became)).Int("followers", len(resigned)).Int("unchanged", unchanged).
		Int("failed", failed).Msg("roles changed")
	s.tellLeadership(became, resigned)
}

// answerDecisions fills in the answer in the order of the request.
func answerDecisions(resp *kmsg.LeaderAndISRResponse, req *kmsg.LeaderAndISRRequest, decisions []decision) {
	if req.Version < 5 {
		for i := range decisions {
			p := kmsg.NewLeaderAndISRResponseTopicPartition()
			p.Topic, p.Partition, p.ErrorCode = decisions[i].id.Topic, decisions[i].id.Partition, code(decisions[i].err)
			resp.Partitions = append(resp.Partitions, p)
		}
		return
	}
	next := 0
	for i := range req.TopicStates {
		t := kmsg.NewLeaderAndISRResponseTopic()
		t.TopicID = req.TopicStates[i].TopicID
		for range req.TopicStates[i].PartitionStates {
			p := kmsg.NewLeaderAndISRResponseTopicPartition()
			p.Partition, p.ErrorCode = decisions[next].id.Partition, code(decisions[next].err)
			t.Partitions = append(t.Partitions, p)
			next++
		}
		resp.Topics = append(resp.Topics, t)
	}
}

// code is the error code of a verdict; whatever is no verdict of the protocol is a fault of the storage here.
func code(err error) int16 {
	if err == nil {
		return 0
	}
	var verdict *kerr.Error
	if errors.As(err, &verdict) {
		return verdict.Code
	}
	return kerr.KafkaStorageError.Code
}

// StopReplica stops replicas, and deletes them where asked to, versions 0 to 4. Per partition: KAFKA_STORAGE_ERROR for a
// failed directory, FENCED_LEADER_EPOCH when its epoch is behind ours; -1 (unknown) and -2 (topic deletion) always stop. A
// partition that is not hosted is no error; with delete, what is left of it on disk goes.
func (s *Set) StopReplica(req *kmsg.StopReplicaRequest, own cluster.BrokerEpoch) *kmsg.StopReplicaResponse {
	resp := req.ResponseKind().(*kmsg.StopReplicaResponse)
	s.roles.Lock()
	defer s.roles.Unlock()
	err := s.AcceptController(cluster.BrokerEpoch(req.BrokerEpoch), own, cluster.ControllerEpoch(req.ControllerEpoch))
	if err != nil {
		resp.ErrorCode = code(err)
		return resp
	}
	stops := stopsOf(req)
	parallel.For(len(stops), changeWorkers, func(i int) { s.stop(&stops[i]) })
	var resigned []*Partition
	deleted := 0
	for i := range stops {
		p := kmsg.NewStopReplicaResponsePartition()
		p.Topic, p.Partition, p.ErrorCode = stops[i].id.Topic, stops[i].id.Partition, code(stops[i].err)
		resp.Partitions = append(resp.Partitions, p)
		if stops[i].p != nil {
			resigned = append(resigned, stops[i].p)
		}
		if stops[i].delete && stops[i].err == nil {
			deleted++
		}
	}
	s.log.Info().Int("stopped", len(resigned)).Int("deleted", deleted).Msg("replicas stopped")
	s.tellLeadership(nil, resigned)
	return resp
}

type stopDecision struct {
	id     cluster.TopicPartition
	epoch  cluster.LeaderEpoch
	delete bool
	p      *Partition // that was stopped
	err    error
}

func stopsOf(req *kmsg.StopReplicaRequest) []stopDecision {
	var out []stopDecision
	add := func(topic string, partition int32, epoch int32, del bool) {
		out = append(out, stopDecision{
			id:    cluster.TopicPartition{Topic: strings.Clone(topic), Partition: partition},
			epoch: cluster.LeaderEpoch(epoch), delete: del,
		})
	}
	for i := range req.Topics {
		t := &req.Topics[i]
		switch {
		case req.Version == 0:
			add(t.Topic, t.Partition, -1, req.DeletePartitions)
		case req.Version < 3:
			for _, partition := range t.Partitions {
				add(t.Topic, partition, -1, req.DeletePartitions)
			}
		default:
			for _, p := range t.PartitionStates {
				add(t.Topic, p.Partition, p.LeaderEpoch, p.Delete)
			}
		}
	}
	return out
}

func (s *Set) stop(d *stopDecision) {
	p := s.lookup(d.id)
	if p == nil {
		if d.delete {
			d.err = s.deleteLog(d.id)
		}
		return
	}
	if d.err = p.mayStop(d.epoch); d.err != nil {
		return
	}
	s.stopMove(d.id)
	p.stop(d.epoch)
	d.p = p
	if d.delete {
		s.remove(d.id)
		p.detach()
		d.err = s.deleteLog(d.id)
	}
}

func (s *Set) deleteLog(tp cluster.TopicPartition) error {
	if _, ok := s.options.Logs.Get(tp); !ok {
		return nil
	}
	if err := s.options.Logs.Delete(tp); err != nil {
		s.log.Error().Err(err).Stringer("partition", tp).Msg("deleting a replica failed")
		return err
	}
	return nil
}

// mayStop judges the leader epoch of a StopReplica.
func (p *Partition) mayStop(epoch cluster.LeaderEpoch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.offline != nil {
		return kerr.KafkaStorageError
	}
	if epoch >= 0 && epoch < p.mu.state.LeaderEpoch() {
		return kerr.FencedLeaderEpoch
	}
	return nil
}

// detach lets go of the log that is about to be deleted.
func (p *Partition) detach() {
	p.gate.Lock()
	defer p.gate.Unlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.log = nil
	p.publishLocked()
}

func cleanPath(dir string) string { return filepath.Clean(dir) }
