package zkcoord

import (
	"encoding/binary"
	"fmt"
)

// The few records of ZooKeeper's protocol that go past the client library. Integers are big-endian; a string or buffer is an
// int32 length (-1 = null) and its bytes.
const (
	opcodeExists       = 3
	opcodeGetData      = 4
	opcodeGetChildren2 = 12
	opcodeMultiRead    = 22
	opcodeError        = -1

	statBytes = 68
)

// Error codes of the server that are not the library's to translate here.
const (
	codeUnimplemented = -6
	codeBadArguments  = -8
	codeNoNode        = -101
	codeNoAuth        = -102
	codeSessionExpiry = -112
	codeSessionMoved  = -118
)

func appendString(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// appendPathRequest is the request of exists, getData and getChildren2.
func appendPathRequest(b []byte, path string, watch bool) []byte {
	return appendBool(appendString(b, path), watch)
}

func appendMultiHeader(b []byte, kind int32, done bool) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(kind))
	b = appendBool(b, done)
	return binary.BigEndian.AppendUint32(b, 0xffffffff)
}

// juteReader reads an answer. After the first shortage every read returns zero values and err is set.
type juteReader struct {
	b   []byte
	err error
}

func (r *juteReader) take(n int) []byte {
	if r.err == nil && (n < 0 || n > len(r.b)) {
		r.err = fmt.Errorf("%w: the server's answer is too short", ErrInvalid)
	}
	if r.err != nil {
		return nil
	}
	taken := r.b[:n:n]
	r.b = r.b[n:]
	return taken
}

func (r *juteReader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *juteReader) bool() bool {
	b := r.take(1)
	return b != nil && b[0] != 0
}

// bytes returns a part of the answer, not a copy; null is nil.
func (r *juteReader) bytes() []byte {
	n := r.int32()
	if r.err != nil || n == -1 {
		return nil
	}
	return r.take(int(n))
}

func (r *juteReader) stat() Stat {
	b := r.take(statBytes)
	if b == nil {
		return Stat{}
	}
	return Stat{
		Czxid:          int64(binary.BigEndian.Uint64(b)),
		Mzxid:          int64(binary.BigEndian.Uint64(b[8:])),
		Ctime:          int64(binary.BigEndian.Uint64(b[16:])),
		Version:        int32(binary.BigEndian.Uint32(b[32:])),
		Cversion:       int32(binary.BigEndian.Uint32(b[36:])),
		EphemeralOwner: int64(binary.BigEndian.Uint64(b[44:])),
		NumChildren:    int32(binary.BigEndian.Uint32(b[56:])),
	}
}

func codeError(code int32) error {
	switch code {
	case 0:
		return nil
	case codeNoNode:
		return ErrNoNode
	case codeNoAuth:
		return ErrNoAuth
	case codeBadArguments:
		return ErrInvalid
	case codeSessionExpiry:
		return ErrSessionLost
	case codeSessionMoved:
		return ErrConnectionLost
	}
	return fmt.Errorf("ZooKeeper error %d", code)
}
