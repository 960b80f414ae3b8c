package logstore_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

// holed is a compacted log that was not stopped cleanly, of which the last batch of its second segment is gone. It returns that
// segment's base and the offset of the batch.
func holed(t *testing.T, recoveryPoint int64) (fsys *crashfs.FS, base, lost int64) {
	t.Helper()
	fsys = crashfs.New()
	c := tiny()
	c.Compact, c.Delete = true, false
	m := openManager(t, fsys, c)
	l := openTopic(t, m)
	for i := range 60 {
		b := keyedBatch(t, fmt.Sprintf("key-%d", i), strings.Repeat("v", 100))
		_, err := l.AppendAsLeader(logstore.AppendParams{Records: b, Epoch: 1, ProduceVersion: 9, Now: time.Now()})
		require.NoError(t, err)
	}
	require.NoError(t, l.Flush(l.LogEndOffset()))
	require.NoError(t, m.Close(false))
	entries, err := fsys.ReadDir("/data/orders-0")
	require.NoError(t, err)
	var bases []int64
	for _, e := range entries {
		if at, suffix, ok := logstore.FileOffset(e.Name()); ok && suffix == ".log" {
			bases = append(bases, at)
		}
	}
	require.Greater(t, len(bases), 3)
	base, lost = bases[1], bases[2]-1
	edit(t, fsys, fmt.Sprintf("/data/orders-0/%020d.log", base), func(data []byte) []byte {
		last := 0
		for at := 0; at < len(data); {
			last = at
			at += logstore.Batch(data[at:]).Size()
		}
		return data[:last]
	})
	require.NoError(t, logstore.WriteOffsetCheckpoint(fsys, "/data/"+logstore.RecoveryPointCheckpoint, map[cluster.TopicPartition]int64{topic0: recoveryPoint}))
	return fsys, base, lost
}

func keyedBatch(t *testing.T, key, value string) []byte {
	t.Helper()
	bd := logstore.NewBuilder(logstore.PlainBatch())
	require.NoError(t, bd.AppendNext(1, []byte(key), []byte(value)))
	b, err := bd.Finish()
	require.NoError(t, err)
	return bytes.Clone(b)
}

// TestHolesInCompactedLogsAreCutWhereNoCleanerCanHaveBeen: records that a loss of power took come again from the leader; what a
// cleaner took stays away.
func TestHolesInCompactedLogsAreCutWhereNoCleanerCanHaveBeen(t *testing.T) {
	ends := func(fsys *crashfs.FS) int64 {
		c := tiny()
		c.Compact, c.Delete = true, false
		m := openManager(t, fsys, c)
		defer m.Close(false) //nolint:errcheck // only read
		l, ok := m.Get(topic0)
		require.True(t, ok)
		return l.LogEndOffset()
	}
	fsys, _, lost := holed(t, 1)
	require.Equal(t, lost, ends(fsys), "cut")

	fsys, _, _ = holed(t, 0)
	require.EqualValues(t, 60, ends(fsys), "the recovery point is not known")

	fsys, base, _ := holed(t, 1)
	require.NoError(t, logstore.WriteOffsetCheckpoint(fsys, "/data/"+logstore.CleanerCheckpoint, map[cluster.TopicPartition]int64{topic0: base + 1}))
	require.EqualValues(t, 60, ends(fsys), "a cleaner has been there")

	fsys, base, _ = holed(t, 1)
	edit(t, fsys, fmt.Sprintf("/data/orders-0/%020d.log.deleted", base), func([]byte) []byte { return nil })
	require.EqualValues(t, 60, ends(fsys), "a cleaner was at work")
}

func TestCleanerNotesTheRecoveryPointFirst(t *testing.T) {
	fsys := crashfs.New()
	m := openCompacted(t, fsys, compacted())
	l := openCleanTopic(t, m)
	d := newDriver(t, l)
	for i := range 60 {
		d.append(0, false, logstore.CodecNone, []int{i % 5}, noTombstones)
	}
	l.SetHighWatermark(l.LogEndOffset())
	require.True(t, newCleaner(m, 0).CleanOnce(t.Context(), d.now))
	points, err := logstore.ReadOffsetCheckpoint(fsys, "/data/"+logstore.RecoveryPointCheckpoint)
	require.NoError(t, err)
	cleaned, err := logstore.ReadOffsetCheckpoint(fsys, "/data/"+logstore.CleanerCheckpoint)
	require.NoError(t, err)
	require.GreaterOrEqual(t, points[cleanTopic], cleaned[cleanTopic])
	require.Positive(t, cleaned[cleanTopic])
	require.NoError(t, m.Close(true))
}
