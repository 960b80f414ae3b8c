package broker

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/groupcoord"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// Committed offsets: OffsetCommit v0–9, OffsetFetch v0–9, OffsetDelete v0.
//   - Version 0 of commit and fetch goes to ZooKeeper, whatever the storage, as in Kafka 3.9: it knows no members, and any
//     broker serves it. There an absent offset is UNKNOWN_TOPIC_OR_PARTITION; later versions answer -1 without error.
//   - OffsetCommit 1 may carry a commit timestamp, 2–4 a retention of their own, 6 leader epochs (KIP-320), 7 static members.
//     A partition that does not exist is UNKNOWN_TOPIC_OR_PARTITION.
//   - OffsetFetch 2 may ask for all partitions, 7 for stable offsets (KIP-447), 8 for several groups (KIP-709).
//   - READ on group and topic to commit, DESCRIBE to fetch.

func (b *Broker) handleOffsetCommit(r *wire.Request, req *kmsg.OffsetCommitRequest) kmsg.Response {
	commit := &groupcoord.Commit{Group: req.Group, MemberID: req.MemberID, Instance: req.InstanceID, Generation: req.Generation}
	left := b.commitEntries(r, req, commit)
	switch {
	case left == 0:
		return b.commitResponse(req, commit)
	case r.Version == 0:
		session := b.zk.Session()
		b.tasks.run(func() {
			b.groups.CommitToZooKeeper(session, commit)
			r.Respond(b.commitResponse(req, commit))
		})
	default:
		b.groups.Commit(commit, func() { r.Respond(b.commitResponse(req, commit)) })
	}
	return nil
}

