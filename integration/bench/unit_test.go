package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// inProcess is a floor server in this process.
type inProcess struct{ address string }

func newInProcess(t *testing.T) *inProcess {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	done := make(chan struct{})
	go func() { // ends with the listener
		defer close(done)
		_ = serveFloor(l, dir, false)
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return &inProcess{l.Addr().String()}
}

func (s *inProcess) name() string { return "floor" }
func (s *inProcess) create(_ string, partitions, _ int, _ ...string) ([]string, error) {
	out := make([]string, partitions)
	for i := range out {
		out[i] = s.address
	}
	return out, nil
}
func (s *inProcess) remove(string) {}
func (s *inProcess) pids() []int   { return nil }

func TestRoundsOfEachKindMoveBytes(t *testing.T) {
	s := newInProcess(t)
	for _, w := range []workload{
		{name: "p", batch: 16 * kib, record: 100, acks: 1, partitions: 3},
		{name: "large", batch: mb, record: kib, acks: 1, partitions: 2},
		{name: "lz4", batch: 64 * kib, record: 100, codec: "lz4", acks: 1, partitions: 1},
		{name: "many", batch: kib, record: 100, acks: 1, partitions: 30, connections: 6},
	} {
		f, err := produceRound(s, &w, 30*time.Millisecond)
		if err != nil || f[throughput] <= 0 {
			t.Errorf("%s: %v %v", w.name, f, err)
		}
	}
	w := workload{name: "c", kind: endToEnd, batch: 1, record: 100, acks: 1, partitions: 2, rate: 200}
	f, err := openLoopRound(s, &w, 200*time.Millisecond)
	if err != nil || f[p50] <= 0 || f[p50] > 5000 {
		t.Errorf("open loop: %v %v", f, err)
	}
}

func TestConsumerReadsWhatWasProduced(t *testing.T) {
	s := newInProcess(t)
	b, err := newBatch(16*kib, 100, "")
	if err != nil {
		t.Fatal(err)
	}
	p, err := newProducer(s.address, "t", []int32{0}, 1, b)
	if err != nil {
		t.Fatal(err)
	}
	running := startAll([]load{p})
	for p.done() < int64(100*len(b.bytes)) && !running.failed() {
		time.Sleep(time.Millisecond)
	}
	p.end()
	if err := running.all(); err != nil {
		t.Fatal(err)
	}
	c, err := newConsumer(s.address, "t", 0, b)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	records := p.done() / int64(len(b.bytes)) * int64(b.records)
	for c.offset < records {
		if err := c.fetch(); err != nil {
			t.Fatal(err)
		}
	}
	if c.offset != records {
		t.Errorf("read to offset %d, want %d", c.offset, records)
	}
}

func TestClientSeesARefusal(t *testing.T) {
	resp := kmsg.NewPtrProduceResponse()
	resp.Version = produceVersion
	part := kmsg.NewProduceResponseTopicPartition()
	part.ErrorCode = 6
	resp.Topics = []kmsg.ProduceResponseTopic{{Topic: "topic", Partitions: []kmsg.ProduceResponseTopicPartition{part}}}
	answer := append([]byte{0, 0, 0, 0, 0, 0, 0, 3, 0}, resp.AppendTo(nil)...)
	if err := checkProduced(answer, 3, produceErrorAt("topic")); err == nil || !strings.Contains(err.Error(), "error 6") {
		t.Errorf("refused produce: %v", err)
	}
	if err := checkProduced(answer, 4, produceErrorAt("topic")); err == nil {
		t.Error("an answer out of turn was taken")
	}
	fetched := kmsg.NewPtrFetchResponse()
	fetched.Version = fetchVersion
	fp := kmsg.NewFetchResponseTopicPartition()
	fp.RecordBatches = make([]byte, 300)
	fetched.Topics = []kmsg.FetchResponseTopic{{Topic: "topic", Partitions: []kmsg.FetchResponseTopicPartition{fp}}}
	c := consumer{errorAt: fetchErrorAt("topic"), recordsAt: fetchRecordsAt("topic")}
	head := append(make([]byte, 9), fetched.AppendTo(nil)...)
	if n, err := c.recordsIn(head); n != 300 || err != nil {
		t.Errorf("%d bytes of records, %v; want 300", n, err)
	}
	fetched.Topics[0].Partitions[0].ErrorCode = 1
	if _, err := c.recordsIn(append(make([]byte, 9), fetched.AppendTo(nil)...)); err == nil {
		t.Error("a refused fetch was taken")
	}
	frame := produceFrame("topic", 0x01020304, 1, batch{bytes: make([]byte, 100)})
	if got := string(frame[partitionAt("topic"):][:4]); got != "\x01\x02\x03\x04" {
		t.Errorf("partition in the frame: %x", got)
	}
}

func TestLinesAreMediansOfPairsHeldAgainstGoals(t *testing.T) {
	w := &workload{name: "produce-1k", title: "T", goals: times(2.5, 1./3)}
	r := row{Name: w.name, Title: w.title}
	for i := range 3 {
		r.add("kafka", figures{throughput: 10, cpuPerGB: 8})
		r.add("ottla", figures{throughput: float64(20 + 10*i), cpuPerGB: 4, clientCPU: 1})
		r.add("floor", figures{throughput: 100, cpuPerGB: 3.6})
		r.add("null", figures{throughput: 31, cpuPerGB: 3})
	}
	r.conclude(w)
	l := r.Lines[0]
	if l.Figure != throughput || l.Ratio != 3 || l.RatioLow != 2 || l.RatioHigh != 4 || l.Verdict != "met" {
		t.Errorf("throughput: %+v", l)
	}
	if l := r.Lines[1]; l.Verdict != "missed: 0.50; met" {
		t.Errorf("CPU: %+v", l)
	}
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "client is the limit") {
		t.Errorf("notes: %q", r.Notes)
	}
	all := result{Rows: []row{r}, Machine: map[string]string{}}
	for dec := xml.NewDecoder(strings.NewReader(all.plot())); ; {
		if _, err := dec.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "r.json")
	if err := all.save(file); err != nil {
		t.Fatal(err)
	}
	other := result{Rows: []row{{Name: "memory"}}}
	if err := other.save(file); err != nil || len(other.Rows) != 2 || other.Rows[0].Name != "memory" {
		t.Errorf("merged: %v %+v", err, other.Rows)
	}
}

func TestPercentiles(t *testing.T) {
	var v []float64
	for i := range 1000 {
		v = append(v, float64(i+1))
	}
	for q, want := range map[float64]float64{0.5: 500, 0.99: 990, 0.999: 999, 1: 1000} {
		if got := percentile(v, q); got != want {
			t.Errorf("percentile %v is %v, want %v", q, got, want)
		}
	}
}

func TestSpreadKeepsQuantilesWithinItsStep(t *testing.T) {
	var s spread
	for i := range 10_000 {
		s.add(int64(i+1) * 1000) // up to 10 ms
	}
	for q, want := range map[float64]float64{0.5: 5, 0.99: 9.9, 0.999: 9.99} {
		if got := s.quantile(q); got < want/spreadStep || got > want*spreadStep {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	before := state{resident: 50e6, goroutines: 100}
	if c := (&state{resident: 60e6, goroutines: 110}).grew(before); len(c) != 0 {
		t.Errorf("within the slack: %q", c)
	}
	if c := (&state{resident: 90e6, goroutines: 200}).grew(before); len(c) != 2 {
		t.Errorf("grown: %q", c)
	}
}
