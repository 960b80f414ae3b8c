package wire

import (
	"encoding/binary"
	"sync"

	"ottla/internal/cluster"
)

// Produce response v0–11 by hand, because kmsg allocates per partition from version 10 on.
//
// The layout (v9+ compact, with tagged fields):
//
//	[topics: name
//	  [partitions: index(4) error(2) base offset(8) log append time(8, v2+) log start(8, v5+)
//	    [record errors: batch index(4) message(nullable)](v8+) error message(nullable, v8+)
//	    tags: 0 leader(4) epoch(4) (v10+)]]
//	throttle(4, v1+)
//	tags: 0 [node endpoints] (v10+)

// ProduceResponse is the answer to Produce v0–11. It must come from NewProduceResponse, goes to Request.RespondWith, and must
// not be used afterwards.
type ProduceResponse struct {
	ThrottleMillis int32 // v1+

	version    int16
	partitions []ProducePartition
	nodes      []node
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

var produceResponses = sync.Pool{New: func() any { return new(ProduceResponse) }}

// NewProduceResponse returns an empty response of the given version.
func NewProduceResponse(version int16) *ProduceResponse {
	p := produceResponses.Get().(*ProduceResponse)
	p.version = version
	return p
}

// produceKept bounds the partitions for which a pooled response keeps room.
const produceKept = 1024

func (p *ProduceResponse) recycle() {
	if cap(p.partitions) > produceKept {
		return
	}
	clear(p.partitions)
	clear(p.nodes)
	*p = ProduceResponse{partitions: p.partitions[:0], nodes: p.nodes[:0]}
	produceResponses.Put(p)
}

// Add appends a partition and returns its index. Neighbours of the same topic share its entry. Topic names may point into the
// request's frame.
func (p *ProduceResponse) Add(part ProducePartition) int {
	p.partitions = append(p.partitions, part)
	return len(p.partitions) - 1
}

// Partition returns a partition that was added, to be filled in. The pointer is valid until the next Add.
func (p *ProduceResponse) Partition(i int) *ProducePartition { return &p.partitions[i] }

// Len is the number of partitions added.
func (p *ProduceResponse) Len() int { return len(p.partitions) }

// EachError tells the error code of each partition.
func (p *ProduceResponse) EachError(tell func(code int16)) {
	for i := range p.partitions {
		tell(p.partitions[i].ErrorCode)
	}
}

// AddNode tells a leader's endpoint (v10+), once per node. An empty rack is null. Source: KIP-951.
func (p *ProduceResponse) AddNode(id int32, host string, port int32, rack string) {
	p.nodes = addNode(p.nodes, node{id, host, port, rack})
}

// AppendTo appends the body.
func (p *ProduceResponse) AppendTo(dst []byte) []byte {
	flexible := p.version >= 9
	dst = appendArrayLen(dst, p.topics(), flexible)
	for i := 0; i < len(p.partitions); {
		end := p.topicEnd(i)
		dst = appendString(dst, p.partitions[i].Topic, flexible)
		dst = appendArrayLen(dst, end-i, flexible)
		for ; i < end; i++ {
			dst = p.appendPartition(dst, &p.partitions[i])
		}
		if flexible {
			dst = append(dst, 0)
		}
	}
	if p.version >= 1 {
		dst = binary.BigEndian.AppendUint32(dst, uint32(p.ThrottleMillis))
	}
	if flexible {
		dst = appendNodes(dst, p.nodes, p.version >= 10)
	}
	return dst
}

func (p *ProduceResponse) topics() (n int) {
	for i := 0; i < len(p.partitions); i = p.topicEnd(i) {
		n++
	}
	return n
}

// topicEnd is the end of the run of partitions that share the topic of i.
func (p *ProduceResponse) topicEnd(i int) int {
	topic := p.partitions[i].Topic
	for i++; i < len(p.partitions) && p.partitions[i].Topic == topic; i++ {
	}
	return i
}

func (p *ProduceResponse) appendPartition(dst []byte, part *ProducePartition) []byte {
	flexible := p.version >= 9
	dst = binary.BigEndian.AppendUint32(dst, uint32(part.Partition))
	dst = binary.BigEndian.AppendUint16(dst, uint16(part.ErrorCode))
	dst = binary.BigEndian.AppendUint64(dst, uint64(part.BaseOffset))
	if p.version >= 2 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(part.LogAppendTime))
	}
	if p.version >= 5 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(part.LogStartOffset))
	}
	if p.version >= 8 {
		dst = appendArrayLen(dst, len(part.RecordErrors), flexible)
		for _, e := range part.RecordErrors {
			dst = binary.BigEndian.AppendUint32(dst, uint32(e.BatchIndex))
			dst = appendNullableString(dst, e.Message, flexible)
			if flexible {
				dst = append(dst, 0)
			}
		}
		dst = appendNullableString(dst, part.ErrorMessage, flexible)
	}
	switch {
	case !flexible:
	case part.leader && p.version >= 10:
		dst = append(dst, 1)
		dst = appendLeaderTag(dst, 0, part.leaderID, part.leaderEpoch)
	default:
		dst = append(dst, 0)
	}
	return dst
}
