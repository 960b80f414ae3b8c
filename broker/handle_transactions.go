package broker

import (
	"slices"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/coordlog"
	"ottla/internal/cluster"
	"ottla/txncoord"
)

// What a transactional producer asks of its coordinator: AddPartitionsToTxn v0–5, AddOffsetsToTxn v0–4, EndTxn v0–4 (KIP-98).
//   - Below version 2 a fenced producer is told INVALID_PRODUCER_EPOCH, which older clients know, and PRODUCER_FENCED from there on
//     (KIP-588).
//   - AddPartitionsToTxn is all or nothing: with one partition that cannot be added the others are OPERATION_NOT_ATTEMPTED. From
//     version 4 on it is the brokers' own, for several transactions at once, and may merely ask whether the partitions take part
//     (KIP-890). Version 5 of it and 4 of the others may answer TRANSACTION_ABORTABLE.
//   - AddOffsetsToTxn adds the partition of __consumer_offsets that the group belongs to.
//   - EndTxn answers when the end is decided; markers follow, and until they are written CONCURRENT_TRANSACTIONS is told.
//   - WRITE on the transactional id; WRITE on the topics, READ on the group; CLUSTER_ACTION for brokers.

func transactionalResource(id string) resource { return resource{kindTransactionalID, id} }

// fencedBefore2 is what clients knew before PRODUCER_FENCED.
func fencedBefore2(version int16, err error) error {
	if version < 2 && err == kerr.ProducerFenced {
		return kerr.InvalidProducerEpoch
	}
	return err
}

func (b *Broker) handleAddPartitionsToTxn(r *wire.Request, req *kmsg.AddPartitionsToTxnRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
	if r.Version < 4 {
		a := addition{b: b, id: req.TransactionalID, producer: txncoord.Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch}}
		for _, t := range req.Topics {
			a.take(t.Topic, t.Partitions)
		}
		a.run(r, func(codes []int16) {
			for _, t := range a.answer(codes) {
				rt := kmsg.NewAddPartitionsToTxnResponseTopic()
				rt.Topic = t.Topic
				for _, p := range t.Partitions {
					rt.Partitions = append(rt.Partitions, kmsg.AddPartitionsToTxnResponseTopicPartition{Partition: p.Partition, ErrorCode: p.ErrorCode})
				}
				resp.Topics = append(resp.Topics, rt)
			}
			r.Respond(resp)
		})
		return nil
	}
	if !b.allowed(r, opClusterAction, clusterResource) {
		resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		return resp
	}
	b.addForBrokers(r, req, resp)
	return nil
}

// addForBrokers serves several transactions.
func (b *Broker) addForBrokers(r *wire.Request, req *kmsg.AddPartitionsToTxnRequest, resp *kmsg.AddPartitionsToTxnResponse) {
	resp.Transactions = make([]kmsg.AddPartitionsToTxnResponseTransaction, len(req.Transactions))
	var pending atomic.Int32
	pending.Store(1)
	finish := func() {
		if pending.Add(-1) == 0 {
			r.Respond(resp)
		}
	}
	for i := range req.Transactions {
		txn := &req.Transactions[i]
		a := addition{
			b: b, id: txn.TransactionalID, producer: txncoord.Producer{ID: txn.ProducerID, Epoch: txn.ProducerEpoch},
			brokers: true, verify: txn.VerifyOnly,
		}
		for _, t := range txn.Topics {
			a.take(t.Topic, t.Partitions)
		}
		pending.Add(1)
		a.run(r, func(codes []int16) {
			out := kmsg.NewAddPartitionsToTxnResponseTransaction()
			out.TransactionalID = a.id
			out.Topics = a.answer(codes)
			resp.Transactions[i] = out
			finish()
		})
	}
	finish()
}

// addition is one transaction's share of an AddPartitionsToTxn.
type addition struct {
	b        *Broker
	id       string
	producer txncoord.Producer
	brokers  bool // asked by a broker
	verify   bool // ask only
	topics   []string
	tps      []cluster.TopicPartition
}

func (a *addition) take(topic string, partitions []int32) {
	if !slices.Contains(a.topics, topic) {
		a.topics = append(a.topics, topic)
	}
	for _, p := range partitions {
		a.tps = append(a.tps, cluster.TopicPartition{Topic: topic, Partition: p})
	}
}

// answer gathers codes by topic, in the request's order.
func (a *addition) answer(codes []int16) []kmsg.AddPartitionsToTxnResponseTransactionTopic {
	topics := make([]kmsg.AddPartitionsToTxnResponseTransactionTopic, len(a.topics))
	for n, topic := range a.topics {
		topics[n] = kmsg.NewAddPartitionsToTxnResponseTransactionTopic()
		topics[n].Topic = topic
	}
	for i, tp := range a.tps {
		p := kmsg.NewAddPartitionsToTxnResponseTransactionTopicPartition()
		p.Partition, p.ErrorCode = tp.Partition, codes[i]
		t := &topics[slices.Index(a.topics, tp.Topic)]
		t.Partitions = append(t.Partitions, p)
	}
	return topics
}

