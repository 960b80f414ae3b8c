package txncoord

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"ottla/coordlog/memlog"
	"ottla/internal/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a coordinator with its surroundings: one partition of state, and two brokers that take markers.
type bench struct {
	*Coordinator
	t   testing.TB
	log *memlog.Log

	mu      sync.Mutex
	clock   time.Time
	nextID  int64
	leaders map[cluster.TopicPartition]cluster.BrokerID
	codes   map[cluster.TopicPartition]int16 // what markers are answered
	broken  bool                             // brokers cannot be reached
	markers []kmsg.WriteTxnMarkersRequestMarker
}

func newBench(t testing.TB) *bench {
	b := &bench{
		t: t, log: &memlog.Log{}, clock: time.Unix(1_700_000_000, 0), nextID: 1000,
		leaders: map[cluster.TopicPartition]cluster.BrokerID{tp("t", 0): 1, tp("t", 1): 2, tp("u", 0): 1},
		codes:   map[cluster.TopicPartition]int16{},
	}
	b.Coordinator = New(Options{
		TimeoutMax: time.Minute, IDExpiration: time.Hour, AppendTimeout: time.Second, LoadBytes: 4096,
		Partitions:    func() int32 { return 1 },
		Lease:         func() bool { return true },
		NewProducerID: func(done func(int64, error)) { b.mu.Lock(); b.nextID++; id := b.nextID; b.mu.Unlock(); done(id, nil) },
		Leader: func(tp cluster.TopicPartition) (cluster.BrokerID, bool) {
			b.mu.Lock()
			defer b.mu.Unlock()
			id, ok := b.leaders[tp]
			return id, ok
		},
		Send:   b.send,
		Logger: zerolog.Nop(),
		Now:    func() time.Time { b.mu.Lock(); defer b.mu.Unlock(); return b.clock },
	})
	t.Cleanup(b.Close)
	return b
}

func tp(topic string, partition int32) cluster.TopicPartition {
	return cluster.TopicPartition{Topic: topic, Partition: partition}
}

// send is every broker.
func (b *bench) send(_ context.Context, _ cluster.BrokerID, req kmsg.Request) (kmsg.Response, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broken {
		return nil, errors.New("cannot be reached")
	}
	resp := kmsg.NewPtrWriteTxnMarkersResponse()
	for _, m := range req.(*kmsg.WriteTxnMarkersRequest).Markers {
		rm := kmsg.NewWriteTxnMarkersResponseMarker()
		rm.ProducerID = m.ProducerID
		for _, t := range m.Topics {
			rt := kmsg.NewWriteTxnMarkersResponseMarkerTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rt.Partitions = append(rt.Partitions, kmsg.WriteTxnMarkersResponseMarkerTopicPartition{Partition: p, ErrorCode: b.codes[tp(t.Topic, p)]})
			}
			rm.Topics = append(rm.Topics, rt)
		}
		resp.Markers = append(resp.Markers, rm)
		b.markers = append(b.markers, m)
	}
	return resp, nil
}

func (b *bench) change(fn func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fn()
}

func (b *bench) pass(d time.Duration) { b.change(func() { b.clock = b.clock.Add(d) }) }

func (b *bench) elect(epoch cluster.LeaderEpoch) {
	b.t.Helper()
	b.Resigned(0)
	b.log.SetEpoch(epoch)
	b.Elected(0, epoch, b.log)
	require.Eventually(b.t, func() bool {
		_, err := b.usable("id")
		return !errors.Is(err, kerr.CoordinatorLoadInProgress)
	}, 10*time.Second, time.Millisecond)
}

func (b *bench) init(id string, expected *Producer) (Producer, error) {
	type answer struct {
		Producer
		err error
	}
	c := make(chan answer, 1)
	b.Init(&Init{ID: id, TimeoutMs: 10_000, Expected: expected}, func(p Producer, err error) { c <- answer{p, err} })
	a := <-c
	return a.Producer, a.err
}

func (b *bench) add(id string, p Producer, tps ...cluster.TopicPartition) error {
	c := make(chan error, 1)
	b.AddPartitions(id, p, tps, func(err error) { c <- err })
	return <-c
}

func (b *bench) end(id string, p Producer, commit bool) error {
	c := make(chan error, 1)
	b.End(id, p, commit, func(err error) { c <- err })
	return <-c
}

func (b *bench) state(id string) string {
	d, err := b.Describe(id)
	if err != nil {
		return err.(*kerr.Error).Message
	}
	return d.State
}

func (b *bench) becomes(id, state string) {
	b.t.Helper()
	require.Eventually(b.t, func() bool { return b.state(id) == state }, 10*time.Second, time.Millisecond, "%s is %s", id, b.state(id))
}
