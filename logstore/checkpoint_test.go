package logstore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
)

func TestOffsetCheckpointIsKafkasText(t *testing.T) {
	path := filepath.Join(t.TempDir(), RecoveryPointCheckpoint)
	offsets, err := ReadOffsetCheckpoint(OSFS, path)
	require.NoError(t, err)
	require.Empty(t, offsets)

	want := map[cluster.TopicPartition]int64{{Topic: "orders", Partition: 1}: 900, {Topic: "orders", Partition: 0}: 1542}
	require.NoError(t, WriteOffsetCheckpoint(OSFS, path, want))
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "0\n2\norders 0 1542\norders 1 900\n", string(text))
	_, err = os.Stat(path + ".tmp")
	require.ErrorIs(t, err, os.ErrNotExist)
	offsets, err = ReadOffsetCheckpoint(OSFS, path)
	require.NoError(t, err)
	require.Equal(t, want, offsets)
}

func TestMalformedCheckpointsAreErrors(t *testing.T) {
	for _, text := range []string{"1\n0\n", "x", "0\nx\n", "0\n2\na 0 1\n", "0\n0\na 0 1\n", "0\n1\na 0\n", "0\n1\na b 1\n", "0\n1\na 0 b\n", "0\n1\na 0 1 2\n"} {
		_, err := parseOffsetCheckpoint("file", []byte(text))
		require.ErrorIs(t, err, ErrCheckpoint, "%q", text)
	}
	for _, text := range []string{"", "0", "0\n", "0\n0\n"} {
		offsets, err := parseOffsetCheckpoint("file", []byte(text))
		require.NoError(t, err, "%q", text)
		require.Empty(t, offsets)
	}
}

func TestPartitionMetadataHasNoLastLineEnd(t *testing.T) {
	dir := t.TempDir()
	_, ok, err := ReadPartitionMetadata(OSFS, dir)
	require.NoError(t, err)
	require.False(t, ok)
	id, err := cluster.ParseTopicID("Rk2dCmcYR0uGg5cJmzsHnQ")
	require.NoError(t, err)
	require.NoError(t, WritePartitionMetadata(OSFS, dir, id))
	text, err := os.ReadFile(filepath.Join(dir, PartitionMetadataFile))
	require.NoError(t, err)
	require.Equal(t, "version: 0\ntopic_id: Rk2dCmcYR0uGg5cJmzsHnQ", string(text))
	read, ok, err := ReadPartitionMetadata(OSFS, dir)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, id, read)

	for _, text := range []string{"", "version: 0", "version: -1\ntopic_id: Rk2dCmcYR0uGg5cJmzsHnQ", "version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA", "version: 0\ntopic_id: x"} {
		_, err := parsePartitionMetadata("file", []byte(text))
		require.ErrorIs(t, err, ErrCheckpoint, "%q", text)
	}
}

func TestMetaPropertiesOfBothVersions(t *testing.T) {
	kraft := "#\n#Mon Oct 21 10:41:26 UTC 2024\nversion=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qg\nnode.id=1\ndirectory.id=KJd9Yf0fT2C8lqR6nY0B3A\n"
	m, err := parseMeta("file", []byte(kraft))
	require.NoError(t, err)
	require.Equal(t, Meta{Version: 1, BrokerID: 1, ClusterID: "MkU3OEVBNTcwNTJENDM2Qg", DirectoryID: "KJd9Yf0fT2C8lqR6nY0B3A"}, m)

	old := "# c\nbroker.id : 7\ncluster.id=a\\=b\\:c\nunknown=x\n"
	m, err = parseMeta("file", []byte(old))
	require.NoError(t, err)
	require.Equal(t, Meta{BrokerID: 7, ClusterID: "a=b:c"}, m)

	dir := t.TempDir()
	m.DirectoryID = NewDirectoryID()
	require.NoError(t, WriteMeta(OSFS, dir, m))
	read, ok, err := ReadMeta(OSFS, dir)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, m, read)

	for _, text := range []string{"version=2\n", "version=1\nnode.id=1\n", "version=1\ncluster.id=x\n", "broker.id=x\n", "broker.id=1\ndirectory.id=AAAAAAAAAAAAAAAAAAAAAQ\n", "broker.id=1\ndirectory.id=zzz\n"} {
		_, err := parseMeta("file", []byte(text))
		require.ErrorIs(t, err, ErrCheckpoint, "%q", text)
	}
}

func TestCleanMarkerTellsTheBrokerEpoch(t *testing.T) {
	dir := t.TempDir()
	_, ok, err := ReadCleanMarker(OSFS, dir)
	require.NoError(t, err)
	require.False(t, ok)
	require.NoError(t, WriteCleanMarker(OSFS, dir, 25))
	text, err := os.ReadFile(filepath.Join(dir, CleanShutdownFile))
	require.NoError(t, err)
	require.Equal(t, `{"version":0,"brokerEpoch":25}`, string(text))
	epoch, ok, err := ReadCleanMarker(OSFS, dir)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, cluster.BrokerEpoch(25), epoch)
	require.Equal(t, cluster.NoBrokerEpoch, parseCleanMarker(nil), "older brokers left an empty file")
	require.NoError(t, RemoveCleanMarker(OSFS, dir))
	require.NoError(t, RemoveCleanMarker(OSFS, dir))
	_, ok, err = ReadCleanMarker(OSFS, dir)
	require.NoError(t, err)
	require.False(t, ok)
}

func FuzzCheckpoints(f *testing.F) {
	for _, s := range []string{"0\n2\norders 0 1542\norders 1 900\n", "0\n2\n0 0\n3 1542\n", "version: 0\ntopic_id: Rk2dCmcYR0uGg5cJmzsHnQ", "version=1\ncluster.id=x\nnode.id=1\n", `{"version":0,"brokerEpoch":25}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		check := func(err error) bool {
			if err != nil && !errors.Is(err, ErrCheckpoint) {
				t.Fatalf("unexpected error %v", err)
			}
			return err == nil
		}
		if offsets, err := parseOffsetCheckpoint("f", data); check(err) {
			again, err := parseOffsetCheckpoint("f", formatOffsetCheckpoint(offsets))
			require.NoError(t, err)
			require.Equal(t, offsets, again)
		}
		if entries, err := parseEpochCheckpoint("f", data); check(err) {
			again, err := parseEpochCheckpoint("f", formatEpochCheckpoint(entries))
			require.NoError(t, err)
			require.Equal(t, len(entries), len(again))
		}
		_, err := parsePartitionMetadata("f", data)
		check(err)
		if m, err := parseMeta("f", data); check(err) {
			again, err := parseMeta("f", formatMeta(m))
			if check(err) {
				require.Equal(t, m.BrokerID, again.BrokerID)
			}
		}
		parseCleanMarker(data)
	})
}
