package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// handover is one data directory that Kafka 3.9 and Ottla hand back and forth while clients write to it and read from it.
type handover struct {
	t *testing.T
	c *harness.Cluster
	b *harness.Broker

	mu      sync.Mutex
	records map[int32]map[int64]string // acknowledged ones of "orders": value by partition and offset
	keys    map[string]string          // acknowledged last values of "latest"
	seen    map[string]int             // values that the group has read, with how often
	commits map[int32]int64            // of the group, acknowledged

	epochs map[string]string // leader-epoch-checkpoint by partition, as of the last look
}

// TestKafkaAndOttlaHandADirectoryBackAndForth stops each of them in turn, cleanly and by kill -9, under idempotent producers of every
// codec, a compacted topic and a consumer group. No record, offset, epoch or commit may be lost, none may come twice; 'ottla log check'
// finds no fault at any hand-over, kafka-dump-log none in what Ottla left.
func TestKafkaAndOttlaHandADirectoryBackAndForth(t *testing.T) {
	harness.NeedKafka(t)
	rounds := harness.Pick(2, 10)
	c := harness.Start(t, harness.Options{Brokers: []harness.Kind{harness.Kafka}, Properties: map[string]string{
		"log.cleaner.backoff.ms": "300", "log.retention.check.interval.ms": "1000", "log.segment.delete.delay.ms": "1000",
		"log.initial.task.delay.ms": "500", "log.flush.offset.checkpoint.interval.ms": "700",
	}})
	h := &handover{
		t: t, c: c, b: c.Broker(1), records: map[int32]map[int64]string{}, keys: map[string]string{}, seen: map[string]int{},
		commits: map[int32]int64{}, epochs: map[string]string{},
	}
	createTopic(t, c, "orders", 3, 1, map[string]string{"segment.bytes": "200000"})
	createTopic(t, c, "latest", 1, 1, map[string]string{
		"cleanup.policy": "compact", "segment.bytes": "50000", "min.cleanable.dirty.ratio": "0.01", "delete.retention.ms": "0", "file.delete.delay.ms": "1000",
	})
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	for i, codec := range []kgo.CompressionCodec{kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression(), kgo.NoCompression()} {
		load.Go(func() { h.produce(ctx, i, codec) })
	}
	load.Go(func() { h.update(ctx) })
	load.Go(func() { h.consume(ctx) })
	for round := range rounds {
		h.awaitProgress()
		before := h.acknowledged()
		clean := round%4 < 2 // Kafka and Ottla, each of them cleanly and by kill -9
		if clean {
			if code := h.b.Terminate(); code != 0 && code != 143 {
				t.Errorf("round %d: exit code %d", round, code)
			}
		} else {
			h.b.Kill()
		}
		h.look(round, clean)
		was := h.b.Kind
		h.b.Kind = map[harness.Kind]harness.Kind{harness.Kafka: harness.Ottla, harness.Ottla: harness.Kafka}[was]
		c.Restart(h.b)
		c.WaitLed("orders", 3, 1)
		c.WaitLed("latest", 1, 1)
		t.Logf("round %d: %s took over from %s after %d acknowledged records", round, h.b.Kind, was, before)
	}
	h.awaitProgress()
	stop()
	load.Wait()
	h.verify()
	if code := h.b.Terminate(); code != 0 && code != 143 {
		t.Errorf("exit code %d", code)
	}
	h.look(rounds, true)
}

func (h *handover) acknowledged() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, p := range h.records {
		n += len(p)
	}
	return n
}

// awaitProgress waits until every kind of load has gone on.
func (h *handover) awaitProgress() {
	h.t.Helper()
	look := func() (records, keys, read int, commits int64) {
		records = h.acknowledged()
		h.mu.Lock()
		defer h.mu.Unlock()
		for _, offset := range h.commits {
			commits += offset
		}
		return records, h.updates(), len(h.seen), commits
	}
	enough := harness.Pick(200, 600)
	r0, k0, s0, c0 := look()
	harness.Eventually(h.t, time.Minute, "the load goes on", func() error {
		r, k, s, c := look()
		if r < r0+enough || k < k0+enough/2 || s < s0+enough/2 || c < c0+int64(enough/2) {
			return fmt.Errorf("records %d, keys %d, read %d, committed %d since the last look", r-r0, k-k0, s-s0, c-c0)
		}
		return nil
	})
}

// updates is the number in the newest value; with mu held.
func (h *handover) updates() int {
	newest := 0
	for _, v := range h.keys {
		var n int
		if _, err := fmt.Sscanf(v, "%d ", &n); err == nil {
			newest = max(newest, n)
		}
	}
	return newest
}

// patient are the options of clients that outlive their broker.
func patient(opts ...kgo.Opt) []kgo.Opt {
	return append(opts, kgo.RetryTimeout(2*time.Minute), kgo.RequestRetries(1000), kgo.RetryBackoffFn(func(int) time.Duration { return 200 * time.Millisecond }),
		kgo.RequestTimeoutOverhead(3*time.Second))
}

