package faults

import (
	"encoding/binary"
	"hash/crc32"
)

// A record's value says by itself who wrote it, and whether it is whole:
//
//	magic 4 | run 8 | producer 4 | partition 4 | sequence 8 | length of the padding 4 | padding | CRC-32C 4
//
// all big-endian. The padding follows from the sequence.
const (
	valueMagic    = 0x0771a001
	valueOverhead = 36
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ident is one record that was handed to a producer: sequences count from 0 per producer and partition.
type ident struct {
	Producer int32
	Sequence int64
}

func encodeValue(run uint64, partition int32, id ident, padding int) []byte {
	out := make([]byte, 0, valueOverhead+padding)
	out = binary.BigEndian.AppendUint32(out, valueMagic)
	out = binary.BigEndian.AppendUint64(out, run)
	out = binary.BigEndian.AppendUint32(out, uint32(id.Producer))
	out = binary.BigEndian.AppendUint32(out, uint32(partition))
	out = binary.BigEndian.AppendUint64(out, uint64(id.Sequence))
	out = binary.BigEndian.AppendUint32(out, uint32(padding))
	for i := range padding {
		out = append(out, byte(id.Sequence*31+int64(i)*7))
	}
	return binary.BigEndian.AppendUint32(out, crc32.Checksum(out, castagnoli))
}

// decodeValue reports ok for a whole value that was written in this run to this partition.
func decodeValue(run uint64, partition int32, value []byte) (id ident, ok bool) {
	if len(value) < valueOverhead {
		return ident{}, false
	}
	body, sum := value[:len(value)-4], binary.BigEndian.Uint32(value[len(value)-4:])
	id = ident{Producer: int32(binary.BigEndian.Uint32(body[12:])), Sequence: int64(binary.BigEndian.Uint64(body[20:]))}
	ok = binary.BigEndian.Uint32(body) == valueMagic && binary.BigEndian.Uint64(body[4:]) == run &&
		int32(binary.BigEndian.Uint32(body[16:])) == partition && int(binary.BigEndian.Uint32(body[28:])) == len(value)-valueOverhead &&
		crc32.Checksum(body, castagnoli) == sum
	return id, ok
}
