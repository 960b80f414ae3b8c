package logstore

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
)

// Codec is a batch's compression, with the numbers of the attributes.
type Codec int8

// The codecs. CodecProducer is no codec of a batch but the setting compression.type=producer: keep what the producer chose.
const (
	CodecProducer Codec = -1
	CodecNone     Codec = 0
	CodecGzip     Codec = 1
	CodecSnappy   Codec = 2
	CodecLZ4      Codec = 3
	CodecZstd     Codec = 4
)

// DecompressedBytesMax bounds what one batch may decompress to. Kafka has no such bound (it streams); a batch that a
// producer with default settings can make stays far below. Beyond it a batch counts as corrupt.
const DecompressedBytesMax = 128 << 20

// Levels of compression.gzip.level, compression.lz4.level and compression.zstd.level that are their defaults. Source: KIP-390.
const (
	GzipLevelDefault = -1
	LZ4LevelDefault  = 9
	ZstdLevelDefault = 3
)

// Compression is what a topic wants: compression.type with the codec's level (KIP-390). The zero value is "uncompressed".
// Levels outside of a codec's range are moved into it. Snappy has no level.
type Compression struct {
	Codec Codec
	Level int
}

// DefaultCompression returns a codec with its default level.
func DefaultCompression(c Codec) Compression {
	switch c {
	case CodecGzip:
		return Compression{c, GzipLevelDefault}
	case CodecLZ4:
		return Compression{c, LZ4LevelDefault}
	case CodecZstd:
		return Compression{c, ZstdLevelDefault}
	}
	return Compression{Codec: c}
}

var codecNames = map[Codec]string{CodecProducer: "producer", CodecNone: "uncompressed", CodecGzip: "gzip", CodecSnappy: "snappy", CodecLZ4: "lz4", CodecZstd: "zstd"}

// ParseCodec reads a value of compression.type.
func ParseCodec(name string) (Codec, bool) {
	for c, n := range codecNames {
		if n == name {
			return c, true
		}
	}
	return CodecNone, false
}

func (c Codec) String() string {
	if name, ok := codecNames[c]; ok {
		return name
	}
	return fmt.Sprintf("codec %d", int8(c))
}

// Valid reports whether a batch may carry this codec.
func (c Codec) Valid() bool { return c >= CodecNone && c <= CodecZstd }

var (
	errTooLarge   = errors.New("decompresses to more than is allowed")
	errLZ4Frame   = errors.New("no valid lz4 frame")
	errLZ4Blocks  = errors.New("lz4 frame with dependent blocks or a dictionary")
	errSnappy     = errors.New("no valid snappy data")
	errTruncated  = errors.New("compressed data ends early")
	errHead       = errors.New("wrong first bytes")
	errNoSuch     = errors.New("no such codec")
	errZstdWindow = errors.New("zstd window too large")
)

// decompress appends the plain form of src to dst, at most limit bytes of it. Memory grows with what really comes out: a
// declared size is believed only as far as src can pay for it. Errors match ErrCorrupt.
func (c Codec) decompress(dst, src []byte, limit int) ([]byte, error) {
	var err error
	switch c {
	case CodecNone:
		return append(dst, src...), nil
	case CodecGzip:
		dst, err = gunzip(dst, src, limit)
	case CodecSnappy:
		dst, err = unsnappy(dst, src, limit)
	case CodecLZ4:
		dst, err = unlz4(dst, src, limit)
	case CodecZstd:
		dst, err = unzstd(dst, src, limit)
	default:
		err = errNoSuch
	}
	if err != nil {
		return dst, &CorruptError{What: c.String(), Cause: err}
	}
	return dst, nil
}

// checkHead looks at the first bytes of a compressed block, cheaply: what passes may still be wrong further on. It keeps out
// what is plainly not of this codec. Errors match ErrCorrupt.
func (c Codec) checkHead(src []byte) error {
	ok, cause := true, errHead
	switch c {
	case CodecNone:
	case CodecGzip:
		ok = len(src) >= 18 && src[0] == 0x1f && src[1] == 0x8b && src[2] == 8
	case CodecSnappy:
		ok = bytes.HasPrefix(src, xerialMagic) || isSnappyBlock(src)
	case CodecLZ4:
		_, cause = parseLZ4Header(src)
		ok = cause == nil
	case CodecZstd:
		ok = len(src) >= 8 && binary.LittleEndian.Uint32(src) == zstdMagic
	default:
		ok, cause = false, errNoSuch
	}
	if !ok {
		return &CorruptError{What: c.String(), Cause: cause}
	}
	return nil
}

