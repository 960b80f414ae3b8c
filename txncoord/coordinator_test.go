package txncoord

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

func TestATransactionFromBeginToEnd(t *testing.T) {
	b := newBench(t)
	require.Equal(t, kerr.NotCoordinator, func() error { _, err := b.init("id", nil); return err }())
	b.elect(3)
	p, err := b.init("id", nil)
	require.NoError(t, err)
	require.Equal(t, Producer{1001, 0}, p)
	require.Equal(t, kerr.InvalidTxnState, b.end("id", p, true), "nothing has begun")
	require.NoError(t, b.add("id", p, tp("t", 0), tp("t", 1)))
	require.NoError(t, b.add("id", p, tp("t", 1)))
	require.Equal(t, "Ongoing", b.state("id"))
	each, err := b.VerifyPartitions("id", p, []cluster.TopicPartition{tp("t", 1), tp("u", 0)})
	require.NoError(t, err)
	require.Equal(t, []error{nil, kerr.TransactionAbortable}, each)
	require.NoError(t, b.end("id", p, true))
	b.becomes("id", "CompleteCommit")
	require.NoError(t, b.end("id", p, true), "told again")
	require.Equal(t, kerr.InvalidTxnState, b.end("id", p, false))
	require.Len(t, b.markers, 2, "one for each broker")
	for _, m := range b.markers {
		require.True(t, m.Committed)
		require.EqualValues(t, 3, m.CoordinatorEpoch)
		require.EqualValues(t, 1001, m.ProducerID)
	}
	_, err = b.VerifyPartitions("id", p, []cluster.TopicPartition{tp("t", 1)})
	require.NoError(t, err)

	require.NoError(t, b.add("id", p, tp("t", 0)), "the next one")
	require.NoError(t, b.end("id", p, false))
	b.becomes("id", "CompleteAbort")
	require.False(t, b.markers[2].Committed)
}

func TestProducersAreTold(t *testing.T) {
	b := newBench(t)
	b.elect(1)
	_, err := b.init("", nil)
	require.Equal(t, kerr.InvalidRequest, err)
	done := make(chan error, 2)
	for _, ms := range []int32{0, 60_001} {
		b.Init(&Init{ID: "id", TimeoutMs: ms}, func(_ Producer, err error) { done <- err })
		require.Equal(t, kerr.InvalidTransactionTimeout, <-done)
	}
	require.Equal(t, kerr.InvalidProducerIDMapping, b.add("id", Producer{1, 0}, tp("t", 0)))
	require.Equal(t, kerr.InvalidRequest, b.add("", Producer{1, 0}, tp("t", 0)))
	p, _ := b.init("id", nil)
	require.Equal(t, kerr.InvalidProducerIDMapping, b.add("id", Producer{p.ID + 1, 0}, tp("t", 0)))
	again, err := b.init("id", nil)
	require.NoError(t, err)
	require.Equal(t, Producer{p.ID, 1}, again)
	require.Equal(t, kerr.ProducerFenced, b.add("id", p, tp("t", 0)), "the former one")

	// KIP-360: a producer goes on after an error, and may ask twice.
	next, err := b.init("id", &again)
	require.NoError(t, err)
	require.Equal(t, Producer{p.ID, 2}, next)
	same, err := b.init("id", &again)
	require.NoError(t, err)
	require.Equal(t, next, same)
	_, err = b.init("id", &p)
	require.Equal(t, kerr.ProducerFenced, err)
	_, err = b.init("id", &Producer{p.ID + 5, 2})
	require.Equal(t, kerr.ProducerFenced, err)
}

func TestANewProducerAbortsWhatTheOldOneBegan(t *testing.T) {
	b := newBench(t)
	b.elect(1)
	p, _ := b.init("id", nil)
	require.NoError(t, b.add("id", p, tp("t", 0)))
	_, err := b.init("id", nil)
	require.Equal(t, kerr.ConcurrentTransactions, err)
	require.Equal(t, kerr.ProducerFenced, b.end("id", p, true))
	b.becomes("id", "CompleteAbort")
	require.EqualValues(t, 1, b.markers[0].ProducerEpoch, "the marker fences the old one in the partitions")
	successor, err := b.init("id", nil)
	require.NoError(t, err)
	require.Equal(t, Producer{p.ID, 2}, successor)
}

