package partition

import (
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var topicID = cluster.TopicID{1, 2, 3}

// bench is one broker's partitions over logs in memory, with the controller played by the test.
type bench struct {
	t       testing.TB
	fs      *crashfs.FS
	logs    *logstore.Manager
	set     *Set
	alter   *fakeAlter
	config  *logstore.Config
	topic   TopicSettings
	dead    map[cluster.BrokerID]bool
	noLease bool
	skew    time.Duration // added to the clock
	wall    time.Duration // by which the wall clock was set, see jumped
	state   AlterResult   // what ReadState finds
}

const self cluster.BrokerID = 1

func newBench(t testing.TB, fs *crashfs.FS, dirs ...string) *bench {
	t.Helper()
	if dirs == nil {
		dirs = []string{"/data"}
	}
	if fs == nil {
		fs = crashfs.New()
	}
	b := &bench{
		t: t, fs: fs, alter: &fakeAlter{}, config: logstore.DefaultConfig(), topic: TopicSettings{MinISR: 1},
		dead: map[cluster.BrokerID]bool{},
	}
	logs, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: dirs, FS: fs, BrokerID: self, ClusterID: "test",
		Defaults: func(string) *logstore.Config { return b.config }, RecoveryThreads: 2, Logger: zerolog.Nop(),
	})
	require.NoError(t, err)
	b.logs = logs
	b.set = NewSet(Options{
		BrokerID: self, Logs: logs, Logger: zerolog.Nop(), Alter: b.alter,
		Topic:     func(string) TopicSettings { return b.topic },
		Alive:     func(id cluster.BrokerID) bool { return !b.dead[id] },
		Lease:     func() bool { return !b.noLease },
		ReadState: func(cluster.TopicPartition) (AlterResult, error) { return b.state, nil },
		Now:       b.now,
	})
	t.Cleanup(b.close)
	return b
}

func (b *bench) now() time.Time { return jumped(time.Now().Add(b.skew), b.wall) }

func (b *bench) close() {
	if b.logs != nil {
		b.set.moves.stop()
		b.set.tasks.Wait()
		_ = b.logs.Close(true)
		b.logs = nil
	}
}

// fakeAlter keeps proposals for the test to answer.
type fakeAlter struct {
	mu   sync.Mutex
	list []proposed
}

type proposed struct {
	AlterProposal
	done func(AlterResult)
}

func (f *fakeAlter) Propose(p AlterProposal, done func(AlterResult)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.list = append(f.list, proposed{p, done})
}

func (f *fakeAlter) take() []proposed {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := f.list
	f.list = nil
	return out
}

// decisionFor is the controller's word about partition 0 of topic t.
type decisionFor struct {
	leader   int32
	epoch    int32
	version  int32
	isr      []int32
	replicas []int32
	isNew    bool
	recovery int8
	topic    string
	id       cluster.TopicID
	wire     int16 // version of the request, default 7
	ctl      int32 // controller epoch
	broker   int64 // broker epoch
}

func (b *bench) decideFull(d decisionFor) *kmsg.LeaderAndISRResponse {
	req := kmsg.NewPtrLeaderAndISRRequest()
	req.Version = 7
	if d.wire != 0 {
		req.Version = d.wire - 1
	}
	req.ControllerEpoch, req.BrokerEpoch = d.ctl, d.broker
	if d.broker == 0 {
		req.BrokerEpoch = -1
	}
	p := kmsg.NewLeaderAndISRRequestTopicPartition()
	p.Leader, p.LeaderEpoch, p.ZKVersion, p.ISR, p.Replicas = d.leader, d.epoch, d.version, d.isr, d.replicas
	p.IsNew, p.LeaderRecoveryState = d.isNew, d.recovery
	if d.topic == "" {
		d.topic = "t"
	}
	if req.Version < 2 {
		p.Topic = d.topic
		req.PartitionStates = append(req.PartitionStates, p)
	} else {
		s := kmsg.NewLeaderAndISRRequestTopicState()
		s.Topic = d.topic
		if req.Version >= 5 {
			s.TopicID = topicID
			if !d.id.IsZero() {
				s.TopicID = d.id
			}
		}
		s.PartitionStates = append(s.PartitionStates, p)
		req.TopicStates = append(req.TopicStates, s)
	}
	return b.set.LeaderAndISR(req, 10)
}

// decide returns the error of the one partition.
func (b *bench) decide(d decisionFor) error {
	b.t.Helper()
	resp := b.decideFull(d)
	require.Zero(b.t, resp.ErrorCode)
	require.Len(b.t, resp.Topics, 1)
	return kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)
}

func (b *bench) get() *Partition {
	b.t.Helper()
	p, err := b.set.Get("t", 0)
	require.NoError(b.t, err)
	return p
}

// lead makes this broker the leader of t-0.
func (b *bench) lead(epoch int32, isr, replicas []int32) *Partition {
	b.t.Helper()
	require.NoError(b.t, b.decide(decisionFor{
		leader: 1, epoch: epoch, version: epoch, isr: isr, replicas: replicas, isNew: true,
	}))
	return b.get()
}

func records(t testing.TB, n int) []byte {
	t.Helper()
	bd := logstore.NewBuilder(logstore.PlainBatch())
	for i := range n {
		require.NoError(t, bd.Append(logstore.Record{Offset: int64(i), Timestamp: 1000 + int64(i), Value: []byte("value")}))
	}
	out, err := bd.Finish()
	require.NoError(t, err)
	return append([]byte(nil), out...)
}

// produce appends and returns what came at once, or nil while it waits; later results arrive on the channel.
func produce(t testing.TB, p *Partition, n int, acks int16) (*AppendResult, chan AppendResult) {
	t.Helper()
	ch := make(chan AppendResult, 1)
	p.Append(AppendRequest{Records: records(t, n), Acks: acks, Timeout: time.Minute, ProduceVersion: 9}, func(r AppendResult) { ch <- r })
	select {
	case r := <-ch:
		return &r, ch
	default:
		return nil, ch
	}
}

func fetchAs(replica cluster.BrokerID, epoch cluster.LeaderEpoch, offset int64) ReadRequest {
	return ReadRequest{
		Offset: offset, MaxBytes: 1 << 20, MinOneBatch: true, CurrentLeaderEpoch: epoch, Replica: replica,
		LastFetchedEpoch: cluster.NoLeaderEpoch, ReplicaEpoch: 100, ReplicaLogStart: 0,
	}
}

func consume(offset int64) ReadRequest {
	r := fetchAs(Consumer, cluster.NoLeaderEpoch, offset)
	r.ReplicaEpoch, r.ReplicaLogStart = cluster.NoBrokerEpoch, -1
	return r
}
