package logstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"pgregory.net/rapid"

	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

var topic0 = cluster.TopicPartition{Topic: "orders", Partition: 0}

// tiny makes every limit be reached often.
func tiny() *logstore.Config {
	c := logstore.DefaultConfig()
	c.SegmentBytes = 2000
	c.IndexIntervalBytes = 150
	c.IndexBytes = 25 * 8
	c.RetentionMs = -1
	c.FileDeleteDelay = 0
	return c
}

type tb interface {
	require.TestingT
	Helper()
}

func openManager(t tb, fsys logstore.FS, c *logstore.Config) *logstore.Manager {
	t.Helper()
	m, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{"/data"}, FS: fsys, BrokerID: 1, ClusterID: "c",
		Defaults: func(string) *logstore.Config { return c }, Logger: zerolog.Nop(),
	})
	require.NoError(t, err)
	return m
}

func openTopic(t tb, m *logstore.Manager) *logstore.Log {
	t.Helper()
	l, err := m.GetOrCreate(topic0, cluster.TopicID{1}, true)
	require.NoError(t, err)
	return l
}

// record is what the model remembers of one record.
type record struct {
	offset, timestamp int64
	value             string
}

// batch is one batch of the model.
type batch struct {
	base, last int64
	records    []record
}

// model is the log as a slice of batches.
type model struct {
	batches        []batch
	start, end, hw int64
	epoch          cluster.LeaderEpoch
	epochs         []logstore.EpochEntry
}

func build(t tb, base int64, epoch cluster.LeaderEpoch, records []record) []byte {
	t.Helper()
	o := logstore.PlainBatch()
	o.BaseOffset, o.LeaderEpoch = base, epoch
	bd := logstore.NewBuilder(o)
	for _, r := range records {
		require.NoError(t, bd.AppendNext(r.timestamp, nil, []byte(r.value)))
	}
	b, err := bd.Finish()
	require.NoError(t, err)
	return bytes.Clone(b)
}

func (m *model) newRecords(rt *rapid.T, base int64) []record {
	n := rapid.IntRange(1, 4).Draw(rt, "records")
	records := make([]record, n)
	for i := range records {
		size := rapid.IntRange(0, 120).Draw(rt, "size")
		records[i] = record{
			offset: base + int64(i), timestamp: rapid.Int64Range(1000, 1100).Draw(rt, "ts"),
			value: fmt.Sprintf("%d:%s", base+int64(i), bytes.Repeat([]byte{'x'}, size)),
		}
	}
	return records
}

func (m *model) add(records []record) {
	b := batch{base: records[0].offset, last: records[len(records)-1].offset, records: records}
	m.batches = append(m.batches, b)
	m.noteEpoch(b.base)
	m.end = b.last + 1
}

func (m *model) noteEpoch(at int64) {
	if n := len(m.epochs); n > 0 && m.epochs[n-1].Epoch == m.epoch {
		return
	}
	for n := len(m.epochs); n > 0 && m.epochs[n-1].StartOffset >= at; n-- {
		m.epochs = m.epochs[:n-1]
	}
	m.epochs = append(m.epochs, logstore.EpochEntry{Epoch: m.epoch, StartOffset: at})
}

// truncate cuts the batches that reach offset, as TruncateTo does.
func (m *model) truncate(offset int64) {
	end := min(offset, m.end)
	for len(m.batches) > 0 && m.batches[len(m.batches)-1].last >= offset {
		m.batches = m.batches[:len(m.batches)-1]
	}
	for len(m.epochs) > 0 && m.epochs[len(m.epochs)-1].StartOffset >= end {
		m.epochs = m.epochs[:len(m.epochs)-1]
	}
	m.end, m.start, m.hw = end, min(m.start, end), min(m.hw, end)
}

// snap moves an offset in a gap to the gap's beginning: where the log ends after a restart.
func (m *model) snap(to int64) int64 {
	end := m.start
	for _, b := range m.batches {
		if b.base >= to {
			return min(to, end)
		}
		end = max(end, b.last+1)
	}
	return to
}

func (m *model) raiseStart(offset int64) {
	m.start = max(m.start, offset)
	m.hw = max(m.hw, m.start)
	var left []logstore.EpochEntry
	for i, e := range m.epochs {
		if i+1 < len(m.epochs) && m.epochs[i+1].StartOffset <= m.start {
			continue
		}
		if e.StartOffset < m.start {
			e.StartOffset = m.start
		}
		left = append(left, e)
	}
	m.epochs = left
}

