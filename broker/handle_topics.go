package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/config"
	"ottla/internal/cluster"
)

// What only the controller may do with topics and partitions: CreateTopics v0–7, DeleteTopics v0–6, CreatePartitions v0–3,
// ElectLeaders v0–2, AlterPartitionReassignments v0, ListPartitionReassignments v0. Other brokers answer NOT_CONTROLLER. Here
// is who may ask for what; the controller does the rest and answers once the effect can be seen.

func (b *Broker) handleCreateTopics(r *wire.Request, req *kmsg.CreateTopicsRequest) kmsg.Response {
	var denied []string
	if !b.visible(r, opCreate, clusterResource) {
		req.Topics = slices.DeleteFunc(req.Topics, func(t kmsg.CreateTopicsRequestTopic) bool {
			no := !b.allowed(r, opCreate, topicResource(t.Topic))
			if no {
				denied = append(denied, t.Topic)
			}
			return no
		})
	}
	m, refused := b.mutationsOf(r, 6), []string(nil)
	planned := b.countCreations(m, req, &refused)
	b.controller.CreateTopics(req, func(resp *kmsg.CreateTopicsResponse) {
		for i := range resp.Topics {
			t := &resp.Topics[i]
			if t.ErrorCode != 0 {
				m.undo(planned[t.Topic])
			}
			if r.Version >= 5 && t.ErrorCode == 0 && !b.visible(r, opDescribeConfigs, topicResource(t.Topic)) {
				t.NumPartitions, t.ReplicationFactor, t.Configs = -1, -1, nil
				t.ConfigErrorCode = kerr.TopicAuthorizationFailed.Code
			}
		}
		for _, name := range denied {
			t := kmsg.NewCreateTopicsResponseTopic()
			t.Topic, t.ErrorCode = name, kerr.TopicAuthorizationFailed.Code
			resp.Topics = append(resp.Topics, t)
		}
		for _, name := range refused {
			t := kmsg.NewCreateTopicsResponseTopic()
			t.Topic = name
			t.ErrorCode, t.ErrorMessage = b.codeAndMessage(errTooManyMutations)
			resp.Topics = append(resp.Topics, t)
		}
		m.tell(resp)
		r.Respond(resp)
	})
	return nil
}

// errTooManyMutations refuses a change to topics by a client that is over its quota.
var errTooManyMutations = withMessage(kerr.ThrottlingQuotaExceeded, "The throttling quota has been exceeded.")

// countCreations counts the partitions that a request wants against its client's quota, and takes out the topics for which there is no
// room. What fails to be created is given back by planned.
func (b *Broker) countCreations(m *mutations, req *kmsg.CreateTopicsRequest, refused *[]string) (planned map[string]int) {
	planned = map[string]int{}
	if req.ValidateOnly || !m.counted() {
		return planned
	}
	req.Topics = slices.DeleteFunc(req.Topics, func(t kmsg.CreateTopicsRequestTopic) bool {
		n := int(t.NumPartitions)
		switch {
		case len(t.ReplicaAssignment) > 0:
			n = len(t.ReplicaAssignment)
		case n < 0:
			n = config.NumPartitions.Of(b.config.Load())
		}
		if m.may(n) != nil {
			*refused = append(*refused, t.Topic)
			return true
		}
		planned[t.Topic] = n
		return false
	})
	return planned
}

func (b *Broker) handleDeleteTopics(r *wire.Request, req *kmsg.DeleteTopicsRequest) kmsg.Response {
	var denied []kmsg.DeleteTopicsResponseTopic
	deny := func(name *string, id cluster.TopicID) {
		t := kmsg.NewDeleteTopicsResponseTopic()
		t.Topic, t.TopicID, t.ErrorCode = name, id, kerr.TopicAuthorizationFailed.Code
		denied = append(denied, t)
	}
	req.TopicNames = slices.DeleteFunc(req.TopicNames, func(name string) bool {
		no := !b.allowed(r, opDelete, topicResource(name))
		if no {
			deny(&name, cluster.TopicID{})
		}
		return no
	})
	names := b.metadata.load().names
	req.Topics = slices.DeleteFunc(req.Topics, func(t kmsg.DeleteTopicsRequestTopic) bool {
		name := names[t.TopicID]
		if t.Topic != nil {
			name = *t.Topic
		}
		if name == "" || b.allowed(r, opDelete, topicResource(name)) {
			return false // an unknown id is the controller's to answer
		}
		if t.Topic == nil && !b.allowed(r, opDescribe, topicResource(name)) {
			deny(nil, t.TopicID) // the name of a topic found by its id is not told
		} else {
			deny(&name, t.TopicID)
		}
		return true
	})
	m := b.mutationsOf(r, 5)
	planned, refused := b.countDeletions(m, req)
	b.controller.DeleteTopics(req, func(resp *kmsg.DeleteTopicsResponse) {
		for _, t := range resp.Topics {
			if t.ErrorCode != 0 && t.Topic != nil {
				m.undo(planned[*t.Topic])
			}
		}
		resp.Topics = append(append(resp.Topics, denied...), refused...)
		m.tell(resp)
		r.Respond(resp)
	})
	return nil
}

