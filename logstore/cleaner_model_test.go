package logstore_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ottla/internal/cluster"
	"ottla/internal/invariant"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

const cleanStart = int64(1700000000000) // ms since 1970

var cleanTopic = cluster.TopicPartition{Topic: "orders", Partition: 0}

// compacted makes small segments: every pass finds something to do.
func compacted() *logstore.Config {
	c := logstore.DefaultConfig()
	c.SegmentBytes = 2000
	c.IndexIntervalBytes = 150
	c.IndexBytes = 25 * 8
	c.RetentionMs = -1
	c.FileDeleteDelay = 0
	c.Compact, c.Delete = true, false
	c.MinCleanableRatio = 0
	c.DeleteRetention = 50 * time.Millisecond
	c.ProducerExpiration = 1000 * time.Hour
	return c
}

type cleanTB interface {
	require.TestingT
	Helper()
}

func openCompacted(t cleanTB, fsys logstore.FS, c *logstore.Config) *logstore.Manager {
	t.Helper()
	m, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{"/data"}, FS: fsys, BrokerID: 1, ClusterID: "c",
		Defaults: func(string) *logstore.Config { return c }, Logger: zerolog.Nop(),
	})
	require.NoError(t, err)
	return m
}

func openCleanTopic(t cleanTB, m *logstore.Manager) *logstore.Log {
	t.Helper()
	l, err := m.GetOrCreate(cleanTopic, cluster.TopicID{1}, true)
	require.NoError(t, err)
	return l
}

// driver appends keyed records, plain and transactional, and knows what they come to.
type driver struct {
	t     cleanTB
	log   *logstore.Log
	now   time.Time
	state map[string]string // of what was written without transactions
	open  map[int64]bool    // producers with an open transaction
	seq   map[int64]int32
	n     int
}

func newDriver(t cleanTB, l *logstore.Log) *driver {
	return &driver{t: t, log: l, now: time.UnixMilli(cleanStart), state: map[string]string{}, open: map[int64]bool{}, seq: map[int64]int32{}}
}

func apply(state, changes map[string]string) {
	for k, v := range changes {
		if v == "" {
			delete(state, k)
			continue
		}
		state[k] = v
	}
}

// append writes one batch of changes of a producer (0: none).
func (d *driver) append(producer int64, transactional bool, codec logstore.Codec, keys []int, tombstone func(i int) bool) {
	o := logstore.PlainBatch()
	o.Compression = logstore.DefaultCompression(codec)
	if producer > 0 {
		o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = producer, 0, d.seq[producer], transactional
		d.seq[producer] += int32(len(keys))
	}
	bd := logstore.NewBuilder(o)
	changes := map[string]string{}
	for i, k := range keys {
		d.n++
		key, value := fmt.Sprintf("key-%d", k), []byte(fmt.Sprintf("value-%d-of-some-length", d.n))
		if tombstone(i) {
			value = nil
		}
		changes[key] = string(value)
		require.NoError(d.t, bd.AppendNext(d.now.UnixMilli(), []byte(key), value))
	}
	b, err := bd.Finish()
	require.NoError(d.t, err)
	_, err = d.log.AppendAsLeader(logstore.AppendParams{Records: b, Origin: logstore.OriginClient, ProduceVersion: 9, Now: d.now})
	require.NoError(d.t, err)
	if transactional {
		d.open[producer] = true
		return
	}
	apply(d.state, changes)
}

// end writes a transaction's marker.
func (d *driver) end(producer int64, commit bool) {
	b := logstore.NewEndTxnBatch(logstore.EndTxnMarker{ProducerID: producer, Commit: commit, Timestamp: d.now.UnixMilli()})
	_, err := d.log.AppendAsLeader(logstore.AppendParams{Records: b, Origin: logstore.OriginCoordinator, ProduceVersion: -1, Now: d.now})
	require.NoError(d.t, err)
	delete(d.open, producer)
}

