package fetcher

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"ottla/broker/partition"
	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a few brokers in one process: real partitions and fetchers, a connection that is a function call, and the test
// as controller.
type world struct {
	t       testing.TB
	brokers map[cluster.BrokerID]*broker
	mu      sync.Mutex
	cut     map[cluster.BrokerID]bool // broker cannot be reached
	noIDs   bool                      // the controller tells no topic ids
	noSess  bool                      // leaders keep no sessions
	topics  map[string]cluster.TopicID
	fetches int     // requests served
	named   int     // partitions named in them
	version []int16 // versions seen
	state   map[cluster.TopicPartition]*stateNode
	epoch   int32
}

type stateNode struct {
	leader, epoch, version int32
	isr, replicas          []int32
}

type broker struct {
	w        *world
	id       cluster.BrokerID
	fs       *crashfs.FS
	logs     *logstore.Manager
	set      *partition.Set
	fetchers *Manager
	sessions map[int32]*leaderSession
	nextID   int32
	mu       sync.Mutex
	cancel   context.CancelFunc
	running  sync.WaitGroup
}

func newWorld(t testing.TB, n int) *world {
	w := &world{
		t: t, brokers: map[cluster.BrokerID]*broker{}, cut: map[cluster.BrokerID]bool{},
		topics: map[string]cluster.TopicID{}, state: map[cluster.TopicPartition]*stateNode{},
	}
	for i := range n {
		w.start(cluster.BrokerID(i+1), crashfs.New())
	}
	t.Cleanup(func() {
		for _, b := range w.brokers {
			b.stop()
		}
	})
	return w
}

func (w *world) start(id cluster.BrokerID, fs *crashfs.FS) *broker {
	b := &broker{w: w, id: id, fs: fs, sessions: map[int32]*leaderSession{}}
	logs, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{"/data"}, FS: fs, BrokerID: id, ClusterID: "test", RecoveryThreads: 1, Logger: zerolog.Nop(),
		Defaults: func(string) *logstore.Config { return logstore.DefaultConfig() },
	})
	require.NoError(w.t, err)
	b.logs = logs
	b.set = partition.NewSet(partition.Options{
		BrokerID: id, Logs: logs, Logger: zerolog.Nop(), Alter: b,
		LagMax: func() time.Duration { return 2 * time.Second },
		Topic:  func(string) partition.TopicSettings { return partition.TopicSettings{MinISR: 1} },
	})
	settings := DefaultSettings()
	settings.MaxWait, settings.Backoff = 50*time.Millisecond, 50*time.Millisecond
	settings.Fetchers = 2
	b.fetchers = New(Options{
		BrokerID: id, BrokerEpoch: func() cluster.BrokerEpoch { return 100 + cluster.BrokerEpoch(id) },
		Dial: b.dial, Settings: func() Settings { return settings }, Logger: zerolog.Nop(),
	})
	b.set.SetFetchers(b.fetchers)
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel = cancel
	b.running.Go(func() { b.set.Run(ctx) })
	w.brokers[id] = b
	return b
}

func (b *broker) stop() {
	if b.cancel == nil {
		return
	}
	b.fetchers.Close()
	b.cancel()
	b.running.Wait()
	require.NoError(b.w.t, b.logs.Close(true))
	b.cancel = nil
}

// Propose plays the controller: it carries every change out.
func (b *broker) Propose(p partition.AlterProposal, done func(partition.AlterResult)) {
	b.running.Go(func() {
		b.w.mu.Lock()
		s := b.w.state[p.TopicPartition]
		if int32(p.LeaderEpoch) != s.epoch || int32(p.PartitionEpoch) != s.version {
			b.w.mu.Unlock()
			done(partition.AlterResult{Err: kerr.FencedLeaderEpoch})
			return
		}
		s.isr = nil
		var isr []cluster.BrokerID
		for _, m := range p.ISR {
			s.isr = append(s.isr, int32(m.Broker))
			isr = append(isr, m.Broker)
		}
		s.version++
		r := partition.AlterResult{
			Leader: cluster.BrokerID(s.leader), LeaderEpoch: cluster.LeaderEpoch(s.epoch), ISR: isr,
			PartitionEpoch: cluster.PartitionEpoch(s.version),
		}
		b.w.mu.Unlock()
		done(r)
	})
}