func TestEpochsEnd(t *testing.T) {
	b := newBench(t)
	b.elect(1)
	p, _ := b.init("id", nil)
	s, err := b.usable("id")
	require.NoError(t, err)
	s.get("id").mu.now.Epoch = epochExhausted
	last := Producer{p.ID, epochExhausted}
	fresh, err := b.init("id", &last)
	require.NoError(t, err)
	require.Equal(t, Producer{p.ID + 1, 0}, fresh)
	again, err := b.init("id", &last)
	require.NoError(t, err)
	require.Equal(t, fresh, again, "it did not hear of its new id")
	_, err = b.init("id", &Producer{p.ID, 7})
	require.Equal(t, kerr.ProducerFenced, err)

	s.get("id").mu.now.Epoch = epochExhausted
	require.NoError(t, b.add("id", Producer{fresh.ID, epochExhausted}, tp("t", 0)))
	_, err = b.init("id", nil)
	require.Equal(t, kerr.ConcurrentTransactions, err, "one epoch is left for fencing")
	b.becomes("id", "CompleteAbort")
	next, err := b.init("id", nil)
	require.NoError(t, err)
	require.Equal(t, Producer{fresh.ID + 1, 0}, next)
}

func TestTransactionsRunOutOfTime(t *testing.T) {
	b := newBench(t)
	b.elect(1)
	p, _ := b.init("id", nil)
	require.NoError(t, b.add("id", p, tp("t", 0)))
	b.pass(10 * time.Second)
	b.AbortTimedOut(b.now())
	require.Equal(t, "Ongoing", b.state("id"))
	b.pass(time.Millisecond)
	b.log.Refuse(kerr.NotEnoughReplicas)
	b.AbortTimedOut(b.now())
	require.Equal(t, "Ongoing", b.state("id"))
	b.log.Refuse(nil)
	b.AbortTimedOut(b.now())
	b.becomes("id", "CompleteAbort")
	require.EqualValues(t, 1, b.markers[0].ProducerEpoch, "the epoch was raised once")
	require.Equal(t, kerr.ProducerFenced, b.end("id", p, true))
	next, err := b.init("id", nil)
	require.NoError(t, err)
	require.EqualValues(t, 2, next.Epoch)
}

func TestIdsExpire(t *testing.T) {
	b := newBench(t)
	b.elect(1)
	p, _ := b.init("idle", nil)
	q, _ := b.init("busy", nil)
	require.NoError(t, b.add("busy", q, tp("t", 0)))
	b.pass(time.Hour)
	b.Expire(b.now())
	require.Equal(t, "TRANSACTIONAL_ID_NOT_FOUND", b.state("idle"))
	require.Equal(t, "Ongoing", b.state("busy"))
	require.Equal(t, kerr.InvalidProducerIDMapping, b.add("idle", p, tp("t", 0)))
	b.Resigned(0)
	b.elect(2)
	require.Equal(t, "TRANSACTIONAL_ID_NOT_FOUND", b.state("idle"), "for good")
}

func TestTheNextCoordinatorGoesOn(t *testing.T) {
	b := newBench(t)
	b.elect(1)
	p, _ := b.init("open", nil)
	require.NoError(t, b.add("open", p, tp("t", 0)))
	q, _ := b.init("ending", nil)
	require.NoError(t, b.add("ending", q, tp("t", 1), tp("u", 0)))
	b.change(func() { b.broken = true })
	require.NoError(t, b.end("ending", q, true))
	require.Equal(t, kerr.ConcurrentTransactions, b.add("ending", q, tp("t", 1)))
	require.Equal(t, "PrepareCommit", b.state("ending"))
	b.Resigned(0)
	require.Equal(t, "NOT_COORDINATOR", b.state("ending"))
	b.change(func() { b.broken = false })
	b.elect(2)
	b.becomes("ending", "CompleteCommit")
	for _, m := range b.markers {
		require.EqualValues(t, 2, m.CoordinatorEpoch)
	}
	require.Equal(t, "Ongoing", b.state("open"))
	require.NoError(t, b.end("open", p, false))
	b.becomes("open", "CompleteAbort")
}

