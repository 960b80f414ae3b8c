package controller

import (
	"errors"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
)

// Kinds of ElectLeaders. Source: KIP-460.
const (
	electionPreferred = 0
	electionUnclean   = 1
)

// electResult is the outcome of one partition of ElectLeaders.
type electResult struct {
	tp  cluster.TopicPartition
	err error
}

// ElectLeaders elects preferred leaders, or unclean ones where there is no leader, and answers once the broker's own metadata shows
// them. Without topics it stands for all partitions, and the answer leaves out those that needed no election. done is called once,
// it must not block.
func (c *Controller) ElectLeaders(req *kmsg.ElectLeadersRequest, done func(*kmsg.ElectLeadersResponse)) {
	c.request("electLeaders", func(r *reign, answered func()) error {
		results, elected, err := r.electLeaders(req)
		if err != nil {
			return err
		}
		r.flush()
		answered()
		if len(elected) == 0 {
			done(electAnswer(req, results, true))
			return nil
		}
		led := func(m Metadata) bool {
			for tp, leader := range elected {
				if got, _ := m.Leader(tp.Topic, tp.Partition); got != leader {
					return false
				}
			}
			return true
		}
		c.await(req.TimeoutMillis, led, func(visible bool) { done(electAnswer(req, results, visible)) })
		return nil
	}, func() {
		resp := electAnswer(req, nil, true)
		for _, t := range req.Topics {
			for _, number := range t.Partitions {
				addElectAnswer(resp, electResult{cluster.TopicPartition{Topic: t.Topic, Partition: number}, kerr.NotController})
			}
		}
		if len(req.Topics) == 0 {
			resp.ErrorCode = kerr.NotController.Code
		}
		done(resp)
	})
}

func electAnswer(req *kmsg.ElectLeadersRequest, results []electResult, visible bool) *kmsg.ElectLeadersResponse {
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	for _, res := range results {
		if res.err == nil && !visible {
			res.err = kerr.RequestTimedOut
		}
		if req.Topics == nil && errors.Is(res.err, kerr.ElectionNotNeeded) {
			continue
		}
		addElectAnswer(resp, res)
	}
	return resp
}

func addElectAnswer(resp *kmsg.ElectLeadersResponse, res electResult) {
	p := kmsg.NewElectLeadersResponseTopicPartition()
	p.Partition = res.tp.Partition
	setError(res.err, &p.ErrorCode, &p.ErrorMessage)
	n := len(resp.Topics)
	if n == 0 || resp.Topics[n-1].Topic != res.tp.Topic {
		t := kmsg.NewElectLeadersResponseTopic()
		t.Topic = res.tp.Topic
		resp.Topics = append(resp.Topics, t)
		n++
	}
	resp.Topics[n-1].Partitions = append(resp.Topics[n-1].Partitions, p)
}

// electLeaders returns the outcome of every partition in question, and the new leaders.
func (r *reign) electLeaders(req *kmsg.ElectLeadersRequest) ([]electResult, map[cluster.TopicPartition]cluster.BrokerID, error) {
	unclean := req.Version >= 1 && req.ElectionType == electionUnclean
	var tps []cluster.TopicPartition
	if req.Topics == nil {
		for _, p := range r.m.selectPartitions(func(*partition) bool { return true }) {
			tps = append(tps, p.tp())
		}
	}
	for _, t := range req.Topics {
		for _, number := range t.Partitions {
			tps = append(tps, cluster.TopicPartition{Topic: t.Topic, Partition: number})
		}
	}
	results := make([]electResult, len(tps))
	var ps []*partition
	for i, tp := range tps {
		p := r.m.partition(tp)
		results[i] = electResult{tp, r.electable(p, unclean)}
		if results[i].err == nil {
			ps = append(ps, p)
		}
	}
	kind, failure := electPreferred, kerr.PreferredLeaderNotAvailable
	if unclean {
		kind, failure = electUnclean, kerr.EligibleLeadersNotAvailable
	}
	changes, err := r.elect(ps, kind)
	if err != nil {
		return nil, nil, err
	}
	failed := map[cluster.TopicPartition]error{}
	elected := map[cluster.TopicPartition]cluster.BrokerID{}
	for i := range changes {
		c := &changes[i]
		if c.written {
			elected[c.p.tp()] = c.p.state.Leader
			continue
		}
		failed[c.p.tp()] = refuse(failure, "Failed to elect leader for partition %s under strategy %s", c.p.tp(), kafkaStrategy(unclean))
	}
	for i := range results {
		if err := failed[results[i].tp]; err != nil && results[i].err == nil {
			results[i].err = err
		}
	}
	return results, elected, nil
}

// kafkaStrategy is the name of the strategy in Kafka's message.
func kafkaStrategy(unclean bool) string {
	if unclean {
		return "OfflinePartitionLeaderElectionStrategy(true)"
	}
	return "PreferredReplicaPartitionLeaderElectionStrategy"
}

// electable says why a partition needs, or may get, no election; nil when it does.
func (r *reign) electable(p *partition, unclean bool) error {
	switch {
	case p == nil:
		return refuse(kerr.UnknownTopicOrPartition, "The partition does not exist.")
	case p.topic.deleting():
		return refuse(kerr.InvalidTopicException, "The topic is being deleted")
	case unclean && r.m.phase(p) != phaseOffline, !unclean && p.known && p.state.Leader == p.preferred():
		return refuse(kerr.ElectionNotNeeded, "Leader election not needed for topic partition.")
	}
	return nil
}

