package partition

import (
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/replication"
	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

func TestSingleReplicaAppendsReadsAndLists(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(0, []int32{1}, []int32{1})
	for i, acks := range []int16{0, 1, -1} {
		r, _ := produce(t, p, 10, acks)
		require.NotNil(t, r, "a sole replica commits at once")
		require.NoError(t, r.Err)
		require.Equal(t, int64(10*i), r.BaseOffset)
		require.Equal(t, int64(10*i+9), r.LastOffset)
	}
	out, err := p.Read(consume(0))
	require.NoError(t, err)
	require.False(t, out.Slice.Empty())
	require.Equal(t, int64(30), out.HighWatermark)
	require.Equal(t, int64(30), out.LogEndOffset)
	buf := make([]byte, out.Slice.Len)
	_, err = out.Slice.ReadAt(buf, 0)
	require.NoError(t, err)
	out.Slice.Release()
	batch, _, err := logstore.NextBatch(buf)
	require.NoError(t, err)
	require.Equal(t, int64(0), batch.BaseOffset())

	out, err = p.Read(consume(30))
	require.NoError(t, err)
	require.True(t, out.Slice.Empty())
	_, err = p.Read(consume(31))
	require.ErrorIs(t, err, kerr.OffsetOutOfRange)

	for ts, want := range map[int64]int64{LatestTimestamp: 30, EarliestTimestamp: 0, 1005: 5, 5000: -1, LatestTieredTimestamp: -1} {
		got, err := p.ListOffset(ts, ReadUncommitted, cluster.NoLeaderEpoch, Consumer)
		require.NoError(t, err)
		require.Equal(t, want, got.Offset, "timestamp %d", ts)
	}
	_, err = p.ListOffset(-9, ReadUncommitted, cluster.NoLeaderEpoch, Consumer)
	require.ErrorIs(t, err, kerr.UnsupportedVersion)
	s := p.Snapshot()
	require.Equal(t, replication.Leader, s.Role)
	require.Equal(t, topicID, s.TopicID)
}

func TestAllAcksWaitForFollowers(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(0, []int32{1, 2}, []int32{1, 2})
	r, later := produce(t, p, 3, -1)
	require.Nil(t, r)
	out, err := p.Read(fetchAs(2, 0, 0))
	require.NoError(t, err)
	require.False(t, out.Slice.Empty(), "followers read beyond the high watermark")
	out.Slice.Release()
	select {
	case <-later:
		t.Fatal("acknowledged before the follower has it")
	default:
	}
	consumed, err := p.Read(consume(0))
	require.NoError(t, err)
	require.True(t, consumed.Slice.Empty(), "nothing is committed")

	_, err = p.Read(fetchAs(2, 0, 3))
	require.NoError(t, err)
	got := <-later
	require.NoError(t, got.Err)
	require.Equal(t, int64(0), got.BaseOffset)
	require.Equal(t, int64(3), p.Log().HighWatermark())
}

func TestAppendTimesOut(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(0, []int32{1, 2}, []int32{1, 2})
	ch := make(chan AppendResult, 2)
	for _, timeout := range []time.Duration{30 * time.Millisecond, 10 * time.Millisecond} {
		p.Append(AppendRequest{Records: records(t, 1), Acks: -1, Timeout: timeout, ProduceVersion: 9}, func(r AppendResult) { ch <- r })
	}
	require.ErrorIs(t, (<-ch).Err, kerr.RequestTimedOut)
	require.ErrorIs(t, (<-ch).Err, kerr.RequestTimedOut)
	require.Zero(t, p.mu.appends.len())
}

func TestAppendBelowMinISR(t *testing.T) {
	b := newBench(t, nil)
	b.topic.MinISR = 2
	p := b.lead(0, []int32{1}, []int32{1, 2})
	r, _ := produce(t, p, 1, -1)
	require.ErrorIs(t, r.Err, kerr.NotEnoughReplicas)
	require.Equal(t, int64(0), p.Log().LogEndOffset(), "nothing is written")
	r, _ = produce(t, p, 1, 1)
	require.NoError(t, r.Err)
	require.Equal(t, int64(0), p.Log().HighWatermark(), "frozen below the minimum")
	b.topic.MinISR = 1
	b.set.TopicConfigChanged("t")
	require.Equal(t, int64(1), p.Log().HighWatermark())
}

func TestDemotionEndsWaitsAndAppends(t *testing.T) {
	for name, leader := range map[string]int32{"to a follower": 2, "to nobody": -1, "to somebody unknown": 99} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, nil)
			b.dead[99] = true
			p := b.lead(0, []int32{1, 2}, []int32{1, 2})
			_, later := produce(t, p, 1, -1)
			require.NoError(t, b.decide(decisionFor{leader: leader, epoch: 1, isr: []int32{2}, replicas: []int32{1, 2}}))
			require.ErrorIs(t, (<-later).Err, kerr.NotLeaderForPartition)
			r, _ := produce(t, p, 1, 1)
			require.ErrorIs(t, r.Err, kerr.NotLeaderForPartition)
			require.Equal(t, cluster.BrokerID(leader), r.CurrentLeader)
			require.Equal(t, cluster.LeaderEpoch(1), r.CurrentEpoch)
		})
	}
}

