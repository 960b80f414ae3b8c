package broker

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/internal/cluster"
)

// suspects are brokers whose connection to this one has just broken, though they are registered: processes that died, most likely,
// and whose parent may be removing the registration. Clients hear of it at the same moment and ask who leads now. An answer that
// names the dead leader again is worse than a late one, since some clients ask only every few seconds.
type suspects struct {
	some atomic.Bool // saves the lock while all is well
	mu   struct {
		sync.Mutex
		since map[cluster.BrokerID]time.Time // the first failure in a row
	}
}

// suspicionMax is for how long answers may wait after a connection broke: far more than an election takes once the registration is
// gone, and little for those who wait in vain, because it goes only with the session.
const suspicionMax = time.Second

// connected takes note of a connection that was made (nil) or has broken. One that hangs until its time is over says nothing.
func (s *suspects) connected(id cluster.BrokerID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		delete(s.mu.since, id)
	case errors.Is(err, context.DeadlineExceeded):
	default:
		if s.mu.since == nil {
			s.mu.since = map[cluster.BrokerID]time.Time{}
		}
		if _, known := s.mu.since[id]; !known {
			s.mu.since[id] = time.Now()
		}
	}
	s.some.Store(len(s.mu.since) > 0)
}

// fresh are the suspects for whose sake an answer may wait, and until when.
func (s *suspects) fresh(now time.Time) (ids []cluster.BrokerID, until time.Time) {
	if !s.some.Load() {
		return nil, until
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, since := range s.mu.since {
		if end := since.Add(suspicionMax); end.After(now) {
			ids = append(ids, id)
			if end.After(until) {
				until = end
			}
		}
	}
	return ids, until
}

// awaitElection takes a request over whose answer would name a suspect as a leader: it is answered once the metadata does not, or
// the suspicion is too old.
func (b *Broker) awaitElection(r *wire.Request, req *kmsg.MetadataRequest) bool {
	ids, until := b.suspects.fresh(time.Now())
	if len(ids) == 0 || misnamed(req) || !b.metadata.load().namesLeader(req, ids) {
		return false
	}
	b.metadata.await(until, func(m *metadata) bool { return !m.namesLeader(req, ids) }, func(bool) {
		if resp := b.answerMetadata(r, req); resp != nil {
			r.Respond(resp)
		}
	})
	return true
}

// namesLeader reports whether an answer to the request would name one of these brokers as the leader of a partition.
func (m *metadata) namesLeader(req *kmsg.MetadataRequest, ids []cluster.BrokerID) bool {
	if req.Topics == nil || req.Version == 0 && len(req.Topics) == 0 {
		for _, t := range m.topics {
			if m.ledByAny(t, ids) {
				return true
			}
		}
		return false
	}
	return slices.ContainsFunc(req.Topics, func(asked kmsg.MetadataRequestTopic) bool {
		if asked.Topic != nil {
			return m.ledByAny(m.topics[*asked.Topic], ids)
		}
		return m.ledByAny(m.topics[m.names[asked.TopicID]], ids)
	})
}

func (m *metadata) ledByAny(t *topicMetadata, ids []cluster.BrokerID) bool {
	return t != nil && slices.ContainsFunc(t.partitions, func(p *partitionMetadata) bool {
		return p != nil && slices.Contains(ids, p.leader) && m.alive(p.leader)
	})
}
