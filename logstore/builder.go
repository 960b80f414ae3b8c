package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"ottla/internal/cluster"
)

// BatchOptions are the header fields of a batch that a Builder makes.
type BatchOptions struct {
	BaseOffset    int64
	LeaderEpoch   cluster.LeaderEpoch
	ProducerID    int64 // NoProducerID for none
	ProducerEpoch int16 // -1 for none
	BaseSequence  int32 // NoSequence for none
	Transactional bool
	Control       bool
	TimestampType TimestampType
	Compression   Compression
	// AppendTime is the max timestamp of a LogAppendTime batch, in ms since 1970.
	AppendTime int64
	// DeleteHorizon, if HasDeleteHorizon, becomes the base timestamp. Source: KIP-534.
	DeleteHorizon    int64
	HasDeleteHorizon bool
	// LastOffset, if larger than the last record's offset, is what the batch covers (the cleaner keeps a batch's range).
	LastOffset int64
}

// PlainBatch returns the options of an ordinary batch: no producer id, no compression, base offset 0.
func PlainBatch() BatchOptions {
	return BatchOptions{LeaderEpoch: cluster.NoLeaderEpoch, ProducerID: NoProducerID, ProducerEpoch: -1, BaseSequence: NoSequence, LastOffset: -1}
}

// Builder builds one magic-2 batch. The zero value is not usable; see NewBuilder. Reset makes it ready for the next batch and
// keeps its memory.
type Builder struct {
	o             BatchOptions
	buf           []byte // header and plain records
	out           []byte // header and compressed records
	count         int32
	baseTimestamp int64
	maxTimestamp  int64
	lastOffset    int64
}

// NewBuilder returns a builder for one batch.
func NewBuilder(o BatchOptions) *Builder {
	bd := &Builder{}
	bd.Reset(o)
	return bd
}

// Reset begins a new batch. What Finish returned before is overwritten.
func (bd *Builder) Reset(o BatchOptions) {
	if cap(bd.buf) < BatchOverhead {
		bd.buf = make([]byte, BatchOverhead, 512)
	}
	bd.o, bd.buf, bd.out = o, bd.buf[:BatchOverhead], bd.out[:0]
	bd.count, bd.baseTimestamp, bd.maxTimestamp = 0, NoTimestamp, NoTimestamp
	bd.lastOffset = o.BaseOffset - 1
}

var (
	errBuilderOffset = errors.New("offsets of a batch must ascend from its base offset and span at most 2147483647")
	errBuilderSize   = errors.New("batch is larger than 2147483647 bytes")
	errBuilderEmpty  = errors.New("batch without records")
)

// Append adds a record with its own offset, which must be larger than the last one's.
func (bd *Builder) Append(r Record) error {
	delta := r.Offset - bd.o.BaseOffset
	if r.Offset <= bd.lastOffset || delta > math.MaxInt32 {
		return errBuilderOffset
	}
	if bd.count == 0 {
		bd.baseTimestamp = r.Timestamp
		if bd.o.HasDeleteHorizon {
			bd.baseTimestamp = bd.o.DeleteHorizon
		}
	}
	var err error
	if bd.buf, err = appendRecord(bd.buf, r.Timestamp-bd.baseTimestamp, int32(delta), &r); err != nil {
		return fmt.Errorf("build batch: %w", err)
	}
	if len(bd.buf) > math.MaxInt32 {
		return errBuilderSize
	}
	bd.count++
	bd.lastOffset = r.Offset
	bd.maxTimestamp = max(bd.maxTimestamp, r.Timestamp)
	return nil
}

// AppendNext adds a record at the next offset.
func (bd *Builder) AppendNext(timestamp int64, key, value []byte, headers ...Header) error {
	return bd.Append(Record{Offset: bd.lastOffset + 1, Timestamp: timestamp, Key: key, Value: value, Headers: headers})
}

// Count returns the number of records so far.
func (bd *Builder) Count() int { return int(bd.count) }

// Size returns the plain size of the batch so far.
func (bd *Builder) Size() int { return len(bd.buf) }

// Finish returns the sealed batch. It is valid until the next Reset.
func (bd *Builder) Finish() (Batch, error) {
	if bd.count == 0 {
		return nil, errBuilderEmpty
	}
	b := Batch(bd.buf)
	if codec := bd.o.Compression.Codec; codec != CodecNone {
		out, err := bd.o.Compression.compress(append(bd.out[:0], bd.buf[:BatchOverhead]...), bd.buf[BatchOverhead:])
		if err != nil {
			return nil, fmt.Errorf("build batch: %w", err)
		}
		if len(out) > math.MaxInt32 {
			return nil, errBuilderSize
		}
		bd.out, b = out, out
	}
	maxTimestamp := bd.maxTimestamp
	if bd.o.TimestampType == LogAppendTime {
		maxTimestamp = bd.o.AppendTime
	}
	putHeader(b, &bd.o, bd.baseTimestamp, maxTimestamp, max(bd.lastOffset, bd.o.LastOffset), bd.count)
	return b, nil
}

