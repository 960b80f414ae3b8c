package wire

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/invariant"
)

// benchTable answers Produce without storing, and Fetch with a range of a file.
func benchTable(f *os.File, bytes int64, released *atomic.Int32) *Table {
	rg := &fileRange{f, 0, bytes, released}
	return NewTable(
		API{Key: 0, Max: 11, Pipelined: true, Borrow: true, Handle: func(r *Request) {
			req := r.Body.(*kmsg.ProduceRequest)
			resp := NewProduceResponse(r.Version)
			for i := range req.Topics {
				t := &req.Topics[i]
				for j := range t.Partitions {
					resp.Add(ProducePartition{Topic: t.Topic, Partition: t.Partitions[j].Partition, LogAppendTime: -1})
				}
			}
			r.RespondWith(resp)
		}},
		API{Key: 1, Max: 17, Pipelined: true, Borrow: true, Handle: func(r *Request) {
			req := r.Body.(*kmsg.FetchRequest)
			resp := NewFetchResponse(r.Version)
			for i := range req.Topics {
				t := &req.Topics[i]
				for j := range t.Partitions {
					resp.Add(FetchPartition{Topic: t.Topic, Partition: t.Partitions[j].Partition, Records: rg, PreferredReadReplica: -1})
				}
			}
			r.RespondWith(resp)
		}},
	)
}

// rawExchange sends a frame and reads the answer into a buffer, without allocating.
func rawExchange(t testing.TB, nc net.Conn, frame, buf []byte) int {
	if _, err := nc.Write(frame); err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, nc, buf)
}

func readAnswer(t testing.TB, r io.Reader, buf []byte) int {
	if _, err := io.ReadFull(r, buf[:4]); err != nil {
		t.Fatal(err)
	}
	n := int(binary.BigEndian.Uint32(buf))
	if _, err := io.ReadFull(r, buf[:n]); err != nil {
		t.Fatal(err)
	}
	return n
}

func produceFrame(partitions, bytes int) []byte {
	req := produceRequest(9, partitions)
	for i := range req.Topics[0].Partitions {
		req.Topics[0].Partitions[i].Records = make([]byte, bytes)
	}
	return requestFrame(1, req)
}

func fetchFrame(version int16, partitions int) []byte {
	req := kmsg.NewPtrFetchRequest()
	req.Version = version
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic = "a-topic-with-a-name"
	for i := range partitions {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition = int32(i)
		topic.Partitions = append(topic.Partitions, p)
	}
	req.Topics = append(req.Topics, topic)
	return requestFrame(1, req)
}

func TestAllocationsPerRequest(t *testing.T) {
	if invariant.Checked {
		t.Skip("checked builds allocate more")
	}
	f, _ := testFile(t, 1<<20)
	for _, tc := range []struct {
		name      string
		frame     []byte
		fileBytes int64
		budget    float64
	}{
		{"produce, 1 partition", produceFrame(1, 1000), 0, 8},
		{"produce, 100 partitions", produceFrame(100, 100), 0, 8},
		{"produce, 64 KiB", produceFrame(1, 64<<10), 0, 8},
		{"fetch v12, 1 partition, small", fetchFrame(12, 1), 1000, 4},
		{"fetch v12, 1 partition, by descriptor", fetchFrame(12, 1), 256 << 10, 4},
		{"fetch v12, 100 partitions", fetchFrame(12, 100), 100, 4},
	} {
		var released atomic.Int32
		_, addr := serve(t, Options{Table: benchTable(f, tc.fileBytes, &released)})
		p := connect(t, addr)
		buf := make([]byte, 1<<20)
		for range 20 {
			rawExchange(t, p.nc, tc.frame, buf)
		}
		got := testing.AllocsPerRun(200, func() { rawExchange(t, p.nc, tc.frame, buf) })
		t.Logf("%s: %.0f allocations", tc.name, got)
		require.LessOrEqual(t, got, tc.budget, tc.name)
	}
}

// TestIdleConnectionsCostLittle measures our own memory (heap and stacks) per idle connection; the budget is 6 KB.
func TestIdleConnectionsCostLittle(t *testing.T) {
	if invariant.Checked || testing.Short() {
		t.Skip("measures")
	}
	const conns = 2000
	s, addr := serve(t, Options{Table: NewTable(heartbeatAPI(answerHeartbeat))})
	use := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse + m.StackInuse
	}
	before := use()
	all := make([]net.Conn, conns)
	frame, buf := requestFrame(1, heartbeat(4)), make([]byte, 1024)
	for i := range all {
		nc, err := net.Dial("tcp", addr)
		require.NoError(t, err)
		all[i] = nc
		rawExchange(t, nc, frame, buf)
	}
	runtime.GC() // stacks that grew shrink
	time.Sleep(10 * time.Millisecond)
	both := use()
	require.Equal(t, conns, s.Conns())
	clients := uint64(conns) * 600 // this end's sockets, measured apart; generous towards the server would be more
	per := (both - before - clients) / conns
	t.Logf("%d bytes per idle connection", per)
	require.Less(t, per, uint64(6000))
	for _, nc := range all {
		_ = nc.Close()
	}
}

