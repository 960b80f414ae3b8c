package broker

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/coordlog"
	"ottla/groupcoord"
	"ottla/internal/cluster"
	"ottla/txncoord"
)

// TxnOffsetCommit v0–4: a group's offsets as part of a transaction (KIP-98). They count once the transaction is committed; until then
// OffsetFetch with require_stable answers UNSTABLE_OFFSET_COMMIT (KIP-447).
//   - Version 2 may carry leader epochs, 3 the member with its generation, which is fenced like that of an OffsetCommit. 4 may answer
//     TRANSACTION_ABORTABLE.
//   - The group's partition of __consumer_offsets must have been added to the transaction (AddOffsetsToTxn): the coordinator of the
//     transaction is asked (KIP-890).
//   - Where offsets.storage is zookeeper: UNSUPPORTED_VERSION.
//   - WRITE on the transactional id, READ on group and topics.

func (b *Broker) handleTxnOffsetCommit(r *wire.Request, req *kmsg.TxnOffsetCommitRequest) kmsg.Response {
	commit := &groupcoord.TxnCommit{
		Commit:   groupcoord.Commit{Group: req.Group, MemberID: req.MemberID, Instance: req.InstanceID, Generation: req.Generation},
		Producer: coordlog.Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch},
	}
	answer := func() { r.Respond(b.txnCommitResponse(r, req, commit)) }
	if b.txnCommitEntries(r, req, commit) == 0 {
		answer()
		return nil
	}
	if req.Group == "" {
		commit.Fail(kerr.InvalidGroupID)
		answer()
		return nil
	}
	b.verifyOffsets(r, req, commit, func(err error) {
		if err != nil {
			commit.Fail(err)
			answer()
			return
		}
		b.groups.CommitInTransaction(commit, answer)
	})
	return nil
}

// verifyOffsets asks the coordinator of the transaction whether the group's partition takes part.
func (b *Broker) verifyOffsets(r *wire.Request, req *kmsg.TxnOffsetCommitRequest, commit *groupcoord.TxnCommit, done func(error)) {
	tp := cluster.TopicPartition{Topic: offsetsTopic, Partition: coordlog.PartitionOf(req.Group, b.offsetsPartitionsPlanned())}
	p, err := b.partitions.Get(tp.Topic, tp.Partition)
	if err != nil {
		done(kerr.NotCoordinator)
		return
	}
	producer := txncoord.Producer{ID: req.ProducerID, Epoch: req.ProducerEpoch}
	guard, needed, err := b.verifier.guard(p, producer, -1)
	if err != nil {
		done(kerr.NotCoordinator)
		return
	}
	commit.Producer.Guard = guard
	if !needed {
		done(nil)
		return
	}
	b.verifier.ask(&question{id: req.TransactionalID, producer: producer, tps: []cluster.TopicPartition{tp}, done: func(each []error) {
		err := abortable(r.Version >= 4, each[0])
		if err == kerr.NetworkException {
			err = kerr.CoordinatorLoadInProgress // which older clients try again
		}
		done(err)
	}})
}

// txnCommitEntries takes the request's partitions over, in its order, and returns how many are left to be stored.
func (b *Broker) txnCommitEntries(r *wire.Request, req *kmsg.TxnOffsetCommitRequest, commit *groupcoord.TxnCommit) (left int) {
	now := time.Now().UnixMilli()
	var refused error
	switch {
	case !b.allowed(r, opWrite, transactionalResource(req.TransactionalID)):
		refused = kerr.TransactionalIDAuthorizationFailed
	case !b.allowed(r, opRead, groupResource(req.Group)):
		refused = kerr.GroupAuthorizationFailed
	}
	m := b.metadata.load()
	for i := range req.Topics {
		t := &req.Topics[i]
		topicAllowed := refused == nil && b.allowed(r, opRead, topicResource(t.Topic))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			e := groupcoord.CommitEntry{TopicPartition: cluster.TopicPartition{Topic: t.Topic, Partition: p.Partition}}
			e.Offset, e.LeaderEpoch, e.CommitMs, e.ExpireMs = p.Offset, cluster.LeaderEpoch(p.LeaderEpoch), now, -1
			if p.Metadata != nil {
				e.Metadata = *p.Metadata
			}
			switch {
			case refused != nil:
				e.Err = refused
			case !topicAllowed:
				e.Err = kerr.TopicAuthorizationFailed
			case m.partition(t.Topic, p.Partition) == nil:
				e.Err = kerr.UnknownTopicOrPartition
			default:
				left++
			}
			commit.Entries = append(commit.Entries, e)
		}
	}
	return left
}

func (b *Broker) txnCommitResponse(r *wire.Request, req *kmsg.TxnOffsetCommitRequest, commit *groupcoord.TxnCommit) kmsg.Response {
	resp := kmsg.NewPtrTxnOffsetCommitResponse()
	entries := commit.Entries
	for i := range req.Topics {
		rt := kmsg.NewTxnOffsetCommitResponseTopic()
		rt.Topic = req.Topics[i].Topic
		for range req.Topics[i].Partitions {
			rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
			rp.Partition, rp.ErrorCode = entries[0].Partition, b.errorCode(entries[0].Err)
			if r.Version < 2 && rp.ErrorCode == kerr.CoordinatorLoadInProgress.Code {
				rp.ErrorCode = kerr.CoordinatorNotAvailable.Code // older clients give up at the other
			}
			rt.Partitions = append(rt.Partitions, rp)
			entries = entries[1:]
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}
