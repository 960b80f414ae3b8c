package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"ottla/internal/cluster"
)

// The header of a magic-2 record batch. All integers are big-endian. The CRC covers everything from the attributes to the
// end, so base offset, length, leader epoch and magic can be patched in place without touching it.
//
//	 0  int64   base offset            27  int64  base timestamp, or the delete horizon (attribute bit 6)
//	 8  int32   length of what follows 35  int64  max timestamp, or the append time (attribute bit 3)
//	12  int32   partition leader epoch 43  int64  producer id, -1 none
//	16  int8    magic                  51  int16  producer epoch, -1 none
//	17  uint32  CRC-32C                53  int32  base sequence, -1 none
//	21  int16   attributes             57  int32  number of records
//	23  int32   last offset delta      61         records, one compressed block if there is a codec
//
// Source: KIP-98, KIP-101, KIP-534 (delete horizon).
const (
	posBaseOffset      = 0
	posLength          = 8
	posLeaderEpoch     = 12
	posMagic           = 16
	posCRC             = 17
	posAttributes      = 21
	posLastOffsetDelta = 23
	posBaseTimestamp   = 27
	posMaxTimestamp    = 35
	posProducerID      = 43
	posProducerEpoch   = 51
	posBaseSequence    = 53
	posCount           = 57
	posRecords         = 61
)

const (
	// BatchOverhead is the size of a magic-2 batch without records.
	BatchOverhead = posRecords
	// LogOverhead is what precedes the bytes that a batch's length field counts.
	LogOverhead = 12
	// legacyOverheadV0 and legacyOverheadV1 are the smallest whole messages of the old formats.
	legacyOverheadV0 = LogOverhead + 14
	legacyOverheadV1 = LogOverhead + 22
)

// Attribute bits of a batch. The upper byte is unused: Kafka reads only the low one.
const (
	attrCodecMask     = 0x07
	attrLogAppendTime = 1 << 3
	attrTransactional = 1 << 4
	attrControl       = 1 << 5
	attrDeleteHorizon = 1 << 6
)

const (
	// NoProducerID marks a batch without producer id.
	NoProducerID int64 = -1
	// NoSequence marks a batch without sequence number.
	NoSequence int32 = -1
	// NoTimestamp marks a record without timestamp.
	NoTimestamp int64 = -1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// TimestampType says where a batch's timestamps come from: message.timestamp.type.
type TimestampType int8

// The two timestamp types.
const (
	CreateTime    TimestampType = 0
	LogAppendTime TimestampType = 1
)

func (t TimestampType) String() string {
	if t == LogAppendTime {
		return "LogAppendTime"
	}
	return "CreateTime"
}

// ErrCorrupt marks bytes that can be no batch. Every *CorruptError is one.
var ErrCorrupt = errors.New("corrupt batch")

// CorruptError says what is wrong with a batch. It matches ErrCorrupt.
type CorruptError struct {
	What  string // what was looked at: "magic", "size", "crc", "records", …
	Found int64
	Want  int64 // what was expected, or the bound that was broken
	Cause error // the decoder's error, may be nil
}

func (e *CorruptError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("corrupt batch: %s: %v", e.What, e.Cause)
	}
	return fmt.Sprintf("corrupt batch: %s is %d, want %d", e.What, e.Found, e.Want)
}

// Is makes every corruption match ErrCorrupt.
func (e *CorruptError) Is(target error) bool { return target == ErrCorrupt }

func (e *CorruptError) Unwrap() error { return e.Cause }

func corrupt(what string, found, want int64) error {
	return &CorruptError{What: what, Found: found, Want: want}
}

// Batch is one whole record batch of magic 2, or one message of magic 0 or 1 (plain, or a wrapper around compressed ones).
// It aliases the buffer it was cut from. The accessors of the header need only the first BatchOverhead bytes, so a Batch may
// also be such a prefix (BatchSize tells the whole size); VerifyCRC and Records need all of it.
//
// Only a slice that NextBatch returned, or a prefix whose size BatchSize approved, may be asked: the accessors do not check.
type Batch []byte

// BatchSize returns the whole size in bytes of the batch that starts at head, which needs LogOverhead+5 bytes (to the magic).
// io.ErrUnexpectedEOF: head is too short to tell. ErrCorrupt: no batch can start so.
func BatchSize(head []byte) (int, error) {
	if len(head) < LogOverhead {
		return 0, io.ErrUnexpectedEOF
	}
	length := int32(binary.BigEndian.Uint32(head[posLength:]))
	if length < legacyOverheadV0-LogOverhead {
		return 0, corrupt("size", int64(length), legacyOverheadV0-LogOverhead)
	}
	if len(head) <= posMagic {
		return 0, io.ErrUnexpectedEOF
	}
	size := int(length) + LogOverhead
	least, ok := leastBatchSize(head[posMagic])
	if !ok {
		return 0, corrupt("magic", int64(int8(head[posMagic])), 2)
	}
	if size < least {
		return 0, corrupt("size", int64(size), int64(least))
	}
	return size, nil
}

