package zkcoord_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/zkcoord"
	"ottla/zkcoord/zktest"
)

// newTree returns a tree as the first broker leaves it, and a session on it.
func newTree(t *testing.T) (*zktest.Tree, *zktest.FakeSession) {
	t.Helper()
	tree := zktest.NewTree()
	s := openFake(t, tree)
	require.NoError(t, zkcoord.EnsurePaths(s))
	return tree, s
}

func openFake(t *testing.T, tree *zktest.Tree) *zktest.FakeSession {
	t.Helper()
	s := tree.NewSession()
	t.Cleanup(s.Close)
	return s
}

func registration(port int32) zkcoord.Registration {
	return zkcoord.Registration{
		Endpoints: []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: "h", Port: port}}, Rack: "r", JMXPort: -1,
		Timestamp: time.UnixMilli(1700000000000),
	}
}

func TestEnsurePathsTwice(t *testing.T) {
	_, s := newTree(t)
	require.NoError(t, zkcoord.EnsurePaths(s))
	names, _, err := s.Children("/config")
	require.NoError(t, err)
	slices.Sort(names)
	require.Equal(t, []string{"brokers", "changes", "clients", "ips", "topics", "users"}, names)
}

func TestClusterIDIsMadeOnce(t *testing.T) {
	tree, s := newTree(t)
	s.LoseNext(zkcoord.ClusterIDPath, zktest.LostAfter)
	id, err := zkcoord.ClusterID(s)
	require.NoError(t, err)
	require.Len(t, id, 22)
	again, err := zkcoord.ClusterID(openFake(t, tree))
	require.NoError(t, err)
	require.Equal(t, id, again)
}

func TestNextBrokerID(t *testing.T) {
	_, s := newTree(t)
	for _, want := range []cluster.BrokerID{1001, 1002} {
		id, err := zkcoord.NextBrokerID(s, 1000)
		require.NoError(t, err)
		require.Equal(t, want, id)
	}
	_, err := zkcoord.NextBrokerID(s, 1<<31-1)
	require.ErrorIs(t, err, zkcoord.ErrInvalid)
}

func TestRegisterBroker(t *testing.T) {
	_, s := newTree(t)
	epoch, err := zkcoord.RegisterBroker(s, 1, registration(9092), 0)
	require.NoError(t, err)
	_, stat, err := s.Get(zkcoord.BrokerPath(1))
	require.NoError(t, err)
	require.Equal(t, int64(epoch), stat.Czxid)
	require.EqualValues(t, 1, stat.Version)
	require.Equal(t, s.ID(), stat.EphemeralOwner)

	require.NoError(t, zkcoord.UpdateRegistration(s, 1, registration(9093)))
	brokers, err := zkcoord.Brokers(s)
	require.NoError(t, err)
	require.Equal(t, []cluster.Broker{{ID: 1, Epoch: epoch, Rack: "r", Endpoints: registration(9093).Endpoints}}, brokers)

	again, err := zkcoord.RegisterBroker(s, 1, registration(9094), 0)
	require.NoError(t, err)
	require.Equal(t, epoch, again, "the epoch of this session's registration stays")
	broker, found, err := zkcoord.ReadBroker(s, 1)
	require.NoError(t, err)
	require.True(t, found)
	require.EqualValues(t, 9094, broker.Endpoints[0].Port)
}

func TestRegisterBrokerSurvivesLostAnswers(t *testing.T) {
	for _, fault := range []zktest.Fault{zktest.LostBefore, zktest.LostAfter} {
		_, s := newTree(t)
		s.LoseNext(zkcoord.BrokerPath(1), fault)
		epoch, err := zkcoord.RegisterBroker(s, 1, registration(9092), 0)
		require.NoError(t, err)
		_, stat, err := s.Get(zkcoord.BrokerPath(1))
		require.NoError(t, err)
		require.Equal(t, int64(epoch), stat.Czxid)
	}
}

func TestRegisterBrokerTakesOverItsPreviousSession(t *testing.T) {
	tree, old := newTree(t)
	first, err := zkcoord.RegisterBroker(old, 1, registration(9092), 0)
	require.NoError(t, err)
	s := openFake(t, tree)
	_, err = zkcoord.RegisterBroker(s, 1, registration(9092), 0)
	var taken *zkcoord.ErrBrokerIDTaken
	require.ErrorAs(t, err, &taken)
	require.Equal(t, old.ID(), taken.Owner)
	require.Equal(t, registration(9092).Endpoints, taken.Registration.Endpoints)
	require.Contains(t, err.Error(), "another broker has this id")

	second, err := zkcoord.RegisterBroker(s, 1, registration(9092), old.ID())
	require.NoError(t, err)
	require.Greater(t, second, first)
	old.Expire()
	found, _, err := s.Exists(zkcoord.BrokerPath(1))
	require.NoError(t, err)
	require.True(t, found, "the registration belongs to the new session")
}

