package logstore

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

// Compression is what a topic wants: compression.type with the codec's level (compression.gzip.level and so on; KIP-390).
// The zero value means "uncompressed"; DefaultLevel takes the codec's default.
type Compression struct {
	Codec Codec
	Level int
}