// TestSyscallsPerRequest counts the process's read and write calls (not sendfile) by the kernel's own counters; half of them are
// this test's client: one write and two reads an exchange.
func TestSyscallsPerRequest(t *testing.T) {
	if invariant.Checked {
		t.Skip("measures")
	}
	_, addr := serve(t, Options{Table: benchTable(nil, 0, nil)})
	p := connect(t, addr)
	frame, buf := produceFrame(1, 1000), make([]byte, 1<<20)
	rawExchange(t, p.nc, frame, buf)
	const n = 500
	reads, writes := ioCalls(t)
	for range n {
		rawExchange(t, p.nc, frame, buf)
	}
	reads2, writes2 := ioCalls(t)
	t.Logf("one in flight: %.2f reads and %.2f writes an exchange, both ends", float64(reads2-reads)/n, float64(writes2-writes)/n)
	require.LessOrEqual(t, float64(writes2-writes)/n, 2.1, "one write at each end")

	var burst []byte
	for range 10 {
		burst = append(burst, frame...)
	}
	reads, writes = ioCalls(t)
	for range n {
		_, err := p.nc.Write(burst)
		require.NoError(t, err)
		for range 10 {
			readAnswer(t, p.nc, buf)
		}
	}
	reads2, writes2 = ioCalls(t)
	t.Logf("ten in flight: %.2f reads and %.2f writes a burst, both ends", float64(reads2-reads)/n, float64(writes2-writes)/n)
	require.LessOrEqual(t, float64(writes2-writes)/n, 2.5, "answers of a burst share a write")

	burst = nil
	long := produceFrame(1, 16<<10) // does not fit the read buffer
	for range 10 {
		burst = append(burst, long...)
	}
	reads, writes = ioCalls(t)
	for range n {
		_, err := p.nc.Write(burst)
		require.NoError(t, err)
		for range 10 {
			readAnswer(t, p.nc, buf)
		}
	}
	reads2, writes2 = ioCalls(t)
	t.Logf("ten in flight of 16 KiB: %.2f reads and %.2f writes a burst, both ends", float64(reads2-reads)/n, float64(writes2-writes)/n)
	require.LessOrEqual(t, float64(writes2-writes)/n, 8., "answers of long requests share writes too")
}

func ioCalls(t testing.TB) (reads, writes int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Skip("no /proc/self/io")
	}
	for line := range strings.Lines(string(b)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		n, _ := strconv.Atoi(value)
		switch name {
		case "syscr":
			reads = n
		case "syscw":
			writes = n
		}
	}
	return reads, writes
}

func benchServer(b *testing.B, table *Table) string {
	s, err := NewServer(Options{Table: table, Logger: zerolog.Nop(), Listeners: []Listener{{Name: "P", Addr: "127.0.0.1:0"}}})
	require.NoError(b, err)
	s.Serve()
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = s.Close(ctx)
	})
	return s.Addr("P").String()
}

func BenchmarkProduceRoundTrip(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 16 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			p := connect(b, benchServer(b, benchTable(nil, 0, nil)))
			_ = p.nc.SetDeadline(time.Time{})
			frame, buf := produceFrame(1, size), make([]byte, 4<<10)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				rawExchange(b, p.nc, frame, buf)
			}
		})
	}
}

// The floor: a goroutine that reads frames into one buffer and writes a constant answer.
func BenchmarkFloorRoundTrip(b *testing.B) {
	for _, size := range []int{100, 1 << 10, 16 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			require.NoError(b, err)
			defer l.Close()
			go func() {
				nc, err := l.Accept()
				if err != nil {
					return
				}
				defer nc.Close()
				buf, answer := make([]byte, 2<<20), make([]byte, 70)
				binary.BigEndian.PutUint32(answer, uint32(len(answer)-4))
				for at := 0; ; {
					n, err := nc.Read(buf[at:])
					if err != nil {
						return
					}
					if at += n; at >= 4 && at-4 >= int(binary.BigEndian.Uint32(buf)) {
						at = 0
						_, _ = nc.Write(answer)
					}
				}
			}()
			p := connect(b, l.Addr().String())
			_ = p.nc.SetDeadline(time.Time{})
			frame, buf := produceFrame(1, size), make([]byte, 4<<10)
			b.SetBytes(int64(size))
			for b.Loop() {
				rawExchange(b, p.nc, frame, buf)
			}
			_ = p.nc.Close()
		})
	}
}

// Five requests in flight, as the Java client sends.
func BenchmarkProducePipelined(b *testing.B) {
	for _, size := range []int{100, 16 << 10, 64 << 10} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			p := connect(b, benchServer(b, benchTable(nil, 0, nil)))
			_ = p.nc.SetDeadline(time.Time{})
			frame, buf := produceFrame(1, size), make([]byte, 4<<10)
			for range 4 {
				_, _ = p.nc.Write(frame)
			}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				rawExchange(b, p.nc, frame, buf)
			}
		})
	}
}

func BenchmarkFetch(b *testing.B) {
	f, _ := testFile(b, 4<<20)
	for _, size := range []int64{1 << 10, 16 << 10, 64 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("bytes=%d", size), func(b *testing.B) {
			var released atomic.Int32
			p := connect(b, benchServer(b, benchTable(f, size, &released)))
			_ = p.nc.SetDeadline(time.Time{})
			frame, buf := fetchFrame(12, 1), make([]byte, 4<<20)
			b.SetBytes(size)
			b.ReportAllocs()
			for b.Loop() {
				rawExchange(b, p.nc, frame, buf)
			}
		})
	}
}

func BenchmarkEncodeFetchResponse(b *testing.B) {
	for _, n := range []int{1, 10, 100} {
		b.Run(fmt.Sprintf("partitions=%d", n), func(b *testing.B) {
			dst := make([]byte, 0, 64<<10)
			b.ReportAllocs()
			for b.Loop() {
				f := NewFetchResponse(12)
				for i := range n {
					f.Add(FetchPartition{Topic: "topic", Partition: int32(i), PreferredReadReplica: -1})
				}
				dst = f.AppendTo(dst[:0])
				f.recycle()
			}
		})
	}
}