// commitEntries takes the request's partitions over, in its order, and judges what needs no coordinator. It returns how many
// are left to be stored.
func (b *Broker) commitEntries(r *wire.Request, req *kmsg.OffsetCommitRequest, commit *groupcoord.Commit) (left int) {
	now := time.Now().UnixMilli()
	groupAllowed := b.allowed(r, opRead, groupResource(req.Group))
	m := b.metadata.load()
	for i := range req.Topics {
		t := &req.Topics[i]
		topicAllowed := b.allowed(r, opRead, topicResource(t.Topic))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			e := groupcoord.CommitEntry{TopicPartition: cluster.TopicPartition{Topic: t.Topic, Partition: p.Partition}}
			e.Offset, e.LeaderEpoch, e.CommitMs, e.ExpireMs = p.Offset, cluster.LeaderEpoch(p.LeaderEpoch), now, -1
			if p.Metadata != nil {
				e.Metadata = *p.Metadata
			}
			if r.Version == 1 && p.Timestamp != -1 {
				e.CommitMs = p.Timestamp
			}
			if r.Version >= 2 && r.Version <= 4 && req.RetentionTimeMillis != -1 {
				e.ExpireMs = now + req.RetentionTimeMillis
			}
			switch {
			case !groupAllowed:
				e.Err = kerr.GroupAuthorizationFailed
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

func (b *Broker) commitResponse(req *kmsg.OffsetCommitRequest, commit *groupcoord.Commit) kmsg.Response {
	resp := kmsg.NewPtrOffsetCommitResponse()
	entries := commit.Entries
	for i := range req.Topics {
		rt := kmsg.NewOffsetCommitResponseTopic()
		rt.Topic = req.Topics[i].Topic
		for range req.Topics[i].Partitions {
			rp := kmsg.NewOffsetCommitResponseTopicPartition()
			rp.Partition, rp.ErrorCode = entries[0].Partition, b.errorCode(entries[0].Err)
			rt.Partitions = append(rt.Partitions, rp)
			entries = entries[1:]
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

// groupOffsets is one group's share of an OffsetFetch answer.
type groupOffsets struct {
	group   string
	fetched []groupcoord.Fetched
	err     error
}

func (b *Broker) handleOffsetFetch(r *wire.Request, req *kmsg.OffsetFetchRequest) kmsg.Response {
	asked := req.Groups
	if r.Version < 8 {
		asked = []kmsg.OffsetFetchRequestGroup{oneGroup(req)}
	}
	results := make([]groupOffsets, len(asked))
	var pending atomic.Int32
	pending.Store(int32(len(asked)) + 1) // one more, so that the answer waits for the end of this loop
	finish := func() {
		if pending.Add(-1) == 0 {
			r.Respond(b.offsetsResponse(r, results))
		}
	}
	for i := range asked {
		results[i].group = asked[i].Group
		b.fetchGroup(r, &asked[i], req.RequireStable, &results[i], finish)
	}
	finish()
	return nil
}

// oneGroup brings the layout before version 8 into the later one.
func oneGroup(req *kmsg.OffsetFetchRequest) kmsg.OffsetFetchRequestGroup {
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = req.Group
	if req.Topics != nil {
		g.Topics = make([]kmsg.OffsetFetchRequestGroupTopic, 0, len(req.Topics))
	}
	for _, t := range req.Topics {
		g.Topics = append(g.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: t.Topic, Partitions: t.Partitions})
	}
	return g
}

// fetchGroup reads one group's offsets into out.
func (b *Broker) fetchGroup(r *wire.Request, g *kmsg.OffsetFetchRequestGroup, stable bool, out *groupOffsets, done func()) {
	fetch := &groupcoord.Fetch{Group: g.Group, All: g.Topics == nil, RequireStable: stable}
	var refused []groupcoord.Fetched
	groupAllowed := b.allowed(r, opDescribe, groupResource(g.Group))
	m := b.metadata.load()
	for _, t := range g.Topics {
		allowed := b.allowed(r, opDescribe, topicResource(t.Topic))
		for _, p := range t.Partitions {
			tp := cluster.TopicPartition{Topic: t.Topic, Partition: p}
			var err error
			switch {
			case !groupAllowed:
				err = kerr.GroupAuthorizationFailed
			case !allowed:
				err = kerr.TopicAuthorizationFailed
			case r.Version == 0 && m.partition(t.Topic, p) == nil:
				err = kerr.UnknownTopicOrPartition
			default:
				fetch.Partitions = append(fetch.Partitions, tp)
				continue
			}
			refused = append(refused, groupcoord.Fetched{TopicPartition: tp, Offset: -1, LeaderEpoch: -1, Err: err})
		}
	}
	take := func(fetched []groupcoord.Fetched, err error) {
		if fetch.All {
			fetched = slices.DeleteFunc(fetched, func(f groupcoord.Fetched) bool {
				return !b.visible(r, opDescribe, topicResource(f.Topic))
			})
		}
		if err != nil {
			fetched = failedOffsets(fetch.Partitions, err)
		}
		out.fetched, out.err = append(fetched, refused...), err
		done()
	}
	switch {
	case !groupAllowed:
		out.fetched, out.err = refused, kerr.GroupAuthorizationFailed
		done()
	case r.Version == 0:
		session := b.zk.Session()
		b.tasks.run(func() { take(b.fetchOld(session, fetch)) })
	default:
		b.groups.Fetch(fetch, take)
	}
}

// fetchOld is version 0: an offset that is not there is an error.
func (b *Broker) fetchOld(session zkcoord.Session, fetch *groupcoord.Fetch) ([]groupcoord.Fetched, error) {
	fetched, err := groupcoord.FetchFromZooKeeper(session, fetch)
	for i := range fetched {
		if fetched[i].Offset < 0 {
			fetched[i].Err = kerr.UnknownTopicOrPartition
		}
	}
	return fetched, err
}

func failedOffsets(tps []cluster.TopicPartition, err error) []groupcoord.Fetched {
	out := make([]groupcoord.Fetched, len(tps))
	for i, tp := range tps {
		out[i] = groupcoord.Fetched{TopicPartition: tp, Offset: -1, LeaderEpoch: -1, Err: err}
	}
	return out
}

// offsetsResponse puts a group's error where the version has room for it: on the partitions (0, 1), at the top (2–7) or with
// the group (8 and later).
func (b *Broker) offsetsResponse(r *wire.Request, results []groupOffsets) kmsg.Response {
	resp := kmsg.NewPtrOffsetFetchResponse()
	if r.Version < 8 {
		res := &results[0]
		if r.Version >= 2 {
			resp.ErrorCode = b.errorCode(res.err)
		}
		if res.err != nil && r.Version >= 2 {
			return resp
		}
		for _, t := range b.offsetTopics(res) {
			rt := kmsg.NewOffsetFetchResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rt.Partitions = append(rt.Partitions, kmsg.OffsetFetchResponseTopicPartition{
					Partition: p.Partition, Offset: p.Offset, LeaderEpoch: p.LeaderEpoch, Metadata: p.Metadata, ErrorCode: p.ErrorCode,
				})
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp
	}
	for i := range results {
		rg := kmsg.NewOffsetFetchResponseGroup()
		rg.Group, rg.ErrorCode = results[i].group, b.errorCode(results[i].err)
		if results[i].err == nil {
			rg.Topics = b.offsetTopics(&results[i])
		}
		resp.Groups = append(resp.Groups, rg)
	}
	return resp
}

// offsetTopics gathers partitions by topic, in the order in which topics first appear.
func (b *Broker) offsetTopics(res *groupOffsets) []kmsg.OffsetFetchResponseGroupTopic {
	var topics []kmsg.OffsetFetchResponseGroupTopic
	at := map[string]int{}
	for i := range res.fetched {
		f := &res.fetched[i]
		n, ok := at[f.Topic]
		if !ok {
			n = len(topics)
			at[f.Topic] = n
			rt := kmsg.NewOffsetFetchResponseGroupTopic()
			rt.Topic = f.Topic
			topics = append(topics, rt)
		}
		rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
		rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata = f.Partition, f.Offset, int32(f.LeaderEpoch), &f.Metadata
		rp.ErrorCode = b.errorCode(f.Err)
		topics[n].Partitions = append(topics[n].Partitions, rp)
	}
	return topics
}

func (b *Broker) handleOffsetDelete(r *wire.Request, req *kmsg.OffsetDeleteRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.OffsetDeleteResponse)
	if !b.allowed(r, opDelete, groupResource(req.Group)) {
		resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
		return resp
	}
	m := b.metadata.load()
	type place struct{ topic, partition int }
	var tps []cluster.TopicPartition
	var places []place
	for i, t := range req.Topics {
		rt := kmsg.NewOffsetDeleteResponseTopic()
		rt.Topic = t.Topic
		allowed := b.allowed(r, opRead, topicResource(t.Topic))
		for j, p := range t.Partitions {
			rp := kmsg.NewOffsetDeleteResponseTopicPartition()
			rp.Partition = p.Partition
			switch {
			case !allowed:
				rp.ErrorCode = kerr.TopicAuthorizationFailed.Code
			case m.partition(t.Topic, p.Partition) == nil:
				rp.ErrorCode = kerr.UnknownTopicOrPartition.Code
			default:
				tps = append(tps, cluster.TopicPartition{Topic: t.Topic, Partition: p.Partition})
				places = append(places, place{i, j})
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	b.groups.DeleteOffsets(req.Group, tps, func(each []error, err error) {
		if err != nil {
			resp.ErrorCode, resp.Topics = b.errorCode(err), nil
		}
		for i, e := range each {
			resp.Topics[places[i].topic].Partitions[places[i].partition].ErrorCode = b.errorCode(e)
		}
		r.Respond(resp)
	})
	return nil
}
