package controller

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
	"ottla/zkcoord"
	"ottla/zkcoord/zktest"
)

// inBubble runs a test with brokers 1, 2 and 3, of which only broker 1 stands for controller, and topic t.
func inBubble(t *testing.T, f func(t *testing.T, s *story)) {
	synctest.Test(t, func(t *testing.T) {
		s := &story{w: newWorld(t, nil)}
		defer s.w.close()
		s.run([]string{"members", "2", "3"})
		s.run([]string{"start", "1", "2", "3"})
		s.run([]string{"create", "t", "0:1,2,3", "1:2,3,1"})
		f(t, s)
	})
}

var t0 = cluster.TopicPartition{Topic: "t"}

func (w *world) state(tp cluster.TopicPartition) zkcoord.StateAndVersion {
	st, found, err := zkcoord.ReadState(w.admin, tp)
	require.NoError(w.t, err)
	require.True(w.t, found)
	return st
}

func TestLostAnswerOfAnElectionIsNotRepeated(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		w.brokers[1].session.LoseNext(zkcoord.StatePath(cluster.TopicPartition{Topic: "t", Partition: 1}), zktest.LostAfter)
		s.run([]string{"kill", "2"})
		st := w.state(cluster.TopicPartition{Topic: "t", Partition: 1})
		require.Equal(t, cluster.LeaderEpoch(1), st.State.LeaderEpoch)
		require.Equal(t, cluster.BrokerID(3), st.State.Leader)
		require.Equal(t, int32(1), w.brokers[3].hosted[cluster.TopicPartition{Topic: "t", Partition: 1}].leaderEpoch)
	})
}

func TestLostAnswerOfAlterPartition(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		w.brokers[1].session.LoseNext(zkcoord.StatePath(t0), zktest.LostAfter)
		errorCode, ok := w.propose(t0, []int32{1, 2})
		require.True(t, ok)
		require.Zero(t, errorCode, "it was written, so it is a success")
		require.Equal(t, cluster.PartitionEpoch(1), w.state(t0).Version)
		errorCode, _ = w.propose(t0, []int32{1, 2, 3})
		require.Zero(t, errorCode, "the next proposal goes on from there")
	})
}

func TestAlterPartitionRefreshesAfterForeignWrite(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		st := w.state(t0).State
		st.ISR = []cluster.BrokerID{1, 3}
		_, err := w.admin.Set(zkcoord.StatePath(t0), zkcoord.EncodeState(st), 0) // an old broker writes its set itself
		require.NoError(t, err)
		errorCode, _ := w.propose(t0, []int32{1, 2})
		require.Equal(t, kerr.InvalidUpdateVersion.Code, errorCode)
		synctest.Wait()
		require.Equal(t, int32(1), w.brokers[2].metadata[t0].ZKVersion, "the controller has read it and told all")
		w.brokers[1].hosted[t0].partitionEpoch = 1 // the leader reads the state, too
		errorCode, _ = w.propose(t0, []int32{1, 2, 3})
		require.Zero(t, errorCode)
	})
}

// TestL03StaleAdditionIsRefused: the controller judges an addition before it hears that the follower died and came back.
func TestL03StaleAdditionIsRefused(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		errorCode, _ := w.propose(t0, []int32{1, 2})
		require.Zero(t, errorCode)
		synctest.Wait()
		gate, verdict := make(chan struct{}), make(chan int16, 1)
		ctrl := w.brokers[1].ctrl
		ctrl.queue.put(event{name: "pause", reign: ctrl.currentReign(), run: func() { <-gate }, drop: func() {}})
		go func() {
			errorCode, _ := w.propose(t0, []int32{1, 2, 3})
			verdict <- errorCode
		}()
		synctest.Wait() // the request waits behind the pause
		path := zkcoord.BrokerPath(3)
		data, _, err := w.admin.Get(path)
		require.NoError(t, err)
		_, err = w.admin.Multi(zkcoord.DeleteOp(path, zkcoord.AnyVersion), zkcoord.CreateOp(path, data, zkcoord.Ephemeral))
		require.NoError(t, err)
		close(gate)
		require.Equal(t, kerr.IneligibleReplica.Code, <-verdict)
		require.NotContains(t, w.state(t0).State.ISR, cluster.BrokerID(3))
	})
}

