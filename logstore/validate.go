package logstore

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

// What a leader checks of records before it appends them, in order of cost.
//
//   - The header alone tells: size, magic, CRC, base offset, counts, control, sequence, codec, timestamp type.
//   - Uncompressed records are walked in place (no copy, no allocation): each must be well-formed, have a key on a compacted
//     topic, a timestamp in range, and together they correct a wrong max timestamp in the header, as Kafka does.
//   - Compressed records are decompressed only if a rule of the topic needs to see them: keys (compacted), a limit on
//     timestamps, another compression.type, the old formats. Otherwise the first bytes must be the codec's, the CRC shows
//     that the producer meant these bytes, and they are kept. Kafka decompresses every batch; that costs it most of its time
//     on compressed topics and protects consumers only from a producer that compresses garbage. ValidateParams.Deep asks
//     for it here too; it also repairs compressed batches whose inner offsets are not 0, 1, 2, … (an old client's fault).
//
// In the usual case the caller's bytes are kept and patched: base offset and leader epoch lie outside of the CRC.
// Source: KIP-32 (timestamps), KIP-98 (counts, sequences), KIP-467 (errors per record), KIP-937 (timestamp limits).

// Origin says who appends.
type Origin int8

// The origins of an append.
const (
	OriginClient      Origin = iota // a producer: every check
	OriginCoordinator               // this broker's group or transaction coordinator: no sequence and count checks
	OriginReplication               // a follower's fetch: bytes are taken as they are
)

// NoTimestampLimit is the value of BeforeMax and AfterMax that allows every timestamp.
const NoTimestampLimit = time.Duration(math.MaxInt64)

// recordErrorsMax bounds the errors per record of one answer.
const recordErrorsMax = 1000

// RecordError is one record's fault in a Produce answer (v8). Index is the record's place in the batch.
type RecordError struct {
	Index   int32
	Message string
}

// String is how Kafka prints it.
func (e RecordError) String() string {
	return fmt.Sprintf("RecordError(batchIndex=%d, message='%s')", e.Index, e.Message)
}

// ValidateParams are the rules of one topic for one append.
type ValidateParams struct {
	Partition       cluster.TopicPartition // for messages only
	Compacted       bool                   // cleanup.policy contains compact: keys are required
	MaxMessageBytes int                    // max.message.bytes, of the whole batch as it came and as it will be stored
	TimestampType   TimestampType          // message.timestamp.type
	BeforeMax       time.Duration          // message.timestamp.before.max.ms; NoTimestampLimit or negative: none
	AfterMax        time.Duration          // message.timestamp.after.max.ms; NoTimestampLimit or negative: none
	Target          Compression            // compression.type; Codec CodecProducer keeps what came
	Origin          Origin
	ProduceVersion  int16 // version of the Produce request; -1 when there is none
	Deep            bool  // decompress also where no rule needs it
	Now             time.Time
}

// Validated is an approved record set: no batch, or exactly one of magic 2.
type Validated struct {
	Batches       []byte // to be stored: the caller's own bytes, or rebuilt ones; empty: there was nothing complete
	Count         int    // records
	MaxTimestamp  int64  // ms since 1970, -1 none
	LogAppendTime int64  // ms since 1970, -1 for CreateTime
	Rebuilt       bool   // Batches is new memory
}

// ValidationError is a refusal: a protocol verdict (Unwrap gives the *kerr.Error), its text for the answer, and what is wrong
// with single records.
type ValidationError struct {
	Err          *kerr.Error
	Message      string
	RecordErrors []RecordError
}

func (e *ValidationError) Error() string { return e.Err.Message + ": " + e.Message }

func (e *ValidationError) Unwrap() error { return e.Err }

func refuse(code *kerr.Error, format string, args ...any) error {
	return &ValidationError{Err: code, Message: fmt.Sprintf(format, args...)}
}

func refuseCorrupt(err error) error {
	return &ValidationError{Err: kerr.CorruptMessage, Message: err.Error()}
}

// refuseContent is for records that cannot be read though their checksum is right: the producer made them so, and sending them
// again, as it would after CORRUPT_MESSAGE, would not help. Kafka 3.9 answers UNKNOWN_SERVER_ERROR.
func refuseContent(err error) error {
	return &ValidationError{Err: kerr.InvalidRecord, Message: err.Error()}
}

