package bench

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"ottla/integration/harness"
	"ottla/internal/testzk"
)

func TestMain(m *testing.M) {
	serveFloorIfAsked()
	harness.Main(m)
}

// Each flag can come from the environment too, as make passes it.
var (
	asked     = flag.Bool("bench-kafka", os.Getenv("OTTLA_BENCH") != "", "measure beside Kafka 3.9 (OTTLA_BENCH)")
	pairs     = flag.Int("pairs", number64("BENCH_PAIRS", 5), "measured pairs a workload (BENCH_PAIRS)")
	names     = flag.String("workloads", os.Getenv("BENCH_WORKLOADS"), "names, with commas; empty: all (BENCH_WORKLOADS)")
	warm      = flag.Int("warm", number64("BENCH_WARM", 10), "seconds of each kind of load on each side before the first workload (BENCH_WARM)")
	span      = flag.Int("seconds", number64("BENCH_SECONDS", 5), "measured seconds a round (BENCH_SECONDS)")
	jsonFile  = flag.String("json", os.Getenv("BENCH_JSON"), "write the result there, keeping the rows of other workloads (BENCH_JSON)")
	plotFile  = flag.String("plot", os.Getenv("BENCH_PLOT"), "draw the result there, as SVG (BENCH_PLOT)")
	against   = flag.String("against", os.Getenv("BENCH_AGAINST"), "another build of the program, to stand in Kafka's place (BENCH_AGAINST)")
	onlyOttla = flag.Bool("only-ottla", os.Getenv("BENCH_ONLY_OTTLA") != "", "leave Kafka out (BENCH_ONLY_OTTLA)")
)

