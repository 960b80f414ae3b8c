package logstore_test

import (
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

func TestReserveRefusesClientsAndNobodyElse(t *testing.T) {
	fsys := crashfs.New()
	c := tiny()
	m, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{"/data"}, FS: fsys, BrokerID: 1, ClusterID: "c", Defaults: func(string) *logstore.Config { return c },
		ReserveShare: 0.1, Logger: zerolog.Nop(), OnDirFailure: func(dir string, err error) { t.Errorf("%s taken offline: %v", dir, err) },
	})
	require.NoError(t, err)
	defer m.Close(true) //nolint:errcheck // nothing is checked after it
	l := openTopic(t, m)
	now := time.Now()
	appendAs := func(origin logstore.Origin, value string) (logstore.AppendInfo, error) {
		return l.AppendAsLeader(logstore.AppendParams{
			Records: build(t, 0, -1, []record{{value: value, timestamp: 1}}), Epoch: 1, ProduceVersion: 9, Origin: origin, Now: now,
		})
	}
	_, err = appendAs(logstore.OriginClient, "one")
	require.NoError(t, err)

	fsys.SetSpace(logstore.Space{Total: 1000, Free: 100}) // nothing above the reserve
	_, err = appendAs(logstore.OriginClient, "two")
	require.NoError(t, err, "the volume is asked again only after a while")
	now = now.Add(time.Second)
	ops := fsys.Ops()
	info, err := appendAs(logstore.OriginClient, "refused")
	require.ErrorIs(t, err, kerr.KafkaStorageError)
	require.ErrorIs(t, err, logstore.ErrReserve)
	require.NotEmpty(t, info.ErrorMessage)
	require.EqualValues(t, -1, info.FirstOffset)
	require.Equal(t, ops, fsys.Ops(), "nothing was written")
	require.True(t, m.Dirs()[0].Short)
	require.NoError(t, m.Dirs()[0].Err)

	_, err = appendAs(logstore.OriginCoordinator, "commit")
	require.NoError(t, err)
	_, err = l.AppendAsFollower(build(t, 3, 1, []record{{offset: 3, value: "replica", timestamp: 1}}), 1)
	require.NoError(t, err)
	require.NoError(t, l.Flush(4))
	require.Len(t, readAll(t, l, 0, 4, 1<<20), 4)

	fsys.SetSpace(logstore.Space{Total: 1000, Free: 101})
	_, err = appendAs(logstore.OriginClient, "still refused")
	require.ErrorIs(t, err, logstore.ErrReserve)
	now = now.Add(-time.Minute) // a clock that jumps asks at once
	_, err = appendAs(logstore.OriginClient, "taken")
	require.NoError(t, err)
	require.False(t, m.Dirs()[0].Short)
}

// TestReserveIsKeptByBytesToo: a fast writer is seen before the second is over.
func TestReserveIsKeptByBytesToo(t *testing.T) {
	fsys := crashfs.New()
	fsys.SetSpace(logstore.Space{Total: 100 << 20, Free: 14 << 20})
	c := logstore.DefaultConfig()
	m, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{"/data"}, FS: fsys, BrokerID: 1, ClusterID: "c", Defaults: func(string) *logstore.Config { return c },
		ReserveShare: 0.1, Logger: zerolog.Nop(),
	})
	require.NoError(t, err)
	defer m.Close(false) //nolint:errcheck // nothing is checked after it
	l := openTopic(t, m)
	now := time.Now()
	value := string(make([]byte, 512<<10))
	written := int64(0)
	for err == nil {
		records := build(t, 0, -1, []record{{value: value, timestamp: 1}})
		n := int64(len(records))
		if _, err = l.AppendAsLeader(logstore.AppendParams{Records: records, Epoch: 1, ProduceVersion: 9, Now: now}); err == nil {
			written += n
			fsys.SetSpace(logstore.Space{Total: 100 << 20, Free: 14<<20 - written})
		}
		require.Less(t, written, int64(8<<20))
	}
	require.ErrorIs(t, err, logstore.ErrReserve)
	require.InDelta(t, 4<<20, written, 2<<20, "4 MiB above the reserve")
}

// TestRetentionMakesRoomOnAFullDisk: all segments have expired, and there is not even room for the new one that would follow.
func TestRetentionMakesRoomOnAFullDisk(t *testing.T) {
	fsys := crashfs.New()
	c := tiny()
	c.Delete, c.RetentionMs = true, 0
	m := openManager(t, fsys, c)
	defer m.Close(true) //nolint:errcheck // nothing is checked after it
	l := openTopic(t, m)
	for range 40 {
		_, err := l.AppendAsLeader(logstore.AppendParams{
			Records: build(t, 0, -1, []record{{value: string(make([]byte, 200)), timestamp: 1}}), Epoch: cluster.LeaderEpoch(1), ProduceVersion: 9, Now: time.Now(),
		})
		require.NoError(t, err)
	}
	l.SetHighWatermark(40)
	before := l.Segments()
	require.Greater(t, before, 2)
	fsys.FailWith(func(op crashfs.Op) error {
		if op.Kind == "write" || op.Kind == "create" {
			return syscall.ENOSPC
		}
		return nil
	})
	removed, err := l.Retain(time.Now())
	require.NoError(t, err)
	require.Equal(t, before-1, removed)
	fsys.FailWith(nil)
	removed, err = l.Retain(time.Now())
	require.NoError(t, err)
	require.Equal(t, 1, removed)
	require.EqualValues(t, 40, l.LogStartOffset())
}
