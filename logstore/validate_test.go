package logstore

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"pgregory.net/rapid"
)

func clientParams() *ValidateParams {
	return &ValidateParams{
		MaxMessageBytes: 1048588, BeforeMax: NoTimestampLimit, AfterMax: NoTimestampLimit,
		Target: Compression{Codec: CodecProducer}, Origin: OriginClient, ProduceVersion: 9, Now: testNow,
	}
}

// edited returns a copy of b that was changed and sealed again.
func edited(b Batch, change func(Batch)) Batch {
	b = bytes.Clone(b)
	change(b)
	b.SealCRC()
	return b
}

func TestValidateKeepsAGoodBatchAndPatchesIt(t *testing.T) {
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		t.Run(codec.String(), func(t *testing.T) {
			b := testBatch(t, 10, DefaultCompression(codec))
			records := bytes.Clone(b)
			v, err := Validate(records, clientParams())
			require.NoError(t, err)
			require.False(t, v.Rebuilt)
			require.Equal(t, &records[0], &v.Batches[0], "the caller's own bytes")
			require.Equal(t, 10, v.Count)
			require.Equal(t, testTime+9, v.MaxTimestamp)
			require.Equal(t, int64(-1), v.LogAppendTime)
			require.Equal(t, int64(1009), v.Assign(1000, 7))
			require.NoError(t, Batch(v.Batches).VerifyCRC())
			require.Equal(t, b[posMagic:], Batch(v.Batches)[posMagic:])
		})
	}
}

func TestValidateRefuses(t *testing.T) {
	good := testBatch(t, 3, Compression{})
	twice := append(bytes.Clone(good), good...)
	garbage := append(bytes.Clone(good[:BatchOverhead]), "\xff\xff\xff this is not what the codec says"...)
	putI32(garbage[posLength:], int32(len(garbage)-LogOverhead))
	rows := []struct {
		name    string
		records []byte
		params  func(*ValidateParams)
		want    *kerr.Error
	}{
		{"nothing", nil, nil, kerr.InvalidRecord},
		{"a cut batch", good[:len(good)-1], nil, kerr.InvalidRecord},
		{"a bad size", edited(good, func(b Batch) { putI32(b[posLength:], 3) }), nil, kerr.CorruptMessage},
		{"another magic", edited(good, func(b Batch) { b[posMagic] = 9 }), nil, kerr.CorruptMessage},
		{"a bad crc", append(bytes.Clone(good[:len(good)-1]), 0xff), nil, kerr.CorruptMessage},
		{"two batches", twice, nil, kerr.InvalidRecord},
		{"a base offset", edited(good, func(b Batch) { b.SetBaseOffset(1) }), nil, kerr.InvalidRecord},
		{"too large", good, func(p *ValidateParams) { p.MaxMessageBytes = len(good) - 1 }, kerr.MessageTooLarge},
		{"an unknown codec", edited(good, func(b Batch) { b[posAttributes+1] = 5 }), nil, kerr.InvalidRecord},
		{"count 0", edited(good, func(b Batch) { putI32(b[posCount:], 0) }), nil, kerr.InvalidRecord},
		{"count too small", edited(good, func(b Batch) { putI32(b[posCount:], 2) }), nil, kerr.InvalidRecord},
		{"count too large", edited(good, func(b Batch) { putI32(b[posCount:], 4); putI32(b[posLastOffsetDelta:], 3) }), nil, kerr.InvalidRecord},
		{"fewer records than are there", edited(good, func(b Batch) { putI32(b[posCount:], 2); putI32(b[posLastOffsetDelta:], 1) }), nil, kerr.InvalidRecord},
		{"a negative delta", edited(good, func(b Batch) { putI32(b[posLastOffsetDelta:], -2) }), nil, kerr.InvalidRecord},
		{"control", edited(good, func(b Batch) { b[posAttributes+1] = attrControl }), nil, kerr.InvalidRecord},
		{"no sequence", edited(good, func(b Batch) { putI64(b[posProducerID:], 5) }), nil, kerr.InvalidRecord},
		{"a transaction of nobody", edited(good, func(b Batch) { b[posAttributes+1] = attrTransactional }), nil, kerr.InvalidRecord},
		{"zstd from an old client", testBatch(t, 1, DefaultCompression(CodecZstd)), func(p *ValidateParams) { p.ProduceVersion = 6 }, kerr.UnsupportedCompressionType},
		{"an old format in a new request", unhex(t, vectorMagic1), nil, kerr.InvalidRecord},
		{"LogAppendTime set by the client", edited(good, func(b Batch) { b[posAttributes+1] = attrLogAppendTime }), func(p *ValidateParams) { p.TimestampType = LogAppendTime }, kerr.InvalidTimestamp},
		{"LogAppendTime without time", edited(good, func(b Batch) { b[posAttributes+1] = attrLogAppendTime; putI64(b[posMaxTimestamp:], -1) }), nil, kerr.InvalidTimestamp},
		{"gzip that is none", edited(garbage, func(b Batch) { b[posAttributes+1] = byte(CodecGzip) }), nil, kerr.InvalidRecord},
		{"snappy that is none", edited(garbage, func(b Batch) { b[posAttributes+1] = byte(CodecSnappy) }), nil, kerr.InvalidRecord},
		{"lz4 that is none", edited(garbage, func(b Batch) { b[posAttributes+1] = byte(CodecLZ4) }), nil, kerr.InvalidRecord},
		{"zstd that is none", edited(garbage, func(b Batch) { b[posAttributes+1] = byte(CodecZstd) }), nil, kerr.InvalidRecord},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := clientParams()
			if row.params != nil {
				row.params(p)
			}
			_, err := Validate(bytes.Clone(row.records), p)
			require.ErrorIs(t, err, row.want)
			var refusal *ValidationError
			require.ErrorAs(t, err, &refusal)
			require.NotEmpty(t, refusal.Message)
		})
	}
}