func number64(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// TestBesideKafka is the whole comparison.
func TestBesideKafka(t *testing.T) {
	if !*asked {
		t.Skip("measures for long, on a quiet machine: make bench-kafka")
	}
	var list []string
	if *names != "" {
		list = strings.Split(*names, ",")
	}
	chosen := chosen(list)
	if len(chosen) == 0 {
		t.Fatalf("no workload is called %s", *names)
	}
	r := &runner{t: t, zk: testzk.Start(t, 1), span: time.Duration(*span) * time.Second, pairs: *pairs, caches: map[string]*cached{}}
	r.result.Machine = machineFacts()
	r.result.Command = fmt.Sprintf("make bench-kafka BENCH_PAIRS=%d BENCH_SECONDS=%d", *pairs, *span)
	if !*onlyOttla {
		r.kafka = startBrokers(t, harness.Kafka, 3, r.zk, "/kafka", *against)
	}
	r.ottla = startBrokers(t, harness.Ottla, 3, r.zk, "/ottla", "")
	time.Sleep(5 * time.Second) // until what a start leaves to do is done
	r.noteIdleMemory()
	r.warmUp(time.Duration(*warm) * time.Second)
	var last *row
	for i := range chosen {
		w := &chosen[i]
		row := r.row(w)
		if w.kind == memory {
			last = &row
			continue // its second half comes last
		}
		r.finish(row, w)
	}
	if last != nil {
		r.noteMemoryAfter(last)
		r.finish(*last, &chosen[0])
	}
	r.report()
}

// runner goes through the workloads.
type runner struct {
	t            testing.TB
	zk           *testzk.Ensemble
	kafka, ottla *brokers // kafka is nil when it is left out
	span         time.Duration
	pairs        int
	caches       map[string]*cached // by side and workload
	idle         map[string]usage
	result       result
}

// warmUp lets Kafka's compiler see the paths of all workloads for long enough; the first pair of each would not do.
func (r *runner) warmUp(span time.Duration) {
	if span == 0 || r.kafka == nil {
		return
	}
	for _, name := range []string{"produce-16k-100b", "produce-16k-1k-all", "produce-1k", "consume-1k"} {
		w := &chosen([]string{name})[0]
		for _, s := range r.inTurn(0) {
			r.span, span = span, r.span
			if _, err := r.round(s, w); err != nil {
				r.t.Fatalf("%s does not get warm: %v", s.name(), err)
			}
			r.span, span = span, r.span
		}
	}
}

// inTurn are the sides of the n-th pair: each goes first every other time.
func (r *runner) inTurn(n int) []*brokers {
	out := []*brokers{r.ottla}
	if r.kafka != nil {
		out = []*brokers{r.kafka, r.ottla}
	}
	if n%2 == 1 {
		slices.Reverse(out)
	}
	return out
}

func (r *runner) row(w *workload) row {
	out := row{Name: w.name, Title: w.title}
	switch w.kind {
	case memory:
		for side, u := range r.idle {
			out.add(side, figures{idleMB: float64(u.resident) / 1e6, idleAnonymous: float64(u.anonymous) / 1e6})
		}
	case idle:
		r.idlePartitions(&out, w)
	case start:
		r.starts(&out, w)
	default:
		r.rounds(&out, w)
	}
	return out
}

func (r *runner) finish(out row, w *workload) {
	out.conclude(w)
	r.result.Rows = append(r.result.Rows, out)
	one := result{Rows: []row{out}}
	_, lines, _ := strings.Cut(one.table(), "---|\n")
	r.t.Logf("%s\n%s", w.name, lines)
	r.keep() // what is measured stays, whatever comes
}

// rounds measures the pairs of a workload, after one that warms up.
func (r *runner) rounds(out *row, w *workload) {
	for n := range r.pairs + 1 {
		for _, s := range r.inTurn(n) {
			f, err := r.round(s, w)
			if err != nil {
				r.t.Errorf("%s, %s: %v", w.name, s.name(), err)
				out.Notes = append(out.Notes, fmt.Sprintf("%s: %v", s.name(), err))
				return
			}
			if n > 0 {
				out.add(s.name(), f)
			}
		}
		if w.limits && n > 0 && n <= limitRounds {
			r.limitRoundOf(out, w)
		}
	}
}

// limitRounds is how many rounds the floor and null get.
const limitRounds = 3

func (r *runner) limitRoundOf(out *row, w *workload) {
	for _, null := range []bool{false, true} {
		if null && w.kind == consume {
			continue // what is not written cannot be sent
		}
		s, err := startFloor(null)
		if err == nil {
			var f figures
			if f, err = r.round(s, w); err == nil {
				out.add(s.name(), f)
			}
			s.end()
			delete(r.caches, s.name()+w.name)
		}
		if err != nil {
			r.t.Errorf("%s, floor: %v", w.name, err)
		}
	}
}

func (r *runner) round(s side, w *workload) (figures, error) {
	switch w.kind {
	case produce:
		if err := touchPages(r.t.TempDir(), int64(w.replicas)*touchedBytes); err != nil {
			return nil, err
		}
		return produceRound(s, w, r.span)
	case consume:
		key := s.name() + w.name
		if r.caches[key] == nil {
			c, err := fillCache(s, w)
			if err != nil {
				return nil, err
			}
			r.caches[key] = c
		}
		return consumeRound(s, r.caches[key], r.span)
	case latency, endToEnd:
		return openLoopRound(s, w, 2*r.span)
	case tool:
		return r.tool(s.(*brokers), w)
	}
	return nil, fmt.Errorf("no rounds of %s", w.name)
}

func (r *runner) noteIdleMemory() {
	r.idle = map[string]usage{}
	for _, s := range r.inTurn(0) {
		u, err := usageOf(s.pids())
		if err != nil {
			r.t.Fatal(err)
		}
		r.idle[s.name()] = u
	}
}

func (r *runner) noteMemoryAfter(out *row) {
	for _, s := range r.inTurn(0) {
		u, err := usageOf(s.pids())
		if err != nil {
			r.t.Error(err)
			return
		}
		out.add(s.name(), figures{
			afterMB: float64(u.peak) / 1e6, afterNow: float64(u.resident) / 1e6, afterAnon: float64(u.anonymous) / 1e6,
		})
	}
}

// idlePartitions looks at both sides at once: neither does anything.
func (r *runner) idlePartitions(out *row, w *workload) {
	topic := freshTopic(w)
	for _, s := range r.inTurn(0) {
		if _, err := s.create(topic, w.partitions, w.replicas); err != nil {
			r.t.Error(err)
			return
		}
	}
	time.Sleep(10 * time.Second)
	before := map[string]usage{}
	began := time.Now()
	for _, s := range r.inTurn(0) {
		before[s.name()], _ = usageOf(s.pids())
	}
	time.Sleep(max(10*time.Second, 6*r.span))
	for _, s := range r.inTurn(0) {
		u, err := usageOf(s.pids())
		if err != nil {
			r.t.Error(err)
			return
		}
		out.add(s.name(), figures{ofACore: 100 * (u.cpu - before[s.name()].cpu).Seconds() / time.Since(began).Seconds()})
		s.remove(topic)
	}
}

// starts kills single brokers with many partitions and times their start until every partition answers.
func (r *runner) starts(out *row, w *workload) {
	sides := []*brokers{startBrokers(r.t, harness.Ottla, 1, r.zk, "/ottla-start", "")}
	if r.kafka != nil {
		sides = append(sides, startBrokers(r.t, harness.Kafka, 1, r.zk, "/kafka-start", *against))
	}
	topic := freshTopic(w)
	for _, s := range sides {
		if err := r.fillPartitions(s, w, topic); err != nil {
			r.t.Errorf("%s: %v", s.name(), err)
			return
		}
	}
	for range r.pairs {
		for _, s := range sides {
			took, err := restart(s, topic, w.partitions)
			if err != nil {
				r.t.Errorf("%s: %v", s.name(), err)
				return
			}
			out.add(s.name(), figures{seconds: took.Seconds()})
		}
		slices.Reverse(sides)
	}
	for _, s := range sides {
		s.cluster.Brokers[0].Kill()
	}
}

// tool runs one of the clients that people use, as a second opinion.
func (r *runner) tool(s *brokers, w *workload) (figures, error) {
	topic := freshTopic(w)
	if _, err := s.create(topic, defaultPartitions, w.replicas); err != nil {
		return nil, err
	}
	defer s.remove(topic)
	count := int(r.span.Seconds()) * 200_000
	k := harness.NeedKafka(r.t)
	bootstrap := s.cluster.BootstrapText()
	javaProduce := func(acks string) *exec.Cmd {
		return k.Tool("kafka-producer-perf-test", "--topic", topic, "--num-records", fmt.Sprint(count), "--record-size", fmt.Sprint(w.record),
			"--throughput", "-1", "--producer-props", "bootstrap.servers="+bootstrap, "acks="+acks, "batch.size=16384", "linger.ms=5", "compression.type=none")
	}
	kcatProduce := func() *exec.Cmd {
		return exec.Command("kcat", "-P", "-b", bootstrap, "-t", topic, "-l", r.lines(w.record, count), "-X", "acks=all", "-X", "linger.ms=5", "-X", "batch.size=16384")
	}
	switch w.name {
	case "java-producer":
		return timed(s, count, javaProduce("all"))
	case "kcat-producer":
		return timed(s, count, kcatProduce())
	}
	if err := javaProduce("1").Run(); err != nil {
		return nil, fmt.Errorf("fill %s: %w", topic, err)
	}
	if w.name == "java-consumer" {
		return timed(s, count, k.Tool("kafka-consumer-perf-test", "--bootstrap-server", bootstrap, "--topic", topic, "--messages", fmt.Sprint(count), "--timeout", "30000"))
	}
	return timed(s, count, exec.Command("kcat", "-C", "-b", bootstrap, "-t", topic, "-o", "beginning", "-e", "-q"))
}

// lines is a file for kcat.
func (r *runner) lines(length, count int) string {
	file := filepath.Join(os.TempDir(), fmt.Sprintf("ottla-bench-%d-%d", length, count))
	line := strings.Repeat("x", length-1) + "\n"
	if info, err := os.Stat(file); err == nil && info.Size() == int64(count*len(line)) {
		return file
	}
	if err := os.WriteFile(file, []byte(strings.Repeat(line, count)), 0o644); err != nil {
		r.t.Fatal(err)
	}
	r.t.(*testing.T).Cleanup(func() { os.Remove(file) })
	return file
}

// timed is a client's whole run, with its start: what its user waits for.
func timed(s *brokers, records int, cmd *exec.Cmd) (figures, error) {
	var complaint strings.Builder
	cmd.Stderr = &complaint
	from, err := usageOf(s.pids())
	if err != nil {
		return nil, err
	}
	began := time.Now()
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %.300s", filepath.Base(cmd.Path), err, complaint.String())
	}
	took := time.Since(began)
	to, err := usageOf(s.pids())
	return figures{recordsPerSec: float64(records) / took.Seconds(), cpuPerGB: (to.cpu - from.cpu).Seconds() / (float64(records*100) / 1e9)}, err
}

func (r *runner) report() {
	r.keep()
	fmt.Print(r.result.table())
}

// keep writes what has been asked for: with rows of an earlier run in the file, the plot shows these too.
func (r *runner) keep() {
	if *jsonFile != "" {
		if err := r.result.save(*jsonFile); err != nil {
			r.t.Error(err)
		}
	}
	if *plotFile != "" {
		if err := os.WriteFile(*plotFile, []byte(r.result.plot()), 0o644); err != nil {
			r.t.Error(err)
		}
	}
}
