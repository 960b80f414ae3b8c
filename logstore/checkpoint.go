package logstore

import "ottla/internal/cluster"

// Names of the files of one log directory and of one partition directory.
const (
	RecoveryPointCheckpoint = "recovery-point-offset-checkpoint"
	LogStartCheckpoint      = "log-start-offset-checkpoint"
	HighWatermarkCheckpoint = "replication-offset-checkpoint"
	CleanerCheckpoint       = "cleaner-offset-checkpoint"
	MetaPropertiesFile      = "meta.properties"
	CleanShutdownFile       = ".kafka_cleanshutdown"
	EpochCheckpointFile     = "leader-epoch-checkpoint"
	PartitionMetadataFile   = "partition.metadata"
)

// ReadOffsetCheckpoint reads one of a log directory's four offset checkpoints. A missing or empty file has no entries; a
// malformed one is an error that matches ErrCheckpoint.
func ReadOffsetCheckpoint(fs FS, path string) (map[cluster.TopicPartition]int64, error) {
	panic("todo")
}

// WriteOffsetCheckpoint replaces the file atomically and durably.
func WriteOffsetCheckpoint(fs FS, path string, offsets map[cluster.TopicPartition]int64) error {
	panic("todo")
}

// ReadPartitionMetadata reads the topic id of a partition directory; ok is false when there is no file.
func ReadPartitionMetadata(fs FS, dir string) (id cluster.TopicID, ok bool, err error) { panic("todo") }

// WritePartitionMetadata writes the topic id, durably.
func WritePartitionMetadata(fs FS, dir string, id cluster.TopicID) error { panic("todo") }

// Meta is a log directory's meta.properties.
type Meta struct {
	Version     int // 0: ZooKeeper (broker.id), 1: KRaft (node.id)
	BrokerID    cluster.BrokerID
	ClusterID   string
	DirectoryID string // empty when absent
}

// ReadMeta reads dir's meta.properties; ok is false when there is none.
func ReadMeta(fs FS, dir string) (m Meta, ok bool, err error) { panic("todo") }

// WriteMeta replaces dir's meta.properties, durably.
func WriteMeta(fs FS, dir string, m Meta) error { panic("todo") }

// ReadCleanMarker looks for the mark of a clean stop; brokerEpoch is -1 when unknown.
func ReadCleanMarker(fs FS, dir string) (brokerEpoch cluster.BrokerEpoch, ok bool, err error) {
	panic("todo")
}

// WriteCleanMarker marks a clean stop, durably. It must be the last thing written.
func WriteCleanMarker(fs FS, dir string, brokerEpoch cluster.BrokerEpoch) error { panic("todo") }

// RemoveCleanMarker removes the mark durably. It must be the first thing done.
func RemoveCleanMarker(fs FS, dir string) error { panic("todo") }