// compress appends the compressed form of src to dst.
func (z Compression) compress(dst, src []byte) ([]byte, error) {
	switch z.Codec {
	case CodecNone:
		return append(dst, src...), nil
	case CodecGzip:
		return gzipTo(dst, src, z.Level)
	case CodecSnappy:
		return snappyTo(dst, src), nil
	case CodecLZ4:
		return lz4To(dst, src, z.Level)
	case CodecZstd:
		return zstdTo(dst, src, z.Level)
	}
	return dst, &CorruptError{What: z.Codec.String(), Cause: errNoSuch}
}

// ---- gzip

var gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}

func gunzip(dst, src []byte, limit int) ([]byte, error) {
	r := gzipReaders.Get().(*gzip.Reader)
	defer gzipReaders.Put(r)
	if err := r.Reset(bytes.NewReader(src)); err != nil {
		return dst, err
	}
	return readAllInto(dst, r, limit)
}

// readAllInto appends all of r to dst, at most limit bytes, and doubles the memory as bytes really arrive.
func readAllInto(dst []byte, r io.Reader, limit int) ([]byte, error) {
	start := len(dst)
	for {
		if len(dst) == cap(dst) {
			dst = slices.Grow(dst, max(4096, len(dst)-start))
		}
		n, err := r.Read(dst[len(dst):cap(dst)])
		dst = dst[:len(dst)+n]
		if len(dst)-start > limit {
			return dst, errTooLarge
		}
		if err == io.EOF {
			return dst, nil
		}
		if err != nil {
			return dst, err
		}
	}
}

// gzipWriters has a pool per level -2 (Huffman only) … 9, shifted by 2.
var gzipWriters [12]sync.Pool

func gzipTo(dst, src []byte, level int) ([]byte, error) {
	level = min(max(level, gzip.DefaultCompression), gzip.BestCompression)
	pool := &gzipWriters[level+2]
	out := bytes.NewBuffer(dst)
	w, _ := pool.Get().(*gzip.Writer)
	if w == nil {
		var err error
		if w, err = gzip.NewWriterLevel(out, level); err != nil {
			return dst, fmt.Errorf("gzip level %d: %w", level, err)
		}
	} else {
		w.Reset(out)
	}
	defer pool.Put(w)
	if _, err := w.Write(src); err != nil {
		return dst, fmt.Errorf("gzip: %w", err)
	}
	if err := w.Close(); err != nil {
		return dst, fmt.Errorf("gzip: %w", err)
	}
	return out.Bytes(), nil
}

// ---- snappy

// xerialMagic begins the stream that Java's clients and librdkafka write: magic, two int32 versions, then chunks of an int32
// length and one raw block. Some clients send one raw block without any of it.
var xerialMagic = []byte{0x82, 'S', 'N', 'A', 'P', 'P', 'Y', 0}

const (
	xerialHeader = 16
	xerialBlock  = 32 << 10 // plain bytes per chunk, as Kafka writes
	// snappyRatioMax is more than one byte of snappy can expand to: a copy of 3 bytes yields at most 64.
	snappyRatioMax = 22
)

func unsnappy(dst, src []byte, limit int) ([]byte, error) {
	if !bytes.HasPrefix(src, xerialMagic) {
		return unsnappyBlock(dst, src, limit)
	}
	end := len(dst) + limit
	for len(src) > 0 {
		if bytes.HasPrefix(src, xerialMagic) { // streams may be concatenated
			if len(src) < xerialHeader {
				return dst, errTruncated
			}
			src = src[xerialHeader:]
			continue
		}
		if len(src) < 4 {
			return dst, errTruncated
		}
		n := binary.BigEndian.Uint32(src)
		if uint64(n) > uint64(len(src)-4) {
			return dst, errTruncated
		}
		var err error
		if dst, err = unsnappyBlock(dst, src[4:4+n], end-len(dst)); err != nil {
			return dst, err
		}
		src = src[4+n:]
	}
	return dst, nil
}

// isSnappyBlock reports whether src can be one raw block: a length that it can pay for, then a literal.
func isSnappyBlock(src []byte) bool {
	n, size := binary.Uvarint(src)
	return size > 0 && size < len(src) && n > 0 && n <= uint64(snappyRatioMax*len(src)) && src[size]&3 == 0
}

