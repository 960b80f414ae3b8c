package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
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
	b.controller.CreateTopics(req, func(resp *kmsg.CreateTopicsResponse) {
		for i := range resp.Topics {
			t := &resp.Topics[i]
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
		r.Respond(resp)
	})
	return nil
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
	b.controller.DeleteTopics(req, func(resp *kmsg.DeleteTopicsResponse) {
		resp.Topics = append(resp.Topics, denied...)
		r.Respond(resp)
	})
	return nil
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
	b.controller.CreatePartitions(req, func(resp *kmsg.CreatePartitionsResponse) {
		for _, name := range denied {
			t := kmsg.NewCreatePartitionsResponseTopic()
			t.Topic, t.ErrorCode = name, kerr.TopicAuthorizationFailed.Code
			resp.Topics = append(resp.Topics, t)
		}
		r.Respond(resp)
	})
	return nil
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