// Validate applies every rule for records that a leader appends, and patches or rebuilds them. It needs no lock; Assign, under
// the log's lock, then gives the offsets. Bytes after the last complete batch are cut off silently. A refusal is a
// *ValidationError: CORRUPT_MESSAGE, INVALID_RECORD, MESSAGE_TOO_LARGE, INVALID_TIMESTAMP, UNSUPPORTED_COMPRESSION_TYPE.
//
// OriginReplication is not for Validate: followers take what the leader has.
func Validate(records []byte, p *ValidateParams) (Validated, error) {
	first, whole, err := checkBatches(records, p)
	if err != nil || len(whole) == 0 {
		return Validated{}, err
	}
	var v Validated
	if first.Magic() < 2 {
		v, err = convertLegacy(whole, p)
	} else {
		v, err = validateBatch(first, p)
	}
	if err != nil {
		return Validated{}, err
	}
	if v.Rebuilt && len(v.Batches) > p.MaxMessageBytes {
		return Validated{}, tooLarge(len(v.Batches), p)
	}
	return v, nil
}

// Assign gives the records their offsets, from first on, and the leader's epoch, in place. It returns the last offset.
func (v *Validated) Assign(first int64, epoch cluster.LeaderEpoch) (last int64) {
	b := Batch(v.Batches)
	b.SetBaseOffset(first)
	b.SetLeaderEpoch(epoch)
	return b.LastOffset()
}

func tooLarge(size int, p *ValidateParams) error {
	return refuse(kerr.MessageTooLarge, "the record batch of %d bytes for %s exceeds max.message.bytes %d", size, p.Partition, p.MaxMessageBytes)
}

// ---- the shallow pass: headers and CRCs

// checkBatches looks at all batches' headers. It returns the first and the bytes of all complete ones.
func checkBatches(records []byte, p *ValidateParams) (first Batch, whole []byte, err error) {
	rest := records
	for n := 0; ; n++ {
		b, next, err := NextBatch(rest)
		if err != nil && errors.Is(err, ErrCorrupt) {
			return nil, nil, refuseCorrupt(err)
		}
		if err != nil { // the end, or an incomplete tail
			break
		}
		if n == 0 {
			first = b
		} else if err := checkNotFirst(first, b, p); err != nil {
			return nil, nil, err
		}
		if err := checkShape(b, p); err != nil {
			return nil, nil, err
		}
		rest = next
	}
	if first == nil && p.Origin == OriginClient && p.ProduceVersion >= 3 {
		return nil, nil, refuse(kerr.InvalidRecord, "Produce requests with version %d must have at least one record batch per partition", p.ProduceVersion)
	}
	return first, records[:len(records)-len(rest)], nil
}

func checkNotFirst(first, b Batch, p *ValidateParams) error {
	if first.Magic() >= 2 || b.Magic() >= 2 || first.Codec() != CodecNone || b.Codec() != CodecNone {
		return refuse(kerr.InvalidRecord, "a request may contain exactly one record batch for %s", p.Partition)
	}
	if first.Magic() != b.Magic() {
		return refuse(kerr.InvalidRecord, "messages of the formats %d and %d in one request for %s", first.Magic(), b.Magic(), p.Partition)
	}
	return nil
}

// checkShape applies the rules that need the header and the CRC.
func checkShape(b Batch, p *ValidateParams) error {
	if err := checkVersion(b, p); err != nil {
		return err
	}
	if p.Origin == OriginClient && b.Magic() >= 2 && b.BaseOffset() != 0 {
		return refuse(kerr.InvalidRecord, "the base offset of the record batch for %s should be 0, but it is %d", p.Partition, b.BaseOffset())
	}
	if len(b) > p.MaxMessageBytes {
		return tooLarge(len(b), p)
	}
	if err := b.VerifyCRC(); err != nil {
		return refuseCorrupt(fmt.Errorf("record batch for %s: %w", p.Partition, err))
	}
	if b.Magic() < 2 {
		return nil
	}
	if !b.Codec().Valid() {
		return refuse(kerr.InvalidRecord, "unknown compression type %d", b.Codec())
	}
	if p.Origin == OriginClient {
		return checkClientHeader(b)
	}
	return nil
}