// readState is what a read_committed consumer makes of a log: batches from the start, without aborted data. Along the way it
// checks what must hold of any log.
func readState(t cleanTB, l *logstore.Log, to int64) map[string]string {
	t.Helper()
	aborted, err := l.AbortedTransactions(l.LogStartOffset(), to)
	require.NoError(t, err)
	slices.SortFunc(aborted, func(a, b logstore.AbortedTxn) int { return int(a.FirstOffset - b.FirstOffset) })
	dead := map[int64]bool{}
	state := map[string]string{}
	last := int64(-1)
	for offset := l.LogStartOffset(); offset < to; {
		b, ok := readOne(t, l, offset, to)
		if !ok {
			break
		}
		require.NoError(t, b.VerifyCRC())
		require.Greater(t, b.BaseOffset(), last)
		require.GreaterOrEqual(t, b.LastOffset(), offset)
		last, offset = b.LastOffset(), b.NextOffset()
		for len(aborted) > 0 && aborted[0].FirstOffset <= b.LastOffset() {
			dead[aborted[0].ProducerID] = true
			aborted = aborted[1:]
		}
		if b.IsControl() {
			if m, ok, err := b.EndTxnMarker(); ok && !m.Commit {
				require.NoError(t, err)
				delete(dead, b.ProducerID())
			}
			continue
		}
		if b.IsTransactional() && dead[b.ProducerID()] {
			continue
		}
		for r, err := range b.Records() {
			require.NoError(t, err)
			apply(state, map[string]string{string(r.Key): string(r.Value)})
		}
	}
	return state
}

func readOne(t cleanTB, l *logstore.Log, offset, to int64) (logstore.Batch, bool) {
	t.Helper()
	s, err := l.Read(offset, 1, to, true)
	require.NoError(t, err)
	defer s.Release()
	if s.Empty() {
		return nil, false
	}
	buf := make([]byte, s.Len)
	_, err = s.ReadAt(buf, 0)
	require.NoError(t, err)
	b, _, err := logstore.NextBatch(buf)
	require.NoError(t, err)
	return b, true
}

// dedupe are settings with a map of so many bytes; 0: the default.
func dedupe(bytes int64) func() logstore.CleanerSettings {
	return func() logstore.CleanerSettings {
		s := logstore.DefaultCleanerSettings()
		if bytes > 0 {
			s.DedupeBytes = bytes
		}
		return s
	}
}

func newCleaner(m *logstore.Manager, bytes int64) *logstore.Cleaner {
	return logstore.NewCleaner(logstore.CleanerOptions{Logs: m.Logs, Settings: dedupe(bytes), Logger: zerolog.Nop()})
}

func noTombstones(int) bool { return false }

func TestCleaningKeepsOneRecordPerKey(t *testing.T) {
	m := openCompacted(t, crashfs.New(), compacted())
	l := openCleanTopic(t, m)
	d := newDriver(t, l)
	for i := range 300 {
		d.append(0, false, logstore.CodecNone, []int{i % 10, 7}, noTombstones)
	}
	l.SetHighWatermark(l.LogEndOffset())
	before := l.Size()
	c := newCleaner(m, 0)
	c.Pass(t.Context(), d.now)
	require.Empty(t, c.Parked())
	require.Less(t, l.Size(), before/10)
	require.Equal(t, d.state, readState(t, l, l.LogEndOffset()))
	require.False(t, c.CleanOnce(t.Context(), d.now), "nothing is dirty but the active segment")
	require.NoError(t, m.Close(true))
}

