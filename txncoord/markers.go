package txncoord

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
)

// markers brings the markers of decided transactions to the leaders of their partitions, until each has its own: one request at a
// time to each broker, with all that has gathered for it meanwhile.
type markers struct {
	c      *Coordinator
	ctx    context.Context
	cancel context.CancelFunc
	loops  sync.WaitGroup
	mu     struct {
		sync.Mutex
		closed   bool
		queues   map[cluster.BrokerID][]delivery // a broker with a queue, even an empty one, has a loop
		waiting  []func()                        // to be done again after a pause
		homeless int                             // partitions among them that have no leader
	}
}

// ending is a transaction whose markers are on their way. Its shard's epoch is the markers' coordinator epoch.
type ending struct {
	e        *entry
	producer Producer
	commit   bool
	mu       sync.Mutex
	left     map[cluster.TopicPartition]struct{} // nil: nothing more is to be sent
}

// delivery is one transaction's share of a request.
type delivery struct {
	of  *ending
	tps []cluster.TopicPartition
}

const (
	// markerRetry is the pause before a marker that was not accepted is sent again.
	markerRetry = 50 * time.Millisecond
	// markersPerRequest bounds the transactions of one request.
	markersPerRequest = 1000
)

func newMarkers(c *Coordinator) *markers {
	m := &markers{c: c}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.mu.queues = map[cluster.BrokerID][]delivery{}
	return m
}

func (m *markers) close() {
	m.mu.Lock()
	m.mu.closed = true
	m.mu.Unlock()
	m.cancel()
	m.loops.Wait()
}

// begin sends the markers of a transaction whose end is stored.
func (m *markers) begin(e *entry) {
	e.mu.Lock()
	i := e.mu.now
	e.mu.Unlock()
	if !i.state.ending() {
		return
	}
	en := &ending{e: e, producer: i.Producer, commit: i.state == PrepareCommit, left: map[cluster.TopicPartition]struct{}{}}
	tps := make([]cluster.TopicPartition, 0, len(i.partitions))
	for tp := range i.partitions {
		en.left[tp] = struct{}{}
		tps = append(tps, tp)
	}
	if len(tps) == 0 {
		m.complete(en)
		return
	}
	m.route(en, tps)
}

// route queues markers for those who lead the partitions now. A partition that does not exist any more needs none.
func (m *markers) route(en *ending, tps []cluster.TopicPartition) {
	if en.e.shard.Closed() {
		return
	}
	byLeader := map[cluster.BrokerID][]cluster.TopicPartition{}
	var gone []cluster.TopicPartition
	for _, tp := range tps {
		leader, known := m.c.o.Leader(tp)
		if !known {
			gone = append(gone, tp)
			continue
		}
		byLeader[leader] = append(byLeader[leader], tp)
	}
	for leader, tps := range byLeader {
		if leader == cluster.NoBroker {
			m.again(len(tps), func() { m.route(en, tps) })
			continue
		}
		m.queue(leader, delivery{en, tps})
	}
	if len(gone) > 0 {
		m.written(en, gone)
	}
}

func (m *markers) queue(to cluster.BrokerID, d delivery) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return
	}
	q, running := m.mu.queues[to]
	m.mu.queues[to] = append(q, d)
	if !running {
		m.loops.Go(func() { m.sendLoop(to) })
	}
}

// again does something after a pause. homeless partitions are counted meanwhile.
func (m *markers) again(homeless int, what func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return
	}
	m.mu.homeless += homeless
	if m.mu.waiting = append(m.mu.waiting, what); len(m.mu.waiting) == 1 {
		m.loops.Go(m.pause)
	}
}

func (m *markers) pause() {
	timer := time.NewTimer(markerRetry)
	defer timer.Stop()
	select {
	case <-m.ctx.Done():
		return
	case <-timer.C:
	}
	m.mu.Lock()
	waiting := m.mu.waiting
	m.mu.waiting, m.mu.homeless = nil, 0
	m.mu.Unlock()
	for _, what := range waiting {
		what()
	}
}

// sendLoop sends what is queued for a broker; it ends with the queue.
func (m *markers) sendLoop(to cluster.BrokerID) {
	for {
		m.mu.Lock()
		q := m.mu.queues[to]
		if len(q) == 0 || m.mu.closed {
			delete(m.mu.queues, to)
			m.mu.Unlock()
			return
		}
		n := min(len(q), markersPerRequest)
		m.mu.queues[to] = append([]delivery{}, q[n:]...)
		m.mu.Unlock()
		m.send(to, gather(q[:n]))
	}
}

// gather makes one delivery of those of one transaction, and leaves out what is ours no longer.
func gather(q []delivery) []delivery {
	var out []delivery
	at := map[*ending]int{}
	for _, d := range q {
		if d.of.e.shard.Closed() {
			continue
		}
		if i, ok := at[d.of]; ok {
			out[i].tps = append(out[i].tps, d.tps...)
			continue
		}
		at[d.of] = len(out)
		out = append(out, delivery{d.of, slices.Clone(d.tps)})
	}
	return out
}

