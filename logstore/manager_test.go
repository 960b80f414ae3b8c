package logstore_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"go.uber.org/goleak"

	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func partition(n int) cluster.TopicPartition {
	return cluster.TopicPartition{Topic: "events.with-dash", Partition: int32(n)}
}

func TestDirectoriesAreLockedAgainstAnotherBroker(t *testing.T) {
	fsys := crashfs.New()
	m := openManager(t, fsys, tiny())
	_, err := logstore.OpenManager(logstore.ManagerOptions{Dirs: []string{"/data"}, FS: fsys, BrokerID: 1, Logger: zerolog.Nop()})
	require.ErrorIs(t, err, logstore.ErrLocked)
	require.NoError(t, m.Close(true))
	m = openManager(t, fsys, tiny())
	require.NoError(t, m.Close(true))
}

func TestForeignDirectoriesAreRefused(t *testing.T) {
	fsys := crashfs.New()
	require.NoError(t, openManager(t, fsys, tiny()).Close(true))
	for _, o := range []logstore.ManagerOptions{{BrokerID: 2, ClusterID: "c"}, {BrokerID: 1, ClusterID: "other"}} {
		o.Dirs, o.FS, o.Logger = []string{"/data"}, fsys, zerolog.Nop()
		_, err := logstore.OpenManager(o)
		require.ErrorContains(t, err, "belongs to")
	}
	m, err := logstore.OpenManager(logstore.ManagerOptions{Dirs: []string{"/data"}, FS: fsys, BrokerID: cluster.NoBroker, Logger: zerolog.Nop()})
	require.NoError(t, err)
	id, clusterID := m.Identity()
	require.EqualValues(t, 1, id)
	require.Equal(t, "c", clusterID)
	require.NotEmpty(t, m.Dirs()[0].ID)
	require.NoError(t, m.Close(true))
}

func TestPartitionsSpreadOverDirectories(t *testing.T) {
	fsys := crashfs.New()
	o := logstore.ManagerOptions{Dirs: []string{"/a", "/b", "/c"}, FS: fsys, BrokerID: 1, ClusterID: "c", Logger: zerolog.Nop(), RecoveryThreads: 2}
	m, err := logstore.OpenManager(o)
	require.NoError(t, err)
	for i := range 9 {
		_, err := m.GetOrCreate(partition(i), cluster.TopicID{7}, true)
		require.NoError(t, err)
	}
	for _, d := range m.Dirs() {
		require.Equal(t, 3, d.Partitions)
	}
	require.NoError(t, m.Close(true))
	m, err = logstore.OpenManager(o)
	require.NoError(t, err)
	require.Len(t, m.Logs(), 9)
	l, ok := m.Get(partition(4))
	require.True(t, ok)
	id, ok := l.TopicID()
	require.True(t, ok)
	require.Equal(t, cluster.TopicID{7}, id)
	_, err = m.GetOrCreate(partition(4), cluster.TopicID{8}, false)
	require.ErrorIs(t, err, kerr.InconsistentTopicID)
	require.NoError(t, m.Close(true))
	// The same partition in a second directory.
	require.NoError(t, fsys.MkdirAll("/a/"+partition(4).String(), 0o755))
	require.NoError(t, fsys.MkdirAll("/b/"+partition(4).String(), 0o755))
	_, err = logstore.OpenManager(o)
	require.ErrorContains(t, err, "in two log directories")
}

func TestDeletedPartitionGoesAfterItsDelayAndIsNotInherited(t *testing.T) {
	fsys := crashfs.New()
	m := openManager(t, fsys, tiny())
	l := openTopic(t, m)
	for range 20 {
		appendValue(t, l, 1, strings.Repeat("v", 60))
	}
	l.SetHighWatermark(20)
	require.NoError(t, l.IncrementLogStart(15))
	require.NoError(t, l.Flush(20))
	require.NoError(t, errors.Join(m.CheckpointHighWatermarks(), m.CheckpointLogStarts(), m.CheckpointRecoveryPoints()))
	s, err := l.Read(16, 100, 20, true)
	require.NoError(t, err)
	m.SetDeleteDelay(time.Minute)
	now := time.Now()
	require.NoError(t, m.Delete(topic0))
	_, ok := m.Get(topic0)
	require.False(t, ok)
	buf := make([]byte, s.Len)
	_, err = s.ReadAt(buf, 0)
	require.NoError(t, err, "a transfer in progress is not disturbed")
	s.Release()
	_, err = l.AppendAsLeader(logstore.AppendParams{Records: build(t, 0, -1, []record{{value: "v"}}), Epoch: 1, ProduceVersion: 9, Now: now})
	require.ErrorIs(t, err, logstore.ErrClosed)

	// Created again with the same name, and killed before any periodic checkpoint: nothing old is believed.
	l = openTopic(t, m)
	appendValue(t, l, 1, "new")
	require.Equal(t, logstore.Offsets{LogEnd: 1}, l.Offsets())
	m.DeletePass(now.Add(30 * time.Second))
	require.Len(t, deleteDirs(t, fsys), 1)
	m.DeletePass(now.Add(2 * time.Minute))
	require.Empty(t, deleteDirs(t, fsys))
	killed := fsys.Kill()
	_ = m.Close(false)
	l, _, _ = reopen(t, killed)
	require.Equal(t, []record{{0, 1000, "new"}}, readAll(t, l, 0, 1, 1))
	require.Zero(t, l.Recovery().CheckpointedHighWatermark)
}

