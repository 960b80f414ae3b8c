package wire

import "ottla/internal/cluster"

// ProduceResponse is the answer to Produce v0–11. It must come from NewProduceResponse, goes to Request.RespondWith, and must
// not be used afterwards.
type ProduceResponse struct {
	ThrottleMillis int32 // v1+
	version        int16
}

// ProducePartition is one partition's part of a ProduceResponse.
type ProducePartition struct {
	Topic          string
	Partition      int32
	ErrorCode      int16
	BaseOffset     int64         // -1 on errors
	LogAppendTime  int64         // v2+, ms, -1 with CreateTime
	LogStartOffset int64         // v5+
	RecordErrors   []RecordError // v8+
	ErrorMessage   string        // v8+, "" is null

	leader      bool
	leaderID    int32
	leaderEpoch int32
}

// RecordError names a record that caused its batch to be refused. Source: KIP-467.
type RecordError struct {
	BatchIndex int32
	Message    string // "" is null
}

// SetLeader tells who leads now (v10+), for NOT_LEADER_OR_FOLLOWER. Source: KIP-951.
func (p *ProducePartition) SetLeader(id cluster.BrokerID, epoch cluster.LeaderEpoch) {
	p.leader, p.leaderID, p.leaderEpoch = true, int32(id), int32(epoch)
}

// NewProduceResponse returns an empty response of the given version.
func NewProduceResponse(version int16) *ProduceResponse { panic("todo") }

// Add appends a partition and returns its index. Neighbours of the same topic share its entry. Topic names may point into the
// request's frame.
func (p *ProduceResponse) Add(part ProducePartition) int { panic("todo") }

// Partition returns a partition that was added, to be filled in. The pointer is valid until the next Add.
func (p *ProduceResponse) Partition(i int) *ProducePartition { panic("todo") }

// Len is the number of partitions added.
func (p *ProduceResponse) Len() int { panic("todo") }

// AddNode tells a leader's endpoint (v10+), once per node. Source: KIP-951.
func (p *ProduceResponse) AddNode(id int32, host string, port int32, rack string) { panic("todo") }

// AppendTo appends the body.
func (p *ProduceResponse) AppendTo(dst []byte) []byte { panic("todo") }
