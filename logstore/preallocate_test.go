package logstore_test

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

// TestPreallocatedSegmentsReserveSpaceOnly: their files are as long as what was written, at every moment, so that a kill leaves no
// zeros behind; what was not used is given back.
func TestPreallocatedSegmentsReserveSpaceOnly(t *testing.T) {
	dir := t.TempDir()
	c := logstore.DefaultConfig()
	c.SegmentBytes, c.Preallocate = 1<<20, true
	open := func() *logstore.Manager {
		m, err := logstore.OpenManager(logstore.ManagerOptions{Dirs: []string{dir}, BrokerID: 1, ClusterID: "c", Logger: zerolog.Nop(), Defaults: func(string) *logstore.Config { return c }})
		require.NoError(t, err)
		return m
	}
	look := func(base string) (size, allocated int64) {
		var s syscall.Stat_t
		require.NoError(t, syscall.Stat(filepath.Join(dir, "orders-0", strings.Repeat("0", 20-len(base))+base+".log"), &s))
		return s.Size, s.Blocks * 512
	}
	m := open()
	l, err := m.GetOrCreate(topic0, cluster.TopicID{1}, true)
	require.NoError(t, err)
	if _, allocated := look("0"); allocated == 0 {
		t.Skip("the file system reserves nothing")
	}
	appendValue(t, l, 1, strings.Repeat("v", 1000))
	size, allocated := look("0")
	require.Equal(t, l.Size(), size)
	require.GreaterOrEqual(t, allocated, int64(1<<20))
	appendValue(t, l, 1, strings.Repeat("v", 1<<20-5000))
	appendValue(t, l, 1, strings.Repeat("v", 5000))
	require.Equal(t, 2, l.Segments())
	_, allocated = look("2")
	require.GreaterOrEqual(t, allocated, int64(1<<20))
	require.NoError(t, m.Close(true))
	size, allocated = look("2")
	require.Less(t, allocated, size+64<<10, "given back")
	m = open()
	l, _ = m.Get(topic0)
	require.EqualValues(t, 3, l.LogEndOffset())
	require.NoError(t, m.Close(true))
}

func TestPreallocationThatFindsNoSpaceRefusesTheAppendOnly(t *testing.T) {
	fsys := crashfs.New()
	c := tiny()
	c.Preallocate = true
	m := openManager(t, fsys, c)
	l := openTopic(t, m)
	fsys.FailWith(func(op crashfs.Op) error {
		if op.Kind == "reserve" {
			return syscall.ENOSPC
		}
		return nil
	})
	add := func() error {
		_, err := l.AppendAsLeader(logstore.AppendParams{Records: build(t, 0, -1, []record{{value: strings.Repeat("v", 400), timestamp: 1}}), Epoch: 1, ProduceVersion: 9, Now: time.Now()})
		return err
	}
	for add() == nil {
	}
	end := l.LogEndOffset()
	require.ErrorIs(t, add(), syscall.ENOSPC)
	require.Equal(t, end, l.LogEndOffset())
	fsys.FailWith(nil)
	require.NoError(t, add())
	require.Len(t, readAll(t, l, 0, end+1, 1<<20), int(end+1))
	require.NoError(t, m.Close(true))
}
