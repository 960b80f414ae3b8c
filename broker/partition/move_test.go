package partition

import (
	"errors"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

var t0 = cluster.TopicPartition{Topic: "t"}

func awaitMove(t *testing.T, b *bench, dir string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, moving := b.logs.Future(t0)
		return !moving && b.get().Log().LogDir() == dir
	}, 30*time.Second, time.Millisecond)
}

func elsewhere(p *Partition) string {
	if p.Log().LogDir() == "/a" {
		return "/b"
	}
	return "/a"
}

// TestReplicaMovesBackAndForthUnderLoad: producers and consumers notice nothing.
func TestReplicaMovesBackAndForthUnderLoad(t *testing.T) {
	b := newBench(t, nil, "/a", "/b")
	b.config.SegmentBytes = 20000
	p := b.lead(0, []int32{1}, []int32{1})
	var stop atomic.Bool
	var wg sync.WaitGroup
	var appended, next int64
	wg.Go(func() {
		for !stop.Load() {
			r, _ := produce(t, p, 5, -1)
			if r == nil || r.Err != nil || r.BaseOffset != appended {
				t.Errorf("append at %d: %+v", appended, r)
				return
			}
			appended += 5
		}
	})
	wg.Go(func() {
		for !stop.Load() {
			out, err := p.Read(consume(next))
			if err != nil {
				t.Errorf("read at %d: %v", next, err)
				return
			}
			buf := make([]byte, out.Slice.Len)
			if len(buf) > 0 {
				if _, err := out.Slice.ReadAt(buf, 0); err != nil {
					t.Errorf("read at %d: %v", next, err)
				}
			}
			out.Slice.Release()
			for len(buf) > 0 {
				batch, rest, err := logstore.NextBatch(buf)
				if errors.Is(err, kerr.CorruptMessage) || err != nil {
					break
				}
				if batch.BaseOffset() > next {
					t.Errorf("a hole at %d", next)
				}
				next, buf = batch.NextOffset(), rest
			}
		}
	})
	for range 6 {
		to := elsewhere(p)
		require.NoError(t, b.set.AlterDir(t0, to))
		require.NoError(t, b.set.AlterDir(t0, to), "asked twice")
		awaitMove(t, b, to)
	}
	stop.Store(true)
	wg.Wait()
	require.Equal(t, appended, p.Log().LogEndOffset())
	require.Positive(t, next)
}

func TestMovesAreJudgedRedirectedAndTakenBack(t *testing.T) {
	b := newBench(t, nil, "/a", "/b", "/c")
	require.ErrorIs(t, b.set.AlterDir(t0, "/nowhere"), kerr.LogDirNotFound)
	require.ErrorIs(t, b.set.AlterDir(t0, "/b"), kerr.ReplicaNotAvailable)
	p := b.lead(0, []int32{1}, []int32{1})
	require.Equal(t, "/b", p.Log().LogDir(), "created where it was asked for")
	produce(t, p, 10, 1)
	hold := &heldThrottle{}
	hold.on.Store(true)
	b.set.options.Moves = hold
	require.NoError(t, b.set.AlterDir(t0, "/a"))
	require.Len(t, b.logs.LogsIn("/a"), 1)
	require.NoError(t, b.set.AlterDir(t0, "/c"), "redirected")
	require.Empty(t, b.logs.LogsIn("/a"))
	require.Len(t, b.logs.LogsIn("/c"), 1)
	require.NoError(t, b.set.AlterDir(t0, "/b"), "taken back")
	require.Empty(t, b.logs.LogsIn("/c"))
	require.NoError(t, b.set.AlterDir(t0, "/c"))
	hold.on.Store(false)
	awaitMove(t, b, "/c")
	require.EqualValues(t, 10, p.Log().LogEndOffset())
}

type heldThrottle struct{ on atomic.Bool }

func (h *heldThrottle) Exceeded(time.Time) bool { return h.on.Load() }
func (h *heldThrottle) Record(int, time.Time)   {}

// TestMoveGoesOnAfterARestart: the copy is taken up where it was.
func TestMoveGoesOnAfterARestart(t *testing.T) {
	fs := crashfs.New()
	b := newBench(t, fs, "/a", "/b")
	p := b.lead(0, []int32{1}, []int32{1})
	produce(t, p, 10, 1)
	to := elsewhere(p)
	_, err := b.logs.CreateFuture(t0, to)
	require.NoError(t, err)
	_, err = b.logs.CopyChunk(t0, make([]byte, 1<<20))
	require.NoError(t, err)
	produce(t, p, 10, 1)
	b.close()

	b = newBench(t, fs, "/a", "/b")
	future, ok := b.logs.Future(t0)
	require.True(t, ok)
	require.EqualValues(t, 10, future.LogEndOffset())
	require.NoError(t, b.decide(decisionFor{leader: 1, epoch: 1, version: 1, isr: []int32{1}, replicas: []int32{1}}))
	awaitMove(t, b, to)
	require.EqualValues(t, 20, b.get().Log().LogEndOffset())
}

// TestTargetThatFailsEndsTheMoveOnly: the replica stays where it is.
func TestTargetThatFailsEndsTheMoveOnly(t *testing.T) {
	fs := crashfs.New()
	b := newBench(t, fs, "/a", "/b")
	p := b.lead(0, []int32{1}, []int32{1})
	produce(t, p, 10, 1)
	from, to := p.Log().LogDir(), elsewhere(p)
	hold := &heldThrottle{}
	hold.on.Store(true)
	b.set.options.Moves = hold
	require.NoError(t, b.set.AlterDir(t0, to))
	fs.FailWith(func(op crashfs.Op) error {
		if len(op.Name) > 2 && op.Name[:2] == to {
			return syscall.EIO
		}
		return nil
	})
	hold.on.Store(false)
	require.Eventually(t, func() bool { _, moving := b.logs.Future(t0); return !moving }, 30*time.Second, time.Millisecond)
	fs.FailWith(nil)
	require.Equal(t, from, p.Log().LogDir())
	r, _ := produce(t, p, 10, -1)
	require.NoError(t, r.Err)
	require.ErrorIs(t, b.set.AlterDir(t0, to), kerr.KafkaStorageError)
}