func TestMarkersFindTheirWay(t *testing.T) {
	b := newBench(t)
	b.elect(1)
	p, _ := b.init("id", nil)
	b.change(func() {
		b.leaders[tp("t", 1)] = cluster.NoBroker
		b.codes[tp("u", 0)] = kerr.NotLeaderForPartition.Code
	})
	require.NoError(t, b.add("id", p, tp("t", 0), tp("t", 1), tp("u", 0), tp("deleted", 0)))
	require.NoError(t, b.end("id", p, false))
	require.Eventually(t, func() bool { return b.Homeless() == 1 }, 10*time.Second, time.Millisecond)
	require.Equal(t, "PrepareAbort", b.state("id"))
	b.change(func() {
		b.leaders[tp("t", 1)] = 2
		b.codes[tp("u", 0)] = 0
	})
	b.becomes("id", "CompleteAbort")

	require.NoError(t, b.add("id", p, tp("t", 0)))
	b.log.Refuse(nil)
	require.NoError(t, b.add("id", p, tp("t", 1)))
	b.change(func() { b.codes[tp("t", 1)] = kerr.TransactionCoordinatorFenced.Code })
	require.NoError(t, b.end("id", p, true))
	time.Sleep(3 * markerRetry)
	require.Equal(t, "PrepareCommit", b.state("id"), "there is a newer coordinator: it completes it")
}

func TestWhatWaitsForItsRecordIsPending(t *testing.T) {
	b := newBench(t)
	b.elect(1)
	p, _ := b.init("id", nil)
	b.log.Hold(true)
	done := make(chan error, 1)
	b.AddPartitions("id", p, []cluster.TopicPartition{tp("t", 0)}, func(err error) { done <- err })
	require.Equal(t, kerr.ConcurrentTransactions, b.add("id", p, tp("t", 1)))
	require.Equal(t, kerr.ConcurrentTransactions, b.end("id", p, true))
	_, err := b.init("id", nil)
	require.Equal(t, kerr.ConcurrentTransactions, err)
	each, err := b.VerifyPartitions("id", p, []cluster.TopicPartition{tp("t", 0)})
	require.NoError(t, err)
	require.Equal(t, []error{kerr.TransactionAbortable}, each)
	b.log.Hold(false)
	require.NoError(t, <-done)
	require.Equal(t, "Ongoing", b.state("id"))
	for refusal, want := range map[error]error{
		kerr.NotEnoughReplicas: kerr.CoordinatorNotAvailable, kerr.RequestTimedOut: kerr.CoordinatorNotAvailable,
		kerr.NotLeaderForPartition: kerr.NotCoordinator, kerr.MessageTooLarge: kerr.UnknownServerError,
	} {
		b.log.Refuse(refusal)
		require.Equal(t, want, b.end("id", p, true))
	}
	b.log.Refuse(nil)
	require.NoError(t, b.end("id", p, true))
	b.becomes("id", "CompleteCommit")
}

func TestLists(t *testing.T) {
	b := newBench(t)
	b.elect(1)
	p, _ := b.init("one", nil)
	_, _ = b.init("two", nil)
	require.NoError(t, b.add("one", p, tp("t", 0)))
	b.pass(5 * time.Second)
	list := func(f Filter) []Listed {
		list, _, err := b.List(&f)
		require.NoError(t, err)
		return list
	}
	require.Len(t, list(Filter{DurationMs: -1}), 2)
	one := []Listed{{"one", p.ID, "Ongoing"}}
	require.Equal(t, one, list(Filter{DurationMs: -1, States: []string{"Ongoing"}}))
	require.Equal(t, one, list(Filter{DurationMs: -1, ProducerIDs: []int64{p.ID}}))
	_, unknown, err := b.List(&Filter{DurationMs: -1, States: []string{"Odd"}})
	require.NoError(t, err)
	require.Equal(t, []string{"Odd"}, unknown)
	require.Equal(t, map[string]int{"Ongoing": 1, "Empty": 1}, b.Count())
	d, err := b.Describe("one")
	require.NoError(t, err)
	require.Equal(t, []cluster.TopicPartition{tp("t", 0)}, d.Partitions)
	require.EqualValues(t, 10_000, d.TimeoutMs)
}