// countDeletions is countCreations for the partitions of topics that shall go.
func (b *Broker) countDeletions(m *mutations, req *kmsg.DeleteTopicsRequest) (planned map[string]int, refused []kmsg.DeleteTopicsResponseTopic) {
	planned = map[string]int{}
	if !m.counted() {
		return planned, nil
	}
	now := b.metadata.load()
	over := func(name string, id cluster.TopicID) bool {
		t := now.topics[name]
		if t == nil {
			return false // unknown: nothing to count
		}
		if m.may(len(t.partitions)) == nil {
			planned[name] = len(t.partitions)
			return false
		}
		out := kmsg.NewDeleteTopicsResponseTopic()
		out.Topic, out.TopicID = &name, id
		out.ErrorCode, out.ErrorMessage = b.codeAndMessage(errTooManyMutations)
		refused = append(refused, out)
		return true
	}
	req.TopicNames = slices.DeleteFunc(req.TopicNames, func(name string) bool { return over(name, cluster.TopicID{}) })
	req.Topics = slices.DeleteFunc(req.Topics, func(t kmsg.DeleteTopicsRequestTopic) bool {
		if t.Topic != nil {
			return over(*t.Topic, cluster.TopicID{})
		}
		return over(now.names[t.TopicID], t.TopicID)
	})
	return planned, refused
}

func (b *Broker) handleCreatePartitions(r *wire.Request, req *kmsg.CreatePartitionsRequest) kmsg.Response {
	var denied []string
	req.Topics = slices.DeleteFunc(req.Topics, func(t kmsg.CreatePartitionsRequestTopic) bool {
		no := !b.allowed(r, opAlter, topicResource(t.Topic))
		if no {
			denied = append(denied, t.Topic)
		}
		return no
	})
	m, refused := b.mutationsOf(r, 3), []string(nil)
	planned := b.countAdditions(m, req, &refused)
	b.controller.CreatePartitions(req, func(resp *kmsg.CreatePartitionsResponse) {
		for _, t := range resp.Topics {
			if t.ErrorCode != 0 {
				m.undo(planned[t.Topic])
			}
		}
		for _, name := range refused {
			t := kmsg.NewCreatePartitionsResponseTopic()
			t.Topic = name
			t.ErrorCode, t.ErrorMessage = b.codeAndMessage(errTooManyMutations)
			resp.Topics = append(resp.Topics, t)
		}
		m.tell(resp)
		for _, name := range denied {
			t := kmsg.NewCreatePartitionsResponseTopic()
			t.Topic, t.ErrorCode = name, kerr.TopicAuthorizationFailed.Code
			resp.Topics = append(resp.Topics, t)
		}
		r.Respond(resp)
	})
	return nil
}

// countAdditions is countCreations for the partitions that topics shall have more.
func (b *Broker) countAdditions(m *mutations, req *kmsg.CreatePartitionsRequest, refused *[]string) (planned map[string]int) {
	planned = map[string]int{}
	if req.ValidateOnly || !m.counted() {
		return planned
	}
	now := b.metadata.load()
	req.Topics = slices.DeleteFunc(req.Topics, func(t kmsg.CreatePartitionsRequestTopic) bool {
		have := now.topics[t.Topic]
		if have == nil || int(t.Count) <= len(have.partitions) {
			return false // the controller refuses it
		}
		more := int(t.Count) - len(have.partitions)
		if m.may(more) != nil {
			*refused = append(*refused, t.Topic)
			return true
		}
		planned[t.Topic] = more
		return false
	})
	return planned
}

func (b *Broker) handleElectLeaders(r *wire.Request, req *kmsg.ElectLeadersRequest) kmsg.Response {
	b.controller.ElectLeaders(req, func(resp *kmsg.ElectLeadersResponse) { r.Respond(resp) })
	return nil
}

func (b *Broker) handleAlterReassignments(r *wire.Request, req *kmsg.AlterPartitionAssignmentsRequest) kmsg.Response {
	b.controller.AlterPartitionAssignments(req, func(resp *kmsg.AlterPartitionAssignmentsResponse) { r.Respond(resp) })
	return nil
}

func (b *Broker) handleListReassignments(r *wire.Request, req *kmsg.ListPartitionReassignmentsRequest) kmsg.Response {
	b.controller.ListPartitionReassignments(req, func(resp *kmsg.ListPartitionReassignmentsResponse) { r.Respond(resp) })
	return nil
}
