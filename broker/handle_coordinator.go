package broker

import (
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/coordlog"
	"ottla/internal/cluster"
)

// FindCoordinator v0–6: which broker coordinates a group, or a transactional id.
//   - Version 0 knows groups only; 1 adds the key type (KIP-98), 4 several keys (KIP-699), 6 share groups (KIP-932), which
//     this cluster has none of.
//   - The first request of all creates __consumer_offsets, or __transaction_state, and is told COORDINATOR_NOT_AVAILABLE, which
//     clients retry.
//   - DESCRIBE on the group or the transactional id.

// The key types of FindCoordinator.
const (
	coordinatorGroup       = 0
	coordinatorTransaction = 1
	coordinatorShare       = 2
)

func (b *Broker) handleFindCoordinator(r *wire.Request, req *kmsg.FindCoordinatorRequest) kmsg.Response {
	keys := req.CoordinatorKeys
	if r.Version < 4 {
		keys = []string{req.CoordinatorKey}
	}
	// Creating the topic waits for ZooKeeper; the answer does not.
	if topic := coordinatorTopics[req.CoordinatorType]; topic != "" && len(keys) > 0 && b.partitionsOf(topic) == 0 {
		b.tasks.run(func() { b.createCoordinatorTopic(topic) })
	}
	resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
	for _, key := range keys {
		found := b.findCoordinator(r, req.CoordinatorType, key)
		if r.Version < 4 {
			resp.ErrorCode, resp.NodeID, resp.Host, resp.Port = found.ErrorCode, found.NodeID, found.Host, found.Port
			resp.ErrorMessage = found.ErrorMessage
			break
		}
		resp.Coordinators = append(resp.Coordinators, found)
	}
	return resp
}

// coordinatorTopics are where coordinators keep their state, by key type.
var coordinatorTopics = map[int8]string{coordinatorGroup: offsetsTopic, coordinatorTransaction: transactionsTopic}

func (b *Broker) createCoordinatorTopic(topic string) {
	if b.partitionsOf(topic) == 0 {
		_ = b.autoCreateTopic(topic) // logged there; the client asks again
	}
}

func (b *Broker) findCoordinator(r *wire.Request, kind int8, key string) kmsg.FindCoordinatorResponseCoordinator {
	found := kmsg.NewFindCoordinatorResponseCoordinator()
	found.Key, found.NodeID, found.Port = key, int32(cluster.NoBroker), -1
	leader, e, err := b.coordinator(r, kind, key)
	found.ErrorCode, found.ErrorMessage = b.errorCode(err), kmsg.StringPtr(coordinatorMessage(r.Version, kind, err))
	if err != nil {
		return found
	}
	found.NodeID, found.Host, found.Port = int32(leader), e.Host, e.Port
	return found
}

// coordinatorMessage is the sentence that Kafka sends beside an error, which from version 4 on is none, except for key types that
// nobody knows; below it says NONE where all is well.
func coordinatorMessage(version int16, kind int8, err error) string {
	switch {
	case version >= 4 && kind >= coordinatorGroup && kind <= coordinatorShare:
		return ""
	case err == nil:
		return "NONE"
	case errors.Is(err, kerr.InvalidRequest):
		return "This most likely occurs because of a request being malformed by the client library or the message was sent to an " +
			"incompatible broker. See the broker logs for more details."
	}
	return errorMessage(err)
}

func (b *Broker) coordinator(r *wire.Request, kind int8, key string) (cluster.BrokerID, cluster.Endpoint, error) {
	none := cluster.Endpoint{}
	switch {
	case kind == coordinatorShare && r.Version >= 6:
		return cluster.NoBroker, none, kerr.CoordinatorNotAvailable
	case coordinatorTopics[kind] == "":
		return cluster.NoBroker, none, kerr.InvalidRequest
	case kind == coordinatorGroup && !b.allowed(r, opDescribe, groupResource(key)):
		return cluster.NoBroker, none, kerr.GroupAuthorizationFailed
	case kind == coordinatorTransaction && !b.allowed(r, opDescribe, transactionalResource(key)):
		return cluster.NoBroker, none, kerr.TransactionalIDAuthorizationFailed
	}
	m := b.metadata.load()
	t := m.topics[coordinatorTopics[kind]]
	if t == nil || slices.Contains(t.partitions, nil) {
		return cluster.NoBroker, none, kerr.CoordinatorNotAvailable
	}
	leader := t.partitions[coordlog.PartitionOf(key, int32(len(t.partitions)))].leader
	e, ok := m.brokers[leader].Endpoint(r.Conn.Listener())
	if !ok {
		return cluster.NoBroker, none, kerr.CoordinatorNotAvailable
	}
	return leader, e, nil
}
