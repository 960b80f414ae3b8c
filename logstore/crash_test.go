package logstore_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

// history is what a run was told: values by offset that were appended, and how far a flush was acknowledged.
type history struct {
	values  map[int64]string // of the newest incarnation of an offset
	written int64            // exclusive end of what append acknowledged
	flushed int64            // exclusive end of what Flush acknowledged
	start   int64            // log start
}

// script is a life of one log: appends, rolls, flushes, truncations, retention by log start and by size, checkpoints of all kinds, a
// clean stop. It ends at the first fault. (Compaction has TestCleaningSurvivesACrashAtEveryOperation.)
func script(fsys *crashfs.FS, h *history) error {
	c := tiny()
	m, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{"/data"}, FS: fsys, BrokerID: 1, ClusterID: "c",
		Defaults: func(string) *logstore.Config { return c }, Logger: zerolog.Nop(), Now: time.Now,
	})
	if err != nil {
		return err
	}
	defer m.Close(false) //nolint:errcheck // the crash
	l, err := m.GetOrCreate(topic0, cluster.TopicID{1}, true)
	if err != nil {
		return err
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for step := range 60 {
		switch {
		case step%17 == 16:
			to := max(l.LogEndOffset()-rng.Int64N(12), h.start)
			h.flushed, h.written = min(h.flushed, to), min(h.written, to)
			if err := l.TruncateTo(to); err != nil {
				return err
			}
			h.flushed = max(h.flushed, l.FlushedOffset())
		case step%5 == 4:
			upTo := l.LogEndOffset()
			if err := l.Flush(upTo); err != nil {
				return err
			}
			h.flushed = upTo
		case step%11 == 10:
			if err := m.CheckpointRecoveryPoints(); err != nil {
				return err
			}
		case step == 45:
			l.SetHighWatermark(h.flushed)
			if err := l.IncrementLogStart(h.flushed / 2); err != nil {
				return err
			}
			h.start = h.flushed / 2
			if _, err := l.Retain(time.Now()); err != nil {
				return err
			}
			if err := m.CheckpointLogStarts(); err != nil {
				return err
			}
			m.DeletePass(time.Now().Add(time.Hour))
		case step == 52:
			l.SetHighWatermark(l.LogEndOffset())
			if err := m.CheckpointHighWatermarks(); err != nil {
				return err
			}
			small := *c
			small.RetentionBytes = l.Size() / 2
			l.SetConfig(&small)
			h.start = l.LogEndOffset() // at most
			if _, err := l.Retain(time.Now()); err != nil {
				return err
			}
			h.start = l.LogStartOffset()
			l.SetConfig(c)
			m.DeletePass(time.Now().Add(time.Hour))
		default:
			value := fmt.Sprintf("%d %s", step, bytes.Repeat([]byte{'a'}, rng.IntN(200)))
			bd := logstore.NewBuilder(logstore.PlainBatch())
			if err := bd.AppendNext(int64(step), nil, []byte(value)); err != nil {
				return err
			}
			b, err := bd.Finish()
			if err != nil {
				return err
			}
			// What fails may still be on the disk after a loss of power: its place counts as unknown.
			h.values[l.LogEndOffset()] = value
			info, err := l.AppendAsLeader(logstore.AppendParams{Records: bytes.Clone(b), Epoch: cluster.LeaderEpoch(1 + step/20), ProduceVersion: 9, Now: time.Now()})
			if err != nil {
				return err
			}
			h.written = info.LastOffset + 1
		}
	}
	upTo := l.LogEndOffset()
	if err := m.Close(true); err != nil {
		return err
	}
	h.flushed = upTo
	return nil
}

