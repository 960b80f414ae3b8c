package logstore

import (
	"encoding/binary"
	"errors"
)

// A message of magic 0 or 1. A wrapper's value is a compressed sequence of messages, its offset that of the last of them.
// Inner offsets are absolute in magic 0 and count from 0 in magic 1.
//
//	 0  int64   offset          18  int64  timestamp (magic 1 only)
//	 8  int32   size            …   int32  key length (-1 null), key
//	12  uint32  CRC-32 (IEEE)   …   int32  value length (-1 null), value
//	16  int8    magic
//	17  int8    attributes: codec, bit 3 timestamp type (magic 1)
//
// Source: KIP-31, KIP-32.
const (
	legacyPosCRC        = 12
	legacyPosMagic      = 16
	legacyPosAttributes = 17
	legacyPosTimestamp  = 18
)

var (
	errLegacyFields = errors.New("key or value does not fit the message")
	errLegacyNested = errors.New("compressed message inside of a compressed message")
	errLegacyMagic  = errors.New("message of another format inside of a compressed message")
	errLegacyEmpty  = errors.New("compressed message without messages")
	errLegacyZstd   = errors.New("zstd in an old message format")
)

func legacyCorrupt(cause error) error { return &CorruptError{What: "message", Cause: cause} }

// legacyFields finds key and value of one message.
func (b Batch) legacyFields() (key, value []byte, err error) {
	rest := []byte(b[legacyPosTimestamp:])
	if b.Magic() == 1 {
		rest = rest[8:]
	}
	if key, rest, err = legacyBytes(rest); err != nil {
		return nil, nil, err
	}
	if value, rest, err = legacyBytes(rest); err != nil {
		return nil, nil, err
	}
	if len(rest) != 0 {
		return nil, nil, legacyCorrupt(errLegacyFields)
	}
	return key, value, nil
}

func legacyBytes(buf []byte) (field, rest []byte, err error) {
	if len(buf) < 4 {
		return nil, nil, legacyCorrupt(errLegacyFields)
	}
	n := int32(binary.BigEndian.Uint32(buf))
	buf = buf[4:]
	if n < 0 {
		return nil, buf, nil
	}
	if int(n) > len(buf) {
		return nil, nil, legacyCorrupt(errLegacyFields)
	}
	return buf[:n:n], buf[n:], nil
}

// legacyRecords yields the messages of a plain message or a wrapper.
func (b Batch) legacyRecords(yield func(Record, error) bool) {
	key, value, err := b.legacyFields()
	if err != nil {
		yield(Record{}, err)
		return
	}
	if b.Codec() == CodecNone {
		yield(Record{Offset: b.BaseOffset(), Timestamp: b.MaxTimestamp(), Key: key, Value: value}, nil)
		return
	}
	inner, first, err := b.legacyInner(value)
	if err != nil {
		yield(Record{}, err)
		return
	}
	for len(inner) > 0 {
		m, rest, err := NextBatch(inner)
		if err == nil {
			key, value, err = m.legacyFields()
		}
		if err != nil {
			yield(Record{}, legacyCorrupt(err))
			return
		}
		inner = rest
		r := Record{Offset: first + m.BaseOffset(), Timestamp: m.MaxTimestamp(), Key: key, Value: value}
		if b.TimestampType() == LogAppendTime {
			r.Timestamp = b.MaxTimestamp()
		}
		if !yield(r, nil) {
			return
		}
	}
}

// legacyInner decompresses a wrapper's value and checks the inner messages. base is what to add to inner offsets.
func (b Batch) legacyInner(value []byte) (inner []byte, base int64, err error) {
	if b.Codec() > CodecLZ4 {
		return nil, 0, legacyCorrupt(errLegacyZstd)
	}
	if inner, err = b.Codec().decompress(nil, value, DecompressedBytesMax); err != nil {
		return nil, 0, err
	}
	last := int64(-1)
	for rest := inner; len(rest) > 0; {
		var m Batch
		if m, rest, err = NextBatch(rest); err != nil {
			return nil, 0, legacyCorrupt(err)
		}
		if m.Magic() != b.Magic() {
			return nil, 0, legacyCorrupt(errLegacyMagic)
		}
		if m.Codec() != CodecNone {
			return nil, 0, legacyCorrupt(errLegacyNested)
		}
		last = m.BaseOffset()
	}
	if len(inner) == 0 {
		return nil, 0, legacyCorrupt(errLegacyEmpty)
	}
	if b.Magic() == 1 && b.BaseOffset() != 0 { // a wrapper at 0 comes from a producer that did not count
		base = b.BaseOffset() - last
	}
	return inner, base, nil
}

// FirstOffset returns the first offset also for magic 0 and 1, which costs decompression there.
func (b Batch) FirstOffset() (int64, error) {
	if b.Magic() >= 2 || b.Codec() == CodecNone {
		return b.BaseOffset(), nil
	}
	for r, err := range b.Records() {
		return r.Offset, err
	}
	return 0, legacyCorrupt(errLegacyEmpty)
}
