package broker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
	"ottla/zkcoord/zktest"
)

func told(topic string, id cluster.TopicID, states ...kmsg.UpdateMetadataRequestTopicPartition) *kmsg.UpdateMetadataRequest {
	r := kmsg.NewPtrUpdateMetadataRequest()
	r.Version = 8
	r.ControllerID = 1
	t := kmsg.NewUpdateMetadataRequestTopicState()
	t.Topic, t.TopicID, t.PartitionStates = topic, id, states
	r.TopicStates = append(r.TopicStates, t)
	return r
}

func stateOf(number, leader int32) kmsg.UpdateMetadataRequestTopicPartition {
	p := kmsg.NewUpdateMetadataRequestTopicPartition()
	p.Partition, p.Leader, p.Replicas, p.ISR = number, leader, []int32{1, 2}, []int32{leader}
	return p
}

func TestMetadataMergesWhatIsTold(t *testing.T) {
	c := newMetadataCache()
	first, second := cluster.TopicID{1}, cluster.TopicID{2}
	require.Empty(t, c.update(told("t", first, stateOf(0, 1), stateOf(2, 2))))
	require.Equal(t, 2, c.load().partitions)
	require.Nil(t, c.load().partition("t", 1))
	before := c.load()
	c.update(told("t", first, stateOf(1, 2)))
	require.Nil(t, before.partition("t", 1), "a snapshot never changes")
	require.Equal(t, 3, c.load().partitions)
	require.Equal(t, "t", c.load().names[first])

	// The topic was deleted and made again, with fewer partitions, and this broker missed it.
	c.update(told("t", second, stateOf(0, 2)))
	require.Equal(t, 1, c.load().partitions)
	require.Nil(t, c.load().partition("t", 2))
	require.NotContains(t, c.load().names, first)
	require.Equal(t, "t", c.load().names[second])

	c.update(told("t", cluster.TopicID{}, stateOf(1, 1))) // of a version without ids
	require.Equal(t, second, c.load().topics["t"].id)

	require.Len(t, c.update(told("t", second, stateOf(0, -2), stateOf(1, -2))), 2)
	require.Zero(t, c.load().partitions)
	require.Empty(t, c.load().topics)
	require.Empty(t, c.load().names)
}

func TestMetadataWaitersHearOfEveryUpdateUntilTheyAreContent(t *testing.T) {
	c := newMetadataCache()
	var wg sync.WaitGroup
	for n := range int32(50) {
		done := make(chan struct{})
		var once sync.Once
		wg.Go(func() { <-done })
		c.wait(func(m *metadata) bool {
			if m.partition("t", n) == nil {
				return false
			}
			once.Do(func() { close(done) })
			return true
		})
	}
	for n := range int32(50) {
		wg.Go(func() { c.update(told("t", cluster.TopicID{1}, stateOf(n, 1))) })
	}
	wg.Wait()
	c.update(told("t", cluster.TopicID{1}, stateOf(0, 1)))
	require.Empty(t, c.mu.waiters)
}

func TestGateLetsThroughWhileOpenAndAtItsEndNobodyWaits(t *testing.T) {
	g := newGate()
	require.False(t, g.wait(time.Millisecond))
	go g.open()
	require.True(t, g.wait(10*time.Second))
	g.open()
	g.shut()
	g.shut()
	require.False(t, g.isOpen())
	go g.end()
	require.False(t, g.wait(time.Minute))
	g.open()
	require.True(t, g.wait(time.Minute), "who is registered is served to the end")
}

// blocks hands out blocks of n ids when released.
type blocks struct {
	mu    sync.Mutex
	next  int64
	size  int64
	err   error
	asked int
	gate  chan struct{}
}

