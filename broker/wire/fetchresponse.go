package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"

	"ottla/internal/cluster"
)

// Fetch response v0–17 by hand, because its record bytes should not pass through memory of ours, and because kmsg allocates six
// times per partition from version 12 on.
//
// The layout (v12+ compact, with tagged fields):
//
//	throttle(4, v1+) error(2, v7+) session(4, v7+)
//	[topics: name(v0–12) or id(16, v13+)
//	  [partitions: index(4) error(2) high watermark(8) last stable offset(8, v4+) log start(8, v5+)
//	    [aborted: producer id(8) first offset(8)](v4+, nullable) preferred replica(4, v11+) records(nullable bytes)
//	    tags: 0 diverging epoch(4) end offset(8); 1 leader(4) epoch(4)]]
//	tags: 0 [node endpoints: id(4) host port(4) rack](v16+)
//
// Records are never null: librdkafka rejects that.

// fileSendBytes is the size from which a partition's records go from file to socket without passing through user space. Shorter ones
// are read behind the bytes before them, so that all leaves with one write. Measured on loopback: sendfile wins from 16–64 KiB on.
const fileSendBytes = 32 << 10

// An answer that already holds crowdedBytes in memory leaves records from crowdedSendBytes on in their files: a fetch of thousands of
// partitions must not copy all of them.
const (
	crowdedBytes     = 256 << 10
	crowdedSendBytes = 4 << 10
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

	version    int16
	partitions []FetchPartition
	nodes      []node
	pieces     []piece
}

// piece is a file range that goes out once the bytes before at have.
type piece struct {
	at   int
	file FileRange
}

