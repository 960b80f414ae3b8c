package broker

import (
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/broker/wire"
	"ottla/logstore"
	"ottla/txncoord"
)

// Produce v0–11: check → append per partition → wait → answer.
//   - acks 0, 1 or -1, else INVALID_REQUIRED_ACKS for every partition. With acks=0 there is no answer: an error closes the
//     connection, which is all that such a client can notice.
//   - From version 3 on one batch of magic 2 per partition (KIP-98); below, older formats would need conversion and get
//     UNSUPPORTED_FOR_MESSAGE_FORMAT. Versions 0–2 are advertised all the same: librdkafka before 2.12 takes a higher minimum
//     for a broker without compression.
//   - Version 5: log start offset. 7: zstd (KIP-110). 8: per-record errors (KIP-467). 10: leader hints (KIP-951).
//   - Records of a transaction (KIP-98) need WRITE on the transactional id. Before the first of them is appended to a partition the
//     transaction's coordinator is asked whether the partition takes part (KIP-890); by version 11 the refusal is
//     TRANSACTION_ABORTABLE, below INVALID_TXN_STATE. Requests behind one that asks wait, to keep their order.
//   - Records stay as they are in the request's frame; base offset and leader epoch are patched in place.
//   - The next produce of a connection is appended while this one waits for its replicas; answers keep their order.

// produce is one request on its way. It is answered by whoever finishes its last partition.
type produce struct {
	b       *Broker
	r       *wire.Request
	acks    int16
	resp    *wire.ProduceResponse
	pending atomic.Int32
	failed  atomic.Bool // some partition was refused
	nodes   struct {    // where the leaders are that refusals name
		sync.Mutex
		list []hint
	}

	txn        *txncoord.Producer // whose transaction the records belong to; nil: none
	unverified []unverifiedAppend // only while the handler runs
}

// unverifiedAppend is an append that waits for the transaction's coordinator.
type unverifiedAppend struct {
	i     int
	part  *partition.Partition
	rp    *kmsg.ProduceRequestTopicPartition
	guard logstore.Guard
}

func (b *Broker) handleProduce(r *wire.Request, req *kmsg.ProduceRequest) kmsg.Response {
	b.noteClient(r)
	p := &produce{b: b, r: r, acks: req.Acks, resp: wire.NewProduceResponse(r.Version)}
	n := 0
	for i := range req.Topics {
		t := &req.Topics[i]
		for j := range t.Partitions {
			p.resp.Add(wire.ProducePartition{Topic: t.Topic, Partition: t.Partitions[j].Partition, BaseOffset: -1, LogAppendTime: -1, LogStartOffset: -1})
			n++
		}
	}
	// One more than the partitions, so that the answer waits for the end of this loop.
	p.pending.Store(int32(n + 1))
	var refused error
	p.txn, refused = b.mayTransact(r, req)
	n = 0
	for i := range req.Topics {
		t := &req.Topics[i]
		topicErr := refused
		if topicErr == nil && !b.allowed(r, opWrite, topicResource(t.Topic)) {
			topicErr = kerr.TopicAuthorizationFailed
		}
		for j := range t.Partitions {
			p.append(n, req, t.Topic, &t.Partitions[j], topicErr)
			n++
		}
	}
	if len(p.unverified) > 0 {
		p.verify(req)
	}
	p.finish()
	return nil
}

// mayTransact finds whose transaction the records belong to, and judges it for the whole request.
func (b *Broker) mayTransact(r *wire.Request, req *kmsg.ProduceRequest) (*txncoord.Producer, error) {
	var txn *txncoord.Producer
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			batch, ok := transactional(req.Topics[i].Partitions[j].Records)
			if !ok {
				continue
			}
			p := txncoord.Producer{ID: batch.ProducerID(), Epoch: batch.ProducerEpoch()}
			switch {
			case txn != nil && *txn != p:
				return nil, withMessage(kerr.InvalidProducerIDMapping, "Transactional records contained more than one producer ID")
			case txn == nil && (req.TransactionID == nil || !b.allowed(r, opWrite, transactionalResource(*req.TransactionID))):
				return nil, kerr.TransactionalIDAuthorizationFailed
			}
			txn = &p
		}
	}
	return txn, nil
}

// verify appends what waits once the transaction's coordinator has said that it may. The requests behind this one wait, too: their
// records follow these.
func (p *produce) verify(req *kmsg.ProduceRequest) {
	waiting := p.unverified
	p.unverified = nil
	p.r.HoldUp()
	q := &question{id: strings.Clone(*req.TransactionID), producer: *p.txn}
	for _, w := range waiting {
		tp := w.part.TopicPartition() // not the request's strings: they end with its frame
		q.tps = append(q.tps, tp)
	}
	q.done = func(each []error) {
		for n, w := range waiting {
			if err := each[n]; err != nil {
				res := notAppended(unverified(p.r.Version, err))
				if log := w.part.Log(); log != nil && errors.Is(res.Err, kerr.InvalidProducerEpoch) {
					res.LogStartOffset = log.LogStartOffset()
				}
				p.done(w.i, res)
				continue
			}
			p.appendTo(w.i, w.part, req.Acks, req.TimeoutMillis, w.rp.Records, w.guard)
		}
	}
	p.b.verifier.ask(q)
}

// mayAppend judges an append to a partition that exists somewhere.
func (b *Broker) mayAppend(r *wire.Request, req *kmsg.ProduceRequest, topic string) error {
	switch {
	case r.Version < 3:
		return kerr.UnsupportedForMessageFormat
	case req.Acks < -1 || req.Acks > 1:
		return kerr.InvalidRequiredAcks
	case internalTopic(topic) && r.ClientID != adminClientID:
		return kerr.InvalidTopicException
	}
	return nil
}

