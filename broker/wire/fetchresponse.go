package wire

import (
	"os"

	"ottla/internal/cluster"
)

// FileRange is a byte range of a file: whole record batches of one segment. *logstore.Slice is one.
type FileRange interface {
	// Range is where the bytes are in File.
	Range() (pos, length int64)
	// ReadAt reads at off from the start of the range.
	ReadAt(p []byte, off int64) (int, error)
	// File is the descriptor for sendfile, nil where there is none. It is valid until Release.
	File() *os.File
	Release()
}

// FetchResponse is the answer to Fetch v0–17 with record bytes as file ranges. It must come from NewFetchResponse, goes to
// Request.RespondWith, and must not be used afterwards.
type FetchResponse struct {
	ErrorCode      int16 // v7+
	SessionID      int32 // v7+
	ThrottleMillis int32 // v1+
	version        int16
}

// FetchPartition is one partition's part of a FetchResponse. Records are released after they have been sent.
type FetchPartition struct {
	Topic                string          // v0–12
	TopicID              cluster.TopicID // v13+
	Partition            int32
	ErrorCode            int16
	HighWatermark        int64
	LastStableOffset     int64                // v4+
	LogStartOffset       int64                // v5+
	Aborted              []AbortedTransaction // v4+; nil is null
	PreferredReadReplica int32                // v11+, -1 for none
	Records              FileRange            // nil: empty

	diverging, leader bool
	divergingEpoch    int32
	divergingEnd      int64
	leaderID          int32
	leaderEpoch       int32
}

// AbortedTransaction tells a read_committed consumer where an aborted transaction began.
type AbortedTransaction struct{ ProducerID, FirstOffset int64 }

// SetDiverging tells a follower where its log leaves the leader's (v12+). Source: KIP-595.
func (p *FetchPartition) SetDiverging(epoch cluster.LeaderEpoch, endOffset int64) {
	p.diverging, p.divergingEpoch, p.divergingEnd = true, int32(epoch), endOffset
}

// SetLeader tells who leads now (v12+), for NOT_LEADER_OR_FOLLOWER and FENCED_LEADER_EPOCH. Source: KIP-951.
func (p *FetchPartition) SetLeader(id cluster.BrokerID, epoch cluster.LeaderEpoch) {
	p.leader, p.leaderID, p.leaderEpoch = true, int32(id), int32(epoch)
}

// NewFetchResponse returns an empty response of the given version.
func NewFetchResponse(version int16) *FetchResponse { panic("todo") }

// Add appends a partition. Neighbours of the same topic share its entry.
func (f *FetchResponse) Add(p FetchPartition) { panic("todo") }

// AddNode tells a leader's endpoint (v16+), once per node. Source: KIP-951.
func (f *FetchResponse) AddNode(id int32, host string, port int32, rack string) { panic("todo") }

// RecordBytes is the sum of the record bytes that were added.
func (f *FetchResponse) RecordBytes() int64 { panic("todo") }

// AppendTo appends the body with the record bytes copied in. Request.RespondWith avoids that copy.
func (f *FetchResponse) AppendTo(dst []byte) []byte { panic("todo") }
