package logstore_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/internal/invariant"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

// histories is how many random lives a model test plays.
func histories(short, long int) int {
	if testing.Short() || invariant.Checked {
		return short
	}
	return long
}

// drawTime is a record's timestamp: mostly about now, often out of order, sometimes long ago or in the future, rarely far ahead.
func drawTime(rng *rand.Rand, now int64) int64 {
	switch rng.IntN(20) {
	case 0:
		return max(now-rng.Int64N(100_000), 1)
	case 1:
		return now + rng.Int64N(100_000)
	case 2:
		if rng.IntN(4) == 0 {
			return now + 1<<40
		}
	}
	return max(now-rng.Int64N(1000), 1)
}

// part is a segment of the model.
type part struct {
	base         int64
	size         int64
	first        int64 // timestamp of its first batch
	newest       int64
	batchOffsets []int64
}

// life is retention and roll as simple rules over a list: what Kafka's documentation says of them.
type life struct {
	parts      []part
	start, end int64
	hw         int64
	config     logstore.Config
}

func (m *life) add(size, timestamp int64) {
	active := &m.parts[len(m.parts)-1]
	if active.size > 0 && (active.size+size > int64(m.config.SegmentBytes) || timestamp-active.first > m.config.SegmentMs.Milliseconds()) {
		m.parts = append(m.parts, part{base: m.end})
		active = &m.parts[len(m.parts)-1]
	}
	if active.size == 0 {
		active.first, active.newest = timestamp, timestamp
	}
	active.size += size
	active.newest = max(active.newest, timestamp)
	active.batchOffsets = append(active.batchOffsets, m.end)
	m.end++
}

func (m *life) endOf(i int) int64 {
	if i+1 < len(m.parts) {
		return m.parts[i+1].base
	}
	return m.end
}

// retain removes from the oldest on, while a reason holds, and never what is not replicated.
func (m *life) retain(now int64) {
	removable := func(i int) bool {
		return m.hw >= m.endOf(i) && (i+1 < len(m.parts) || m.parts[i].size > 0)
	}
	leading := func(reason func(i int) bool) int {
		n := 0
		for n < len(m.parts) && removable(n) && reason(n) {
			n++
		}
		return n
	}
	total := int64(0)
	for _, p := range m.parts {
		total += p.size
	}
	over := total - m.config.RetentionBytes
	n := leading(func(i int) bool { return i+1 < len(m.parts) && m.parts[i+1].base <= m.start })
	if m.config.RetentionMs >= 0 {
		n = max(n, leading(func(i int) bool { return now-m.parts[i].newest > m.config.RetentionMs }))
	}
	if m.config.RetentionBytes >= 0 {
		n = max(n, leading(func(i int) bool { over -= m.parts[i].size; return over >= 0 }))
	}
	m.parts = m.parts[n:]
	if len(m.parts) == 0 {
		m.parts = []part{{base: m.end}}
	}
	m.start = max(m.start, m.parts[0].base)
}

func (m *life) check(t *testing.T, l *logstore.Log, what string) {
	t.Helper()
	base, count := l.FirstBase()
	require.Equal(t, len(m.parts), count, what)
	require.Equal(t, m.parts[0].base, base, what)
	require.Equal(t, []int64{m.start, m.end}, []int64{l.LogStartOffset(), l.LogEndOffset()}, what)
	size := int64(0)
	for _, p := range m.parts {
		size += p.size
	}
	require.Equal(t, size, l.Size(), what)
}

// TestRetentionAndRollAreTheModel plays thousands of lives: appends with timestamps out of order and in the future, replication,
// retention by time, size and log start, settings that change, clean stops and kills.
func TestRetentionAndRollAreTheModel(t *testing.T) {
	for seed := range uint64(histories(200, 3000)) {
		playLife(t, seed)
	}
}

func playLife(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	draw := func() *logstore.Config {
		c := logstore.DefaultConfig()
		c.SegmentBytes, c.FileDeleteDelay = 500+rng.IntN(1500), 0
		c.SegmentMs = time.Duration(200+rng.IntN(5000)) * time.Millisecond
		c.RetentionMs, c.RetentionBytes = -1, -1
		if rng.IntN(3) > 0 {
			c.RetentionMs = int64(rng.IntN(5000))
		}
		if rng.IntN(3) > 0 {
			c.RetentionBytes = int64(rng.IntN(6000))
		}
		return c
	}
	now := int64(1_700_000_000_000)
	fsys, c := crashfs.New(), draw()
	open := func() (*logstore.Manager, *logstore.Log) {
		m := openManager(t, fsys, c)
		return m, openTopic(t, m)
	}
	mgr, l := open()
	m := &life{parts: []part{{}}, config: *c}
	for step := range 60 {
		what := fmt.Sprintf("seed %d step %d", seed, step)
		switch rng.IntN(16) {
		case 0, 1:
			now += rng.Int64N(3000)
		case 2, 3:
			m.hw = min(m.end, m.hw+rng.Int64N(20))
			m.hw = max(m.hw, m.start)
			l.SetHighWatermark(m.hw)
		case 4, 5:
			if rng.IntN(4) == 0 { // just as much as the later segments have
				exact := *c
				exact.RetentionBytes = 0
				for _, p := range m.parts[1:] {
					exact.RetentionBytes += p.size
				}
				c = &exact
				l.SetConfig(c)
				m.config = *c
			}
			m.retain(now)
			_, err := l.Retain(time.UnixMilli(now))
			require.NoError(t, err, what)
			mgr.DeletePass(time.Now().Add(time.Hour))
		case 6:
			m.start = min(m.hw, m.start+rng.Int64N(8))
			require.NoError(t, l.IncrementLogStart(m.start), what)
		case 7:
			c = draw()
			l.SetConfig(c)
			m.config = *c
		case 8:
			clean := rng.IntN(2) == 0
			require.NoError(t, mgr.CheckpointLogStarts())
			require.NoError(t, mgr.CheckpointHighWatermarks())
			if clean {
				require.NoError(t, mgr.Close(true), what)
			} else {
				old := mgr
				fsys = fsys.Kill()
				_ = old.Close(false)
			}
			mgr, l = open()
		default:
			for range 1 + rng.IntN(4) {
				timestamp := drawTime(rng, now)
				b := build(t, 0, -1, []record{{timestamp: timestamp, value: string(bytes.Repeat([]byte{'v'}, rng.IntN(200)))}})
				m.add(int64(len(b)), timestamp)
				_, err := l.AppendAsLeader(logstore.AppendParams{Records: b, Epoch: 1, ProduceVersion: 9, Now: time.UnixMilli(now)})
				require.NoError(t, err, what)
			}
		}
		m.check(t, l, what)
	}
	for i, p := range m.parts { // what is there is what was not removed
		for _, offset := range p.batchOffsets {
			if offset < m.start {
				continue
			}
			s, err := l.Read(offset, 1, m.end, true)
			require.NoError(t, err, "seed %d segment %d", seed, i)
			require.Equal(t, offset, s.FirstOffset, "seed %d segment %d", seed, i)
			s.Release()
		}
	}
	require.NoError(t, mgr.Close(true))
}

