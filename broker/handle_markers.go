package broker

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/broker/wire"
	"ottla/internal/cluster"
	"ottla/logstore"
)

// WriteTxnMarkers v0–1: the coordinator of a transaction, or kafka-transactions, ends it in the partitions that are led here (KIP-98,
// KIP-664).
//   - ALTER or CLUSTER_ACTION on the cluster.
//   - A marker is appended with acks=all. An older coordinator epoch than the partition has seen is TRANSACTION_COORDINATOR_FENCED,
//     an older producer epoch INVALID_PRODUCER_EPOCH. A marker may be repeated.
//   - One in __consumer_offsets also ends the offsets that were committed in the transaction.

func (b *Broker) handleWriteTxnMarkers(r *wire.Request, req *kmsg.WriteTxnMarkersRequest) kmsg.Response {
	if !b.visible(r, opAlter, clusterResource) && !b.allowed(r, opClusterAction, clusterResource) {
		return markersResponse(req, kerr.ClusterAuthorizationFailed.Code)
	}
	b.writeMarkers(req, func(resp kmsg.Response) { r.Respond(resp) })
	return nil
}

// markersResponse has a place for every result, with the same code in each.
func markersResponse(req *kmsg.WriteTxnMarkersRequest, code int16) *kmsg.WriteTxnMarkersResponse {
	resp := req.ResponseKind().(*kmsg.WriteTxnMarkersResponse)
	for _, marker := range req.Markers {
		rm := kmsg.NewWriteTxnMarkersResponseMarker()
		rm.ProducerID = marker.ProducerID
		for _, t := range marker.Topics {
			rt := kmsg.NewWriteTxnMarkersResponseMarkerTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewWriteTxnMarkersResponseMarkerTopicPartition()
				rp.Partition, rp.ErrorCode = p, code
				rt.Partitions = append(rt.Partitions, rp)
			}
			rm.Topics = append(rm.Topics, rt)
		}
		resp.Markers = append(resp.Markers, rm)
	}
	return resp
}

// writeMarkers appends markers; done is called when all have been replicated or refused.
func (b *Broker) writeMarkers(req *kmsg.WriteTxnMarkersRequest, done func(kmsg.Response)) {
	resp := markersResponse(req, 0)
	var pending atomic.Int32
	pending.Store(1)
	finish := func() {
		if pending.Add(-1) == 0 {
			done(resp)
		}
	}
	now := time.Now()
	for i := range req.Markers {
		marker := &req.Markers[i]
		m := logstore.EndTxnMarker{
			ProducerID: marker.ProducerID, ProducerEpoch: marker.ProducerEpoch, Commit: marker.Committed,
			CoordinatorEpoch: marker.CoordinatorEpoch, Timestamp: now.UnixMilli(),
		}
		for j := range resp.Markers[i].Topics {
			t := &resp.Markers[i].Topics[j]
			for k := range t.Partitions {
				out := &t.Partitions[k]
				pending.Add(1)
				b.writeMarker(cluster.TopicPartition{Topic: t.Topic, Partition: out.Partition}, m, now, func(err error) {
					out.ErrorCode = b.markerCode(err)
					finish()
				})
			}
		}
	}
	finish()
}

func (b *Broker) writeMarker(tp cluster.TopicPartition, m logstore.EndTxnMarker, now time.Time, done func(error)) {
	p, err := b.partitions.Get(tp.Topic, tp.Partition)
	if err != nil {
		done(err)
		return
	}
	p.Append(partition.AppendRequest{
		Records: logstore.NewEndTxnBatch(m), Acks: -1, Timeout: b.requestTimeout(), ProduceVersion: -1,
		Origin: logstore.OriginCoordinator, Now: now,
	}, func(res partition.AppendResult) {
		if res.Err == nil && tp.Topic == offsetsTopic {
			b.groups.EndTransaction(tp.Partition, m, res.BaseOffset)
		}
		done(res.Err)
	})
}

// markerCode is what a coordinator is told: what it does not know it would not repeat.
func (b *Broker) markerCode(err error) int16 {
	if errors.Is(err, kerr.FencedLeaderEpoch) || errors.Is(err, kerr.UnknownLeaderEpoch) {
		return kerr.NotLeaderForPartition.Code
	}
	return b.errorCode(err)
}
