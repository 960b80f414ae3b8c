package logstore

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestOffsetMapIsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		slots := rapid.IntRange(2, 3000).Draw(t, "slots")
		m := newOffsetMap(int64(slots*offsetMapSlotBytes), rapid.Float64Range(0.1, 1).Draw(t, "load"))
		want := map[string]int64{}
		for offset := range int64(rapid.IntRange(1, 4000).Draw(t, "records")) {
			key := fmt.Sprint("key-", offset*7919%int64(slots+10))
			if !m.put([]byte(key), offset) {
				require.Equal(t, m.keysMax, len(want))
				require.NotContains(t, want, key)
				break
			}
			want[key] = offset
		}
		require.LessOrEqual(t, len(m.slots), slots)
		for key, offset := range want {
			got, ok := m.get([]byte(key))
			require.True(t, ok)
			require.Equal(t, offset, got)
		}
		_, ok := m.get([]byte("never put"))
		require.False(t, ok)
	})
}

// newTestFilter makes a filter whose map has seen key→offset pairs below end.
func newTestFilter(end int64, last map[string]int64) *cleanFilter {
	keys := newOffsetMap(1<<16, 0.9)
	for key, offset := range last {
		keys.put([]byte(key), offset)
	}
	return &cleanFilter{
		keys: keys, mapEnd: end, txns: newCleanedTxns(), producers: map[int64]ProducerInfo{},
		now: testNow, deleteRetention: time.Hour, roundEnd: -1,
	}
}

// keyed builds a batch at base from "key=value" words; "key=" has a null value, "=value" a null key.
func keyed(t testing.TB, o BatchOptions, words ...string) Batch {
	t.Helper()
	bd := NewBuilder(o)
	for i, w := range words {
		r := Record{Offset: o.BaseOffset + int64(i), Timestamp: testTime + int64(i), Headers: []Header{{Key: "h", Value: []byte(w)}}}
		key, value, _ := strings.Cut(w, "=")
		if key != "" {
			r.Key = []byte(key)
		}
		if value != "" {
			r.Value = []byte(value)
		}
		require.NoError(t, bd.Append(r))
	}
	b, err := bd.Finish()
	require.NoError(t, err)
	return b
}

func words(t testing.TB, b Batch) string {
	t.Helper()
	var out []string
	for _, r := range collect(t, b) {
		out = append(out, fmt.Sprintf("%d:%s=%s", r.Offset, r.Key, r.Value))
		require.Equal(t, string(r.Key)+"="+string(r.Value), string(r.Headers[0].Value))
	}
	return strings.Join(out, " ")
}

func at(base int64, codec Codec) BatchOptions {
	o := PlainBatch()
	o.BaseOffset, o.LeaderEpoch, o.Compression = base, 4, DefaultCompression(codec)
	return o
}

func TestFilterKeepsTheLastOfEachKey(t *testing.T) {
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		f := newTestFilter(13, map[string]int64{"a": 12, "b": 11})
		b := keyed(t, at(10, codec), "a=1", "b=1", "a=2", "c=9", "=x")
		out, err := f.filter(b)
		require.NoError(t, err)
		got := out.batch
		require.Equal(t, "11:b=1 12:a=2 13:c=9 14:=x", words(t, got), "offsets from 13 on are not in the map")
		require.NoError(t, got.VerifyCRC())
		require.Equal(t, []any{int64(10), int64(14), int32(4), codec}, []any{got.BaseOffset(), got.LastOffset(), got.Count(), got.Codec()})
		require.Equal(t, testTime+1, got.BaseTimestamp())

		f = newTestFilter(20, map[string]int64{"a": 12, "b": 11, "c": 13})
		out, err = f.filter(keyed(t, at(10, codec), "a=1", "b=1", "a=2", "c=9", "=x"))
		require.NoError(t, err)
		require.Equal(t, "11:b=1 12:a=2 13:c=9", words(t, out.batch), "without key there is nothing to keep it by")
		require.Equal(t, int64(1), f.stats.WithoutKey)

		f = newTestFilter(20, map[string]int64{"a": 15})
		out, err = f.filter(keyed(t, at(10, codec), "a=1"))
		require.NoError(t, err)
		require.Nil(t, out.batch)

		f = newTestFilter(20, map[string]int64{"a": 10})
		b = keyed(t, at(10, codec), "a=1")
		out, err = f.filter(b)
		require.NoError(t, err)
		require.Equal(t, b, out.batch, "what does not change is copied")
	}
}