func (b *blocks) allocate(ctx context.Context) (int64, int64, error) {
	select {
	case <-b.gate:
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	if b.err != nil {
		return 0, 0, b.err
	}
	b.next += b.size
	return b.next - b.size, b.size, nil
}

func TestProducerIDsAreUniqueAndNobodyIsForgotten(t *testing.T) {
	from := &blocks{size: 7, gate: make(chan struct{})}
	tasks := newTasks()
	p := &producerIDs{serving: t.Context(), allocate: from.allocate, run: tasks.run, log: zerolog.Nop()}
	var mu sync.Mutex
	seen := map[int64]bool{}
	var wg sync.WaitGroup
	for range 500 {
		wg.Add(1)
		p.take(func(id int64, err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			if err != nil || seen[id] {
				t.Errorf("id %d, error %v", id, err)
			}
			seen[id] = true
		})
	}
	close(from.gate)
	wg.Wait()
	tasks.wait()
	require.Len(t, seen, 500)
}

func TestProducerIDsThatDoNotComeAreAskedForAgainByTheClient(t *testing.T) {
	from := &blocks{err: errors.New("no controller"), gate: make(chan struct{})}
	close(from.gate)
	tasks := newTasks()
	p := &producerIDs{serving: t.Context(), allocate: from.allocate, run: tasks.run, log: zerolog.Nop()}
	take := func() (id int64, err error) {
		got := make(chan struct{})
		p.take(func(i int64, e error) { id, err = i, e; close(got) })
		<-got
		tasks.wait()
		return id, err
	}
	_, err := take()
	require.ErrorIs(t, err, kerr.CoordinatorLoadInProgress)
	from.err = nil
	_, err = take() // an empty block is none
	require.ErrorIs(t, err, kerr.CoordinatorLoadInProgress)
	from.size = 1000
	id, err := take()
	require.NoError(t, err)
	require.Zero(t, id)
}

// slowSession answers reads of settings when told to.
type slowSession struct {
	zkcoord.Session
	began, answer chan struct{}
}

func (s *slowSession) GetMany(paths []string) []zkcoord.GetResult {
	results := s.Session.GetMany(paths)
	s.began <- struct{}{}
	<-s.answer
	return results
}

func TestTopicSettingsReadLateDoNotReplaceNewerOnes(t *testing.T) {
	tree := zktest.NewTree()
	session := tree.NewSession()
	defer session.Close()
	require.NoError(t, zkcoord.EnsurePaths(session))
	snapshot := settings(t, nil)
	c := newTopicConfigs()
	c.broker = func() *config.Snapshot { return snapshot }
	c.changed = func(string, *config.Topic) {}
	set := func(value string) {
		path := "/config/topics/t"
		text := []byte(fmt.Sprintf(`{"version":1,"config":{"retention.ms":"%s"}}`, value))
		if _, err := session.Set(path, text, zkcoord.AnyVersion); errors.Is(err, zkcoord.ErrNoNode) {
			require.NoError(t, session.CreateAll(path, text))
		}
	}
	set("1000")
	slow := &slowSession{session, make(chan struct{}), make(chan struct{})}
	late := make(chan error)
	go func() { late <- c.load(slow, []string{"t"}) }()
	<-slow.began
	set("2000")
	require.NoError(t, c.load(session, []string{"t"}))
	close(slow.answer)
	require.NoError(t, <-late)
	require.Equal(t, "2000", c.mu.overrides["t"]["retention.ms"])
	require.Empty(t, c.mu.newest)

	// And of a topic that was deleted meanwhile nothing stays.
	slow = &slowSession{session, make(chan struct{}), make(chan struct{})}
	go func() { late <- c.load(slow, []string{"t"}) }()
	<-slow.began
	c.forget("t")
	close(slow.answer)
	require.NoError(t, <-late)
	require.NotContains(t, c.mu.overrides, "t")

	c.orDefault("made-up-by-a-client")
	require.NotContains(t, c.mu.resolved, "made-up-by-a-client")
}

func TestRequestToAHangingControllerEndsWhenAnotherIsKnown(t *testing.T) {
	l := newControllerLink()
	l.metadata = newMetadataCache()
	l.self = 3
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	know := func(controller int32) {
		r := kmsg.NewPtrUpdateMetadataRequest()
		r.Version, r.ControllerID = 8, controller
		l.metadata.update(r)
		l.wake()
	}
	know(1)
	var wg sync.WaitGroup
	wg.Go(func() { l.giveUpLoop(ctx, cancel, 1) })
	know(1)
	require.NoError(t, ctx.Err())
	know(2)
	wg.Wait()
	require.Error(t, ctx.Err())

	// One that is known to be over before the request is sent is not waited for either.
	ctx, cancel = context.WithCancel(t.Context())
	defer cancel()
	l.giveUpLoop(ctx, cancel, 1)
	require.Error(t, ctx.Err())
}

func TestListsOfSettingsAreAppendedToAndSubtractedFrom(t *testing.T) {
	for _, row := range []struct {
		have, change string
		appending    bool
		want         string
	}{
		{"delete", "compact", true, "delete,compact"},
		{"delete,compact", "compact", true, "delete,compact"},
		{"", "a,b", true, "a,b"},
		{"a,b,c", "b", false, "a,c"},
		{"a", "a,b", false, ""},
		{"a", "", true, "a"},
	} {
		require.Equal(t, row.want, changeList(row.have, row.change, row.appending), "%+v", row)
	}
}
