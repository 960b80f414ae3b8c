package bench

import "slices"

// workload is one row of the table.
type workload struct {
	name  string // what BENCH_WORKLOADS says
	title string
	kind  kind

	batch       int // bytes of a batch before compression
	record      int
	codec       string
	acks        int16
	replicas    int
	partitions  int
	connections int  // 0: one a partition
	rate        int  // records a second, of an open loop
	limits      bool // floor and null rows stand beside it
	goals       []goal
}

type kind int

const (
	produce kind = iota
	consume
	latency
	endToEnd
	memory
	idle
	start
	tool
)

// Figures that rounds yield.
const (
	throughput    = "MB/s"
	cpuPerGB      = "CPU s/GB"
	clientCPU     = "client CPU s/GB"
	p50           = "p50 ms"
	p99           = "p99 ms"
	p999          = "p99.9 ms"
	endToEndP50   = "end to end p50 ms"
	endToEndP99   = "end to end p99 ms"
	endToEndP999  = "end to end p99.9 ms"
	idleMB        = "idle, resident MB"
	idleAnonymous = "idle, anonymous MB"
	afterMB       = "after, peak resident MB"
	afterNow      = "after, resident MB"
	afterAnon     = "after, anonymous MB"
	ofACore       = "% of a core, 3 brokers"
	seconds       = "s"
	recordsPerSec = "records/s"
)

// better says which way a figure should go.
func moreIsBetter(figure string) bool { return figure == throughput || figure == recordsPerSec }

// goal is what Ottla's figure should be: a multiple of Kafka's, or of the floor's, or absolute.
type goal struct {
	figure string
	of     string // kafka, floor, or "" for an absolute limit
	value  float64
}

func (g goal) met(v float64) bool {
	if g.of == "floor" || moreIsBetter(g.figure) {
		return v >= g.value
	}
	return v <= g.value
}

func times(more, cpu float64) []goal {
	return []goal{{throughput, "kafka", more}, {cpuPerGB, "kafka", cpu}, {cpuPerGB, "floor", 0.85}}
}

const (
	kib = 1 << 10
	mb  = 1_000_000
)