// node is a leader's endpoint.
type node struct {
	id   int32
	host string
	port int32
	rack string
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

var fetchResponses = sync.Pool{New: func() any { return new(FetchResponse) }}

// NewFetchResponse returns an empty response of the given version.
func NewFetchResponse(version int16) *FetchResponse {
	f := fetchResponses.Get().(*FetchResponse)
	f.version = version
	return f
}

// fetchKept bounds the partitions for which a pooled response keeps room.
const fetchKept = 1024

// recycle releases the records and ends the response's life.
func (f *FetchResponse) recycle() {
	f.releaseRecords()
	if cap(f.partitions) > fetchKept {
		return
	}
	clear(f.partitions)
	clear(f.nodes)
	clear(f.pieces)
	*f = FetchResponse{partitions: f.partitions[:0], nodes: f.nodes[:0], pieces: f.pieces[:0]}
	fetchResponses.Put(f)
}

func (f *FetchResponse) releaseRecords() {
	for i := range f.partitions {
		if r := f.partitions[i].Records; r != nil {
			r.Release()
			f.partitions[i].Records = nil
		}
	}
}

// Add appends a partition. Neighbours of the same topic share its entry. Topic names may point into the request's frame.
func (f *FetchResponse) Add(p FetchPartition) { f.partitions = append(f.partitions, p) }

// EachError tells the error code of the answer, and that of each partition that has one.
func (f *FetchResponse) EachError(tell func(code int16)) {
	tell(f.ErrorCode)
	for i := range f.partitions {
		if code := f.partitions[i].ErrorCode; code != 0 {
			tell(code)
		}
	}
}

// Len is the number of partitions added.
func (f *FetchResponse) Len() int { return len(f.partitions) }

// AddNode tells a leader's endpoint (v16+), once per node. An empty rack is null. Source: KIP-951.
func (f *FetchResponse) AddNode(id int32, host string, port int32, rack string) {
	f.nodes = addNode(f.nodes, node{id, host, port, rack})
}

func addNode(nodes []node, n node) []node {
	for _, old := range nodes {
		if old.id == n.id {
			return nodes
		}
	}
	return append(nodes, n)
}

// RecordBytes is the sum of the record bytes that were added.
func (f *FetchResponse) RecordBytes() int64 {
	var sum int64
	for i := range f.partitions {
		sum += recordBytes(&f.partitions[i])
	}
	return sum
}

func recordBytes(p *FetchPartition) int64 {
	if p.Records == nil {
		return 0
	}
	_, length := p.Records.Range()
	return length
}

// AppendTo appends the body with the record bytes copied in, and releases them. Request.RespondWith avoids that copy.
// A file that cannot be read leaves the body short.
func (f *FetchResponse) AppendTo(dst []byte) []byte {
	dst, _, _ = f.appendBody(dst, 1<<62)
	f.releaseRecords()
	return dst
}

// encode appends all but the large file ranges, which it notes in pieces. An error means that records could not be read.
func (f *FetchResponse) encode(dst []byte) (_ []byte, fileBytes int64, err error) {
	return f.appendBody(dst, fileSendBytes)
}

func (f *FetchResponse) appendBody(dst []byte, sendFrom int64) (_ []byte, fileBytes int64, err error) {
	flexible := f.version >= 12
	if f.version >= 1 {
		dst = binary.BigEndian.AppendUint32(dst, uint32(f.ThrottleMillis))
	}
	if f.version >= 7 {
		dst = binary.BigEndian.AppendUint16(dst, uint16(f.ErrorCode))
		dst = binary.BigEndian.AppendUint32(dst, uint32(f.SessionID))
	}
	dst = appendArrayLen(dst, f.topics(), flexible)
	for i := 0; i < len(f.partitions); {
		end := f.topicEnd(i)
		if f.version >= 13 {
			dst = append(dst, f.partitions[i].TopicID[:]...)
		} else {
			dst = appendString(dst, f.partitions[i].Topic, flexible)
		}
		dst = appendArrayLen(dst, end-i, flexible)
		for ; i < end; i++ {
			var sent int64
			if dst, sent, err = f.appendPartition(dst, &f.partitions[i], sendFrom); err != nil {
				return dst, fileBytes, err
			}
			fileBytes += sent
		}
		if flexible {
			dst = append(dst, 0)
		}
	}
	if flexible {
		dst = appendNodes(dst, f.nodes, f.version >= 16)
	}
	return dst, fileBytes, nil
}

func (f *FetchResponse) topics() (n int) {
	for i := 0; i < len(f.partitions); i = f.topicEnd(i) {
		n++
	}
	return n
}

// topicEnd is the end of the run of partitions that share the topic of i.
func (f *FetchResponse) topicEnd(i int) int {
	first := &f.partitions[i]
	for i++; i < len(f.partitions); i++ {
		p := &f.partitions[i]
		if f.version >= 13 && p.TopicID != first.TopicID || f.version < 13 && p.Topic != first.Topic {
			break
		}
	}
	return i
}

func (f *FetchResponse) appendPartition(dst []byte, p *FetchPartition, sendFrom int64) (_ []byte, fileBytes int64, err error) {
	flexible := f.version >= 12
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.Partition))
	dst = binary.BigEndian.AppendUint16(dst, uint16(p.ErrorCode))
	dst = binary.BigEndian.AppendUint64(dst, uint64(p.HighWatermark))
	if f.version >= 4 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(p.LastStableOffset))
	}
	if f.version >= 5 {
		dst = binary.BigEndian.AppendUint64(dst, uint64(p.LogStartOffset))
	}
	if f.version >= 4 {
		dst = appendAborted(dst, p.Aborted, flexible)
	}
	if f.version >= 11 {
		dst = binary.BigEndian.AppendUint32(dst, uint32(p.PreferredReadReplica))
	}
	length := recordBytes(p)
	if flexible {
		dst = appendUvarint(dst, uint32(length)+1)
	} else {
		dst = binary.BigEndian.AppendUint32(dst, uint32(length))
	}
	if len(dst) > crowdedBytes && sendFrom == fileSendBytes {
		sendFrom = crowdedSendBytes
	}
	switch {
	case length == 0:
	case length >= sendFrom && p.Records.File() != nil:
		f.pieces = append(f.pieces, piece{at: len(dst), file: p.Records})
		fileBytes = length
	default:
		if dst, err = appendRange(dst, p.Records, int(length)); err != nil {
			return dst, 0, fmt.Errorf("read records of %s-%d: %w", p.Topic, p.Partition, err)
		}
	}
	if flexible {
		dst = f.appendPartitionTags(dst, p)
	}
	return dst, fileBytes, nil
}