func TestTombstonesGoInTheSecondPassAfterTheirHorizon(t *testing.T) {
	m := openCompacted(t, crashfs.New(), compacted())
	l := openCleanTopic(t, m)
	d := newDriver(t, l)
	fill := func() {
		for range 30 {
			d.append(0, false, logstore.CodecNone, []int{99}, noTombstones)
		}
		l.SetHighWatermark(l.LogEndOffset())
	}
	d.append(0, false, logstore.CodecNone, []int{1, 2}, noTombstones)
	d.append(0, false, logstore.CodecNone, []int{1}, func(int) bool { return true })
	count := func() (n int) {
		for offset := int64(0); offset < l.LogEndOffset(); {
			b, ok := readOne(t, l, offset, l.LogEndOffset())
			if !ok {
				break
			}
			for r := range b.Records() {
				if string(r.Key) == "key-1" {
					n++
				}
			}
			offset = b.NextOffset()
		}
		return n
	}
	c := newCleaner(m, 0)
	fill()
	c.Pass(t.Context(), d.now)
	require.Equal(t, 1, count(), "the tombstone alone")
	d.now = d.now.Add(time.Second)
	fill()
	c.Pass(t.Context(), d.now)
	require.Zero(t, count())
	require.Equal(t, d.state, readState(t, l, l.LogEndOffset()))
}

func TestYoungRecordsAndOpenTransactionsAreNotCleaned(t *testing.T) {
	cfg := compacted()
	cfg.MinCompactionLag = time.Minute
	m := openCompacted(t, crashfs.New(), cfg)
	l := openCleanTopic(t, m)
	d := newDriver(t, l)
	for range 100 {
		d.append(0, false, logstore.CodecNone, []int{1}, noTombstones)
	}
	l.SetHighWatermark(l.LogEndOffset())
	c := newCleaner(m, 0)
	require.False(t, c.CleanOnce(t.Context(), d.now.Add(time.Minute-time.Millisecond)))
	require.True(t, c.CleanOnce(t.Context(), d.now.Add(time.Minute)))

	cfg.MinCompactionLag = 0
	d.append(5, true, logstore.CodecNone, []int{2}, noTombstones)
	size := l.Size()
	for range 100 {
		d.append(0, false, logstore.CodecNone, []int{1}, noTombstones)
	}
	l.SetHighWatermark(l.LogEndOffset())
	c.Pass(t.Context(), d.now)
	require.Greater(t, l.Size(), size+5000, "nothing above the last stable offset")
}

func TestMaxCompactionLagCleansWhatTheRatioWouldNot(t *testing.T) {
	cfg := compacted()
	cfg.MinCleanableRatio = 1
	cfg.MaxCompactionLag = time.Hour
	m := openCompacted(t, crashfs.New(), cfg)
	l := openCleanTopic(t, m)
	d := newDriver(t, l)
	for range 100 {
		d.append(0, false, logstore.CodecNone, []int{1}, noTombstones)
	}
	l.SetHighWatermark(l.LogEndOffset())
	c := newCleaner(m, 0)
	require.False(t, c.CleanOnce(t.Context(), d.now.Add(time.Hour)))
	require.True(t, c.CleanOnce(t.Context(), d.now.Add(time.Hour+time.Millisecond)))
}

// TestSettingsOfTheCleanerChangeWhileItRuns: threads clean several logs, none of them nothing; the map is shared among them.
func TestSettingsOfTheCleanerChangeWhileItRuns(t *testing.T) {
	m := openCompacted(t, crashfs.New(), compacted())
	var logs []*logstore.Log
	for i := range 6 {
		l, err := m.GetOrCreate(cluster.TopicPartition{Topic: "orders", Partition: int32(i)}, cluster.TopicID{1}, true)
		require.NoError(t, err)
		d := newDriver(t, l)
		for n := range 60 {
			d.append(0, false, logstore.CodecNone, []int{n % 5}, noTombstones)
		}
		l.SetHighWatermark(l.LogEndOffset())
		logs = append(logs, l)
	}
	settings := logstore.DefaultCleanerSettings()
	settings.Threads = 0
	c := logstore.NewCleaner(logstore.CleanerOptions{Logs: m.Logs, Settings: func() logstore.CleanerSettings { return settings }, Logger: zerolog.Nop()})
	c.Pass(t.Context(), time.UnixMilli(cleanStart))
	require.Zero(t, c.Stats().Runs)
	settings.Threads = 3
	c.Pass(t.Context(), time.UnixMilli(cleanStart))
	require.EqualValues(t, 6, c.Stats().Runs)
	for _, l := range logs {
		require.Len(t, readState(t, l, l.LogEndOffset()), 5)
	}
	require.NoError(t, m.Close(true))
}