// survivors opens what a crash left and checks it against what was promised.
func survivors(t *testing.T, fsys *crashfs.FS, promised int64, h *history, what string) {
	t.Helper()
	c := tiny()
	m := openManager(t, fsys, c)
	defer m.Close(false) //nolint:errcheck // only read
	l, ok := m.Get(topic0)
	if !ok {
		require.Zero(t, promised, what)
		return
	}
	o := l.Offsets()
	require.GreaterOrEqual(t, o.LogEnd, promised, what)
	require.LessOrEqual(t, o.LogStart, max(h.start, 0), what)
	next := int64(-1)
	for _, r := range readAll(t, l, o.LogStart, o.LogEnd, 1<<20) {
		if next >= 0 {
			require.Equal(t, next, r.offset, "%s: offsets are dense", what)
		}
		next = r.offset + 1
		if r.offset < promised {
			require.Equal(t, h.values[r.offset], r.value, "%s: offset %d", what, r.offset)
		}
	}
	if promised > o.LogStart {
		require.GreaterOrEqual(t, next, promised, what)
	}
	// And it goes on.
	_, err := l.AppendAsLeader(logstore.AppendParams{Records: build(t, 0, -1, []record{{value: "more", timestamp: 1}}), Epoch: 9, ProduceVersion: 9, Now: time.Now()})
	require.NoError(t, err, what)
	require.NoError(t, l.Flush(l.LogEndOffset()), what)
}

func TestCrashAtEveryOperation(t *testing.T) {
	fsys := crashfs.New()
	require.NoError(t, script(fsys, &history{values: map[int64]string{}}))
	operations := fsys.Ops()
	step := int64(1)
	if testing.Short() {
		step = 7
	}
	for n := int64(1); n <= operations; n += step {
		h := &history{values: map[int64]string{}}
		fsys := crashfs.New()
		fsys.FailAt(n, true, syscall.EIO)
		_ = script(fsys, h)
		survivors(t, fsys.Kill(), h.written, h, fmt.Sprintf("kill at operation %d", n))
		for seed := range uint64(12) {
			rng := rand.New(rand.NewPCG(uint64(n), seed))
			survivors(t, fsys.Crash(rng), h.flushed, h, fmt.Sprintf("loss of power at operation %d, seed %d", n, seed))
		}
	}
}

// TestFullDiskAtEveryOperation: after any ENOSPC the log is whole, and goes on once there is space again.
func TestFullDiskAtEveryOperation(t *testing.T) {
	fsys := crashfs.New()
	require.NoError(t, script(fsys, &history{values: map[int64]string{}}))
	for n := int64(1); n <= fsys.Ops(); n += 3 {
		h := &history{values: map[int64]string{}}
		fsys := crashfs.New()
		fsys.FailAt(n, false, syscall.ENOSPC)
		_ = script(fsys, h)
		survivors(t, fsys.Kill(), h.written, h, fmt.Sprintf("disk full at operation %d", n))
	}
}

func TestFullDiskRefusesAnAppendAndGoesOn(t *testing.T) {
	fsys := crashfs.New()
	m := openManager(t, fsys, tiny())
	defer m.Close(true) //nolint:errcheck // checked below
	l := openTopic(t, m)
	appendOne := func(value string) error {
		_, err := l.AppendAsLeader(logstore.AppendParams{Records: build(t, 0, -1, []record{{value: value, timestamp: 1}}), Epoch: 1, ProduceVersion: 9, Now: time.Now()})
		return err
	}
	require.NoError(t, appendOne("one"))
	size := l.Size()
	fsys.FailWith(func(op crashfs.Op) error {
		if op.Kind == "write" {
			return syscall.ENOSPC
		}
		return nil
	})
	for range 3 {
		err := appendOne("two")
		require.ErrorIs(t, err, syscall.ENOSPC)
		var fault *logstore.StorageError
		require.ErrorAs(t, err, &fault)
		require.True(t, fault.Full)
	}
	info, err := fsys.Stat(l.Dir() + "/00000000000000000000.log")
	require.NoError(t, err)
	require.Equal(t, size, info.Size(), "what was torn is cut back")
	fsys.FailWith(nil)
	require.NoError(t, appendOne("three"))
	got := readAll(t, l, 0, 2, 1<<20)
	require.Equal(t, []record{{0, 1, "one"}, {1, 1, "three"}}, got)
}

