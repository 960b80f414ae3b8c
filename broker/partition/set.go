package partition

import (
	"context"
	"time"

	"github.com/rs/zerolog"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/logstore"
)

// Options are what a Set is made of.
type Options struct {
	BrokerID cluster.BrokerID
	Logs     *logstore.Manager
	// Config gives the current settings.
	Config func() *config.Snapshot
	// TopicConfig gives a topic's resolved settings from a cache: a role change must not wait for ZooKeeper.
	TopicConfig func(topic string) *config.Topic
	Logger      zerolog.Logger
	Alter       AlterPartitionSender
	// Alive reports whether a broker is registered, as far as the metadata says.
	Alive func(cluster.BrokerID) bool
	// Lease reports whether the session with ZooKeeper is proven to live. Nil: always. It gates what the high watermark
	// does not protect: acks 0 and 1, consumers' reads, ListOffsets.
	Lease func() bool
	// SelectReplica chooses where a consumer in rack should read, among members that hold the offset (the leader first). Nil
	// or NoBroker: here. Source: replica.selector.class, KIP-392.
	SelectReplica func(rack string, candidates []cluster.BrokerID) cluster.BrokerID
	// ReadState reads the partition's state znode, to settle an ISR change whose outcome is unknown. May be nil.
	ReadState func(cluster.TopicPartition) (AlterResult, error)
	Now       func() time.Time // default time.Now
}

// Set is this broker's partitions. Kafka's name for it is ReplicaManager.
type Set struct{}

// NewSet returns a Set. SetFetchers must follow before the first LeaderAndISR.
func NewSet(o Options) *Set { panic("todo") }

// SetFetchers tells the Set who replicates.
func (s *Set) SetFetchers(f Fetchers) { panic("todo") }

// LeaderAndISR carries out the controller's decisions. own is this broker's registration.
func (s *Set) LeaderAndISR(req *leaderAndISRRequest, own cluster.BrokerEpoch) *leaderAndISRResponse {
	panic("todo")
}

// StopReplica stops, and deletes where asked to.
func (s *Set) StopReplica(req *stopReplicaRequest, own cluster.BrokerEpoch) *stopReplicaResponse {
	panic("todo")
}

// AcceptController checks the epochs of a request from the controller (UpdateMetadata too) and remembers the newest
// controller epoch: STALE_BROKER_EPOCH, STALE_CONTROLLER_EPOCH or nil.
func (s *Set) AcceptController(brokerEpoch, own cluster.BrokerEpoch, controllerEpoch cluster.ControllerEpoch) error {
	panic("todo")
}

// StopLeadingEverything ends every leadership on this broker, because its session is gone.
func (s *Set) StopLeadingEverything(reason string) { panic("todo") }

// Get returns a hosted partition: UNKNOWN_TOPIC_OR_PARTITION, KAFKA_STORAGE_ERROR.
func (s *Set) Get(topic string, partition int32) (*Partition, error) { panic("todo") }

// All returns every hosted partition, in no order.
func (s *Set) All() []*Partition { panic("todo") }

// OnLeadershipChange registers what coordinators do after each change of leadership.
func (s *Set) OnLeadershipChange(fn func(became, resigned []*Partition)) { panic("todo") }

// TopicConfigChanged makes a topic's partitions take its new settings.
func (s *Set) TopicConfigChanged(topic string) { panic("todo") }

// DirFailed takes the partitions of a failed log directory offline.
func (s *Set) DirFailed(dir string) { panic("todo") }

// Run does the periodic work (ISR checks) until ctx ends.
func (s *Set) Run(ctx context.Context) { panic("todo") }
