package logstore

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"pgregory.net/rapid"
)

// producerLog drives a ProducerState as a log does.
type producerLog struct {
	s    *ProducerState
	u    ProducerUpdate
	next int64
}

func newProducerLog() *producerLog { return &producerLog{s: NewProducerState()} }

func (l *producerLog) append(b Batch, origin Origin) (aborted []AbortedTxn, duplicate bool, err error) {
	b.SetBaseOffset(l.next)
	if err := l.s.Prepare(&l.u, b, origin); err != nil {
		return nil, false, err
	}
	if l.u.IsDuplicate {
		return nil, true, nil
	}
	aborted = l.s.Commit(&l.u)
	l.next = b.LastOffset() + 1
	l.s.SetMapEnd(l.next)
	return aborted, false, nil
}

func dataBatch(id int64, epoch int16, sequence int32, n int, transactional bool) Batch {
	o := PlainBatch()
	o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = id, epoch, sequence, transactional
	bd := NewBuilder(o)
	for range n {
		_ = bd.AppendNext(testTime, []byte("k"), []byte("v"))
	}
	b, _ := bd.Finish()
	return b
}

func markerBatch(id int64, epoch int16, commit bool, coordinator int32) Batch {
	return NewEndTxnBatch(EndTxnMarker{ProducerID: id, ProducerEpoch: epoch, Commit: commit, CoordinatorEpoch: coordinator, Timestamp: testTime})
}

func (l *producerLog) ok(t require.TestingT, b Batch, origin Origin) []AbortedTxn {
	aborted, duplicate, err := l.append(b, origin)
	require.NoError(t, err)
	require.False(t, duplicate)
	return aborted
}

func TestSnapshotIsTheVector(t *testing.T) {
	l := newProducerLog()
	l.next = 37
	l.ok(t, dataBatch(9000, 1, 0, 5, false), OriginClient)
	require.Equal(t, unhex(t, vectorSnapshot), l.s.Snapshot())

	s := NewProducerState()
	require.NoError(t, s.LoadSnapshot(unhex(t, vectorSnapshot), 42, testNow, time.Hour))
	require.Equal(t, l.s.Producers(), s.Producers())
	require.Equal(t, int64(42), s.MapEnd())
	require.NoError(t, s.LoadSnapshot(unhex(t, vectorSnapshot), 42, testNow.Add(time.Hour), time.Hour))
	require.Empty(t, s.Producers(), "expired while nobody looked")
}

func TestRetriesOfTheLastFiveBatchesAreDuplicates(t *testing.T) {
	l := newProducerLog()
	for i := range int32(6) {
		l.ok(t, dataBatch(1, 0, 2*i, 2, false), OriginClient)
	}
	for i := int32(1); i < 6; i++ {
		_, duplicate, err := l.append(dataBatch(1, 0, 2*i, 2, false), OriginClient)
		require.NoError(t, err)
		require.True(t, duplicate)
		require.Equal(t, DuplicateBatch{FirstOffset: int64(2 * i), LastOffset: int64(2*i + 1), Timestamp: testTime}, l.u.Duplicate)
	}
	_, _, err := l.append(dataBatch(1, 0, 0, 2, false), OriginClient)
	require.ErrorIs(t, err, kerr.OutOfOrderSequenceNumber, "older than the cache")
	_, _, err = l.append(dataBatch(1, 0, 10, 1, false), OriginClient)
	require.ErrorIs(t, err, kerr.OutOfOrderSequenceNumber, "not the same range")
	require.Equal(t, int64(12), l.next)
}

