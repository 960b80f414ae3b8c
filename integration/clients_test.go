package integration

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// TestClientsReadWhatTheyWroteInEveryCodec has each client write with each codec and read it back: first to last, in order.
func TestClientsReadWhatTheyWroteInEveryCodec(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	want := numbered(1000)

	t.Run("kafka-go", func(t *testing.T) {
		for name, codec := range map[string]kafkago.Compression{"none": 0, "gzip": kafkago.Gzip, "snappy": kafkago.Snappy, "lz4": kafkago.Lz4, "zstd": kafkago.Zstd} {
			t.Run(name, func(t *testing.T) {
				topic := "kafka-go-" + name
				createTopic(t, c, topic, 1, 1, nil)
				var messages []kafkago.Message
				for _, v := range want {
					messages = append(messages, kafkago.Message{
						Key: []byte("key"), Value: []byte(v), Headers: []kafkago.Header{{Key: "h", Value: []byte(v[:6])}},
					})
				}
				if err := kafkaGoWriter(t, c, topic, codec).WriteMessages(t.Context(), messages...); err != nil {
					t.Fatal(err)
				}
				r := kafkago.NewReader(kafkago.ReaderConfig{Brokers: c.Bootstrap(), Topic: topic, MaxWait: 100 * time.Millisecond})
				defer r.Close()
				for i := range want {
					ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
					m, err := r.ReadMessage(ctx)
					cancel()
					if err != nil {
						t.Fatalf("record %d: %v", i, err)
					}
					if m.Offset != int64(i) || string(m.Value) != want[i] || string(m.Key) != "key" || string(m.Headers[0].Value) != want[i][:6] {
						t.Fatalf("record %d: got offset %d, key %q, value %q, headers %v", i, m.Offset, m.Key, m.Value, m.Headers)
					}
				}
			})
		}
	})

	t.Run("franz-go", func(t *testing.T) { // idempotent, acks=all: its default
		for name, codec := range map[string]kgo.CompressionCodec{
			"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
		} {
			t.Run(name, func(t *testing.T) {
				topic := "franz-go-" + name
				createTopic(t, c, topic, 1, 1, nil)
				produce(t, franz(t, c, kgo.ProducerBatchCompression(codec)), topic, want)
				if diff := cmp.Diff(want, values(readAll(t, c, topic, len(want)))); diff != "" {
					t.Error(diff)
				}
			})
		}
	})

	t.Run("kcat", func(t *testing.T) {
		for _, codec := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
			t.Run(codec, func(t *testing.T) {
				topic := "kcat-" + codec
				createTopic(t, c, topic, 1, 1, nil)
				kcat(t, c, lines(want), "-P", "-t", topic, "-z", codec, "-X", "enable.idempotence=true")
				got := kcat(t, c, "", "-C", "-q", "-t", topic, "-o", "beginning", "-e")
				if diff := cmp.Diff(want, strings.Split(strings.TrimSuffix(got, "\n"), "\n")); diff != "" {
					t.Error(diff)
				}
			})
		}
	})

	t.Run("java", func(t *testing.T) { // idempotent, acks=all: its default since 3.0
		harness.NeedKafka(t)
		codecs := harness.Pick([]string{"zstd"}, []string{"none", "gzip", "snappy", "lz4", "zstd"})
		for _, codec := range codecs {
			t.Run(codec, func(t *testing.T) {
				topic := "java-" + codec
				createTopic(t, c, topic, 1, 1, nil)
				c.ToolInput(t, lines(want), "kafka-console-producer", "--bootstrap-server", c.BootstrapText(), "--topic", topic, "--compression-codec", codec)
				got := values(readAll(t, c, topic, len(want)))
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatal(diff)
				}
				printed := c.Tool(t, "kafka-console-consumer", "--bootstrap-server", c.BootstrapText(), "--topic", topic, "--partition", "0",
					"--offset", "earliest", "--max-messages", fmt.Sprint(len(want)), "--timeout-ms", "30000")
				if diff := cmp.Diff(want, strings.Split(strings.TrimSuffix(printed, "\n"), "\n")); diff != "" {
					t.Error(diff)
				}
			})
		}
	})
}

// TestTopicIsCreatedByItsFirstProducer relies on auto.create.topics.enable, as many set-ups do.
func TestTopicIsCreatedByItsFirstProducer(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 2), Properties: map[string]string{"num.partitions": "3"}})
	produce(t, franz(t, c, kgo.AllowAutoTopicCreation(), kgo.UnknownTopicRetries(20)), "made-by-use", numbered(10))
	if names, err := c.View().Children("/brokers/topics/made-by-use/partitions"); err != nil || len(names) != 3 {
		t.Errorf("partitions: %v, %v, want 3", names, err)
	}
	if got := len(readAll(t, c, "made-by-use", 10)); got != 10 {
		t.Errorf("%d records, want 10", got)
	}
}

// TestOffsetsAreFoundByTime compares ListOffsets at, before and after the records' timestamps.
func TestOffsetsAreFoundByTime(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	createTopic(t, c, "timed", 1, 1, map[string]string{"segment.bytes": "14000", "index.interval.bytes": "100"})
	start := time.UnixMilli(1_700_000_000_000)
	client := franz(t, c, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for i := range 500 {
		r := &kgo.Record{Topic: "timed", Value: []byte(strings.Repeat("x", 100)), Timestamp: start.Add(time.Duration(i) * time.Second)}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := kafkago.DialLeader(t.Context(), "tcp", c.Broker(1).Address, "timed", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, row := range []struct {
		at   time.Time
		want int64
	}{
		{start.Add(-time.Hour), 0}, {start, 0}, {start.Add(time.Millisecond), 1}, {start.Add(250 * time.Second), 250},
		{start.Add(499 * time.Second), 499}, {start.Add(500 * time.Second), -1},
	} {
		got, err := conn.ReadOffset(row.at)
		if err != nil || got != row.want {
			t.Errorf("offset at %v: %d, %v, want %d", row.at.Sub(start), got, err, row.want)
		}
	}
	first, last, err := conn.ReadOffsets()
	if err != nil || first != 0 || last != 500 {
		t.Errorf("first %d, last %d, %v, want 0 and 500", first, last, err)
	}
}

// produce writes the values to partition 0 or wherever the client's partitioner says, and waits for all.
func produce(t testing.TB, client *kgo.Client, topic string, list []string) {
	t.Helper()
	var records []*kgo.Record
	for _, v := range list {
		records = append(records, &kgo.Record{Topic: topic, Key: []byte(v[:6]), Value: []byte(v)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := client.ProduceSync(ctx, records...).FirstErr(); err != nil {
		t.Fatalf("produce to %s: %v", topic, err)
	}
}

func values(records []*kgo.Record) []string {
	records = slices.Clone(records)
	slices.SortStableFunc(records, func(a, b *kgo.Record) int {
		if a.Partition != b.Partition {
			return int(a.Partition - b.Partition)
		}
		return int(a.Offset - b.Offset)
	})
	var out []string
	for _, r := range records {
		out = append(out, string(r.Value))
	}
	return out
}

func lines(list []string) string { return strings.Join(list, "\n") + "\n" }
