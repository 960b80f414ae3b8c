package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
)

// InitProducerId v0–5, for idempotent producers: a null transactional id gets a fresh producer id with epoch 0 (KIP-98).
// A client that names the id and epoch it had (KIP-360) gets a fresh one too, as Kafka answers without a transactional id.
// A transactional id needs a transaction coordinator; there is none, so the client is refused at once instead of being
// told to retry.

func (b *Broker) handleInitProducerID(r *wire.Request, req *kmsg.InitProducerIDRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case req.TransactionalID != nil && *req.TransactionalID == "":
		resp.ErrorCode = kerr.InvalidRequest.Code
		return resp
	case req.TransactionalID != nil:
		resp.ErrorCode = kerr.TransactionalIDAuthorizationFailed.Code
		return resp
	case !b.allowedAny(r, opWrite, kindTopic) && !b.allowed(r, opIdempotentWrite, clusterResource):
		resp.ErrorCode = kerr.ClusterAuthorizationFailed.Code
		return resp
	case (req.ProducerID == -1) != (req.ProducerEpoch == -1):
		resp.ErrorCode = kerr.InvalidRequest.Code
		return resp
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
