package broker

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/invariant"
	"ottla/zkcoord/zktest"
)

// The way of one request through the whole broker, from its frame to its answer on the socket.

// exchange says one frame again and again, without allocating by itself.
type exchange struct {
	conn     net.Conn
	frame    []byte
	head     [4]byte
	response []byte
}

func (h *house) exchange(version int16, req kmsg.Request) *exchange {
	req.SetVersion(version)
	return &exchange{
		conn:     h.client().conn,
		frame:    kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, 7),
		response: make([]byte, 1<<20),
	}
}

func (x *exchange) once() {
	if _, err := x.conn.Write(x.frame); err != nil {
		panic(err)
	}
	if _, err := io.ReadFull(x.conn, x.head[:]); err != nil {
		panic(err)
	}
	if _, err := io.ReadFull(x.conn, x.response[:binary.BigEndian.Uint32(x.head[:])]); err != nil {
		panic(err)
	}
}

// burst sends the frame, which holds n requests, and reads their answers.
func (x *exchange) burst(n int) {
	x.once()
	for range n - 1 {
		if _, err := io.ReadFull(x.conn, x.head[:]); err != nil {
			panic(err)
		}
		if _, err := io.ReadFull(x.conn, x.response[:binary.BigEndian.Uint32(x.head[:])]); err != nil {
			panic(err)
		}
	}
}

func budgets(t testing.TB) (h *house, produce, fetch *exchange) {
	h = start(t, zktest.NewTree(), settings(t, nil))
	h.create("t", 1)
	h.client().produce("t", 0, strings.Repeat("x", 1000))
	few := fetchRequest(0, -1, want{"t", 0, 0})
	few.Topics[0].Partitions[0].PartitionMaxBytes = 4 << 10
	return h, h.exchange(9, produceOf("t", 0, 1, batch(strings.Repeat("x", 1000)))), h.exchange(11, few)
}

func TestRequestsStayWithinTheirAllocations(t *testing.T) {
	if invariant.Checked {
		t.Skip("checked builds allocate more")
	}
	_, produce, fetch := budgets(t)
	for _, row := range []struct {
		name string
		x    *exchange
		most float64
	}{{"produce", produce, 8}, {"fetch", fetch, 12}} {
		row.x.once()
		got := testing.AllocsPerRun(2000, row.x.once)
		t.Logf("%s: %.1f allocations", row.name, got)
		require.LessOrEqual(t, got, row.most, row.name)
	}
}

func BenchmarkProduce(b *testing.B) {
	_, produce, _ := budgets(b)
	b.ReportAllocs()
	for b.Loop() {
		produce.once()
	}
}

func BenchmarkFetch(b *testing.B) {
	_, _, fetch := budgets(b)
	b.ReportAllocs()
	for b.Loop() {
		fetch.once()
	}
}

// Requests in flight, as a busy client sends them: several come with one read, their answers leave with one write.
func BenchmarkProducePipelined(b *testing.B) {
	h := start(b, zktest.NewTree(), settings(b, nil))
	h.create("t", 1)
	for _, size := range []int{1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			const inFlight = 16
			x := h.exchange(9, produceOf("t", 0, 1, batch(strings.Repeat("x", size))))
			frame := x.frame
			x.frame = bytes.Repeat(frame, inFlight)
			b.SetBytes(int64(size * inFlight))
			b.ReportAllocs()
			for b.Loop() {
				x.burst(inFlight)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/inFlight, "ns/request")
		})
	}
}
