package partition

import (
	"time"

	"ottla/broker/replication"
	"ottla/internal/cluster"
	"ottla/logstore"
)

// AppendRequest is one partition's share of a Produce request, or a coordinator's own write.
type AppendRequest struct {
	// Records are whole batches. They are patched in place (base offset, leader epoch) and must stay untouched until
	// Append has returned; nothing keeps them afterwards.
	Records        []byte
	Acks           int16         // -1, 0 or 1
	Timeout        time.Duration // acks=-1: how long to wait for replication, then REQUEST_TIMED_OUT
	ProduceVersion int16
	Origin         logstore.Origin
	// LeaderEpoch, when not NoLeaderEpoch and not 0, is what the caller believes to be the current leader epoch: a coordinator
	// that loaded its state in one epoch must not write in another. Use Fenced to demand the check for epoch 0 too.
	LeaderEpoch cluster.LeaderEpoch
	Fenced      bool
	Guard       logstore.Guard // of transactional records
	Now         time.Time
}

// AppendResult says what became of an AppendRequest. With a nil Err the offsets are those of the records (of the earlier
// append when the batch was a duplicate).
type AppendResult struct {
	// Err is nil, a *kerr.Error (the protocol's verdict) or a fault of the machine (answered as KAFKA_STORAGE_ERROR).
	// NOT_LEADER_OR_FOLLOWER, REQUEST_TIMED_OUT and NOT_ENOUGH_REPLICAS_AFTER_APPEND leave open whether the records survive.
	Err            error
	BaseOffset     int64 // -1 on errors
	LastOffset     int64
	LogAppendTime  int64 // ms, -1 with CreateTime
	LogStartOffset int64
	Duplicate      bool
	RecordErrors   []logstore.RecordError
	ErrorMessage   string
	// CurrentLeader and CurrentEpoch are hints for NOT_LEADER_OR_FOLLOWER answers (KIP-951).
	CurrentLeader cluster.BrokerID
	CurrentEpoch  cluster.LeaderEpoch
}

// Isolation levels of Fetch and ListOffsets.
const (
	ReadUncommitted int8 = 0
	ReadCommitted   int8 = 1
)

// Pseudo replica ids of Fetch and ListOffsets.
const (
	Consumer  cluster.BrokerID = -1 // an ordinary client
	Debugging cluster.BrokerID = -2 // may read from any replica, without isolation
)

// ReadRequest asks for records of one partition.
type ReadRequest struct {
	Offset             int64
	MaxBytes           int
	MinOneBatch        bool                // the first batch is given even when larger than MaxBytes
	CurrentLeaderEpoch cluster.LeaderEpoch // NoLeaderEpoch: no check
	LastFetchedEpoch   cluster.LeaderEpoch // NoLeaderEpoch: no divergence check
	Isolation          int8
	Replica            cluster.BrokerID    // Consumer, or a follower's id
	ReplicaEpoch       cluster.BrokerEpoch // the follower's registration (Fetch 15), else NoBrokerEpoch
	ReplicaLogStart    int64               // the follower's log start offset, -1 from consumers
	// Session, when set, is the follower's fetch session: touching it on every fetch counts as a fetch of each partition
	// in it, so that unchanged partitions need not be walked.
	Session *replication.Session
	// Parked says that this is the second try of a fetch that waited: the follower's position is already recorded.
	Parked bool
	// LeaderOnly refuses to serve consumers from a follower (Fetch below version 11).
	LeaderOnly bool
	ClientRack string
	ClientID   string
	Now        time.Time
}

// EpochEnd is a leader epoch with its exclusive end offset.
type EpochEnd = replication.EpochEnd

// ReadResult is the answer to a ReadRequest. The caller must Release the Slice once it has sent it.
type ReadResult struct {
	Slice            logstore.Slice // Empty when there is nothing to read
	HighWatermark    int64
	LastStableOffset int64
	LogStartOffset   int64
	LogEndOffset     int64
	Diverging        *EpochEnd // the follower must truncate; no data then
	// PreferredReplica is the replica that the consumer should read from instead, or NoBroker. No data then (KIP-392).
	PreferredReplica cluster.BrokerID
	Aborted          []logstore.AbortedTxn // read_committed only; nil for read_uncommitted
	CurrentLeader    cluster.BrokerID      // hints for NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH (KIP-951)
	CurrentEpoch     cluster.LeaderEpoch
}

// Waiter is woken when something that it may wait for has moved. Wake runs on the goroutine that moved it, without any
// lock of the partition held; it must not block and may be called more often than needed and after RemoveWaiter.
//
// To lose no wake-up: AddWaiter first, then Read (again), then wait.
type Waiter interface{ Wake(p *Partition) }

// WakeOn says what a Waiter wants to hear of. Changes of role and epoch are told to all.
type WakeOn uint8

// The movements that wake a Waiter.
const (
	WakeOnLogEnd        WakeOn = 1 << iota // followers' fetches
	WakeOnHighWatermark                    // consumers' fetches: high watermark or last stable offset
)

// OffsetResult is the answer to ListOffset. Offset and Timestamp are -1 where nothing was found.
type OffsetResult struct {
	Offset    int64
	Timestamp int64
	Epoch     cluster.LeaderEpoch
}

// Status is a picture of one partition, for metrics, describe commands and coordinators.
type Status struct {
	TopicPartition   cluster.TopicPartition
	TopicID          cluster.TopicID
	Role             replication.Role
	Leader           cluster.BrokerID
	LeaderEpoch      cluster.LeaderEpoch
	PartitionEpoch   cluster.PartitionEpoch
	Replicas         []cluster.BrokerID
	ISR              []cluster.BrokerID
	PendingISR       []cluster.BrokerID // nil when no change is pending
	MinISR           int                // effective
	LogStartOffset   int64
	HighWatermark    int64
	LastStableOffset int64
	LogEndOffset     int64
	Size             int64
	Offline          bool
	Dir              string
	Followers        []replication.FollowerStatus // leader only
}

// AlterProposal is one ISR change that a leader asks the controller for.
type AlterProposal struct {
	TopicPartition cluster.TopicPartition
	TopicID        cluster.TopicID
	replication.Proposal
}

// AlterResult is the controller's answer to an AlterProposal.
type AlterResult struct {
	// Err is nil, the partition's *kerr.Error, or a fault (unknown outcome). Senders retry by themselves what may be retried.
	Err            error
	Leader         cluster.BrokerID
	LeaderEpoch    cluster.LeaderEpoch
	ISR            []cluster.BrokerID
	PartitionEpoch cluster.PartitionEpoch
	// Controller is the epoch of the controller that answered, as far as the sender knows.
	Controller cluster.ControllerEpoch
	// Retried: an earlier sending of the proposal had an unknown outcome, so this controller may still carry it out.
	Retried bool
}

// AlterPartitionSender carries ISR changes to the controller. done is called once, from any goroutine, never from inside
// Propose. At most one proposal per partition is outstanding.
type AlterPartitionSender interface {
	Propose(p AlterProposal, done func(AlterResult))
}

// Fetchers replicate partitions from their leaders. The calls return at once; what a fetcher still has in flight for a
// partition is refused by the partition itself, because its epoch has passed.
type Fetchers interface {
	// Follow starts or moves the replication of p from leader, in the given epoch.
	Follow(p *Partition, leader cluster.BrokerID, epoch cluster.LeaderEpoch)
	Unfollow(p *Partition)
}
