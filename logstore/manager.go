package logstore

import (
	"time"

	"github.com/rs/zerolog"

	"ottla/internal/cluster"
)

// ManagerOptions says where the logs are and who we are.
type ManagerOptions struct {
	Dirs            []string // log.dirs
	FS              FS       // nil: the operating system's
	BrokerID        cluster.BrokerID
	ClusterID       string // empty: take what the directories say
	Defaults        func(topic string) *Config
	RecoveryThreads int // num.recovery.threads.per.data.dir, at least 1
	Logger          zerolog.Logger
	OnDirFailure    func(dir string, err error) // called once for a directory, without locks
	Now             func() time.Time            // nil: time.Now
}

// DirInfo describes one log directory.
type DirInfo struct {
	Path       string
	ID         string // directory.id of meta.properties
	Partitions int
	Size       int64
	Err        error // set: the directory is offline
}

// Manager owns the log directories and the logs in them. It guards itself.
type Manager struct{}

// OpenManager locks the directories, removes the clean markers, and loads every log.
func OpenManager(o ManagerOptions) (*Manager, error) { panic("todo") }

// Get returns the log of a partition.
func (m *Manager) Get(tp cluster.TopicPartition) (*Log, bool) { panic("todo") }

// GetOrCreate returns the log of a partition, and creates it when there is none.
func (m *Manager) GetOrCreate(tp cluster.TopicPartition, id cluster.TopicID, isNew bool) (*Log, error) {
	panic("todo")
}

// Delete removes a partition's log: renamed at once, removed by DeletePass.
func (m *Manager) Delete(tp cluster.TopicPartition) error { panic("todo") }

// Logs lists all logs.
func (m *Manager) Logs() []*Log { panic("todo") }

// Dirs describes the log directories.
func (m *Manager) Dirs() []DirInfo { panic("todo") }

// WasClean reports whether every directory had been stopped cleanly.
func (m *Manager) WasClean() bool { panic("todo") }

// CleanBrokerEpoch is the broker epoch in the clean markers, -1 when unknown or unclean.
func (m *Manager) CleanBrokerEpoch() cluster.BrokerEpoch { panic("todo") }

// SetBrokerEpoch says which epoch a clean stop shall leave in the markers.
func (m *Manager) SetBrokerEpoch(e cluster.BrokerEpoch) { panic("todo") }

// CheckpointedHighWatermark is what the checkpoint said at start, 0 when it said nothing.
func (m *Manager) CheckpointedHighWatermark(tp cluster.TopicPartition) int64 { panic("todo") }

// RetentionPass applies retention to all logs that are not compacted; it returns the removed segments.
func (m *Manager) RetentionPass(now time.Time) int { panic("todo") }

// CheckpointRecoveryPoints writes recovery-point-offset-checkpoint where something changed.
func (m *Manager) CheckpointRecoveryPoints() error { panic("todo") }

// CheckpointLogStarts writes log-start-offset-checkpoint where something changed.
func (m *Manager) CheckpointLogStarts() error { panic("todo") }

// CheckpointHighWatermarks writes replication-offset-checkpoint where something changed.
func (m *Manager) CheckpointHighWatermarks() error { panic("todo") }

// DeletePass removes files and directories whose delay is over.
func (m *Manager) DeletePass(now time.Time) { panic("todo") }

// FlushPass flushes logs whose unflushed data is older than flush.ms.
func (m *Manager) FlushPass(now time.Time) error { panic("todo") }

// ExpireProducers forgets producers that were idle for producer.id.expiration.ms.
func (m *Manager) ExpireProducers(now time.Time) { panic("todo") }

// CloseIdleFiles closes the descriptors that were not used since the last call.
func (m *Manager) CloseIdleFiles() { panic("todo") }

// Close stops everything. clean: flush, snapshots, checkpoints, and the marker in every directory where all went well.
func (m *Manager) Close(clean bool) error { panic("todo") }
