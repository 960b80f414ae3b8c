package logstore

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
)

// cleanFilter decides what stays of one batch, and rewrites it. It is pure: batches and now in, bytes out.
//
// A record stays when it is the last one of its key, or lies above what the offset map has seen. A tombstone that is the last one
// stays until its batch's delete horizon, which the first pass that sees it sets (KIP-534). The data of aborted transactions
// goes, and then their markers by the same horizon. What identifies an active producer's last batch stays, without records.
type cleanFilter struct {
	keys            *offsetMap
	mapEnd          int64 // exclusive: offsets from here on are not in the map
	txns            *cleanedTxns
	producers       map[int64]ProducerInfo // the active ones
	now             time.Time
	deleteRetention time.Duration // delete.retention.ms
	roundEnd        int64         // exclusive end of the whole pass: the last batch before it keeps its range
	keepOldDeletes  bool          // tombstones of magic 0 and 1 stay: by the age of the segment

	builder  Builder
	scratch  []byte // decompressed records
	verdicts []bool // of the batch being looked at: which records stay
	kept     int    // how many

	stats cleanStats
}

// cleanStats counts what a pass did.
type cleanStats struct {
	Batches, BatchesKept, BatchesRewritten int64
	Records, RecordsKept                   int64
	BytesRead, BytesWritten                int64
	WithoutKey                             int64
}

// filtered is what is left of a batch.
type filtered struct {
	batch   Batch // nil: nothing. Valid until the next batch is filtered, or as long as the one that was given.
	aborted *AbortedTxn
}

// filter judges one whole, sound batch. Errors match ErrCorrupt: the records cannot be read.
func (f *cleanFilter) filter(b Batch) (filtered, error) {
	f.stats.Batches++
	f.stats.BytesRead += int64(len(b))
	var out filtered
	var dropAll, emptyTxn bool
	if b.IsControl() {
		removable, keep, err := f.txns.marker(b)
		if err != nil {
			return out, err
		}
		horizon, has := b.DeleteHorizon()
		dropAll = removable && has && horizon <= f.now.UnixMilli()
		emptyTxn = removable
		out.aborted = keep
	} else {
		dropAll = f.txns.data(b)
	}
	tombstones, err := f.judge(b, dropAll)
	if err != nil {
		return out, err
	}
	switch {
	case f.kept == 0 && f.mustKeepRange(b):
		out.batch = emptyBatch(b)
	case f.kept == 0:
	default:
		setHorizon := b.Magic() >= 2 && (tombstones || emptyTxn) && !b.HasDeleteHorizon()
		if out.batch, err = f.rewrite(b, setHorizon); err != nil {
			return out, err
		}
	}
	if out.batch != nil {
		f.stats.BatchesKept++
		f.stats.RecordsKept += int64(f.kept)
	}
	return out, nil
}

// judge fills verdicts and kept. tombstones: one of those kept is one. Headers are not looked at, nothing is copied.
func (f *cleanFilter) judge(b Batch, dropAll bool) (tombstones bool, err error) {
	f.verdicts, f.kept = f.verdicts[:0], 0
	note := func(offset int64, key []byte, keyed, valued bool) {
		stays := !dropAll && (b.IsControl() || f.keeps(b, offset, key, keyed, valued))
		f.verdicts = append(f.verdicts, stays)
		if stays {
			f.kept++
			tombstones = tombstones || !valued
		}
	}
	err = f.eachRecord(b, note)
	f.stats.Records += int64(len(f.verdicts))
	return tombstones, err
}

// eachRecord walks the records without their headers. The plain records stay in scratch.
func (f *cleanFilter) eachRecord(b Batch, fn func(offset int64, key []byte, keyed, valued bool)) error {
	if b.Magic() < 2 {
		for r, err := range b.Records() {
			if err != nil {
				return err
			}
			fn(r.Offset, r.Key, r.Key != nil, r.Value != nil)
		}
		return nil
	}
	body, err := f.plain(b)
	if err != nil {
		return err
	}
	w := newRecordWalk(b, body)
	for w.next() {
		if w.offsetDelta < 0 || w.offsetDelta > b.LastOffsetDelta() {
			return corrupt("offset of a record", w.offset(), b.LastOffset())
		}
		fn(w.offset(), w.key(), w.keyLen >= 0, w.valLen >= 0)
	}
	return w.err
}

// plain decompresses into scratch, which large batches do not keep.
func (f *cleanFilter) plain(b Batch) ([]byte, error) {
	if cap(f.scratch) > scratchBytesMax {
		f.scratch = nil
	}
	body, err := b.plainRecords(f.scratch[:0])
	if err == nil && b.Codec() != CodecNone {
		f.scratch = body
	}
	return body, err
}

