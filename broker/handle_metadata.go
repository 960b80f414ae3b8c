package broker

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/internal/cluster"
)

// Metadata v0–12.
//   - Endpoints are those of the listener on which the request came in.
//   - Version 0: an empty list means all topics, and dead replicas are left out; from 1 on null means all, empty means none.
//   - Version 4 lets the client forbid creation (KIP-204); before, creation is allowed.
//   - Version 5: offline replicas (KIP-112). 7: leader epochs (KIP-320). 8–10: authorised operations (KIP-430).
//   - Version 10 returns topic ids, 12 looks topics up by id (KIP-516).
//   - An answer that would name a leader whose connection has just broken waits a moment for the election (awaitElection).

// authorizedOperationsUnset says that the client did not ask. Source: KIP-430.
const authorizedOperationsUnset = -1 << 31

func (b *Broker) handleMetadata(r *wire.Request, req *kmsg.MetadataRequest) kmsg.Response {
	if b.awaitElection(r, req) {
		return nil
	}
	return b.answerMetadata(r, req)
}

func (b *Broker) answerMetadata(r *wire.Request, req *kmsg.MetadataRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	if misnamed(req) {
		for _, t := range req.Topics {
			resp.Topics = append(resp.Topics, topicError(t.Topic, t.TopicID, kerr.InvalidRequest))
		}
		return resp
	}
	m := b.metadata.load()
	b.describeBrokers(resp, m, r.Conn.Listener())
	resp.AuthorizedOperations = authorizedOperationsUnset
	if req.IncludeClusterAuthorizedOperations && r.Version >= 8 {
		resp.AuthorizedOperations = b.authorizedOperations(r, clusterResource)
	}

	var missing []string
	all := req.Topics == nil || r.Version == 0 && len(req.Topics) == 0
	for _, t := range requestedTopics(req, m) {
		if all && !b.visible(r, opDescribe, topicResource(*t.Topic)) {
			continue
		}
		topic, absent := b.describeTopic(r, req, m, t)
		if absent {
			missing = append(missing, *t.Topic)
			continue
		}
		resp.Topics = append(resp.Topics, topic)
	}
	create := req.AllowAutoTopicCreation || r.Version < 4
	if len(missing) == 0 || !create || !b.autoCreates() {
		for _, name := range missing {
			resp.Topics = append(resp.Topics, b.failedTopic(r, req, name, kerr.UnknownTopicOrPartition))
		}
		return resp
	}

	// Creation writes to ZooKeeper; the reader must not wait for that.
	b.tasks.run(func() {
		for _, name := range missing {
			verdict := kerr.TopicAuthorizationFailed
			if b.allowed(r, opCreate, clusterResource) || b.allowed(r, opCreate, topicResource(name)) {
				verdict = b.autoCreateTopic(name)
			}
			resp.Topics = append(resp.Topics, b.failedTopic(r, req, name, verdict))
		}
		r.Respond(resp)
	})
	return nil
}

func (b *Broker) describeBrokers(resp *kmsg.MetadataResponse, m *metadata, listener string) {
	for _, id := range m.brokerIDs {
		broker := m.brokers[id]
		e, ok := broker.Endpoint(listener)
		if !ok {
			continue
		}
		mb := kmsg.NewMetadataResponseBroker()
		mb.NodeID, mb.Host, mb.Port = int32(id), e.Host, e.Port
		if broker.Rack != "" {
			mb.Rack = kmsg.StringPtr(broker.Rack)
		}
		resp.Brokers = append(resp.Brokers, mb)
	}
	resp.ClusterID = kmsg.StringPtr(b.clusterID)
	resp.ControllerID = int32(m.controller)
}

// misnamed reports whether a request names topics in a way that its version does not know, which fails it as a whole.
func misnamed(req *kmsg.MetadataRequest) bool {
	return slices.ContainsFunc(req.Topics, func(t kmsg.MetadataRequestTopic) bool {
		byID := !cluster.TopicID(t.TopicID).IsZero()
		return t.Topic == nil && (req.Version < 12 || !byID) || byID && req.Version < 12
	})
}

// requestedTopics is what the request names, each topic once, or every topic. Where it names any by their ids, only those count.
func requestedTopics(req *kmsg.MetadataRequest, m *metadata) []kmsg.MetadataRequestTopic {
	all := req.Topics == nil
	if req.Version == 0 {
		all = len(req.Topics) == 0
	}
	if !all {
		return distinctTopics(req.Topics)
	}
	topics := make([]kmsg.MetadataRequestTopic, 0, len(m.topics))
	for name := range m.topics {
		topics = append(topics, kmsg.MetadataRequestTopic{Topic: kmsg.StringPtr(name)})
	}
	return topics
}

