package logstore_test

import (
	"bytes"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

const firstLog = "/data/orders-0/00000000000000000000.log"

// filled returns a file system with a log of n records of one batch each, flushed up to the checkpoint, and killed.
func filled(t *testing.T, n int, recoveryPoint int64) *crashfs.FS {
	t.Helper()
	fsys := crashfs.New()
	m := openManager(t, fsys, tiny())
	l := openTopic(t, m)
	for i := range n {
		if int64(i) == recoveryPoint {
			require.NoError(t, l.Flush(l.LogEndOffset()))
			require.NoError(t, m.CheckpointRecoveryPoints())
		}
		appendValue(t, l, 1, strings.Repeat("v", 60))
	}
	killed := fsys.Kill()
	_ = m.Close(false)
	return killed
}

func appendValue(t *testing.T, l *logstore.Log, epoch cluster.LeaderEpoch, value string) {
	t.Helper()
	_, err := l.AppendAsLeader(logstore.AppendParams{
		Records: build(t, 0, -1, []record{{timestamp: 1000 + l.LogEndOffset(), value: value}}), Epoch: epoch, ProduceVersion: 9, Now: time.Now(),
	})
	require.NoError(t, err)
}

// edit changes a file's content.
func edit(t *testing.T, fsys logstore.FS, name string, change func(data []byte) []byte) {
	t.Helper()
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	require.NoError(t, err)
	defer f.Close() //nolint:errcheck // a test
	info, err := f.Stat()
	require.NoError(t, err)
	data := make([]byte, info.Size())
	if len(data) > 0 {
		_, err = f.ReadAt(data, 0)
		require.NoError(t, err)
	}
	data = change(data)
	require.NoError(t, f.Truncate(0))
	_, err = f.WriteAt(data, 0)
	require.NoError(t, err)
}

// reopen opens what is there and returns the log and what was logged.
func reopen(t *testing.T, fsys logstore.FS) (*logstore.Log, *logstore.Manager, string) {
	t.Helper()
	var out bytes.Buffer
	m, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{"/data"}, FS: fsys, BrokerID: 1, Defaults: func(string) *logstore.Config { return tiny() }, Logger: zerolog.New(&out),
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, m.Close(true)) })
	l, ok := m.Get(topic0)
	require.True(t, ok)
	return l, m, out.String()
}

func offsetsOf(records []record) []int64 {
	var out []int64
	for _, r := range records {
		out = append(out, r.offset)
	}
	return out
}

func firstOffsets(n int64) []int64 {
	var out []int64
	for i := range n {
		out = append(out, i)
	}
	return out
}

func TestRecoveryCutsATornTailAndSaysSo(t *testing.T) {
	fsys := filled(t, 10, 0)
	var size int
	edit(t, fsys, firstLog, func(data []byte) []byte { size = len(data); return data[:len(data)-7] })
	l, _, logged := reopen(t, fsys)
	require.Equal(t, firstOffsets(9), offsetsOf(readAll(t, l, 0, l.LogEndOffset(), 1<<20)))
	require.EqualValues(t, size/10-7, l.Recovery().CutBytes)
	require.EqualValues(t, 9, l.Recovery().CutFrom)
	require.Contains(t, logged, `"file":"`+firstLog+`"`)
	require.Contains(t, logged, `"position":`)
	appendValue(t, l, 2, "next")
	require.Equal(t, firstOffsets(10), offsetsOf(readAll(t, l, 0, 10, 1<<20)))
}

func TestRecoveryCutsZerosAtTheEnd(t *testing.T) {
	fsys := filled(t, 5, 0)
	edit(t, fsys, firstLog, func(data []byte) []byte { return append(data, make([]byte, 700)...) })
	l, _, _ := reopen(t, fsys)
	require.Equal(t, firstOffsets(5), offsetsOf(readAll(t, l, 0, l.LogEndOffset(), 1<<20)))
	require.EqualValues(t, 700, l.Recovery().CutBytes)
}

func TestRecoveryCutsFromDamageInTheMiddleAndRemovesLaterSegments(t *testing.T) {
	fsys := filled(t, 60, 0)
	var cutAt int
	edit(t, fsys, firstLog, func(data []byte) []byte {
		rest := data
		for range 3 {
			_, next, err := logstore.NextBatch(rest)
			require.NoError(t, err)
			rest = next
		}
		cutAt = len(data) - len(rest)
		data[cutAt+70] ^= 1
		return data
	})
	l, m, logged := reopen(t, fsys)
	require.Equal(t, firstOffsets(3), offsetsOf(readAll(t, l, 0, l.LogEndOffset(), 1<<20)))
	require.EqualValues(t, cutAt, l.Size())
	require.Contains(t, logged, "later_segments")
	require.Equal(t, 1, l.Segments())
	entries, err := fsys.ReadDir("/data/orders-0")
	require.NoError(t, err)
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".log") {
			require.Equal(t, "00000000000000000000.log", e.Name())
		}
	}
	require.False(t, m.WasClean())
}