func TestOneStrayRegistrationDoesNotHideTheOthers(t *testing.T) {
	_, s := newTree(t)
	_, err := zkcoord.RegisterBroker(s, 2, registration(1), 0)
	require.NoError(t, err)
	require.NoError(t, s.CreateAll("/brokers/ids/stray", nil))
	require.NoError(t, s.CreateAll("/brokers/ids/3", []byte("{")))
	brokers, err := zkcoord.Brokers(s)
	require.Len(t, brokers, 1)
	var bad *zkcoord.BadNodesError
	require.ErrorAs(t, err, &bad)
	require.Len(t, bad.Nodes, 2)
}

func TestElectAndResign(t *testing.T) {
	tree, a := newTree(t)
	b := openFake(t, tree)
	won, err := zkcoord.Elect(a, 1)
	require.NoError(t, err)
	require.True(t, won.Won)
	require.EqualValues(t, 1, won.Epoch)
	require.EqualValues(t, 1, won.EpochVersion)
	require.Equal(t, a.ID(), won.Current.EphemeralOwner)

	lost, err := zkcoord.Elect(b, 2)
	require.NoError(t, err)
	require.False(t, lost.Won)
	require.EqualValues(t, 1, lost.Current.BrokerID)

	again, err := zkcoord.Elect(a, 1)
	require.NoError(t, err)
	require.Equal(t, won, again, "electing again finds the same election")

	require.NoError(t, zkcoord.Resign(a, won.EpochVersion))
	require.NoError(t, zkcoord.Resign(a, won.EpochVersion))
	next, err := zkcoord.Elect(b, 2)
	require.NoError(t, err)
	require.True(t, next.Won)
	require.EqualValues(t, 2, next.Epoch)
	require.ErrorIs(t, zkcoord.Resign(a, won.EpochVersion), zkcoord.ErrFenced)
	current, found, err := zkcoord.ReadController(a)
	require.NoError(t, err)
	require.True(t, found)
	require.EqualValues(t, 2, current.BrokerID)
}

func TestElectSurvivesLostAnswers(t *testing.T) {
	for _, path := range []string{zkcoord.ControllerPath, zkcoord.ControllerEpochPath} {
		for _, fault := range []zktest.Fault{zktest.LostBefore, zktest.LostAfter} {
			_, s := newTree(t)
			s.LoseNext(path, fault)
			won, err := zkcoord.Elect(s, 1)
			require.NoError(t, err)
			require.True(t, won.Won)
			require.EqualValues(t, 1, won.Epoch)
			s.LoseNext(zkcoord.ControllerPath, fault)
			require.NoError(t, zkcoord.Resign(s, won.EpochVersion))
			_, found, err := zkcoord.ReadController(s)
			require.NoError(t, err)
			require.False(t, found)
		}
	}
}

func TestElectDoesNotTakeAnOldSessionsNodeForItsOwn(t *testing.T) {
	tree, old := newTree(t)
	_, err := zkcoord.Elect(old, 1)
	require.NoError(t, err)
	s := openFake(t, tree)
	e, err := zkcoord.Elect(s, 1)
	require.NoError(t, err)
	require.False(t, e.Won)
	require.EqualValues(t, 1, e.Current.BrokerID)
	require.NoError(t, zkcoord.RemoveController(s, e.Current))
	e2, err := zkcoord.Elect(s, 1)
	require.NoError(t, err)
	require.True(t, e2.Won)
	require.EqualValues(t, 2, e2.Epoch)
	require.ErrorIs(t, zkcoord.RemoveController(s, e.Current), zkcoord.ErrFenced)
}

// TestElectionRace: N contenders, in sessions that die and answers that get lost, and never two with one epoch.
func TestElectionRace(t *testing.T) {
	tree, _ := newTree(t)
	electionRace(t, 5, 20, func() (zkcoord.Session, func()) {
		s := tree.NewSession()
		var n atomic.Int32
		s.SetFault(func(zktest.Call) zktest.Fault {
			return []zktest.Fault{zktest.NoFault, zktest.LostAfter, zktest.LostBefore}[n.Add(1)%3]
		})
		return s, s.Close
	})
}

