package logstore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

// kafkaDir puts the directory of a Kafka 3.9 broker into a file system in memory. testdata/kafka39/golden-0 is a topic with
// segment.bytes=3000 and index.interval.bytes=300 after a clean stop: 60 records "key-I" / "the value number I of …", sent one by
// one by six runs of kafka-console-producer --sync (idempotent), I from 1.
func kafkaDir(t *testing.T) *crashfs.FS {
	t.Helper()
	fsys := crashfs.New()
	require.NoError(t, fsys.MkdirAll("/data/golden-0", 0o755))
	entries, err := os.ReadDir("testdata/kafka39/golden-0")
	require.NoError(t, err)
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join("testdata/kafka39/golden-0", e.Name()))
		require.NoError(t, err)
		edit(t, fsys, "/data/golden-0/"+e.Name(), func([]byte) []byte { return data })
	}
	golden := cluster.TopicPartition{Topic: "golden"}
	for _, name := range []string{logstore.RecoveryPointCheckpoint, logstore.HighWatermarkCheckpoint} {
		require.NoError(t, logstore.WriteOffsetCheckpoint(fsys, "/data/"+name, map[cluster.TopicPartition]int64{golden: 60}))
	}
	require.NoError(t, logstore.WriteCleanMarker(fsys, "/data", 25))
	return fsys
}

func checkGolden(t *testing.T, l *logstore.Log) {
	t.Helper()
	require.Equal(t, logstore.Offsets{LogEnd: 60, HighWatermark: 60, LastStable: 60}, l.Offsets())
	require.Equal(t, 3, l.Segments())
	require.Equal(t, []logstore.EpochEntry{{Epoch: 0, StartOffset: 0}}, l.EpochEntries())
	require.Len(t, l.ActiveProducers(), 6)
	all := readAll(t, l, 0, 60, 1)
	require.Len(t, all, 60)
	for i, r := range all {
		require.Equal(t, fmt.Sprintf("the value number %d of the golden log, which is somewhat longer", i+1), r.value)
		require.Equal(t, all[i:], readAll(t, l, int64(i), 60, 700))
		offset, _, _, found, err := l.OffsetForTimestamp(r.timestamp)
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, r.timestamp, all[offset].timestamp)
		require.LessOrEqual(t, offset, r.offset)
	}
}

func TestDirectoryOfKafkaOpensInPlace(t *testing.T) {
	fsys := kafkaDir(t)
	m := openManager(t, fsys, tiny())
	require.True(t, m.WasClean())
	require.EqualValues(t, 25, m.CleanBrokerEpoch())
	l, ok := m.Get(cluster.TopicPartition{Topic: "golden"})
	require.True(t, ok)
	_, ok = l.TopicID()
	require.True(t, ok)
	checkGolden(t, l)
	require.NoError(t, m.Close(true))
	// What was not touched is byte for byte what Kafka left.
	entries, err := os.ReadDir("testdata/kafka39/golden-0")
	require.NoError(t, err)
	for _, e := range entries {
		want, err := os.ReadFile(filepath.Join("testdata/kafka39/golden-0", e.Name()))
		require.NoError(t, err)
		edit(t, fsys, "/data/golden-0/"+e.Name(), func(got []byte) []byte {
			require.Equal(t, want, got, e.Name())
			return got
		})
	}
}

func TestDirectoryOfKafkaIsRecovered(t *testing.T) {
	fsys := kafkaDir(t)
	require.NoError(t, logstore.RemoveCleanMarker(fsys, "/data"))
	require.NoError(t, fsys.Remove("/data/"+logstore.RecoveryPointCheckpoint))
	c := tiny()
	c.SegmentBytes, c.IndexIntervalBytes, c.IndexBytes = 3000, 300, 10<<20
	m := openManager(t, fsys, c)
	require.False(t, m.WasClean())
	l, ok := m.Get(cluster.TopicPartition{Topic: "golden"})
	require.True(t, ok)
	require.Zero(t, l.Recovery().CutBytes)
	checkGolden(t, l)
	require.NoError(t, m.Close(true))
	// The rebuilt indexes are what Kafka had written.
	entries, err := os.ReadDir("testdata/kafka39/golden-0")
	require.NoError(t, err)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), "index") {
			continue
		}
		want, err := os.ReadFile(filepath.Join("testdata/kafka39/golden-0", e.Name()))
		require.NoError(t, err)
		edit(t, fsys, "/data/golden-0/"+e.Name(), func(got []byte) []byte {
			require.Equal(t, want, got, e.Name())
			return got
		})
	}
}

// TestWriteForKafkasTool leaves a directory for kafka-dump-log, by hand: OTTLA_DUMP_DIR=… go test -run ForKafkasTool.
func TestWriteForKafkasTool(t *testing.T) {
	dir := os.Getenv("OTTLA_DUMP_DIR")
	if dir == "" {
		t.Skip("set OTTLA_DUMP_DIR")
	}
	m := onDisk(t, dir)
	c := logstore.DefaultConfig()
	c.SegmentBytes = 200 << 10
	l, err := m.GetOrCreate(topic0, cluster.TopicID{1}, true)
	require.NoError(t, err)
	l.SetConfig(c)
	for i := range 3000 {
		var records []record
		for j := range i%7 + 1 {
			records = append(records, record{timestamp: 1700000000000 + int64(i*10) - int64(i%13*7), value: fmt.Sprintf("value %d/%d %s", i, j, strings.Repeat("x", i%300))})
		}
		if i%3 == 0 {
			_, err = l.AppendAsLeader(logstore.AppendParams{Records: build(t, 0, -1, records), Epoch: cluster.LeaderEpoch(1 + i/1000), ProduceVersion: 9, Now: time.Now()})
		} else {
			var sent []byte
			for k := range i % 4 {
				sent = append(sent, build(t, l.LogEndOffset()+int64(k*len(records)), cluster.LeaderEpoch(1+i/1000), records)...)
			}
			_, err = l.AppendAsFollower(sent, 9)
		}
		require.NoError(t, err)
		if i == 1500 {
			require.NoError(t, l.TruncateTo(l.LogEndOffset()-100))
		}
	}
	require.NoError(t, m.Close(true))
}
