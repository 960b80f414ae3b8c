package logstore_test

import (
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

// Replacing a small file leaves the old or the new content, whole, whenever power is lost; what was reported is kept.
func TestCheckpointsAreReplacedWholly(t *testing.T) {
	const path = "/data/" + logstore.RecoveryPointCheckpoint
	tp := cluster.TopicPartition{Topic: "orders", Partition: 3}
	for n := int64(1); n < 20; n++ {
		fsys := crashfs.New()
		require.NoError(t, fsys.MkdirAll("/data", 0o755))
		require.NoError(t, fsys.SyncDir("/"))
		require.NoError(t, logstore.WriteOffsetCheckpoint(fsys, path, map[cluster.TopicPartition]int64{tp: 1}))
		fsys.FailAt(n, true, errors.New("disk gone"))
		err := logstore.WriteOffsetCheckpoint(fsys, path, map[cluster.TopicPartition]int64{tp: 22222})
		for seed := range uint64(20) {
			crashed := fsys.Crash(rand.New(rand.NewPCG(seed, uint64(n))))
			got, readErr := logstore.ReadOffsetCheckpoint(crashed, path)
			require.NoError(t, readErr)
			require.Contains(t, []int64{1, 22222}, got[tp])
			if err == nil {
				require.Equal(t, int64(22222), got[tp])
			}
		}
	}
}

func TestAssignedEpochsSurviveEveryCrash(t *testing.T) {
	for n := int64(1); n < 20; n++ {
		fsys := crashfs.New()
		require.NoError(t, fsys.MkdirAll("/data", 0o755))
		require.NoError(t, fsys.SyncDir("/"))
		c, err := logstore.OpenEpochCache(fsys, "/data")
		require.NoError(t, err)
		c.Assign(1, 10)
		require.NoError(t, c.Flush())
		fsys.FailAt(n, true, errors.New("disk gone"))
		c.Assign(2, 20)
		assigned := c.Flush()
		if assigned != nil {
			require.Error(t, c.Flush(), "after a failed write nothing more is written")
		}
		for seed := range uint64(20) {
			c, err := logstore.OpenEpochCache(fsys.Crash(rand.New(rand.NewPCG(seed, uint64(n)))), "/data")
			require.NoError(t, err)
			entries := c.Entries()
			require.Equal(t, logstore.EpochEntry{Epoch: 1, StartOffset: 10}, entries[0])
			if assigned == nil {
				require.Len(t, entries, 2)
			}
		}
	}
}