func distinctTopics(topics []kmsg.MetadataRequestTopic) []kmsg.MetadataRequestTopic {
	type named struct {
		id   cluster.TopicID
		name string
	}
	byID := slices.ContainsFunc(topics, func(t kmsg.MetadataRequestTopic) bool { return !cluster.TopicID(t.TopicID).IsZero() })
	seen := make(map[named]bool, len(topics))
	return slices.DeleteFunc(topics, func(t kmsg.MetadataRequestTopic) bool {
		key := named{id: t.TopicID}
		switch {
		case byID && key.id.IsZero():
			return true
		case !byID:
			key.name = *t.Topic
		}
		again := seen[key]
		seen[key] = true
		return again
	})
}

// describeTopic answers one topic of the request. absent is true for a valid, allowed name that nobody knows.
func (b *Broker) describeTopic(r *wire.Request, req *kmsg.MetadataRequest, m *metadata, t kmsg.MetadataRequestTopic) (topic kmsg.MetadataResponseTopic, absent bool) {
	if id := cluster.TopicID(t.TopicID); !id.IsZero() {
		name, ok := m.names[id]
		switch {
		case !ok:
			return topicError(nil, id, kerr.UnknownTopicID), false
		case !b.allowed(r, opDescribe, topicResource(name)): // ids are no secret, names are
			return topicError(nil, id, kerr.TopicAuthorizationFailed), false
		}
		t.Topic = &name
	}
	name := *t.Topic
	if !b.allowed(r, opDescribe, topicResource(name)) {
		return topicError(&name, cluster.TopicID{}, kerr.TopicAuthorizationFailed), false
	}
	known := m.topics[name]
	if known == nil {
		if err := validTopicName(name); err != nil {
			return b.failedTopic(r, req, name, kerr.InvalidTopicException), false
		}
		return kmsg.MetadataResponseTopic{}, true
	}

	topic = kmsg.NewMetadataResponseTopic()
	topic.Topic, topic.TopicID, topic.IsInternal = &name, known.id, internalTopic(name)
	topic.AuthorizedOperations = b.askedOperations(r, req, name)
	for number, p := range known.partitions {
		if p != nil {
			topic.Partitions = append(topic.Partitions, describePartition(m, r.Conn.Listener(), r.Version, int32(number), p))
		}
	}
	return topic, false
}

func describePartition(m *metadata, listener string, version int16, number int32, p *partitionMetadata) kmsg.MetadataResponseTopicPartition {
	reachable := func(id cluster.BrokerID) bool {
		_, ok := m.brokers[id].Endpoint(listener)
		return ok && !slices.Contains(p.offlineReplicas, id)
	}
	mp := kmsg.NewMetadataResponseTopicPartition()
	mp.Partition, mp.LeaderEpoch = number, int32(p.leaderEpoch)
	mp.Replicas, mp.ISR = int32s(p.replicas), int32s(p.isr)
	for _, id := range p.replicas {
		if !reachable(id) {
			mp.OfflineReplicas = append(mp.OfflineReplicas, int32(id))
		}
	}
	mp.Leader = int32(p.leader)
	if _, ok := m.brokers[p.leader].Endpoint(listener); !ok {
		mp.Leader, mp.ErrorCode = int32(cluster.NoBroker), kerr.LeaderNotAvailable.Code
		if m.alive(p.leader) && version >= 6 {
			mp.ErrorCode = kerr.ListenerNotFound.Code
		}
		return mp
	}
	if version == 0 {
		unreachable := func(id int32) bool { return !reachable(cluster.BrokerID(id)) }
		before := len(mp.Replicas) + len(mp.ISR)
		mp.Replicas = slices.DeleteFunc(mp.Replicas, unreachable)
		mp.ISR = slices.DeleteFunc(mp.ISR, unreachable)
		if len(mp.Replicas)+len(mp.ISR) < before {
			mp.ErrorCode = kerr.ReplicaNotAvailable.Code
		}
	}
	return mp
}

func topicError(name *string, id cluster.TopicID, err *kerr.Error) kmsg.MetadataResponseTopic {
	topic := kmsg.NewMetadataResponseTopic()
	topic.ErrorCode, topic.TopicID = err.Code, id
	topic.AuthorizedOperations = authorizedOperationsUnset
	if name != nil {
		n := *name
		topic.Topic = &n
		topic.IsInternal = internalTopic(n)
	}
	return topic
}

// askedOperations is the mask of authorised operations on a topic, if the client asked for it.
func (b *Broker) askedOperations(r *wire.Request, req *kmsg.MetadataRequest, name string) int32 {
	if !req.IncludeTopicAuthorizedOperations || r.Version < 8 {
		return authorizedOperationsUnset
	}
	return b.authorizedOperations(r, topicResource(name))
}

// failedTopic answers a topic that the client may know of.
func (b *Broker) failedTopic(r *wire.Request, req *kmsg.MetadataRequest, name string, err *kerr.Error) kmsg.MetadataResponseTopic {
	topic := topicError(&name, cluster.TopicID{}, err)
	topic.AuthorizedOperations = b.askedOperations(r, req, name)
	return topic
}
