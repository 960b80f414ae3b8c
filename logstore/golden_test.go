package logstore

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
)

// testdata/kafka39 holds files of a Kafka 3.9 broker after a clean stop. CODEC.log: 25 lines "n:I,source:console <tab> key-I <tab>
// text" by Kafka's console producer with --compression-codec CODEC (idempotent, as is the default). txn.log: 30 records of
// kafka-producer-perf-test with a transactional id and short transactions, with the snapshot that the broker left.
func golden(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "kafka39", name))
	require.NoError(t, err)
	return data
}

func TestBatchesOfTheJavaClientAreRead(t *testing.T) {
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		name := codec.String()
		if codec == CodecNone {
			name = "none"
		}
		t.Run(name, func(t *testing.T) {
			n := 0
			for data := golden(t, name+".log"); len(data) > 0; {
				b, rest, err := NextBatch(data)
				require.NoError(t, err)
				data = rest
				require.NoError(t, b.VerifyCRC())
				require.Equal(t, codec, b.Codec())
				require.Equal(t, cluster.LeaderEpoch(0), b.LeaderEpoch())
				require.NoError(t, codec.checkHead(b[posRecords:]))
				for _, r := range collect(t, b) {
					require.Equal(t, int64(n), r.Offset)
					require.Equal(t, fmt.Sprintf("key-%02d", n), string(r.Key))
					require.Equal(t, fmt.Sprintf("the quick brown fox jumps over the lazy dog, for the time number %d", n), string(r.Value))
					require.Equal(t, []Header{{"source", []byte("console")}, {"n", fmt.Append(nil, n)}}, r.Headers)
					n++
				}
				b = bytes.Clone(b)
				b.SetBaseOffset(0)
				p := clientParams()
				p.Deep, p.Compacted = true, true
				v, err := Validate(b, p)
				require.NoError(t, err)
				require.False(t, v.Rebuilt)
			}
			require.Equal(t, 25, n)
		})
	}
}

func TestUncompressedBatchOfTheJavaClientIsRebuiltByteForByte(t *testing.T) {
	b, _, err := NextBatch(golden(t, "none.log"))
	require.NoError(t, err)
	bd := NewBuilder(optionsOf(b))
	for r, err := range b.Records() {
		require.NoError(t, err)
		require.NoError(t, bd.Append(r))
	}
	again, err := bd.Finish()
	require.NoError(t, err)
	require.Equal(t, b, again)
}

func TestProducersOfATransactionalLogAreKafkasSnapshot(t *testing.T) {
	s := NewProducerState()
	var u ProducerUpdate
	markers, records := 0, 0
	for data := golden(t, "txn.log"); len(data) > 0; {
		b, rest, err := NextBatch(data)
		require.NoError(t, err)
		require.NoError(t, b.VerifyCRC())
		if m, ok, err := b.EndTxnMarker(); ok {
			require.NoError(t, err)
			require.True(t, m.Commit)
			require.Equal(t, 78, len(b))
			again := NewEndTxnBatch(m)
			again.SetBaseOffset(b.BaseOffset())
			again.SetLeaderEpoch(b.LeaderEpoch())
			require.Equal(t, b, again)
			markers++
		} else {
			records += int(b.Count())
		}
		require.NoError(t, s.Prepare(&u, b, OriginReplication))
		require.Empty(t, s.Commit(&u))
		data = rest
	}
	require.Equal(t, 30, records)
	require.Equal(t, 2, markers)
	require.Equal(t, golden(t, "00000000000000000032.snapshot"), s.Snapshot())
	require.NoError(t, s.LoadSnapshot(s.Snapshot(), 32, time.UnixMilli(0), time.Hour))
}

func TestSmallFilesOfABrokerAreRead(t *testing.T) {
	dir := filepath.Join("testdata", "kafka39")
	m, ok, err := ReadMeta(OSFS, dir)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, Meta{BrokerID: 1, ClusterID: "qzW058O5Ru-tova8GFYdmg"}, m)
	epoch, ok, err := ReadCleanMarker(OSFS, dir)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, cluster.NoBrokerEpoch, epoch)
	id, ok, err := ReadPartitionMetadata(OSFS, dir)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, string(golden(t, PartitionMetadataFile)), "version: 0\ntopic_id: "+id.String())
	c, err := OpenEpochCache(OSFS, dir)
	require.NoError(t, err)
	require.Equal(t, []EpochEntry{{0, 0}}, c.Entries())
	offsets, err := ReadOffsetCheckpoint(OSFS, filepath.Join(dir, RecoveryPointCheckpoint))
	require.NoError(t, err)
	require.Equal(t, int64(32), offsets[cluster.TopicPartition{Topic: "golden-txn"}])
	require.Equal(t, len(golden(t, RecoveryPointCheckpoint)), len(formatOffsetCheckpoint(offsets)))
}
