package logstore

import (
	"time"

	"ottla/internal/cluster"
)

// Origin says who appends.
type Origin int8

// The origins of an append.
const (
	OriginClient      Origin = iota // a producer: every check
	OriginCoordinator               // this broker's group or transaction coordinator: no sequence and count checks
	OriginReplication               // a follower's fetch: bytes are taken as they are
)

// RecordError is one record's fault in a Produce answer (v8). Index is the record's place in the batch.
type RecordError struct {
	Index   int32
	Message string
}

// ValidateParams are the rules of one topic for one append.
type ValidateParams struct {
	Compacted       bool // cleanup.policy contains compact: keys are required
	MaxMessageBytes int  // max.message.bytes, of the whole batch as it will be stored
	TimestampType   TimestampType
	BeforeMax       time.Duration // message.timestamp.before.max.ms; 0 or less: no limit
	AfterMax        time.Duration // message.timestamp.after.max.ms; 0 or less: no limit
	Target          Compression   // compression.type; Codec CodecProducer keeps what came
	Origin          Origin
	ProduceVersion  int16 // version of the Produce request; -1 when none
	Now             time.Time
}

// Validated is an approved record set.
type Validated struct {
	Batches       []byte // to be stored: the caller's own bytes, or rebuilt ones
	Count         int    // records
	MaxTimestamp  int64
	DeltaOfMax    int64 // offset of the (last record of the) batch with the max timestamp, relative to the first offset
	LogAppendTime int64 // ms since 1970, -1 for CreateTime
	Rebuilt       bool  // Batches is new memory
}

// ValidationError is a refusal: a protocol verdict with the message and the per-record errors of the answer.
type ValidationError struct {
	Err          error // a *kerr.Error
	Message      string
	RecordErrors []RecordError
}

func (e *ValidationError) Error() string { return e.Err.Error() + ": " + e.Message }

func (e *ValidationError) Unwrap() error { return e.Err }

// Validate applies every rule for records that a leader appends. It needs no lock. err is a *ValidationError.
// An empty result (len(Batches) == 0) without error means that nothing complete was there.
func Validate(records []byte, p *ValidateParams) (Validated, error) { panic("todo") }

// Assign gives the records their offsets, from first on, and the leader's epoch, in place. It returns the last offset.
func (v *Validated) Assign(first int64, epoch cluster.LeaderEpoch) (last int64) { panic("todo") }