// adminClientID may write to internal topics, as in Kafka.
const adminClientID = "__admin_client"

func (p *produce) append(i int, req *kmsg.ProduceRequest, topic string, rp *kmsg.ProduceRequestTopicPartition, err error) {
	part := (*partition.Partition)(nil)
	if err == nil {
		part, err = p.b.findForProduce(p.r, req, topic, rp)
	}
	if err != nil {
		p.done(i, notAppended(err))
		return
	}
	var guard logstore.Guard
	if batch, ok := transactional(rp.Records); ok {
		needed := false
		if guard, needed, err = p.b.verifier.guard(part, *p.txn, batch.BaseSequence()); err != nil {
			p.done(i, notAppended(err))
			return
		}
		if needed {
			p.unverified = append(p.unverified, unverifiedAppend{i, part, rp, guard})
			return
		}
	}
	p.appendTo(i, part, req.Acks, req.TimeoutMillis, rp.Records, guard)
}

func (p *produce) appendTo(i int, part *partition.Partition, acks int16, timeoutMs int32, records []byte, guard logstore.Guard) {
	traffic, bytes := part.Traffic(), len(records)
	traffic.ProduceRequests.Add(1)
	part.Append(partition.AppendRequest{
		Records:        records,
		Acks:           acks,
		Timeout:        time.Duration(timeoutMs) * time.Millisecond,
		ProduceVersion: p.r.Version,
		Origin:         logstore.OriginClient,
		Guard:          guard,
		Now:            p.r.ReceivedAt,
	}, func(res partition.AppendResult) {
		appended(traffic, bytes, &res)
		if log := part.Log(); log != nil && sequenceRefused(res.Err) {
			res.LogStartOffset = log.LogStartOffset() // tells the producer whether its records may have been deleted
		}
		p.done(i, res)
	})
}

// findForProduce returns the partition of an append that may be tried. That it exists nowhere is said first, that it is led
// elsewhere last.
func (b *Broker) findForProduce(r *wire.Request, req *kmsg.ProduceRequest, topic string, rp *kmsg.ProduceRequestTopicPartition) (*partition.Partition, error) {
	part, err := b.servedPartition(topic, rp.Partition)
	if err == kerr.UnknownTopicOrPartition {
		return nil, err
	}
	if refused := b.mayAppend(r, req, topic); refused != nil {
		return nil, refused
	}
	return part, err
}

// transactional finds the batches that belong to a transaction.
func transactional(records []byte) (logstore.Batch, bool) {
	if len(records) < logstore.BatchOverhead {
		return nil, false // judged by the log
	}
	b := logstore.Batch(records)
	return b, b.Magic() == 2 && b.IsTransactional() && b.HasProducerID()
}

// notAppended is the result of what did not come to its partition.
func notAppended(err error) partition.AppendResult {
	return partition.AppendResult{Err: err, ErrorMessage: ownMessage(err), BaseOffset: -1, LogAppendTime: -1, LogStartOffset: -1}
}

func sequenceRefused(err error) bool {
	return errors.Is(err, kerr.OutOfOrderSequenceNumber) || errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.InvalidTxnState)
}

// done takes one partition's result, from whichever goroutine brings it.
func (p *produce) done(i int, res partition.AppendResult) {
	out := p.resp.Partition(i)
	if res.Err != nil {
		p.refuse(out, &res)
	} else {
		out.BaseOffset, out.LogAppendTime, out.LogStartOffset = res.BaseOffset, res.LogAppendTime, res.LogStartOffset
	}
	p.finish()
}

func (p *produce) refuse(out *wire.ProducePartition, res *partition.AppendResult) {
	p.failed.Store(true)
	out.ErrorCode = p.b.errorCode(res.Err)
	out.ErrorMessage, out.LogStartOffset = res.ErrorMessage, res.LogStartOffset
	for _, e := range res.RecordErrors {
		out.RecordErrors = append(out.RecordErrors, wire.RecordError{BatchIndex: int32(e.Index), Message: e.Message})
	}
	if p.r.Version >= 10 && out.ErrorCode == kerr.NotLeaderForPartition.Code {
		if h, ok := p.b.leaderHint(out.Topic, out.Partition, res.CurrentLeader, res.CurrentEpoch, p.r.Conn.Listener()); ok {
			out.SetLeader(h.id, h.epoch)
			p.addNode(h)
		}
	}
}

// addNode notes where a leader that a refusal names is found; the answer takes it once all partitions have their result.
func (p *produce) addNode(h hint) {
	p.nodes.Lock()
	defer p.nodes.Unlock()
	p.nodes.list = append(p.nodes.list, h)
}

func (p *produce) finish() {
	if p.pending.Add(-1) > 0 {
		return
	}
	switch {
	case p.acks != 0:
		for _, h := range p.nodes.list { // the last partition is done: nobody adds to it any more
			p.resp.AddNode(int32(h.id), h.host, h.port, h.rack)
		}
		p.r.RespondWith(p.resp)
	case p.failed.Load():
		p.r.Close(errUnacknowledgedProduce)
	default:
		p.b.throttleSilent(p.r)
		p.r.NoResponse()
	}
}

// errUnacknowledgedProduce closes the connection of a client that waits for no answer.
var errUnacknowledgedProduce = errors.New("a produce with acks=0 was refused")
