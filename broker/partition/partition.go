package partition

import (
	"time"

	"ottla/internal/cluster"
)

// Partition is one replica on this broker. The zero value is not usable; see Set.
type Partition struct{}

// TopicPartition returns the partition's name.
func (p *Partition) TopicPartition() cluster.TopicPartition { panic("todo") }

// Append appends as leader; done is called exactly once, inline or later.
func (p *Partition) Append(a AppendRequest, done func(AppendResult)) { panic("todo") }

// Read reads for a consumer or a follower.
func (p *Partition) Read(r ReadRequest) (ReadResult, error) { panic("todo") }

// AddWaiter registers w until RemoveWaiter.
func (p *Partition) AddWaiter(w Waiter, on WakeOn) { panic("todo") }

// RemoveWaiter ends AddWaiter.
func (p *Partition) RemoveWaiter(w Waiter) { panic("todo") }

// ListOffset answers ListOffsets.
func (p *Partition) ListOffset(ts int64, isolation int8, currentEpoch cluster.LeaderEpoch, replica cluster.BrokerID) (OffsetResult, error) {
	panic("todo")
}

// OffsetForLeaderEpoch answers OffsetForLeaderEpoch.
func (p *Partition) OffsetForLeaderEpoch(currentEpoch, epoch cluster.LeaderEpoch, replica cluster.BrokerID) (EpochEnd, error) {
	panic("todo")
}

// DeleteRecords raises the log start offset; -1 means the high watermark.
func (p *Partition) DeleteRecords(offset int64, timeout time.Duration, done func(low int64, err error)) {
	panic("todo")
}

// Snapshot describes the partition.
func (p *Partition) Snapshot() Status { panic("todo") }