// checkVersion applies what the version of the Produce request allows.
func checkVersion(b Batch, p *ValidateParams) error {
	if p.Origin != OriginClient {
		return nil
	}
	if p.ProduceVersion >= 3 && b.Magic() != 2 {
		return refuse(kerr.InvalidRecord, "Produce requests with version %d are only allowed to contain record batches with magic version 2", p.ProduceVersion)
	}
	if p.ProduceVersion >= 0 && p.ProduceVersion < 7 && b.Codec() == CodecZstd {
		return refuse(kerr.UnsupportedCompressionType, "Produce requests with version %d are not allowed to use ZStandard compression", p.ProduceVersion)
	}
	return nil
}

func checkClientHeader(b Batch) error {
	span := int64(b.LastOffsetDelta()) + 1
	if span <= 0 {
		return refuse(kerr.InvalidRecord, "Batch has an invalid offset range: [%d, %d]", b.BaseOffset(), b.LastOffset())
	}
	if b.Count() <= 0 {
		return refuse(kerr.InvalidRecord, "Invalid reported count for record batch: %d", b.Count())
	}
	if span != int64(b.Count()) {
		return refuse(kerr.InvalidRecord, "Inconsistent batch offset range [%d, %d] and count of records %d", b.BaseOffset(), b.LastOffset(), b.Count())
	}
	if b.IsControl() {
		return refuse(kerr.InvalidRecord, "Clients are not allowed to write control records")
	}
	if b.HasProducerID() && b.BaseSequence() < 0 {
		return refuse(kerr.InvalidRecord, "Invalid sequence number %d in record batch with producerId %d", b.BaseSequence(), b.ProducerID())
	}
	if b.IsTransactional() && !b.HasProducerID() {
		return refuse(kerr.InvalidRecord, "Transactional record batch without producerId")
	}
	return nil
}

// ---- one batch of magic 2

func validateBatch(b Batch, p *ValidateParams) (Validated, error) {
	v := Validated{Batches: b, Count: int(b.Count()), MaxTimestamp: b.MaxTimestamp(), LogAppendTime: -1}
	if b.TimestampType() == LogAppendTime && p.TimestampType == LogAppendTime {
		return v, refuse(kerr.InvalidTimestamp, "Invalid timestamp type in record batch for %s. Producer should not set timestamp type to LogAppendTime.", p.Partition)
	}
	target := p.targetCodec(b)
	if target == b.Codec() && !p.needsRecords(b) {
		if err := b.Codec().checkHead(b[posRecords:]); err != nil {
			return v, refuseContent(err)
		}
		v.stamp(p)
		return v, nil
	}
	return validateRecords(v, b, target, p)
}

// targetCodec returns the codec to store with. Control batches are never compressed.
func (p *ValidateParams) targetCodec(b Batch) Codec {
	if p.Target.Codec == CodecProducer || b.IsControl() && b.Codec() == CodecNone {
		return b.Codec()
	}
	return p.Target.Codec
}

// needsRecords reports whether a rule needs more than the header.
func (p *ValidateParams) needsRecords(b Batch) bool {
	return b.Codec() == CodecNone || p.Deep || p.Compacted || p.TimestampType == CreateTime && (b.TimestampType() == LogAppendTime || p.limitsTimestamps())
}

func (p *ValidateParams) limitsTimestamps() bool {
	return limits(p.BeforeMax) || limits(p.AfterMax)
}

func limits(d time.Duration) bool { return d >= 0 && d != NoTimestampLimit }

// stamp patches the timestamp type and the max timestamp of the header where they are to change, and then the CRC.
func (v *Validated) stamp(p *ValidateParams) {
	b := Batch(v.Batches)
	if p.TimestampType == LogAppendTime {
		v.LogAppendTime = p.Now.UnixMilli()
		v.MaxTimestamp = v.LogAppendTime
	}
	if b.TimestampType() == p.TimestampType && b.MaxTimestamp() == v.MaxTimestamp {
		return
	}
	b.setTimestamps(p.TimestampType, v.MaxTimestamp)
	b.SealCRC()
}