func TestLeaderAndISRVerdicts(t *testing.T) {
	b := newBench(t, nil)
	require.Equal(t, kerr.StaleBrokerEpoch.Code, b.decideFull(decisionFor{broker: 9}).ErrorCode)
	require.NoError(t, b.decide(decisionFor{leader: 1, epoch: 5, version: 5, isr: []int32{1}, replicas: []int32{1}, isNew: true, ctl: 3}))
	require.Equal(t, kerr.StaleControllerEpoch.Code, b.decideFull(decisionFor{ctl: 2}).ErrorCode)
	base := decisionFor{leader: 1, epoch: 6, version: 6, isr: []int32{1}, replicas: []int32{1}, ctl: 3, broker: 11}
	for name, c := range map[string]struct {
		change func(*decisionFor)
		want   error
	}{
		"equal epoch":             {func(d *decisionFor) { d.epoch = 5 }, kerr.StaleControllerEpoch},
		"smaller epoch":           {func(d *decisionFor) { d.epoch = 4 }, kerr.StaleControllerEpoch},
		"not assigned":            {func(d *decisionFor) { d.replicas = []int32{2} }, kerr.UnknownTopicOrPartition},
		"another topic id":        {func(d *decisionFor) { d.id = cluster.TopicID{9} }, kerr.InconsistentTopicID},
		"smaller partition epoch": {func(d *decisionFor) { d.version = 4 }, nil},
	} {
		d := base
		c.change(&d)
		require.ErrorIs(t, b.decide(d), c.want, name)
		epoch, _ := b.get().IsLeader()
		require.Equal(t, cluster.LeaderEpoch(5), epoch, name)
	}
	require.NoError(t, b.decide(base))
	_, err := b.set.Get("t", 1)
	require.ErrorIs(t, err, kerr.UnknownTopicOrPartition)
}

func TestOldLeaderAndISRAnswersByName(t *testing.T) {
	b := newBench(t, nil)
	for _, version := range []int16{0, 1, 2, 3, 4} {
		resp := b.decideFull(decisionFor{leader: 1, epoch: int32(version), isr: []int32{1}, replicas: []int32{1}, isNew: true, wire: version + 1})
		require.Zero(t, resp.ErrorCode)
		require.Empty(t, resp.Topics)
		require.Len(t, resp.Partitions, 1)
		require.Equal(t, "t", resp.Partitions[0].Topic)
		require.Zero(t, resp.Partitions[0].ErrorCode, "version %d", version)
	}
	require.True(t, b.get().TopicID().IsZero())
	// An equal epoch may still tell the topic's id.
	require.NoError(t, b.decide(decisionFor{leader: 1, epoch: 4, isr: []int32{1}, replicas: []int32{1}}))
	require.Equal(t, topicID, b.get().TopicID())
	require.ErrorIs(t, b.decide(decisionFor{leader: 1, epoch: 4, isr: []int32{1}, replicas: []int32{1}}), kerr.StaleControllerEpoch)
}

