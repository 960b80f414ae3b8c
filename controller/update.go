package controller

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
)

// updateBody is one UpdateMetadata for all brokers. Its copies differ only in the broker epoch, so the rest, which at a failover
// is megabytes, is encoded once.
type updateBody struct {
	req  *kmsg.UpdateMetadataRequest
	tail []byte // what follows the broker epoch, encoded
}

// The fields before the broker epoch in version 8: controller id, isKRaftController, controller epoch.
const (
	updateEpochPos = 4 + 1 + 4
	updateTailPos  = updateEpochPos + 8
)

func newUpdateBody(m *model, self cluster.BrokerID, partitions []*partition) *updateBody {
	req := kmsg.NewPtrUpdateMetadataRequest()
	req.Version = updateMetadataVersion
	req.ControllerID, req.ControllerEpoch = int32(self), int32(m.epoch)
	for topic := range byTopic(partitions) {
		ts := kmsg.NewUpdateMetadataRequestTopicState()
		ts.Topic, ts.TopicID = topic[0].topic.name, topic[0].topic.id
		ts.PartitionStates = make([]kmsg.UpdateMetadataRequestTopicPartition, len(topic))
		for i, p := range topic {
			ts.PartitionStates[i] = updatePartition(m, p)
		}
		req.TopicStates = append(req.TopicStates, ts)
	}
	for _, id := range m.registeredIDs() {
		req.LiveBrokers = append(req.LiveBrokers, liveBroker(m.brokers[id]))
	}
	return &updateBody{req: req, tail: req.AppendTo(nil)[updateTailPos:]}
}

// to is the request for one broker.
func (b *updateBody) to(epoch cluster.BrokerEpoch) *updateRequest {
	req := *b.req
	req.BrokerEpoch = int64(epoch)
	return &updateRequest{UpdateMetadataRequest: &req, tail: b.tail}
}

// updateRequest is an UpdateMetadata request whose larger part is already encoded.
type updateRequest struct {
	*kmsg.UpdateMetadataRequest // shares its slices with those to other brokers: read only
	tail                        []byte
}

// AppendTo encodes the request: the few fields before the tail, then the tail.
func (r *updateRequest) AppendTo(dst []byte) []byte {
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.ControllerID))
	dst = append(dst, 0) // isKRaftController
	dst = binary.BigEndian.AppendUint32(dst, uint32(r.ControllerEpoch))
	dst = binary.BigEndian.AppendUint64(dst, uint64(r.BrokerEpoch))
	return append(dst, r.tail...)
}

// updatePartition is a partition's metadata. A topic that is queued for deletion is announced as deleted: leader -2.
func updatePartition(m *model, p *partition) kmsg.UpdateMetadataRequestTopicPartition {
	s := kmsg.NewUpdateMetadataRequestTopicPartition()
	s.Topic, s.Partition = p.topic.name, p.number
	s.ControllerEpoch = int32(p.state.ControllerEpoch)
	s.ISR, s.Replicas, s.OfflineReplicas = int32s(p.state.ISR), int32s(p.ids()), int32s(m.offlineIDs(p))
	if p.topic.deleting() {
		s.Leader, s.ControllerEpoch = int32(cluster.DeletedLeaderEpoch), int32(m.epoch)
		return s
	}
	s.Leader, s.LeaderEpoch, s.ZKVersion = int32(p.state.Leader), int32(p.state.LeaderEpoch), int32(p.version)
	return s
}

func liveBroker(b *broker) kmsg.UpdateMetadataRequestLiveBroker {
	l := kmsg.NewUpdateMetadataRequestLiveBroker()
	l.ID = int32(b.ID)
	if b.Rack != "" {
		rack := b.Rack
		l.Rack = &rack
	}
	for _, e := range b.Endpoints {
		le := kmsg.NewUpdateMetadataRequestLiveBrokerEndpoint()
		le.Host, le.Port, le.ListenerName = e.Host, e.Port, e.Listener
		le.SecurityProtocol = securityProtocolCode(e.Protocol)
		l.Endpoints = append(l.Endpoints, le)
	}
	return l
}

// securityProtocolCode is the number of a security protocol in UpdateMetadata.
func securityProtocolCode(name string) int16 {
	switch name {
	case "SSL":
		return 1
	case "SASL_PLAINTEXT":
		return 2
	case "SASL_SSL":
		return 3
	}
	return 0
}
