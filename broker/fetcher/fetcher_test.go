package fetcher

import (
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/broker/partition"
	"ottla/internal/cluster"
	"ottla/logstore/crashfs"
)

// same waits until every broker's log of a partition has the same bytes up to end, and the same high watermark.
func (w *world) same(topic string, i int32, end int64) {
	w.t.Helper()
	require.Eventually(w.t, func() bool {
		var first []byte
		for _, b := range w.brokers {
			p, err := b.set.Get(topic, i)
			if err != nil || p.Log() == nil || p.Log().LogEndOffset() != end || p.Log().HighWatermark() != end {
				return false
			}
			s, err := p.Log().Read(p.Log().LogStartOffset(), 1<<20, end, true)
			require.NoError(w.t, err)
			buf := make([]byte, s.Len)
			if !s.Empty() {
				_, err = s.ReadAt(buf, 0)
				require.NoError(w.t, err)
			}
			s.Release()
			if first == nil {
				first = buf
			}
			require.Equal(w.t, first, buf)
		}
		return true
	}, 10*time.Second, 5*time.Millisecond, "replicas of %s-%d do not agree at %d", topic, i, end)
}

func TestFollowersReplicate(t *testing.T) {
	for name, change := range map[string]func(*world){
		"by topic id":      func(*world) {},
		"by name":          func(w *world) { w.noIDs = true },
		"without sessions": func(w *world) { w.noSess = true },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, 3)
			change(w)
			w.decide("t", 4, 1, []int32{1, 2, 3}, 1, 2, 3)
			for round := range 5 {
				for i := range int32(4) {
					r := w.produce(1, "t", i, 3)
					require.NoError(t, r.Err)
					require.Equal(t, int64(3*round), r.BaseOffset)
				}
			}
			for i := range int32(4) {
				w.same("t", i, 15)
			}
		})
	}
}

func TestIdlePartitionsAreNotNamed(t *testing.T) {
	w := newWorld(t, 2)
	w.decide("t", 50, 1, []int32{1, 2}, 1, 2)
	require.NoError(t, w.produce(1, "t", 0, 1).Err)
	w.same("t", 0, 1)
	time.Sleep(200 * time.Millisecond)
	w.mu.Lock()
	w.named, w.fetches = 0, 0
	w.mu.Unlock()
	time.Sleep(300 * time.Millisecond)
	w.mu.Lock()
	defer w.mu.Unlock()
	require.Positive(t, w.fetches)
	require.Zero(t, w.named)
}

func TestLeadershipMovesBackAndForth(t *testing.T) {
	w := newWorld(t, 3)
	w.decide("t", 2, 1, []int32{1, 2, 3}, 1, 2, 3)
	total := int64(0)
	for round := range 6 {
		leader := int32(round%3) + 1
		// Followers often hear before their leader does; they must ask again soon.
		order := []cluster.BrokerID{1, 2, 3}
		w.decide("t", 2, leader, []int32{1, 2, 3}, order...)
		for i := range int32(2) {
			r := w.produce(cluster.BrokerID(leader), "t", i, 2)
			require.NoError(t, r.Err)
			require.Equal(t, total, r.BaseOffset)
		}
		total += 2
	}
	w.same("t", 0, total)
	w.same("t", 1, total)
}

func TestUnreplicatedTailIsTruncated(t *testing.T) {
	w := newWorld(t, 3)
	w.decide("t", 1, 1, []int32{1, 2, 3}, 1, 2, 3)
	require.NoError(t, w.produce(1, "t", 0, 5).Err)
	w.same("t", 0, 5)
	w.setCut(1, true) // leader 1 is cut off and appends what nobody else gets
	var lost partition.AppendResult
	w.partition(1, "t", 0).Append(partition.AppendRequest{Records: batchOf(t, 7), Acks: 1, ProduceVersion: 9},
		func(r partition.AppendResult) { lost = r })
	require.NoError(t, lost.Err)
	w.decide("t", 1, 2, []int32{2, 3}, 2, 3)
	require.NoError(t, w.produce(2, "t", 0, 2).Err)
	w.setCut(1, false)
	w.decide("t", 1, 2, []int32{2, 3}, 2, 3, 1)
	w.same("t", 0, 7)
	require.Eventually(t, func() bool { return len(w.partition(2, "t", 0).Snapshot().ISR) == 3 }, 5*time.Second, 5*time.Millisecond)
}