func unsnappyBlock(dst, src []byte, limit int) ([]byte, error) {
	n, err := snappy.DecodedLen(src)
	if err != nil {
		return dst, errSnappy
	}
	if n > limit {
		return dst, errTooLarge
	}
	if n > snappyRatioMax*len(src) {
		return dst, errSnappy
	}
	dst = slices.Grow(dst, n)
	if _, err := snappy.Decode(dst[len(dst):len(dst)+n], src); err != nil {
		return dst, errSnappy
	}
	return dst[:len(dst)+n], nil
}

func snappyTo(dst, src []byte) []byte {
	dst = append(dst, xerialMagic...)
	dst = append(dst, 0, 0, 0, 1, 0, 0, 0, 1)
	for len(src) > 0 {
		n := min(len(src), xerialBlock)
		dst = slices.Grow(dst, 4+s2.MaxEncodedLen(n))
		at := len(dst)
		block := snappy.Encode(dst[at+4:cap(dst)], src[:n])
		dst = dst[:at+4+len(block)]
		binary.BigEndian.PutUint32(dst[at:], uint32(len(block)))
		src = src[n:]
	}
	return dst
}

// ---- lz4

// The frame is parsed here and not by the library, because blocks then go straight to their place, memory is bounded by the
// input, and the historic wrong header checksum of magic-0 messages does not matter. Kafka's readers refuse dependent
// blocks, so they are refused.
const (
	lz4Magic        = 0x184D2204
	lz4Uncompressed = 1 << 31
	lz4RatioMax     = 255 // one byte of a length adds at most 255 bytes
)

type lz4Header struct {
	size                           int // of the header
	blockMax                       int // plain bytes per block
	blockChecksum, contentChecksum bool
	checksumOK                     bool
}

func parseLZ4Header(src []byte) (lz4Header, error) {
	var h lz4Header
	if len(src) < 7 || binary.LittleEndian.Uint32(src) != lz4Magic {
		return h, errLZ4Frame
	}
	flags, descriptor := src[4], src[5]
	if flags>>6 != 1 || descriptor&0x8f != 0 || descriptor>>4 < 4 {
		return h, errLZ4Frame
	}
	if flags&(1<<5) == 0 || flags&1 != 0 {
		return h, errLZ4Blocks
	}
	h.blockChecksum = flags&(1<<4) != 0
	h.contentChecksum = flags&(1<<2) != 0
	h.blockMax = 1 << (8 + 2*(descriptor>>4)) // 4: 64 KiB … 7: 4 MiB
	h.size = 7
	if flags&(1<<3) != 0 {
		h.size += 8 // content size
	}
	if len(src) < h.size {
		return h, errTruncated
	}
	sum := src[h.size-1]
	h.checksumOK = sum == byte(xxh32(src[4:h.size-1])>>8)
	return h, nil
}

func unlz4(dst, src []byte, limit int) ([]byte, error) {
	end := len(dst) + limit
	for len(src) > 0 {
		h, err := parseLZ4Header(src)
		if err != nil {
			return dst, err
		}
		src = src[h.size:]
		if dst, src, err = unlz4Blocks(dst, src, h, end); err != nil {
			return dst, err
		}
	}
	return dst, nil
}

func unlz4Blocks(dst, src []byte, h lz4Header, end int) (out, rest []byte, err error) {
	for {
		if len(src) < 4 {
			return dst, nil, errTruncated
		}
		word := binary.LittleEndian.Uint32(src)
		src = src[4:]
		if word == 0 { // end mark
			break
		}
		n := int(word &^ lz4Uncompressed)
		if n > len(src) || n > h.blockMax {
			return dst, nil, errTruncated
		}
		if dst, err = unlz4Block(dst, src[:n], word&lz4Uncompressed != 0, h.blockMax); err != nil {
			return dst, nil, err
		}
		if len(dst) > end {
			return dst, nil, errTooLarge
		}
		src = src[n:]
		if h.blockChecksum {
			if len(src) < 4 {
				return dst, nil, errTruncated
			}
			src = src[4:]
		}
	}
	if !h.contentChecksum {
		return dst, src, nil
	}
	if len(src) < 4 {
		return dst, nil, errTruncated
	}
	return dst, src[4:], nil
}

func unlz4Block(dst, block []byte, plain bool, blockMax int) ([]byte, error) {
	if plain {
		return append(dst, block...), nil
	}
	room := min(blockMax, lz4RatioMax*len(block)+64)
	dst = slices.Grow(dst, room)
	n, err := lz4.UncompressBlock(block, dst[len(dst):len(dst)+room])
	if err != nil {
		return dst, err
	}
	return dst[:len(dst)+n], nil
}

