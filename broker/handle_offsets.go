package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/broker/wire"
	"ottla/internal/cluster"
)

// ListOffsets v1–9: the offset for a timestamp, or for a special value.
//   - -1 latest (the end that the isolation level may see), -2 earliest, -3 the record with the largest timestamp (v7, KIP-734),
//     -4 earliest local (v8), -5 latest tiered (v9): without tiers the first equals -2 and the second is "none".
//   - Version 0, a list of segment offsets for clients before 0.10.1, is not served. 4 adds leader epochs; 5 may answer OFFSET_NOT_AVAILABLE (KIP-207).
//   - A special value that is too new for the version: UNSUPPORTED_VERSION for that partition. A partition named twice:
//     INVALID_REQUEST.

// The special timestamps of ListOffsets.
const (
	timestampLatest        = -1
	timestampEarliest      = -2
	timestampMax           = -3
	timestampEarliestLocal = -4
	timestampLatestTiered  = -5
)

func (b *Broker) handleListOffsets(r *wire.Request, req *kmsg.ListOffsetsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
	twice := repeatedPartitions(req)
	for _, t := range req.Topics {
		rt := kmsg.NewListOffsetsResponseTopic()
		rt.Topic = t.Topic
		allowed := b.allowed(r, opDescribe, topicResource(t.Topic))
		for i := range t.Partitions {
			p := &t.Partitions[i]
			rp := kmsg.NewListOffsetsResponseTopicPartition()
			rp.Partition, rp.Timestamp, rp.Offset, rp.LeaderEpoch = p.Partition, -1, -1, -1
			var err error
			switch {
			case !allowed:
				err = kerr.TopicAuthorizationFailed
			case twice[cluster.TopicPartition{Topic: t.Topic, Partition: p.Partition}]:
				err = kerr.InvalidRequest
			default:
				err = b.listOffset(r, req, t.Topic, p, &rp)
			}
			rp.ErrorCode = b.errorCode(err)
			if r.Version < 5 && rp.ErrorCode == kerr.OffsetNotAvailable.Code {
				rp.ErrorCode = kerr.LeaderNotAvailable.Code
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

func (b *Broker) listOffset(r *wire.Request, req *kmsg.ListOffsetsRequest, topic string, p *kmsg.ListOffsetsRequestTopicPartition, rp *kmsg.ListOffsetsResponseTopicPartition) error {
	if !timestampSupported(p.Timestamp, r.Version) {
		return kerr.UnsupportedVersion
	}
	part, err := b.partitionFor(topic, p.Partition)
	if err != nil {
		return err
	}
	found, err := part.ListOffset(p.Timestamp, req.IsolationLevel, cluster.LeaderEpoch(p.CurrentLeaderEpoch), cluster.BrokerID(req.ReplicaID))
	if err != nil {
		return err
	}
	rp.Offset, rp.Timestamp, rp.LeaderEpoch = found.Offset, found.Timestamp, int32(found.Epoch)
	return nil
}

func timestampSupported(ts int64, version int16) bool {
	switch ts {
	case timestampMax:
		return version >= 7
	case timestampEarliestLocal:
		return version >= 8
	case timestampLatestTiered:
		return version >= 9
	}
	return ts >= timestampEarliest
}

func repeatedPartitions(req *kmsg.ListOffsetsRequest) map[cluster.TopicPartition]bool {
	seen := map[cluster.TopicPartition]bool{} // false: once, true: more than once
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			tp := cluster.TopicPartition{Topic: t.Topic, Partition: p.Partition}
			_, again := seen[tp]
			seen[tp] = again
		}
	}
	return seen
}

// OffsetForLeaderEpoch v0–4: the end offset of a leader epoch, by which followers and consumers find where logs part
// (KIP-101, KIP-279, KIP-320). Version 2 names the leader epoch that the asker believes in, 3 who asks.

func (b *Broker) handleOffsetForLeaderEpoch(r *wire.Request, req *kmsg.OffsetForLeaderEpochRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	replica := b.visible(r, opClusterAction, clusterResource)
	asker := partition.Consumer // below version 3 nobody says who asks; only the leader answers in any case
	if r.Version >= 3 && req.ReplicaID >= 0 {
		asker = cluster.BrokerID(req.ReplicaID)
	}
	for _, t := range req.Topics {
		rt := kmsg.NewOffsetForLeaderEpochResponseTopic()
		rt.Topic = t.Topic
		allowed := replica || b.allowed(r, opDescribe, topicResource(t.Topic))
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			rp.Partition, rp.LeaderEpoch, rp.EndOffset = p.Partition, -1, -1
			err := error(kerr.TopicAuthorizationFailed)
			if allowed {
				err = b.offsetForLeaderEpoch(t.Topic, p, asker, &rp)
			}
			rp.ErrorCode = b.errorCode(err)
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

func (b *Broker) offsetForLeaderEpoch(topic string, p kmsg.OffsetForLeaderEpochRequestTopicPartition, replica cluster.BrokerID, rp *kmsg.OffsetForLeaderEpochResponseTopicPartition) error {
	part, err := b.partitionFor(topic, p.Partition)
	if err != nil {
		return err
	}
	end, err := part.OffsetForLeaderEpoch(cluster.LeaderEpoch(p.CurrentLeaderEpoch), cluster.LeaderEpoch(p.LeaderEpoch), replica)
	if err != nil {
		return err
	}
	rp.LeaderEpoch, rp.EndOffset = int32(end.Epoch), end.EndOffset
	return nil
}
