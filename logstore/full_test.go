package logstore_test

import (
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

func noSpace(kinds string, under string) func(crashfs.Op) error {
	return func(op crashfs.Op) error {
		if strings.Contains(kinds, op.Kind) && strings.HasPrefix(op.Name, under) {
			return syscall.ENOSPC
		}
		return nil
	}
}

// TestFullDiskDelaysADeletion: the directory and what else is in it go on.
func TestFullDiskDelaysADeletion(t *testing.T) {
	fsys := crashfs.New()
	m := openManager(t, fsys, tiny())
	l := openTopic(t, m)
	other, err := m.GetOrCreate(partition(1), cluster.TopicID{2}, true)
	require.NoError(t, err)
	fsys.FailWith(noSpace("rename", "/data/orders-0"))
	var fault *logstore.StorageError
	require.ErrorAs(t, m.Delete(topic0), &fault)
	require.True(t, fault.Full)
	require.NoError(t, m.Dirs()[0].Err)
	appendValue(t, other, 1, "goes on")
	appendValue(t, l, 1, "goes on too")
	fsys.FailWith(nil)
	require.NoError(t, m.Delete(topic0))
	_, ok := m.Get(topic0)
	require.False(t, ok)
	require.NoError(t, m.Close(true))
}

// TestLogThatFindsNoSpaceToOpenWaitsForIt: others open, nothing that the checkpoints know of it is lost, and it opens, or is deleted,
// once there is room.
func TestLogThatFindsNoSpaceToOpenWaitsForIt(t *testing.T) {
	setup := func() (*crashfs.FS, *logstore.Manager) {
		fsys := crashfs.New()
		m := openManager(t, fsys, tiny())
		l := openTopic(t, m)
		other, err := m.GetOrCreate(partition(1), cluster.TopicID{2}, true)
		require.NoError(t, err)
		for range 30 {
			appendValue(t, l, 1, strings.Repeat("v", 60))
			appendValue(t, other, 1, strings.Repeat("v", 60))
		}
		l.SetHighWatermark(30)
		require.NoError(t, l.IncrementLogStart(7))
		require.NoError(t, m.CheckpointLogStarts())
		require.NoError(t, m.CheckpointHighWatermarks())
		require.NoError(t, m.Close(false))
		fsys.FailWith(noSpace("write open create", "/data/orders-0"))
		m = openManager(t, fsys, tiny())
		require.NoError(t, m.Dirs()[0].Err)
		_, ok := m.Get(topic0)
		require.False(t, ok)
		_, ok = m.Get(partition(1))
		require.True(t, ok)
		_, err = m.GetOrCreate(topic0, cluster.TopicID{1}, false)
		require.ErrorIs(t, err, syscall.ENOSPC)
		require.NoError(t, m.CheckpointHighWatermarks())
		return fsys, m
	}
	fsys, m := setup()
	fsys.FailWith(nil)
	l, err := m.GetOrCreate(topic0, cluster.TopicID{1}, false)
	require.NoError(t, err)
	require.Equal(t, []int64{7, 30}, []int64{l.LogStartOffset(), l.LogEndOffset()})
	require.EqualValues(t, 30, m.CheckpointedHighWatermark(topic0))
	require.NoError(t, m.Close(true))

	fsys, m = setup()
	require.NoError(t, m.Close(true))
	fsys.FailWith(nil)
	m = openManager(t, fsys, tiny())
	require.False(t, m.WasClean(), "the log was not recovered yet")
	l, ok := m.Get(topic0)
	require.True(t, ok)
	require.Equal(t, []int64{7, 30, 30}, []int64{l.LogStartOffset(), l.LogEndOffset(), m.CheckpointedHighWatermark(topic0)})
	require.NoError(t, m.Close(true))

	_, m = setup()
	require.NoError(t, m.Delete(topic0))
	_, err = m.GetOrCreate(topic0, cluster.TopicID{9}, true)
	require.Error(t, err, "still no space, and nothing of the old log")
	require.NoError(t, m.Close(true))
}