func TestRecoveryBeginsAtTheRecoveryPoint(t *testing.T) {
	fsys := filled(t, 60, 50)
	// Damage below the recovery point is not looked for: what is there was durable, and reading says so.
	edit(t, fsys, firstLog, func(data []byte) []byte { data[70] ^= 1; return data })
	l, _, _ := reopen(t, fsys)
	require.EqualValues(t, 60, l.LogEndOffset())
	require.Zero(t, l.Recovery().CutBytes)
}

func TestMissingAndWrongIndexesAreRebuilt(t *testing.T) {
	fsys := filled(t, 60, 0)
	l, m, _ := reopen(t, fsys)
	want := readAll(t, l, 0, 60, 1<<20)
	require.NoError(t, m.Close(true))
	require.NoError(t, fsys.Remove(strings.Replace(firstLog, ".log", ".index", 1)))
	l, m, _ = reopen(t, fsys)
	require.True(t, m.WasClean())
	require.Equal(t, want, readAll(t, l, 0, 60, 1))
	_, err := fsys.Stat(strings.Replace(firstLog, ".log", ".index", 1))
	require.NoError(t, err)
	require.NoError(t, m.Close(true))
	edit(t, fsys, strings.Replace(firstLog, ".log", ".timeindex", 1), func([]byte) []byte { return []byte("nonsense") })
	l, _, _ = reopen(t, fsys)
	require.Equal(t, want, readAll(t, l, 0, 60, 1))
	offset, _, _, found, err := l.OffsetForTimestamp(1030)
	require.NoError(t, err)
	require.True(t, found)
	require.EqualValues(t, 30, offset)
}

func TestStaleCheckpointsDoNoHarm(t *testing.T) {
	fsys := filled(t, 10, 0)
	edit(t, fsys, "/data/"+logstore.RecoveryPointCheckpoint, func([]byte) []byte { return []byte("0\n2\norders 0 4000\ngone 7 3\n") })
	edit(t, fsys, "/data/"+logstore.HighWatermarkCheckpoint, func([]byte) []byte { return []byte("0\n1\norders 0 4000\n") })
	l, m, _ := reopen(t, fsys)
	require.EqualValues(t, 10, l.LogEndOffset())
	require.EqualValues(t, 10, l.HighWatermark())
	require.EqualValues(t, 4000, m.CheckpointedHighWatermark(topic0))
	points, err := logstore.ReadOffsetCheckpoint(fsys, "/data/"+logstore.RecoveryPointCheckpoint)
	require.NoError(t, err)
	require.Equal(t, map[cluster.TopicPartition]int64{topic0: 10}, points, "rewritten before anything is appended")
}

func TestMalformedCheckpointCountsAsEmpty(t *testing.T) {
	fsys := filled(t, 10, 5)
	edit(t, fsys, "/data/"+logstore.RecoveryPointCheckpoint, func([]byte) []byte { return []byte("0\nmany\n") })
	edit(t, fsys, "/data/orders-0/"+logstore.EpochCheckpointFile, func([]byte) []byte { return []byte("??") })
	l, _, logged := reopen(t, fsys)
	require.EqualValues(t, 10, l.LogEndOffset())
	require.Contains(t, logged, "malformed")
	require.Equal(t, []logstore.EpochEntry{{Epoch: 1, StartOffset: 0}}, l.EpochEntries())
}

func TestLogThatEndsBelowItsStartBeginsAnew(t *testing.T) {
	fsys := filled(t, 10, 0)
	edit(t, fsys, "/data/"+logstore.LogStartCheckpoint, func([]byte) []byte { return []byte("0\n1\norders 0 40\n") })
	l, _, _ := reopen(t, fsys)
	require.Equal(t, logstore.Offsets{LogStart: 40, LogEnd: 40, HighWatermark: 40, LastStable: 40}, l.Offsets())
	appendValue(t, l, 2, "next")
	require.Equal(t, []int64{40}, offsetsOf(readAll(t, l, 40, 41, 1)))
}

