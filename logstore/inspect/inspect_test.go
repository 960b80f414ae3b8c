package inspect_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/inspect"
)

var (
	orders = cluster.TopicPartition{Topic: "orders"}
	dirOf  = "orders-0"
	moment = time.UnixMilli(1_700_000_000_000)
)

// written makes a log directory with one partition of several segments: plain batches, idempotent ones, and an aborted transaction
// in the first segment.
func written(t *testing.T, clean bool) string {
	t.Helper()
	dir := t.TempDir()
	c := logstore.DefaultConfig()
	c.SegmentBytes, c.IndexIntervalBytes = 3000, 200
	m, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{dir}, BrokerID: 1, ClusterID: "c", Logger: zerolog.Nop(), Defaults: func(string) *logstore.Config { return c },
	})
	require.NoError(t, err)
	l, err := m.GetOrCreate(orders, cluster.TopicID{1}, true)
	require.NoError(t, err)
	add := func(b logstore.Batch, origin logstore.Origin, epoch cluster.LeaderEpoch) {
		_, err := l.AppendAsLeader(logstore.AppendParams{Records: b, Epoch: epoch, Origin: origin, ProduceVersion: 9, Now: moment})
		require.NoError(t, err)
	}
	add(data(t, 7, 0, true, 0), logstore.OriginClient, 1)
	add(logstore.NewEndTxnBatch(logstore.EndTxnMarker{ProducerID: 7, Timestamp: moment.UnixMilli()}), logstore.OriginCoordinator, 1)
	for i := range 60 {
		add(data(t, 9, int32(i), false, i), logstore.OriginClient, cluster.LeaderEpoch(1+i/30))
	}
	l.SetHighWatermark(l.LogEndOffset())
	require.NoError(t, l.Flush(l.LogEndOffset()))
	require.NoError(t, m.CheckpointRecoveryPoints())
	require.NoError(t, m.CheckpointHighWatermarks())
	require.NoError(t, m.Close(clean))
	return dir
}

func data(t *testing.T, producer int64, sequence int32, transactional bool, i int) logstore.Batch {
	o := logstore.PlainBatch()
	o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = producer, 0, sequence, transactional
	b := logstore.NewBuilder(o)
	require.NoError(t, b.AppendNext(moment.UnixMilli()+int64(i), []byte("k"), []byte(strings.Repeat("v", 60))))
	out, err := b.Finish()
	require.NoError(t, err)
	return slices.Clone(out)
}

// hashes is the content of everything in a directory.
func hashes(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			out[path] = ""
			return err
		}
		b, err := os.ReadFile(path)
		sum := sha256.Sum256(b)
		out[path] = hex.EncodeToString(sum[:])
		return err
	}))
	return out
}

func TestSoundDirectoriesHaveNoFinding(t *testing.T) {
	for _, clean := range []bool{true, false} {
		dir := written(t, clean)
		before := hashes(t, dir)
		report, err := inspect.CheckDirectories([]string{dir}, inspect.Options{})
		require.NoError(t, err)
		if clean {
			require.Empty(t, report.Findings)
		} else {
			require.Zero(t, report.Count(inspect.Fault), report.Findings)
		}
		require.Len(t, report.Partitions, 1)
		p := report.Partitions[0]
		require.EqualValues(t, 62, p.LogEnd)
		require.Greater(t, len(p.Segments), 2)
		require.Equal(t, 1, p.Segments[0].Aborted)
		require.Equal(t, []inspect.Epoch{{Epoch: 1, Start: 0}, {Epoch: 2, Start: 32}}, p.Epochs)
		require.Len(t, p.Producers, 2)
		require.EqualValues(t, 59, p.Producers[1].LastSequence)
		require.Equal(t, before, hashes(t, dir), "nothing may change")
	}
}

func TestDirectoryOfKafkaHasNoFinding(t *testing.T) {
	p, err := inspect.ReadPartition("../testdata/kafka39/golden-0", inspect.Options{})
	require.NoError(t, err)
	require.Empty(t, p.Findings)
	require.EqualValues(t, 60, p.LogEnd)
}

func patch(t *testing.T, path string, change func(b []byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		require.NoError(t, err)
	}
	require.NoError(t, os.WriteFile(path, change(b), 0o644))
}