func TestCoordinatorMayWriteWhatClientsMayNot(t *testing.T) {
	p := clientParams()
	p.Origin, p.ProduceVersion, p.Compacted = OriginCoordinator, -1, true
	p.Target = DefaultCompression(CodecGzip)
	marker := NewEndTxnBatch(EndTxnMarker{ProducerID: 4, Timestamp: testTime})
	v, err := Validate(bytes.Clone(marker), p)
	require.NoError(t, err)
	require.Equal(t, []byte(marker), v.Batches, "control batches are not compressed")
	v, err = Validate(nil, p)
	require.NoError(t, err)
	require.Empty(t, v.Batches)
}

func TestCompactedTopicNeedsKeysAndSaysWhichAreMissing(t *testing.T) {
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		o := PlainBatch()
		o.Compression = DefaultCompression(codec)
		bd := NewBuilder(o)
		for i := range 4 {
			var key []byte
			if i%2 == 0 {
				key = []byte("k")
			}
			require.NoError(t, bd.AppendNext(testTime, key, nil))
		}
		b, err := bd.Finish()
		require.NoError(t, err)
		p := clientParams()
		p.Compacted = true
		_, err = Validate(b, p)
		require.ErrorIs(t, err, kerr.InvalidRecord)
		var refusal *ValidationError
		require.ErrorAs(t, err, &refusal)
		require.Len(t, refusal.RecordErrors, 2)
		require.Equal(t, int32(1), refusal.RecordErrors[0].Index)
		require.Equal(t, int32(3), refusal.RecordErrors[1].Index)
	}
}

func TestTimestampLimits(t *testing.T) {
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		b := testBatch(t, 3, DefaultCompression(codec))
		p := clientParams() // now is one second after the first record
		p.BeforeMax = time.Second
		_, err := Validate(bytes.Clone(b), p)
		require.NoError(t, err)
		p.Now = p.Now.Add(2 * time.Millisecond)
		_, err = Validate(bytes.Clone(b), p)
		require.ErrorIs(t, err, kerr.InvalidTimestamp)
		var refusal *ValidationError
		require.ErrorAs(t, err, &refusal)
		require.Len(t, refusal.RecordErrors, 2)

		p = clientParams()
		p.AfterMax = 0
		p.Now = time.UnixMilli(testTime + 1)
		_, err = Validate(bytes.Clone(b), p)
		require.ErrorIs(t, err, kerr.InvalidTimestamp)
		p.TimestampType = LogAppendTime
		_, err = Validate(bytes.Clone(b), p)
		require.NoError(t, err, "no limits with the broker's own time")
	}
	o := PlainBatch()
	bd := NewBuilder(o)
	require.NoError(t, bd.AppendNext(NoTimestamp, nil, []byte("v")))
	b, err := bd.Finish()
	require.NoError(t, err)
	p := clientParams()
	p.BeforeMax = 0
	_, err = Validate(b, p)
	require.NoError(t, err, "a record without timestamp is allowed")
}

