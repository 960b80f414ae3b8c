package broker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/logstore"
	"ottla/zkcoord/zktest"
)

// small are the settings for transactions of clusters of one broker, or two.
var small = map[string]string{
	"transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1", "transaction.state.log.num.partitions": "2",
	"transaction.abort.timed.out.transaction.cleanup.interval.ms": "200", "request.timeout.ms": "5000",
}

// producerConn is a transactional producer, request by request. Its coordinator is asked over one connection, leaders over others.
type producerConn struct {
	t           testing.TB
	id          string
	coordinator *client
	producer    int64
	epoch       int16
	sequence    int32
}

// producer finds the coordinator and initialises.
func (h *house) producer(id string, timeoutMs int32, houses ...*house) *producerConn {
	h.t.Helper()
	p := &producerConn{t: h.t, id: id}
	h.eventually("a coordinator", func() bool {
		r := kmsg.NewPtrFindCoordinatorRequest()
		r.CoordinatorType, r.CoordinatorKeys = coordinatorTransaction, []string{id}
		found := ask[*kmsg.FindCoordinatorResponse](h.client(), 4, r).Coordinators[0]
		for _, o := range append(houses, h) {
			if found.ErrorCode == 0 && int32(o.id) == found.NodeID {
				p.coordinator = o.client()
				return true
			}
		}
		return false
	})
	h.eventually("initialised", func() bool {
		r := kmsg.NewPtrInitProducerIDRequest()
		r.TransactionalID, r.TransactionTimeoutMillis = &id, timeoutMs
		resp := ask[*kmsg.InitProducerIDResponse](p.coordinator, 4, r)
		p.producer, p.epoch = resp.ProducerID, resp.ProducerEpoch
		return resp.ErrorCode == 0
	})
	return p
}

func (p *producerConn) add(topic string, partitions ...int32) error {
	r := kmsg.NewPtrAddPartitionsToTxnRequest()
	r.TransactionalID, r.ProducerID, r.ProducerEpoch = p.id, p.producer, p.epoch
	t := kmsg.NewAddPartitionsToTxnRequestTopic()
	t.Topic, t.Partitions = topic, partitions
	r.Topics = append(r.Topics, t)
	return kerr.ErrorForCode(ask[*kmsg.AddPartitionsToTxnResponse](p.coordinator, 3, r).Topics[0].Partitions[0].ErrorCode)
}

func (p *producerConn) end(commit bool) error {
	r := kmsg.NewPtrEndTxnRequest()
	r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Commit = p.id, p.producer, p.epoch, commit
	return kerr.ErrorForCode(ask[*kmsg.EndTxnResponse](p.coordinator, 3, r).ErrorCode)
}

func (p *producerConn) batch(value string) []byte {
	o := logstore.PlainBatch()
	o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = p.producer, p.epoch, p.sequence, true
	bd := logstore.NewBuilder(o)
	require.NoError(p.t, bd.AppendNext(time.Now().UnixMilli(), []byte("k"), []byte(value)))
	b, err := bd.Finish()
	require.NoError(p.t, err)
	p.sequence++
	return b
}

func (p *producerConn) produce(c *client, version int16, topic string, partition int32, value string) kmsg.ProduceResponseTopicPartition {
	r := produceOf(topic, partition, -1, p.batch(value))
	r.TransactionID = &p.id
	return ask[*kmsg.ProduceResponse](c, version, r).Topics[0].Partitions[0]
}

// committed are the values that a read_committed consumer sees, with the last stable offset.
func (c *client) committed(topic string, partition int32) (values []string, stable, high int64) {
	r := fetchRequest(0, -1, want{topic, partition, 0})
	r.IsolationLevel = 1
	p := ask[*kmsg.FetchResponse](c, 11, r).Topics[0].Partitions[0]
	aborted := map[int64]int64{}
	for _, a := range p.AbortedTransactions {
		aborted[a.ProducerID] = a.FirstOffset
	}
	for rest := p.RecordBatches; len(rest) > 0; {
		b, after, err := logstore.NextBatch(rest)
		require.NoError(c.t, err)
		rest = after
		if from, ok := aborted[b.ProducerID()]; b.IsControl() || ok && b.BaseOffset() >= from {
			continue
		}
		for record, err := range b.Records() {
			require.NoError(c.t, err)
			values = append(values, string(record.Value))
		}
	}
	return values, p.LastStableOffset, p.HighWatermark
}

