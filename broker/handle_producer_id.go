package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/txncoord"
)

// InitProducerId v0–5: who a producer is (KIP-98).
//   - A null transactional id gets a fresh producer id with epoch 0. A client that names the id and epoch it had (KIP-360) gets a
//     fresh one too, as in Kafka.
//   - A transactional id gets the id that it has, with an epoch that fences its predecessors; by version 3 a producer that names its
//     id and epoch goes on after an error. An open transaction is aborted first: CONCURRENT_TRANSACTIONS meanwhile.
//   - Below version 4 a fenced producer is told INVALID_PRODUCER_EPOCH, from there on PRODUCER_FENCED (KIP-588).
//   - WRITE on the transactional id; without one IDEMPOTENT_WRITE on the cluster, or WRITE on any topic (KIP-679).

func (b *Broker) handleInitProducerID(r *wire.Request, req *kmsg.InitProducerIDRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case req.TransactionalID != nil && !b.allowed(r, opWrite, transactionalResource(*req.TransactionalID)):
		resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
		return resp
	case req.TransactionalID == nil && !b.allowedAny(r, opWrite, kindTopic) && !b.allowed(r, opIdempotentWrite, clusterResource):
		resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		return resp
	case (req.ProducerID == -1) != (req.ProducerEpoch == -1):
		resp.ErrorCode = kerr.InvalidRequest.Code
		return resp
	case req.TransactionalID != nil:
		b.initTransactional(r, req, resp)
		return nil
	}
	b.producerIDs.take(func(id int64, err error) {
		if err != nil {
			resp.ErrorCode = b.errorCode(err)
		} else {
			resp.ProducerID, resp.ProducerEpoch = id, 0
		}
		r.Respond(resp)
	})
	return nil
}

func (b *Broker) initTransactional(r *wire.Request, req *kmsg.InitProducerIDRequest, resp *kmsg.InitProducerIDResponse) {
	init := &txncoord.Init{ID: *req.TransactionalID, TimeoutMs: req.TransactionTimeoutMillis}
	if req.ProducerID != -1 {
		init.Expected = &txncoord.Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch}
	}
	b.transactions.Init(init, func(p txncoord.Producer, err error) {
		if r.Version < 4 && err == kerr.ProducerFenced {
			err = kerr.InvalidProducerEpoch
		}
		resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = b.errorCode(err), p.ID, p.Epoch
		r.Respond(resp)
	})
}
