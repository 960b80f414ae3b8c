package diff

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// began is the time of every record, the same for both brokers.
var began = time.Now().UnixMilli()

// batchOf describes a batch of format 2, without compression.
type batchOf struct {
	records    []record
	timestamp  int64 // 0: began
	attributes int16
	baseOffset int64
	producer   int64 // 0: none
	epoch      int16
	sequence   int32
	damage     func(b []byte) // before the checksum is made
	after      func(b []byte) // and after
	magic      byte           // 0: 2
}

type record struct {
	key, value []byte
	delta      int64 // of its timestamp
}

// values are records with keys.
func values(texts ...string) []record {
	out := make([]record, len(texts))
	for i, text := range texts {
		out[i] = record{key: []byte("k"), value: []byte(text), delta: int64(i)}
	}
	return out
}

func (o batchOf) bytes() []byte {
	if o.timestamp == 0 {
		o.timestamp = began
	}
	if o.magic == 0 {
		o.magic = 2
	}
	b := make([]byte, 61)
	binary.BigEndian.PutUint64(b, uint64(o.baseOffset))
	b[16] = o.magic
	binary.BigEndian.PutUint16(b[21:], uint16(o.attributes))
	binary.BigEndian.PutUint32(b[23:], uint32(len(o.records)-1))
	newest := int64(0)
	for _, r := range o.records {
		newest = max(newest, r.delta)
	}
	binary.BigEndian.PutUint64(b[27:], uint64(o.timestamp))
	binary.BigEndian.PutUint64(b[35:], uint64(o.timestamp+newest))
	for i := 43; i < 57; i++ {
		b[i] = 255
	}
	if o.producer != 0 {
		binary.BigEndian.PutUint64(b[43:], uint64(o.producer))
		binary.BigEndian.PutUint16(b[51:], uint16(o.epoch))
		binary.BigEndian.PutUint32(b[53:], uint32(o.sequence))
	}
	binary.BigEndian.PutUint32(b[57:], uint32(len(o.records)))
	for i, r := range o.records {
		body := []byte{0}
		body = binary.AppendVarint(body, r.delta)
		body = binary.AppendVarint(body, int64(i))
		body = appendBytes(body, r.key)
		body = appendBytes(body, r.value)
		body = append(body, 0)
		b = binary.AppendVarint(b, int64(len(body)))
		b = append(b, body...)
	}
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	if o.damage != nil {
		o.damage(b)
	}
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	if o.after != nil {
		o.after(b)
	}
	return b
}

func appendBytes(b, field []byte) []byte {
	if field == nil {
		return append(b, 1)
	}
	return append(binary.AppendVarint(b, int64(len(field))), field...)
}

// oldMessage is a message set of one message in format 0 or 1.
func oldMessage(magic byte, value string) []byte {
	body := []byte{magic, 0}
	if magic == 1 {
		body = binary.BigEndian.AppendUint64(body, uint64(began))
	}
	body = binary.BigEndian.AppendUint32(body, 0xffffffff)
	body = binary.BigEndian.AppendUint32(body, uint32(len(value)))
	body = append(body, value...)
	b := make([]byte, 16, 64)
	binary.BigEndian.PutUint32(b[8:], uint32(4+len(body)))
	binary.BigEndian.PutUint32(b[12:], crc32.ChecksumIEEE(body))
	return append(b, body...)
}
