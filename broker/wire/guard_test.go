package wire

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/invariant"
)

// allRequests calls f for every request key and version that kmsg knows up to maxKey.
func allRequests(f func(key, version int16, req kmsg.Request)) {
	for key := int16(0); key <= maxKey; key++ {
		req := kmsg.RequestForKey(key)
		if req == nil {
			continue
		}
		for v := int16(0); v <= req.MaxVersion(); v++ {
			req := kmsg.RequestForKey(key)
			req.SetVersion(v)
			f(key, v, req)
		}
	}
}

// fill sets fields at random: arrays of 0–3 elements, strings, pointers (nil only where filled before by default), numbers.
func fill(rng *rand.Rand, v reflect.Value, depth int) {
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[kmsg.Tags]() {
			if rng.IntN(4) == 0 {
				tags := v.Addr().Interface().(*kmsg.Tags)
				for range rng.IntN(3) {
					tags.Set(100+uint32(rng.IntN(1000)), make([]byte, rng.IntN(5)))
				}
			}
			return
		}
		for i := range v.NumField() {
			if name := v.Type().Field(i).Name; name != "Version" && v.Field(i).CanSet() {
				fill(rng, v.Field(i), depth+1)
			}
		}
	case reflect.Slice:
		n := rng.IntN(4)
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			fill(rng, v.Index(i), depth+1)
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(rng, v.Index(i), depth+1)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(rng, v.Elem(), depth+1)
	case reflect.String:
		v.SetString("0123456789abcdef"[:rng.IntN(16)])
	case reflect.Bool:
		v.SetBool(rng.IntN(2) == 0)
	case reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(rng.Int64())
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		v.SetUint(rng.Uint64())
	case reflect.Float64:
		v.SetFloat(rng.Float64())
	default:
		panic(v.Kind().String())
	}
}

func TestGuardAcceptsWhatKmsgEncodes(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	allRequests(func(key, version int16, req kmsg.Request) {
		require.NoError(t, Check(key, version, req.AppendTo(nil)), "%T v%d default", req, version)
		for range 30 {
			fill(rng, reflect.ValueOf(req).Elem(), 0)
			body := req.AppendTo(nil)
			require.NoError(t, Check(key, version, body), "%T v%d %+v", req, version, req)

			// A whole walk ends exactly where the encoding ends: one byte less is refused.
			program := programs[key][version].Load()
			w := walk{b: body, budget: 1 << 40}
			require.True(t, w.run(*program))
			require.Empty(t, w.b, "%T v%d: bytes were not walked", req, version)
			if len(body) > 0 {
				require.Error(t, Check(key, version, body[:len(body)-1]), "%T v%d cut", req, version)
			}
		}
	})
}

func TestGuardBoundsWhatZerosCost(t *testing.T) {
	size := 1 << 20
	if invariant.Checked {
		size = 1 << 17 // slow under the race detector
	}
	body := make([]byte, size)
	allRequests(func(key, version int16, req kmsg.Request) {
		for _, at := range []int{0, 1, 2, 4, 6, 8, 9, 10, 13, 14, 17, 18, 21} {
			for _, count := range []uint32{1 << 10, uint32(size) / 4, uint32(size) - 64} {
				for _, compact := range []bool{false, true} {
					clear(body[:64])
					if compact {
						binary.PutUvarint(body[at:], uint64(count))
					} else {
						binary.BigEndian.PutUint32(body[at:], count)
					}
					checkCost(t, key, version, body)
				}
			}
		}
	})
}

// costBound is what decoding an accepted body may allocate.
func costBound(n int) uint64 { return 2*guardBase + 2*guardFactor*uint64(n) }

// checkCost decodes what the guard accepts and measures.
func checkCost(t testing.TB, key, version int16, body []byte) {
	t.Helper()
	if Check(key, version, body) != nil {
		return
	}
	req := kmsg.RequestForKey(key)
	req.SetVersion(version)
	if got := allocated(func() { _ = req.ReadFrom(body) }); got > costBound(len(body)) {
		t.Fatalf("%T v%d: decoding %d bytes allocated %d", req, version, len(body), got)
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func TestGuardRefusesCountsBeyondTheBytes(t *testing.T) {
	for _, tc := range []struct {
		name         string
		key, version int16
		body         []byte
		want         error
	}{
		{"2^32-1 tagged fields", 18, 3, []byte{1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f}, errTruncated},
		{"array of 2^31-1", 3, 1, []byte{0x7f, 0xff, 0xff, 0xff}, errTruncated},
		{"array length -2", 3, 1, []byte{0xff, 0xff, 0xff, 0xfe}, errTruncated},
		{"varint of 6 bytes", 18, 3, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0}, errTruncated},
		{"unknown key", 55, 0, nil, nil},
		{"key below 0", -1, 0, nil, errUnknownKey},
		{"version below 0", 3, -1, nil, errUnsupportedVersion},
	} {
		err := Check(tc.key, tc.version, tc.body)
		if tc.want == nil {
			continue
		}
		require.ErrorIs(t, err, tc.want, tc.name)
	}
	topics := make([]byte, 4+2<<20)
	binary.BigEndian.PutUint32(topics, 1<<20)
	require.ErrorIs(t, Check(3, 1, topics), errTooCostly, "a million topics without names")
}

// produceRequest is a Produce v9 body with n partitions of a 1 KiB batch.
func produceRequest(version int16, n int) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks = version, 1
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "a-topic-with-a-name"
	for i := range n {
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition, p.Records = int32(i), make([]byte, 1024)
		topic.Partitions = append(topic.Partitions, p)
	}
	req.Topics = append(req.Topics, topic)
	return req
}

func BenchmarkGuard(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("produce/partitions=%d", n), func(b *testing.B) {
			body := produceRequest(9, n).AppendTo(nil)
			b.ReportAllocs()
			for b.Loop() {
				if err := Check(keyProduce, 9, body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func FuzzGuard(f *testing.F) {
	rng := rand.New(rand.NewPCG(3, 4))
	allRequests(func(key, version int16, req kmsg.Request) {
		f.Add(key, version, req.AppendTo(nil))
		fill(rng, reflect.ValueOf(req).Elem(), 0)
		f.Add(key, version, req.AppendTo(nil))
	})
	f.Fuzz(func(t *testing.T, key, version int16, body []byte) {
		req := kmsg.RequestForKey(key)
		if req == nil || !knownKey(key) || version < 0 || version > req.MaxVersion() {
			_ = Check(key, version, body) // no panic
			return
		}
		req.SetVersion(version)
		if Check(key, version, body) != nil {
			return
		}
		checkCost(t, key, version, body)
		if err := req.ReadFrom(body); err != nil {
			return
		}
		// What is decoded can be encoded again, and then passes.
		if again := req.AppendTo(nil); len(again) <= len(body) {
			require.NoError(t, Check(key, version, again))
		}
	})
}
