package logstore_test

import (
	"bytes"
	"errors"
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

func openTwo(fsys logstore.FS, c *logstore.Config) (*logstore.Manager, error) {
	return logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{"/a", "/b"}, FS: fsys, BrokerID: 1, ClusterID: "c",
		Defaults: func(string) *logstore.Config { return c }, Logger: zerolog.Nop(),
	})
}

// copyAll copies until nothing is left.
func copyAll(m *logstore.Manager, bytesAtOnce int) error {
	buf := make([]byte, bytesAtOnce)
	for {
		n, err := m.CopyChunk(topic0, buf)
		if n == 0 || err != nil {
			return err
		}
	}
}

func otherDir(l *logstore.Log) string {
	if l.LogDir() == "/a" {
		return "/b"
	}
	return "/a"
}

func TestMoveTakesEverythingAlong(t *testing.T) {
	fsys := crashfs.New()
	c := tiny()
	m, err := openTwo(fsys, c)
	require.NoError(t, err)
	l := openTopic(t, m)
	idempotent := func(sequence int32) []byte {
		o := logstore.PlainBatch()
		o.ProducerID, o.ProducerEpoch, o.BaseSequence = 7, 1, sequence
		bd := logstore.NewBuilder(o)
		require.NoError(t, bd.AppendNext(time.Now().UnixMilli(), nil, []byte("idempotent")))
		b, err := bd.Finish()
		require.NoError(t, err)
		return bytes.Clone(b)
	}
	add := func(l *logstore.Log, b []byte, epoch cluster.LeaderEpoch) logstore.AppendInfo {
		info, err := l.AppendAsLeader(logstore.AppendParams{Records: b, Epoch: epoch, ProduceVersion: 9, Now: time.Now()})
		require.NoError(t, err)
		return info
	}
	add(l, idempotent(0), 1)
	for i := range 60 {
		appendValue(t, l, cluster.LeaderEpoch(1+i/20), strings.Repeat("v", 60))
	}
	l.SetHighWatermark(50)
	require.NoError(t, l.IncrementLogStart(5))
	from, to := l.LogDir(), otherDir(l)

	_, err = m.CopyChunk(topic0, make([]byte, 100))
	require.Error(t, err)
	future, err := m.CreateFuture(topic0, to)
	require.NoError(t, err)
	again, err := m.CreateFuture(topic0, to)
	require.NoError(t, err)
	require.Same(t, future, again)
	_, err = m.Promote(topic0)
	require.Error(t, err, "not caught up")
	require.NoError(t, copyAll(m, 300))
	add(l, idempotent(1), 3)
	require.NoError(t, l.AssignEpochStart(9)) // without a record yet
	require.NoError(t, copyAll(m, 300))
	require.Equal(t, l.LogEndOffset(), future.LogEndOffset())
	require.Equal(t, []logstore.LogInfo{{TopicPartition: topic0, Size: l.Size()}}, m.LogsIn(from))
	appendValue(t, l, 9, "one more")
	require.Equal(t, []logstore.LogInfo{{TopicPartition: topic0, Size: future.Size(), OffsetLag: 1, Future: true}}, m.LogsIn(to))
	require.NoError(t, copyAll(m, 300))
	want, offsets, epochs := readAll(t, l, 5, l.LogEndOffset(), 1<<20), l.Offsets(), l.EpochEntries()

	moved, err := m.Promote(topic0)
	require.NoError(t, err)
	require.Same(t, future, moved)
	got, _ := m.Get(topic0)
	require.Same(t, moved, got)
	_, copying := m.Future(topic0)
	require.False(t, copying)
	require.Equal(t, to+"/orders-0", moved.Dir())
	require.Equal(t, offsets, moved.Offsets())
	require.Equal(t, epochs, moved.EpochEntries())
	require.Equal(t, want, readAll(t, moved, 5, moved.LogEndOffset(), 1<<20))
	require.True(t, add(moved, idempotent(1), 9).Duplicate, "producers are known")
	_, err = l.AppendAsLeader(logstore.AppendParams{Records: idempotent(2), Epoch: 9, ProduceVersion: 9, Now: time.Now()})
	require.ErrorIs(t, err, logstore.ErrClosed)
	require.Len(t, deleteDirsOf(t, fsys, from), 1)
	m.DeletePass(time.Now().Add(time.Hour))
	require.Empty(t, deleteDirsOf(t, fsys, from))
	require.NoError(t, m.Close(true))
	require.Equal(t, fsys.OpenFiles(), 0)

	m, err = openTwo(fsys, c)
	require.NoError(t, err)
	l, _ = m.Get(topic0)
	require.True(t, m.WasClean())
	require.Equal(t, to, l.LogDir())
	require.Equal(t, want, readAll(t, l, 5, l.LogEndOffset(), 1<<20))
	require.NoError(t, m.Close(true))
}

func deleteDirsOf(t *testing.T, fsys logstore.FS, dir string) []string {
	entries, err := fsys.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), "-delete") {
			names = append(names, e.Name())
		}
	}
	return names
}

