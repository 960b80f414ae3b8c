package logstore

import (
	"encoding/binary"
	"hash/crc32"
)

func putI64(b []byte, v int64) { binary.BigEndian.PutUint64(b, uint64(v)) }
func putI32(b []byte, v int32) { binary.BigEndian.PutUint32(b, uint32(v)) }

func appendI64(b []byte, v int64) []byte { return binary.BigEndian.AppendUint64(b, uint64(v)) }

func crcIEEE(b []byte) uint32 { return crc32.ChecksumIEEE(b) }

// appendLegacyBytes appends a field of a magic-0 or magic-1 message.
func appendLegacyBytes(dst, field []byte) []byte {
	if field == nil {
		return binary.BigEndian.AppendUint32(dst, 0xffffffff)
	}
	return append(binary.BigEndian.AppendUint32(dst, uint32(len(field))), field...)
}

func crcCastagnoli(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }
