package integration

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// TestBrokerRecoversFromKillUnderLoad kills a broker with -9 again and again while a producer writes to small segments: it
// recovers by itself each time, no acknowledged record is missing, offsets are dense, and Kafka's tool finds no fault in the
// files.
func TestBrokerRecoversFromKillUnderLoad(t *testing.T) {
	c := harness.Start(t, harness.Options{Properties: map[string]string{"zookeeper.session.timeout.ms": "4000"}})
	b := c.Broker(1)
	createTopic(t, c, "orders", 4, 1, map[string]string{"segment.bytes": "16384", "index.interval.bytes": "1024"})
	load := startLoad(t, c, "orders")
	kills := harness.Pick(5, 100)
	for range kills {
		load.waitAcked(t, load.acked()+100)
		time.Sleep(time.Duration(rand.IntN(200)) * time.Millisecond)
		b.Kill()
		tearTails(t, b)
		c.Restart(b)
	}
	load.waitAcked(t, load.acked()+100)
	load.stop()
	load.check(t, c)
	if code := b.Terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	dumpIsClean(t, c, b)
}

// tearTails appends part of a batch to the newest segment of each partition now and then, as a write that power cut short
// leaves it.
func tearTails(t testing.TB, b *harness.Broker) {
	t.Helper()
	for _, dir := range partitionDirs(t, b, "orders-*") {
		logs := glob(t, filepath.Join(dir, "*.log"))
		newest := logs[len(logs)-1]
		text, err := os.ReadFile(newest)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) < 80 || rand.IntN(2) == 0 {
			continue
		}
		f, err := os.OpenFile(newest, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.Write(text[:rand.IntN(80)])
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
}

// dumpIsClean runs kafka-dump-log over the broker's files, where Kafka can run.
func dumpIsClean(t *testing.T, c *harness.Cluster, b *harness.Broker) {
	t.Run("kafka-dump-log", func(t *testing.T) {
		harness.NeedKafka(t)
		for _, dir := range partitionDirs(t, b, "orders-*") {
			logs := glob(t, filepath.Join(dir, "*.log"))
			logs = logs[max(0, len(logs)-20):]
			out := kafkaDumpLog(t, "--deep-iteration", "--files", strings.Join(logs, ","))
			if bad := faults(out); bad != "" {
				t.Errorf("%s: %s", dir, bad)
			}
			// The newest index may end in unused room while the broker runs; after a clean stop it must be sound.
			indexes := glob(t, filepath.Join(dir, "*.index"))
			indexes = indexes[max(0, len(indexes)-20):]
			out = kafkaDumpLog(t, "--index-sanity-check", "--files", strings.Join(indexes, ","))
			if bad := faults(out); bad != "" {
				t.Errorf("%s: %s", dir, bad)
			}
		}
	})
}

// kafkaDumpLog is what the tool prints on both of its outputs: mismatches go to standard error.
func kafkaDumpLog(t testing.TB, args ...string) string {
	t.Helper()
	out, err := harness.NeedKafka(t).Tool("kafka-dump-log", args...).CombinedOutput()
	if err != nil {
		t.Errorf("kafka-dump-log: %v: %.1000s", err, out)
	}
	return string(out)
}

func faults(dump string) string {
	var bad []string
	for line := range strings.Lines(dump) {
		low := strings.ToLower(line)
		for _, word := range []string{"isvalid: false", "invalid bytes", "out of order", "mismatch", "non-consecutive", "exception", "corrupt", "fail", "not sane"} {
			if strings.Contains(low, word) {
				bad = append(bad, strings.TrimSpace(line))
				break
			}
		}
	}
	return strings.Join(bad, "\n")
}

func partitionDirs(t testing.TB, b *harness.Broker, pattern string) []string {
	t.Helper()
	return glob(t, filepath.Join(b.DataDir, pattern))
}

func glob(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(pattern)
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: %v, %d files", pattern, err, len(names))
	}
	return names
}

// TestKafkaServesWhatWasWrittenHere starts Kafka 3.9 on our data directory, and then our broker again on Kafka's.
func TestKafkaServesWhatWasWrittenHere(t *testing.T) {
	harness.NeedKafka(t)
	c := harness.Start(t, harness.Options{
		Brokers: []harness.Kind{harness.Ottla}, Properties: map[string]string{"zookeeper.session.timeout.ms": "18000"}, // a JVM starts slowly on a busy machine
	})
	b := c.Broker(1)
	createTopic(t, c, "orders", 2, 1, map[string]string{"segment.bytes": "16384"})
	want := numbered(2000)
	client := franz(t, c, kgo.ProducerBatchMaxBytes(8<<10))
	produce(t, client, "orders", want)
	before := values(readAll(t, c, "orders", len(want)))
	for _, kind := range []harness.Kind{harness.Kafka, harness.Ottla} {
		b.Terminate()
		b.Kind = kind
		c.Restart(b)
		c.WaitLed("orders", 2, 1)
		got := values(readAll(t, c, "orders", len(before)))
		if strings.Join(got, "\n") != strings.Join(before, "\n") {
			t.Fatalf("%s serves other records than were written", kind)
		}
		more := numbered(100)
		produce(t, client, "orders", more)
		before = values(readAll(t, c, "orders", len(before)+len(more)))
	}
}