// xxh32 is the 32-bit xxHash with seed 0 of less than 16 bytes, which is what an lz4 frame descriptor has.
func xxh32(b []byte) uint32 {
	const p1, p2, p3, p4, p5 = 2654435761, 2246822519, 3266489917, 668265263, 374761393
	h := uint32(p5) + uint32(len(b))
	for ; len(b) >= 4; b = b[4:] {
		h = bits.RotateLeft32(h+binary.LittleEndian.Uint32(b)*p3, 17) * p4
	}
	for _, c := range b {
		h = bits.RotateLeft32(h+uint32(c)*p5, 11) * p1
	}
	h = (h ^ h>>15) * p2
	h = (h ^ h>>13) * p3
	return h ^ h>>16
}

// lz4Writers has a pool per level 0 (fast) … 9 of the library.
var lz4Writers [10]sync.Pool

var lz4Levels = [10]lz4.CompressionLevel{lz4.Fast, lz4.Level1, lz4.Level2, lz4.Level3, lz4.Level4, lz4.Level5, lz4.Level6, lz4.Level7, lz4.Level8, lz4.Level9}

// lz4Place maps Kafka's 1..17 to the library's levels. Kafka's default, 9, is its fast compressor.
func lz4Place(level int) int {
	if level == LZ4LevelDefault {
		return 0
	}
	return min(max(level, 1), 9)
}

func lz4To(dst, src []byte, level int) ([]byte, error) {
	place := lz4Place(level)
	pool := &lz4Writers[place]
	out := bytes.NewBuffer(dst)
	w, _ := pool.Get().(*lz4.Writer)
	if w == nil {
		w = lz4.NewWriter(out)
		err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false), lz4.ConcurrencyOption(1), lz4.CompressionLevelOption(lz4Levels[place]))
		if err != nil {
			return dst, fmt.Errorf("lz4 level %d: %w", level, err)
		}
	} else {
		w.Reset(out)
	}
	defer pool.Put(w)
	if _, err := w.Write(src); err != nil {
		return dst, fmt.Errorf("lz4: %w", err)
	}
	if err := w.Close(); err != nil {
		return dst, fmt.Errorf("lz4: %w", err)
	}
	return out.Bytes(), nil
}

// ---- zstd

const (
	zstdMagic     = 0xFD2FB528
	zstdWindowMax = 128 << 20 // what the Java client's decoder accepts by default
)

// zstdDecoder is shared: DecodeAll may be called by many at once, and waits when all of its decoders are busy.
var zstdDecoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(DecompressedBytesMax), zstd.WithDecoderMaxWindow(zstdWindowMax), zstd.WithDecoderLowmem(true))
})

func unzstd(dst, src []byte, limit int) ([]byte, error) {
	if len(src) == 0 {
		return dst, errTruncated
	}
	d, err := zstdDecoder()
	if err != nil {
		return dst, err
	}
	start := len(dst)
	out, err := d.DecodeAll(src, dst)
	switch {
	case errors.Is(err, zstd.ErrDecoderSizeExceeded):
		return dst, errTooLarge
	case errors.Is(err, zstd.ErrWindowSizeExceeded):
		return dst, errZstdWindow
	case err != nil:
		return dst, err
	case len(out)-start > limit:
		return dst, errTooLarge
	}
	return out, nil
}

// zstdEncoders has one shared encoder per speed of the library, which has fewer than zstd has levels.
var zstdEncoders sync.Map // zstd.EncoderLevel → *zstd.Encoder

func zstdEncoder(level int) (*zstd.Encoder, error) {
	speed := zstd.EncoderLevelFromZstd(level)
	if e, ok := zstdEncoders.Load(speed); ok {
		return e.(*zstd.Encoder), nil
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(speed), zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return nil, fmt.Errorf("zstd level %d: %w", level, err)
	}
	kept, _ := zstdEncoders.LoadOrStore(speed, e)
	return kept.(*zstd.Encoder), nil
}

func zstdTo(dst, src []byte, level int) ([]byte, error) {
	e, err := zstdEncoder(level)
	if err != nil {
		return dst, err
	}
	return e.EncodeAll(src, dst), nil
}

// ---- memory for decompression

const scratchBytesMax = 4 << 20 // larger buffers are left to the garbage collector

var scratchPool = sync.Pool{New: func() any { return new([]byte) }}

// takeScratch borrows a buffer; whoever takes it gives it back with giveScratch and keeps no slice of it.
func takeScratch() *[]byte { return scratchPool.Get().(*[]byte) }

func giveScratch(b *[]byte) {
	if cap(*b) > scratchBytesMax {
		return
	}
	*b = (*b)[:0]
	scratchPool.Put(b)
}
