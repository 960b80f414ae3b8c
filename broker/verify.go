package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/config"
	"ottla/coordlog"
	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/txncoord"
)

// verifier asks the coordinators of transactions whether partitions take part, before their leader, this broker, takes the first
// records of the transaction: else records of a producer that was fenced meanwhile could begin a transaction that nobody ends. All
// questions that gather while one is under way go to a coordinator together. Source: KIP-890, part 1.
type verifier struct {
	b  *Broker
	mu struct {
		sync.Mutex
		queues map[cluster.BrokerID][]*question // a coordinator with a queue, even an empty one, has a loop
	}
}

// question is one transaction's.
type question struct {
	id       string
	producer txncoord.Producer
	tps      []cluster.TopicPartition
	done     func([]error)
}

// fail gives all partitions the same answer.
func (q *question) fail(err error) {
	each := make([]error, len(q.tps))
	for i := range each {
		each[i] = err
	}
	q.done(each)
}

// questionsPerRequest bounds the transactions of one request.
const questionsPerRequest = 1000

func newVerifier(b *Broker) *verifier {
	v := &verifier{b: b}
	v.mu.queues = map[cluster.BrokerID][]*question{}
	return v
}

// enabled reports whether transactions are verified at all.
func (v *verifier) enabled() bool {
	return config.TransactionPartitionVerificationEnable.Of(v.b.config.Load())
}

// guard says how records of a transaction may be appended; needed: after a question that was answered well.
func (v *verifier) guard(p *partition.Partition, producer txncoord.Producer, sequence int32) (g logstore.Guard, needed bool, err error) {
	if !v.enabled() {
		return g, false, nil
	}
	log := p.Log()
	if _, leads := p.IsLeader(); !leads || log == nil {
		return g, false, kerr.NotLeaderForPartition
	}
	g, needed = log.Verify(producer.ID, producer.Epoch, sequence)
	return g, needed, nil
}

// ask calls q.done with one answer for each partition: nil where records may be appended.
func (v *verifier) ask(q *question) {
	coordinator := v.b.transactionCoordinator(q.id)
	switch coordinator {
	case cluster.NoBroker:
		q.fail(kerr.CoordinatorNotAvailable)
	case v.b.id:
		each, err := v.b.transactions.VerifyPartitions(q.id, q.producer, q.tps)
		if err != nil {
			q.fail(err)
			return
		}
		q.done(each)
	default:
		v.queue(coordinator, q)
	}
}

func (v *verifier) queue(to cluster.BrokerID, q *question) {
	v.mu.Lock()
	defer v.mu.Unlock()
	waiting, running := v.mu.queues[to]
	v.mu.queues[to] = append(waiting, q)
	if !running {
		v.b.tasks.run(func() { v.askLoop(to) })
	}
}

// askLoop asks what is queued for a coordinator; it ends with the queue.
func (v *verifier) askLoop(to cluster.BrokerID) {
	for {
		v.mu.Lock()
		q := v.mu.queues[to]
		if len(q) == 0 {
			delete(v.mu.queues, to)
			v.mu.Unlock()
			return
		}
		n := min(len(q), questionsPerRequest)
		v.mu.queues[to] = append([]*question{}, q[n:]...)
		v.mu.Unlock()
		v.send(to, q[:n])
	}
}

// send asks the questions of one request. A transactional id stands in it once.
func (v *verifier) send(to cluster.BrokerID, qs []*question) {
	asked := map[string]*question{}
	var again []*question
	req := kmsg.NewPtrAddPartitionsToTxnRequest()
	req.Version = 5
	for _, q := range qs {
		if asked[q.id] != nil {
			again = append(again, q)
			continue
		}
		asked[q.id] = q
		txn := kmsg.NewAddPartitionsToTxnRequestTransaction()
		txn.TransactionalID, txn.ProducerID, txn.ProducerEpoch, txn.VerifyOnly = q.id, q.producer.ID, q.producer.Epoch, true
		at := map[string]int{}
		for _, tp := range q.tps {
			i, ok := at[tp.Topic]
			if !ok {
				i = len(txn.Topics)
				at[tp.Topic] = i
				t := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
				t.Topic = tp.Topic
				txn.Topics = append(txn.Topics, t)
			}
			txn.Topics[i].Partitions = append(txn.Topics[i].Partitions, tp.Partition)
		}
		req.Transactions = append(req.Transactions, txn)
	}
	answers, err := v.roundTrip(to, req)
	for id, q := range asked {
		switch each := answers[id]; {
		case err != nil:
			q.fail(err)
		default:
			q.done(each.of(q.tps))
		}
	}
	if len(again) > 0 {
		v.send(to, again)
	}
}

