package fetcher

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/internal/cluster"
)

var errUnexpected = errors.New("answer of another kind than the request")

// Fetch versions between brokers: 17 with topic ids; 12 while some topic has none.
const (
	versionWithIDs    = 17
	versionWithNames  = 12
	firstVersionByIDs = 13
	firstReplicaState = 15
)

// session is the client's side of an incremental fetch session (KIP-227). Epoch 0 opens one with a full request; id 0 in the
// answer means that the leader keeps none, and every request is full.
type session struct {
	id    int32
	epoch int32
	byIDs bool // topic ids are used
	// members are the partitions of the session by what an answer calls them.
	members   map[memberKey]*item
	forgotten []forgotten
}

type memberKey struct {
	topic     string // with names
	topicID   cluster.TopicID
	partition int32
}

type forgotten struct {
	tp      cluster.TopicPartition
	topicID cluster.TopicID
}

func (s *session) reset() { *s = session{members: map[memberKey]*item{}} }

// restart closes the session, if there is one, with the request that opens the next.
func (s *session) restart() {
	id := s.id
	s.reset()
	s.id = id
}

func (s *session) key(tp cluster.TopicPartition, id cluster.TopicID) memberKey {
	if s.byIDs {
		return memberKey{topicID: id, partition: tp.Partition}
	}
	return memberKey{topic: tp.Topic, partition: tp.Partition}
}

// forget takes a partition out of the session.
func (s *session) forget(it *item) {
	if !it.inSession {
		return
	}
	it.inSession = false
	delete(s.members, s.key(it.tp, it.sent.TopicID))
	if s.epoch > 0 {
		s.forgotten = append(s.forgotten, forgotten{tp: it.tp, topicID: it.sent.TopicID})
	}
}

// answered moves the session on after an answer without an error.
func (s *session) answered(resp *kmsg.FetchResponse) {
	switch {
	case resp.SessionID == 0:
		s.id, s.epoch = 0, 0 // none is kept
	case s.epoch == 1<<31-1:
		s.epoch = 1
	default:
		s.id = resp.SessionID
		s.epoch++
	}
	s.forgotten = s.forgotten[:0]
}

func sessionError(err error) bool {
	return errors.Is(err, kerr.FetchSessionIDNotFound) || errors.Is(err, kerr.InvalidFetchSessionEpoch) ||
		errors.Is(err, kerr.FetchSessionTopicIDError)
}

// build makes the next fetch, or nil when there is nothing to fetch at all.
func (f *fetcher) build(settings *Settings) *kmsg.FetchRequest {
	changed := f.takeChanged()
	if byIDs := f.allHaveIDs(changed); byIDs != f.session.byIDs && (len(changed) > 0 || len(f.session.members) == 0) {
		// The way of naming topics cannot change within a session.
		f.restart()
		f.session.byIDs = byIDs
		changed = f.takeChanged()
	}
	full := f.session.epoch == 0
	req := f.newRequest(settings)
	topics := topicIndex{req: req, byIDs: f.session.byIDs}
	if full {
		f.nameMembers(&topics, changed, settings)
	}
	for _, c := range changed {
		topics.add(c.it, c.pos, settings.MaxBytes)
		c.it.sent = c.pos
		c.it.inSession = true
		f.session.members[f.session.key(c.it.tp, c.pos.TopicID)] = c.it
	}
	if len(f.session.members) == 0 && len(f.session.forgotten) == 0 {
		return nil
	}
	if len(f.session.members) == 0 && full {
		return nil
	}
	f.nameForgotten(req)
	return req
}

// nameMembers names, in a full request, the partitions that have not changed.
func (f *fetcher) nameMembers(topics *topicIndex, changed []change, settings *Settings) {
	skip := make(map[*item]struct{}, len(changed))
	for _, c := range changed {
		skip[c.it] = struct{}{}
	}
	for _, it := range f.session.members {
		if _, ok := skip[it]; !ok {
			topics.add(it, it.sent, settings.MaxBytes)
		}
	}
}