func TestLogAppendTimeRewritesTheHeaderOnly(t *testing.T) {
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		b := testBatch(t, 3, DefaultCompression(codec))
		p := clientParams()
		p.TimestampType = LogAppendTime
		v, err := Validate(bytes.Clone(b), p)
		require.NoError(t, err)
		require.False(t, v.Rebuilt)
		require.Equal(t, testNow.UnixMilli(), v.LogAppendTime)
		got := Batch(v.Batches)
		require.NoError(t, got.VerifyCRC())
		require.Equal(t, LogAppendTime, got.TimestampType())
		require.Equal(t, b[posRecords:], got[posRecords:])
		require.Equal(t, b.BaseTimestamp(), got.BaseTimestamp())
		for _, r := range collect(t, got) {
			require.Equal(t, testNow.UnixMilli(), r.Timestamp)
		}
	}
}

func TestWrongMaxTimestampIsRepaired(t *testing.T) {
	b := edited(testBatch(t, 3, Compression{}), func(b Batch) { putI64(b[posMaxTimestamp:], testTime+99999) })
	v, err := Validate(b, clientParams())
	require.NoError(t, err)
	require.Equal(t, testTime+2, v.MaxTimestamp)
	require.Equal(t, testTime+2, b.MaxTimestamp())
	require.NoError(t, b.VerifyCRC())
}

func TestAppendTimeBitOnCreateTimeTopicIsCleared(t *testing.T) {
	b := edited(testBatch(t, 3, Compression{}), func(b Batch) { b[posAttributes+1] |= attrLogAppendTime })
	v, err := Validate(b, clientParams())
	require.NoError(t, err)
	require.Equal(t, CreateTime, Batch(v.Batches).TimestampType())
	require.NoError(t, b.VerifyCRC())
}

func TestTopicsCodecRecompresses(t *testing.T) {
	for from := CodecNone; from <= CodecZstd; from++ {
		for to := CodecNone; to <= CodecZstd; to++ {
			t.Run(fmt.Sprintf("%s to %s", from, to), func(t *testing.T) {
				o := PlainBatch()
				o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = 7, 2, 40, true
				o.Compression = DefaultCompression(from)
				bd := NewBuilder(o)
				for i := range 20 {
					require.NoError(t, bd.AppendNext(testTime+int64(i), []byte("k"), bytes.Repeat([]byte("v"), 100), Header{Key: "h"}))
				}
				b, err := bd.Finish()
				require.NoError(t, err)
				want := collect(t, b)
				p := clientParams()
				p.Target = DefaultCompression(to)
				v, err := Validate(bytes.Clone(b), p)
				require.NoError(t, err)
				require.Equal(t, from != to, v.Rebuilt)
				got := Batch(v.Batches)
				require.Equal(t, to, got.Codec())
				require.NoError(t, got.VerifyCRC())
				require.Equal(t, want, collect(t, got))
				require.Equal(t, []any{int64(7), int16(2), int32(40), true}, []any{got.ProducerID(), got.ProducerEpoch(), got.BaseSequence(), got.IsTransactional()})
				require.Equal(t, len(got), got.Size())
				if from == to {
					return
				}
				p.MaxMessageBytes = max(len(b), len(got)) - 1
				_, err = Validate(bytes.Clone(b), p)
				require.ErrorIs(t, err, kerr.MessageTooLarge, "the limit holds before and after")
			})
		}
	}
}

func TestIrregularInnerOffsetsAreRepaired(t *testing.T) {
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		o := PlainBatch()
		o.Compression = DefaultCompression(codec)
		bd := NewBuilder(o)
		for i := range int64(3) {
			require.NoError(t, bd.Append(Record{Offset: 2 * i, Timestamp: testTime + i, Key: []byte("k"), Value: []byte{byte(i)}}))
		}
		b, err := bd.Finish()
		require.NoError(t, err)
		b = edited(b, func(b Batch) { putI32(b[posLastOffsetDelta:], 2) })
		p := clientParams()
		p.Deep = true
		v, err := Validate(b, p)
		require.NoError(t, err)
		require.True(t, v.Rebuilt)
		v.Assign(100, 1)
		for i, r := range collect(t, v.Batches) {
			require.Equal(t, int64(100+i), r.Offset)
			require.Equal(t, []byte{byte(i)}, r.Value)
		}
	}
}