// decide makes leader lead the partitions of topic with the given ISR, and tells it to brokers, the leader first.
func (w *world) decide(topic string, partitions int32, leader int32, isr []int32, tell ...cluster.BrokerID) {
	w.mu.Lock()
	w.epoch++
	if _, ok := w.topics[topic]; !ok {
		w.topics[topic] = cluster.NewTopicID()
	}
	replicas := make([]int32, 0, len(w.brokers))
	for id := range w.brokers {
		replicas = append(replicas, int32(id))
	}
	slices.Sort(replicas)
	req := kmsg.NewPtrLeaderAndISRRequest()
	req.Version, req.BrokerEpoch = 7, -1
	s := kmsg.NewLeaderAndISRRequestTopicState()
	s.Topic = topic
	if !w.noIDs {
		s.TopicID = w.topics[topic]
	}
	for i := range partitions {
		tp := cluster.TopicPartition{Topic: topic, Partition: i}
		st := w.state[tp]
		if st == nil {
			st = &stateNode{}
			w.state[tp] = st
		}
		st.leader, st.epoch, st.version, st.isr, st.replicas = leader, w.epoch, st.version+1, isr, replicas
		p := kmsg.NewLeaderAndISRRequestTopicPartition()
		p.Partition, p.Leader, p.LeaderEpoch, p.ZKVersion = i, leader, st.epoch, st.version
		p.ISR, p.Replicas, p.IsNew = isr, replicas, true
		s.PartitionStates = append(s.PartitionStates, p)
	}
	req.TopicStates = append(req.TopicStates, s)
	w.mu.Unlock()
	for _, id := range tell {
		resp := w.brokers[id].set.LeaderAndISR(req, 0)
		require.Zero(w.t, resp.ErrorCode)
		for _, p := range resp.Topics[0].Partitions {
			require.NoError(w.t, kerr.ErrorForCode(p.ErrorCode))
		}
	}
}

func (w *world) partition(id cluster.BrokerID, topic string, i int32) *partition.Partition {
	w.t.Helper()
	p, err := w.brokers[id].set.Get(topic, i)
	require.NoError(w.t, err)
	return p
}

func (w *world) produce(id cluster.BrokerID, topic string, i int32, n int) partition.AppendResult {
	w.t.Helper()
	ch := make(chan partition.AppendResult, 1)
	w.partition(id, topic, i).Append(partition.AppendRequest{
		Records: batchOf(w.t, n), Acks: -1, Timeout: 5 * time.Second, ProduceVersion: 9,
	}, func(r partition.AppendResult) { ch <- r })
	return <-ch
}

func batchOf(t testing.TB, n int) []byte {
	bd := logstore.NewBuilder(logstore.PlainBatch())
	for i := range n {
		require.NoError(t, bd.Append(logstore.Record{Offset: int64(i), Timestamp: 1000, Value: []byte("0123456789")}))
	}
	out, err := bd.Finish()
	require.NoError(t, err)
	return slices.Clone(out)
}

func (w *world) setCut(id cluster.BrokerID, cut bool) {
	w.mu.Lock()
	w.cut[id] = cut
	w.mu.Unlock()
}

var errCut = errors.New("no way to the broker")

func (b *broker) dial(_ context.Context, to cluster.BrokerID) (Conn, error) {
	b.w.mu.Lock()
	defer b.w.mu.Unlock()
	if b.w.cut[to] || b.w.cut[b.id] || b.w.brokers[to] == nil {
		return nil, errCut
	}
	return &pipe{from: b, to: b.w.brokers[to]}, nil
}

// pipe is a connection to a leader in the same process. Requests and answers go through their bytes, as on a wire.
type pipe struct{ from, to *broker }

func (c *pipe) Close() error { return nil }