// validateRecords walks the records, decompressed if need be, and then patches, recompresses or rebuilds.
func validateRecords(v Validated, b Batch, target Codec, p *ValidateParams) (Validated, error) {
	scratch := takeScratch()
	defer giveScratch(scratch)
	body, err := b.plainRecords(*scratch)
	if err != nil {
		return v, refuseContent(err)
	}
	if b.Codec() != CodecNone {
		*scratch = body
	}
	c := newRecordCheck(p)
	c.maxTimestamp, c.appendTimeBit = NoTimestamp, b.TimestampType() == LogAppendTime
	dense, err := c.walk(b, body)
	if err != nil {
		return v, err
	}
	v.MaxTimestamp = c.maxTimestamp
	// Kafka repairs inner offsets only in compressed batches and stores others as they came; a partition's offsets would then
	// not be dense, so both are repaired here.
	switch {
	case !dense && p.Origin == OriginClient:
		return rebuildBatch(v, b, body, target, p)
	case target != b.Codec():
		return recompress(v, b, body, target, p)
	}
	v.stamp(p)
	return v, nil
}

// recordCheck applies the rules for single records and collects what is wrong.
//
// It holds the rules by value: with a pointer to them the compiler would put every append's on the heap.
type recordCheck struct {
	partition     cluster.TopicPartition
	compacted     bool
	createTime    bool
	bounds        [2]int64
	appendTimeBit bool // the producer set the LogAppendTime bit
	maxTimestamp  int64
	faults        []RecordError
	faultCount    int
	timestamps    bool // one of the faults is a timestamp
}

func newRecordCheck(p *ValidateParams) recordCheck {
	return recordCheck{partition: p.Partition, compacted: p.Compacted, createTime: p.TimestampType == CreateTime, bounds: p.timestampBounds()}
}

// timestampBounds returns the smallest and the largest timestamp that is allowed.
func (p *ValidateParams) timestampBounds() [2]int64 {
	bounds := [2]int64{math.MinInt64, math.MaxInt64}
	now := p.Now.UnixMilli()
	if limits(p.BeforeMax) {
		bounds[0] = now - p.BeforeMax.Milliseconds()
	}
	if limits(p.AfterMax) {
		bounds[1] = now + p.AfterMax.Milliseconds()
	}
	return bounds
}

// walk checks every record. dense: the offset deltas are 0, 1, 2, …
func (c *recordCheck) walk(b Batch, body []byte) (dense bool, err error) {
	w := newRecordWalk(b, body)
	dense = true
	for i := int32(0); w.next(); i++ {
		dense = dense && w.offsetDelta == i
		if c.compacted && w.keyLen < 0 && !b.IsControl() {
			c.missingKey(i)
		}
		timestamp := w.timestamp()
		c.maxTimestamp = max(c.maxTimestamp, timestamp)
		if !c.createTime {
			continue
		}
		if timestamp != NoTimestamp {
			if timestamp < c.bounds[0] || timestamp > c.bounds[1] {
				c.badTimestamp(i, timestamp, int64(w.offsetDelta))
			}
		} else if c.appendTimeBit {
			c.fault(i, "Invalid timestamp type in record. Producer should not set timestamp type to LogAppendTime.")
			c.timestamps = true
		}
	}
	if w.err != nil {
		return dense, refuse(kerr.InvalidRecord, "record batch for %s: %v", c.partition, w.err)
	}
	return dense, c.verdict()
}

func (c *recordCheck) missingKey(index int32) {
	c.fault(index, fmt.Sprintf("Compacted topic cannot accept message without key in topic partition %s", c.partition))
}

func (c *recordCheck) badTimestamp(index int32, timestamp, offset int64) {
	c.timestamps = true
	c.fault(index, fmt.Sprintf("Timestamp %d of message with offset %d is out of range. The timestamp should be within [%d, %d]", timestamp, offset, c.bounds[0], c.bounds[1]))
}

func (c *recordCheck) fault(index int32, message string) {
	c.faultCount++
	if len(c.faults) < recordErrorsMax {
		c.faults = append(c.faults, RecordError{Index: index, Message: message})
	}
}

func joined(faults []RecordError) string {
	texts := make([]string, len(faults))
	for i, f := range faults {
		texts[i] = f.String()
	}
	return strings.Join(texts, ", ")
}

func (c *recordCheck) verdict() error {
	if c.faultCount == 0 {
		return nil
	}
	e := &ValidationError{Err: kerr.InvalidRecord, RecordErrors: c.faults}
	if c.timestamps {
		e.Err = kerr.InvalidTimestamp
		e.Message = "One or more records have been rejected due to invalid timestamp"
		return e
	}
	e.Message = fmt.Sprintf("One or more records have been rejected due to %d record errors in total, and only showing the first three errors at most: [%s]", c.faultCount, joined(c.faults[:min(3, len(c.faults))]))
	return e
}