func TestFailedSyncParksTheLog(t *testing.T) {
	fsys := crashfs.New()
	var failed []string
	c := tiny()
	m, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{"/data"}, FS: fsys, BrokerID: 1, ClusterID: "c", Defaults: func(string) *logstore.Config { return c },
		Logger: zerolog.Nop(), OnDirFailure: func(dir string, _ error) { failed = append(failed, dir) },
	})
	require.NoError(t, err)
	l := openTopic(t, m)
	params := func() logstore.AppendParams {
		return logstore.AppendParams{Records: build(t, 0, -1, []record{{value: "v", timestamp: 1}}), Epoch: 1, ProduceVersion: 9, Now: time.Now()}
	}
	_, err = l.AppendAsLeader(params())
	require.NoError(t, err)
	fsys.FailWith(func(op crashfs.Op) error {
		if op.Kind == "sync" {
			return syscall.EIO
		}
		return nil
	})
	require.ErrorIs(t, l.Flush(1), syscall.EIO)
	fsys.FailWith(nil)
	require.Equal(t, []string{"/data"}, failed)
	require.Error(t, l.Flush(1), "a failed sync is not retried")
	_, err = l.AppendAsLeader(params())
	require.Error(t, err)
	require.Zero(t, l.FlushedOffset())
	require.Len(t, readAll(t, l, 0, 1, 100), 1, "reads go on")
	require.Error(t, m.Dirs()[0].Err)
	_ = m.Close(true)
	_, statErr := fsys.Stat("/data/" + logstore.CleanShutdownFile)
	require.Error(t, statErr, "no clean marker after a fault")
}

func TestEpochIsDurableBeforeItsRecordsCountAsFlushed(t *testing.T) {
	fsys := crashfs.New()
	m := openManager(t, fsys, tiny())
	l := openTopic(t, m)
	appendValue(t, l, 1, "one")
	fsys.FailWith(func(op crashfs.Op) error {
		if op.Kind == "write" {
			return syscall.ENOSPC
		}
		return nil
	})
	require.NoError(t, l.AssignEpochStart(2))
	require.ErrorIs(t, l.Flush(1), syscall.ENOSPC)
	require.Zero(t, l.FlushedOffset())
	fsys.FailWith(nil)
	appendValue(t, l, 2, "two")
	require.NoError(t, l.Flush(2))
	require.EqualValues(t, 2, l.FlushedOffset())
	onDisk, err := logstore.OpenEpochCache(fsys, l.Dir())
	require.NoError(t, err)
	require.Equal(t, []logstore.EpochEntry{{Epoch: 1, StartOffset: 0}, {Epoch: 2, StartOffset: 1}}, onDisk.Entries())
	require.NoError(t, m.Close(true))
}

func TestStoppingAnUntouchedLogWritesNothingOfIt(t *testing.T) {
	fsys := crashfs.New()
	m := openManager(t, fsys, tiny())
	l := openTopic(t, m)
	for range 30 {
		appendValue(t, l, 1, "some value")
	}
	require.NoError(t, m.Close(true))
	m = openManager(t, fsys, tiny())
	l, _ = m.Get(topic0)
	_ = readAll(t, l, 0, 30, 1)
	m.CloseIdleFiles()
	fsys.FailWith(func(op crashfs.Op) error {
		if strings.HasPrefix(op.Name, "/data/orders-0") {
			return syscall.EIO
		}
		return nil
	})
	require.NoError(t, m.Close(true))
	fsys.FailWith(nil)
	m = openManager(t, fsys, tiny())
	require.True(t, m.WasClean())
	l, _ = m.Get(topic0)
	require.Len(t, readAll(t, l, 0, 30, 1), 30)
	require.NoError(t, m.Close(true))
}