// TestEveryDamageIsNamed damages a sound directory in one way after another. Each is found, at the right file, and told in words
// that contain the expected ones.
func TestEveryDamageIsNamed(t *testing.T) {
	name := func(base int64, suffix string) string { return fmt.Sprintf("%s/%020d%s", dirOf, base, suffix) }
	second := func(dir string) int64 { // base of the second segment
		p, err := inspect.ReadPartition(filepath.Join(dir, dirOf), inspect.Options{})
		require.NoError(t, err)
		return p.Segments[1].Base
	}
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 0x40; return b }
	}
	be := binary.BigEndian
	for _, row := range []struct {
		what     string
		file     func(dir string) string
		change   func(b []byte) []byte
		severity inspect.Severity
		says     string
	}{
		{"a flipped bit in a record", func(string) string { return name(0, ".log") }, flip(400), inspect.Fault, "crc"},
		{"a lost end", func(dir string) string { return name(second(dir), ".log") }, func(b []byte) []byte { return b[:len(b)-7] }, inspect.Fault, "not complete"},
		{"garbage behind the end", func(dir string) string { return name(second(dir), ".log") }, func(b []byte) []byte { return append(b, make([]byte, 90)...) }, inspect.Fault, "no sound batches"},
		{"an offset that goes back", func(string) string { return name(0, ".log") }, func(b []byte) []byte {
			first := logstore.Batch(b).Size()
			be.PutUint64(b[first:], 0)
			return b
		}, inspect.Fault, "begins at offset 0"},
		{"a missing segment", func(dir string) string { return name(second(dir), ".log") }, nil, inspect.Note, "offsets are missing"},
		{"an index that points into a batch", func(string) string { return name(0, ".index") }, func(b []byte) []byte { be.PutUint32(b[4:], be.Uint32(b[4:])+1); return b }, inspect.Fault, "no batch begins"},
		{"an index with another offset", func(string) string { return name(0, ".index") }, func(b []byte) []byte { be.PutUint32(b, 0); return b }, inspect.Fault, "where the batch"},
		{"an index that points behind the end", func(string) string { return name(0, ".index") }, func(b []byte) []byte { return append(b, 0, 0, 1, 0, 0, 1, 0, 0) }, inspect.Fault, "behind the last sound batch"},
		{"half an index entry", func(string) string { return name(0, ".index") }, func(b []byte) []byte { return append(b, 1, 2, 3) }, inspect.Fault, "follow the last whole entry"},
		{"no index", func(string) string { return name(0, ".index") }, nil, inspect.Repaired, "no index"},
		{"a time index that lies", func(string) string { return name(0, ".timeindex") }, func(b []byte) []byte { be.PutUint64(b, 1); return b }, inspect.Fault, "younger than 1"},
		{"a time index without its last entry", func(string) string { return name(0, ".timeindex") }, func(b []byte) []byte { return b[:len(b)-12] }, inspect.Fault, "largest timestamp"},
		{"a transaction index without an entry", func(string) string { return name(0, ".txnindex") }, func([]byte) []byte { return nil }, inspect.Fault, "lacks the aborted transaction [0, 1] of producer 7"},
		{"a transaction index of another version", func(string) string { return name(0, ".txnindex") }, flip(1), inspect.Fault, "version"},
		{"a snapshot with a flipped bit", func(dir string) string { return name(second(dir), ".snapshot") }, flip(20), inspect.Fault, "snapshot crc"},
		{"no snapshot at the end", func(string) string { return name(62, ".snapshot") }, nil, inspect.Fault, "no producer snapshot"},
		{"an epoch history that is no history", func(string) string { return dirOf + "/leader-epoch-checkpoint" }, func([]byte) []byte { return []byte("nonsense\n") }, inspect.Fault, "leader-epoch-checkpoint"},
		{"an epoch that begins too late", func(string) string { return dirOf + "/leader-epoch-checkpoint" }, func([]byte) []byte { return []byte("0\n2\n1 0\n2 40\n") }, inspect.Fault, "of leader epoch 2"},
		{"an epoch above the end", func(string) string { return dirOf + "/leader-epoch-checkpoint" }, func(b []byte) []byte { return []byte("0\n3\n1 0\n2 32\n5 99\n") }, inspect.Repaired, "above the log's end"},
		{"a topic id that is none", func(string) string { return dirOf + "/partition.metadata" }, func([]byte) []byte { return []byte("version: 0\ntopic_id: ?") }, inspect.Fault, "topic_id"},
		{"a high watermark above the end", func(string) string { return "replication-offset-checkpoint" }, func([]byte) []byte { return []byte("0\n1\norders 0 63\n") }, inspect.Fault, "records are missing"},
		{"a recovery point above the end", func(string) string { return "recovery-point-offset-checkpoint" }, func([]byte) []byte { return []byte("0\n1\norders 0 100\n") }, inspect.Fault, "records are missing"},
		{"a checkpoint of another count", func(string) string { return "recovery-point-offset-checkpoint" }, func([]byte) []byte { return []byte("0\n2\norders 0 62\n") }, inspect.Fault, "checkpoint"},
		{"a checkpoint with a strange partition", func(string) string { return "recovery-point-offset-checkpoint" }, func([]byte) []byte { return []byte("0\n2\norders 0 62\ngone 3 5\n") }, inspect.Note, "gone-3"},
		{"meta.properties of another shape", func(string) string { return "meta.properties" }, func([]byte) []byte { return []byte("version=7\n") }, inspect.Fault, "meta.properties"},
		{"the output of a compaction that did not end", func(string) string { return name(0, ".log.cleaned") }, func([]byte) []byte { return nil }, inspect.Repaired, "did not end"},
		{"a foreign file", func(string) string { return dirOf + "/notes.index" }, func([]byte) []byte { return nil }, inspect.Fault, "without an offset"},
	} {
		t.Run(row.what, func(t *testing.T) {
			t.Parallel()
			dir := written(t, true)
			path := filepath.Join(dir, row.file(dir))
			if row.change == nil {
				require.NoError(t, os.Remove(path))
			} else {
				patch(t, path, row.change)
			}
			before := hashes(t, dir)
			report, err := inspect.CheckDirectories([]string{dir}, inspect.Options{})
			require.NoError(t, err)
			require.True(t, slices.ContainsFunc(report.Findings, func(f inspect.Finding) bool {
				return f.Severity == row.severity && strings.Contains(f.String(), row.says)
			}), "%v", report.Findings)
			require.Equal(t, before, hashes(t, dir), "nothing may change")
		})
	}
}

