package partition

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
	"ottla/logstore"
)

// The rules at which Kafka 3.9 loses or stalls, by their numbers, as far as one broker's partitions can show them. For each there
// is a patch in integration/mutants/kafka with which its test fails.

// L4: what a follower said before it registered anew does not count, also when it arrives late.
func TestL04PositionOfAnEarlierRegistration(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(1, []int32{1, 2}, []int32{1, 2})
	r, _ := produce(t, p, 5, 1)
	require.NoError(t, r.Err)
	fresh := fetchAs(2, 1, 2)
	fresh.ReplicaEpoch = 101
	_, err := p.Read(fresh)
	require.NoError(t, err)
	require.Equal(t, int64(2), p.Log().HighWatermark())
	late := fetchAs(2, 1, 5)
	late.ReplicaEpoch = 100
	_, err = p.Read(late)
	require.ErrorIs(t, err, kerr.UnknownLeaderEpoch)
	require.Equal(t, int64(2), p.Log().HighWatermark())
}

// L7: a follower does not cut what is committed because its leader says so, unless an unclean election explains it.
func TestL07CommittedRecordsAreNotCut(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(1, []int32{1}, []int32{1, 2})
	r, _ := produce(t, p, 5, -1)
	require.NoError(t, r.Err)
	require.NoError(t, b.decide(decisionFor{leader: 2, epoch: 2, version: 2, isr: []int32{2}, replicas: []int32{1, 2}}))
	_, err := p.TruncateTo(2, 5, EpochEnd{Epoch: 1, EndOffset: 3}, 0)
	require.ErrorIs(t, err, ErrCommittedCut)
	require.Equal(t, int64(5), p.Log().LogEndOffset())
}

// L7: what an unclean election gives up is kept beside the log.
func TestL07WhatIsGivenUpIsKept(t *testing.T) {
	b := newBench(t, nil)
	p := b.lead(1, []int32{1}, []int32{1, 2})
	for range 3 {
		r, _ := produce(t, p, 5, -1)
		require.NoError(t, r.Err)
	}
	slice, err := p.Log().Read(5, 1<<20, 15, true)
	require.NoError(t, err)
	want := make([]byte, slice.Len)
	_, _ = slice.ReadAt(want, 0)
	slice.Release()
	require.NoError(t, b.decide(decisionFor{leader: 2, epoch: 2, version: 2, isr: []int32{2}, replicas: []int32{1, 2}, recovery: 1}))
	_, err = p.TruncateTo(2, 15, EpochEnd{Epoch: 1, EndOffset: 5}, 0)
	require.NoError(t, err)
	require.Equal(t, int64(5), p.Log().LogEndOffset())
	file, err := b.fs.OpenFile(filepath.Join(p.Log().Dir(), fmt.Sprintf("%020d-%020d.lost", 5, 15)), os.O_RDONLY, 0)
	require.NoError(t, err)
	defer file.Close()
	got := make([]byte, len(want)+1)
	n, _ := file.ReadAt(got, 0)
	got = got[:n]
	require.Equal(t, want, got)
}

// L8: a leader that changes while it answers may send batches of another epoch than the request's.
func TestL08BatchesOfANewerEpoch(t *testing.T) {
	b := newBench(t, nil)
	require.NoError(t, b.decide(decisionFor{leader: 2, epoch: 3, version: 1, isr: []int32{2}, replicas: []int32{1, 2}, isNew: true}))
	p := b.get()
	batch := logstore.Batch(records(t, 2))
	batch.SetLeaderEpoch(4)
	require.Error(t, p.Apply(Fetched{LeaderEpoch: 3, Records: batch}))
	require.Zero(t, p.Log().LogEndOffset())
}

func TestL10UnknownLeader(t *testing.T) { TestDemotionEndsWaitsAndAppends(t) }

// L15: while the high watermark stands still for want of members, reaching it does not make a follower one of them.
func TestL15JoiningAFrozenHighWatermark(t *testing.T) {
	b := newBench(t, nil)
	b.topic.MinISR = 2
	p := b.lead(1, []int32{1}, []int32{1, 2, 3})
	r, _ := produce(t, p, 5, 1)
	require.NoError(t, r.Err)
	b.skew = time.Hour
	r, _ = produce(t, p, 5, 1)
	require.NoError(t, r.Err)
	_, err := p.Read(fetchAs(2, 1, 0))
	require.NoError(t, err)
	require.Empty(t, b.alter.take(), "it is 10 records behind")
	_, err = p.Read(fetchAs(2, 1, 10))
	require.NoError(t, err)
	joined := b.alter.take()
	require.Len(t, joined, 1)
	require.Equal(t, cluster.BrokerID(2), joined[0].ISR[1].Broker)
}

func TestL16WallClockJumps(t *testing.T)       { TestS14WallClockJumps(t) }
func TestL19EmptyDiskDoesNotLead(t *testing.T) { TestS12EmptyDiskDoesNotLead(t) }
func TestL22DiskHasRoomAgain(t *testing.T)     { TestReplicaThatHadNoRoomAsksToBeLookedAtAgain(t) }