func TestCorruptBatchParksItsLogOnly(t *testing.T) {
	fsys := crashfs.New()
	m := openCompacted(t, fsys, compacted())
	l := openCleanTopic(t, m)
	d := newDriver(t, l)
	for i := range 100 {
		d.append(0, false, logstore.CodecNone, []int{i % 3}, noTombstones)
	}
	l.SetHighWatermark(l.LogEndOffset())
	f, err := fsys.OpenFile(l.Dir()+"/00000000000000000000.log", 2, 0)
	require.NoError(t, err)
	_, err = f.WriteAt([]byte("damage"), 100)
	require.NoError(t, err)
	other, err := m.GetOrCreate(cluster.TopicPartition{Topic: "other", Partition: 0}, cluster.TopicID{2}, true)
	require.NoError(t, err)
	d2 := newDriver(t, other)
	for i := range 100 {
		d2.append(0, false, logstore.CodecNone, []int{i % 3}, noTombstones)
	}
	other.SetHighWatermark(other.LogEndOffset())
	c := newCleaner(m, 0)
	c.Pass(t.Context(), d.now)
	require.Len(t, c.Parked(), 1)
	require.ErrorIs(t, c.Parked()[l.TopicPartition()], logstore.ErrCorrupt)
	require.Equal(t, d2.state, readState(t, other, other.LogEndOffset()))
	require.Less(t, other.Size(), int64(4000))
	_, err = l.AppendAsLeader(logstore.AppendParams{Records: logstore.NewEndTxnBatch(logstore.EndTxnMarker{}), Origin: logstore.OriginCoordinator, Now: d.now})
	require.NoError(t, err, "appends go on")
}

func TestTruncationLowersTheCleanersCheckpoint(t *testing.T) {
	fsys := crashfs.New()
	m := openCompacted(t, fsys, compacted())
	l := openCleanTopic(t, m)
	d := newDriver(t, l)
	for i := range 200 {
		d.append(0, false, logstore.CodecNone, []int{i % 3}, noTombstones)
	}
	l.SetHighWatermark(l.LogEndOffset())
	newCleaner(m, 0).Pass(t.Context(), d.now)
	read := func() int64 {
		offsets, err := logstore.ReadOffsetCheckpoint(fsys, "/data/"+logstore.CleanerCheckpoint)
		require.NoError(t, err)
		return offsets[l.TopicPartition()]
	}
	require.Greater(t, read(), int64(50))
	require.NoError(t, l.TruncateTo(40))
	require.Equal(t, int64(40), read())
	require.NoError(t, m.Close(true))
	require.Equal(t, int64(40), read())
}

// play appends, cleans and moves the clock as a script of small numbers says.
func (d *driver) play(rng *rand.Rand, c *logstore.Cleaner, steps int) {
	for range steps {
		codec := logstore.Codec(rng.IntN(5))
		keys := make([]int, 1+rng.IntN(4))
		for i := range keys {
			keys[i] = rng.IntN(12)
		}
		tombstones := func(int) bool { return rng.IntN(4) == 0 }
		producer := int64(1 + rng.IntN(3))
		switch rng.IntN(8) {
		case 0, 1, 2:
			d.append(0, false, codec, keys, tombstones)
		case 3, 4, 5:
			d.append(producer, true, codec, keys, tombstones)
		case 6:
			if d.open[producer] {
				d.end(producer, rng.IntN(2) == 0)
			}
		case 7:
			d.now = d.now.Add(time.Duration(rng.IntN(60)) * time.Millisecond)
			if rng.IntN(3) == 0 && c != nil {
				d.log.SetHighWatermark(d.log.LogEndOffset())
				c.Pass(context.Background(), d.now)
			}
		}
	}
}