func TestTheSamePartitionInTwoDirectoriesIsNamed(t *testing.T) {
	one, two := written(t, true), written(t, true)
	report, err := inspect.CheckDirectories([]string{one, two}, inspect.Options{})
	require.NoError(t, err)
	require.Equal(t, 1, report.Count(inspect.Fault), report.Findings)
	require.Contains(t, report.Findings[0].String(), "the partition is also in "+one)
}

// TestWhatAKillLeavesIsRepaired: a torn batch behind the recovery point costs nothing, and says so.
func TestWhatAKillLeavesIsRepaired(t *testing.T) {
	dir := written(t, false)
	logs, err := filepath.Glob(filepath.Join(dir, dirOf, "*.log"))
	require.NoError(t, err)
	patch(t, logs[len(logs)-1], func(b []byte) []byte { return append(b, b[:40]...) })
	report, err := inspect.CheckDirectories([]string{dir}, inspect.Options{})
	require.NoError(t, err)
	require.Zero(t, report.Count(inspect.Fault), report.Findings)
	require.Positive(t, report.Count(inspect.Repaired))
	require.Contains(t, report.Partitions[0].Story()[0], "not stopped cleanly")
}

// TestDumpShowsEveryFile also covers records in words.
func TestDumpShowsEveryFile(t *testing.T) {
	dir := filepath.Join(written(t, true), dirOf)
	kinds := map[string]int{}
	o := inspect.DumpOptions{Records: true}
	o.Decode = func(topic string, _ logstore.Record) (string, bool, error) { return "of " + topic, true, nil }
	require.NoError(t, inspect.Dump(dir, o, func(i inspect.Item) error {
		switch {
		case i.Batch != nil:
			kinds["batch"]++
			require.True(t, i.Batch.Valid)
			if i.Batch.Control == "" {
				require.Equal(t, "of orders", i.Batch.Records[0].Text)
			} else {
				require.Equal(t, "ABORT", i.Batch.Control)
			}
		case i.Index != nil:
			kinds["index"]++
		case i.Time != nil:
			kinds["time"]++
		case i.Aborted != nil:
			kinds["aborted"]++
		case i.Producer != nil:
			kinds["producer"]++
		case i.Epoch != nil:
			kinds["epoch"]++
		default:
			t.Error(i.Error)
		}
		return nil
	}))
	require.Equal(t, 62, kinds["batch"])
	require.Equal(t, 1, kinds["aborted"])
	require.Equal(t, 2, kinds["epoch"])
	for _, kind := range []string{"index", "time", "producer"} {
		require.Positive(t, kinds[kind], kind)
	}
}