func stopRequest(epoch int32, del bool) *kmsg.StopReplicaRequest {
	req := kmsg.NewPtrStopReplicaRequest()
	req.Version = 4
	topic := kmsg.NewStopReplicaRequestTopic()
	topic.Topic = "t"
	p := kmsg.NewStopReplicaRequestTopicPartitionState()
	p.LeaderEpoch, p.Delete = epoch, del
	topic.PartitionStates = append(topic.PartitionStates, p)
	req.Topics = append(req.Topics, topic)
	return req
}

func TestStopReplica(t *testing.T) {
	b := newBench(t, nil)
	var resigned []*Partition
	b.set.OnLeadershipChange(func(_, gone []*Partition) { resigned = append(resigned, gone...) })
	p := b.lead(3, []int32{1, 2}, []int32{1, 2})
	_, later := produce(t, p, 1, -1)
	require.Equal(t, kerr.FencedLeaderEpoch.Code, b.set.StopReplica(stopRequest(2, true), 10).Partitions[0].ErrorCode)
	require.Zero(t, b.set.StopReplica(stopRequest(3, false), 10).Partitions[0].ErrorCode)
	require.ErrorIs(t, (<-later).Err, kerr.NotLeaderForPartition)
	require.Equal(t, []*Partition{p}, resigned)
	require.Zero(t, b.set.StopReplica(stopRequest(-2, true), 10).Partitions[0].ErrorCode)
	_, err := b.set.Get("t", 0)
	require.ErrorIs(t, err, kerr.UnknownTopicOrPartition)
	_, ok := b.logs.Get(cluster.TopicPartition{Topic: "t"})
	require.False(t, ok)
	require.Zero(t, b.set.StopReplica(stopRequest(-1, true), 10).Partitions[0].ErrorCode, "not hosted is no error")
}

func TestSessionLossStopsLeadingAndResumes(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(3, []int32{1, 2}, []int32{1, 2})
	_, later := produce(t, p, 1, -1)
	b.set.StopLeadingEverything("session lost")
	require.ErrorIs(t, (<-later).Err, kerr.NotLeaderForPartition)
	r, _ := produce(t, p, 1, 1)
	require.ErrorIs(t, r.Err, kerr.NotLeaderForPartition)
	// A new controller that saw no gap sends the same epoch again.
	require.NoError(t, b.decide(decisionFor{leader: 1, epoch: 3, version: 3, isr: []int32{1, 2}, replicas: []int32{1, 2}}))
	r, _ = produce(t, p, 1, 1)
	require.NoError(t, r.Err)
	require.Equal(t, int64(1), r.BaseOffset)
}

func TestLeaseGatesWhatTheHighWatermarkDoesNot(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(0, []int32{1}, []int32{1})
	b.noLease = true
	for _, acks := range []int16{0, 1} {
		r, _ := produce(t, p, 1, acks)
		require.ErrorIs(t, r.Err, kerr.NotLeaderForPartition)
	}
	_, err := p.Read(consume(0))
	require.ErrorIs(t, err, kerr.NotLeaderForPartition)
	_, err = p.ListOffset(LatestTimestamp, 0, -1, Consumer)
	require.ErrorIs(t, err, kerr.NotLeaderForPartition)
	r, _ := produce(t, p, 1, -1)
	require.NoError(t, r.Err, "acks=all rests on the high watermark alone")
}

