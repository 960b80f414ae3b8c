package logstore

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const testTime = int64(1700000000000)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	require.NoError(t, err)
	return b
}

// The vectors were checked with a decoder of their own, and Kafka 3.9's dump tool reads them.
const (
	vectorTwoRecords = `0000000000000000 00000045 00000000 02 8607b97d 0000 00000001 0000018bcfe56800 0000018bcfe56805
		ffffffffffffffff ffff ffffffff 00000002 10 00 00 00 02 6b 02 76 00 14 00 0a 02 01 00 02 02 68 02 78`
	vectorCommit = `000000000000002a 00000042 00000003 02 584b6333 0030 00000000 0000018bcfe56800 0000018bcfe56800
		0000000000002328 0001 ffffffff 00000001 20 00 00 00 08 00000001 0c 000000000007 00`
	vectorEmpty = `000000000000000a 00000031 00000003 02 4dbe7f01 0000 00000004 ffffffffffffffff 0000018bcfe56800
		0000000000002328 0001 00000005 00000000`
	vectorMagic1   = `0000000000000005 00000018 39268c33 01 00 0000018bcfe56800 00000001 6b 00000001 76`
	vectorSnapshot = `0001 5b7ec622 00000001 0000000000002328 0001 00000004 0000000000000029 00000004 0000018bcfe56800 ffffffff ffffffffffffffff`
)

func collect(t testing.TB, b Batch) []Record {
	t.Helper()
	var records []Record
	for r, err := range b.Records() {
		require.NoError(t, err)
		r.Headers = append([]Header(nil), r.Headers...)
		records = append(records, r)
	}
	return records
}

func TestBuilderMakesTheBatchOfTheVector(t *testing.T) {
	o := PlainBatch()
	o.LeaderEpoch = 0
	bd := NewBuilder(o)
	require.NoError(t, bd.AppendNext(testTime, []byte("k"), []byte("v")))
	require.NoError(t, bd.AppendNext(testTime+5, nil, []byte{}, Header{Key: "h", Value: []byte("x")}))
	b, err := bd.Finish()
	require.NoError(t, err)
	require.Equal(t, unhex(t, vectorTwoRecords), []byte(b))
	require.NoError(t, b.VerifyCRC())

	records := collect(t, b)
	require.Equal(t, []Record{
		{Offset: 0, Timestamp: testTime, Key: []byte("k"), Value: []byte("v")},
		{Offset: 1, Timestamp: testTime + 5, Value: []byte{}, Headers: []Header{{Key: "h", Value: []byte("x")}}},
	}, records)
}

func TestCommitMarkerIsTheVector(t *testing.T) {
	m := EndTxnMarker{ProducerID: 9000, ProducerEpoch: 1, Commit: true, CoordinatorEpoch: 7, Timestamp: testTime}
	b := NewEndTxnBatch(m)
	b.SetBaseOffset(42)
	b.SetLeaderEpoch(3)
	require.Equal(t, unhex(t, vectorCommit), []byte(b))

	read, ok, err := b.EndTxnMarker()
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, m, read)
}

func TestEmptyBatchKeepsRangeAndSequence(t *testing.T) {
	o := BatchOptions{BaseOffset: 10, LeaderEpoch: 3, ProducerID: 9000, ProducerEpoch: 1, BaseSequence: 5, Compression: DefaultCompression(CodecLZ4)}
	bd := NewBuilder(o)
	for range 5 {
		require.NoError(t, bd.AppendNext(testTime, []byte("k"), []byte("v")))
	}
	full, err := bd.Finish()
	require.NoError(t, err)
	b := emptyBatch(full)
	require.Equal(t, unhex(t, vectorEmpty), []byte(b))
	require.Empty(t, collect(t, b))
	require.Equal(t, int64(14), b.LastOffset())
	require.Equal(t, int32(9), b.LastSequence())
}

func TestMagic1MessageIsRead(t *testing.T) {
	b, rest, err := NextBatch(unhex(t, vectorMagic1))
	require.NoError(t, err)
	require.Empty(t, rest)
	require.NoError(t, b.VerifyCRC())
	require.Equal(t, int64(5), b.LastOffset())
	require.Equal(t, []Record{{Offset: 5, Timestamp: testTime, Key: []byte("k"), Value: []byte("v")}}, collect(t, b))
}

func TestNextBatchTellsCutFromCorrupt(t *testing.T) {
	whole := unhex(t, vectorTwoRecords)
	for n := range len(whole) {
		_, _, err := NextBatch(whole[:n])
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		require.ErrorIs(t, err, want, "first %d bytes", n)
	}
	bad := bytes.Clone(whole)
	bad[posMagic] = 3
	_, _, err := NextBatch(bad)
	require.ErrorIs(t, err, ErrCorrupt)
	bad = bytes.Clone(whole)
	bad[posLength+3] = 13
	_, _, err = NextBatch(bad)
	require.ErrorIs(t, err, ErrCorrupt)
	bad = bytes.Clone(whole)
	bad[len(bad)-1]++
	require.ErrorIs(t, Batch(bad).VerifyCRC(), ErrCorrupt)
}