func electionRace(t *testing.T, contenders, rounds int, open func() (zkcoord.Session, func())) {
	t.Helper()
	var mu sync.Mutex
	winners := map[cluster.ControllerEpoch]int{}
	var wg sync.WaitGroup
	for id := range contenders {
		wg.Go(func() {
			for range rounds {
				s, closeSession := open()
				e, err := zkcoord.Elect(s, cluster.BrokerID(id))
				if err != nil {
					t.Error(err)
				}
				if e.Won {
					mu.Lock()
					winners[e.Epoch]++
					mu.Unlock()
					if id%2 == 0 {
						if err := zkcoord.Resign(s, e.EpochVersion); err != nil {
							t.Error(err)
						}
					}
				}
				closeSession()
			}
		})
	}
	wg.Wait()
	last := cluster.ControllerEpoch(0)
	for _, epoch := range slices.Sorted(maps.Keys(winners)) {
		if winners[epoch] != 1 || epoch != last+1 {
			t.Errorf("epoch %d after %d has %d winners", epoch, last, winners[epoch])
		}
		last = epoch
	}
	if last == 0 {
		t.Error("nobody ever won")
	}
}

func TestWriteFenced(t *testing.T) {
	_, s := newTree(t)
	e, err := zkcoord.Elect(s, 1)
	require.NoError(t, err)
	var units [][]zkcoord.Op
	for p := range 500 {
		tp := cluster.TopicPartition{Topic: "t", Partition: int32(p)}
		var unit []zkcoord.Op
		if p == 0 {
			unit = append(unit, zkcoord.CreateOp(zkcoord.TopicPath("t"), nil, zkcoord.Persistent), zkcoord.CreateOp(zkcoord.PartitionsPath("t"), nil, zkcoord.Persistent))
		}
		if p == 333 {
			unit = append(unit, zkcoord.SetOp("/brokers/ids", nil, 77)) // fails, alone
		}
		units = append(units, append(unit,
			zkcoord.CreateOp(zkcoord.PartitionPath(tp), nil, zkcoord.Persistent),
			zkcoord.CreateOp(zkcoord.StatePath(tp), zkcoord.EncodeState(zkcoord.PartitionState{ISR: []cluster.BrokerID{1}}), zkcoord.Persistent)))
	}
	results, err := zkcoord.WriteFenced(s, e.EpochVersion, units)
	require.NoError(t, err)
	for p, r := range results {
		if p == 333 {
			require.ErrorIs(t, r.Err, zkcoord.ErrBadVersion)
			require.Len(t, r.Results, 3)
			require.ErrorIs(t, r.Results[0].Err, zkcoord.ErrBadVersion)
			continue
		}
		require.NoError(t, r.Err)
		require.Len(t, r.Results, len(units[p]))
	}
	names, _, err := s.Children(zkcoord.PartitionsPath("t"))
	require.NoError(t, err)
	require.Len(t, names, 499)

	_, err = zkcoord.WriteFenced(s, e.EpochVersion-1, units[:1])
	require.ErrorIs(t, err, zkcoord.ErrFenced)
	_, err = zkcoord.Fenced(s, e.EpochVersion-1, zkcoord.DeleteOp("/x", 0))
	require.ErrorIs(t, err, zkcoord.ErrFenced)
	_, err = zkcoord.Fenced(s, e.EpochVersion, zkcoord.DeleteOp("/x", 0))
	require.ErrorIs(t, err, zkcoord.ErrNoNode)
	require.NotErrorIs(t, err, zkcoord.ErrFenced)
}

func TestTopicsAndStates(t *testing.T) {
	_, s := newTree(t)
	node := zkcoord.TopicNode{
		ID: cluster.NewTopicID(), Partitions: map[int32][]cluster.BrokerID{0: {1, 2}, 1: {2}}, Adding: map[int32][]cluster.BrokerID{0: {1}},
		Removing: map[int32][]cluster.BrokerID{},
	}
	require.NoError(t, s.CreateAll(zkcoord.TopicPath("a"), zkcoord.EncodeTopic(node)))
	require.NoError(t, s.CreateAll(zkcoord.TopicPath("broken"), []byte("nonsense")))
	topics, err := zkcoord.Topics(s)
	var bad *zkcoord.BadNodesError
	require.ErrorAs(t, err, &bad)
	require.Empty(t, cmp.Diff(map[string]zkcoord.TopicNode{"a": node}, topics))

	tp := cluster.TopicPartition{Topic: "a", Partition: 0}
	state := zkcoord.PartitionState{Leader: cluster.NoBroker, LeaderEpoch: 4, ISR: []cluster.BrokerID{2}, ControllerEpoch: 1}
	require.NoError(t, s.CreateAll(zkcoord.StatePath(tp), zkcoord.EncodeState(state)))
	states, err := zkcoord.States(s, []cluster.TopicPartition{tp, {Topic: "a", Partition: 1}})
	require.NoError(t, err)
	_, stat, err := s.Exists(zkcoord.StatePath(tp))
	require.NoError(t, err)
	require.Equal(t, map[cluster.TopicPartition]zkcoord.StateAndVersion{tp: {State: state, Zxid: stat.Mzxid}}, states)
}

