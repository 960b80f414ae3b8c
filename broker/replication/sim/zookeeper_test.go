package sim

import (
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/internal/testzk"
	"ottla/zkcoord"
)

// TestModelAnswersLikeZooKeeper does the same random operations on the model and, through the functions that a broker uses, on a
// real server: sessions that open and end, registrations, elections, fenced and conditional writes of states. Every answer and
// everything that can be read must agree.
func TestModelAnswersLikeZooKeeper(t *testing.T) {
	if testing.Short() {
		t.Skip("starts ZooKeeper")
	}
	e := testzk.Start(t, 1)
	w := newWorld(Config{Seed: 1, Brokers: 3, Partitions: 2, Replicas: 3, MinISR: 1})
	w.healed = true // no answer is lost
	p := &pair{t: t, w: w, ensemble: e, rng: rand.New(rand.NewSource(3)), slots: make([]slot, 3)}
	p.open(0)
	require.NoError(t, zkcoord.EnsurePaths(p.slots[0].real.Session()))
	_, err := p.slots[0].real.Session().Create(zkcoord.ControllerEpochPath, []byte("0"), zkcoord.Persistent)
	require.NoError(t, err)
	for i, s := range w.zk.states {
		path := zkcoord.StatePath(tpOf(i))
		require.NoError(t, p.slots[0].real.Session().CreateAll(path, zkcoord.EncodeState(realState(s))))
	}
	counts := map[string]int{}
	for range 400 {
		counts[p.step()]++
		p.compare()
	}
	t.Logf("%v", counts)
	for _, want := range []string{"registered", "not registered", "elected", "not elected", "written", "bad version", "fenced", "session ended"} {
		if counts[want] == 0 {
			t.Errorf("never: %s", want)
		}
	}
	for i := range p.slots {
		p.end(i)
	}
}

// pair is the model and the real thing.
type pair struct {
	t        *testing.T
	w        *world
	ensemble *testzk.Ensemble
	rng      *rand.Rand
	slots    []slot
	newest   cluster.BrokerEpoch // of the real one
}

// slot is one broker's session.
type slot struct {
	id         int // of the broker; two may fight over one
	model      *zkSession
	real       *zkcoord.Client
	epoch      int                 // as which it was elected
	registered cluster.BrokerEpoch // by the real one
}

func tpOf(p int) cluster.TopicPartition {
	return cluster.TopicPartition{Topic: "t", Partition: int32(p)}
}

func realState(s *stateNode) zkcoord.PartitionState {
	return zkcoord.PartitionState{
		Leader: s.leader, ISR: s.isr, LeaderEpoch: s.epoch, ControllerEpoch: cluster.ControllerEpoch(s.controllerEpoch),
	}
}

func (p *pair) open(i int) {
	client, err := zkcoord.Connect(p.t.Context(), zkcoord.Options{
		Connect: p.ensemble.Connect, SessionTimeout: 30 * time.Second, ConnectionTimeout: 20 * time.Second,
		TickTime: testzk.TickTime, SyncLimit: testzk.SyncLimit, Logger: zerolog.Nop(),
	})
	require.NoError(p.t, err)
	id := p.rng.Intn(len(p.slots))
	p.slots[i] = slot{id: id, model: p.w.zk.open(p.w.brokers[id]), real: client}
}

func (p *pair) end(i int) {
	if p.slots[i].real == nil {
		return
	}
	p.slots[i].real.Close()
	p.w.zk.end(p.slots[i].model)
	p.slots[i] = slot{}
}

// step does one operation on both and says what came of it.
func (p *pair) step() string {
	i := p.rng.Intn(len(p.slots))
	s := &p.slots[i]
	if s.real == nil {
		p.open(i)
		return "session opened"
	}
	switch k := p.rng.Intn(10); {
	case k == 0:
		p.end(i)
		return "session ended"
	case k < 3:
		return p.register(s)
	case k < 5:
		return p.elect(s)
	default:
		return p.write(s)
	}
}