func (h *handover) produce(ctx context.Context, id int, codec kgo.CompressionCodec) {
	client := franz(h.t, h.c, patient(kgo.DefaultProduceTopic("orders"), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(5*time.Millisecond))...)
	for n := 0; ctx.Err() == nil; {
		var batch []*kgo.Record
		for range 20 {
			batch = append(batch, kgo.StringRecord(fmt.Sprintf("%d/%d %s", id, n, strings.Repeat("orders ", n%20))))
			n++
		}
		// Not ended by ctx: what has been sent must be known to have arrived, or not.
		results := client.ProduceSync(context.WithoutCancel(ctx), batch...)
		if err := results.FirstErr(); err != nil {
			h.t.Errorf("producer %d: %v", id, err)
			return
		}
		h.mu.Lock()
		for _, r := range results {
			p := h.records[r.Record.Partition]
			if p == nil {
				p = map[int64]string{}
				h.records[r.Record.Partition] = p
			}
			if other, taken := p[r.Record.Offset]; taken {
				h.t.Errorf("offset %d of partition %d was given twice: %.20q, %.20q", r.Record.Offset, r.Record.Partition, other, r.Record.Value)
			}
			p[r.Record.Offset] = string(r.Record.Value)
		}
		h.mu.Unlock()
		time.Sleep(15 * time.Millisecond)
	}
}

// update writes the compacted topic: few keys, many values, now and then a tombstone.
func (h *handover) update(ctx context.Context) {
	client := franz(h.t, h.c, patient(kgo.DefaultProduceTopic("latest"), kgo.ProducerBatchCompression(kgo.Lz4Compression()))...)
	for n := 0; ctx.Err() == nil; {
		var batch []*kgo.Record
		for range 20 {
			n++
			r := &kgo.Record{Key: fmt.Appendf(nil, "key-%d", n*7%101), Value: fmt.Appendf(nil, "%d %s", n, strings.Repeat("v", 60))}
			if n%53 == 0 {
				r.Value = nil
			}
			batch = append(batch, r)
		}
		if err := client.ProduceSync(context.WithoutCancel(ctx), batch...).FirstErr(); err != nil {
			h.t.Errorf("compacted topic: %v", err)
			return
		}
		h.mu.Lock()
		for _, r := range batch {
			if r.Value == nil {
				delete(h.keys, string(r.Key))
				continue
			}
			h.keys[string(r.Key)] = string(r.Value)
		}
		h.mu.Unlock()
		time.Sleep(15 * time.Millisecond)
	}
}

// consume reads "orders" in a group that commits, and checks that commits never go back.
func (h *handover) consume(ctx context.Context) {
	client := franz(h.t, h.c, patient(kgo.ConsumerGroup("readers"), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(), kgo.FetchMaxWait(300*time.Millisecond))...)
	for ctx.Err() == nil {
		fetches := client.PollRecords(ctx, 400)
		if ctx.Err() != nil {
			return
		}
		h.mu.Lock()
		fetches.EachRecord(func(r *kgo.Record) {
			h.seen[string(r.Value)]++
			if want, ok := h.records[r.Partition][r.Offset]; ok && want != string(r.Value) {
				h.t.Errorf("offset %d of partition %d: %.20q instead of %.20q", r.Offset, r.Partition, r.Value, want)
			}
		})
		h.mu.Unlock()
		// Not ended by ctx: whether the last commit has arrived must be known.
		if err := client.CommitUncommittedOffsets(context.WithoutCancel(ctx)); err != nil {
			continue
		}
		h.mu.Lock()
		for p, at := range client.CommittedOffsets()["orders"] {
			if at.Offset < h.commits[p] {
				h.t.Errorf("the commit of partition %d went back from %d to %d", p, h.commits[p], at.Offset)
			}
			h.commits[p] = at.Offset
		}
		h.mu.Unlock()
	}
}

// look checks the files that a stop left, with both tools.
func (h *handover) look(round int, clean bool) {
	h.t.Helper()
	binary, err := harness.Binary()
	if err != nil {
		h.t.Fatal(err)
	}
	out, err := exec.Command(binary, "log", "check", "--json", h.b.DataDir).Output()
	var report struct {
		Findings []struct{ Severity, Path, What string }
	}
	if jsonErr := json.Unmarshal(out, &report); jsonErr != nil {
		h.t.Fatalf("ottla log check: %v, %v: %.500s", err, jsonErr, out)
	}
	for _, f := range report.Findings {
		if f.Severity == "fault" {
			h.t.Errorf("round %d, left by %s: %s: %s", round, h.b.Kind, f.Path, f.What)
		}
	}
	h.compareEpochs(round)
	if h.b.Kind == harness.Ottla {
		h.dump(round, clean)
	}
}

