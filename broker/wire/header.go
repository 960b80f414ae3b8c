package wire

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Keys that this package treats specially.
const (
	keyProduce            = 0
	keyLeaderAndISR       = 4
	keyStopReplica        = 5
	keyUpdateMetadata     = 6
	keyControlledShutdown = 7
	keySASLHandshake      = 17
	keyAPIVersions        = 18
	keySASLAuthenticate   = 36
)

// minHeaderBytes is the shortest request header: key, version, correlation id.
const minHeaderBytes = 8

var (
	errTruncated          = errors.New("request ends early")
	errUnknownKey         = errors.New("unknown request key")
	errUnsupportedVersion = errors.New("unsupported request version")
)

// header is a request header: v0 (key, version, correlation id), v1 (and a nullable client id), or v2 (and tagged fields; the client
// id keeps its two-byte length).
type header struct {
	key, version  int16
	correlationID int32
	clientID      []byte // nil when null
}

// flexibleFrom is the first version of each request key with compact lengths and tagged fields.
var flexibleFrom = func() (from [maxKey + 1]int16) {
	for key := range from {
		from[key] = 1<<15 - 1
		req := kmsg.RequestForKey(int16(key))
		if req == nil {
			continue
		}
		for v := int16(0); v <= req.MaxVersion(); v++ {
			req.SetVersion(v)
			if req.IsFlexible() {
				from[key] = v
				break
			}
		}
	}
	return from
}()

func knownKey(key int16) bool { return key >= 0 && key <= maxKey }

func isFlexible(key, version int16) bool { return version >= flexibleFrom[key] }

// parseHeader splits a frame into header and body.
func parseHeader(b []byte) (h header, body []byte, err error) {
	if len(b) < minHeaderBytes {
		return h, nil, errTruncated
	}
	h.key = int16(binary.BigEndian.Uint16(b))
	h.version = int16(binary.BigEndian.Uint16(b[2:]))
	h.correlationID = int32(binary.BigEndian.Uint32(b[4:]))
	b = b[minHeaderBytes:]
	if !knownKey(h.key) {
		return h, nil, errUnknownKey
	}
	if h.key == keyControlledShutdown && h.version == 0 {
		return h, b, nil
	}
	if len(b) < 2 {
		return h, nil, errTruncated
	}
	n := int(int16(binary.BigEndian.Uint16(b)))
	b = b[2:]
	if n > len(b) || n < -1 {
		return h, nil, errTruncated
	}
	if n >= 0 {
		h.clientID, b = b[:n:n], b[n:]
	}
	if isFlexible(h.key, h.version) {
		if b, err = skipTags(b); err != nil {
			return h, nil, err
		}
	}
	return h, b, nil
}

// skipTags skips a section of tagged fields: uvarint count, then uvarint tag, uvarint size and the bytes of each.
func skipTags(b []byte) ([]byte, error) {
	count, b, ok := uvarint(b)
	if !ok || uint64(count)*2 > uint64(len(b)) {
		return nil, errTruncated
	}
	for ; count > 0; count-- {
		if _, b, ok = uvarint(b); !ok {
			return nil, errTruncated
		}
		var size uint32
		if size, b, ok = uvarint(b); !ok || uint64(size) > uint64(len(b)) {
			return nil, errTruncated
		}
		b = b[size:]
	}
	return b, nil
}

// uvarint reads an unsigned varint of at most 32 bits.
func uvarint(b []byte) (v uint32, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 {
		return uint32(b[0]), b[1:], true
	}
	x, n := binary.Uvarint(b)
	if n <= 0 || x > 1<<32-1 {
		return 0, nil, false
	}
	return uint32(x), b[n:], true
}

func appendUvarint(dst []byte, v uint32) []byte { return binary.AppendUvarint(dst, uint64(v)) }

// appendRequestHeader appends the header of a request that a client sends. Source: as parseHeader.
func appendRequestHeader(dst []byte, key, version int16, correlationID int32, clientID string) []byte {
	dst = binary.BigEndian.AppendUint16(dst, uint16(key))
	dst = binary.BigEndian.AppendUint16(dst, uint16(version))
	dst = binary.BigEndian.AppendUint32(dst, uint32(correlationID))
	if key == keyControlledShutdown && version == 0 {
		return dst
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(clientID)))
	dst = append(dst, clientID...)
	if isFlexible(key, version) {
		dst = append(dst, 0)
	}
	return dst
}

// hasResponseTags reports whether a response header ends with tagged fields. The answer to ApiVersions never does, so that a
// client can read it whatever version the broker chose.
func hasResponseTags(key, version int16) bool {
	return key != keyAPIVersions && isFlexible(key, version)
}

// requestName is the name of a request key for logs and errors.
func requestName(key int16) string {
	if name := kmsg.NameForKey(key); name != "" && name != "Unknown" {
		return name
	}
	return fmt.Sprintf("key %d", key)
}