// appendRange reads a file range behind dst.
func appendRange(dst []byte, r FileRange, length int) ([]byte, error) {
	at := len(dst)
	if cap(dst)-at < length {
		dst = slices.Grow(dst, length+answerSlack)
	}
	dst = dst[:at+length]
	n, err := r.ReadAt(dst[at:], 0)
	if n == length {
		return dst, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = errShortFile
	}
	return dst[:at], err
}

// answerSlack is room for what follows the records.
const answerSlack = 256

func (f *FetchResponse) appendPartitionTags(dst []byte, p *FetchPartition) []byte {
	count := uint32(0)
	if p.diverging {
		count++
	}
	if p.leader {
		count++
	}
	dst = appendUvarint(dst, count)
	if p.diverging {
		dst = append(dst, 0, 4+8+1)
		dst = binary.BigEndian.AppendUint32(dst, uint32(p.divergingEpoch))
		dst = binary.BigEndian.AppendUint64(dst, uint64(p.divergingEnd))
		dst = append(dst, 0)
	}
	if p.leader {
		dst = appendLeaderTag(dst, 1, p.leaderID, p.leaderEpoch)
	}
	return dst
}

func appendAborted(dst []byte, aborted []AbortedTransaction, flexible bool) []byte {
	if aborted == nil {
		if flexible {
			return append(dst, 0)
		}
		return binary.BigEndian.AppendUint32(dst, 1<<32-1)
	}
	dst = appendArrayLen(dst, len(aborted), flexible)
	for _, a := range aborted {
		dst = binary.BigEndian.AppendUint64(dst, uint64(a.ProducerID))
		dst = binary.BigEndian.AppendUint64(dst, uint64(a.FirstOffset))
		if flexible {
			dst = append(dst, 0)
		}
	}
	return dst
}

// appendLeaderTag appends the tagged field current leader: leader(4) epoch(4) tags.
func appendLeaderTag(dst []byte, tag byte, id, epoch int32) []byte {
	dst = append(dst, tag, 4+4+1)
	dst = binary.BigEndian.AppendUint32(dst, uint32(id))
	dst = binary.BigEndian.AppendUint32(dst, uint32(epoch))
	return append(dst, 0)
}

// appendNodes appends the response's tagged fields: tag 0 is the node endpoints, if there are any and the version has them.
func appendNodes(dst []byte, nodes []node, has bool) []byte {
	if !has || len(nodes) == 0 {
		return append(dst, 0)
	}
	size := uvarintLen(uint32(len(nodes)) + 1)
	for i := range nodes {
		size += nodes[i].size()
	}
	dst = append(dst, 1, 0)
	dst = appendUvarint(dst, uint32(size))
	dst = appendArrayLen(dst, len(nodes), true)
	for i := range nodes {
		n := &nodes[i]
		dst = binary.BigEndian.AppendUint32(dst, uint32(n.id))
		dst = appendString(dst, n.host, true)
		dst = binary.BigEndian.AppendUint32(dst, uint32(n.port))
		if n.rack == "" {
			dst = append(dst, 0)
		} else {
			dst = appendString(dst, n.rack, true)
		}
		dst = append(dst, 0)
	}
	return dst
}

func (n *node) size() int {
	size := 4 + stringLen(n.host) + 4 + 1 + 1
	if n.rack != "" {
		size += stringLen(n.rack) - 1
	}
	return size
}

func stringLen(s string) int { return uvarintLen(uint32(len(s))+1) + len(s) }

func uvarintLen(v uint32) (n int) {
	for n = 1; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

func appendArrayLen(dst []byte, n int, flexible bool) []byte {
	if flexible {
		return appendUvarint(dst, uint32(n)+1)
	}
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

// appendString appends a string that is not null. Strings longer than the protocol can tell are cut.
func appendString(dst []byte, s string, flexible bool) []byte {
	s = s[:min(len(s), 1<<15-1)]
	if flexible {
		dst = appendUvarint(dst, uint32(len(s))+1)
	} else {
		dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	}
	return append(dst, s...)
}

// appendNullableString appends a string, "" as null.
func appendNullableString(dst []byte, s string, flexible bool) []byte {
	switch {
	case s != "":
		return appendString(dst, s, flexible)
	case flexible:
		return append(dst, 0)
	}
	return binary.BigEndian.AppendUint16(dst, 1<<16-1)
}