func TestSequencesWrapToZero(t *testing.T) {
	require.Equal(t, int32(0), addSequence(2147483647, 1))
	require.Equal(t, int32(4), addSequence(2147483645, 7))
	require.Equal(t, int32(2147483647), subSequence(0, 1))
	require.Equal(t, int32(2147483645), subSequence(4, 7))
}

func genBytes() *rapid.Generator[[]byte] {
	return rapid.Custom(func(t *rapid.T) []byte {
		if rapid.IntRange(0, 5).Draw(t, "null") == 0 {
			return nil
		}
		b := rapid.SliceOfN(rapid.Byte(), 0, 40).Draw(t, "bytes")
		if b == nil {
			b = []byte{}
		}
		return bytes.Repeat(b, rapid.IntRange(1, 50).Draw(t, "times"))
	})
}

func genRecords(t *rapid.T) []Record {
	n := rapid.IntRange(1, 30).Draw(t, "records")
	records := make([]Record, n)
	offset := int64(0)
	for i := range records {
		r := &records[i]
		r.Offset = offset
		offset += int64(rapid.SampledFrom([]int{1, 1, 1, 2, 300}).Draw(t, "gap"))
		r.Timestamp = testTime + int64(rapid.IntRange(-1000000, 1000000).Draw(t, "timestamp"))
		r.Key, r.Value = genBytes().Draw(t, "key"), genBytes().Draw(t, "value")
		for range rapid.IntRange(0, 3).Draw(t, "headers") {
			r.Headers = append(r.Headers, Header{Key: rapid.StringN(0, 10, 40).Draw(t, "name"), Value: genBytes().Draw(t, "header")})
		}
	}
	return records
}

func genCompression(t *rapid.T) Compression {
	c := Compression{Codec: Codec(rapid.IntRange(0, 4).Draw(t, "codec"))}
	c.Level = rapid.IntRange(-1, 17).Draw(t, "level")
	return c
}

func TestRecordsAreWhatWasBuilt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := genRecords(t)
		o := PlainBatch()
		o.BaseOffset = int64(rapid.IntRange(0, 1<<40).Draw(t, "base"))
		o.Compression = genCompression(t)
		bd := NewBuilder(o)
		for i := range want {
			want[i].Offset += o.BaseOffset
			require.NoError(t, bd.Append(want[i]))
		}
		b, err := bd.Finish()
		require.NoError(t, err)
		require.NoError(t, b.VerifyCRC())
		cut, rest, err := NextBatch(append(bytes.Clone(b), 1, 2, 3))
		require.NoError(t, err)
		require.Len(t, rest, 3)
		i := 0
		for r, err := range cut.Records() {
			require.NoError(t, err)
			if len(r.Headers) == 0 {
				r.Headers = nil
			}
			require.Equal(t, want[i], r)
			i++
		}
		require.Len(t, want, i)
		require.Equal(t, want[i-1].Offset, cut.LastOffset())
	})
}

func TestCodecsAreBoundedAndRefuseDamage(t *testing.T) {
	plain := bytes.Repeat([]byte("all work and no play makes jack a dull boy. "), 4000)
	for codec := CodecGzip; codec <= CodecZstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			packed, err := DefaultCompression(codec).compress([]byte("head"), plain)
			require.NoError(t, err)
			require.Equal(t, "head", string(packed[:4]))
			packed = packed[4:]
			require.Less(t, len(packed), len(plain)/4)
			require.NoError(t, codec.checkHead(packed))

			out, err := codec.decompress([]byte("keep"), packed, len(plain))
			require.NoError(t, err)
			require.True(t, bytes.Equal(append([]byte("keep"), plain...), out))

			_, err = codec.decompress(nil, packed, len(plain)-1)
			require.ErrorIs(t, err, errTooLarge)
			require.ErrorIs(t, err, ErrCorrupt)

			_, err = codec.decompress(nil, packed[:len(packed)-9], len(plain))
			require.ErrorIs(t, err, ErrCorrupt)
			require.Error(t, codec.checkHead([]byte("no such thing at all, sorry")))
		})
	}
}

func TestSnappyAcceptsOneRawBlock(t *testing.T) {
	// 0x03 length, literal tag of 3 bytes
	out, err := CodecSnappy.decompress(nil, []byte{3, 2 << 2, 'a', 'b', 'c'}, 10)
	require.NoError(t, err)
	require.Equal(t, "abc", string(out))
	_, err = CodecSnappy.decompress(nil, []byte{0xff, 0xff, 0xff, 0x3f, 0, 0}, DecompressedBytesMax)
	require.ErrorIs(t, err, ErrCorrupt, "a length that the input cannot pay for")
}