func TestFollowerComesBack(t *testing.T) {
	w := newWorld(t, 2)
	w.decide("t", 1, 1, []int32{1, 2}, 1, 2)
	require.NoError(t, w.produce(1, "t", 0, 5).Err)
	w.setCut(2, true)
	start := time.Now()
	r := w.produce(1, "t", 0, 1)
	require.NoError(t, r.Err, "acknowledged once the follower has left the ISR")
	require.Greater(t, time.Since(start), time.Second)
	require.Len(t, w.partition(1, "t", 0).Snapshot().ISR, 1)
	w.setCut(2, false)
	w.same("t", 0, 6)
	require.Eventually(t, func() bool { return len(w.partition(1, "t", 0).Snapshot().ISR) == 2 }, 5*time.Second, 5*time.Millisecond)
}

func TestFollowerFarBehindStartsOver(t *testing.T) {
	w := newWorld(t, 2)
	w.decide("t", 1, 1, []int32{1}, 1)
	require.NoError(t, w.produce(1, "t", 0, 5).Err)
	require.NoError(t, w.produce(1, "t", 0, 5).Err)
	low := make(chan error, 1)
	w.partition(1, "t", 0).DeleteRecords(5, 50*time.Millisecond, func(_ int64, err error) { low <- err })
	require.ErrorIs(t, <-low, kerr.RequestTimedOut, "the follower has not told its log start")
	w.decide("t", 1, 1, []int32{1}, 1, 2)
	w.same("t", 0, 10)
	require.Equal(t, int64(5), w.partition(2, "t", 0).Log().LogStartOffset())
}

func TestFetchersEndWithTheirPartitions(t *testing.T) {
	w := newWorld(t, 2)
	w.decide("t", 4, 1, []int32{1, 2}, 1, 2)
	require.NoError(t, w.produce(1, "t", 0, 1).Err)
	require.NotEmpty(t, w.brokers[2].fetchers.Status())
	w.decide("t", 4, -1, []int32{2}, 2)
	require.Eventually(t, func() bool { return len(w.brokers[2].fetchers.Status()) == 0 }, 5*time.Second, 5*time.Millisecond)
}

func TestIndexIsKafkas(t *testing.T) {
	// 31 * "t".hashCode() + 0 = 31 * 116 = 3596
	require.Equal(t, 3596%7, indexOf(cluster.TopicPartition{Topic: "t"}, 7))
	require.Equal(t, 0, indexOf(cluster.TopicPartition{Topic: "anything"}, 1))
}

// TestFollowerGoesOnOnceThereIsRoomAgain fills a follower's disk for a while.
func TestFollowerGoesOnOnceThereIsRoomAgain(t *testing.T) {
	w := newWorld(t, 2)
	w.decide("t", 1, 1, []int32{1, 2}, 1, 2)
	require.NoError(t, w.produce(1, "t", 0, 5).Err)
	w.same("t", 0, 5)
	w.brokers[2].fs.FailWith(func(op crashfs.Op) error {
		if op.Kind == "write" {
			return syscall.ENOSPC
		}
		return nil
	})
	require.NoError(t, w.produce(1, "t", 0, 1).Err, "acknowledged once the follower has left the ISR")
	require.Len(t, w.partition(1, "t", 0).Snapshot().ISR, 1)
	w.brokers[2].fs.FailWith(nil)
	w.same("t", 0, 6)
	require.Eventually(t, func() bool { return len(w.partition(1, "t", 0).Snapshot().ISR) == 2 }, 5*time.Second, 5*time.Millisecond)
}