func TestEndIsUnknownRightAfterElection(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(0, []int32{1, 2}, []int32{1, 2})
	_, _ = produce(t, p, 5, 1)
	require.NoError(t, b.decide(decisionFor{leader: 1, epoch: 1, version: 1, isr: []int32{1, 2}, replicas: []int32{1, 2}}))
	_, err := p.ListOffset(LatestTimestamp, 0, -1, Consumer)
	require.ErrorIs(t, err, kerr.OffsetNotAvailable)
	got, err := p.ListOffset(LatestTimestamp, 0, 1, 2)
	require.NoError(t, err)
	require.Equal(t, int64(5), got.Offset, "replicas see the log end")
	out, err := p.Read(consume(3))
	require.NoError(t, err, "between high watermark and log end")
	require.True(t, out.Slice.Empty())
	_, err = p.Read(fetchAs(2, 1, 5))
	require.NoError(t, err)
	got, err = p.ListOffset(LatestTimestamp, 0, -1, Consumer)
	require.NoError(t, err)
	require.Equal(t, int64(5), got.Offset)
}

func TestFollowerFetchIsFenced(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(3, []int32{1, 2}, []int32{1, 2})
	_, err := p.Read(fetchAs(2, 2, 0))
	require.ErrorIs(t, err, kerr.FencedLeaderEpoch)
	_, err = p.Read(fetchAs(2, 4, 0))
	require.ErrorIs(t, err, kerr.UnknownLeaderEpoch)
	_, err = p.Read(fetchAs(7, 3, 0))
	require.ErrorIs(t, err, kerr.UnknownLeaderEpoch, "not assigned")
	_, err = p.Read(fetchAs(2, 3, 1))
	require.ErrorIs(t, err, kerr.OffsetOutOfRange)
}

func TestPositionsAreForgottenInANewEpoch(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(0, []int32{1, 2}, []int32{1, 2})
	_, _ = produce(t, p, 5, 1)
	_, err := p.Read(fetchAs(2, 0, 4))
	require.NoError(t, err)
	require.Equal(t, int64(4), p.Log().HighWatermark())
	require.NoError(t, b.decide(decisionFor{leader: 1, epoch: 2, version: 2, isr: []int32{1, 2}, replicas: []int32{1, 2}}))
	_, later := produce(t, p, 1, -1)
	require.Equal(t, int64(-1), p.Snapshot().Followers[0].LogEnd)
	_, err = p.Read(fetchAs(2, 2, 6))
	require.NoError(t, err)
	require.NoError(t, (<-later).Err)
}

func TestS12EmptyDiskDoesNotLead(t *testing.T) {
	b := newBench(t, nil)
	err := b.decide(decisionFor{leader: 1, epoch: 4, isr: []int32{1}, replicas: []int32{1, 2}})
	require.ErrorIs(t, err, kerr.KafkaStorageError)
	require.NoError(t, b.decide(decisionFor{leader: 2, epoch: 5, isr: []int32{2}, replicas: []int32{1, 2}}), "it may follow")
	require.NoError(t, b.decide(decisionFor{leader: 1, epoch: 6, isr: []int32{1, 2}, replicas: []int32{1, 2}}), "and lead later")
}

func TestISRShrinksAndExpands(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(0, []int32{1, 2, 3}, []int32{1, 2, 3})
	_, later := produce(t, p, 2, -1)
	_, err := p.Read(fetchAs(2, 0, 2))
	require.NoError(t, err)
	b.set.CheckISR(b.set.now())
	require.Empty(t, b.alter.take(), "the benefit of the doubt lasts for the lag time")
	b.skew = 31 * time.Second
	_, err = p.Read(fetchAs(2, 0, 2))
	require.NoError(t, err)
	b.set.CheckISR(b.set.now())
	list := b.alter.take()
	require.Len(t, list, 1)
	require.Equal(t, []replication.Member{{Broker: 1, Epoch: -1}, {Broker: 2, Epoch: 100}}, list[0].ISR)
	require.Equal(t, []cluster.BrokerID{1, 2}, p.Snapshot().PendingISR)
	require.Equal(t, int64(0), p.Log().HighWatermark(), "a proposed removal still counts")
	list[0].done(AlterResult{LeaderEpoch: 0, ISR: []cluster.BrokerID{1, 2}, PartitionEpoch: 1})
	require.NoError(t, (<-later).Err)

	_, err = p.Read(fetchAs(3, 0, 2))
	require.NoError(t, err)
	list = b.alter.take()
	require.Len(t, list, 1)
	require.Equal(t, cluster.PartitionEpoch(1), list[0].PartitionEpoch)
	list[0].done(AlterResult{LeaderEpoch: 0, ISR: []cluster.BrokerID{1, 2, 3}, PartitionEpoch: 2})
	require.Equal(t, []cluster.BrokerID{1, 2, 3}, p.Snapshot().ISR)
	b.set.CheckISR(b.set.now())
	require.Empty(t, b.set.active.take(), "nothing to check on a quiet partition")
}