func TestTombstonesGetAHorizonAndGoAfterIt(t *testing.T) {
	f := newTestFilter(20, map[string]int64{"a": 10, "b": 11})
	out, err := f.filter(keyed(t, at(10, CodecNone), "a=", "b=1"))
	require.NoError(t, err)
	marked := out.batch
	horizon, ok := marked.DeleteHorizon()
	require.True(t, ok)
	require.Equal(t, testNow.Add(time.Hour).UnixMilli(), horizon)
	records := collect(t, marked)
	require.Equal(t, testTime, records[0].Timestamp, "deltas count from the horizon now")
	require.Equal(t, testTime+1, records[1].Timestamp)
	require.Equal(t, testTime+1, marked.MaxTimestamp())
	marked = append(Batch(nil), marked...)

	f.now = testNow.Add(time.Hour - 1)
	out, err = f.filter(marked)
	require.NoError(t, err)
	require.Equal(t, marked, out.batch)
	f.now = testNow.Add(time.Hour)
	out, err = f.filter(marked)
	require.NoError(t, err)
	require.Equal(t, "11:b=1", words(t, out.batch))
}

func TestAbortedDataGoesAndThenItsMarker(t *testing.T) {
	o := at(10, CodecNone)
	o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = 7, 0, 0, true
	data := keyed(t, o, "a=1")
	marker := NewEndTxnBatch(EndTxnMarker{ProducerID: 7, Timestamp: testTime})
	marker.SetBaseOffset(11)
	entry := AbortedTxn{ProducerID: 7, FirstOffset: 10, LastOffset: 11, LastStableOffset: 12}

	f := newTestFilter(20, nil)
	f.txns.add([]AbortedTxn{entry})
	out, err := f.filter(data)
	require.NoError(t, err)
	require.Nil(t, out.batch)
	out, err = f.filter(marker)
	require.NoError(t, err)
	require.Equal(t, marker, out.batch, "its data was still there in this pass")
	require.Equal(t, &entry, out.aborted)

	f = newTestFilter(20, nil)
	f.txns.add([]AbortedTxn{entry})
	out, err = f.filter(marker)
	require.NoError(t, err)
	require.Nil(t, out.aborted)
	require.True(t, out.batch.HasDeleteHorizon(), "nothing of it is left: the marker may go after the horizon")
	marked := append(Batch(nil), out.batch...)
	m, ok, err := marked.EndTxnMarker()
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, testTime, m.Timestamp)

	f = newTestFilter(20, nil)
	f.now = testNow.Add(2 * time.Hour)
	out, err = f.filter(marked)
	require.NoError(t, err)
	require.Nil(t, out.batch)

	f.producers[7] = ProducerInfo{ProducerID: 7, LastOffset: -1}
	out, err = f.filter(marked)
	require.NoError(t, err)
	require.Equal(t, int32(0), out.batch.Count(), "an active producer's epoch must be remembered")
	out, err = f.filter(append(Batch(nil), out.batch...))
	require.NoError(t, err)
	require.Len(t, out.batch, BatchOverhead, "an emptied marker is read again")
}

func TestCommittedDataKeepsItsMarker(t *testing.T) {
	o := at(10, CodecNone)
	o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = 7, 0, 0, true
	marker := NewEndTxnBatch(EndTxnMarker{ProducerID: 7, Commit: true, Timestamp: testTime})
	marker.SetBaseOffset(11)
	f := newTestFilter(20, map[string]int64{"a": 10})
	_, err := f.filter(keyed(t, o, "a=1"))
	require.NoError(t, err)
	out, err := f.filter(marker)
	require.NoError(t, err)
	require.Equal(t, marker, out.batch)
	out, err = f.filter(marker)
	require.NoError(t, err)
	require.True(t, out.batch.HasDeleteHorizon())
}