func leastBatchSize(magic byte) (int, bool) {
	switch magic {
	case 0:
		return legacyOverheadV0, true
	case 1:
		return legacyOverheadV1, true
	case 2:
		return BatchOverhead, true
	}
	return 0, false
}

// NextBatch cuts the first batch from buf. io.EOF: buf is empty. io.ErrUnexpectedEOF: the batch is not there completely (a
// fetch or a torn write cut it). ErrCorrupt: no batch can start so. The CRC is not checked.
func NextBatch(buf []byte) (b Batch, rest []byte, err error) {
	if len(buf) == 0 {
		return nil, nil, io.EOF
	}
	size, err := BatchSize(buf)
	if err != nil {
		return nil, buf, err
	}
	if size > len(buf) {
		return nil, buf, io.ErrUnexpectedEOF
	}
	return Batch(buf[:size:size]), buf[size:], nil
}

// Size returns the size of the whole batch, as its length field says.
func (b Batch) Size() int { return int(b.i32(posLength)) + LogOverhead }

// Length returns the batch's length field: its size without the first LogOverhead bytes.
func (b Batch) Length() int32 { return b.i32(posLength) }

// Magic returns the format's version: 0, 1 or 2.
func (b Batch) Magic() int8 { return int8(b[posMagic]) }

// BaseOffset returns the first offset that the batch covers. For magic 0 and 1 it is the offset of the message, that is of
// the last inner one of a compressed set (the first is only known after decompression: FirstOffset).
func (b Batch) BaseOffset() int64 { return b.i64(posBaseOffset) }

// LastOffset returns the last offset that the batch covers (inclusive).
func (b Batch) LastOffset() int64 {
	if b.Magic() < 2 {
		return b.BaseOffset()
	}
	return b.BaseOffset() + int64(b.LastOffsetDelta())
}

// NextOffset returns the offset after the batch.
func (b Batch) NextOffset() int64 { return b.LastOffset() + 1 }

// LeaderEpoch returns the epoch of the leader that appended the batch, -1 if unknown and for magic 0 and 1.
func (b Batch) LeaderEpoch() cluster.LeaderEpoch {
	if b.Magic() < 2 {
		return cluster.NoLeaderEpoch
	}
	return cluster.LeaderEpoch(b.i32(posLeaderEpoch))
}

// CRC returns the checksum that the batch carries.
func (b Batch) CRC() uint32 {
	if b.Magic() < 2 {
		return binary.BigEndian.Uint32(b[legacyPosCRC:])
	}
	return binary.BigEndian.Uint32(b[posCRC:])
}

// Attributes returns the batch's attribute bits.
func (b Batch) Attributes() int16 {
	if b.Magic() < 2 {
		return int16(b[legacyPosAttributes])
	}
	return b.i16(posAttributes)
}

// Codec returns the batch's compression. It can be out of the known range: foreign bytes are checked with Codec.Valid.
func (b Batch) Codec() Codec { return Codec(b.Attributes() & attrCodecMask) }

// TimestampType says whether the timestamps are the producer's or the broker's.
func (b Batch) TimestampType() TimestampType {
	if b.Magic() > 0 && b.Attributes()&attrLogAppendTime != 0 {
		return LogAppendTime
	}
	return CreateTime
}

// IsTransactional reports whether the batch belongs to a transaction.
func (b Batch) IsTransactional() bool { return b.flag(attrTransactional) }

// IsControl reports whether the batch holds control records (markers), which consumers do not see.
func (b Batch) IsControl() bool { return b.flag(attrControl) }

// HasDeleteHorizon reports whether the base timestamp is the time from which tombstones in the batch may go. Source: KIP-534.
func (b Batch) HasDeleteHorizon() bool { return b.flag(attrDeleteHorizon) }

// DeleteHorizon returns the time in ms since 1970 from which the batch's tombstones (or marker) may be removed.
func (b Batch) DeleteHorizon() (ms int64, ok bool) {
	if !b.HasDeleteHorizon() {
		return 0, false
	}
	return b.BaseTimestamp(), true
}

func (b Batch) flag(bit int16) bool { return b.Magic() >= 2 && b.Attributes()&bit != 0 }

// LastOffsetDelta returns the distance of the last offset from the base offset.
func (b Batch) LastOffsetDelta() int32 {
	if b.Magic() < 2 {
		return 0
	}
	return b.i32(posLastOffsetDelta)
}

// BaseTimestamp returns what the record's timestamp deltas are relative to, in ms since 1970.
func (b Batch) BaseTimestamp() int64 {
	if b.Magic() < 2 {
		return b.MaxTimestamp()
	}
	return b.i64(posBaseTimestamp)
}