func deleteDirs(t *testing.T, fsys logstore.FS) []string {
	t.Helper()
	entries, err := fsys.ReadDir("/data")
	require.NoError(t, err)
	var out []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "-delete") {
			require.LessOrEqual(t, len(e.Name()), 255)
			out = append(out, e.Name())
		}
	}
	return out
}

func TestRetentionByTimeEmptiesAQuietPartition(t *testing.T) {
	fsys := crashfs.New()
	c := tiny()
	c.RetentionMs = 5000
	m := openManager(t, fsys, c)
	defer m.Close(true) //nolint:errcheck // checked elsewhere
	l := openTopic(t, m)
	for range 40 {
		appendValue(t, l, 1, strings.Repeat("v", 60)) // timestamps 1000 + offset
	}
	segments := l.Segments()
	require.Greater(t, segments, 2)
	removed, err := l.Retain(time.UnixMilli(6100))
	require.NoError(t, err)
	require.Zero(t, removed, "nothing above the high watermark goes")
	l.SetHighWatermark(40)
	removed, err = l.Retain(time.UnixMilli(6020))
	require.NoError(t, err)
	require.Positive(t, removed)
	require.Less(t, removed, segments)
	start := l.LogStartOffset()
	require.Positive(t, start)
	_, err = l.Read(start-1, 100, 40, true)
	require.ErrorIs(t, err, kerr.OffsetOutOfRange)
	require.Equal(t, int64(40)-start, int64(len(readAll(t, l, start, 40, 1<<20))))
	require.Equal(t, segments-removed, m.RetentionPass(time.UnixMilli(60000)))
	require.Equal(t, logstore.Offsets{LogStart: 40, LogEnd: 40, HighWatermark: 40, LastStable: 40}, l.Offsets())
	require.Zero(t, l.Size())
	require.Zero(t, m.RetentionPass(time.UnixMilli(90000)), "an empty last segment stays")
	m.DeletePass(time.Now().Add(time.Hour))
	entries, err := fsys.ReadDir(l.Dir())
	require.NoError(t, err)
	for _, e := range entries {
		require.NotContains(t, e.Name(), ".deleted")
	}
}

func TestRetentionBySizeKeepsAtLeastTheLimit(t *testing.T) {
	c := tiny()
	m := openManager(t, crashfs.New(), c)
	defer m.Close(true) //nolint:errcheck // checked elsewhere
	l := openTopic(t, m)
	for range 100 {
		appendValue(t, l, 1, strings.Repeat("v", 60))
	}
	l.SetHighWatermark(100)
	limited := *c
	limited.RetentionBytes = 5000
	l.SetConfig(&limited)
	_, err := l.Retain(time.Now())
	require.NoError(t, err)
	require.GreaterOrEqual(t, l.Size(), int64(5000))
	require.Less(t, l.Size(), int64(5000+c.SegmentBytes))
}

func TestSegmentsRollByMessageTime(t *testing.T) {
	c := logstore.DefaultConfig()
	c.SegmentMs = time.Second
	m := openManager(t, crashfs.New(), c)
	defer m.Close(true) //nolint:errcheck // checked elsewhere
	l := openTopic(t, m)
	at := func(ts int64) {
		_, err := l.AppendAsLeader(logstore.AppendParams{Records: build(t, 0, -1, []record{{timestamp: ts, value: "v"}}), Epoch: 1, ProduceVersion: 9, Now: time.Now()})
		require.NoError(t, err)
	}
	at(1000)
	at(2000)
	require.Equal(t, 1, l.Segments())
	at(2001)
	require.Equal(t, 2, l.Segments())
	at(1 << 62) // one record far in the future rolls at once
	require.Equal(t, 3, l.Segments())
}

