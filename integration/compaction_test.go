package integration

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// TestCompactionBesideKafka has Ottla and Kafka 3.9 compact the same gigabyte of a million keys, one after the other, each from a copy
// of the same directory, and prints a table. Nothing of time is asserted; what is left of the data is.
func TestCompactionBesideKafka(t *testing.T) {
	if !harness.Long() {
		t.Skip("measures: in the long form only")
	}
	harness.NeedKafka(t)
	for _, codec := range []struct {
		name string
		opt  kgo.CompressionCodec
	}{{"uncompressed", kgo.NoCompression()}, {"lz4", kgo.Lz4Compression()}} {
		t.Run(codec.name, func(t *testing.T) { compareCompaction(t, codec.opt) })
	}
}

const (
	compactedKeys  = 1_000_000
	compactedBytes = 1 << 30 // before compression
	compactedValue = 200
	neverYet       = "86400000" // min.compaction.lag.ms until the measurement begins
)

func compareCompaction(t *testing.T, codec kgo.CompressionCodec) {
	c := harness.Start(t, harness.Options{
		Brokers: []harness.Kind{harness.Ottla}, Production: true, Properties: map[string]string{"log.cleaner.backoff.ms": "200", "log.retention.check.interval.ms": "86400000", "zookeeper.session.timeout.ms": "18000"},
	})
	b := c.Broker(1)
	createTopic(t, c, "big", 1, 1, map[string]string{
		"cleanup.policy": "compact", "segment.bytes": strconv.Itoa(100 << 20), "min.cleanable.dirty.ratio": "0.01", "min.compaction.lag.ms": neverYet,
	})
	writeKeys(t, c, codec)
	b.Terminate()
	original := b.DataDir + "-original"
	copyDir(t, b.DataDir, original)
	var table strings.Builder
	fmt.Fprintf(&table, "%-6s %9s %9s %9s %12s %12s %9s %10s\n", "broker", "wall s", "user s", "system s", "peak RSS MB", "written MB", "kept MB", "records")
	records := map[harness.Kind]int64{}
	for _, kind := range []harness.Kind{harness.Ottla, harness.Kafka, harness.Ottla, harness.Kafka} {
		if err := os.RemoveAll(b.DataDir); err != nil {
			t.Fatal(err)
		}
		copyDir(t, original, b.DataDir)
		b.Kind = kind
		c.Restart(b)
		c.WaitLed("big", 1, 1)
		m := measureCompaction(t, c, b)
		m.records = countRecords(t, c, "big")
		if other, ok := records[kind]; ok && other != m.records {
			t.Errorf("%s kept %d records, and %d the other time", kind, m.records, other)
		}
		records[kind] = m.records
		fmt.Fprintf(&table, "%-6s %9.2f %9.2f %9.2f %12d %12d %9d %10d\n", kind, m.wall.Seconds(), m.user.Seconds(), m.system.Seconds(), m.peak>>20, m.written>>20, m.kept>>20, m.records)
		setTopic(t, c, "big", "min.compaction.lag.ms", neverYet)
		b.Terminate()
	}
	if records[harness.Ottla] != records[harness.Kafka] {
		t.Errorf("Ottla kept %d records, Kafka %d", records[harness.Ottla], records[harness.Kafka])
	}
	t.Logf("one partition, %d MB before compression, %d keys\n%s", compactedBytes>>20, compactedKeys, table.String())
}

func writeKeys(t *testing.T, c *harness.Cluster, codec kgo.CompressionCodec) {
	client := franz(t, c, kgo.DefaultProduceTopic("big"), kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(256<<10), kgo.ProducerLinger(20*time.Millisecond), kgo.MaxBufferedRecords(20000))
	rng := rand.New(rand.NewPCG(1, 1))
	var failed error
	for written := 0; written < compactedBytes; {
		value := make([]byte, compactedValue)
		for i := 0; i < len(value); i += 8 { // some of it compresses
			word := rng.Uint64()
			for j := range 8 {
				value[i+j] = 'a' + byte(word>>(8*j))&15
			}
		}
		r := &kgo.Record{Key: fmt.Appendf(nil, "key-%07d", rng.IntN(compactedKeys)), Value: value}
		client.Produce(t.Context(), r, func(_ *kgo.Record, err error) {
			if err != nil {
				failed = err
			}
		})
		written += len(r.Key) + len(value) + 10
	}
	if err := client.Flush(t.Context()); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	client.Close()
}

func copyDir(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("sync").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func setTopic(t *testing.T, c *harness.Cluster, topic, key, value string) {
	t.Helper()
	resp, err := kadm.NewClient(franz(t, c)).AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: key, Value: &value}}, topic)
	if err == nil {
		_, err = resp.On(topic, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// compaction is what one cost.
type compaction struct {
	wall, user, system  time.Duration
	peak, written, kept int64 // bytes
	records             int64
}

// measureCompaction lets the cleaner begin, and waits until its checkpoint tells the end of the sealed segments.
func measureCompaction(t *testing.T, c *harness.Cluster, b *harness.Broker) compaction {
	t.Helper()
	dir := filepath.Join(b.DataDir, "big-0")
	logs := glob(t, filepath.Join(dir, "*.log"))
	active := filepath.Base(logs[len(logs)-1])
	end, err := strconv.ParseInt(strings.TrimSuffix(active, ".log"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(3 * time.Second) // what the start has to do
	_ = os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", b.PID()), []byte("5"), 0)
	user, system, written := spentBy(t, b)
	began := time.Now()
	setTopic(t, c, "big", "min.compaction.lag.ms", "0")
	harness.Eventually(t, 4*time.Minute, "the log is clean", func() error {
		text, err := os.ReadFile(filepath.Join(b.DataDir, "cleaner-offset-checkpoint"))
		if err == nil && !bytes.Contains(text, fmt.Appendf(nil, "big 0 %d\n", end)) {
			err = fmt.Errorf("%q, want %d", text, end)
		}
		return err
	})
	m := compaction{wall: time.Since(began)}
	u, s, w := spentBy(t, b)
	m.user, m.system, m.written = u-user, s-system, w-written
	m.peak = procField(t, b, "status", "VmHWM:") << 10
	for _, log := range glob(t, filepath.Join(dir, "*.log")) {
		if info, err := os.Stat(log); err == nil {
			m.kept += info.Size()
		}
	}
	return m
}

// spentBy is a broker's processor time and the bytes that it had written to the disk.
func spentBy(t *testing.T, b *harness.Broker) (user, system time.Duration, written int64) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.PID()))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	ticks := func(i int) time.Duration {
		n, _ := strconv.ParseInt(fields[i], 10, 64)
		return time.Duration(n) * time.Second / 100
	}
	return ticks(11), ticks(12), procField(t, b, "io", "write_bytes:")
}

func procField(t *testing.T, b *harness.Broker, file, field string) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", b.PID(), file))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), field)
	n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func countRecords(t *testing.T, c *harness.Cluster, topic string) int64 {
	t.Helper()
	ends, err := kadm.NewClient(franz(t, c)).ListEndOffsets(t.Context(), topic)
	if err != nil {
		t.Fatal(err)
	}
	end, _ := ends.Lookup(topic, 0)
	client := franz(t, c, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {0: kgo.NewOffset().AtStart()}}), kgo.FetchMaxPartitionBytes(16<<20))
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	n := int64(0)
	for next := int64(0); next < end.Offset; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err0(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) { n, next = n+1, r.Offset+1 })
	}
	return n
}
