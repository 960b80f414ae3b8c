package broker

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ottla/zkcoord"
	"ottla/zkcoord/zktest"
)

func TestBrokerStartsServesStopsAndStartsAgain(t *testing.T) {
	tree, s := zktest.NewTree(), settings(t, nil)
	for round := range 3 {
		h := start(t, tree, s)
		if round == 0 {
			h.create("t", 2)
		}
		h.eventually("the topic is led again", func() bool { return h.leads("t", 2) })
		require.Equal(t, int64(round), h.client().produce("t", 1, "x"))
		h.stopped()
		require.NotContains(t, tree.Dump(), "/brokers/ids/1", "the registration goes with the broker")
	}
}

// Whatever a start has opened is closed again when a later step fails, and the next start finds nothing in its way.
func TestBrokerThatFailsAtAnyStepLeavesNothingBehind(t *testing.T) {
	tree, s := zktest.NewTree(), settings(t, nil)
	steps := len(newHouse(t, tree, s).steps())
	for n := range steps {
		h := newHouse(t, tree, s)
		all := h.steps()
		done := 0
		for _, step := range all[:n] {
			if step.start != nil {
				require.NoError(t, step.start(context.Background()), step.name)
			}
			done++
			h.stage.Store(int32(done))
		}
		h.stop(all[:n])
		h.endServing()
		require.NotContains(t, tree.Dump(), "/brokers/ids/1", fmt.Sprint("after ", all[max(0, n-1)].name))
	}
	start(t, tree, s).stopped()
}

func TestBrokerRegistersAnewAfterItsSessionWasLost(t *testing.T) {
	tree := zktest.NewTree()
	h := start(t, tree, settings(t, nil))
	h.create("t", 1)
	c := h.client()
	require.Equal(t, int64(0), c.produce("t", 0, "before"))
	for range 3 {
		old := h.epoch()
		h.zk.Expire()
		require.NotEqual(t, old, h.epoch(), "another registration has another epoch")
		h.eventually("it leads again", func() bool { return h.registered.isOpen() && h.leads("t", 1) })
	}
	require.Equal(t, int64(1), c.produce("t", 0, "after"))
}

func TestBrokerWithoutSessionLeadsNothing(t *testing.T) {
	tree := zktest.NewTree()
	h := start(t, tree, settings(t, nil))
	h.create("t", 1)
	h.sessions.SessionLost(h.zk.Session().ID(), zkcoord.ErrSessionLost)
	require.False(t, h.leads("t", 1))
	require.False(t, h.registered.isOpen())
	require.EqualValues(t, -1, h.epoch())
	require.ErrorIs(t, h.sessions.registered(h.zk.Session(), 99), zkcoord.ErrSessionLost, "a registration that crossed the loss opens nothing")
	require.False(t, h.registered.isOpen())
}

// A session that is lost while the broker registers is followed by the next one.
func TestBrokerOutlivesASessionThatIsLostWhileItStarts(t *testing.T) {
	tree := zktest.NewTree()
	h := newHouse(t, tree, settings(t, nil))
	var first int64 // id of the session that is lost
	lost := make(chan struct{})
	h.connect = func(_ context.Context, o zkcoord.Options) (zooKeeper, error) {
		zk := zktest.NewClient(tree, o.Listener)
		h.zk, first = zk, zk.Session().ID()
		zk.Fake().SetFault(func(call zktest.Call) zktest.Fault {
			select {
			case <-lost:
				return zktest.NoFault
			default:
			}
			if call.Ops[0].Path != zkcoord.BrokerPath(1) {
				return zktest.NoFault
			}
			close(lost)
			go zk.Expire()
			return zktest.LostBefore
		})
		return h.zk, nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	go func() { h.ended <- h.Run(ctx) }()
	t.Cleanup(h.stopped)
	select {
	case <-h.Ready():
	case err := <-h.ended:
		h.ended <- err
		t.Fatal(err)
	case <-time.After(20 * time.Second):
		t.Fatal("the broker does not come up")
	}
	<-lost
	h.eventually("it is registered in the next session", func() bool {
		return h.zk.Session().ID() != first && h.registered.isOpen()
	})
}

func TestBrokerStopsWhileItsSessionIsLost(t *testing.T) {
	tree := zktest.NewTree()
	h := start(t, tree, settings(t, nil))
	h.create("t", 1)
	h.zk.Fake().Disconnect()
	began := time.Now()
	h.stopped()
	require.Less(t, time.Since(began), 20*time.Second)
}