func TestOpenISRChangeIsSettledByTheZnode(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(0, []int32{1}, []int32{1, 2})
	_, err := p.Read(fetchAs(2, 0, 0))
	require.NoError(t, err)
	list := b.alter.take()
	require.Len(t, list, 1)
	list[0].done(AlterResult{Err: kerr.InvalidUpdateVersion})
	require.NotNil(t, p.Snapshot().PendingISR)
	b.skew = 3 * time.Second
	b.state = AlterResult{Leader: 1, LeaderEpoch: 0, ISR: []cluster.BrokerID{1, 2}, PartitionEpoch: 1}
	b.set.CheckISR(b.set.now())
	b.set.tasks.Wait()
	s := p.Snapshot()
	require.Nil(t, s.PendingISR)
	require.Equal(t, []cluster.BrokerID{1, 2}, s.ISR)
	require.Equal(t, cluster.PartitionEpoch(1), s.PartitionEpoch)
}

type countingWaiter struct{ n int }

func (w *countingWaiter) Wake(*Partition) { w.n++ }

func TestWaitersHearWhatTheyWaitFor(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(0, []int32{1, 2}, []int32{1, 2})
	var consumer, follower countingWaiter
	p.AddWaiter(&consumer, WakeOnHighWatermark)
	p.AddWaiter(&follower, WakeOnLogEnd)
	_, _ = produce(t, p, 1, 1)
	require.Equal(t, []int{0, 1}, []int{consumer.n, follower.n})
	_, err := p.Read(fetchAs(2, 0, 1))
	require.NoError(t, err)
	require.Equal(t, []int{1, 1}, []int{consumer.n, follower.n})
	require.NoError(t, b.decide(decisionFor{leader: 2, epoch: 1, isr: []int32{2}, replicas: []int32{1, 2}}))
	require.Equal(t, []int{2, 2}, []int{consumer.n, follower.n})
	p.RemoveWaiter(&consumer)
	p.RemoveWaiter(&follower)
	require.NoError(t, b.decide(decisionFor{leader: 1, epoch: 2, isr: []int32{1, 2}, replicas: []int32{1, 2}}))
	require.Equal(t, []int{2, 2}, []int{consumer.n, follower.n})
}

func TestDeleteRecordsWaitsForFollowers(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(0, []int32{1, 2}, []int32{1, 2})
	_, _ = produce(t, p, 5, 1)
	_, err := p.Read(fetchAs(2, 0, 5))
	require.NoError(t, err)
	type deleted struct {
		low int64
		err error
	}
	ch := make(chan deleted, 1)
	done := func(low int64, err error) { ch <- deleted{low, err} }
	p.DeleteRecords(6, time.Minute, done)
	require.ErrorIs(t, (<-ch).err, kerr.OffsetOutOfRange)
	p.DeleteRecords(HighWatermarkOffset, time.Minute, done)
	require.Empty(t, ch)
	r := fetchAs(2, 0, 5)
	r.ReplicaLogStart = 5
	_, err = p.Read(r)
	require.NoError(t, err)
	require.Equal(t, deleted{low: 5}, <-ch)
	_, err = p.Read(consume(0))
	require.ErrorIs(t, err, kerr.OffsetOutOfRange)
}