func TestTransactionsOverTheWire(t *testing.T) {
	h := start(t, zktest.NewTree(), settings(t, small))
	h.create("t", 2)
	p := h.producer("id", 60_000)
	c := h.client()

	refused := p.produce(c, 10, "t", 0, "not added")
	require.Equal(t, kerr.InvalidTxnState.Code, refused.ErrorCode)
	require.Equal(t, "Partition was not added to the transaction", *refused.ErrorMessage)
	refused = p.produce(c, 11, "t", 0, "not added")
	require.Equal(t, kerr.TransactionAbortable.Code, refused.ErrorCode)
	require.Nil(t, refused.ErrorMessage)
	p.sequence = 0

	require.NoError(t, p.add("t", 0))
	require.Zero(t, p.produce(c, 11, "t", 0, "first").ErrorCode)
	require.Zero(t, p.produce(c, 11, "t", 0, "second").ErrorCode)
	values, stable, high := c.committed("t", 0)
	require.Empty(t, values)
	require.Zero(t, stable)
	require.EqualValues(t, 2, high)
	require.NoError(t, p.end(true))
	h.eventually("the marker is written", func() bool {
		values, stable, high = c.committed("t", 0)
		return stable == 3 && high == 3
	})
	require.Equal(t, []string{"first", "second"}, values)

	h.eventually("the next transaction", func() bool { return p.add("t", 0) == nil })
	require.Zero(t, p.produce(c, 11, "t", 0, "aborted").ErrorCode)
	require.NoError(t, p.end(false))
	h.eventually("the marker is written", func() bool {
		values, stable, high = c.committed("t", 0)
		return stable == 5 && high == 5
	})
	require.Equal(t, []string{"first", "second"}, values)
	require.NotZero(t, p.produce(c, 11, "t", 0, "late").ErrorCode)
	require.Equal(t, kerr.UnknownTopicOrPartition, p.add("nowhere", 0))
	require.Equal(t, kerr.TopicAuthorizationFailed, p.add(offsetsTopic, 0), "internal topics are for AddOffsetsToTxn")
}

func TestWithoutVerificationRecordsAreTaken(t *testing.T) {
	h := start(t, zktest.NewTree(), settings(t, merged(small, map[string]string{"transaction.partition.verification.enable": "false"})))
	h.create("t", 1)
	p := h.producer("id", 60_000)
	require.Zero(t, p.produce(h.client(), 11, "t", 0, "not added").ErrorCode)
}

func merged(a, b map[string]string) map[string]string {
	out := map[string]string{}
	for k, v := range a {
		out[k] = v
	}
	for k, v := range b {
		out[k] = v
	}
	return out
}