// keyedRecord is what the model of compaction remembers.
type keyedRecord struct{ key, value string } // value "": a tombstone

// TestCompactionWithRetentionIsTheModel plays thousands of lives of a topic that is compacted and deleted: whoever reads it from its
// start sees for each key what a log that was never compacted would say from there.
func TestCompactionWithRetentionIsTheModel(t *testing.T) {
	for seed := range uint64(histories(60, 1000)) {
		playCompaction(t, seed)
	}
}

func playCompaction(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 11))
	c := compacted()
	c.Delete = rng.IntN(2) == 0
	c.SegmentBytes = 500 + rng.IntN(1500)
	c.SegmentMs = time.Duration(200+rng.IntN(20_000)) * time.Millisecond
	c.DeleteRetention = time.Duration(rng.IntN(300)) * time.Millisecond
	c.MinCompactionLag = time.Duration(rng.IntN(2)) * 500 * time.Millisecond
	if c.Delete && rng.IntN(2) == 0 {
		c.RetentionBytes = int64(2000 + rng.IntN(4000))
	}
	if c.Delete && rng.IntN(2) == 0 {
		c.RetentionMs = int64(1000 + rng.IntN(5000))
	}
	fsys := crashfs.New()
	open := func() (*logstore.Manager, *logstore.Log, *logstore.Cleaner) {
		m := openCompacted(t, fsys, c)
		return m, openCleanTopic(t, m), logstore.NewCleaner(logstore.CleanerOptions{Logs: m.Logs, Settings: dedupe(int64(24 * (8 + rng.IntN(100)))), Logger: zerolog.Nop()})
	}
	m, l, cleaner := open()
	var all []keyedRecord // by offset
	now := time.UnixMilli(cleanStart)
	expect := func(what string) {
		t.Helper()
		want := map[string]string{}
		for _, r := range all[l.LogStartOffset():l.LogEndOffset()] {
			apply(want, map[string]string{r.key: r.value})
		}
		require.Equal(t, want, readState(t, l, l.LogEndOffset()), what)
	}
	for step := range 60 {
		what := fmt.Sprintf("seed %d step %d", seed, step)
		switch rng.IntN(12) {
		case 0:
			now = now.Add(time.Duration(rng.IntN(1500)) * time.Millisecond)
		case 1, 2:
			l.SetHighWatermark(l.LogEndOffset())
			cleaner.Pass(context.Background(), now)
			m.DeletePass(time.Now().Add(time.Hour))
			expect(what)
		case 3:
			require.NoError(t, m.CheckpointLogStarts())
			require.NoError(t, m.CheckpointHighWatermarks())
			if rng.IntN(2) == 0 {
				require.NoError(t, m.Close(true), what)
			} else {
				old := m
				fsys = fsys.Kill()
				_ = old.Close(false)
			}
			m, l, cleaner = open()
			require.EqualValues(t, len(all), l.LogEndOffset(), what)
			expect(what)
		default:
			o := logstore.PlainBatch()
			o.Compression = logstore.DefaultCompression(logstore.Codec(rng.IntN(5)))
			bd := logstore.NewBuilder(o)
			for range 1 + rng.IntN(4) {
				r := keyedRecord{key: fmt.Sprint("key-", rng.IntN(10)), value: fmt.Sprintf("value %d", len(all))}
				value := []byte(r.value)
				if rng.IntN(5) == 0 {
					r.value, value = "", nil
				}
				all = append(all, r)
				require.NoError(t, bd.AppendNext(drawTime(rng, now.UnixMilli()), []byte(r.key), value))
			}
			b, err := bd.Finish()
			require.NoError(t, err)
			_, err = l.AppendAsLeader(logstore.AppendParams{Records: bytes.Clone(b), Epoch: cluster.LeaderEpoch(step / 20), ProduceVersion: 9, Now: now})
			require.NoError(t, err, what)
		}
	}
	l.SetHighWatermark(l.LogEndOffset())
	for range 3 {
		now = now.Add(time.Second)
		cleaner.Pass(context.Background(), now)
		expect(fmt.Sprintf("seed %d at the end", seed))
	}
	require.NoError(t, m.Close(true))
}
