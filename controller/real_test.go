package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/internal/testzk"
	"ottla/zkcoord"
)

// TestFailoverOverRealZooKeeper creates 5,000 partitions, ends the controller's session, and expects the next controller to be done
// with the election of new leaders within the time that a failover may take.
func TestFailoverOverRealZooKeeper(t *testing.T) {
	if testing.Short() {
		t.Skip("starts ZooKeeper")
	}
	e := testzk.Start(t, 1)
	w := newWorld(t, nil)
	w.quiet = true
	w.connect = func() (zkcoord.Session, func()) {
		c, err := zkcoord.Connect(t.Context(), zkcoord.Options{
			Connect: e.Connect, SessionTimeout: 6 * time.Second, ConnectionTimeout: 20 * time.Second,
			TickTime: testzk.TickTime, SyncLimit: testzk.SyncLimit, Logger: zerolog.Nop(),
		})
		require.NoError(t, err)
		return c.Session(), c.Close
	}
	var end func()
	w.admin, end = w.session()
	defer end()
	require.NoError(t, zkcoord.EnsurePaths(w.admin))
	defer w.close()
	for id := range 3 {
		w.start(cluster.BrokerID(id+1), "")
	}
	require.Eventually(t, func() bool { return w.controller() != nil }, 20*time.Second, 10*time.Millisecond)

	const topics, perTopic = 100, 50
	start := time.Now()
	for n := range topics {
		spec := TopicSpec{Name: fmt.Sprintf("topic-%03d", n), Partitions: perTopic, ReplicationFactor: 3}
		_, err := CreateTopic(w.admin, w.snapshot, mustBrokers(w), spec)
		require.NoError(t, err)
	}
	require.Eventually(t, func() bool { return w.roles() == 3*topics*perTopic }, time.Minute, 10*time.Millisecond)
	t.Logf("%d partitions created and led after %v", topics*perTopic, time.Since(start))

	old := w.controller()
	start = time.Now()
	w.kill(old.id)
	require.Eventually(t, func() bool { return w.controller() != nil }, 30*time.Second, time.Millisecond)
	t.Logf("failover with a third of the leaders gone: %v", time.Since(start))
	require.Eventually(t, w.settled, 30*time.Second, time.Millisecond)
	t.Logf("every broker knows after %v", time.Since(start))
	require.Less(t, time.Since(start), 20*time.Second)
	states, _ := w.states()
	for tp, st := range states {
		require.NotContains(t, st.State.ISR, old.id, "%s", tp)
		require.NotEqual(t, cluster.NoBroker, st.State.Leader, "%s", tp)
	}
}