// run answers with a code for each partition.
func (a *addition) run(r *wire.Request, done func([]int16)) {
	codes := make([]int16, len(a.tps))
	all := func(err error) {
		for i := range codes {
			codes[i] = a.b.errorCode(err)
		}
		done(codes)
	}
	if !a.brokers && !a.b.allowed(r, opWrite, transactionalResource(a.id)) {
		all(kerr.TransactionalIDAuthorizationFailed)
		return
	}
	if a.refused(r, codes) {
		done(codes)
		return
	}
	if a.verify {
		each, err := a.b.transactions.VerifyPartitions(a.id, a.producer, a.tps)
		if err != nil {
			all(err)
			return
		}
		for i := range each {
			codes[i] = a.b.errorCode(each[i])
		}
		done(codes)
		return
	}
	a.b.transactions.AddPartitions(a.id, a.producer, a.tps, func(err error) {
		if !a.brokers {
			err = fencedBefore2(r.Version, err)
		}
		all(err)
	})
}

// refused judges the partitions; with one that cannot be added the others are not attempted.
func (a *addition) refused(r *wire.Request, codes []int16) bool {
	m := a.b.metadata.load()
	topics := map[string]bool{}
	bad := false
	for i, tp := range a.tps {
		allowed, asked := topics[tp.Topic]
		if !asked {
			allowed = a.brokers || !internalTopic(tp.Topic) && a.b.allowed(r, opWrite, topicResource(tp.Topic))
			topics[tp.Topic] = allowed
		}
		switch {
		case !allowed:
			codes[i] = kerr.TopicAuthorizationFailed.Code
		case m.partition(tp.Topic, tp.Partition) == nil:
			codes[i] = kerr.UnknownTopicOrPartition.Code
		}
		bad = bad || codes[i] != 0
	}
	for i := range codes {
		if bad && codes[i] == 0 {
			codes[i] = kerr.OperationNotAttempted.Code
		}
	}
	return bad
}

func (b *Broker) handleAddOffsetsToTxn(r *wire.Request, req *kmsg.AddOffsetsToTxnRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AddOffsetsToTxnResponse)
	switch {
	case !b.allowed(r, opWrite, transactionalResource(req.TransactionalID)):
		resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
		return resp
	case !b.allowed(r, opRead, groupResource(req.Group)):
		resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
		return resp
	}
	producer := txncoord.Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch}
	offsets := cluster.TopicPartition{Topic: offsetsTopic, Partition: coordlog.PartitionOf(req.Group, b.offsetsPartitionsPlanned())}
	b.transactions.AddPartitions(req.TransactionalID, producer, []cluster.TopicPartition{offsets}, func(err error) {
		resp.ErrorCode = b.errorCode(fencedBefore2(r.Version, err))
		r.Respond(resp)
	})
	return nil
}

func (b *Broker) handleEndTxn(r *wire.Request, req *kmsg.EndTxnRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.EndTxnResponse)
	if !b.allowed(r, opWrite, transactionalResource(req.TransactionalID)) {
		resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
		return resp
	}
	producer := txncoord.Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch}
	b.transactions.End(req.TransactionalID, producer, req.Commit, func(err error) {
		resp.ErrorCode = b.errorCode(fencedBefore2(r.Version, err))
		r.Respond(resp)
	})
	return nil
}

// DescribeTransactions v0 and ListTransactions v0–1 tell of the transactional ids that this broker coordinates (KIP-664; a list by
// duration: KIP-994). What the asker may not DESCRIBE is left out of lists, and TRANSACTIONAL_ID_AUTHORIZATION_FAILED by name.

func (b *Broker) handleDescribeTransactions(r *wire.Request, req *kmsg.DescribeTransactionsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
	for _, id := range req.TransactionalIDs {
		out := kmsg.NewDescribeTransactionsResponseTransactionState()
		out.TransactionalID = id
		err := error(kerr.TransactionalIDAuthorizationFailed)
		if b.allowed(r, opDescribe, transactionalResource(id)) {
			err = b.describeTransaction(r, id, &out)
		}
		out.ErrorCode = b.errorCode(err)
		resp.TransactionStates = append(resp.TransactionStates, out)
	}
	return resp
}

func (b *Broker) describeTransaction(r *wire.Request, id string, out *kmsg.DescribeTransactionsResponseTransactionState) error {
	d, err := b.transactions.Describe(id)
	if err != nil {
		return err
	}
	out.State, out.TimeoutMillis, out.StartTimestamp = d.State, d.TimeoutMs, d.StartedMs
	out.ProducerID, out.ProducerEpoch = d.ID, d.Epoch
	for _, tp := range d.Partitions {
		if !b.visible(r, opDescribe, topicResource(tp.Topic)) {
			continue
		}
		if n := len(out.Topics); n == 0 || out.Topics[n-1].Topic != tp.Topic {
			t := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
			t.Topic = tp.Topic
			out.Topics = append(out.Topics, t)
		}
		t := &out.Topics[len(out.Topics)-1]
		t.Partitions = append(t.Partitions, tp.Partition)
	}
	return nil
}

func (b *Broker) handleListTransactions(r *wire.Request, req *kmsg.ListTransactionsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ListTransactionsResponse)
	f := txncoord.Filter{ProducerIDs: req.ProducerIDFilters, States: req.StateFilters, DurationMs: -1}
	if r.Version >= 1 {
		f.DurationMs = req.DurationFilterMillis
	}
	list, unknown, err := b.transactions.List(&f)
	resp.ErrorCode, resp.UnknownStateFilters = b.errorCode(err), unknown
	for _, l := range list {
		if !b.visible(r, opDescribe, transactionalResource(l.ID)) {
			continue
		}
		out := kmsg.NewListTransactionsResponseTransactionState()
		out.TransactionalID, out.ProducerID, out.TransactionState = l.ID, l.ProducerID, l.State
		resp.TransactionStates = append(resp.TransactionStates, out)
	}
	return resp
}