func TestFlushIsSharedAndAnnounced(t *testing.T) {
	fsys := crashfs.New()
	c := tiny()
	c.FlushMessages = 1
	m := openManager(t, fsys, c)
	defer m.Close(true) //nolint:errcheck // checked elsewhere
	l := openTopic(t, m)
	var heard atomic.Int64
	l.OnFlushed(func(flushed int64) { heard.Store(flushed) })
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				info, err := l.AppendAsLeader(logstore.AppendParams{Records: build(t, 0, -1, []record{{timestamp: 1, value: "v"}}), Epoch: 1, ProduceVersion: 9, Now: time.Now()})
				if err != nil || l.Flush(info.LastOffset+1) != nil || l.FlushedOffset() <= info.LastOffset {
					t.Error("not durable", err)
				}
			}
		})
	}
	wg.Wait()
	require.EqualValues(t, 400, l.FlushedOffset())
	require.Eventually(t, func() bool { return heard.Load() == 400 }, time.Second, time.Millisecond)
}

// TestReadersAndWritersAtOnce is for the race detector: readers of every kind beside appends, rolls, truncations, retention.
func TestReadersAndWritersAtOnce(t *testing.T) {
	c := tiny()
	c.RetentionBytes = 8000
	m := openManager(t, crashfs.New(), c)
	l := openTopic(t, m)
	var stop atomic.Bool
	var wg sync.WaitGroup
	read := func(fn func() error) {
		wg.Go(func() {
			for !stop.Load() {
				if err := fn(); err != nil && !errors.Is(err, kerr.OffsetOutOfRange) {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 2 {
		read(func() error {
			o := l.Offsets()
			s, err := l.Read((o.LogStart+o.HighWatermark)/2, 500, o.HighWatermark, true)
			if err != nil || s.Empty() {
				return err
			}
			defer s.Release()
			buf := make([]byte, s.Len)
			if _, err := s.ReadAt(buf, 0); err != nil {
				return nil // cut meanwhile: the connection would be closed
			}
			b, _, err := logstore.NextBatch(buf)
			if err != nil {
				return err
			}
			return b.VerifyCRC()
		})
	}
	read(func() error { _, _, _, _, err := l.OffsetForTimestamp(1500); return err })
	read(func() error { _, _, _, _, err := l.MaxTimestamp(); return err })
	read(func() error { m.CloseIdleFiles(); m.RetentionPass(time.Now()); m.DeletePass(time.Now()); return nil })
	read(func() error { return l.Flush(l.LogEndOffset()) })
	for i := range 400 {
		appendValue(t, l, 1, strings.Repeat("v", 60))
		l.SetHighWatermark(l.LogEndOffset() - 3)
		if i%50 == 49 {
			require.NoError(t, l.TruncateTo(l.LogEndOffset()-2))
		}
	}
	stop.Store(true)
	wg.Wait()
	require.NoError(t, m.Close(true))
}

func TestTransactionsSurviveRestartsAndTruncation(t *testing.T) {
	fsys := crashfs.New()
	m := openManager(t, fsys, tiny())
	l := openTopic(t, m)
	transactional := func(producer int64, sequence int32) {
		o := logstore.PlainBatch()
		o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = producer, 0, sequence, true
		bd := logstore.NewBuilder(o)
		require.NoError(t, bd.AppendNext(time.Now().UnixMilli(), nil, []byte(strings.Repeat("t", 60))))
		b, err := bd.Finish()
		require.NoError(t, err)
		_, err = l.AppendAsLeader(logstore.AppendParams{Records: b, Epoch: 1, ProduceVersion: 9, Now: time.Now()})
		require.NoError(t, err)
	}
	end := func(producer int64, commit bool) {
		b := logstore.NewEndTxnBatch(logstore.EndTxnMarker{ProducerID: producer, Commit: commit, Timestamp: time.Now().UnixMilli()})
		_, err := l.AppendAsLeader(logstore.AppendParams{Records: b, Epoch: 1, Origin: logstore.OriginCoordinator, ProduceVersion: -1, Now: time.Now()})
		require.NoError(t, err)
	}
	transactional(7, 0) // 0
	transactional(8, 0) // 1
	end(7, false)       // 2
	l.SetHighWatermark(3)
	require.EqualValues(t, 1, l.LastStableOffset())
	aborted, err := l.AbortedTransactions(0, 3)
	require.NoError(t, err)
	want := []logstore.AbortedTxn{{ProducerID: 7, FirstOffset: 0, LastOffset: 2, LastStableOffset: 1}}
	require.Equal(t, want, aborted)
	for range 30 {
		appendValue(t, l, 1, strings.Repeat("v", 60))
	}
	l.SetHighWatermark(33)
	for _, clean := range []bool{true, false, false, true} {
		require.NoError(t, m.CheckpointHighWatermarks())
		if clean {
			require.NoError(t, m.Close(true))
		} else {
			killed := fsys.Kill()
			_ = m.Close(false)
			fsys = killed
		}
		m = openManager(t, fsys, tiny())
		l, _ = m.Get(topic0)
		require.EqualValues(t, 1, l.LastStableOffset())
		aborted, err = l.AbortedTransactions(0, 33)
		require.NoError(t, err)
		require.Equal(t, want, aborted)
		require.Len(t, l.ActiveProducers(), 2)
	}
	end(8, false) // 33
	require.EqualValues(t, 1, l.LastStableOffset(), "until the marker is replicated")
	l.SetHighWatermark(34)
	require.EqualValues(t, 34, l.LastStableOffset())
	require.NoError(t, l.TruncateTo(33))
	require.EqualValues(t, 1, l.LastStableOffset(), "the transaction is open again")
	aborted, err = l.AbortedTransactions(0, 33)
	require.NoError(t, err)
	require.Equal(t, want, aborted)
	end(8, true)
	l.SetHighWatermark(34)
	require.EqualValues(t, 34, l.LastStableOffset())
	require.NoError(t, m.Close(true))
}

func TestIdlePartitionsHoldNoDescriptors(t *testing.T) {
	dir := t.TempDir()
	m, err := logstore.OpenManager(logstore.ManagerOptions{Dirs: []string{dir}, BrokerID: 1, ClusterID: "c", Logger: zerolog.Nop()})
	require.NoError(t, err)
	before := openDescriptors(t)
	for i := range 30 {
		l, err := m.GetOrCreate(partition(i), cluster.TopicID{1}, true)
		require.NoError(t, err)
		appendValue(t, l, 1, "v")
	}
	m.CloseIdleFiles()
	m.CloseIdleFiles()
	require.Less(t, openDescriptors(t), before+10)
	l, _ := m.Get(partition(5))
	appendValue(t, l, 1, "again")
	require.Len(t, readAll(t, l, 0, 2, 1), 2)
	require.NoError(t, m.Close(true))
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc")
	}
	return len(entries)
}

func TestSendfileDescriptorIsTheSegments(t *testing.T) {
	dir := t.TempDir()
	m, err := logstore.OpenManager(logstore.ManagerOptions{Dirs: []string{dir}, BrokerID: 1, ClusterID: "c", Logger: zerolog.Nop()})
	require.NoError(t, err)
	l, err := m.GetOrCreate(topic0, cluster.TopicID{1}, true)
	require.NoError(t, err)
	appendValue(t, l, 1, "v")
	s, err := l.Read(0, 1, 1, true)
	require.NoError(t, err)
	require.Equal(t, filepath.Join(dir, "orders-0", "00000000000000000000.log"), s.File().Name())
	s.Release()
	s.Release()
	require.NoError(t, m.Close(true))
}

func TestLoadingReportsAPartitionThatCannotBeRead(t *testing.T) {
	fsys := filled(t, 3, 0)
	edit(t, fsys, "/data/orders-0/"+logstore.PartitionMetadataFile, func([]byte) []byte { return []byte("version: 0\ntopic_id: short") })
	_, err := logstore.OpenManager(logstore.ManagerOptions{Dirs: []string{"/data"}, FS: fsys, BrokerID: 1, Logger: zerolog.Nop()})
	require.ErrorContains(t, err, fmt.Sprintf("load /data/%s", topic0))
}

// TestCreatingAndLeadingCostsFewSyncs: each is a commit of the file system's journal, and clusters have thousands of partitions.
func TestCreatingAndLeadingCostsFewSyncs(t *testing.T) {
	fsys := crashfs.New()
	m := openManager(t, fsys, tiny())
	openTopic(t, m)
	syncs := 0
	fsys.FailWith(func(op crashfs.Op) error {
		if strings.HasPrefix(op.Kind, "sync") {
			syncs++
		}
		return nil
	})
	l, err := m.GetOrCreate(partition(1), cluster.TopicID{1}, true)
	require.NoError(t, err)
	require.Equal(t, 3, syncs, "the topic's id, the partition's directory, the log directory")
	require.NoError(t, l.AssignEpochStart(1))
	appendValue(t, l, 1, "value")
	require.Equal(t, 3, syncs)
	fsys.FailWith(nil)
	require.NoError(t, m.Close(true))
}