func TestOldFormatsAreConverted(t *testing.T) {
	var set []byte
	for i := range int64(3) {
		set = append(set, legacyMessage(1, i, CodecNone, testTime+i, []byte("k"), []byte{byte(i)})...)
	}
	packed, err := DefaultCompression(CodecGzip).compress(nil, set)
	require.NoError(t, err)
	wrapper := legacyMessage(1, 2, CodecGzip, testTime+2, nil, packed)
	p := clientParams()
	p.ProduceVersion = 2
	for _, records := range [][]byte{set, wrapper} {
		v, err := Validate(bytes.Clone(records), p)
		require.NoError(t, err)
		require.Equal(t, 3, v.Count)
		require.Equal(t, testTime+2, v.MaxTimestamp)
		b := Batch(v.Batches)
		require.Equal(t, int8(2), b.Magic())
		require.NoError(t, b.VerifyCRC())
		require.Equal(t, int64(12), v.Assign(10, 3))
		got := collect(t, b)
		require.Len(t, got, 3)
		require.Equal(t, Record{Offset: 11, Timestamp: testTime + 1, Key: []byte("k"), Value: []byte{1}}, got[1])
	}
}

// What the validator lets in can be iterated, has dense offsets and a right CRC.
func checkAccepted(t require.TestingT, v Validated) {
	if len(v.Batches) == 0 {
		return
	}
	last := v.Assign(500, 3)
	b, rest, err := NextBatch(v.Batches)
	require.NoError(t, err)
	require.Empty(t, rest)
	require.NoError(t, b.VerifyCRC())
	next := int64(500)
	for r, err := range b.Records() {
		require.NoError(t, err)
		require.Equal(t, next, r.Offset)
		next++
	}
	require.Equal(t, last+1, next)
	require.Equal(t, v.Count, int(next-500))
}

func TestAcceptedBatchesAreReadable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := PlainBatch()
		o.Compression = genCompression(t)
		bd := NewBuilder(o)
		for _, r := range genRecords(t) {
			require.NoError(t, bd.AppendNext(r.Timestamp, r.Key, r.Value, r.Headers...))
		}
		b, err := bd.Finish()
		require.NoError(t, err)
		for range rapid.IntRange(0, 3).Draw(t, "damages") {
			b[rapid.IntRange(posMagic, len(b)-1).Draw(t, "at")] ^= byte(rapid.IntRange(1, 255).Draw(t, "bits"))
		}
		b.SealCRC()
		p := clientParams()
		p.Deep = true
		p.Compacted = rapid.Bool().Draw(t, "compacted")
		p.TimestampType = TimestampType(rapid.IntRange(0, 1).Draw(t, "type"))
		p.Target.Codec = Codec(rapid.IntRange(-1, 4).Draw(t, "target"))
		v, err := Validate(b, p)
		if err == nil {
			checkAccepted(t, v)
		}
	})
}

func FuzzValidate(f *testing.F) {
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		f.Add([]byte(testBatch(f, 5, DefaultCompression(codec))), int8(codec), true)
	}
	f.Add(unhex(f, vectorMagic1), int8(-1), false)
	f.Fuzz(func(t *testing.T, data []byte, target int8, deep bool) {
		if b, _, err := NextBatch(data); err == nil && b.Magic() == 2 {
			b.SealCRC() // let the fuzzer pass the checksum
		}
		p := clientParams()
		p.Deep = deep
		p.Target.Codec = Codec(target%6 - 1)
		if !deep {
			p.ProduceVersion = 2
		}
		v, err := Validate(data, p)
		var refusal *ValidationError
		if err != nil && !errors.As(err, &refusal) && p.Target.Codec.Valid() {
			t.Fatalf("unexpected error %v", err)
		}
		if err == nil && (deep || v.Rebuilt || len(v.Batches) > 0 && Batch(v.Batches).Codec() == CodecNone) {
			checkAccepted(t, v)
		}
	})
}