func TestMovesAreRefusedAndAbandoned(t *testing.T) {
	fsys := crashfs.New()
	m, err := openTwo(fsys, tiny())
	require.NoError(t, err)
	require.ErrorIs(t, m.CheckDir("/c"), kerr.LogDirNotFound)
	require.ErrorIs(t, m.CheckDir("a"), kerr.LogDirNotFound)
	require.NoError(t, m.CheckDir("/b"))
	_, err = m.CreateFuture(topic0, "/b")
	require.ErrorIs(t, err, kerr.ReplicaNotAvailable)

	m.Prefer(topic0, "/b")
	l := openTopic(t, m)
	require.Equal(t, "/b", l.LogDir(), "where it was asked for")
	_, err = m.CreateFuture(topic0, "/b")
	require.Error(t, err)
	appendValue(t, l, 1, "v")
	_, err = m.CreateFuture(topic0, "/a")
	require.NoError(t, err)
	require.NoError(t, m.AbandonFuture(topic0))
	_, ok := m.Future(topic0)
	require.False(t, ok)
	require.Len(t, deleteDirsOf(t, fsys, "/a"), 1)
	_, err = m.CreateFuture(topic0, "/a")
	require.NoError(t, err)
	require.NoError(t, m.Delete(topic0))
	require.Len(t, deleteDirsOf(t, fsys, "/a"), 2)
	require.Len(t, deleteDirsOf(t, fsys, "/b"), 1)
	require.NoError(t, m.Close(true))
}

// TestCopyFollowsTruncations: histories that diverge while they are copied, at random.
func TestCopyFollowsTruncations(t *testing.T) {
	for seed := range uint64(60) {
		rng := rand.New(rand.NewPCG(seed, 1))
		fsys := crashfs.New()
		c := tiny()
		m, err := openTwo(fsys, c)
		require.NoError(t, err)
		l := openTopic(t, m)
		_, err = m.CreateFuture(topic0, otherDir(l))
		require.NoError(t, err)
		epoch := cluster.LeaderEpoch(1)
		for step := range 120 {
			switch rng.IntN(8) {
			case 0:
				epoch++ // a new leader cuts and goes on in its own epoch
				to := max(l.LogStartOffset(), l.LogEndOffset()-rng.Int64N(15))
				require.NoError(t, l.TruncateTo(to))
			case 1:
				if rng.IntN(6) == 0 {
					epoch++
					require.NoError(t, l.TruncateFullyAndStartAt(l.LogEndOffset()+rng.Int64N(9)))
				}
			case 2:
				l.SetHighWatermark(l.LogEndOffset())
				require.NoError(t, l.IncrementLogStart(min(l.LogEndOffset(), l.LogStartOffset()+rng.Int64N(6))))
			case 3, 4:
				_, err := m.CopyChunk(topic0, make([]byte, 1+rng.IntN(500)))
				require.NoError(t, err, "seed %d step %d", seed, step)
			default:
				appendValue(t, l, epoch, fmt.Sprintf("%d.%d %s", seed, step, strings.Repeat("x", rng.IntN(150))))
			}
		}
		require.NoError(t, copyAll(m, 1000), "seed %d", seed)
		start, end := l.LogStartOffset(), l.LogEndOffset()
		want, epochs := readAll(t, l, start, end, 1<<20), l.EpochEntries()
		moved, err := m.Promote(topic0)
		require.NoError(t, err, "seed %d", seed)
		require.Equal(t, []int64{start, end}, []int64{moved.LogStartOffset(), moved.LogEndOffset()}, "seed %d", seed)
		require.Equal(t, want, readAll(t, moved, start, end, 1<<20), "seed %d", seed)
		require.Equal(t, epochs, moved.EpochEntries(), "seed %d", seed)
		require.NoError(t, m.Close(true))
	}
}

// moveScript is a move with appends before, in between and afterwards. It ends at the first fault.
func moveScript(fsys *crashfs.FS, h *history) error {
	m, err := openTwo(fsys, tiny())
	if err != nil {
		return err
	}
	defer m.Close(false) //nolint:errcheck // the crash
	l, err := m.GetOrCreate(topic0, cluster.TopicID{1}, true)
	if err != nil {
		return err
	}
	n := 0
	add := func(l *logstore.Log, count int) error {
		for range count {
			value := fmt.Sprintf("%d %s", n, strings.Repeat("m", n%90))
			n++
			bd := logstore.NewBuilder(logstore.PlainBatch())
			if err := bd.AppendNext(int64(n), nil, []byte(value)); err != nil {
				return err
			}
			b, err := bd.Finish()
			if err != nil {
				return err
			}
			h.values[l.LogEndOffset()] = value
			info, err := l.AppendAsLeader(logstore.AppendParams{Records: bytes.Clone(b), Epoch: cluster.LeaderEpoch(1 + n/25), ProduceVersion: 9, Now: time.Now()})
			if err != nil {
				return err
			}
			h.written = info.LastOffset + 1
		}
		if err := l.Flush(l.LogEndOffset()); err != nil {
			return err
		}
		h.flushed = l.LogEndOffset()
		return errors.Join(m.CheckpointRecoveryPoints(), m.CheckpointHighWatermarks())
	}
	if err := add(l, 40); err != nil {
		return err
	}
	for range 2 { // there and back
		if _, err := m.CreateFuture(topic0, otherDir(l)); err != nil {
			return err
		}
		if _, err := m.CopyChunk(topic0, make([]byte, 2000)); err != nil {
			return err
		}
		if err := add(l, 5); err != nil {
			return err
		}
		if err := copyAll(m, 2000); err != nil {
			return err
		}
		if l, err = m.Promote(topic0); err != nil {
			return err
		}
		if err := add(l, 5); err != nil {
			return err
		}
		m.DeletePass(time.Now().Add(time.Hour))
	}
	upTo := l.LogEndOffset()
	if err := m.Close(true); err != nil {
		return err
	}
	h.flushed = upTo
	return nil
}