func TestSequenceRules(t *testing.T) {
	l := newProducerLog()
	l.ok(t, dataBatch(1, 3, 77, 2, false), OriginClient) // not known: any sequence
	_, _, err := l.append(dataBatch(1, 3, 80, 1, false), OriginClient)
	require.ErrorIs(t, err, kerr.OutOfOrderSequenceNumber)
	l.ok(t, dataBatch(1, 3, 79, 1, false), OriginClient)
	_, _, err = l.append(dataBatch(1, 2, 0, 1, false), OriginClient)
	require.ErrorIs(t, err, kerr.InvalidProducerEpoch)
	_, _, err = l.append(dataBatch(1, 4, 80, 1, false), OriginClient)
	require.ErrorIs(t, err, kerr.OutOfOrderSequenceNumber, "a new epoch begins at 0")
	l.ok(t, dataBatch(1, 4, 0, 1, false), OriginClient)

	l.ok(t, dataBatch(2, 0, 2147483646, 2, false), OriginClient)
	l.ok(t, dataBatch(2, 0, 0, 1, false), OriginClient)
	l.ok(t, dataBatch(3, 0, 2147483647, 3, false), OriginClient)
	l.ok(t, dataBatch(3, 0, 2, 1, false), OriginClient)

	l.ok(t, markerBatch(1, 5, true, 0), OriginCoordinator) // bumps the epoch
	_, _, err = l.append(dataBatch(1, 5, 1, 1, false), OriginClient)
	require.ErrorIs(t, err, kerr.OutOfOrderSequenceNumber)
	l.ok(t, dataBatch(1, 5, 0, 1, false), OriginClient)
	l.ok(t, dataBatch(1, 5, 9, 1, false), OriginReplication) // never refused
	l.ok(t, dataBatch(1, 4, 9, 1, false), OriginReplication)
}

func TestTransactionsHoldTheLastStableOffset(t *testing.T) {
	l := newProducerLog()
	l.ok(t, dataBatch(1, 0, 0, 2, true), OriginClient)  // 0, 1
	l.ok(t, dataBatch(2, 0, 0, 1, true), OriginClient)  // 2
	l.ok(t, dataBatch(3, 0, 0, 1, false), OriginClient) // 3
	first, ok := l.s.FirstUnstableOffset()
	require.True(t, ok)
	require.Equal(t, int64(0), first)

	_, _, err := l.append(dataBatch(1, 0, 2, 1, false), OriginClient)
	require.ErrorIs(t, err, kerr.InvalidTxnState)

	aborted := l.ok(t, markerBatch(1, 0, false, 5), OriginCoordinator) // 4
	require.Equal(t, []AbortedTxn{{ProducerID: 1, FirstOffset: 0, LastOffset: 4, LastStableOffset: 2}}, aborted)
	first, _ = l.s.FirstUnstableOffset()
	require.Equal(t, int64(0), first, "until the high watermark has passed the marker")
	require.False(t, l.s.OnHighWatermark(4))
	require.True(t, l.s.OnHighWatermark(5))
	first, _ = l.s.FirstUnstableOffset()
	require.Equal(t, int64(2), first)

	_, _, err = l.append(markerBatch(2, 0, true, 4), OriginCoordinator)
	require.NoError(t, err, "another producer's coordinator may be another")
	l.s.OnHighWatermark(100)
	_, ok = l.s.FirstUnstableOffset()
	require.False(t, ok)

	_, _, err = l.append(markerBatch(1, 0, true, 4), OriginCoordinator)
	require.ErrorIs(t, err, kerr.TransactionCoordinatorFenced)
	require.Empty(t, l.ok(t, markerBatch(1, 0, false, 5), OriginCoordinator), "without transaction there is nothing to abort")
}

func TestOneFetchMayHoldManyTransactions(t *testing.T) {
	var set []byte
	offset := int64(0)
	add := func(b Batch) {
		b = bytes.Clone(b)
		b.SetBaseOffset(offset)
		offset = b.LastOffset() + 1
		set = append(set, b...)
	}
	add(dataBatch(1, 0, 0, 1, true))     // 0
	add(dataBatch(2, 0, 0, 1, true))     // 1
	add(markerBatch(1, 0, false, 0))     // 2
	add(dataBatch(1, 0, 1, 1, true))     // 3
	add(markerBatch(2, 0, false, 0))     // 4
	add(markerBatch(1, 0, false, 0))     // 5
	add(dataBatch(-1, -1, -1, 1, false)) // 6
	l := newProducerLog()
	require.NoError(t, l.s.Prepare(&l.u, set, OriginReplication))
	require.Equal(t, []AbortedTxn{
		{ProducerID: 1, FirstOffset: 0, LastOffset: 2, LastStableOffset: 1},
		{ProducerID: 2, FirstOffset: 1, LastOffset: 4, LastStableOffset: 3},
		{ProducerID: 1, FirstOffset: 3, LastOffset: 5, LastStableOffset: 6},
	}, l.s.Commit(&l.u))
	first, _ := l.s.FirstUnstableOffset()
	require.Equal(t, int64(0), first)
	l.s.OnHighWatermark(7)
	_, ok := l.s.FirstUnstableOffset()
	require.False(t, ok)
}