func TestWriteStateComparesAfterALostAnswer(t *testing.T) {
	_, s := newTree(t)
	tp := cluster.TopicPartition{Topic: "a", Partition: 0}
	state := zkcoord.PartitionState{Leader: 1, ISR: []cluster.BrokerID{1, 2}}
	require.NoError(t, s.CreateAll(zkcoord.StatePath(tp), zkcoord.EncodeState(state)))
	for i, fault := range []zktest.Fault{zktest.NoFault, zktest.LostBefore, zktest.LostAfter} {
		s.LoseNext(zkcoord.StatePath(tp), fault)
		state.LeaderEpoch++
		version, err := zkcoord.WriteState(s, tp, state, cluster.PartitionEpoch(i))
		require.NoError(t, err)
		require.EqualValues(t, i+1, version)
	}
	_, err := zkcoord.WriteState(s, tp, state, 1)
	require.ErrorIs(t, err, zkcoord.ErrBadVersion)
}

func TestConfigs(t *testing.T) {
	_, s := newTree(t)
	want := map[string]string{"cleanup.policy": "compact"}
	require.ErrorIs(t, zkcoord.WriteConfig(s, zkcoord.EntityTopics, "orders", want), zkcoord.ErrNoController)
	_, err := zkcoord.Elect(s, 1)
	require.NoError(t, err)
	for range 2 { // create, set
		require.NoError(t, zkcoord.WriteConfig(s, zkcoord.EntityTopics, "orders", want))
	}
	got, err := zkcoord.ReadConfig(s, zkcoord.EntityTopics, "orders")
	require.NoError(t, err)
	require.Equal(t, want, got)
	got, err = zkcoord.ReadConfig(s, zkcoord.EntityTopics, "none")
	require.NoError(t, err)
	require.Empty(t, got)

	client := zkcoord.SanitizeEntity("us er") + "/clients/" + zkcoord.DefaultEntity
	require.NoError(t, zkcoord.WriteConfig(s, zkcoord.EntityUsers, client, map[string]string{"producer_byte_rate": "1"}))
	require.NoError(t, zkcoord.WriteConfig(s, zkcoord.EntityUsers, client, nil))
	found, _, err := s.Exists(zkcoord.ConfigEntityPath(zkcoord.EntityUsers, client))
	require.NoError(t, err)
	require.False(t, found)
	names, err := zkcoord.EntityNames(s, zkcoord.EntityUsers)
	require.NoError(t, err)
	require.Empty(t, names, "a user of whom nothing is left goes with its last client")
}

func TestConfigChangesAreHeardInOrder(t *testing.T) {
	tree, s := newTree(t)
	writer := openFake(t, tree)
	require.NoError(t, zkcoord.NotifyConfigChange(writer, "topics/before"))
	heard := make(chan string, 100)
	c, err := zkcoord.WatchConfigChanges(s, zerolog.Nop(), func(path string) { heard <- path })
	require.NoError(t, err)
	defer c.Close()
	require.Equal(t, "topics/before", <-heard)
	_, err = writer.Create("/config/changes/config_change_", []byte("nonsense"), zkcoord.PersistentSequential)
	require.NoError(t, err)
	for i := range 50 {
		require.NoError(t, zkcoord.NotifyConfigChange(writer, fmt.Sprint("topics/", i)))
	}
	for i := range 50 {
		require.Equal(t, fmt.Sprint("topics/", i), <-heard)
	}
	c.Close()
	require.NoError(t, zkcoord.NotifyConfigChange(writer, "topics/after"))
	require.Empty(t, heard)
}