func (m *markers) send(to cluster.BrokerID, q []delivery) {
	if len(q) == 0 {
		return
	}
	resp, err := m.c.o.Send(m.ctx, to, markerRequest(q))
	answer, ok := resp.(*kmsg.WriteTxnMarkersResponse)
	if err == nil && !ok {
		err = errors.New("no answer to the markers")
	}
	if err != nil {
		if m.ctx.Err() == nil {
			m.c.log.Warn().Err(err).Int32("broker", int32(to)).Int("transactions", len(q)).Msg("transaction markers could not be sent, trying again")
		}
		for _, d := range q {
			m.retry(d.of, d.tps)
		}
		return
	}
	results := markerResults(answer)
	for _, d := range q {
		m.answered(to, d, results[d.of.producer.ID])
	}
}

func markerRequest(q []delivery) *kmsg.WriteTxnMarkersRequest {
	req := kmsg.NewPtrWriteTxnMarkersRequest()
	req.Version = 1
	for _, d := range q {
		marker := kmsg.NewWriteTxnMarkersRequestMarker()
		marker.ProducerID, marker.ProducerEpoch, marker.Committed = d.of.producer.ID, d.of.producer.Epoch, d.of.commit
		marker.CoordinatorEpoch = int32(d.of.e.shard.Epoch())
		byTopic := map[string]int{}
		for _, tp := range d.tps {
			i, ok := byTopic[tp.Topic]
			if !ok {
				i = len(marker.Topics)
				byTopic[tp.Topic] = i
				t := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
				t.Topic = tp.Topic
				marker.Topics = append(marker.Topics, t)
			}
			marker.Topics[i].Partitions = append(marker.Topics[i].Partitions, tp.Partition)
		}
		req.Markers = append(req.Markers, marker)
	}
	return req
}

// markerResults are an answer's codes by producer and partition.
func markerResults(resp *kmsg.WriteTxnMarkersResponse) map[int64]map[cluster.TopicPartition]int16 {
	results := map[int64]map[cluster.TopicPartition]int16{}
	for _, marker := range resp.Markers {
		of := results[marker.ProducerID]
		if of == nil {
			of = map[cluster.TopicPartition]int16{}
			results[marker.ProducerID] = of
		}
		for _, t := range marker.Topics {
			for _, p := range t.Partitions {
				of[cluster.TopicPartition{Topic: t.Topic, Partition: p.Partition}] = p.ErrorCode
			}
		}
	}
	return results
}

// answered takes a broker's verdicts on one transaction's markers.
func (m *markers) answered(from cluster.BrokerID, d delivery, codes map[cluster.TopicPartition]int16) {
	var written, again []cluster.TopicPartition
	for _, tp := range d.tps {
		code, answered := codes[tp]
		err := kerr.ErrorForCode(code)
		switch {
		case !answered:
			again = append(again, tp)
		case err == nil, errors.Is(err, kerr.UnsupportedForMessageFormat), errors.Is(err, kerr.UnsupportedVersion):
			written = append(written, tp) // the latter two cannot have records of a transaction
		case errors.Is(err, kerr.InvalidProducerEpoch), errors.Is(err, kerr.TransactionCoordinatorFenced):
			m.abandon(d.of, tp, err)
			return
		default:
			m.c.log.Debug().Err(err).Int32("broker", int32(from)).Stringer("partition", tp).Msg("transaction marker was not accepted, trying again")
			again = append(again, tp)
		}
	}
	if len(written) > 0 {
		m.written(d.of, written)
	}
	if len(again) > 0 {
		m.retry(d.of, again)
	}
}

func (m *markers) retry(en *ending, tps []cluster.TopicPartition) {
	m.c.o.Metrics.markerRetries.Add(float64(len(tps)))
	m.again(0, func() { m.route(en, tps) })
}

// abandon leaves a transaction to the coordinator that is the newer one.
func (m *markers) abandon(en *ending, tp cluster.TopicPartition, err error) {
	en.mu.Lock()
	first := en.left != nil
	en.left = nil
	en.mu.Unlock()
	if first {
		m.c.log.Warn().Err(err).Str("transactional_id", en.e.mu.id).Stringer("partition", tp).Int32("coordinator_epoch", int32(en.e.shard.Epoch())).
			Msg("transaction marker was refused: there is a newer coordinator or a newer producer")
	}
}

// written notes partitions that have their marker; after the last one the transaction is complete.
func (m *markers) written(en *ending, tps []cluster.TopicPartition) {
	en.mu.Lock()
	open := en.left != nil
	for _, tp := range tps {
		delete(en.left, tp)
	}
	last := open && len(en.left) == 0
	if last {
		en.left = nil
	}
	en.mu.Unlock()
	if last {
		m.complete(en)
	}
}

// complete stores that a transaction has ended, until that is done or another broker coordinates.
func (m *markers) complete(en *ending) {
	e := en.e
	e.mu.Lock()
	if e.shard.Closed() || !e.mu.now.state.ending() || e.mu.next != nil || e.mu.now.Producer != en.producer {
		e.mu.Unlock()
		return
	}
	e.mu.complete(m.c.now())
	id := e.mu.id
	e.storeLocked(func(err error) {
		if err == nil || errors.Is(err, kerr.NotCoordinator) {
			return
		}
		m.c.log.Warn().Err(err).Str("transactional_id", id).Msg("the end of a transaction could not be stored, trying again")
		m.again(0, func() { m.complete(en) })
	})
	e.mu.Unlock()
	e.shard.Flush()
}

// Homeless is how many partitions without a leader wait for markers.
func (c *Coordinator) Homeless() int {
	c.markers.mu.Lock()
	defer c.markers.mu.Unlock()
	return c.markers.mu.homeless
}