func TestFollowerAppliesAndTruncates(t *testing.T) {
	b := newBench(t, nil)
	require.NoError(t, b.decide(decisionFor{leader: 2, epoch: 3, isr: []int32{2}, replicas: []int32{1, 2}, isNew: true}))
	p := b.get()
	fetched := func(base int64, epoch cluster.LeaderEpoch) []byte {
		batch := logstore.Batch(records(t, 5))
		batch.SetBaseOffset(base)
		batch.SetLeaderEpoch(epoch)
		return batch
	}
	require.NoError(t, p.Apply(Fetched{LeaderEpoch: 3, Offset: 0, Records: fetched(0, 2), HighWatermark: 3}))
	require.NoError(t, p.Apply(Fetched{LeaderEpoch: 3, Offset: 5, Records: fetched(5, 3), HighWatermark: 3}))
	pos, ok := p.FollowPosition()
	require.True(t, ok)
	require.Equal(t, FollowPosition{Leader: 2, LeaderEpoch: 3, TopicID: topicID, Offset: 10, LastFetchedEpoch: 3}, pos)
	require.Equal(t, int64(3), p.Log().HighWatermark())
	require.ErrorIs(t, p.Apply(Fetched{LeaderEpoch: 2, Offset: 10}), ErrStale, "an earlier epoch")
	require.ErrorIs(t, p.Apply(Fetched{LeaderEpoch: 3, Offset: 5}), ErrStale, "an earlier position")
	require.Error(t, p.Apply(Fetched{LeaderEpoch: 3, Offset: 10, Records: fetched(10, 4)}), "records of a newer epoch")
	require.Equal(t, int64(10), p.Log().LogEndOffset())

	_, err := p.TruncateTo(3, 10, EpochEnd{Epoch: 2, EndOffset: 5}, 0)
	require.NoError(t, err)
	pos, _ = p.FollowPosition()
	require.Equal(t, int64(5), pos.Offset)
	require.Equal(t, cluster.LeaderEpoch(2), pos.LastFetchedEpoch)

	require.NoError(t, p.Apply(Fetched{LeaderEpoch: 3, Offset: 5, HighWatermark: 5}))
	_, err = p.TruncateTo(3, 5, EpochEnd{Epoch: 2, EndOffset: 4}, 0)
	require.ErrorIs(t, err, ErrCommittedCut)
	require.Equal(t, int64(5), p.Log().LogEndOffset(), "committed records are kept")
	require.ErrorIs(t, p.Apply(Fetched{LeaderEpoch: 3, Offset: 5}), ErrStale, "parked")
	require.NoError(t, b.decide(decisionFor{leader: 2, epoch: 4, isr: []int32{2}, replicas: []int32{1, 2}, recovery: 1}))
	_, err = p.TruncateTo(4, 5, EpochEnd{Epoch: 2, EndOffset: 0}, 0)
	require.NoError(t, err, "an unclean election explains it")
	require.Equal(t, int64(0), p.Log().LogEndOffset())
}

func TestFollowerServesConsumersUpToItsHighWatermark(t *testing.T) {
	b := newBench(t, nil)
	require.NoError(t, b.decide(decisionFor{leader: 2, epoch: 0, isr: []int32{2}, replicas: []int32{1, 2}, isNew: true}))
	p := b.get()
	batch := logstore.Batch(records(t, 5))
	batch.SetLeaderEpoch(0)
	require.NoError(t, p.Apply(Fetched{LeaderEpoch: 0, Records: batch, HighWatermark: 0}))
	out, err := p.Read(consume(0))
	require.NoError(t, err)
	require.True(t, out.Slice.Empty())
	r := consume(0)
	r.LeaderOnly = true
	_, err = p.Read(r)
	require.ErrorIs(t, err, kerr.NotLeaderForPartition)
	_, err = p.ListOffset(LatestTimestamp, 0, -1, Consumer)
	require.ErrorIs(t, err, kerr.NotLeaderForPartition)
	_, err = p.ListOffset(LatestTimestamp, 0, -1, Debugging)
	require.NoError(t, err)
}

