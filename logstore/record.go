package logstore

import (
	"iter"

	"ottla/internal/cluster"
)

// Header is one header of a record. Value nil means null.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record of a batch. Key and Value nil mean null. All slices are only valid until the next record is taken.
type Record struct {
	Offset    int64
	Timestamp int64 // ms since 1970, -1 none
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Records iterates the batch's records in order and decompresses when needed. An error ends the iteration.
func (b Batch) Records() iter.Seq2[Record, error] { panic("todo") }

// FirstOffset returns the first offset also of magic 0 and 1, which costs decompression there.
func (b Batch) FirstOffset() (int64, error) { panic("todo") }

// BatchOptions are the header fields of a batch that Builder makes.
type BatchOptions struct {
	BaseOffset    int64
	LeaderEpoch   cluster.LeaderEpoch
	ProducerID    int64 // NoProducerID for none
	ProducerEpoch int16
	BaseSequence  int32
	Transactional bool
	Control       bool
	TimestampType TimestampType
	Compression   Compression
}

// Builder builds one magic-2 batch from records.
type Builder struct{}

// NewBuilder returns a builder; see BatchOptions.
func NewBuilder(o BatchOptions) *Builder { panic("todo") }

// Append adds a record. r.Offset is taken as it is when set by the caller relative to BaseOffset; see AppendNext.
func (bd *Builder) Append(r Record) error { panic("todo") }

// AppendNext adds a record at the next offset.
func (bd *Builder) AppendNext(timestamp int64, key, value []byte, headers ...Header) error {
	panic("todo")
}

// Finish returns the sealed batch.
func (bd *Builder) Finish() (Batch, error) { panic("todo") }

// ControlType is the type of a control record.
type ControlType int16

// The control records that a partition's log can hold.
const (
	ControlAbort  ControlType = 0
	ControlCommit ControlType = 1
)

// EndTxnMarker is the content of a transaction's marker.
type EndTxnMarker struct {
	ProducerID       int64
	ProducerEpoch    int16
	Commit           bool
	CoordinatorEpoch int32
	Timestamp        int64
}

// NewEndTxnBatch builds the control batch that ends a transaction: 78 bytes.
func NewEndTxnBatch(m EndTxnMarker) Batch { panic("todo") }

// EndTxnMarker reads a control batch's marker; ok is false for control batches of other kinds and for empty ones.
func (b Batch) EndTxnMarker() (m EndTxnMarker, ok bool, err error) { panic("todo") }

const (
	legacyPosCRC        = 12
	legacyPosMagic      = 16
	legacyPosAttributes = 17
	legacyPosTimestamp  = 18
)
