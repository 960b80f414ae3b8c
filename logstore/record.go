package logstore

import (
	"encoding/binary"
	"errors"
	"iter"
	"math"
)

// A record in a batch of magic 2. Varints are zig-zag, in groups of seven bits, low ones first.
//
//	varint  length of what follows      varint  key length (-1 null), key
//	int8    attributes, 0               varint  value length (-1 null), value
//	varlong timestamp delta             varint  number of headers, then each:
//	varint  offset delta                        varint key length, key; varint value length (-1 null), value
//
// Source: KIP-82, KIP-98.

// Header is one header of a record. Value nil means null.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record of a batch. Key and Value nil mean null.
type Record struct {
	Offset    int64
	Timestamp int64 // ms since 1970, -1 none
	Key       []byte
	Value     []byte
	Headers   []Header
}

// Records iterates over the batch's records in order; it decompresses when needed, at most DecompressedBytesMax. An error
// (it matches ErrCorrupt) is the last thing that is yielded. Keys and values alias the batch, or its decompressed copy that
// is theirs alone: they stay valid as long as the batch's memory does. The slice of headers is reused by the next record.
// Control records are yielded like others.
func (b Batch) Records() iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		if b.Magic() < 2 {
			b.legacyRecords(yield)
			return
		}
		body, err := b.plainRecords(nil)
		if err != nil {
			yield(Record{}, err)
			return
		}
		yieldRecords(b, body, yield)
	}
}

// plainRecords returns the record bytes without compression: the batch's own, or appended to scratch.
func (b Batch) plainRecords(scratch []byte) ([]byte, error) {
	body := []byte(b[posRecords:])
	codec := b.Codec()
	if codec == CodecNone || len(body) == 0 && b.Count() == 0 {
		return body, nil
	}
	return codec.decompress(scratch, body, DecompressedBytesMax)
}

func yieldRecords(b Batch, body []byte, yield func(Record, error) bool) {
	w := newRecordWalk(b, body)
	var headers []Header
	for w.next() {
		r := Record{Offset: w.offset(), Timestamp: w.timestamp(), Key: w.key(), Value: w.value()}
		if w.headerCount > 0 {
			headers = w.headers(headers[:0])
			r.Headers = headers
		}
		if !yield(r, nil) {
			return
		}
	}
	if w.err != nil {
		yield(Record{}, w.err)
	}
}

// recordWalk goes over plain record bytes in place. It allocates nothing per record; each next checks one whole record.
type recordWalk struct {
	buf  []byte
	pos  int // start of the next record
	left int32
	err  error

	baseOffset, baseTimestamp, appendTime int64
	isAppendTime                          bool

	// The record that next found.
	start, end     int // with its length field
	timestampDelta int64
	offsetDelta    int32
	keyPos, keyLen int // keyLen -1: null
	valPos, valLen int
	headerCount    int
	headersPos     int
}

func newRecordWalk(b Batch, body []byte) recordWalk {
	return recordWalk{
		buf: body, left: b.Count(),
		baseOffset: b.BaseOffset(), baseTimestamp: b.BaseTimestamp(),
		appendTime: b.MaxTimestamp(), isAppendTime: b.TimestampType() == LogAppendTime,
	}
}

var (
	errRecordCut    = errors.New("record ends early")
	errRecordLength = errors.New("record length is wrong")
	errVarint       = errors.New("varint is too long")
	errTrailing     = errors.New("bytes after the last record")
	errHeaders      = errors.New("header count is wrong")
	errCount        = errors.New("record count is negative")
)

// next moves to the next record. False: the end, or w.err is set.
func (w *recordWalk) next() bool {
	if w.left <= 0 {
		if w.left < 0 {
			w.fail(errCount)
		} else if w.err == nil && w.pos != len(w.buf) {
			w.fail(errTrailing)
		}
		return false
	}
	if cause := w.parse(); cause != nil {
		w.fail(cause)
		return false
	}
	w.left--
	return true
}

func (w *recordWalk) fail(cause error) {
	w.left = 0
	w.err = &CorruptError{What: "records", Cause: cause}
}

func (w *recordWalk) parse() error {
	buf, pos := w.buf, w.pos
	w.start = pos
	length, pos := varint(buf, pos)
	if pos < 0 {
		return errRecordCut
	}
	if length < 0 || int(length) > len(buf)-pos {
		return errRecordCut
	}
	end := pos + int(length)
	buf = buf[:end] // nothing of this record may lie behind its end
	w.end, w.pos = end, end
	pos++ // attributes
	if pos > end {
		return errRecordLength
	}
	w.timestampDelta, pos = varlong(buf, pos)
	if pos < 0 {
		return errVarint
	}
	w.offsetDelta, pos = varint(buf, pos)
	if pos < 0 {
		return errVarint
	}
	if w.keyPos, w.keyLen, pos = nullableBytes(buf, pos); pos < 0 {
		return errRecordLength
	}
	if w.valPos, w.valLen, pos = nullableBytes(buf, pos); pos < 0 {
		return errRecordLength
	}
	count, pos := varint(buf, pos)
	if pos < 0 || count < 0 || int(count) > end-pos {
		return errHeaders
	}
	w.headerCount, w.headersPos = int(count), pos
	for range count {
		if pos = skipHeader(buf, pos); pos < 0 {
			return errHeaders
		}
	}
	if pos != end {
		return errRecordLength
	}
	return nil
}