func TestManyPartitionsChangeRoleInOneRequest(t *testing.T) {
	b := newBench(t, nil)
	const n = 500
	decide := func(leader, epoch int32) {
		req := kmsg.NewPtrLeaderAndISRRequest()
		req.Version, req.BrokerEpoch = 7, -1
		s := kmsg.NewLeaderAndISRRequestTopicState()
		s.Topic, s.TopicID = "many", topicID
		for i := range int32(n) {
			p := kmsg.NewLeaderAndISRRequestTopicPartition()
			p.Partition, p.Leader, p.LeaderEpoch, p.IsNew = i, leader, epoch, epoch == 0
			p.ISR, p.Replicas = []int32{1, 2}, []int32{1, 2}
			s.PartitionStates = append(s.PartitionStates, p)
		}
		req.TopicStates = append(req.TopicStates, s)
		start := time.Now()
		resp := b.set.LeaderAndISR(req, 10)
		t.Logf("%d partitions in %v", n, time.Since(start))
		for i, p := range resp.Topics[0].Partitions {
			require.Zero(t, p.ErrorCode)
			require.Equal(t, int32(i), p.Partition)
		}
	}
	decide(1, 0)
	decide(2, 1)
	decide(1, 2)
	require.Len(t, b.set.All(), n)
}

func TestPositionsCountOnlyWhatIsFlushed(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(1, []int32{1, 2}, []int32{1, 2})
	r, _ := produce(t, p, 3, 1)
	require.NoError(t, r.Err)
	require.Zero(t, p.Log().FlushedOffset())
	b.config.FlushMessages = 1 // as if the flush of the append had not come yet
	require.NoError(t, b.decide(decisionFor{leader: 2, epoch: 2, version: 2, isr: []int32{1, 2}, replicas: []int32{1, 2}}))
	pos, ok := p.FollowPosition()
	require.True(t, ok)
	require.Equal(t, int64(3), pos.Offset)
	require.Equal(t, int64(3), p.Log().FlushedOffset(), "a fetch from here acknowledges the records")
}

func TestNewLeaderFlushesWhatItFinds(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(1, []int32{1}, []int32{1})
	r, _ := produce(t, p, 3, 1)
	require.NoError(t, r.Err)
	b.config.FlushMessages = 1
	require.NoError(t, b.decide(decisionFor{leader: 1, epoch: 2, version: 2, isr: []int32{1}, replicas: []int32{1}}))
	require.Eventually(t, func() bool { return p.Log().FlushedOffset() == 3 }, 10*time.Second, time.Millisecond)
}

// jumped is t on a wall clock that was set by d meanwhile: the monotonic clock goes on.
func jumped(t time.Time, d time.Duration) time.Time {
	const nanoBits = 30 // of the wall seconds' place in a time.Time that has a monotonic reading
	wall := (*uint64)(unsafe.Pointer(&t))
	*wall += uint64(int64(d/time.Second)) << nanoBits
	return t
}