func TestOffsetsInATransactionOverTheWire(t *testing.T) {
	h := start(t, zktest.NewTree(), settings(t, small))
	h.create("t", 1)
	p := h.producer("id", 60_000)
	c := h.client()
	h.eventually("a group coordinator", func() bool {
		r := kmsg.NewPtrFindCoordinatorRequest()
		r.CoordinatorKeys = []string{"g"}
		return ask[*kmsg.FindCoordinatorResponse](c, 4, r).Coordinators[0].ErrorCode == 0
	})
	commit := func(offset int64) error {
		r := kmsg.NewPtrTxnOffsetCommitRequest()
		r.TransactionalID, r.Group, r.ProducerID, r.ProducerEpoch, r.Generation = p.id, "g", p.producer, p.epoch, -1
		tp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
		tp.Partition, tp.Offset = 0, offset
		rt := kmsg.NewTxnOffsetCommitRequestTopic()
		rt.Topic, rt.Partitions = "t", append(rt.Partitions, tp)
		r.Topics = append(r.Topics, rt)
		return kerr.ErrorForCode(ask[*kmsg.TxnOffsetCommitResponse](c, 4, r).Topics[0].Partitions[0].ErrorCode)
	}
	fetch := func(stable bool) (int64, error) {
		r := kmsg.NewPtrOffsetFetchRequest()
		r.RequireStable = stable
		g := kmsg.NewOffsetFetchRequestGroup()
		g.Group = "g"
		g.Topics = append(g.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: "t", Partitions: []int32{0}})
		r.Groups = append(r.Groups, g)
		got := ask[*kmsg.OffsetFetchResponse](c, 8, r).Groups[0].Topics[0].Partitions[0]
		return got.Offset, kerr.ErrorForCode(got.ErrorCode)
	}
	addOffsets := func() error {
		r := kmsg.NewPtrAddOffsetsToTxnRequest()
		r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Group = p.id, p.producer, p.epoch, "g"
		return kerr.ErrorForCode(ask[*kmsg.AddOffsetsToTxnResponse](p.coordinator, 3, r).ErrorCode)
	}
	h.eventually("groups are loaded", func() bool { return commit(7) != kerr.CoordinatorLoadInProgress })
	require.Equal(t, kerr.TransactionAbortable, commit(7), "the group's partition was not added")
	for _, end := range []struct {
		commit bool
		offset int64
		want   int64
	}{{true, 7, 7}, {false, 9, 7}, {true, 11, 11}} {
		before, err := fetch(true)
		require.NoError(t, err)
		h.eventually("offsets are added", func() bool { return addOffsets() == nil })
		require.NoError(t, commit(end.offset))
		_, err = fetch(true)
		require.Equal(t, kerr.UnstableOffsetCommit, err)
		now, err := fetch(false)
		require.NoError(t, err)
		require.Equal(t, before, now)
		require.NoError(t, p.end(end.commit))
		h.eventually("the marker is written", func() bool {
			now, err := fetch(true)
			return err == nil && now == end.want
		})
	}
}

// TestTransactionsOverTwoBrokers has one broker coordinate and the other lead: questions and markers cross.
func TestTransactionsOverTwoBrokers(t *testing.T) {
	tree := zktest.NewTree()
	one := start(t, tree, settings(t, small))
	p := one.producer("id", 60_000) // before there is another broker: the first one coordinates
	two := start(t, tree, settings(t, merged(small, map[string]string{"broker.id": "2"})))
	one.eventually("the second broker is known", func() bool { return one.metadata.load().alive(2) })
	one.createOn("t", 2, 2, 2)
	two.eventually("the second broker leads", func() bool {
		return two.leads("t", 2) && two.metadata.load().partition("t", 1) != nil && two.metadata.load().alive(1)
	})
	c := two.client()
	require.Equal(t, kerr.TransactionAbortable.Code, p.produce(c, 11, "t", 0, "not added").ErrorCode)
	p.sequence = 0
	require.NoError(t, p.add("t", 0, 1))
	for _, value := range []string{"first", "second"} { // pipelined: both wait for the answer, in order
		r := produceOf("t", 0, -1, p.batch(value))
		r.TransactionID = &p.id
		c.send(9, r)
	}
	for range 2 {
		got := c.read(9, kmsg.NewPtrProduceRequest()).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		require.Zero(t, got.ErrorCode)
	}
	require.NoError(t, p.end(true))
	two.eventually("the markers are written", func() bool {
		values, stable, _ := c.committed("t", 0)
		_, other, _ := c.committed("t", 1)
		return len(values) == 2 && stable == 3 && other == 1
	})

	// Its time runs out while the leader is away; it is aborted when the leader has come back.
	slow := one.producer("id", 500)
	require.NoError(t, slow.add("t", 0))
	require.Zero(t, slow.produce(c, 11, "t", 0, "too slow").ErrorCode)
	one.eventually("it is aborted", func() bool {
		values, stable, high := c.committed("t", 0)
		return len(values) == 2 && stable == high && high == 5
	})
	require.Equal(t, kerr.ProducerFenced, slow.end(true))
	require.Equal(t, kerr.InvalidProducerEpoch.Code, slow.produce(c, 11, "t", 0, "zombie").ErrorCode)
}

// createOn makes a topic whose partitions have one replica each, on the given brokers.
func (h *house) createOn(topic string, brokers ...int32) {
	h.t.Helper()
	r := kmsg.NewPtrCreateTopicsRequest()
	r.TimeoutMillis = 10_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, -1, -1
	for n, b := range brokers {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(n), []int32{b}
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
	}
	r.Topics = append(r.Topics, t)
	require.NoError(h.t, kerr.ErrorForCode(ask[*kmsg.CreateTopicsResponse](h.client(), 5, r).Topics[0].ErrorCode))
}