func (f *cleanFilter) keeps(b Batch, offset int64, key []byte, keyed, valued bool) bool {
	if offset >= f.mapEnd {
		return true
	}
	if !keyed {
		f.stats.WithoutKey++
		return false
	}
	if last, ok := f.keys.get(key); ok && offset < last {
		return false
	}
	return valued || f.keepsTombstone(b)
}

func (f *cleanFilter) keepsTombstone(b Batch) bool {
	if b.Magic() < 2 {
		return f.keepOldDeletes
	}
	horizon, ok := b.DeleteHorizon()
	return !ok || f.now.UnixMilli() < horizon
}

// mustKeepRange: the batch stays without records, for what its header says.
func (f *cleanFilter) mustKeepRange(b Batch) bool {
	if b.Magic() < 2 {
		return false
	}
	if b.NextOffset() == f.roundEnd {
		return true
	}
	last, active := f.producers[b.ProducerID()]
	if !active || !b.HasProducerID() {
		return false
	}
	if last.LastOffset >= 0 {
		return b.LastOffset() == last.LastOffset
	}
	return b.IsControl() && b.ProducerEpoch() == last.ProducerEpoch
}

// rewrite returns the batch with the kept records: itself, if nothing changes.
func (f *cleanFilter) rewrite(b Batch, setHorizon bool) (Batch, error) {
	if f.kept == len(f.verdicts) && !setHorizon {
		return b, nil
	}
	f.stats.BatchesRewritten++
	if b.Magic() < 2 {
		return f.rewriteLegacy(b)
	}
	o := optionsOf(b)
	if setHorizon {
		o.HasDeleteHorizon = true
		o.DeleteHorizon = f.now.Add(f.deleteRetention).UnixMilli()
	}
	f.builder.Reset(o)
	err := f.eachKept(b, f.builder.Append)
	var rewritten Batch
	if err == nil {
		rewritten, err = f.builder.Finish()
	}
	if err != nil { // offsets that do not ascend: the batch is readable, but not sound
		return nil, &CorruptError{What: "records", Cause: fmt.Errorf("rewrite batch at offset %d: %w", b.BaseOffset(), err)}
	}
	return rewritten, nil
}

func (f *cleanFilter) eachKept(b Batch, fn func(Record) error) error {
	records := b.Records()
	if b.Magic() >= 2 && b.Codec() != CodecNone { // still decompressed
		records = func(yield func(Record, error) bool) { yieldRecords(b, f.scratch, yield) }
	}
	i := 0
	for r, err := range records {
		if err == nil && f.verdicts[i] {
			err = fn(r)
		}
		if err != nil {
			return err
		}
		i++
	}
	return nil
}

// rewriteLegacy rebuilds a wrapper of magic 0 or 1 with fewer messages. (A plain message has one record: it stays or goes whole.)
func (f *cleanFilter) rewriteLegacy(b Batch) (Batch, error) {
	first, last, timestamp := int64(-1), int64(-1), NoTimestamp
	var inner []byte
	err := f.eachKept(b, func(r Record) error {
		if first < 0 {
			first = r.Offset
		}
		last, timestamp = r.Offset, max(timestamp, r.Timestamp)
		offset := r.Offset
		if b.Magic() == 1 { // relative; what counts is the distance from the last one
			offset -= first
		}
		inner = appendLegacyMessage(inner, b.Magic(), byte(b.Attributes())&attrLogAppendTime, offset, r.Timestamp, r.Key, r.Value)
		return nil
	})
	if err != nil {
		return nil, err
	}
	value, err := DefaultCompression(b.Codec()).compress(nil, inner)
	if err != nil {
		return nil, fmt.Errorf("rewrite message set at offset %d: %w", b.BaseOffset(), err)
	}
	if b.TimestampType() == LogAppendTime {
		timestamp = b.MaxTimestamp()
	}
	return appendLegacyMessage(nil, b.Magic(), byte(b.Attributes()), last, timestamp, nil, value), nil
}

// appendLegacyMessage encodes one message of magic 0 or 1.
func appendLegacyMessage(dst []byte, magic int8, attributes byte, offset, timestamp int64, key, value []byte) []byte {
	be := binary.BigEndian
	start := len(dst)
	dst = be.AppendUint64(dst, uint64(offset))
	dst = append(dst, make([]byte, 8)...) // size and CRC follow
	dst = append(dst, byte(magic), attributes)
	if magic == 1 {
		dst = be.AppendUint64(dst, uint64(timestamp))
	}
	for _, field := range [][]byte{key, value} {
		if field == nil {
			dst = be.AppendUint32(dst, ^uint32(0))
			continue
		}
		dst = append(be.AppendUint32(dst, uint32(len(field))), field...)
	}
	m := dst[start:]
	be.PutUint32(m[posLength:], uint32(len(m)-LogOverhead))
	be.PutUint32(m[legacyPosCRC:], crc32.ChecksumIEEE(m[legacyPosMagic:]))
	return dst
}