// verdicts are a transaction's answers.
type verdicts map[cluster.TopicPartition]error

func (v verdicts) of(tps []cluster.TopicPartition) []error {
	each := make([]error, len(tps))
	for i, tp := range tps {
		err, answered := v[tp]
		if !answered {
			err = kerr.InvalidTxnState
		}
		each[i] = err
	}
	return each
}

func (v *verifier) roundTrip(to cluster.BrokerID, req *kmsg.AddPartitionsToTxnRequest) (map[string]verdicts, error) {
	resp, err := v.b.verifyLinks.RoundTrip(v.b.serving, to, req)
	if err != nil {
		if !errors.Is(err, context.Canceled) {
			v.b.log.Warn().Err(err).Int32("broker", int32(to)).Msg("the coordinator of transactions could not be asked")
		}
		return nil, kerr.NetworkException
	}
	answer := resp.(*kmsg.AddPartitionsToTxnResponse)
	if err := kerr.ErrorForCode(answer.ErrorCode); err != nil {
		v.b.log.Error().Err(err).Int32("broker", int32(to)).Msg("the coordinator of transactions refuses to verify them")
		return nil, kerr.InvalidTxnState
	}
	out := map[string]verdicts{}
	for _, txn := range answer.Transactions {
		of := verdicts{}
		for _, t := range txn.Topics {
			for _, p := range t.Partitions {
				of[cluster.TopicPartition{Topic: t.Topic, Partition: p.Partition}] = kerr.ErrorForCode(p.ErrorCode)
			}
		}
		out[txn.TransactionalID] = of
	}
	return out, nil
}

// transactionCoordinator is who coordinates a transactional id, as far as the metadata tells.
func (b *Broker) transactionCoordinator(id string) cluster.BrokerID {
	m := b.metadata.load()
	t := m.topics[transactionsTopic]
	if t == nil || len(t.partitions) == 0 {
		return cluster.NoBroker
	}
	p := t.partitions[coordlog.PartitionOf(id, int32(len(t.partitions)))]
	if p == nil || !m.alive(p.leader) {
		return cluster.NoBroker
	}
	return p.leader
}

// abortable is what clients know of a partition that does not take part: TRANSACTION_ABORTABLE is told to those that know it. A
// fenced producer is told what has always been told of its records.
func abortable(known bool, err error) error {
	switch {
	case err == kerr.ProducerFenced:
		return kerr.InvalidProducerEpoch
	case err == kerr.TransactionAbortable && !known:
		return kerr.InvalidTxnState
	}
	return err
}

// unverified is what a producer is told of a question that was not answered well. What it may try again becomes an error that old
// clients try again, too.
func unverified(version int16, err error) error {
	switch err = abortable(version >= 11, err); err {
	case kerr.InvalidTxnState:
		return withMessage(kerr.InvalidTxnState, "Partition was not added to the transaction")
	case kerr.ConcurrentTransactions, kerr.NetworkException, kerr.CoordinatorLoadInProgress, kerr.CoordinatorNotAvailable, kerr.NotCoordinator:
		return withMessage(kerr.NotEnoughReplicas, fmt.Sprintf("Unable to verify the partition has been added to the transaction. Underlying error: %s", kerr.TypedErrorForCode(err.(*kerr.Error).Code).Message))
	}
	return err
}