type change struct {
	it  *item
	pos partition.FollowPosition
}

// takeChanged looks at the partitions that are due and returns those whose position the session does not know.
func (f *fetcher) takeChanged() []change {
	due := f.due
	f.due = nil
	out := make([]change, 0, len(due))
	for _, it := range due {
		it.due = false
		if it.state != fetching {
			continue
		}
		pos, ok := it.p.FollowPosition()
		switch {
		case !ok || pos.Leader != f.id.source:
			// Its role is changing; news will follow. Look again soon in case they are here already.
			f.pauseItem(it)
		case f.heldBack(it):
			f.pauseItemFor(it, throttlePause)
		case it.inSession && pos == it.sent:
		case it.inSession && pos.TopicID != it.sent.TopicID:
			f.session.forget(it)
			out = append(out, change{it: it, pos: pos})
		default:
			out = append(out, change{it: it, pos: pos})
		}
	}
	return out
}

func (f *fetcher) heldBack(it *item) bool {
	t := f.m.options.Throttle
	return t != nil && it.lag > 0 && t.Throttled(it.tp)
}

func (f *fetcher) allHaveIDs(changed []change) bool {
	for _, c := range changed {
		if c.pos.TopicID.IsZero() {
			return false
		}
	}
	if f.session.byIDs {
		return true
	}
	for _, it := range f.session.members {
		if it.sent.TopicID.IsZero() {
			return false
		}
	}
	return true
}

func (f *fetcher) newRequest(settings *Settings) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.Version = versionWithNames
	if f.session.byIDs {
		req.Version = versionWithIDs
	}
	if req.Version >= firstReplicaState {
		req.ReplicaState.ID = int32(f.m.options.BrokerID)
		req.ReplicaState.Epoch = int64(f.m.options.BrokerEpoch())
	} else {
		req.ReplicaID = int32(f.m.options.BrokerID)
	}
	req.MaxWaitMillis = int32(settings.MaxWait.Milliseconds())
	req.MinBytes = int32(settings.MinBytes)
	req.MaxBytes = int32(settings.ResponseMaxBytes)
	req.SessionID, req.SessionEpoch = f.session.id, f.session.epoch
	return req
}

func (f *fetcher) nameForgotten(req *kmsg.FetchRequest) {
	index := map[memberKey]int{}
	for _, g := range f.session.forgotten {
		k := f.session.key(g.tp, g.topicID)
		if _, back := f.session.members[k]; back {
			continue // it was taken in again
		}
		k.partition = 0
		i, ok := index[k]
		if !ok {
			i = len(req.ForgottenTopics)
			index[k] = i
			t := kmsg.NewFetchRequestForgottenTopic()
			t.Topic, t.TopicID = g.tp.Topic, g.topicID
			req.ForgottenTopics = append(req.ForgottenTopics, t)
		}
		req.ForgottenTopics[i].Partitions = append(req.ForgottenTopics[i].Partitions, g.tp.Partition)
	}
}

// topicIndex groups partitions by topic while a request is built.
type topicIndex struct {
	req   *kmsg.FetchRequest
	byIDs bool
	index map[memberKey]int
}

func (x *topicIndex) add(it *item, pos partition.FollowPosition, maxBytes int) {
	k := memberKey{topic: it.tp.Topic, topicID: pos.TopicID}
	i, ok := x.index[k]
	if !ok {
		if x.index == nil {
			x.index = map[memberKey]int{}
		}
		i = len(x.req.Topics)
		x.index[k] = i
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.TopicID = it.tp.Topic, pos.TopicID
		x.req.Topics = append(x.req.Topics, t)
	}
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition = it.tp.Partition
	p.CurrentLeaderEpoch = int32(pos.LeaderEpoch)
	p.FetchOffset = pos.Offset
	p.LastFetchedEpoch = int32(pos.LastFetchedEpoch)
	p.LogStartOffset = pos.LogStartOffset
	p.PartitionMaxBytes = int32(maxBytes)
	x.req.Topics[i].Partitions = append(x.req.Topics[i].Partitions, p)
}