func TestLastBatchOfAnActiveProducerIsEmptied(t *testing.T) {
	o := at(10, CodecGzip)
	o.ProducerID, o.ProducerEpoch, o.BaseSequence = 7, 0, 5
	b := keyed(t, o, "a=1", "a=2")
	f := newTestFilter(20, map[string]int64{"a": 15})
	f.producers[7] = ProducerInfo{ProducerID: 7, LastOffset: 11}
	out, err := f.filter(b)
	require.NoError(t, err)
	require.Len(t, out.batch, BatchOverhead)
	require.NoError(t, out.batch.VerifyCRC())
	require.Equal(t, []any{int64(10), int64(11), int32(5), int32(6), CodecNone, testTime + 1}, []any{
		out.batch.BaseOffset(), out.batch.LastOffset(), out.batch.BaseSequence(), out.batch.LastSequence(), out.batch.Codec(), out.batch.MaxTimestamp()})

	f.producers[7] = ProducerInfo{ProducerID: 7, LastOffset: 12}
	out, err = f.filter(b)
	require.NoError(t, err)
	require.Nil(t, out.batch)

	f.roundEnd = 12
	out, err = f.filter(b)
	require.NoError(t, err)
	require.Len(t, out.batch, BatchOverhead, "the last batch of a pass keeps its range")
}

func TestOldWrappersAreRewritten(t *testing.T) {
	for _, magic := range []byte{0, 1} {
		var inner []byte
		for i := range int64(3) {
			offset := i
			if magic == 0 {
				offset += 100
			}
			inner = append(inner, legacyMessage(magic, offset, CodecNone, testTime+i, []byte{'a' + byte(i%2)}, []byte{byte(i)})...)
		}
		packed, err := DefaultCompression(CodecGzip).compress(nil, inner)
		require.NoError(t, err)
		b := Batch(legacyMessage(magic, 102, CodecGzip, testTime+2, nil, packed))
		f := newTestFilter(200, map[string]int64{"a": 102, "b": 101})
		out, err := f.filter(b)
		require.NoError(t, err)
		require.NoError(t, out.batch.VerifyCRC())
		records := collect(t, out.batch)
		require.Len(t, records, 2)
		require.Equal(t, []int64{101, 102}, []int64{records[0].Offset, records[1].Offset})
		require.Equal(t, []byte{2}, records[1].Value)

		f = newTestFilter(200, map[string]int64{"a": 150, "b": 101})
		out, err = f.filter(b)
		require.NoError(t, err)
		records = collect(t, out.batch)
		require.Len(t, records, 1)
		require.Equal(t, int64(101), records[0].Offset)
	}
}

func TestBatchWithOffsetsThatDoNotAscendIsCorrupt(t *testing.T) {
	b := keyed(t, at(10, CodecNone), "a=1", "b=2", "c=3")
	b[posRecords+3] = 4 // the first record's offset delta: 2
	b.SealCRC()
	f := newTestFilter(20, map[string]int64{"c": 15})
	_, err := f.filter(b)
	require.ErrorIs(t, err, ErrCorrupt)
}

func FuzzCleanFilter(f *testing.F) {
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		f.Add([]byte(keyed(f, at(10, codec), "a=1", "b=", "a=2", "=x")), true)
	}
	f.Add(unhex(f, vectorMagic1), false)
	f.Add(unhex(f, vectorCommit), true)
	f.Fuzz(func(t *testing.T, data []byte, active bool) {
		b, _, err := NextBatch(data)
		if err != nil {
			return
		}
		c := newTestFilter(12, map[string]int64{"a": 12, "b": 11})
		if active {
			c.producers[b.ProducerID()] = ProducerInfo{LastOffset: b.LastOffset()}
		}
		out, err := c.filter(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		if out.batch == nil {
			return
		}
		again, rest, err := NextBatch(out.batch)
		require.NoError(t, err)
		require.Empty(t, rest)
		for _, err := range again.Records() {
			require.NoError(t, err)
		}
		if b.Magic() == 2 {
			require.Equal(t, b.LastOffset(), again.LastOffset())
		}
	})
}

func TestThrottleSpreadsBytes(t *testing.T) {
	slow := throttle{rate: 1e6}
	started := time.Now()
	for range 5 {
		require.NoError(t, slow.pass(t.Context(), 10000))
	}
	require.GreaterOrEqual(t, time.Since(started), 35*time.Millisecond)
}
