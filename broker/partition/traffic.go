package partition

import (
	"sync"
	"sync/atomic"

	"ottla/broker/replication"
)

// Traffic counts what clients and followers do with a topic on this broker. Every partition of the topic points to the same one, so that
// a request counts without looking anything up. The fields are totals since the broker hosts the topic.
type Traffic struct {
	BytesIn, MessagesIn                  atomic.Int64
	BytesOut                             atomic.Int64 // to consumers
	ReplicationBytesIn                   atomic.Int64
	ReplicationBytesOut                  atomic.Int64
	ProduceRequests, FetchRequests       atomic.Int64 // partitions asked for
	FailedProduces, FailedFetches        atomic.Int64
	BytesRejected, InvalidMessageBatches atomic.Int64
}

// TrafficCounts are the values of a Traffic.
type TrafficCounts struct {
	Topic                                string
	BytesIn, MessagesIn                  int64
	BytesOut                             int64
	ReplicationBytesIn                   int64
	ReplicationBytesOut                  int64
	ProduceRequests, FetchRequests       int64
	FailedProduces, FailedFetches        int64
	BytesRejected, InvalidMessageBatches int64
}

func (t *Traffic) counts(topic string) TrafficCounts {
	return TrafficCounts{
		Topic: topic, BytesIn: t.BytesIn.Load(), MessagesIn: t.MessagesIn.Load(), BytesOut: t.BytesOut.Load(),
		ReplicationBytesIn: t.ReplicationBytesIn.Load(), ReplicationBytesOut: t.ReplicationBytesOut.Load(),
		ProduceRequests: t.ProduceRequests.Load(), FetchRequests: t.FetchRequests.Load(),
		FailedProduces: t.FailedProduces.Load(), FailedFetches: t.FailedFetches.Load(),
		BytesRejected: t.BytesRejected.Load(), InvalidMessageBatches: t.InvalidMessageBatches.Load(),
	}
}

// Add adds another's values.
func (t *TrafficCounts) Add(o TrafficCounts) {
	t.BytesIn += o.BytesIn
	t.MessagesIn += o.MessagesIn
	t.BytesOut += o.BytesOut
	t.ReplicationBytesIn += o.ReplicationBytesIn
	t.ReplicationBytesOut += o.ReplicationBytesOut
	t.ProduceRequests += o.ProduceRequests
	t.FetchRequests += o.FetchRequests
	t.FailedProduces += o.FailedProduces
	t.FailedFetches += o.FailedFetches
	t.BytesRejected += o.BytesRejected
	t.InvalidMessageBatches += o.InvalidMessageBatches
}

// trafficTable has the traffic of every topic of which a partition is hosted here, and the sum of what has gone, so that the
// broker's totals never fall.
type trafficTable struct {
	mu     sync.Mutex
	topics map[string]*topicTraffic
	gone   TrafficCounts
}

type topicTraffic struct {
	Traffic
	partitions int
}

func (t *trafficTable) join(topic string) *Traffic {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.topics[topic]
	if of == nil {
		if t.topics == nil {
			t.topics = map[string]*topicTraffic{}
		}
		of = &topicTraffic{}
		t.topics[topic] = of
	}
	of.partitions++
	return &of.Traffic
}

func (t *trafficTable) leave(topic string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.topics[topic]
	if of == nil {
		return
	}
	if of.partitions--; of.partitions == 0 {
		t.gone.Add(of.counts(""))
		delete(t.topics, topic)
	}
}

// Traffic tells what was done with each hosted topic, and with all that were ever hosted.
func (s *Set) Traffic() (topics []TrafficCounts, all TrafficCounts) {
	t := &s.traffic
	t.mu.Lock()
	defer t.mu.Unlock()
	all = t.gone
	for topic, of := range t.topics {
		c := of.counts(topic)
		topics = append(topics, c)
		all.Add(c)
	}
	return topics, all
}

// Traffic is the counters of the partition's topic.
func (p *Partition) Traffic() *Traffic { return p.traffic }

// NoteLag is told by the fetcher, after each fetch that was applied, where the leader's high watermark is.
func (p *Partition) NoteLag(highWatermark int64) {
	if log := p.Log(); log != nil {
		p.lag.Store(max(0, highWatermark-log.LogEndOffset()))
	}
}

// isrChanges counts what became of changes to in-sync sets that this broker asked for.
type isrChanges struct{ shrinks, expands, failed atomic.Int64 }

func (c *isrChanges) count(outcome replication.Outcome, before, after int) {
	switch {
	case outcome == replication.Committed && after < before:
		c.shrinks.Add(1)
	case outcome == replication.Committed && after > before:
		c.expands.Add(1)
	case outcome == replication.RolledBack:
		c.failed.Add(1)
	}
}

// ISRChanges are totals since the start.
func (s *Set) ISRChanges() (shrinks, expands, failed int64) {
	return s.changes.shrinks.Load(), s.changes.expands.Load(), s.changes.failed.Load()
}

// Look is what metrics tell of a partition. Taking it costs no lock and no allocation, so thousands can be looked at.
type Look struct {
	Role            replication.Role
	Leader          int32
	Preferred       bool // the leader is the first replica
	Replicas, ISR   int
	MinISR          int // effective
	UnderReplicated bool
	Reassigning     bool
	Offline         bool
	Size            int64
	Segments        int
	LogStart        int64
	HighWatermark   int64
	LastStable      int64
	LogEnd          int64
	Lag             int64 // of a follower
}

// Look looks at the partition.
func (p *Partition) Look() Look {
	v := p.view.Load()
	l := Look{
		Role: v.role, Leader: int32(v.leader), Preferred: len(v.replicas) > 0 && v.replicas[0] == v.leader,
		Replicas: len(v.replicas), ISR: len(v.isr), MinISR: v.minISR, UnderReplicated: v.underReplicated,
		Reassigning: v.reassigning, Offline: v.offline != nil, Lag: p.lag.Load(),
	}
	if v.log == nil || v.offline != nil {
		return l
	}
	o := v.log.Offsets()
	l.LogStart, l.HighWatermark, l.LastStable, l.LogEnd = o.LogStart, o.HighWatermark, o.LastStable, o.LogEnd
	l.Size, l.Segments = v.log.Size(), v.log.Segments()
	return l
}