func TestProducerIDsAreNeverGivenTwice(t *testing.T) {
	tree, s := newTree(t)
	first, count, err := zkcoord.AllocateProducerIDs(s, 1)
	require.NoError(t, err)
	require.EqualValues(t, 0, first)
	require.EqualValues(t, 1000, count)
	var mu sync.Mutex
	seen := map[int64]bool{0: true}
	var wg sync.WaitGroup
	for id := range 4 {
		s := openFake(t, tree)
		s.LoseNext(zkcoord.ProducerIDBlockPath, zktest.LostAfter)
		wg.Go(func() {
			for range 20 {
				first, _, err := zkcoord.AllocateProducerIDs(s, cluster.BrokerID(id))
				mu.Lock()
				if err != nil || seen[first] || first%1000 != 0 {
					t.Errorf("%d %v", first, err)
				}
				seen[first] = true
				mu.Unlock()
			}
		})
	}
	wg.Wait()
}

func TestAdminRequests(t *testing.T) {
	_, s := newTree(t)
	s.LoseNext(zkcoord.DeleteTopicPath("a"), zktest.LostAfter)
	require.NoError(t, zkcoord.RequestTopicDeletion(s, "a"))
	require.ErrorIs(t, zkcoord.RequestTopicDeletion(s, "a"), zkcoord.ErrNodeExists)
	names, err := zkcoord.TopicDeletions(s)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, names)

	_, found, err := zkcoord.ReadReassignment(s)
	require.NoError(t, err)
	require.False(t, found)
	want := map[cluster.TopicPartition][]cluster.BrokerID{{Topic: "a", Partition: 1}: {1, 2}}
	require.NoError(t, s.CreateAll(zkcoord.ReassignPartitionsPath, zkcoord.EncodeReassignment(want)))
	r, found, err := zkcoord.ReadReassignment(s)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, want, r.Partitions)

	tps := []cluster.TopicPartition{{Topic: "a", Partition: 1}, {Topic: "b", Partition: 0}}
	require.NoError(t, s.CreateAll(zkcoord.PreferredElectionPath, zkcoord.EncodePartitions(tps)))
	got, found, err := zkcoord.ReadPreferredElection(s)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, tps, got)

	require.NoError(t, zkcoord.NotifyISRChange(s, tps))
	changes, err := zkcoord.ISRChanges(s)
	require.NoError(t, err)
	require.Equal(t, []zkcoord.ISRChange{{Path: "/isr_change_notification/isr_change_0000000000", Partitions: tps}}, changes)
	require.NoError(t, zkcoord.NotifyLogDirFailure(s, 2))
	events, err := zkcoord.LogDirEvents(s)
	require.NoError(t, err)
	require.Equal(t, []zkcoord.LogDirEvent{{Path: "/log_dir_event_notification/log_dir_event_0000000000", Broker: 2, Event: 1}}, events)
}

func TestFeatures(t *testing.T) {
	_, s := newTree(t)
	for range 2 {
		require.NoError(t, zkcoord.EnsureFeatures(s))
	}
	f, found, err := zkcoord.ReadFeatures(s)
	require.NoError(t, err)
	require.True(t, found)
	require.Equal(t, zkcoord.Features{Enabled: true, Finalized: map[string]zkcoord.FeatureRange{}}, f)
}

func TestOffsets(t *testing.T) {
	_, s := newTree(t)
	want := map[cluster.TopicPartition]int64{}
	for p := range int32(250) {
		want[cluster.TopicPartition{Topic: "orders", Partition: p}] = int64(p) * 1e10
	}
	tps := slices.Collect(maps.Keys(want))
	for range 2 { // create, set
		require.Empty(t, zkcoord.WriteOffsets(s, "g", want))
		got, err := zkcoord.ReadOffsets(s, "g", append(tps, cluster.TopicPartition{Topic: "other"}))
		require.NoError(t, err)
		require.Equal(t, want, got)
		for tp := range want {
			want[tp]++
		}
	}
	listed, err := zkcoord.GroupPartitions(s, "g")
	require.NoError(t, err)
	require.Len(t, listed, 250)
	groups, err := zkcoord.Groups(s)
	require.NoError(t, err)
	require.Equal(t, []string{"g"}, groups)
	data, _, err := s.Get("/consumers/g/offsets/orders/1")
	require.NoError(t, err)
	require.Equal(t, "10000000001", string(data))

	failed := zkcoord.WriteOffsets(s, "../g", map[cluster.TopicPartition]int64{{Topic: "t"}: 1})
	require.Len(t, failed, 1)
	_, err = zkcoord.ReadOffsets(s, "a/b", nil)
	require.True(t, errors.Is(err, zkcoord.ErrInvalid))
}
