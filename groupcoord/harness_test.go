package groupcoord

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/goleak"

	"ottla/coordlog/memlog"
	"ottla/internal/cluster"
	"ottla/zkcoord"
	"ottla/zkcoord/zktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a coordinator with its surroundings.
type bench struct {
	*Coordinator
	t       testing.TB
	log     *memlog.Log
	tree    *zktest.Tree
	session *zktest.FakeSession
	lease   bool
	runs    sync.WaitGroup
	mu      sync.Mutex
	clock   time.Time
}

func newBench(t testing.TB, change func(*Options)) *bench {
	b := &bench{t: t, log: &memlog.Log{}, lease: true, tree: zktest.NewTree(), clock: time.Unix(1_700_000_000, 0)}
	b.session = b.tree.NewSession()
	require.NoError(t, zkcoord.EnsurePaths(b.session))
	o := Options{
		Limits:      Limits{SessionTimeoutMin: time.Second, SessionTimeoutMax: time.Hour, MaxSize: 100},
		MetadataMax: 100, CommitTimeout: time.Second, Retention: time.Hour, LoadBytes: 4096,
		Partitions: func() int32 { return 1 },
		Lease:      func() bool { return b.lease },
		Session:    func() zkcoord.Session { return b.session },
		Run:        func(fn func()) { b.runs.Go(fn) },
		Logger:     zerolog.Nop(),
		Now: func() time.Time {
			b.mu.Lock()
			defer b.mu.Unlock()
			return b.clock
		},
	}
	if change != nil {
		change(&o)
	}
	b.Coordinator = New(o)
	b.Start()
	t.Cleanup(func() {
		b.Close()
		b.runs.Wait()
		b.session.Close()
	})
	return b
}

func (b *bench) pass(d time.Duration) {
	b.mu.Lock()
	b.clock = b.clock.Add(d)
	b.mu.Unlock()
	select {
	case b.timers.wake <- struct{}{}:
	default:
	}
}

// elect makes this broker the leader of the one partition, after somebody else if it was before, and waits until it is loaded.
func (b *bench) elect(epoch cluster.LeaderEpoch) {
	b.t.Helper()
	b.Resigned(0)
	b.log.SetEpoch(epoch)
	b.setLeaderEpoch(epoch)
	b.Elected(0, epoch, b.log)
	require.Eventually(b.t, func() bool {
		_, err := b.usable("g")
		return !errors.Is(err, kerr.CoordinatorLoadInProgress)
	}, 10*time.Second, time.Millisecond)
}

// setLeaderEpoch is what a controller does to the partition's state znode.
func (b *bench) setLeaderEpoch(epoch cluster.LeaderEpoch) {
	b.t.Helper()
	path := zkcoord.StatePath(tp(OffsetsTopic, 0))
	data := zkcoord.EncodeState(zkcoord.PartitionState{Leader: 1, LeaderEpoch: epoch, ISR: []cluster.BrokerID{1}})
	err := b.session.CreateAll(path, data)
	if errors.Is(err, zkcoord.ErrNodeExists) {
		_, err = b.session.Set(path, data, zkcoord.AnyVersion)
	}
	require.NoError(b.t, err)
}

func (b *bench) commit(group string, offset int64, tps ...cluster.TopicPartition) []error {
	b.t.Helper()
	r := &Commit{Group: group, Generation: -1}
	for _, tp := range tps {
		r.Entries = append(r.Entries, CommitEntry{TopicPartition: tp, Committed: Committed{Offset: offset, LeaderEpoch: 3, Metadata: "m", CommitMs: b.now().UnixMilli(), ExpireMs: -1}})
	}
	done := make(chan struct{})
	b.Commit(r, func() { close(done) })
	<-done
	var errs []error
	for _, e := range r.Entries {
		errs = append(errs, e.Err)
	}
	return errs
}

func (b *bench) fetch(f *Fetch) ([]Fetched, error) {
	type answer struct {
		fetched []Fetched
		err     error
	}
	c := make(chan answer, 1)
	b.Fetch(f, func(fetched []Fetched, err error) { c <- answer{fetched, err} })
	a := <-c
	return a.fetched, a.err
}

func (b *bench) offset(group string, tp cluster.TopicPartition) int64 {
	b.t.Helper()
	fetched, err := b.fetch(&Fetch{Group: group, Partitions: []cluster.TopicPartition{tp}})
	require.NoError(b.t, err)
	require.NoError(b.t, fetched[0].Err)
	return fetched[0].Offset
}

// join makes a stable group of one; it returns the member's id.
func (b *bench) join(group string) (id string, generation int32) {
	b.t.Helper()
	joined := make(chan JoinResult, 1)
	b.Join(&Join{
		Group: group, ClientID: "c", ProtocolType: "consumer", SessionTimeout: 10 * time.Second, RebalanceTimeout: 5 * time.Second,
		Protocols: []Protocol{{"range", []byte{0, 0, 0, 0, 0, 1, 0, 1, 't'}}},
	}, func(r JoinResult) { joined <- r })
	r := <-joined
	require.NoError(b.t, r.Err)
	synced := make(chan SyncResult, 1)
	b.Sync(&Sync{Group: group, MemberID: r.MemberID, Generation: r.Generation, Assignments: map[string][]byte{r.MemberID: []byte("all")}},
		func(s SyncResult) { synced <- s })
	s := <-synced
	require.NoError(b.t, s.Err)
	require.Equal(b.t, "all", string(s.Assignment))
	return r.MemberID, r.Generation
}

func (b *bench) delete(group string) error {
	done := make(chan error, 1)
	b.Delete([]string{group}, func(errs []error) { done <- errs[0] })
	return <-done
}

func tp(topic string, partition int32) cluster.TopicPartition {
	return cluster.TopicPartition{Topic: topic, Partition: partition}
}

func (b *bench) state(group string) string {
	d, err := b.Describe(group)
	if err != nil {
		return fmt.Sprint(err)
	}
	return d.State
}
