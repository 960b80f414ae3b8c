package logstore_test

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/internal/invariant"
	"ottla/logstore"
)

// sized returns a batch of about n bytes: records of 100 bytes.
func sized(t testing.TB, n int) []byte {
	t.Helper()
	bd := logstore.NewBuilder(logstore.PlainBatch())
	value := bytes.Repeat([]byte("payload-"), 12)
	for size := 61; size < n; size += 104 {
		require.NoError(t, bd.AppendNext(time.Now().UnixMilli(), nil, value))
	}
	b, err := bd.Finish()
	require.NoError(t, err)
	return bytes.Clone(b)
}

func onDisk(t testing.TB, dir string) *logstore.Manager {
	t.Helper()
	m, err := logstore.OpenManager(logstore.ManagerOptions{Dirs: []string{dir}, BrokerID: 1, ClusterID: "c", Logger: zerolog.Nop(), RecoveryThreads: 1})
	require.NoError(t, err)
	return m
}

// appender appends one batch again and again: the base offset, which the log patched, is set back first.
func appender(t testing.TB, l *logstore.Log, records []byte) func() {
	now := time.Now()
	c := *logstore.DefaultConfig()
	c.SegmentBytes = 64 << 20
	c.RetentionBytes, c.FileDeleteDelay = 128<<20, 0
	l.SetConfig(&c)
	return func() {
		logstore.Batch(records).SetBaseOffset(0)
		if _, err := l.AppendAsLeader(logstore.AppendParams{Records: records, Epoch: 1, ProduceVersion: 9, Now: now}); err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 64 << 10} {
		for _, partitions := range []int{1, 100} {
			b.Run(fmt.Sprintf("batch=%dKiB/partitions=%d", size>>10, partitions), func(b *testing.B) {
				m := onDisk(b, b.TempDir())
				defer m.Close(false) //nolint:errcheck // a benchmark
				records := sized(b, size)
				var appends []func()
				for i := range partitions {
					l, err := m.GetOrCreate(partition(i), cluster.TopicID{1}, true)
					require.NoError(b, err)
					appends = append(appends, appender(b, l, records))
					appends[i]()
				}
				b.SetBytes(int64(len(records)))
				b.ReportAllocs()
				written := 0
				for i := 0; b.Loop(); i++ {
					appends[i%partitions]()
					if written += len(records); written > 256<<20 {
						b.StopTimer()
						written = 0
						for _, l := range m.Logs() {
							l.SetHighWatermark(l.LogEndOffset())
						}
						m.RetentionPass(time.Now())
						m.DeletePass(time.Now())
						b.StartTimer()
					}
				}
			})
		}
	}
}

func BenchmarkAppendAsFollower(b *testing.B) {
	m := onDisk(b, b.TempDir())
	defer m.Close(false) //nolint:errcheck // a benchmark
	l, err := m.GetOrCreate(topic0, cluster.TopicID{1}, true)
	require.NoError(b, err)
	records := sized(b, 64<<10)
	count := int64(logstore.Batch(records).Count())
	b.SetBytes(int64(len(records)))
	b.ReportAllocs()
	for next := int64(0); b.Loop(); next += count {
		logstore.Batch(records).SetBaseOffset(next)
		logstore.Batch(records).SetLeaderEpoch(1)
		if _, err := l.AppendAsFollower(records, 1); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkRead finds slices: at the end as caught-up readers do, near the end (index in memory), and in old segments.
func BenchmarkRead(b *testing.B) {
	m := onDisk(b, b.TempDir())
	defer m.Close(false) //nolint:errcheck // a benchmark
	l, err := m.GetOrCreate(topic0, cluster.TopicID{1}, true)
	require.NoError(b, err)
	records := sized(b, 4<<10)
	count := int64(logstore.Batch(records).Count())
	one := appender(b, l, records)
	for range 20000 { // 80 MiB: a sealed segment and an active one
		one()
	}
	end := l.LogEndOffset()
	for _, at := range []struct {
		name   string
		offset int64
	}{{"tail", end - count}, {"near", end - 100*count}, {"active-disk", end - 2500*count}, {"sealed", 5000 * count}} {
		b.Run(at.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s, err := l.Read(at.offset, 1<<20, end, true)
				if err != nil || s.Empty() {
					b.Fatal("nothing", err)
				}
				s.Release()
			}
		})
	}
	b.Run("limit-in-the-middle", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			s, err := l.Read(end-100*count, 1<<20, end-50*count, true)
			if err != nil || s.Empty() {
				b.Fatal("nothing", err)
			}
			s.Release()
		}
	})
}

// BenchmarkOpen loads partitions that were stopped cleanly; ns/op is for one partition.
func BenchmarkOpen(b *testing.B) {
	dir := b.TempDir()
	m := onDisk(b, dir)
	const partitions = 100
	records := sized(b, 16<<10)
	for i := range partitions {
		l, err := m.GetOrCreate(partition(i), cluster.TopicID{1}, true)
		require.NoError(b, err)
		one := appender(b, l, records)
		for range 20 {
			one()
		}
	}
	require.NoError(b, m.Close(true))
	var opened time.Duration
	n := 0
	for b.Loop() {
		began := time.Now()
		m := onDisk(b, dir)
		opened += time.Since(began)
		n++
		require.True(b, m.WasClean())
		b.StopTimer()
		require.NoError(b, m.Close(true))
		b.StartTimer()
	}
	b.ReportMetric(float64(opened.Microseconds())/float64(n*partitions), "µs/partition")
}

func TestAllocationsOfTheHotPaths(t *testing.T) {
	if invariant.Checked {
		t.Skip("checked builds spill early")
	}
	m := onDisk(t, t.TempDir())
	defer m.Close(false) //nolint:errcheck // measured only
	l, err := m.GetOrCreate(topic0, cluster.TopicID{1}, true)
	require.NoError(t, err)
	one := appender(t, l, sized(t, 16<<10))
	for range 600 {
		one()
	}
	require.LessOrEqual(t, testing.AllocsPerRun(200, one), 2.0, "append: the next view, and now and then an index entry")
	end := l.LogEndOffset()
	require.Zero(t, testing.AllocsPerRun(200, func() {
		s, err := l.Read(end-10, 1<<20, end, true)
		if err != nil || s.Empty() {
			t.Fatal("nothing", err)
		}
		s.Release()
	}), "read")
	hw := int64(0)
	require.LessOrEqual(t, testing.AllocsPerRun(200, func() { hw++; l.SetHighWatermark(hw) }), 1.0, "high watermark: the next view")
}

func TestIdlePartitionsAreSmall(t *testing.T) {
	if invariant.Checked {
		t.Skip("checked builds are larger")
	}
	dir := t.TempDir()
	m := onDisk(t, dir)
	const partitions = 60
	for i := range partitions {
		l, err := m.GetOrCreate(partition(i), cluster.TopicID{1}, true)
		require.NoError(t, err)
		appender(t, l, sized(t, 1<<10))()
	}
	require.NoError(t, m.Close(true))
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m = onDisk(t, dir)
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&after)
	per := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / partitions
	t.Logf("%d bytes for each idle partition", per)
	require.Less(t, per, int64(3<<10))
	require.NoError(t, m.Close(true))
}