// finishAll ends all transactions and replicates everything.
func (d *driver) finishAll(rng *rand.Rand) {
	for producer := int64(1); producer <= 3; producer++ {
		if d.open[producer] {
			d.end(producer, rng.IntN(2) == 0)
		}
	}
	d.log.SetHighWatermark(d.log.LogEndOffset())
}

func TestCleaningChangesNothingThatAConsumerCanSee(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		dedupe := int64(rapid.SampledFrom([]int{24 * 4, 24 * 8, 1 << 20}).Draw(t, "dedupe"))
		steps := rapid.IntRange(20, 200).Draw(t, "steps")
		// The same script runs twice: on a log that is never cleaned, and on one that is.
		run := func(clean bool) (map[string]string, int64, int64) {
			fsys := crashfs.New()
			m := openCompacted(t, fsys, compacted())
			l := openCleanTopic(t, m)
			d := newDriver(t, l)
			rng := rand.New(rand.NewPCG(seed, 1))
			var c *logstore.Cleaner // nil: the script is the same, nothing is cleaned
			if clean {
				c = newCleaner(m, dedupe)
			}
			d.play(rng, c, steps)
			d.finishAll(rand.New(rand.NewPCG(seed, 2)))
			if clean {
				for range 3 {
					d.now = d.now.Add(time.Second)
					c.Pass(context.Background(), d.now)
				}
				for _, err := range c.Parked() {
					require.ErrorContains(t, err, "dedupe buffer")
				}
			}
			end := l.LogEndOffset()
			state := readState(t, l, end)
			require.NoError(t, m.Close(true))
			m = openCompacted(t, fsys, compacted())
			l = openCleanTopic(t, m)
			require.Equal(t, end, l.LogEndOffset())
			require.Equal(t, state, readState(t, l, end))
			size := l.Size()
			require.NoError(t, m.Close(true))
			return state, end, size
		}
		want, wantEnd, _ := run(false)
		got, gotEnd, _ := run(true)
		require.Equal(t, wantEnd, gotEnd)
		require.Equal(t, want, got)
	})
}

// A crash or a fault at any operation of a cleaning leaves a log that a consumer reads as before.
func TestCleaningSurvivesACrashAtEveryOperation(t *testing.T) {
	fault := errors.New("disk gone")
	setup := func() (*crashfs.FS, *logstore.Manager, *driver, map[string]string) {
		fsys := crashfs.New()
		m := openCompacted(t, fsys, compacted())
		d := newDriver(t, openCleanTopic(t, m))
		rng := rand.New(rand.NewPCG(3, 4))
		d.play(rng, nil, 150)
		d.finishAll(rng)
		require.NoError(t, d.log.Flush(d.log.LogEndOffset()))
		require.NoError(t, fsys.SyncDir("/"))
		return fsys, m, d, readState(t, d.log, d.log.LogEndOffset())
	}
	fsys, m, d, want := setup()
	before := fsys.Ops()
	newCleaner(m, 0).Pass(t.Context(), d.now)
	ops := fsys.Ops() - before
	require.Greater(t, ops, int64(30))
	require.Equal(t, want, readState(t, d.log, d.log.LogEndOffset()))
	step := int64(1)
	if testing.Short() || invariant.Checked { // the race detector makes it ten times slower
		step = 5
	}
	for n := int64(1); n <= ops; n += step {
		fsys, m, d, want := setup()
		end := d.log.LogEndOffset()
		fsys.FailAt(n, true, fault)
		newCleaner(m, 0).Pass(t.Context(), d.now)
		for seed := range uint64(3) {
			crashed := fsys.Crash(rand.New(rand.NewPCG(seed, uint64(n))))
			m2 := openCompacted(t, crashed, compacted())
			l, ok := m2.Get(cleanTopic)
			require.True(t, ok)
			require.Equal(t, end, l.LogEndOffset(), "operation %d, seed %d", n, seed)
			require.Equal(t, want, readState(t, l, end), "operation %d, seed %d", n, seed)
			l.SetHighWatermark(end)
			c := newCleaner(m2, 0)
			c.Pass(t.Context(), d.now.Add(time.Second))
			require.Empty(t, c.Parked())
			require.Equal(t, want, readState(t, l, end), "operation %d, seed %d, cleaned again", n, seed)
			_ = m2.Close(false)
		}
		_ = m.Close(false)
	}
}