// A follower's append of batches of two epochs is refused for want of room. The first of them comes again, alone.
func TestRefusedAppendLeavesTheEpochsAlone(t *testing.T) {
	fsys := crashfs.New()
	m := openManager(t, fsys, tiny())
	l := openTopic(t, m)
	batch := func(base int64, epoch cluster.LeaderEpoch) []byte {
		b := logstore.Batch(build(t, 0, -1, []record{{value: "v", timestamp: 1}}))
		b.SetBaseOffset(base)
		b.SetLeaderEpoch(epoch)
		return b
	}
	appendAll := func(batches ...[]byte) error {
		_, err := l.AppendAsFollower(bytes.Join(batches, nil), 9)
		return err
	}
	require.NoError(t, appendAll(batch(0, 4)))
	fsys.FailWith(func(op crashfs.Op) error {
		if op.Kind == "write" {
			return syscall.ENOSPC
		}
		return nil
	})
	require.ErrorIs(t, appendAll(batch(1, 4), batch(2, 7)), syscall.ENOSPC)
	fsys.FailWith(nil)
	require.NoError(t, appendAll(batch(1, 4)))
	require.Equal(t, []logstore.EpochEntry{{Epoch: 4, StartOffset: 0}}, l.EpochEntries())
	require.NoError(t, m.Close(true))
}

func TestTruncationWaitsForRoom(t *testing.T) {
	fsys := crashfs.New()
	m := openManager(t, fsys, tiny())
	l := openTopic(t, m)
	for range 5 {
		appendValue(t, l, 1, "value")
	}
	fsys.SetSpace(logstore.Space{Total: 1 << 30})
	var fault *logstore.StorageError
	require.ErrorAs(t, l.TruncateTo(3), &fault)
	require.True(t, fault.Full)
	require.Equal(t, int64(5), l.LogEndOffset())
	fsys.SetSpace(logstore.Space{Total: 1 << 30, Free: 1 << 29})
	require.NoError(t, l.TruncateTo(3))
	require.Equal(t, int64(3), l.LogEndOffset())
	require.NoError(t, m.Close(true))
}

// Five batches are under way when the broker is restarted. Whoever repeats them all hears where each of them is.
func TestRepeatedBatchesAreKnownAfterARestart(t *testing.T) {
	fsys := crashfs.New()
	batch := func(sequence int32) []byte {
		o := logstore.PlainBatch()
		o.ProducerID, o.ProducerEpoch, o.BaseSequence = 7, 0, sequence
		bd := logstore.NewBuilder(o)
		require.NoError(t, bd.AppendNext(time.Now().UnixMilli(), nil, []byte("value")))
		b, err := bd.Finish()
		require.NoError(t, err)
		return bytes.Clone(b)
	}
	appendOne := func(l *logstore.Log, sequence int32) (logstore.AppendInfo, error) {
		return l.AppendAsLeader(logstore.AppendParams{Records: batch(sequence), Epoch: 1, ProduceVersion: 9, Now: time.Now()})
	}
	m := openManager(t, fsys, tiny())
	l := openTopic(t, m)
	for sequence := range int32(8) {
		_, err := appendOne(l, sequence)
		require.NoError(t, err)
	}
	require.NoError(t, m.Close(true))
	m = openManager(t, fsys, tiny())
	l, _ = m.Get(topic0)
	for sequence := int32(3); sequence < 8; sequence++ {
		info, err := appendOne(l, sequence)
		require.NoError(t, err, "sequence %d", sequence)
		require.True(t, info.Duplicate)
		require.Equal(t, int64(sequence), info.FirstOffset)
	}
	info, err := appendOne(l, 8)
	require.NoError(t, err)
	require.Equal(t, int64(8), info.FirstOffset)
	_, err = appendOne(l, 100)
	require.ErrorIs(t, err, kerr.OutOfOrderSequenceNumber, "what was never written is refused")
	require.NoError(t, m.Close(true))
}