func (p *pair) register(s *slot) string {
	_, modelErr := p.w.zk.register(s.model)
	epoch, err := zkcoord.RegisterBroker(s.real.Session(), cluster.BrokerID(s.id), zkcoord.Registration{}, 0)
	var taken *zkcoord.ErrBrokerIDTaken
	switch {
	case err == nil:
		require.NoError(p.t, modelErr)
		if s.registered == 0 {
			require.Greater(p.t, epoch, p.newest, "every registration has a newer epoch")
			s.registered, p.newest = epoch, epoch
		}
		require.Equal(p.t, s.registered, epoch)
		return "registered"
	case errors.As(err, &taken):
		require.ErrorIs(p.t, modelErr, errNodeExists)
		return "not registered"
	default:
		require.NoError(p.t, err)
		return ""
	}
}

func (p *pair) elect(s *slot) string {
	won := p.w.zk.active == s.model
	if !won {
		_, err := p.w.zk.elect(s.model)
		won = err == nil
	}
	election, err := zkcoord.Elect(s.real.Session(), cluster.BrokerID(s.id))
	require.NoError(p.t, err)
	require.Equal(p.t, won, election.Won)
	if !won {
		return "not elected"
	}
	require.Equal(p.t, p.w.zk.epoch, int(election.Epoch))
	require.Equal(p.t, p.w.zk.epoch, int(election.EpochVersion), "the epoch is its znode's version")
	s.epoch = p.w.zk.epoch
	return "elected"
}

// write is a controller's write, of the present or of the past, with the version that is there, or another.
func (p *pair) write(s *slot) string {
	at := p.rng.Intn(len(p.w.zk.states))
	old := p.w.zk.states[at]
	next := old.clone()
	next.epoch++
	next.controllerEpoch = max(old.controllerEpoch, s.epoch)
	next.isr = old.replicas[:1+p.rng.Intn(len(old.replicas))]
	next.leader = cluster.NoBroker
	version := old.version
	if p.rng.Intn(3) == 0 {
		version += cluster.PartitionEpoch(1 - 2*p.rng.Intn(2))
	}
	version = max(version, 0)
	written, modelErr := p.w.zk.setState(at, next, s.epoch, version)
	unit := []zkcoord.Op{zkcoord.SetOp(zkcoord.StatePath(tpOf(at)), zkcoord.EncodeState(realState(next)), int32(version))}
	results, err := zkcoord.WriteFenced(s.real.Session(), int32(s.epoch), [][]zkcoord.Op{unit})
	switch {
	case errors.Is(err, zkcoord.ErrFenced):
		require.ErrorIs(p.t, modelErr, errFenced)
		return "fenced"
	case err == nil && errors.Is(results[0].Err, zkcoord.ErrBadVersion):
		require.ErrorIs(p.t, modelErr, errBadVersion)
		return "bad version"
	default:
		require.NoError(p.t, errors.Join(err, results[0].Err))
		require.NoError(p.t, modelErr)
		require.Equal(p.t, int32(written.(cluster.PartitionEpoch)), results[0].Results[0].Stat.Version)
		return "written"
	}
}

// compare reads everything from both.
func (p *pair) compare() {
	i := slices.IndexFunc(p.slots, func(s slot) bool { return s.real != nil })
	if i < 0 {
		return
	}
	got, err := p.w.zk.read()
	require.NoError(p.t, err)
	model, session := got.(tree), p.slots[i].real.Session()
	brokers, err := zkcoord.Brokers(session)
	require.NoError(p.t, err)
	require.Len(p.t, brokers, len(model.brokers))
	for _, b := range brokers {
		require.Contains(p.t, model.brokers, b.ID)
	}
	controller, found, err := zkcoord.ReadController(session)
	require.NoError(p.t, err)
	require.Equal(p.t, model.active != cluster.NoBroker, found)
	if found {
		require.Equal(p.t, model.active, controller.BrokerID)
	}
	for at, want := range model.states {
		state, ok, err := zkcoord.ReadState(session, tpOf(at))
		require.NoError(p.t, err)
		require.True(p.t, ok)
		require.Equal(p.t, fmt.Sprint(want.version, realState(want)), fmt.Sprint(state.Version, state.State))
	}
}
