package broker

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/broker/wire"
	"ottla/logstore"
)

// Produce v0–11: check → append per partition → wait → answer.
//   - acks 0, 1 or -1, else INVALID_REQUIRED_ACKS for every partition. With acks=0 there is no answer: an error closes the
//     connection, which is all that such a client can notice.
//   - From version 3 on one batch of magic 2 per partition (KIP-98); below, older formats would need conversion and get
//     UNSUPPORTED_FOR_MESSAGE_FORMAT. Versions 0–2 are advertised all the same: librdkafka before 2.12 takes a higher minimum
//     for a broker without compression.
//   - Version 5: log start offset. 7: zstd (KIP-110). 8: per-record errors (KIP-467). 10: leader hints (KIP-951).
//   - Records stay as they are in the request's frame; base offset and leader epoch are patched in place.
//   - The next produce of a connection is appended while this one waits for its replicas; answers keep their order.

// produce is one request on its way. It is answered by whoever finishes its last partition.
type produce struct {
	b       *Broker
	r       *wire.Request
	acks    int16
	resp    *wire.ProduceResponse
	pending atomic.Int32
	failed  atomic.Bool // acks=0: some partition was refused
}

func (b *Broker) handleProduce(r *wire.Request, req *kmsg.ProduceRequest) kmsg.Response {
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
	n = 0
	for i := range req.Topics {
		t := &req.Topics[i]
		topicErr := b.mayProduce(r, req, t.Topic)
		for j := range t.Partitions {
			p.append(n, req, t.Topic, &t.Partitions[j], topicErr)
			n++
		}
	}
	p.finish()
	return nil
}

// mayProduce judges what is the same for all partitions of a topic, before the partition is looked up.
func (b *Broker) mayProduce(r *wire.Request, req *kmsg.ProduceRequest, topic string) error {
	switch {
	case req.TransactionID != nil:
		return kerr.TransactionalIDAuthorizationFailed // as InitProducerId answers: there is no transaction coordinator
	case !b.allowed(r, opWrite, topicResource(topic)):
		return kerr.TopicAuthorizationFailed
	}
	return nil
}

// mayAppend judges an append to a partition that exists somewhere.
func (b *Broker) mayAppend(r *wire.Request, req *kmsg.ProduceRequest, topic string, records []byte) error {
	switch {
	case r.Version < 3:
		return kerr.UnsupportedForMessageFormat
	case transactional(records):
		return kerr.TransactionalIDAuthorizationFailed
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
		p.done(i, partition.AppendResult{Err: err, BaseOffset: -1, LogAppendTime: -1, LogStartOffset: -1})
		return
	}
	traffic, bytes := part.Traffic(), len(rp.Records)
	traffic.ProduceRequests.Add(1)
	part.Append(partition.AppendRequest{
		Records:        rp.Records,
		Acks:           req.Acks,
		Timeout:        time.Duration(req.TimeoutMillis) * time.Millisecond,
		ProduceVersion: p.r.Version,
		Origin:         logstore.OriginClient,
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
	if refused := b.mayAppend(r, req, topic, rp.Records); refused != nil {
		return nil, refused
	}
	return part, err
}

// transactional finds the batches that belong to a transaction. They are refused: nobody here would ever end their transaction,
// and read_committed consumers would wait for that for good.
func transactional(records []byte) bool {
	if len(records) < logstore.BatchOverhead {
		return false // judged by the log
	}
	b := logstore.Batch(records)
	return b.Magic() == 2 && b.IsTransactional()
}

func sequenceRefused(err error) bool {
	return errors.Is(err, kerr.OutOfOrderSequenceNumber) || errors.Is(err, kerr.InvalidProducerEpoch)
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
		if h, ok := p.b.leaderHint(out.Topic, out.Partition, p.r.Conn.Listener()); ok {
			out.SetLeader(h.id, h.epoch)
		}
	}
}

func (p *produce) finish() {
	if p.pending.Add(-1) > 0 {
		return
	}
	switch {
	case p.acks != 0:
		p.addHints()
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

// addHints tells the end points of the leaders that refusals name, once all partitions have their result.
func (p *produce) addHints() {
	if p.r.Version < 10 || !p.failed.Load() {
		return
	}
	for i := range p.resp.Len() {
		out := p.resp.Partition(i)
		if out.ErrorCode != kerr.NotLeaderForPartition.Code {
			continue
		}
		if h, ok := p.b.leaderHint(out.Topic, out.Partition, p.r.Conn.Listener()); ok {
			p.resp.AddNode(int32(h.id), h.host, h.port, h.rack)
		}
	}
}