// Readers, flushes and the closing of idle files go on while segments are swapped.
func TestCleaningDoesNotDisturbReaders(t *testing.T) {
	m, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{t.TempDir()}, BrokerID: 1, ClusterID: "c",
		Defaults: func(string) *logstore.Config { return compacted() }, Logger: zerolog.Nop(),
	})
	require.NoError(t, err)
	l := openCleanTopic(t, m)
	d := newDriver(t, l)
	c := newCleaner(m, 0)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	background := func(fn func(rng *rand.Rand)) {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(1, 2))
			for {
				select {
				case <-stop:
					return
				default:
					fn(rng)
				}
			}
		})
	}
	background(func(rng *rand.Rand) {
		end := l.LogEndOffset()
		if end == 0 {
			return
		}
		offset := rng.Int64N(end)
		b, ok := readOne(t, l, offset, end)
		if ok && (b.VerifyCRC() != nil || b.LastOffset() < offset) {
			t.Errorf("read at %d gave [%d, %d]: %v", offset, b.BaseOffset(), b.LastOffset(), b.VerifyCRC())
		}
	})
	background(func(*rand.Rand) {
		if err := l.Flush(l.LogEndOffset()); err != nil {
			t.Error(err)
		}
		m.CloseIdleFiles()
	})
	rng := rand.New(rand.NewPCG(5, 6))
	for range 40 {
		d.play(rng, nil, 30)
		l.SetHighWatermark(l.LogEndOffset())
		d.now = d.now.Add(30 * time.Millisecond)
		c.Pass(t.Context(), d.now)
		m.DeletePass(d.now.Add(time.Hour))
	}
	close(stop)
	wg.Wait()
	require.Empty(t, c.Parked())
	require.NoError(t, m.Close(true))
}

func BenchmarkClean(b *testing.B) {
	cfg := compacted()
	cfg.SegmentBytes, cfg.IndexBytes, cfg.IndexIntervalBytes = 1<<20, 1<<20, 4096
	now := time.UnixMilli(cleanStart)
	value := make([]byte, 100)
	var size int64
	b.ReportAllocs()
	for b.Loop() {
		b.StopTimer()
		m := openCompacted(b, crashfs.New(), cfg)
		l := openCleanTopic(b, m)
		bd := logstore.NewBuilder(logstore.PlainBatch())
		for i := range 500 {
			bd.Reset(logstore.PlainBatch())
			for j := range 130 {
				require.NoError(b, bd.AppendNext(cleanStart, fmt.Appendf(nil, "key-%06d", (i*130+j)*7919%20000), value))
			}
			batch, err := bd.Finish()
			require.NoError(b, err)
			_, err = l.AppendAsLeader(logstore.AppendParams{Records: batch, Origin: logstore.OriginClient, ProduceVersion: 9, Now: now})
			require.NoError(b, err)
		}
		l.SetHighWatermark(l.LogEndOffset())
		size = l.Size()
		c := newCleaner(m, 0)
		b.StartTimer()
		c.Pass(context.Background(), now)
		b.StopTimer()
		_ = m.Close(false)
		b.StartTimer()
	}
	b.SetBytes(size)
}