func TestTransactionsAreDescribed(t *testing.T) {
	h := start(t, zktest.NewTree(), settings(t, small))
	h.create("t", 2)
	p := h.producer("id", 60_000)
	require.NoError(t, p.add("t", 1))
	d := kmsg.NewPtrDescribeTransactionsRequest()
	d.TransactionalIDs = []string{"id", "nobody"}
	states := ask[*kmsg.DescribeTransactionsResponse](p.coordinator, 0, d).TransactionStates
	require.Equal(t, "Ongoing", states[0].State)
	require.Equal(t, []int32{1}, states[0].Topics[0].Partitions)
	require.Equal(t, kerr.TransactionalIDNotFound.Code, states[1].ErrorCode)
	l := kmsg.NewPtrListTransactionsRequest()
	l.StateFilters, l.DurationFilterMillis = []string{"Ongoing", "Odd"}, -1
	list := ask[*kmsg.ListTransactionsResponse](p.coordinator, 1, l)
	require.Equal(t, []string{"Odd"}, list.UnknownStateFilters)
	require.Len(t, list.TransactionStates, 1)
	require.Equal(t, p.producer, list.TransactionStates[0].ProducerID)

	v := kmsg.NewPtrAddPartitionsToTxnRequest()
	txn := kmsg.NewAddPartitionsToTxnRequestTransaction()
	txn.TransactionalID, txn.ProducerID, txn.ProducerEpoch, txn.VerifyOnly = p.id, p.producer, p.epoch, true
	txn.Topics = append(txn.Topics, kmsg.AddPartitionsToTxnRequestTransactionTopic{Topic: "t", Partitions: []int32{0, 1}})
	v.Transactions = append(v.Transactions, txn)
	verified := ask[*kmsg.AddPartitionsToTxnResponse](p.coordinator, 5, v).Transactions[0].Topics[0].Partitions
	require.Equal(t, kerr.TransactionAbortable.Code, verified[0].ErrorCode)
	require.Zero(t, verified[1].ErrorCode)
}