func (c *pipe) Borrow(ctx context.Context, req kmsg.Request) (kmsg.Response, func(), error) {
	resp, err := c.RoundTrip(ctx, req)
	return resp, func() {}, err
}

func (c *pipe) RoundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	c.from.w.mu.Lock()
	cut := c.from.w.cut[c.to.id] || c.from.w.cut[c.from.id]
	c.from.w.mu.Unlock()
	if cut {
		return nil, errCut
	}
	received := kmsg.RequestForKey(req.Key())
	received.SetVersion(req.GetVersion())
	if err := received.ReadFrom(req.AppendTo(nil)); err != nil {
		return nil, err
	}
	var resp kmsg.Response
	switch r := received.(type) {
	case *kmsg.FetchRequest:
		resp = c.to.serveFetch(ctx, r)
	case *kmsg.ListOffsetsRequest:
		resp = c.to.serveListOffsets(r)
	case *kmsg.OffsetForLeaderEpochRequest:
		resp = c.to.serveEpochEnd(r)
	}
	answer := req.ResponseKind()
	answer.SetVersion(req.GetVersion())
	return answer, answer.ReadFrom(resp.AppendTo(nil))
}

// leaderSession is a leader's side of a fetch session: the plainest that is right.
type leaderSession struct {
	epoch      int32
	partitions map[memberKey]kmsg.FetchRequestTopicPartition
}