func TestControllerResignsWhenAnotherIsElected(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		reign := w.brokers[1].ctrl.currentReign()
		epoch, version, _, err := zkcoord.ReadControllerEpoch(w.admin)
		require.NoError(t, err)
		_, err = w.admin.Multi(zkcoord.DeleteOp(zkcoord.ControllerPath, zkcoord.AnyVersion),
			zkcoord.CreateOp(zkcoord.ControllerPath, zkcoord.EncodeController(zkcoord.ControllerNode{BrokerID: 9, KRaftEpoch: -1}), zkcoord.Ephemeral),
			zkcoord.SetOp(zkcoord.ControllerEpochPath, []byte("9"), version))
		require.NoError(t, err)
		require.Equal(t, cluster.ControllerEpoch(1), epoch)
		synctest.Wait()
		require.False(t, w.brokers[1].ctrl.Active())

		// What still comes for the old reign does nothing.
		ran, dropped := false, false
		w.brokers[1].ctrl.queue.put(event{name: "late", reign: reign, run: func() { ran = true }, drop: func() { dropped = true }})
		synctest.Wait()
		require.False(t, ran)
		require.True(t, dropped)
		resp := callOn(w.brokers[1], (*Controller).CreateTopics, buildRequest([]string{"create", "u", "0:1"}).(*kmsg.CreateTopicsRequest))
		require.Equal(t, kerr.NotController.Code, resp.Topics[0].ErrorCode)
	})
}

func TestZombieControllerIsFencedByZooKeeper(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		// Its watches are late: the other election shows only in a failed check.
		_, version, _, err := zkcoord.ReadControllerEpoch(w.admin)
		require.NoError(t, err)
		w.brokers[1].ctrl.cancelWatch()
		_, err = w.admin.Multi(zkcoord.DeleteOp(zkcoord.ControllerPath, zkcoord.AnyVersion),
			zkcoord.CreateOp(zkcoord.ControllerPath, zkcoord.EncodeController(zkcoord.ControllerNode{BrokerID: 9, KRaftEpoch: -1}), zkcoord.Ephemeral),
			zkcoord.SetOp(zkcoord.ControllerEpochPath, []byte("9"), version))
		require.NoError(t, err)
		errorCode, answered := w.propose(t0, []int32{1})
		require.False(t, answered, "answered with %d", errorCode)
		require.Equal(t, cluster.PartitionEpoch(0), w.state(t0).Version)
		synctest.Wait()
		require.False(t, w.brokers[1].ctrl.Active())
	})
}

func TestControllerNodeOfOwnSessionIsTakenOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.close()
		w.opened = func(b *fakeBroker) { // the answer of an election was lost in an earlier attempt
			e, err := zkcoord.Elect(b.session, b.id)
			require.NoError(t, err)
			require.True(t, e.Won)
		}
		w.start(1, "")
		synctest.Wait()
		require.True(t, w.brokers[1].ctrl.Active())
	})
}

func TestControllerNodeOfOwnEarlierSessionIsRemoved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.close()
		earlier := w.tree.NewSession()
		e, err := zkcoord.Elect(earlier, 1)
		require.NoError(t, err)
		require.True(t, e.Won)
		w.start(1, "")
		synctest.Wait()
		require.True(t, w.brokers[1].ctrl.Active())
		require.Equal(t, cluster.ControllerEpoch(2), w.brokers[1].ctrl.currentReign().m.epoch)
	})
}

func TestWatchdogStandsInForAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, nil)
		defer w.close()
		e, err := zkcoord.Elect(w.admin, 9)
		require.NoError(t, err)
		w.start(1, "")
		synctest.Wait()
		w.brokers[1].ctrl.cancelWatch()
		require.NoError(t, zkcoord.Resign(w.admin, e.EpochVersion))
		synctest.Wait()
		require.False(t, w.brokers[1].ctrl.Active())
		time.Sleep(2 * watchdogInterval)
		require.True(t, w.brokers[1].ctrl.Active())
	})
}