func TestLeftoversAreRemovedAndSwapsCompleted(t *testing.T) {
	fsys := filled(t, 60, 0)
	l, m, _ := reopen(t, fsys)
	want := readAll(t, l, 0, 60, 1<<20)
	require.NoError(t, m.Close(true))
	var content []byte
	edit(t, fsys, firstLog, func(data []byte) []byte { content = slices.Clone(data); return data })
	for name, data := range map[string][]byte{
		"/data/orders-0/00000000000000000099.log.deleted":    content,
		"/data/orders-0/00000000000000000098.index":          {1, 2, 3},
		"/data/orders-0/00000000000000000000.log.swap":       content, // what the cleaner made of it: the same
		"/data/orders-0/00000000000000000000.index.swap":     nil,
		"/data/orders-0/00000000000000000000.timeindex.swap": nil,
		"/data/orders-0/leader-epoch-checkpoint.tmp":         []byte("x"),
		"/data/orders-0/00000000000000000000.snapshot":       []byte("x"),
		"/data/orders-0/00000000000000000500.log.cleaned":    content,
		"/data/orders-0/00000000000000000500.index.cleaned":  nil,
		"/data/orders-0/00000000000000000500.txnindex.swap":  nil,
		"/data/orders-0/notes.txt":                           []byte("somebody's"),
	} {
		edit(t, fsys, name, func([]byte) []byte { return data })
	}
	l, _, _ = reopen(t, fsys)
	require.Equal(t, want, readAll(t, l, 0, 60, 1<<20))
	entries, err := fsys.ReadDir("/data/orders-0")
	require.NoError(t, err)
	for _, e := range entries {
		for _, bad := range []string{".deleted", ".swap", ".cleaned", ".tmp", "98.index"} {
			require.NotContains(t, e.Name(), bad)
		}
	}
	_, err = fsys.Stat("/data/orders-0/notes.txt")
	require.NoError(t, err)
}

func TestCleanStopLeavesWhatKafkaTrusts(t *testing.T) {
	fsys := crashfs.New()
	m := openManager(t, fsys, tiny())
	m.SetBrokerEpoch(25)
	l := openTopic(t, m)
	for range 60 {
		appendValue(t, l, 1, strings.Repeat("v", 60))
	}
	require.NoError(t, m.Close(true))
	require.Zero(t, fsys.OpenFiles())
	epoch, ok, err := logstore.ReadCleanMarker(fsys, "/data")
	require.NoError(t, err)
	require.True(t, ok)
	require.EqualValues(t, 25, epoch)
	points, err := logstore.ReadOffsetCheckpoint(fsys, "/data/"+logstore.RecoveryPointCheckpoint)
	require.NoError(t, err)
	require.Equal(t, map[cluster.TopicPartition]int64{topic0: 60}, points)
	_, err = fsys.Stat("/data/orders-0/00000000000000000060.snapshot")
	require.NoError(t, err)
	data, err := fsys.ReadDir("/data/orders-0")
	require.NoError(t, err)
	for _, e := range data {
		info, err := e.Info()
		require.NoError(t, err)
		switch {
		case strings.HasSuffix(e.Name(), ".index"):
			require.Zero(t, info.Size()%8)
		case strings.HasSuffix(e.Name(), ".timeindex"):
			require.NotZero(t, info.Size(), "the final entry is there")
			require.Zero(t, info.Size()%12)
		}
	}
	m = openManager(t, fsys, tiny())
	require.True(t, m.WasClean())
	require.EqualValues(t, 25, m.CleanBrokerEpoch())
	_, ok, err = logstore.ReadCleanMarker(fsys, "/data")
	require.NoError(t, err)
	require.False(t, ok, "gone first thing")
	require.NoError(t, m.Close(true))
}

// FuzzIndexFiles: whatever is in the index files of a log, opening and reading neither panics nor shows other records: wrong
// indexes may only make a read fail.
func FuzzIndexFiles(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 0, 0, 0, 9}, []byte{0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0, 2})
	f.Add(make([]byte, 80), make([]byte, 120))
	f.Fuzz(func(t *testing.T, index, times []byte) {
		fsys := crashfs.New()
		m := openManager(t, fsys, tiny())
		l := openTopic(t, m)
		for range 30 {
			appendValue(t, l, 1, strings.Repeat("v", 60))
		}
		require.NoError(t, m.Close(true))
		edit(t, fsys, strings.Replace(firstLog, ".log", ".index", 1), func([]byte) []byte { return index })
		edit(t, fsys, strings.Replace(firstLog, ".log", ".timeindex", 1), func([]byte) []byte { return times })
		m, err := logstore.OpenManager(logstore.ManagerOptions{
			Dirs: []string{"/data"}, FS: fsys, BrokerID: 1, Defaults: func(string) *logstore.Config { return tiny() }, Logger: zerolog.Nop(),
		})
		if err != nil {
			return
		}
		defer m.Close(false) //nolint:errcheck // a fuzz test
		l, ok := m.Get(topic0)
		if !ok {
			return
		}
		for offset := range l.LogEndOffset() {
			s, err := l.Read(offset, 100, l.LogEndOffset(), true)
			if err != nil || s.Empty() {
				continue
			}
			buf := make([]byte, s.Len)
			_, _ = s.ReadAt(buf, 0)
			s.Release()
		}
		_, _, _, _, _ = l.OffsetForTimestamp(1010)
		_, _, _, _, _ = l.MaxTimestamp()
		_ = l.TruncateTo(3)
	})
}