// AlterPartitionAssignments starts, replaces and cancels reassignments. It answers when they are written, not when they are done.
// done is called once, it must not block.
func (c *Controller) AlterPartitionAssignments(req *kmsg.AlterPartitionAssignmentsRequest, done func(*kmsg.AlterPartitionAssignmentsResponse)) {
	c.request("alterPartitionAssignments", func(r *reign, answered func()) error {
		resp, err := r.alterAssignments(req)
		if err != nil {
			return err
		}
		r.flush()
		answered()
		done(resp)
		return nil
	}, func() {
		resp := req.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
		resp.ErrorCode, resp.ErrorMessage = kerr.NotController.Code, message(kerr.NotController)
		done(resp)
	})
}

func (r *reign) alterAssignments(req *kmsg.AlterPartitionAssignmentsRequest) (*kmsg.AlterPartitionAssignmentsResponse, error) {
	resp := req.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	var moves []reassigned
	taken := map[*partition]bool{}
	for i := range req.Topics {
		ask := &req.Topics[i]
		answer := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		answer.Topic = ask.Topic
		for k := range ask.Partitions {
			pa := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			pa.Partition = ask.Partitions[k].Partition
			p := r.m.partition(cluster.TopicPartition{Topic: ask.Topic, Partition: pa.Partition})
			to, err := r.planReassignment(p, ask.Partitions[k].Replicas)
			if err == nil && taken[p] {
				err = refuse(kerr.InvalidRequest, "Partition is named twice in the request.")
			}
			if err != nil {
				setError(err, &pa.ErrorCode, &pa.ErrorMessage)
			} else {
				taken[p] = true
				moves = append(moves, reassigned{p, to})
			}
			answer.Partitions = append(answer.Partitions, pa)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	if len(moves) == 0 {
		return resp, nil
	}
	// The latest request wins over one in the znode.
	err := r.trimZKReassignment(func(tp cluster.TopicPartition, _ []cluster.BrokerID) bool { return taken[r.m.partition(tp)] })
	if err != nil {
		return nil, err
	}
	return resp, r.startReassignments(moves)
}

// planReassignment judges the new replicas of a partition; nil cancels what runs.
func (r *reign) planReassignment(p *partition, replicas []int32) (assignment, error) {
	var current assignment
	if p != nil {
		current = p.assignment()
	}
	target := brokerIDs(replicas)
	switch {
	case replicas != nil:
		if wrong := r.m.checkTarget(current, target); wrong != "" {
			return current, refuse(kerr.InvalidReplicaAssignment, "%s", wrong)
		}
	case !current.reassigning():
		return current, refuse(kerr.NoReassignmentInProgress, "%s", kerr.NoReassignmentInProgress.Description)
	default:
		target = current.origin()
	}
	if p == nil || p.topic.deleting() {
		return current, refuse(kerr.UnknownTopicOrPartition, "The partition does not exist.")
	}
	return current.reassignTo(target), nil
}

// ListPartitionReassignments lists the reassignments that run, of the given partitions or of all. done is called once, it must not
// block.
func (c *Controller) ListPartitionReassignments(req *kmsg.ListPartitionReassignmentsRequest, done func(*kmsg.ListPartitionReassignmentsResponse)) {
	c.request("listPartitionReassignments", func(r *reign, answered func()) error {
		resp := r.listReassignments(req)
		answered()
		done(resp)
		return nil
	}, func() {
		resp := req.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
		resp.ErrorCode, resp.ErrorMessage = kerr.NotController.Code, message(kerr.NotController)
		done(resp)
	})
}

func (r *reign) listReassignments(req *kmsg.ListPartitionReassignmentsRequest) *kmsg.ListPartitionReassignmentsResponse {
	asked := map[cluster.TopicPartition]struct{}{}
	for _, t := range req.Topics {
		for _, number := range t.Partitions {
			asked[cluster.TopicPartition{Topic: t.Topic, Partition: number}] = struct{}{}
		}
	}
	byName := map[string]*kmsg.ListPartitionReassignmentsResponseTopic{}
	for _, p := range r.m.selectPartitions((*partition).reassigning) {
		if _, wanted := asked[p.tp()]; req.Topics != nil && !wanted {
			continue
		}
		t := byName[p.topic.name]
		if t == nil {
			fresh := kmsg.NewListPartitionReassignmentsResponseTopic()
			t = &fresh
			t.Topic = p.topic.name
			byName[p.topic.name] = t
		}
		lp := kmsg.NewListPartitionReassignmentsResponseTopicPartition()
		lp.Partition = p.number
		lp.Replicas, lp.AddingReplicas, lp.RemovingReplicas = int32s(p.ids()), int32s(p.adding), int32s(p.removing)
		t.Partitions = append(t.Partitions, lp)
	}
	resp := req.ResponseKind().(*kmsg.ListPartitionReassignmentsResponse)
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		resp.Topics = append(resp.Topics, *byName[name])
	}
	return resp
}