func TestTransactionsNeedPermission(t *testing.T) {
	h := start(t, zktest.NewTree(), settings(t, merged(small, map[string]string{
		"authorizer.class.name": "kafka.security.authorizer.AclAuthorizer", "allow.everyone.if.no.acl.found": "true", "super.users": "User:root",
	})))
	h.create("t", 1)
	h.create("secret", 1)
	p := h.producer("id", 60_000)
	hidden := h.producer("hidden", 60_000)
	deny := kmsg.NewPtrCreateACLsRequest()
	for _, d := range []struct {
		kind kmsg.ACLResourceType
		name string
		op   kmsg.ACLOperation
	}{
		{kmsg.ACLResourceTypeTransactionalId, "forbidden", kmsg.ACLOperationWrite}, {kmsg.ACLResourceTypeTransactionalId, "hidden", kmsg.ACLOperationDescribe},
		{kmsg.ACLResourceTypeTopic, "secret", kmsg.ACLOperationWrite}, {kmsg.ACLResourceTypeGroup, "g", kmsg.ACLOperationRead},
		{kmsg.ACLResourceTypeCluster, "kafka-cluster", kmsg.ACLOperationClusterAction}, {kmsg.ACLResourceTypeCluster, "kafka-cluster", kmsg.ACLOperationAlter},
	} {
		c := kmsg.NewCreateACLsRequestCreation()
		c.ResourceType, c.ResourceName, c.Operation, c.PermissionType = d.kind, d.name, d.op, kmsg.ACLPermissionTypeDeny
		c.ResourcePatternType, c.Principal, c.Host = kmsg.ACLResourcePatternTypeLiteral, "User:ANONYMOUS", "*"
		deny.Creations = append(deny.Creations, c)
	}
	for _, result := range ask[*kmsg.CreateACLsResponse](h.client(), 3, deny).Results {
		require.Zero(t, result.ErrorCode)
	}
	forbidden := *p
	forbidden.id = "forbidden"
	c := h.client()
	h.eventually("the ACLs count", func() bool { return forbidden.end(true) == kerr.TransactionalIDAuthorizationFailed })
	init := kmsg.NewPtrInitProducerIDRequest()
	init.TransactionalID, init.TransactionTimeoutMillis = &forbidden.id, 1000
	require.Equal(t, kerr.TransactionalIDAuthorizationFailed.Code, ask[*kmsg.InitProducerIDResponse](c, 4, init).ErrorCode)
	require.Equal(t, kerr.TransactionalIDAuthorizationFailed, forbidden.add("t", 0))
	require.Equal(t, kerr.TransactionalIDAuthorizationFailed.Code, forbidden.produce(c, 9, "t", 0, "v").ErrorCode)
	h.eventually("a topic's ACLs count", func() bool { return p.add("secret", 0) == kerr.TopicAuthorizationFailed })
	offsets := kmsg.NewPtrAddOffsetsToTxnRequest()
	offsets.TransactionalID, offsets.ProducerID, offsets.ProducerEpoch, offsets.Group = p.id, p.producer, p.epoch, "g"
	h.eventually("a group's ACLs count", func() bool {
		return ask[*kmsg.AddOffsetsToTxnResponse](p.coordinator, 3, offsets).ErrorCode == kerr.GroupAuthorizationFailed.Code
	})
	find := kmsg.NewPtrFindCoordinatorRequest()
	find.CoordinatorType, find.CoordinatorKeys = coordinatorTransaction, []string{"hidden"}
	require.Equal(t, kerr.TransactionalIDAuthorizationFailed.Code, ask[*kmsg.FindCoordinatorResponse](c, 4, find).Coordinators[0].ErrorCode)
	d := kmsg.NewPtrDescribeTransactionsRequest()
	d.TransactionalIDs = []string{"hidden"}
	require.Equal(t, kerr.TransactionalIDAuthorizationFailed.Code, ask[*kmsg.DescribeTransactionsResponse](hidden.coordinator, 0, d).TransactionStates[0].ErrorCode)
	list := kmsg.NewPtrListTransactionsRequest()
	list.DurationFilterMillis = -1
	for _, l := range ask[*kmsg.ListTransactionsResponse](c, 1, list).TransactionStates {
		require.NotEqual(t, "hidden", l.TransactionalID)
	}
	h.eventually("the cluster's ACLs count", func() bool {
		v := kmsg.NewPtrAddPartitionsToTxnRequest()
		return ask[*kmsg.AddPartitionsToTxnResponse](c, 4, v).ErrorCode == kerr.ClusterAuthorizationFailed.Code
	})
	marker := kmsg.NewPtrWriteTxnMarkersRequest()
	m := kmsg.NewWriteTxnMarkersRequestMarker()
	m.Topics = append(m.Topics, kmsg.WriteTxnMarkersRequestMarkerTopic{Topic: "t", Partitions: []int32{0}})
	marker.Markers = append(marker.Markers, m)
	require.Equal(t, kerr.ClusterAuthorizationFailed.Code, ask[*kmsg.WriteTxnMarkersResponse](c, 1, marker).Markers[0].Topics[0].Partitions[0].ErrorCode)
}

// TestTransactionsOutliveARestart: what was open is open, and runs out of time; what was decided is decided.
func TestTransactionsOutliveARestart(t *testing.T) {
	tree, s := zktest.NewTree(), settings(t, small)
	h := start(t, tree, s)
	h.create("t", 1)
	committed, open := h.producer("committed", 60_000), h.producer("open", 3_000)
	c := h.client()
	require.NoError(t, committed.add("t", 0))
	require.Zero(t, committed.produce(c, 9, "t", 0, "committed").ErrorCode)
	require.NoError(t, open.add("t", 0))
	require.Zero(t, open.produce(c, 9, "t", 0, "open").ErrorCode)
	require.NoError(t, committed.end(true))
	h.stopped()
	h = start(t, tree, s)
	h.eventually("the partition is led", func() bool { return h.leads("t", 1) && h.metadata.load().partition("t", 0) != nil })
	c = h.client()
	values, stable, _ := c.committed("t", 0)
	require.Equal(t, []string{"committed"}, values)
	require.EqualValues(t, 1, stable, "the open one begins there")
	h.eventually("the open one is aborted", func() bool {
		_, stable, high := c.committed("t", 0)
		return stable == high
	})
	values, _, _ = c.committed("t", 0)
	require.Equal(t, []string{"committed"}, values)
	require.Equal(t, committed.producer, h.producer("committed", 60_000).producer)
}
