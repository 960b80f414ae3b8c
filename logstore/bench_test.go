package logstore

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"ottla/internal/invariant"
)

// benchBatch is a batch of about 16 KiB: 100 records with 100-byte values of half-compressible text.
func benchBatch(b testing.TB, c Compression) Batch {
	rng := rand.New(rand.NewPCG(1, 2))
	o := PlainBatch()
	o.Compression = c
	bd := NewBuilder(o)
	for i := range 130 {
		value := make([]byte, 100)
		for j := range value {
			value[j] = "0123456789abcdef"[rng.IntN(16)]
		}
		require.NoError(b, bd.AppendNext(testTime+int64(i), fmt.Appendf(nil, "key-%06d", i), value))
	}
	batch, err := bd.Finish()
	require.NoError(b, err)
	return bytes.Clone(batch)
}

func TestValidationAllocatesNothing(t *testing.T) {
	if invariant.Checked {
		t.Skip("allocations are counted without the race detector")
	}
	for codec := CodecNone; codec <= CodecZstd; codec++ {
		b := benchBatch(t, DefaultCompression(codec))
		p := clientParams()
		require.Zero(t, testing.AllocsPerRun(100, func() {
			b.SetBaseOffset(0)
			v, _ := Validate(b, p)
			v.Assign(77, 1)
		}), codec)
	}
	b := benchBatch(t, Compression{})
	p := clientParams()
	p.Compacted, p.BeforeMax = true, 1e15
	require.Zero(t, testing.AllocsPerRun(100, func() {
		b.SetBaseOffset(0)
		_, _ = Validate(b, p)
	}))
	s := NewProducerState()
	var u ProducerUpdate
	data, next := dataBatch(1, 0, 0, 1, false), int32(0)
	require.LessOrEqual(t, testing.AllocsPerRun(100, func() {
		putI32(data[posBaseSequence:], next)
		next++
		require.NoError(t, s.Prepare(&u, data, OriginClient))
		s.Commit(&u)
	}), 0.1)
}

func BenchmarkValidate(b *testing.B) {
	for _, row := range []struct {
		name string
		c    Compression
		edit func(*ValidateParams)
	}{
		{"codec=none", Compression{}, nil},
		{"codec=lz4", DefaultCompression(CodecLZ4), nil},
		{"codec=lz4/deep", DefaultCompression(CodecLZ4), func(p *ValidateParams) { p.Deep = true }},
		{"codec=zstd/deep", DefaultCompression(CodecZstd), func(p *ValidateParams) { p.Deep = true }},
		{"codec=snappy/deep", DefaultCompression(CodecSnappy), func(p *ValidateParams) { p.Deep = true }},
		{"codec=gzip/deep", DefaultCompression(CodecGzip), func(p *ValidateParams) { p.Deep = true }},
		{"codec=none/to=lz4", Compression{}, func(p *ValidateParams) { p.Target = DefaultCompression(CodecLZ4) }},
		{"codec=none/to=zstd", Compression{}, func(p *ValidateParams) { p.Target = DefaultCompression(CodecZstd) }},
	} {
		b.Run(row.name, func(b *testing.B) {
			batch := benchBatch(b, row.c)
			p := clientParams()
			if row.edit != nil {
				row.edit(p)
			}
			b.SetBytes(int64(len(batch)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Validate(batch, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerifyCRC(b *testing.B) {
	batch := benchBatch(b, Compression{})
	b.SetBytes(int64(len(batch)))
	for b.Loop() {
		_ = batch.VerifyCRC()
	}
}

func BenchmarkRecords(b *testing.B) {
	batch := benchBatch(b, Compression{})
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	for b.Loop() {
		n := 0
		for _, err := range batch.Records() {
			if err != nil {
				b.Fatal(err)
			}
			n++
		}
	}
}

func BenchmarkProducerState(b *testing.B) {
	s := NewProducerState()
	var u ProducerUpdate
	data, next := dataBatch(1, 0, 0, 1, false), int32(0)
	b.ReportAllocs()
	for b.Loop() {
		putI32(data[posBaseSequence:], next)
		next = addSequence(next, 1)
		if err := s.Prepare(&u, data, OriginClient); err != nil {
			b.Fatal(err)
		}
		s.Commit(&u)
	}
}