func TestS14WallClockJumps(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(1, []int32{1, 2, 3}, []int32{1, 2, 3})
	start := time.Now()
	require.Equal(t, 24*time.Hour, jumped(start, 24*time.Hour).Round(0).Sub(start.Round(0)), "the wall clock jumps")
	require.Zero(t, jumped(start, 24*time.Hour).Sub(start), "the monotonic one does not")
	for round, jump := range []time.Duration{0, 24 * time.Hour, -24 * time.Hour, time.Hour, 0} {
		b.wall = jump
		r, _ := produce(t, p, 1, 1)
		require.NoError(t, r.Err)
		b.set.CheckISR(b.now())
		b.set.tasks.Wait()
		require.Empty(t, b.alter.take(), "round %d: nobody has lagged", round)
		for _, follower := range []cluster.BrokerID{2, 3} {
			_, err := p.Read(fetchAs(follower, 1, int64(round+1)))
			require.NoError(t, err)
		}
		require.Equal(t, int64(round+1), p.Log().HighWatermark())
	}
	// And whoever really lags leaves, though the wall clock goes back.
	b.skew, b.wall = time.Minute, -24*time.Hour
	r, _ := produce(t, p, 1, 1)
	require.NoError(t, r.Err)
	b.skew = 2 * time.Minute
	b.set.CheckISR(b.now())
	b.set.tasks.Wait()
	require.Len(t, b.alter.take(), 1)
}

func TestReplicaThatHadNoRoomAsksToBeLookedAtAgain(t *testing.T) {
	b := newBench(t, nil)
	asked := 0
	b.set.options.AskAgain = func() { asked++ }
	check := func(after time.Duration) int {
		b.skew += after
		b.set.CheckISR(b.now())
		b.set.tasks.Wait()
		return asked
	}
	require.Zero(t, b.decideFull(decisionFor{leader: 1, epoch: 1, version: 1, isr: []int32{1, 2}, replicas: []int32{1, 2}, isNew: true, wire: 5}).ErrorCode)
	b.fs.FailWith(func(op crashfs.Op) error { // the topic's id, which version 4 did not tell, is written
		if op.Kind == "write" {
			return syscall.ENOSPC
		}
		return nil
	})
	b.fs.SetSpace(logstore.Space{Total: 1 << 30})
	require.ErrorIs(t, b.decide(decisionFor{leader: 1, epoch: 2, version: 2, isr: []int32{1, 2}, replicas: []int32{1, 2}}), kerr.KafkaStorageError)
	require.Zero(t, check(2*time.Second), "nothing has changed yet")
	b.fs.FailWith(nil)
	b.fs.SetSpace(logstore.Space{Total: 1 << 30, Free: 1 << 29})
	require.Equal(t, 1, check(2*time.Second))
	require.Equal(t, 1, check(2*time.Second), "once")
	require.NoError(t, b.decide(decisionFor{leader: 2, epoch: 3, version: 3, isr: []int32{2}, replicas: []int32{1, 2}}))
	require.Equal(t, 1, check(time.Hour))
}

// A leader whose records below 6 were deleted, in the middle of its batch of 5 to 9, and a follower whose log parts from it before.
func TestFollowerBeginsAnewWhereTheLeadersStartCutsABatch(t *testing.T) {
	b := newBench(t, nil)
	require.NoError(t, b.decide(decisionFor{leader: 2, epoch: 3, isr: []int32{2}, replicas: []int32{1, 2}, isNew: true}))
	p := b.get()
	fetched := func(base int64, epoch cluster.LeaderEpoch) []byte {
		batch := logstore.Batch(records(t, 5))
		batch.SetBaseOffset(base)
		batch.SetLeaderEpoch(epoch)
		return batch
	}
	require.NoError(t, p.Apply(Fetched{LeaderEpoch: 3, Records: fetched(0, 1)}))
	require.NoError(t, p.Apply(Fetched{LeaderEpoch: 3, Offset: 5, Records: fetched(5, 1)}))
	_, err := p.TruncateTo(3, 10, EpochEnd{Epoch: 1, EndOffset: 6}, 6)
	require.NoError(t, err)
	require.NoError(t, p.Apply(Fetched{LeaderEpoch: 3, Offset: 6, Records: fetched(5, 2), HighWatermark: 10, LogStartOffset: 6}))
	require.Equal(t, int64(10), p.Log().LogEndOffset())
	require.Equal(t, int64(6), p.Log().LogStartOffset())
	require.Equal(t, []logstore.EpochEntry{{Epoch: 2, StartOffset: 6}}, p.Log().EpochEntries(), "nothing is left of the other history")
}
