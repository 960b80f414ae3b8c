package broker

import (
	"reflect"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
)

// on makes one line of the table: the key comes from the request's type. A handler returns its response, or nil when it
// answers (or has answered) through the wire.Request.
func on[Q kmsg.Request](b *Broker, min, max int16, handle func(*Broker, *wire.Request, Q) kmsg.Response) wire.API {
	var q Q
	return wire.API{Key: q.Key(), Min: min, Max: max, Handle: func(r *wire.Request) {
		if resp := handle(b, r, r.Body.(Q)); resp != nil {
			r.Respond(resp)
		}
	}}
}

// onCluster is on for requests that need an operation on the cluster as a whole; others get CLUSTER_AUTHORIZATION_FAILED in the
// answer's own ErrorCode.
func onCluster[Q kmsg.Request](b *Broker, op operation, min, max int16, handle func(*Broker, *wire.Request, Q) kmsg.Response) wire.API {
	return on(b, min, max, func(b *Broker, r *wire.Request, req Q) kmsg.Response {
		if b.allowed(r, op, clusterResource) {
			return handle(b, r, req)
		}
		resp := req.ResponseKind()
		reflect.ValueOf(resp).Elem().FieldByName("ErrorCode").SetInt(int64(kerr.ClusterAuthorizationFailed.Code))
		return resp
	})
}

// pipelined lets the connection's next request be handled while an answer is pending.
func pipelined(a wire.API) wire.API {
	a.Pipelined, a.Borrow = true, true
	return a
}

// table lists the APIs that this broker serves, one line each. ApiVersions (0–4) derives from it and is served by wire.
func (b *Broker) table() *wire.Table {
	return wire.NewTable(
		pipelined(on(b, 0, 11, (*Broker).handleProduce)),
		borrowed(on(b, 0, 17, (*Broker).handleFetch)),
		on(b, 1, 9, (*Broker).handleListOffsets),
		on(b, 0, 12, (*Broker).handleMetadata),
		on(b, 0, 4, (*Broker).handleOffsetForLeaderEpoch),

		on(b, 0, 1, (*Broker).handleSASLHandshake),
		on(b, 0, 2, (*Broker).handleSASLAuthenticate),

		on(b, 0, 3, (*Broker).handleDescribeACLs),
		on(b, 0, 3, (*Broker).handleCreateACLs),
		on(b, 0, 3, (*Broker).handleDeleteACLs),
		on(b, 0, 0, (*Broker).handleDescribeScramCredentials),
		on(b, 0, 0, (*Broker).handleAlterScramCredentials),

		onCluster(b, opDescribeConfigs, 0, 1, (*Broker).handleDescribeClientQuotas),
		on(b, 0, 1, (*Broker).handleAlterClientQuotas),

		on(b, 0, 6, (*Broker).handleFindCoordinator),
		on(b, 0, 9, (*Broker).handleJoinGroup),
		on(b, 0, 5, (*Broker).handleSyncGroup),
		on(b, 0, 4, (*Broker).handleHeartbeat),
		on(b, 0, 5, (*Broker).handleLeaveGroup),
		on(b, 0, 9, (*Broker).handleOffsetCommit),
		on(b, 0, 9, (*Broker).handleOffsetFetch),
		on(b, 0, 0, (*Broker).handleOffsetDelete),
		on(b, 0, 5, (*Broker).handleDescribeGroups),
		on(b, 0, 5, (*Broker).handleListGroups),
		on(b, 0, 2, (*Broker).handleDeleteGroups),

		onCluster(b, opClusterAction, 0, 7, (*Broker).handleLeaderAndISR),
		onCluster(b, opClusterAction, 0, 4, (*Broker).handleStopReplica),
		onCluster(b, opClusterAction, 0, 8, (*Broker).handleUpdateMetadata),
		onCluster(b, opClusterAction, 0, 3, (*Broker).handleControlledShutdown),
		onCluster(b, opClusterAction, 0, 3, (*Broker).handleAlterPartition),
		onCluster(b, opClusterAction, 0, 0, (*Broker).handleAllocateProducerIDs),

		on(b, 0, 7, (*Broker).handleCreateTopics),
		on(b, 0, 6, (*Broker).handleDeleteTopics),
		on(b, 0, 3, (*Broker).handleCreatePartitions),
		onCluster(b, opAlter, 0, 2, (*Broker).handleElectLeaders),
		onCluster(b, opAlter, 0, 0, (*Broker).handleAlterReassignments),
		onCluster(b, opDescribe, 0, 0, (*Broker).handleListReassignments),
		on(b, 0, 4, (*Broker).handleDescribeConfigs),
		on(b, 0, 2, (*Broker).handleAlterConfigs),
		on(b, 0, 1, (*Broker).handleIncrementalAlterConfigs),
		on(b, 0, 1, (*Broker).handleDescribeCluster),
		on(b, 0, 2, (*Broker).handleAlterReplicaLogDirs),
		onCluster(b, opDescribe, 0, 4, (*Broker).handleDescribeLogDirs),
		on(b, 0, 2, (*Broker).handleDeleteRecords),
		on(b, 0, 0, (*Broker).handleDescribeProducers),

		on(b, 0, 5, (*Broker).handleInitProducerID),
		on(b, 0, 5, (*Broker).handleAddPartitionsToTxn),
		on(b, 0, 4, (*Broker).handleAddOffsetsToTxn),
		on(b, 0, 4, (*Broker).handleTxnOffsetCommit),
		on(b, 0, 4, (*Broker).handleEndTxn),
		on(b, 0, 1, (*Broker).handleWriteTxnMarkers),
		on(b, 0, 0, (*Broker).handleDescribeTransactions),
		on(b, 0, 1, (*Broker).handleListTransactions),
	)
}

// borrowed lets the strings of the decoded request point into its frame.
func borrowed(a wire.API) wire.API {
	a.Borrow = true
	return a
}