// workloads are all rows, in the order in which they run: memory is looked at first and last.
var workloads = []workload{
	{name: "memory", title: "memory a broker", kind: memory, goals: []goal{{idleMB, "", 30}, {afterMB, "", 100}}},
	{name: "produce-16k-100b", title: "produce 16 KiB batches of 100 B, acks=1", batch: 16 * kib, record: 100, acks: 1, replicas: 1, limits: true, goals: times(4, 1./8)},
	{name: "produce-16k-1k", title: "produce 16 KiB batches of 1 KiB, acks=1", batch: 16 * kib, record: kib, acks: 1, replicas: 1, limits: true, goals: times(2.5, 1./4)},
	{name: "produce-16k-1k-all", title: "produce 16 KiB batches of 1 KiB, acks=all, 3 replicas", batch: 16 * kib, record: kib, acks: -1, replicas: 3, goals: times(6, 1./8)[:2]},
	{name: "produce-16k-100b-all", title: "produce 16 KiB batches of 100 B, acks=all, 3 replicas", batch: 16 * kib, record: 100, acks: -1, replicas: 3, goals: times(5, 1./6)[:2]},
	{name: "produce-1k", title: "produce 1 KiB requests, acks=1", batch: kib, record: 950, acks: 1, replicas: 1, limits: true, goals: times(2.5, 1./3)},
	{name: "produce-64k", title: "produce 64 KiB batches of 1 KiB, acks=1", batch: 64 * kib, record: kib, acks: 1, replicas: 1, limits: true, goals: times(2.5, 1./4)},
	{name: "produce-1m", title: "produce 1 MB batches of 1 KiB, acks=1", batch: mb, record: kib, acks: 1, replicas: 1, limits: true, goals: times(2.5, 1./4)},
	{name: "produce-lz4", title: "produce lz4 batches (64 KiB of 100 B before), acks=1", batch: 64 * kib, record: 100, codec: "lz4", acks: 1, replicas: 1, limits: true, goals: times(0, 1./5)[1:]},
	{name: "produce-zstd", title: "produce zstd batches (64 KiB of 100 B before), acks=1", batch: 64 * kib, record: 100, codec: "zstd", acks: 1, replicas: 1, limits: true, goals: times(0, 1./5)[1:]},
	{name: "consume-1k", title: "consume from cache, 1 KiB records", kind: consume, batch: 16 * kib, record: kib, acks: 1, replicas: 1, limits: true,
		goals: []goal{{throughput, "kafka", 1.2}, {cpuPerGB, "kafka", 0.5}, {cpuPerGB, "floor", 0.95}}},
	{name: "consume-100b", title: "consume from cache, 100 B records", kind: consume, batch: 16 * kib, record: 100, acks: 1, replicas: 1, limits: true,
		goals: []goal{{throughput, "kafka", 1.2}, {cpuPerGB, "kafka", 0.5}, {cpuPerGB, "floor", 0.95}}},
	{name: "latency-1", title: "one record of 100 B a request, 500/s open loop, acks=1", kind: latency, batch: 1, record: 100, acks: 1, replicas: 1, rate: 500,
		goals: []goal{{p50, "kafka", 1. / 5}, {p99, "kafka", 1. / 5}}},
	{name: "latency-all", title: "the same, acks=all, 3 replicas", kind: latency, batch: 1, record: 100, acks: -1, replicas: 3, rate: 500,
		goals: []goal{{p50, "kafka", 1. / 4}, {p99, "kafka", 1. / 30}}},
	{name: "end-to-end-4000", title: "4,000 such records a second, acks=all, end to end", kind: endToEnd, batch: 1, record: 100, acks: -1, replicas: 3, rate: 4000,
		goals: []goal{{endToEndP99, "", 5}}},
	{name: "many-partitions", title: "600 partitions, 3 replicas, acks=all, 4 KiB batches, 24 connections", batch: 4 * kib, record: kib, acks: -1, replicas: 3, partitions: 600, connections: 24,
		goals: []goal{{throughput, "kafka", 20}}},
	{name: "few-partitions", title: "the same with 6 partitions", batch: 4 * kib, record: kib, acks: -1, replicas: 3, partitions: 6, connections: 24},
	{name: "idle-partitions", title: "1,000 idle partitions, 3 replicas", kind: idle, replicas: 3, partitions: 1000, goals: []goal{{ofACore, "", 1}}},
	{name: "start", title: "start after kill -9 with 1,600 partitions", kind: start, batch: 16 * kib, record: kib, acks: 1, replicas: 1, partitions: 1600, goals: []goal{{seconds, "", 0.5}}},
	{name: "java-producer", title: "Kafka's producer-perf-test, 100 B, acks=all, 3 replicas", kind: tool, record: 100, acks: -1, replicas: 3},
	{name: "java-consumer", title: "Kafka's consumer-perf-test, 100 B", kind: tool, record: 100, acks: 1, replicas: 1},
	{name: "kcat-producer", title: "kcat (librdkafka) produces 100 B, acks=all, 3 replicas", kind: tool, record: 100, acks: -1, replicas: 3},
	{name: "kcat-consumer", title: "kcat (librdkafka) consumes 100 B", kind: tool, record: 100, acks: 1, replicas: 1},
}

// defaultPartitions are two a broker.
const defaultPartitions = 6

func (w *workload) partitionCount() int {
	if w.partitions == 0 {
		return defaultPartitions
	}
	return w.partitions
}

// chosen are the workloads of these names, all of them for none.
func chosen(names []string) []workload {
	if len(names) == 0 {
		return workloads
	}
	var out []workload
	for _, w := range workloads {
		if slices.Contains(names, w.name) {
			out = append(out, w)
		}
	}
	return out
}