func TestSnapshotKeepsOpenTransactions(t *testing.T) {
	l := newProducerLog()
	l.ok(t, dataBatch(1, 0, 0, 2, true), OriginClient)
	l.ok(t, dataBatch(2, 0, 0, 2, false), OriginClient)
	s := NewProducerState()
	require.NoError(t, s.LoadSnapshot(l.s.Snapshot(), 4, testNow.Add(1000*time.Hour), time.Hour))
	require.Len(t, s.Producers(), 1, "a producer with an open transaction does not expire")
	first, ok := s.FirstUnstableOffset()
	require.True(t, ok)
	require.Equal(t, int64(0), first)
	require.Equal(t, 1, l.s.Expire(testNow.Add(1000*time.Hour), time.Hour))
}

func TestCorruptSnapshotsChangeNothing(t *testing.T) {
	good := unhex(t, vectorSnapshot)
	s := NewProducerState()
	require.NoError(t, s.LoadSnapshot(good, 42, testNow, time.Hour))
	want := s.Producers()
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		require.ErrorIs(t, s.LoadSnapshot(bad, 1, testNow, time.Hour), ErrCorrupt)
		require.ErrorIs(t, s.LoadSnapshot(good[:i], 1, testNow, time.Hour), ErrCorrupt)
	}
	require.Equal(t, want, s.Producers())
}

func FuzzSnapshot(f *testing.F) {
	f.Add(unhex(f, vectorSnapshot))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= snapshotPosEntries {
			putI32(data[snapshotPosCRC:], int32(crcCastagnoli(data[snapshotPosCount:])))
		}
		s := NewProducerState()
		err := s.LoadSnapshot(data, 0, time.UnixMilli(0), time.Hour)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		again := NewProducerState()
		require.NoError(t, again.LoadSnapshot(s.Snapshot(), 0, time.UnixMilli(0), time.Hour))
		require.Equal(t, s.Producers(), again.Producers())
		_, _ = s.FirstUnstableOffset()
	})
}

// modelProducer is the plain telling of the rules: everything is kept, nothing is clever.
type modelProducer struct {
	epoch   int16
	known   bool
	batches []modelBatch // of the epoch
	txn     int64
	coord   int32
}

type modelBatch struct {
	first, last int32
	offset      int64
}

func (m *modelProducer) expect(b Batch) (err error, duplicate bool) {
	epoch, first, last := b.ProducerEpoch(), b.BaseSequence(), b.LastSequence()
	if m.known && epoch == m.epoch {
		recent := m.batches[max(0, len(m.batches)-5):]
		if slices.ContainsFunc(recent, func(x modelBatch) bool { return x.first == first && x.last == last }) {
			return nil, true
		}
	}
	switch {
	case !m.known:
	case epoch < m.epoch:
		return kerr.InvalidProducerEpoch, false
	case epoch > m.epoch:
		if first != 0 {
			return kerr.OutOfOrderSequenceNumber, false
		}
	default:
		want := int32(0)
		if n := len(m.batches); n > 0 {
			want = int32((int64(m.batches[n-1].last) + 1) % (1 << 31))
		}
		if first != want {
			return kerr.OutOfOrderSequenceNumber, false
		}
	}
	if m.txn >= 0 && !b.IsTransactional() {
		return kerr.InvalidTxnState, false
	}
	return nil, false
}

func TestProducerStateIsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := newProducerLog()
		model := map[int64]*modelProducer{}
		type ended struct{ first, marker int64 }
		var replicating []ended
		highWatermark := int64(0)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			id := int64(rapid.IntRange(1, 3).Draw(t, "producer"))
			m := model[id]
			if m == nil {
				m = &modelProducer{txn: -1, epoch: -1, coord: -1}
				model[id] = m
			}
			epoch := max(m.epoch, 0) + int16(rapid.SampledFrom([]int{0, 0, 0, 0, 1, -1}).Draw(t, "epoch"))
			epoch = max(epoch, 0)
			switch rapid.IntRange(0, 7).Draw(t, "kind") {
			case 0: // marker
				commit := rapid.Bool().Draw(t, "commit")
				coord := m.coord + int32(rapid.SampledFrom([]int{0, 0, 1, -1}).Draw(t, "coordinator"))
				offset := l.next
				aborted, _, err := l.append(markerBatch(id, epoch, commit, coord), OriginCoordinator)
				if epoch < m.epoch {
					require.ErrorIs(t, err, kerr.InvalidProducerEpoch)
					continue
				}
				if coord < m.coord {
					require.ErrorIs(t, err, kerr.TransactionCoordinatorFenced)
					continue
				}
				require.NoError(t, err)
				if m.txn >= 0 {
					replicating = append(replicating, ended{m.txn, offset})
				}
				if m.txn >= 0 && !commit {
					lso := offset + 1
					for other, o := range model {
						if other != id && o.txn >= 0 {
							lso = min(lso, o.txn)
						}
					}
					require.Equal(t, []AbortedTxn{{id, m.txn, offset, lso}}, aborted)
				} else {
					require.Empty(t, aborted)
				}
				if m.epoch != epoch {
					m.batches = nil
				}
				m.known, m.epoch, m.txn, m.coord = true, epoch, -1, coord
			case 1:
				highWatermark = min(highWatermark+int64(rapid.IntRange(0, 10).Draw(t, "advance")), l.next)
				l.s.OnHighWatermark(highWatermark)
				replicating = slices.DeleteFunc(replicating, func(e ended) bool { return e.marker < highWatermark })
			case 2: // restart: only the newest batch survives
				s := NewProducerState()
				require.NoError(t, s.LoadSnapshot(l.s.Snapshot(), l.next, testNow, time.Hour))
				require.Equal(t, l.s.Producers(), s.Producers())
				l.s, replicating = s, nil
				for _, m := range model {
					m.batches = m.batches[max(0, len(m.batches)-1):]
				}
			default:
				sequence := int32(0)
				if n := len(m.batches); n > 0 {
					sequence = m.batches[n-1].last + 1
				}
				sequence = max(0, sequence+int32(rapid.SampledFrom([]int{0, 0, 0, 0, 1, -1, -2, -3, -7}).Draw(t, "shift")))
				b := dataBatch(id, epoch, sequence, rapid.IntRange(1, 3).Draw(t, "records"), rapid.Bool().Draw(t, "transactional"))
				want, wantDuplicate := m.expect(b)
				offset := l.next
				_, duplicate, err := l.append(b, OriginClient)
				if want != nil {
					require.ErrorIs(t, err, want, fmt.Sprint(id, epoch, sequence))
					continue
				}
				require.NoError(t, err)
				require.Equal(t, wantDuplicate, duplicate)
				if duplicate {
					continue
				}
				if m.epoch != epoch {
					m.batches = nil
				}
				m.known, m.epoch = true, epoch
				m.batches = append(m.batches, modelBatch{b.BaseSequence(), b.LastSequence(), offset})
				if b.IsTransactional() && m.txn < 0 {
					m.txn = offset
				}
			}
			want, some := int64(1<<62), false
			for _, m := range model {
				if m.txn >= 0 {
					want, some = min(want, m.txn), true
				}
			}
			for _, e := range replicating {
				want, some = min(want, e.first), true
			}
			first, ok := l.s.FirstUnstableOffset()
			require.Equal(t, some, ok)
			if some {
				require.Equal(t, want, first)
			}
		}
	})
}