func (w *recordWalk) offset() int64 { return w.baseOffset + int64(w.offsetDelta) }

func (w *recordWalk) timestamp() int64 {
	if w.isAppendTime {
		return w.appendTime
	}
	return w.baseTimestamp + w.timestampDelta
}

func (w *recordWalk) key() []byte   { return cut(w.buf, w.keyPos, w.keyLen) }
func (w *recordWalk) value() []byte { return cut(w.buf, w.valPos, w.valLen) }

func (w *recordWalk) headers(into []Header) []Header {
	pos := w.headersPos
	for range w.headerCount {
		var h Header
		var at, n int
		at, n, pos = nullableBytes(w.buf, pos)
		h.Key = string(cut(w.buf, at, n))
		at, n, pos = nullableBytes(w.buf, pos)
		h.Value = cut(w.buf, at, n)
		into = append(into, h)
	}
	return into
}

func cut(buf []byte, pos, n int) []byte {
	if n < 0 {
		return nil
	}
	return buf[pos : pos+n : pos+n]
}

// nullableBytes finds a length-prefixed field: its place, its length (-1 null) and what follows; next is -1 if it is not there.
func nullableBytes(buf []byte, pos int) (at, n, next int) {
	length, pos := varint(buf, pos)
	if pos < 0 {
		return 0, 0, -1
	}
	if length < 0 { // Kafka reads every negative length as null
		return pos, -1, pos
	}
	if int(length) > len(buf)-pos {
		return 0, 0, -1
	}
	return pos, int(length), pos + int(length)
}

func skipHeader(buf []byte, pos int) int {
	_, n, pos := nullableBytes(buf, pos)
	if pos < 0 || n < 0 { // a header's key is never null
		return -1
	}
	_, _, pos = nullableBytes(buf, pos)
	return pos
}

// varint decodes a zig-zag int32 of at most 5 bytes. next is -1 when it is cut or too long.
func varint(buf []byte, pos int) (v int32, next int) {
	if uint(pos) < uint(len(buf)) && buf[pos] < 0x80 { // most are one byte
		u := uint32(buf[pos])
		return int32(u>>1) ^ -int32(u&1), pos + 1
	}
	var u uint32
	for shift := uint(0); shift < 35; shift += 7 {
		if uint(pos) >= uint(len(buf)) {
			return 0, -1
		}
		c := buf[pos]
		pos++
		u |= uint32(c&0x7f) << shift
		if c < 0x80 {
			return int32(u>>1) ^ -int32(u&1), pos
		}
	}
	return 0, -1
}

// varlong decodes a zig-zag int64 of at most 10 bytes. next is -1 when it is cut or too long.
func varlong(buf []byte, pos int) (v int64, next int) {
	if uint(pos) < uint(len(buf)) && buf[pos] < 0x80 {
		u := uint64(buf[pos])
		return int64(u>>1) ^ -int64(u&1), pos + 1
	}
	var u uint64
	for shift := uint(0); shift < 70; shift += 7 {
		if uint(pos) >= uint(len(buf)) {
			return 0, -1
		}
		c := buf[pos]
		pos++
		u |= uint64(c&0x7f) << shift
		if c < 0x80 {
			return int64(u>>1) ^ -int64(u&1), pos
		}
	}
	return 0, -1
}

// appendVarint appends v as a zig-zag varint; it serves varint and varlong, as the bytes are the same.
func appendVarint(dst []byte, v int64) []byte { return binary.AppendVarint(dst, v) }

func varintSize(v int64) int {
	n := 1
	for u := uint64(v<<1) ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

// appendRecord encodes a record of a magic-2 batch.
func appendRecord(dst []byte, timestampDelta int64, offsetDelta int32, r *Record) ([]byte, error) {
	body := 1 + varintSize(timestampDelta) + varintSize(int64(offsetDelta)) + bytesSize(r.Key) + bytesSize(r.Value) + varintSize(int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		body += varintSize(int64(len(h.Key))) + len(h.Key) + bytesSize(h.Value)
	}
	if body > math.MaxInt32-16 {
		return dst, errRecordLength
	}
	dst = appendVarint(dst, int64(body))
	dst = append(dst, 0)
	dst = appendVarint(dst, timestampDelta)
	dst = appendVarint(dst, int64(offsetDelta))
	dst = appendBytes(dst, r.Key)
	dst = appendBytes(dst, r.Value)
	dst = appendVarint(dst, int64(len(r.Headers)))
	for i := range r.Headers {
		h := &r.Headers[i]
		dst = appendVarint(dst, int64(len(h.Key)))
		dst = append(dst, h.Key...)
		dst = appendBytes(dst, h.Value)
	}
	return dst, nil
}

func bytesSize(b []byte) int {
	if b == nil {
		return 1
	}
	return varintSize(int64(len(b))) + len(b)
}

func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return appendVarint(dst, -1)
	}
	dst = appendVarint(dst, int64(len(b)))
	return append(dst, b...)
}