// MaxTimestamp returns the largest timestamp in the batch in ms since 1970, or the append time; -1 when there is none.
func (b Batch) MaxTimestamp() int64 {
	switch b.Magic() {
	case 0:
		return NoTimestamp
	case 1:
		return b.i64(legacyPosTimestamp)
	}
	return b.i64(posMaxTimestamp)
}

// ProducerID returns the id of the idempotent producer, or NoProducerID.
func (b Batch) ProducerID() int64 {
	if b.Magic() < 2 {
		return NoProducerID
	}
	return b.i64(posProducerID)
}

// HasProducerID reports whether an idempotent or transactional producer wrote the batch.
func (b Batch) HasProducerID() bool { return b.ProducerID() > NoProducerID }

// ProducerEpoch returns the producer's epoch, -1 when there is none.
func (b Batch) ProducerEpoch() int16 {
	if b.Magic() < 2 {
		return -1
	}
	return b.i16(posProducerEpoch)
}

// BaseSequence returns the sequence number of the first record, or NoSequence.
func (b Batch) BaseSequence() int32 {
	if b.Magic() < 2 {
		return NoSequence
	}
	return b.i32(posBaseSequence)
}

// LastSequence returns the sequence number of the last record. Sequence numbers wrap from 2147483647 to 0.
func (b Batch) LastSequence() int32 {
	if b.BaseSequence() == NoSequence {
		return NoSequence
	}
	return addSequence(b.BaseSequence(), b.LastOffsetDelta())
}

// Count returns the number of records as the header says: 0 is legal only in what the cleaner left. For magic 0 and 1 it is
// -1, as only decompression can tell.
func (b Batch) Count() int32 {
	if b.Magic() < 2 {
		return -1
	}
	return b.i32(posCount)
}

// SetBaseOffset patches the first offset. It is not covered by the CRC.
func (b Batch) SetBaseOffset(offset int64) {
	binary.BigEndian.PutUint64(b[posBaseOffset:], uint64(offset))
}

// SetLeaderEpoch patches the leader epoch of a magic-2 batch. It is not covered by the CRC.
func (b Batch) SetLeaderEpoch(epoch cluster.LeaderEpoch) {
	if b.Magic() < 2 {
		return
	}
	binary.BigEndian.PutUint32(b[posLeaderEpoch:], uint32(epoch))
}

// setTimestamps rewrites the timestamp type and the max timestamp of a magic-2 batch. SealCRC must follow.
func (b Batch) setTimestamps(t TimestampType, max int64) {
	attributes := b.Attributes() &^ attrLogAppendTime
	if t == LogAppendTime {
		attributes |= attrLogAppendTime
	}
	binary.BigEndian.PutUint16(b[posAttributes:], uint16(attributes))
	binary.BigEndian.PutUint64(b[posMaxTimestamp:], uint64(max))
}

// setSizeAndCodec rewrites length and codec of a magic-2 batch. SealCRC must follow.
func (b Batch) setSizeAndCodec(size int, codec Codec) {
	binary.BigEndian.PutUint32(b[posLength:], uint32(size-LogOverhead))
	attributes := b.Attributes()&^attrCodecMask | int16(codec)
	binary.BigEndian.PutUint16(b[posAttributes:], uint16(attributes))
}

// SealCRC computes the checksum of a whole magic-2 batch and writes it.
func (b Batch) SealCRC() {
	binary.BigEndian.PutUint32(b[posCRC:], crc32.Checksum(b[posAttributes:], castagnoli))
}

// VerifyCRC computes the checksum of the whole batch and compares. The error matches ErrCorrupt.
func (b Batch) VerifyCRC() error {
	var found uint32
	if b.Magic() < 2 {
		found = crc32.ChecksumIEEE(b[legacyPosMagic:])
	} else {
		found = crc32.Checksum(b[posAttributes:], castagnoli)
	}
	if found != b.CRC() {
		return corrupt("crc", int64(found), int64(b.CRC()))
	}
	return nil
}

func (b Batch) i64(pos int) int64 { return int64(binary.BigEndian.Uint64(b[pos:])) }
func (b Batch) i32(pos int) int32 { return int32(binary.BigEndian.Uint32(b[pos:])) }
func (b Batch) i16(pos int) int16 { return int16(binary.BigEndian.Uint16(b[pos:])) }

// addSequence moves a sequence number on; after 2147483647 comes 0.
func addSequence(sequence, by int32) int32 {
	if sequence > math.MaxInt32-by {
		return by - (math.MaxInt32 - sequence) - 1
	}
	return sequence + by
}

// subSequence moves a sequence number back; before 0 comes 2147483647.
func subSequence(sequence, by int32) int32 {
	if sequence < by {
		return math.MaxInt32 - (by - sequence) + 1
	}
	return sequence - by
}