func TestCloseGivesControllershipUp(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		require.NoError(t, w.brokers[1].ctrl.Close(t.Context()))
		_, found, err := zkcoord.ReadController(w.admin)
		require.NoError(t, err)
		require.False(t, found)
		resp := callOn(w.brokers[1], (*Controller).AlterPartition, &kmsg.AlterPartitionRequest{Version: 3})
		require.Equal(t, kerr.NotController.Code, resp.ErrorCode)
	})
}

func TestAllocateProducerIDs(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		ask := func(id cluster.BrokerID, epoch cluster.BrokerEpoch) *kmsg.AllocateProducerIDsResponse {
			req := kmsg.NewPtrAllocateProducerIDsRequest()
			req.BrokerID, req.BrokerEpoch = int32(id), int64(epoch)
			resp, _ := call(w, (*Controller).AllocateProducerIDs, req)
			return resp
		}
		first, second := ask(2, w.brokers[2].epoch), ask(3, w.brokers[3].epoch)
		require.Zero(t, first.ErrorCode)
		require.Equal(t, int64(0), first.ProducerIDStart)
		require.Equal(t, int64(1000), second.ProducerIDStart)
		require.Equal(t, int32(1000), second.ProducerIDLen)
		require.Equal(t, kerr.StaleBrokerEpoch.Code, ask(2, w.brokers[2].epoch-1).ErrorCode)
		require.Equal(t, kerr.BrokerIDNotRegistered.Code, ask(9, 1).ErrorCode)
	})
}

func TestCreateTopicsEchoesAndWaits(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		var waited []string
		visible := false
		w.brokers[1].ctrl.options.AwaitMetadata = func(deadline time.Time, ready func(Metadata) bool, done func(bool)) {
			waited = append(waited, time.Until(deadline).String())
			done(visible)
		}
		req := buildRequest([]string{"create", "u", "partitions=2", "rf=2", "retention.ms=5"}).(*kmsg.CreateTopicsRequest)
		resp, _ := call(w, (*Controller).CreateTopics, req)
		require.Equal(t, kerr.RequestTimedOut.Code, resp.Topics[0].ErrorCode)
		require.Equal(t, []string{"10s"}, waited)

		visible = true
		req.Topics[0].Topic = "v"
		resp, _ = call(w, (*Controller).CreateTopics, req)
		got := resp.Topics[0]
		require.Zero(t, got.ErrorCode)
		require.Equal(t, int32(2), got.NumPartitions)
		require.Equal(t, int16(2), got.ReplicationFactor)
		node, found, err := zkcoord.ReadTopic(w.admin, "v")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, node.ID, cluster.TopicID(got.TopicID))
		i := slices.IndexFunc(got.Configs, func(c kmsg.CreateTopicsResponseTopicConfig) bool { return c.Name == "retention.ms" })
		require.GreaterOrEqual(t, i, 0)
		require.Equal(t, "5", *got.Configs[i].Value)
		require.Equal(t, int8(1), got.Configs[i].Source)

		req.Topics[0].Topic, req.TimeoutMillis = "x", 0
		resp, _ = call(w, (*Controller).CreateTopics, req)
		require.Equal(t, kerr.RequestTimedOut.Code, resp.Topics[0].ErrorCode, "it was started all the same")
		synctest.Wait()
		require.Equal(t, cluster.LeaderEpoch(0), w.state(cluster.TopicPartition{Topic: "x"}).State.LeaderEpoch)

		req.Topics[0].Topic, req.ValidateOnly = "y", true
		resp, _ = call(w, (*Controller).CreateTopics, req)
		require.Zero(t, resp.Topics[0].ErrorCode)
		_, found, err = zkcoord.ReadTopic(w.admin, "y")
		require.NoError(t, err)
		require.False(t, found)
	})
}

func TestCreateTopicFromAnyBroker(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		session := w.brokers[2].session
		brokers, err := zkcoord.Brokers(session)
		require.NoError(t, err)
		spec := TopicSpec{Name: "auto", Partitions: -1, ReplicationFactor: -1}
		session.LoseNext(zkcoord.TopicPath("auto"), zktest.LostAfter)
		created, err := CreateTopic(session, w.snapshot, brokers, spec)
		require.NoError(t, err)
		require.Equal(t, int32(1), created.Partitions)
		synctest.Wait()
		require.Equal(t, created.Assignment[0][0], w.state(cluster.TopicPartition{Topic: "auto"}).State.Leader)

		_, err = CreateTopic(session, w.snapshot, brokers, spec)
		require.ErrorIs(t, err, kerr.TopicAlreadyExists)
		_, err = CreateTopic(session, w.snapshot, brokers, TopicSpec{Name: "a/b", Partitions: 1, ReplicationFactor: 1})
		require.ErrorIs(t, err, kerr.InvalidTopicException)
	})
}