// readAll reads [from, end) as a consumer does.
func readAll(t tb, l *logstore.Log, from, end int64, maxBytes int) []record {
	t.Helper()
	var out []record
	for next := from; next < end; {
		s, err := l.Read(next, maxBytes, end, true)
		require.NoError(t, err)
		if s.Empty() {
			return out
		}
		buf := make([]byte, s.Len)
		_, err = s.ReadAt(buf, 0)
		s.Release()
		require.NoError(t, err)
		progressed := false
		for rest := buf; ; {
			b, more, err := logstore.NextBatch(rest)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			require.NoError(t, err)
			require.NoError(t, b.VerifyCRC())
			require.Less(t, b.BaseOffset(), end)
			for r, err := range b.Records() {
				require.NoError(t, err)
				if r.Offset >= next {
					out = append(out, record{r.Offset, r.Timestamp, string(r.Value)})
				}
			}
			next, rest, progressed = b.NextOffset(), more, true
		}
		require.True(t, progressed, "no whole batch although minOneBatch")
	}
	return out
}

func (m *model) records(from, end int64) []record {
	var out []record
	for _, b := range m.batches {
		if b.last >= end { // a batch that reaches over the limit is not shown
			break
		}
		for _, r := range b.records {
			if r.offset >= from {
				out = append(out, r)
			}
		}
	}
	return out
}

func (m *model) check(rt *rapid.T, l *logstore.Log) {
	rt.Helper()
	require.Equal(rt, logstore.Offsets{LogStart: m.start, LogEnd: m.end, HighWatermark: m.hw, LastStable: m.hw}, l.Offsets())
	require.Equal(rt, m.records(m.start, m.end), readAll(rt, l, m.start, m.end, 1))
	require.Equal(rt, m.records(m.start, m.end), readAll(rt, l, m.start, m.end, 1<<20))
	if len(m.epochs) == 0 {
		require.Empty(rt, l.EpochEntries())
	} else {
		require.Equal(rt, m.epochs, l.EpochEntries())
	}
}

func TestLogIsTheModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		fsys := crashfs.New()
		c := tiny()
		mgr := openManager(rt, fsys, c)
		defer func() { require.NoError(rt, mgr.Close(true)) }()
		l := openTopic(rt, mgr)
		m := &model{epoch: 1}
		reopened := func() {
			mgr = openManager(rt, fsys, c)
			var ok bool
			l, ok = mgr.Get(topic0)
			require.True(rt, ok)
		}
		rt.Repeat(map[string]func(*rapid.T){
			"leader": func(rt *rapid.T) {
				records := m.newRecords(rt, m.end)
				info, err := l.AppendAsLeader(logstore.AppendParams{Records: build(rt, 0, -1, records), Epoch: m.epoch, ProduceVersion: 9, Now: time.Now()})
				require.NoError(rt, err)
				require.Equal(rt, m.end, info.FirstOffset)
				m.add(records)
				require.Equal(rt, m.end-1, info.LastOffset)
			},
			"follower": func(rt *rapid.T) {
				var sent []byte
				for range rapid.IntRange(1, 3).Draw(rt, "batches") {
					gap := rapid.SampledFrom([]int64{0, 0, 0, 1, 7}).Draw(rt, "gap")
					records := m.newRecords(rt, m.end+gap)
					sent = append(sent, build(rt, m.end+gap, m.epoch, records)...)
					m.add(records)
				}
				cut := build(rt, m.end, m.epoch, m.newRecords(rt, m.end))
				sent = append(sent, cut[:rapid.IntRange(0, len(cut)-1).Draw(rt, "cut")]...)
				info, err := l.AppendAsFollower(sent, m.epoch)
				require.NoError(rt, err)
				require.Equal(rt, m.end-1, info.LastOffset)
			},
			"newer epoch is left out": func(rt *rapid.T) {
				records := m.newRecords(rt, m.end)
				sent := append(build(rt, m.end, m.epoch, records), build(rt, m.end+int64(len(records)), m.epoch+1, records)...)
				_, err := l.AppendAsFollower(sent, m.epoch)
				require.NoError(rt, err)
				m.add(records)
			},
			"below the end is refused": func(rt *rapid.T) {
				if m.end == m.start {
					return
				}
				_, err := l.AppendAsFollower(build(rt, m.end-1, m.epoch, m.newRecords(rt, m.end-1)), m.epoch)
				require.ErrorIs(rt, err, kerr.OffsetOutOfRange)
			},
			"epoch": func(rt *rapid.T) {
				m.epoch++
				if rapid.Bool().Draw(rt, "assign") {
					require.NoError(rt, l.AssignEpochStart(m.epoch))
					m.noteEpoch(m.end)
				}
			},
			"high watermark": func(rt *rapid.T) {
				m.hw = rapid.Int64Range(m.start, m.end).Draw(rt, "hw")
				l.SetHighWatermark(m.hw)
			},
			"read": func(rt *rapid.T) {
				from := rapid.Int64Range(m.start, m.end).Draw(rt, "from")
				end := m.hw
				maxBytes := rapid.IntRange(1, 4000).Draw(rt, "max")
				require.Equal(rt, m.records(from, end), readAll(rt, l, from, end, maxBytes))
				s, err := l.Read(from, maxBytes, m.end, false)
				require.NoError(rt, err)
				require.LessOrEqual(rt, s.Len, int64(maxBytes))
				s.Release()
				_, err = l.Read(m.end+1, maxBytes, m.end, true)
				require.ErrorIs(rt, err, kerr.OffsetOutOfRange)
			},
			"time": func(rt *rapid.T) {
				ts := rapid.Int64Range(990, 1110).Draw(rt, "ts")
				var want *record
				for _, r := range m.records(0, m.end) {
					if r.timestamp >= ts {
						want = &r
						break
					}
				}
				if want != nil && want.offset < m.start {
					return // found or not depends on the segment, as in Kafka
				}
				offset, at, _, found, err := l.OffsetForTimestamp(ts)
				require.NoError(rt, err)
				require.Equal(rt, want != nil, found)
				if found {
					require.Equal(rt, []int64{want.offset, want.timestamp}, []int64{offset, at})
				}
			},
			"truncate": func(rt *rapid.T) {
				to := rapid.Int64Range(max(m.start-2, 0), m.end+1).Draw(rt, "to")
				if first, _ := l.FirstBase(); to < first {
					return
				}
				for _, b := range m.batches {
					if b.base < to && to <= b.last {
						to = b.base // epoch ends are batch borders
					}
				}
				to = m.snap(to)
				require.NoError(rt, l.TruncateTo(to))
				m.truncate(to)
			},
			"start over": func(rt *rapid.T) {
				if rapid.IntRange(0, 4).Draw(rt, "rare") > 0 {
					return
				}
				to := rapid.Int64Range(0, m.end+10).Draw(rt, "to")
				require.NoError(rt, l.TruncateFullyAndStartAt(to))
				*m = model{epoch: m.epoch, start: to, end: to, hw: to}
			},
			"log start": func(rt *rapid.T) {
				to := rapid.Int64Range(m.start, m.end).Draw(rt, "to")
				require.NoError(rt, l.IncrementLogStart(to))
				m.raiseStart(to)
				require.NoError(rt, mgr.CheckpointLogStarts())
			},
			"retain": func(rt *rapid.T) {
				kept := *c
				kept.RetentionBytes = rapid.Int64Range(0, 6000).Draw(rt, "bytes")
				l.SetConfig(&kept)
				_, err := l.Retain(time.Now())
				require.NoError(rt, err)
				l.SetConfig(c)
				start := l.LogStartOffset()
				require.GreaterOrEqual(rt, start, m.start)
				require.LessOrEqual(rt, start, m.hw)
				if start > m.start {
					m.raiseStart(start)
					for len(m.batches) > 0 && m.batches[0].last < start {
						m.batches = m.batches[1:]
					}
				}
				mgr.DeletePass(time.Now().Add(time.Hour))
			},
			"flush": func(rt *rapid.T) {
				require.NoError(rt, l.Flush(m.end))
				require.Equal(rt, m.end, l.FlushedOffset())
				require.NoError(rt, mgr.CheckpointRecoveryPoints())
			},
			"idle": func(rt *rapid.T) { mgr.CloseIdleFiles() },
			"clean stop": func(rt *rapid.T) {
				require.NoError(rt, mgr.Close(true))
				reopened()
				require.True(rt, mgr.WasClean())
				require.False(rt, l.Recovery().Unclean)
				require.Equal(rt, m.end, l.FlushedOffset())
				m.dropEpochsAtEnd(l)
			},
			"kill": func(rt *rapid.T) {
				require.NoError(rt, mgr.CheckpointLogStarts())
				require.NoError(rt, mgr.CheckpointHighWatermarks())
				old := mgr
				fsys = fsys.Kill()
				_ = old.Close(false)
				reopened()
				require.False(rt, mgr.WasClean())
				require.Zero(rt, l.Recovery().CutBytes)
				m.dropEpochsAtEnd(l)
				m.takeEpochs(rt, l)
			},
			"": func(rt *rapid.T) { m.check(rt, l) },
		})
	})
}

// takeEpochs: what the history says of offsets without records is not remembered over a kill. Every batch keeps its epoch.
func (m *model) takeEpochs(rt *rapid.T, l *logstore.Log) {
	for _, b := range m.batches {
		if b.base < m.start {
			continue
		}
		want := cluster.NoLeaderEpoch
		for _, e := range m.epochs {
			if e.StartOffset <= b.base {
				want = e.Epoch
			}
		}
		got, _ := l.EpochAt(b.base)
		require.Equal(rt, want, got, "offset %d", b.base)
	}
	m.epochs = slices.Clone(l.EpochEntries())
}

// dropEpochsAtEnd: an epoch without records is forgotten when the log is loaded, unless the log is empty and
// the batches below its start still tell of it.
func (m *model) dropEpochsAtEnd(l *logstore.Log) {
	if got := l.EpochEntries(); m.start == m.end && len(got) == 1 && got[0].StartOffset == m.end {
		m.epochs = slices.Clone(got)
		return
	}
	for n := len(m.epochs); n > 0 && m.epochs[n-1].StartOffset >= m.end; n-- {
		m.epochs = m.epochs[:n-1]
	}
}
