package broker

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/internal/cluster"
)

// What the controller tells brokers (LeaderAndIsr v0–7, StopReplica v0–4, UpdateMetadata v0–8) and what brokers ask of it
// (ControlledShutdown v0–3, AlterPartition v0–3, AllocateProducerIds v0). All need CLUSTER_ACTION, see table.
// A request for an earlier registration of this broker is STALE_BROKER_EPOCH (KIP-380), one of an earlier controller
// STALE_CONTROLLER_EPOCH. Role changes run on the controller's own connection: their order is the order of its requests.

func (b *Broker) handleLeaderAndISR(r *wire.Request, req *kmsg.LeaderAndISRRequest) kmsg.Response {
	return b.whenRegistered(r, func() kmsg.Response {
		b.learnTopicConfigs(req)
		own := b.epoch()
		resp := b.partitions.LeaderAndISR(req, own)
		if b.epoch() != own { // the session was lost meanwhile: what was stopped then may lead again now
			b.partitions.StopLeadingEverything("zookeeper session lost during a change of roles")
		}
		return resp
	})
}

func (b *Broker) handleStopReplica(r *wire.Request, req *kmsg.StopReplicaRequest) kmsg.Response {
	return b.whenRegistered(r, func() kmsg.Response { return b.partitions.StopReplica(req, b.epoch()) })
}

func (b *Broker) handleUpdateMetadata(r *wire.Request, req *kmsg.UpdateMetadataRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.UpdateMetadataResponse)
	return b.whenRegistered(r, func() kmsg.Response {
		sent := cluster.BrokerEpoch(req.BrokerEpoch)
		if r.Version < 5 {
			sent = cluster.NoBrokerEpoch
		}
		if err := b.partitions.AcceptController(sent, b.epoch(), cluster.ControllerEpoch(req.ControllerEpoch)); err != nil {
			resp.ErrorCode = b.errorCode(err)
			return resp
		}
		b.metadataChanged(b.metadata.update(req))
		return resp
	})
}

// whenRegistered lets a controller's request wait until this broker knows its own epoch: only then can a request that was meant
// for an earlier registration be told. Refusing would not do, because the controller does not repeat what was answered.
func (b *Broker) whenRegistered(r *wire.Request, answer func() kmsg.Response) kmsg.Response {
	if b.registered.isOpen() {
		return answer()
	}
	b.tasks.run(func() {
		if b.registered.wait(b.requestTimeout()) {
			r.Respond(answer())
			return
		}
		r.Close(errNotRegistered) // the controller asks again on a new connection
	})
	return nil
}

var errNotRegistered = errors.New("this broker is not registered")

// metadataChanged tells those that depend on the cluster's picture. removed are partitions of deleted topics.
func (b *Broker) metadataChanged(removed []cluster.TopicPartition) {
	b.controllerLink.wake()
	if len(removed) > 0 {
		b.groups.TopicsDeleted(removed)
	}
	for _, tp := range removed {
		if b.metadata.load().topics[tp.Topic] == nil {
			b.topicConfigs.forget(tp.Topic)
		}
	}
}

func (b *Broker) handleControlledShutdown(r *wire.Request, req *kmsg.ControlledShutdownRequest) kmsg.Response {
	b.controller.ControlledShutdown(req, func(resp *kmsg.ControlledShutdownResponse) { r.Respond(resp) })
	return nil
}

func (b *Broker) handleAlterPartition(r *wire.Request, req *kmsg.AlterPartitionRequest) kmsg.Response {
	b.controller.AlterPartition(req, func(resp *kmsg.AlterPartitionResponse) { r.Respond(resp) })
	return nil
}

func (b *Broker) handleAllocateProducerIDs(r *wire.Request, req *kmsg.AllocateProducerIDsRequest) kmsg.Response {
	b.controller.AllocateProducerIDs(req, func(resp *kmsg.AllocateProducerIDsResponse) { r.Respond(resp) })
	return nil
}