// compareEpochs: a history of epochs only grows, but for what retention and an epoch without records take.
func (h *handover) compareEpochs(round int) {
	for _, dir := range partitionDirs(h.t, h.b, "orders-*") {
		now, err := os.ReadFile(filepath.Join(dir, "leader-epoch-checkpoint"))
		if err != nil {
			h.t.Error(err)
			continue
		}
		entries := strings.Split(strings.TrimSpace(string(now)), "\n")[2:]
		before := strings.Fields(strings.ReplaceAll(h.epochs[dir], " ", "/"))
		for i, e := range before[:max(0, len(before)-1)] {
			if i >= len(entries) || strings.ReplaceAll(entries[i], " ", "/") != e {
				h.t.Errorf("round %d: %s: the history of epochs was %v, now %v", round, dir, before, entries)
				break
			}
		}
		h.epochs[dir] = strings.Join(entries, "\n")
	}
}

// compactedHoles is what kafka-dump-log prints of the holes that compaction makes.
var compactedHoles = regexp.MustCompile(`(?m)^Non-consecutive offsets in .*/(latest|__consumer_offsets)-.*$`)

// dump has Kafka's own tool read what Ottla left.
func (h *handover) dump(round int, clean bool) {
	var logs []string
	for _, topic := range []string{"orders-*", "latest-*", "__consumer_offsets-*"} {
		for _, dir := range partitionDirs(h.t, h.b, topic) {
			for _, log := range glob(h.t, filepath.Join(dir, "*.log")) {
				if info, err := os.Stat(log); err == nil && info.Size() > 0 {
					logs = append(logs, log)
				}
			}
		}
	}
	logs = logs[max(0, len(logs)-150):]
	out := compactedHoles.ReplaceAllString(kafkaDumpLog(h.t, "--deep-iteration", "--files", strings.Join(logs, ",")), "")
	if clean && harness.Long() { // after a kill the indexes of active segments are what was flushed
		var indexes []string
		for _, dir := range partitionDirs(h.t, h.b, "orders-*") {
			indexes = append(append(indexes, glob(h.t, filepath.Join(dir, "*.index"))...), glob(h.t, filepath.Join(dir, "*.timeindex"))...)
		}
		out += kafkaDumpLog(h.t, "--verify-index-only", "--files", strings.Join(indexes, ","))
	}
	if bad := faults(out); bad != "" {
		h.t.Errorf("round %d: kafka-dump-log: %.2000s", round, bad)
	}
}

// verify reads everything back.
func (h *handover) verify() {
	h.t.Helper()
	values := map[string]int{}
	for p, records := range h.records {
		last := slices.Max(slices.Collect(maps.Keys(records)))
		got := map[int64]string{}
		h.readPartition("orders", p, last+1, func(r *kgo.Record) {
			got[r.Offset] = string(r.Value)
			values[string(r.Value)]++
		})
		if len(got) != int(last+1) {
			h.t.Errorf("orders-%d has %d records below %d", p, len(got), last+1)
		}
		for offset, want := range records {
			if got[offset] != want {
				h.t.Errorf("orders-%d offset %d: %.20q instead of %.20q", p, offset, got[offset], want)
			}
		}
	}
	for v, n := range values {
		if n > 1 {
			h.t.Errorf("%.20q is there %d times", v, n)
		}
	}
	state := map[string]string{}
	ends, err := kadm.NewClient(franz(h.t, h.c)).ListEndOffsets(h.t.Context(), "latest")
	if err != nil {
		h.t.Fatal(err)
	}
	end, _ := ends.Lookup("latest", 0)
	h.readPartition("latest", 0, end.Offset, func(r *kgo.Record) {
		if r.Value == nil {
			delete(state, string(r.Key))
			return
		}
		state[string(r.Key)] = string(r.Value)
	})
	if !maps.Equal(state, h.keys) {
		h.t.Errorf("the compacted topic comes to %d keys, %d were written", len(state), len(h.keys))
	}
	committed, err := kadm.NewClient(franz(h.t, h.c)).FetchOffsets(h.t.Context(), "readers")
	if err != nil {
		h.t.Fatal(err)
	}
	for p, want := range h.commits {
		if got, ok := committed.Lookup("orders", p); !ok || got.At != want {
			h.t.Errorf("committed of orders-%d: %d, want %d", p, got.At, want)
		}
	}
	h.t.Logf("%d records, %d keys, commits %v", len(values), len(state), h.commits)
}

func (h *handover) readPartition(topic string, p int32, end int64, fn func(*kgo.Record)) {
	client := franz(h.t, h.c, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {p: kgo.NewOffset().AtStart()}}))
	defer client.Close()
	ctx, cancel := context.WithTimeout(h.t.Context(), time.Minute)
	defer cancel()
	for next := int64(0); next < end; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			h.t.Fatalf("read %s-%d at %d of %d: %v", topic, p, next, end, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if r.Offset < end {
				fn(r)
			}
			next = r.Offset + 1
		})
	}
}