func moveSurvivors(t *testing.T, fsys *crashfs.FS, promised int64, h *history, what string) {
	t.Helper()
	m, err := openTwo(fsys, tiny())
	require.NoError(t, err, what)
	defer m.Close(false) //nolint:errcheck // only read
	l, ok := m.Get(topic0)
	if !ok {
		require.Zero(t, promised, what)
		return
	}
	o := l.Offsets()
	require.GreaterOrEqual(t, o.LogEnd, promised, what)
	for i, r := range readAll(t, l, 0, o.LogEnd, 1<<20) {
		require.EqualValues(t, i, r.offset, what)
		if r.offset < promised {
			require.Equal(t, h.values[r.offset], r.value, "%s: offset %d", what, r.offset)
		}
	}
	appendValue(t, l, 9, "more")
	if _, moving := m.Future(topic0); moving { // it goes on, and ends
		require.NoError(t, copyAll(m, 1000), what)
		want := readAll(t, l, 0, l.LogEndOffset(), 1<<20)
		l, err = m.Promote(topic0)
		require.NoError(t, err, what)
		require.Equal(t, want, readAll(t, l, 0, l.LogEndOffset(), 1<<20), what)
	}
}

func TestMoveSurvivesACrashAtEveryOperation(t *testing.T) {
	fsys := crashfs.New()
	require.NoError(t, moveScript(fsys, &history{values: map[int64]string{}}))
	step := int64(1)
	if testing.Short() {
		step = 5
	}
	for n := int64(1); n <= fsys.Ops(); n += step {
		h := &history{values: map[int64]string{}}
		fsys := crashfs.New()
		fsys.FailAt(n, true, syscall.EIO)
		_ = moveScript(fsys, h)
		moveSurvivors(t, fsys.Kill(), h.written, h, fmt.Sprintf("kill at operation %d", n))
		for seed := range uint64(6) {
			moveSurvivors(t, fsys.Crash(rand.New(rand.NewPCG(uint64(n), seed))), h.flushed, h, fmt.Sprintf("loss of power at operation %d, seed %d", n, seed))
		}
	}
}

// TestMoveIsLeftAloneWhileADirectoryIsAway: its log may be on the failed disk.
func TestMoveIsLeftAloneWhileADirectoryIsAway(t *testing.T) {
	fsys := crashfs.New()
	m, err := openTwo(fsys, tiny())
	require.NoError(t, err)
	l := openTopic(t, m)
	from, to := l.LogDir(), otherDir(l)
	for range 20 {
		appendValue(t, l, 1, "value")
	}
	_, err = m.CreateFuture(topic0, to)
	require.NoError(t, err)
	_, err = m.CopyChunk(topic0, make([]byte, 100))
	require.NoError(t, err)
	require.NoError(t, m.Close(true))
	fsys.FailWith(func(op crashfs.Op) error {
		if strings.HasPrefix(op.Name, from) {
			return syscall.EIO
		}
		return nil
	})
	m, err = openTwo(fsys, tiny())
	require.NoError(t, err)
	_, ok := m.Get(topic0)
	require.False(t, ok)
	_, err = m.GetOrCreate(topic0, cluster.TopicID{1}, false)
	require.Error(t, err, "the log may be on the failed disk")
	_ = m.Close(true)
	fsys.FailWith(nil)
	m, err = openTwo(fsys, tiny())
	require.NoError(t, err)
	l, ok = m.Get(topic0)
	require.True(t, ok)
	require.EqualValues(t, 20, l.LogEndOffset())
	_, ok = m.Future(topic0)
	require.True(t, ok)
	require.NoError(t, m.Close(true))
}

func TestDirectoriesFillEvenlyUnderConcurrentCreation(t *testing.T) {
	m, err := openTwo(crashfs.New(), tiny())
	require.NoError(t, err)
	done := make(chan error)
	for i := range 40 {
		go func() {
			_, err := m.GetOrCreate(cluster.TopicPartition{Topic: "many", Partition: int32(i)}, cluster.TopicID{1}, true)
			done <- err
		}()
	}
	for range 40 {
		require.NoError(t, <-done)
	}
	for _, d := range m.Dirs() {
		require.Equal(t, 20, d.Partitions)
	}
	require.NoError(t, m.Close(true))
}