func TestTopicIDDroppedByAnOldToolIsPutBack(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		before, _, err := zkcoord.ReadTopic(w.admin, "t")
		require.NoError(t, err)
		_, err = w.admin.Set(zkcoord.TopicPath("t"), []byte(`{"version":1,"partitions":{"0":[1,2,3],"1":[2,3,1],"2":[3,1,2]}}`), zkcoord.AnyVersion)
		require.NoError(t, err)
		synctest.Wait()
		after, _, err := zkcoord.ReadTopic(w.admin, "t")
		require.NoError(t, err)
		require.Equal(t, before.ID, after.ID)
		require.Len(t, after.Partitions, 3)
		require.Equal(t, cluster.BrokerID(3), w.state(cluster.TopicPartition{Topic: "t", Partition: 2}).State.Leader)
	})
}

func TestUpdateRequestIsWhatTheLibraryWouldEncode(t *testing.T) {
	m, p := modelOf([]cluster.BrokerID{1, 2}, nil, []cluster.BrokerID{1, 2}, zkcoord.PartitionState{Leader: 1, ISR: []cluster.BrokerID{1, 2}})
	m.brokers[2].Rack = "r"
	m.brokers[2].Endpoints = []cluster.Endpoint{{Listener: "A", Protocol: "SASL_SSL", Host: "h", Port: 3}}
	req := newUpdateBody(m, 1, []*partition{p}).to(77)
	require.Equal(t, req.UpdateMetadataRequest.AppendTo(nil), req.AppendTo(nil))
	require.Equal(t, int64(77), recode(t, req, kmsg.NewPtrUpdateMetadataRequest()).BrokerEpoch)
}

func TestPanicInAnEventEndsTheReign(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		dropped := 0
		w.brokers[1].ctrl.queue.put(event{name: "bad", run: func() { panic("broken") }, drop: func() { dropped++ }})
		synctest.Wait()
		require.Equal(t, 1, dropped)
		require.True(t, w.brokers[1].ctrl.Active(), "it is elected again")
		require.Equal(t, cluster.ControllerEpoch(2), w.brokers[1].ctrl.currentReign().m.epoch)
	})
}

func TestUnreadableZnodesDoNotStopTheController(t *testing.T) {
	inBubble(t, func(t *testing.T, s *story) {
		w := s.w
		set := func(path, data string) {
			if _, err := w.admin.Set(path, []byte(data), zkcoord.AnyVersion); err != nil {
				require.NoError(t, w.admin.CreateAll(path, []byte(data)), path)
			}
		}
		set(zkcoord.StatePath(t0), "{")
		set(zkcoord.TopicPath("bad"), "[]")
		set(zkcoord.BrokerIDsPath+"/nine", "x")
		set(zkcoord.BrokerIDsPath+"/9", "x")
		set(zkcoord.ReassignPartitionsPath, "?")
		set(zkcoord.PreferredElectionPath, "?")
		set(zkcoord.LogDirEventsPath+"/log_dir_event_0000000007", "?")
		set(zkcoord.ISRChangesPath+"/isr_change_0000000007", "?")
		synctest.Wait()
		s.run([]string{"kill", "1"})
		s.run([]string{"start", "1"})
		require.True(t, w.brokers[1].ctrl.Active())
		s.run([]string{"kill", "2"})
		require.Equal(t, cluster.BrokerID(3), w.state(cluster.TopicPartition{Topic: "t", Partition: 1}).State.Leader)
		require.Equal(t, "ok\n", s.run([]string{"create", "u", "0:1,3"}))
	})
}

// L12: a controller that ZooKeeper names and that does not act would leave the cluster without one.
func TestL12ElectedButNobodyActs(t *testing.T) {
	TestControllerNodeOfOwnSessionIsTakenOver(t)
	TestControllerNodeOfOwnEarlierSessionIsRemoved(t)
}
