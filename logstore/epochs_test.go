package logstore

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ottla/internal/cluster"
)

func TestEpochsAreWrittenAtOnceAndReadAgain(t *testing.T) {
	dir := t.TempDir()
	c, err := OpenEpochCache(OSFS, dir)
	require.NoError(t, err)
	_, ok := c.Latest()
	require.False(t, ok)
	require.True(t, c.Assign(0, 0))
	require.True(t, c.Assign(3, 1542))
	require.False(t, c.Assign(3, 2000), "the same epoch later on is no news")
	require.NoError(t, c.Flush())

	text, err := os.ReadFile(filepath.Join(dir, EpochCheckpointFile))
	require.NoError(t, err)
	require.Equal(t, "0\n2\n0 0\n3 1542\n", string(text))

	c, err = OpenEpochCache(OSFS, dir)
	require.NoError(t, err)
	require.Equal(t, []EpochEntry{{0, 0}, {3, 1542}}, c.Entries())
}

func TestEndOffsetOfEpochs(t *testing.T) {
	entries := []EpochEntry{{2, 10}, {4, 20}, {7, 30}}
	for _, row := range []struct {
		ask, epoch cluster.LeaderEpoch
		end        int64
	}{{-1, -1, -1}, {0, 0, 10}, {1, 1, 10}, {2, 2, 20}, {3, 2, 20}, {4, 4, 30}, {6, 4, 30}, {7, 7, 99}, {8, -1, -1}} {
		epoch, end := endOffset(entries, row.ask, 99)
		require.Equal(t, row.epoch, epoch, "epoch asked: %d", row.ask)
		require.Equal(t, row.end, end, "epoch asked: %d", row.ask)
	}
	epoch, end := endOffset(nil, 3, 99)
	require.Equal(t, cluster.NoLeaderEpoch, epoch)
	require.Equal(t, int64(-1), end)
}

func TestEpochTruncations(t *testing.T) {
	c := &EpochCache{}
	reset := func() { c.publish([]EpochEntry{{2, 10}, {4, 20}, {7, 30}}) }
	reset()
	c.TruncateFromEnd(20)
	require.Equal(t, []EpochEntry{{2, 10}}, c.Entries())
	reset()
	c.TruncateFromEnd(31)
	require.Len(t, c.Entries(), 3)
	c.TruncateFromStart(25)
	require.Equal(t, []EpochEntry{{4, 25}, {7, 30}}, c.Entries())
	c.TruncateFromStart(30)
	require.Equal(t, []EpochEntry{{7, 30}}, c.Entries())
	c.TruncateFromStart(5)
	require.Equal(t, []EpochEntry{{7, 30}}, c.Entries())
	c.TruncateFromStart(100)
	require.Equal(t, []EpochEntry{{7, 100}}, c.Entries())
	e, ok := c.EpochAt(100)
	require.True(t, ok)
	require.Equal(t, cluster.LeaderEpoch(7), e)
	_, ok = c.EpochAt(99)
	require.False(t, ok)
}

func TestEpochHistoryAscendsWhateverIsAssigned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := &EpochCache{}
		c.publish(nil)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			offset := int64(rapid.IntRange(0, 50).Draw(t, "offset"))
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				c.TruncateFromEnd(offset)
			case 1:
				c.TruncateFromStart(offset)
			default:
				epoch := cluster.LeaderEpoch(rapid.IntRange(0, 20).Draw(t, "epoch"))
				c.Assign(epoch, offset)
				last, ok := c.Latest()
				require.True(t, ok)
				require.Equal(t, epoch, last.Epoch)
				require.LessOrEqual(t, last.StartOffset, offset)
			}
			entries := c.Entries()
			for i := 1; i < len(entries); i++ {
				require.Less(t, entries[i-1].Epoch, entries[i].Epoch)
				require.Less(t, entries[i-1].StartOffset, entries[i].StartOffset)
			}
		}
	})
}