func TestLZ4WithDependentBlocksIsRefused(t *testing.T) {
	packed, err := DefaultCompression(CodecLZ4).compress(nil, []byte("hello"))
	require.NoError(t, err)
	h, err := parseLZ4Header(packed)
	require.NoError(t, err)
	require.True(t, h.checksumOK)
	require.False(t, h.contentChecksum || h.blockChecksum)
	require.Equal(t, 64<<10, h.blockMax)
	packed[4] &^= 1 << 5
	require.ErrorIs(t, CodecLZ4.checkHead(packed), errLZ4Blocks)
}

func TestEmptyControlBatchHasNoMarker(t *testing.T) {
	b := emptyBatch(NewEndTxnBatch(EndTxnMarker{ProducerID: 1}))
	require.True(t, b.IsControl())
	_, ok, err := b.EndTxnMarker()
	require.NoError(t, err)
	require.False(t, ok)
}

func legacyMessage(magic byte, offset int64, codec Codec, timestamp int64, key, value []byte) []byte {
	m := make([]byte, LogOverhead+4)
	m = append(m, magic, byte(codec))
	if magic == 1 {
		m = appendI64(m, timestamp)
	}
	m = appendLegacyBytes(appendLegacyBytes(m, key), value)
	putI64(m, offset)
	putI32(m[posLength:], int32(len(m)-LogOverhead))
	putI32(m[legacyPosCRC:], int32(crcIEEE(m[legacyPosMagic:])))
	return m
}

func TestLegacyWrappersCountTheirInnerOffsets(t *testing.T) {
	for _, magic := range []byte{0, 1} {
		for _, codec := range []Codec{CodecGzip, CodecSnappy, CodecLZ4} {
			t.Run(fmt.Sprintf("magic=%d/%s", magic, codec), func(t *testing.T) {
				var inner []byte
				for i := range int64(3) {
					offset := i
					if magic == 0 {
						offset += 100
					}
					inner = append(inner, legacyMessage(magic, offset, CodecNone, testTime+i, []byte("k"), []byte{byte(i)})...)
				}
				packed, err := DefaultCompression(codec).compress(nil, inner)
				require.NoError(t, err)
				b, _, err := NextBatch(legacyMessage(magic, 102, codec, testTime+2, nil, packed))
				require.NoError(t, err)
				records := collect(t, b)
				require.Len(t, records, 3)
				for i, r := range records {
					require.Equal(t, int64(100+i), r.Offset)
					require.Equal(t, []byte{byte(i)}, r.Value)
					if magic == 1 {
						require.Equal(t, testTime+int64(i), r.Timestamp)
					}
				}
				first, err := b.FirstOffset()
				require.NoError(t, err)
				require.Equal(t, int64(100), first)
			})
		}
	}
}

func FuzzNextBatch(f *testing.F) {
	for _, v := range []string{vectorTwoRecords, vectorCommit, vectorEmpty, vectorMagic1} {
		f.Add(unhex(f, v))
	}
	for codec := CodecGzip; codec <= CodecZstd; codec++ {
		f.Add([]byte(testBatch(f, 5, DefaultCompression(codec))))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		for len(data) > 0 {
			b, rest, err := NextBatch(data)
			if err != nil {
				if !errors.Is(err, ErrCorrupt) && err != io.ErrUnexpectedEOF {
					t.Fatalf("unexpected error %v", err)
				}
				return
			}
			_ = b.VerifyCRC()
			_ = b.LastSequence()
			for _, err := range b.Records() {
				if err != nil && !errors.Is(err, ErrCorrupt) {
					t.Fatalf("unexpected error %v", err)
				}
			}
			if _, _, err := b.EndTxnMarker(); err != nil && !errors.Is(err, ErrCorrupt) {
				t.Fatalf("unexpected error %v", err)
			}
			data = rest
		}
	})
}

func FuzzCodecs(f *testing.F) {
	for codec := CodecGzip; codec <= CodecZstd; codec++ {
		packed, _ := DefaultCompression(codec).compress(nil, []byte("hello hello hello"))
		f.Add(byte(codec), packed)
	}
	f.Fuzz(func(t *testing.T, codec byte, data []byte) {
		const limit = 1 << 20
		c := Codec(codec%4 + 1)
		out, err := c.decompress(nil, data, limit)
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("unexpected error %v", err)
		}
		if err == nil && len(out) > limit {
			t.Fatalf("%d bytes came out", len(out))
		}
		_ = c.checkHead(data)
	})
}

// testBatch builds a batch of n small records at offset 0.
func testBatch(t testing.TB, n int, c Compression) Batch {
	t.Helper()
	o := PlainBatch()
	o.Compression = c
	bd := NewBuilder(o)
	for i := range n {
		require.NoError(t, bd.AppendNext(testTime+int64(i), fmt.Appendf(nil, "key-%d", i), bytes.Repeat([]byte("value "), 14)))
	}
	b, err := bd.Finish()
	require.NoError(t, err)
	return bytes.Clone(b)
}

var testNow = time.UnixMilli(testTime + 1000)