// putHeader writes the whole header of a batch, CRC last.
func putHeader(b Batch, o *BatchOptions, baseTimestamp, maxTimestamp, lastOffset int64, count int32) {
	attributes := uint16(o.Compression.Codec) & attrCodecMask
	for _, f := range [...]struct {
		on  bool
		bit uint16
	}{
		{o.TimestampType == LogAppendTime, attrLogAppendTime},
		{o.Transactional, attrTransactional},
		{o.Control, attrControl},
		{o.HasDeleteHorizon, attrDeleteHorizon},
	} {
		if f.on {
			attributes |= f.bit
		}
	}
	be := binary.BigEndian
	be.PutUint64(b[posBaseOffset:], uint64(o.BaseOffset))
	be.PutUint32(b[posLength:], uint32(len(b)-LogOverhead))
	be.PutUint32(b[posLeaderEpoch:], uint32(o.LeaderEpoch))
	b[posMagic] = 2
	be.PutUint16(b[posAttributes:], attributes)
	be.PutUint32(b[posLastOffsetDelta:], uint32(lastOffset-o.BaseOffset))
	be.PutUint64(b[posBaseTimestamp:], uint64(baseTimestamp))
	be.PutUint64(b[posMaxTimestamp:], uint64(maxTimestamp))
	be.PutUint64(b[posProducerID:], uint64(o.ProducerID))
	be.PutUint16(b[posProducerEpoch:], uint16(o.ProducerEpoch))
	be.PutUint32(b[posBaseSequence:], uint32(o.BaseSequence))
	be.PutUint32(b[posCount:], uint32(count))
	b.SealCRC()
}

// emptyBatch returns what the cleaner leaves of a batch whose producer must be remembered: the header alone, uncompressed,
// with the offsets, the sequence and the max timestamp of src.
func emptyBatch(src Batch) Batch {
	o := optionsOf(src)
	o.Compression = Compression{}
	o.HasDeleteHorizon = false
	b := make(Batch, BatchOverhead)
	putHeader(b, &o, NoTimestamp, src.MaxTimestamp(), src.LastOffset(), 0)
	return b
}

// optionsOf returns the options that rebuild a batch like b (magic 2), with the codec's default level.
func optionsOf(b Batch) BatchOptions {
	horizon, has := b.DeleteHorizon()
	return BatchOptions{
		BaseOffset: b.BaseOffset(), LeaderEpoch: b.LeaderEpoch(),
		ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(), BaseSequence: b.BaseSequence(),
		Transactional: b.IsTransactional(), Control: b.IsControl(),
		TimestampType: b.TimestampType(), AppendTime: b.MaxTimestamp(),
		Compression:   DefaultCompression(b.Codec()),
		DeleteHorizon: horizon, HasDeleteHorizon: has,
		LastOffset: b.LastOffset(),
	}
}

// ControlType is the type of a control record, in its key.
type ControlType int16

// The control records that a partition's log can hold; others (KRaft's, future ones) are skipped.
const (
	ControlAbort  ControlType = 0
	ControlCommit ControlType = 1
)

// EndTxnMarker is the content of the control batch that ends a transaction.
type EndTxnMarker struct {
	ProducerID       int64
	ProducerEpoch    int16
	Commit           bool
	CoordinatorEpoch int32
	Timestamp        int64 // ms since 1970
}

// NewEndTxnBatch builds the control batch that ends a transaction: 78 bytes, one record. Source: KIP-98.
func NewEndTxnBatch(m EndTxnMarker) Batch {
	o := PlainBatch()
	o.ProducerID, o.ProducerEpoch = m.ProducerID, m.ProducerEpoch
	o.Transactional, o.Control = true, true
	kind := ControlAbort
	if m.Commit {
		kind = ControlCommit
	}
	key := binary.BigEndian.AppendUint16([]byte{0, 0}, uint16(kind))
	value := binary.BigEndian.AppendUint32([]byte{0, 0}, uint32(m.CoordinatorEpoch))
	bd := NewBuilder(o)
	_ = bd.AppendNext(m.Timestamp, key, value) // cannot fail: ten bytes at offset 0
	b, _ := bd.Finish()                        // uncompressed, one record
	return b
}

var errControlRecord = errors.New("control record is too short")

// EndTxnMarker reads a control batch's marker; ok is false for data batches, other kinds of control records and batches that
// the cleaner emptied. Longer keys and values than known are accepted. Errors match ErrCorrupt.
func (b Batch) EndTxnMarker() (m EndTxnMarker, ok bool, err error) {
	if !b.IsControl() || b.Count() == 0 {
		return m, false, nil
	}
	for r, err := range b.Records() {
		if err != nil {
			return m, false, err
		}
		if len(r.Key) < 4 {
			return m, false, &CorruptError{What: "marker", Cause: errControlRecord}
		}
		kind := ControlType(binary.BigEndian.Uint16(r.Key[2:]))
		if kind != ControlAbort && kind != ControlCommit {
			return m, false, nil
		}
		if len(r.Value) < 6 {
			return m, false, &CorruptError{What: "marker", Cause: errControlRecord}
		}
		return EndTxnMarker{
			ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(), Commit: kind == ControlCommit,
			CoordinatorEpoch: int32(binary.BigEndian.Uint32(r.Value[2:])), Timestamp: r.Timestamp,
		}, true, nil
	}
	return m, false, nil
}