func (b *broker) serveFetch(ctx context.Context, req *kmsg.FetchRequest) *kmsg.FetchResponse {
	resp := kmsg.NewPtrFetchResponse()
	resp.Version = req.Version
	s, err := b.session(req)
	if err != 0 {
		resp.ErrorCode = err
		return resp
	}
	for i := range req.Topics {
		for _, p := range req.Topics[i].Partitions {
			s.partitions[keyOf(req.Version, req.Topics[i].Topic, req.Topics[i].TopicID, p.Partition)] = p
		}
	}
	for _, f := range req.ForgottenTopics {
		for _, p := range f.Partitions {
			delete(s.partitions, keyOf(req.Version, f.Topic, f.TopicID, p))
		}
	}
	deadline := time.Now().Add(time.Duration(req.MaxWaitMillis) * time.Millisecond)
	for first := true; ; first = false {
		resp.Topics = nil
		data := false
		for k, p := range s.partitions {
			part, urgent := b.read(req, k, p, !first)
			data = data || urgent
			t := kmsg.NewFetchResponseTopic()
			t.Topic, t.TopicID = k.topic, k.topicID
			t.Partitions = append(t.Partitions, part)
			resp.Topics = append(resp.Topics, t)
		}
		if data || time.Now().After(deadline) || ctx.Err() != nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	if !b.w.noSess {
		b.mu.Lock()
		for id, known := range b.sessions {
			if known == s {
				resp.SessionID = id
			}
		}
		b.mu.Unlock()
	}
	return resp
}

func keyOf(version int16, topic string, id [16]byte, partition int32) memberKey {
	if version >= firstVersionByIDs {
		return memberKey{topicID: id, partition: partition}
	}
	return memberKey{topic: topic, partition: partition}
}

func (b *broker) session(req *kmsg.FetchRequest) (*leaderSession, int16) {
	b.w.mu.Lock()
	b.w.fetches++
	for _, t := range req.Topics {
		b.w.named += len(t.Partitions)
	}
	b.w.version = append(b.w.version, req.Version)
	b.w.mu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	if req.SessionEpoch == 0 {
		delete(b.sessions, req.SessionID)
		s := &leaderSession{epoch: 1, partitions: map[memberKey]kmsg.FetchRequestTopicPartition{}}
		b.nextID++
		b.sessions[b.nextID] = s
		return s, 0
	}
	s := b.sessions[req.SessionID]
	switch {
	case s == nil:
		return nil, kerr.FetchSessionIDNotFound.Code
	case s.epoch != req.SessionEpoch:
		return nil, kerr.InvalidFetchSessionEpoch.Code
	}
	s.epoch++
	return s, 0
}

func (b *broker) read(req *kmsg.FetchRequest, k memberKey, p kmsg.FetchRequestTopicPartition, parked bool) (kmsg.FetchResponseTopicPartition, bool) {
	part := kmsg.NewFetchResponseTopicPartition()
	part.Partition = p.Partition
	name := k.topic
	b.w.mu.Lock()
	for topic, id := range b.w.topics {
		if id == k.topicID {
			name = topic
		}
	}
	b.w.mu.Unlock()
	hosted, err := b.set.Get(name, p.Partition)
	if err == nil {
		replica, epoch := req.ReplicaID, int64(-1)
		if req.Version >= firstReplicaState {
			replica, epoch = req.ReplicaState.ID, req.ReplicaState.Epoch
		}
		var out partition.ReadResult
		out, err = hosted.Read(partition.ReadRequest{
			Offset: p.FetchOffset, MaxBytes: int(p.PartitionMaxBytes), MinOneBatch: true, Parked: parked,
			CurrentLeaderEpoch: cluster.LeaderEpoch(p.CurrentLeaderEpoch), LastFetchedEpoch: cluster.LeaderEpoch(p.LastFetchedEpoch),
			Replica: cluster.BrokerID(replica), ReplicaEpoch: cluster.BrokerEpoch(epoch), ReplicaLogStart: p.LogStartOffset,
		})
		if err == nil {
			part.HighWatermark, part.LastStableOffset, part.LogStartOffset = out.HighWatermark, out.LastStableOffset, out.LogStartOffset
			if out.Diverging != nil {
				part.DivergingEpoch.Epoch, part.DivergingEpoch.EndOffset = int32(out.Diverging.Epoch), out.Diverging.EndOffset
				return part, true
			}
			part.RecordBatches = make([]byte, out.Slice.Len)
			if !out.Slice.Empty() {
				_, err = out.Slice.ReadAt(part.RecordBatches, 0)
				out.Slice.Release()
				require.NoError(b.w.t, err)
			}
			return part, len(part.RecordBatches) > 0
		}
	}
	part.ErrorCode = err.(*kerr.Error).Code
	return part, true
}

func (b *broker) serveListOffsets(req *kmsg.ListOffsetsRequest) *kmsg.ListOffsetsResponse {
	resp := kmsg.NewPtrListOffsetsResponse()
	resp.Version = req.Version
	for _, t := range req.Topics {
		out := kmsg.NewListOffsetsResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			part := kmsg.NewListOffsetsResponseTopicPartition()
			part.Partition = p.Partition
			hosted, err := b.set.Get(t.Topic, p.Partition)
			if err == nil {
				var r partition.OffsetResult
				r, err = hosted.ListOffset(p.Timestamp, 0, cluster.LeaderEpoch(p.CurrentLeaderEpoch), cluster.BrokerID(req.ReplicaID))
				part.Offset = r.Offset
			}
			if err != nil {
				part.ErrorCode = err.(*kerr.Error).Code
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func (b *broker) serveEpochEnd(req *kmsg.OffsetForLeaderEpochRequest) *kmsg.OffsetForLeaderEpochResponse {
	resp := kmsg.NewPtrOffsetForLeaderEpochResponse()
	resp.Version = req.Version
	for _, t := range req.Topics {
		out := kmsg.NewOffsetForLeaderEpochResponseTopic()
		out.Topic = t.Topic
		for _, p := range t.Partitions {
			part := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			part.Partition = p.Partition
			hosted, err := b.set.Get(t.Topic, p.Partition)
			if err == nil {
				var e partition.EpochEnd
				e, err = hosted.OffsetForLeaderEpoch(cluster.LeaderEpoch(p.CurrentLeaderEpoch), cluster.LeaderEpoch(p.LeaderEpoch), cluster.BrokerID(req.ReplicaID))
				part.LeaderEpoch, part.EndOffset = int32(e.Epoch), e.EndOffset
			}
			if err != nil {
				part.ErrorCode = err.(*kerr.Error).Code
			}
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}
