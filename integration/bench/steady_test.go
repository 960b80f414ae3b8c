package bench

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
	"ottla/internal/testzk"
)

// TestSteadyLoadLeavesNothingBehind loads three brokers for SOAK_MINUTES at SOAK_SHARE percent (70) of the highest acks=all rate that
// it finds first, while retention removes segments, the cleaner compacts a topic, and a group consumes that topic and commits. Latency,
// memory, goroutines, files and mappings must stay as they were.
func TestSteadyLoadLeavesNothingBehind(t *testing.T) {
	minutes := number64("SOAK_MINUTES", 0)
	if minutes == 0 {
		t.Skip("loads for long, on a quiet machine: make bench-soak")
	}
	s := startBrokers(t, harness.Ottla, 3, testzk.Start(t, 1), "/soak", "", "ottla.admin.listener=127.0.0.1:0",
		"log.retention.check.interval.ms=5000", "log.cleaner.backoff.ms=5000")
	w := &workload{name: "soak", batch: 16 * kib, record: kib, acks: -1, replicas: 3}
	most, err := produceRound(s, w, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	share := float64(number64("SOAK_SHARE", 70)) / 100
	b, err := newBatch(w.batch, w.record, "")
	if err != nil {
		t.Fatal(err)
	}
	perSecond := share * most[throughput] * 1e6 / float64(len(b.bytes))
	t.Logf("highest acks=all rate: %.0f MB/s; %.0f %% of it is %.0f batches a second", most[throughput], 100*share, perSecond)

	leaders, err := s.create("steady", defaultPartitions, 3, "retention.bytes=134217728", "segment.bytes=33554432")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.create("compacted", 3, 3, "cleanup.policy=compact", "segment.bytes=1048576", "min.cleanable.dirty.ratio=0.2"); err != nil {
		t.Fatal(err)
	}
	var lanes []*steady
	for i, address := range leaders {
		p, err := newProducer(address, "steady", []int32{int32(i)}, -1, b)
		if err != nil {
			t.Fatal(err)
		}
		lanes = append(lanes, newSteady(p, perSecond/float64(len(leaders)), time.Duration(float64(i)/perSecond*float64(time.Second)), minutes))
	}
	states, err := soak(t, s, lanes, minutes)
	if err != nil {
		t.Fatal(err)
	}
	judgeSoak(t, lanes, states, minutes)
}

// soak runs the load and looks at the brokers once a minute.
func soak(t *testing.T, s *brokers, lanes []*steady, minutes int) ([]state, error) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	var stop atomic.Bool
	var fault atomic.Pointer[error]
	run := func(f func() error) {
		wg.Go(func() {
			if err := onThread(f); err != nil && !stop.Load() {
				fault.CompareAndSwap(nil, &err)
			}
		})
	}
	began := time.Now()
	for _, l := range lanes {
		l.began = began
		run(func() error { return l.send(&stop) })
		run(l.read)
	}
	wg.Go(func() { writeKeys(ctx, s) })
	for range 2 {
		wg.Go(func() { consumeInGroup(ctx, t, s) })
	}
	var states []state
	for m := range minutes {
		for until := began.Add(time.Duration(m+1) * time.Minute); time.Until(until) > 0 && fault.Load() == nil; {
			time.Sleep(100 * time.Millisecond)
		}
		if fault.Load() != nil {
			break
		}
		now, err := stateOf(s)
		if err != nil {
			fault.CompareAndSwap(nil, &err)
			break
		}
		states = append(states, now)
		l := minutesOf(lanes, m, m+1)
		t.Logf("minute %d: %d batches, p50 %.2f, p99 %.2f, p99.9 %.2f ms; %s", m+1, l.count(), l.quantile(0.5), l.quantile(0.99), l.quantile(0.999), &now)
	}
	stop.Store(true)
	cancel()
	for _, l := range lanes {
		l.p.s.shutdown()
	}
	wg.Wait()
	if err := fault.Load(); err != nil {
		return states, *err
	}
	return states, nil
}

// judgeSoak compares the last five minutes with the first five after two of warm-up; a short run compares what it has.
func judgeSoak(t *testing.T, lanes []*steady, states []state, minutes int) {
	warm := min(2, minutes/3)
	span := min(5, (minutes-warm)/2)
	if span == 0 {
		t.Log("too short to compare its beginning with its end")
		return
	}
	first, last := minutesOf(lanes, warm, warm+span), minutesOf(lanes, minutes-span, minutes)
	t.Logf("p99.9: %.2f ms in the first %d minutes after warm-up, %.2f ms in the last", first.quantile(0.999), span, last.quantile(0.999))
	if last.quantile(0.999) > 1.5*first.quantile(0.999) {
		t.Error("p99.9 has grown by more than half")
	}
	var before, after state
	for m := warm; m < warm+span; m++ {
		before.raise(states[m])
	}
	for m := minutes - span; m < minutes; m++ {
		after.raise(states[m])
	}
	for _, complaint := range after.grew(before) {
		t.Error(complaint)
	}
}

// writeKeys keeps the cleaner busy: 2,000 records a second on 5,000 keys.
func writeKeys(ctx context.Context, s *brokers) {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.cluster.Bootstrap()...), kgo.DefaultProduceTopic("compacted"), kgo.ProducerLinger(20*time.Millisecond))
	if err != nil {
		return
	}
	defer client.Close()
	value := []byte(strings.Repeat("v", 200))
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range 20 {
			n++
			client.Produce(ctx, &kgo.Record{Key: fmt.Append(nil, "key-", n*7919%5000), Value: value}, nil)
		}
	}
}

func consumeInGroup(ctx context.Context, t *testing.T, s *brokers) {
	client, err := kgo.NewClient(kgo.SeedBrokers(s.cluster.Bootstrap()...), kgo.ConsumerGroup("soak"), kgo.ConsumeTopics("compacted"),
		kgo.AutoCommitInterval(time.Second))
	if err != nil {
		t.Error(err)
		return
	}
	defer client.Close()
	records := 0
	for ctx.Err() == nil {
		records += client.PollFetches(ctx).NumRecords()
	}
	t.Logf("a member of the group has consumed %d records", records)
}

// stateOf is the largest of each over the brokers.
func stateOf(s *brokers) (all state, err error) {
	for _, b := range s.cluster.Brokers {
		u, err := usageOfOne(b.PID())
		if err != nil {
			return all, err
		}
		files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", b.PID()))
		if err != nil {
			return all, err
		}
		goroutines, err := goroutinesOf(b)
		if err != nil {
			return all, err
		}
		all.raise(state{
			resident: float64(u.resident), anonymous: float64(u.anonymous), goroutines: goroutines, files: float64(len(files)),
			mappings: float64(strings.Count(text(fmt.Sprintf("/proc/%d/maps", b.PID())), "\n")),
		})
	}
	return all, nil
}

var (
	adminPort      = regexp.MustCompile(`admin port open.*address=(\S+)`)
	goroutineCount = regexp.MustCompile(`(?m)^go_goroutines (\S+)`)
)

func goroutinesOf(b *harness.Broker) (float64, error) {
	m := adminPort.FindStringSubmatch(b.Log())
	if m == nil {
		return 0, fmt.Errorf("broker %d has not told its admin port", b.ID)
	}
	resp, err := http.Get("http://" + m[1] + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err
	}
	n := goroutineCount.FindSubmatch(body)
	if n == nil {
		return 0, fmt.Errorf("broker %d tells no goroutines", b.ID)
	}
	return strconv.ParseFloat(string(n[1]), 64)
}
