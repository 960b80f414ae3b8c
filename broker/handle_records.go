package broker

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/config"
)

// DeleteRecords v0–2 raises the log start offset (KIP-107): -1 stands for the high watermark. It answers when every live replica
// has followed, or the time is over. Not for internal topics, nor for topics that are only compacted.

func (b *Broker) handleDeleteRecords(r *wire.Request, req *kmsg.DeleteRecordsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	var pending atomic.Int32
	pending.Store(1)
	finish := func() {
		if pending.Add(-1) == 0 {
			r.Respond(resp)
		}
	}
	for _, t := range req.Topics {
		rt := kmsg.NewDeleteRecordsResponseTopic()
		rt.Topic = t.Topic
		rt.Partitions = make([]kmsg.DeleteRecordsResponseTopicPartition, len(t.Partitions))
		resp.Topics = append(resp.Topics, rt)
		topicErr := b.mayDeleteRecords(r, t.Topic)
		for i, p := range t.Partitions {
			out := &rt.Partitions[i]
			*out = kmsg.NewDeleteRecordsResponseTopicPartition()
			out.Partition, out.LowWatermark = p.Partition, -1
			part, err := b.partitionFor(t.Topic, p.Partition)
			if err != kerr.UnknownTopicOrPartition && topicErr != nil || topicErr == kerr.TopicAuthorizationFailed {
				err = topicErr
			}
			if err != nil {
				out.ErrorCode = b.errorCode(err)
				continue
			}
			pending.Add(1)
			part.DeleteRecords(p.Offset, time.Duration(req.TimeoutMillis)*time.Millisecond, func(low int64, err error) {
				out.ErrorCode = b.errorCode(err)
				if err == nil {
					out.LowWatermark = low
				}
				finish()
			})
		}
	}
	finish()
	return nil
}

func (b *Broker) mayDeleteRecords(r *wire.Request, topic string) error {
	switch {
	case !b.allowed(r, opDelete, topicResource(topic)):
		return kerr.TopicAuthorizationFailed
	case internalTopic(topic):
		return kerr.InvalidTopicException
	case !slices.Contains(config.TopicCleanupPolicy.Of(b.topicConfigs.orDefault(topic)), "delete"):
		return kerr.PolicyViolation
	}
	return nil
}

// DescribeProducers v0: the idempotent producers that a partition remembers (KIP-664).

func (b *Broker) handleDescribeProducers(r *wire.Request, req *kmsg.DescribeProducersRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewDescribeProducersResponseTopic()
		rt.Topic = t.Topic
		for _, number := range t.Partitions {
			rp := kmsg.NewDescribeProducersResponseTopicPartition()
			rp.Partition = number
			rp.ErrorCode, rp.ErrorMessage = b.codeAndMessage(b.describeProducers(r, t.Topic, number, &rp))
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

func (b *Broker) describeProducers(r *wire.Request, topic string, number int32, out *kmsg.DescribeProducersResponseTopicPartition) error {
	if !b.allowed(r, opRead, topicResource(topic)) {
		return kerr.TopicAuthorizationFailed
	}
	p, err := b.partitionFor(topic, number)
	if err != nil {
		return err
	}
	log := p.Log()
	if _, leads := p.IsLeader(); !leads || log == nil {
		return kerr.NotLeaderForPartition
	}
	for _, info := range log.ActiveProducers() {
		a := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
		a.ProducerID, a.ProducerEpoch, a.LastSequence = info.ProducerID, int32(info.ProducerEpoch), info.LastSequence
		a.LastTimestamp, a.CoordinatorEpoch, a.CurrentTxnStartOffset = info.LastTimestamp, info.CoordinatorEpoch, info.CurrentTxnStartOffset
		out.ActiveProducers = append(out.ActiveProducers, a)
	}
	return nil
}