// ---- new bytes

// options returns the header of a rebuilt batch.
func (p *ValidateParams) options(b Batch, target Codec) BatchOptions {
	o := PlainBatch()
	if b.Magic() >= 2 {
		o = optionsOf(b)
	}
	o.TimestampType, o.AppendTime = p.TimestampType, p.Now.UnixMilli()
	o.Compression = p.Target
	if p.Target.Codec != target {
		o.Compression = DefaultCompression(target)
	}
	return o
}

// recompress stores the same record bytes under another codec: the header's other fields stay.
func recompress(v Validated, b Batch, body []byte, target Codec, p *ValidateParams) (Validated, error) {
	o := p.options(b, target)
	out := make([]byte, BatchOverhead, BatchOverhead+len(body)/2+512)
	copy(out, b[:BatchOverhead])
	out, err := o.Compression.compress(out, body)
	if err != nil {
		return v, fmt.Errorf("recompress for %s: %w", p.Partition, err)
	}
	v.Batches, v.Rebuilt = out, true
	nb := Batch(out)
	nb.setSizeAndCodec(len(out), target)
	if p.TimestampType == LogAppendTime {
		v.LogAppendTime = p.Now.UnixMilli()
		v.MaxTimestamp = v.LogAppendTime
	}
	nb.setTimestamps(p.TimestampType, v.MaxTimestamp)
	nb.SealCRC()
	return v, nil
}

// rebuildBatch encodes the records anew with dense offsets.
func rebuildBatch(v Validated, b Batch, body []byte, target Codec, p *ValidateParams) (Validated, error) {
	o := p.options(b, target)
	o.HasDeleteHorizon = false
	bd := NewBuilder(o)
	var fault error
	yieldRecords(b, body, func(r Record, err error) bool {
		if err == nil {
			err = bd.AppendNext(r.Timestamp, r.Key, r.Value, r.Headers...)
		}
		fault = err
		return err == nil
	})
	return finishRebuild(v, bd, fault, p)
}

// convertLegacy turns messages of magic 0 or 1 into one batch of magic 2, as brokers since 3.0 store them (KIP-724).
func convertLegacy(whole []byte, p *ValidateParams) (Validated, error) {
	first, _, _ := NextBatch(whole)
	v := Validated{LogAppendTime: -1, MaxTimestamp: NoTimestamp}
	bd := NewBuilder(p.options(first, p.targetCodec(first)))
	c := newRecordCheck(p)
	i := int32(0)
	for len(whole) > 0 {
		var b Batch
		b, whole, _ = NextBatch(whole) // the shallow pass saw them all
		if b.TimestampType() == LogAppendTime && p.TimestampType == LogAppendTime {
			return v, refuse(kerr.InvalidTimestamp, "Invalid timestamp type in message for %s. Producer should not set timestamp type to LogAppendTime.", p.Partition)
		}
		for r, err := range b.Records() {
			if err != nil {
				return v, refuseContent(err)
			}
			c.check(i, &r)
			if err := bd.AppendNext(r.Timestamp, r.Key, r.Value); err != nil {
				return v, refuse(kerr.InvalidRecord, "%v", err)
			}
			i++
		}
	}
	if err := c.verdict(); err != nil {
		return v, err
	}
	return finishRebuild(v, bd, nil, p)
}

// check applies the rules to one record of an old format.
func (c *recordCheck) check(i int32, r *Record) {
	if c.compacted && r.Key == nil {
		c.missingKey(i)
	}
	if c.createTime && r.Timestamp != NoTimestamp && (r.Timestamp < c.bounds[0] || r.Timestamp > c.bounds[1]) {
		c.badTimestamp(i, r.Timestamp, r.Offset)
	}
}

func finishRebuild(v Validated, bd *Builder, fault error, p *ValidateParams) (Validated, error) {
	if fault != nil {
		return v, refuse(kerr.InvalidRecord, "%v", fault)
	}
	b, err := bd.Finish()
	if err != nil {
		return v, fmt.Errorf("rebuild for %s: %w", p.Partition, err)
	}
	v.Batches, v.Rebuilt = b, true
	v.Count, v.MaxTimestamp = int(b.Count()), b.MaxTimestamp()
	if p.TimestampType == LogAppendTime {
		v.LogAppendTime = b.MaxTimestamp()
	}
	return v, nil
}
