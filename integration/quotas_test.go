package integration

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
)

func quotaOf(key string, value float64, typesAndNames ...string) kadm.AlterClientQuotaEntry {
	var e kadm.AlterClientQuotaEntry
	for i := 0; i < len(typesAndNames); i += 2 {
		part := kadm.ClientQuotaEntityComponent{Type: typesAndNames[i]}
		if name := typesAndNames[i+1]; name != "<default>" {
			part.Name = &name
		}
		e.Entity = append(e.Entity, part)
	}
	e.Ops = []kadm.AlterClientQuotaOp{{Key: key, Value: value, Remove: value == 0}}
	return e
}

func alterQuotas(t testing.TB, c *harness.Cluster, entries ...kadm.AlterClientQuotaEntry) {
	t.Helper()
	done, err := kadm.NewClient(franz(t, c)).AlterClientQuotas(t.Context(), entries)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range done {
		if d.Err != nil {
			t.Fatalf("%v: %v %s", d.Entity, d.Err, d.ErrMessage)
		}
	}
}

// throttled is how long answers have told clients to be quiet.
type throttled struct{ total atomic.Int64 }

func (h *throttled) OnBrokerThrottle(_ kgo.BrokerMetadata, d time.Duration, _ bool) {
	h.total.Add(int64(d))
}

// TestClientQuotas holds one producer to its quota, and another not. What is stored is what Kafka stores; the figures are those of the
// long form.
func TestClientQuotas(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	createTopic(t, c, "slow", 1, 1, nil)
	createTopic(t, c, "fast", 1, 1, nil)
	const quota = 200_000
	entries := []kadm.AlterClientQuotaEntry{
		quotaOf("producer_byte_rate", quota, "client-id", "slow"),
		quotaOf("consumer_byte_rate", 1e9, "user", "a b", "client-id", "<default>"),
		quotaOf("request_percentage", 250.5, "user", "<default>"),
		quotaOf("controller_mutation_rate", 1e7, "user", "a b"),
		quotaOf("connection_creation_rate", 5000, "ip", "10.1.2.3"),
	}
	alterQuotas(t, c, entries...)
	stored, err := c.View().Tree("/config")
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/config/clients/slow":                  `{"version":1,"config":{"producer_byte_rate":"200000"}}`,
		"/config/users/a%20b/clients/<default>": `{"version":1,"config":{"consumer_byte_rate":"1000000000"}}`,
		"/config/users/<default>":               `{"version":1,"config":{"request_percentage":"250.5"}}`,
		"/config/users/a%20b":                   `{"version":1,"config":{"controller_mutation_rate":"1.0E7"}}`,
		"/config/ips/10.1.2.3":                  `{"version":1,"config":{"connection_creation_rate":"5000"}}`,
	} {
		if diff := cmp.Diff(want, string(stored[path])); diff != "" {
			t.Errorf("%s: %s", path, diff)
		}
	}
	described, err := kadm.NewClient(franz(t, c)).DescribeClientQuotas(t.Context(), false, nil)
	if err != nil || len(described) != len(entries) {
		t.Errorf("described %v, %v", described, err)
	}

	var told, others throttled
	slow := franz(t, c, kgo.ClientID("slow"), kgo.WithHooks(&told), kgo.DefaultProduceTopic("slow"), kgo.ProducerBatchMaxBytes(100_000), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))
	fast := franz(t, c, kgo.ClientID("fast"), kgo.WithHooks(&others), kgo.DefaultProduceTopic("fast"), kgo.ProducerBatchMaxBytes(100_000), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression()))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var slowBytes, fastBytes atomic.Int64
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	value := []byte(strings.Repeat("x", 20_000))
	send := func(cl *kgo.Client, sent *atomic.Int64, pause time.Duration) {
		for ctx.Err() == nil {
			if cl.ProduceSync(ctx, &kgo.Record{Value: value}).FirstErr() == nil {
				sent.Add(int64(len(value)))
			}
			time.Sleep(pause)
		}
	}
	wg.Go(func() { send(slow, &slowBytes, 0) })
	wg.Go(func() { send(fast, &fastBytes, time.Millisecond) })
	harness.Eventually(t, time.Minute, "the slow producer is told to wait", func() error {
		if told.total.Load() == 0 {
			return fmt.Errorf("%d bytes sent", slowBytes.Load())
		}
		return nil
	})
	if harness.Long() {
		time.Sleep(12 * time.Second) // the first window may be used up at once
		before, beforeFast := slowBytes.Load(), fastBytes.Load()
		began := time.Now()
		time.Sleep(10 * time.Second)
		took := time.Since(began).Seconds()
		rate := float64(slowBytes.Load()-before) / took
		t.Logf("quota %d B/s: the producer sent %.0f B/s over %.1f s (%+.1f %%); the other one %.0f B/s", quota, rate, took,
			100*(rate/quota-1), float64(fastBytes.Load()-beforeFast)/took)
		if rate > 1.1*quota || rate < 0.9*quota {
			t.Errorf("%.0f B/s with a quota of %d", rate, quota)
		}
	}
	if d := others.total.Load(); d != 0 {
		t.Errorf("the other producer was told to wait for %v", time.Duration(d))
	}

	// A consumer's quota, taken away again.
	alterQuotas(t, c, quotaOf("consumer_byte_rate", 1000, "user", "ANONYMOUS"))
	fetch := func() (records int, throttle int32) {
		req := kmsg.NewPtrFetchRequest()
		req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.ReplicaID, req.SessionEpoch = 100, 1, 1<<20, -1, -1
		topic := kmsg.NewFetchRequestTopic()
		topic.Topic = "slow"
		p := kmsg.NewFetchRequestTopicPartition()
		p.PartitionMaxBytes = 1 << 20
		topic.Partitions = append(topic.Partitions, p)
		req.Topics = append(req.Topics, topic)
		req.Version = 9
		resp := harness.Ask[*kmsg.FetchResponse](harness.Dial(t, c.Broker(1).Address), req)
		for _, topic := range resp.Topics {
			records += len(topic.Partitions[0].RecordBatches)
		}
		return records, resp.ThrottleMillis
	}
	harness.Eventually(t, time.Minute, "the consumer is held back", func() error {
		if n, throttle := fetch(); throttle == 0 || n != 0 {
			return fmt.Errorf("%d bytes, %d ms", n, throttle)
		}
		return nil
	})
	alterQuotas(t, c, quotaOf("consumer_byte_rate", 0, "user", "ANONYMOUS"))
	harness.Eventually(t, time.Minute, "the consumer is free", func() error {
		if n, throttle := fetch(); throttle != 0 || n == 0 {
			return fmt.Errorf("%d bytes, %d ms", n, throttle)
		}
		return nil
	})
}

// TestQuotaToolsOfKafka has kafka-configs set, show and take away quotas of every kind of entity.
func TestQuotaToolsOfKafka(t *testing.T) {
	if !harness.Long() {
		t.Skip("starts Kafka's tools a dozen times")
	}
	c := harness.Start(t, harness.Options{})
	configs := func(args ...string) string {
		return c.Tool(t, "kafka-configs", append([]string{"--bootstrap-server", c.BootstrapText()}, args...)...)
	}
	for _, e := range []struct {
		entity           []string
		key, value, path string
	}{
		{[]string{"--entity-type", "users", "--entity-name", "alice"}, "producer_byte_rate", "1048576", "/config/users/alice"},
		{[]string{"--entity-type", "users", "--entity-name", "bob", "--entity-type", "clients", "--entity-name", "app"}, "consumer_byte_rate", "2048", "/config/users/bob/clients/app"},
		{[]string{"--entity-type", "clients", "--entity-default"}, "request_percentage", "50", "/config/clients/<default>"},
		{[]string{"--entity-type", "ips", "--entity-name", "10.0.0.7"}, "connection_creation_rate", "5", "/config/ips/10.0.0.7"},
	} {
		configs(append(append([]string{"--alter"}, e.entity...), "--add-config", e.key+"="+e.value)...)
		if data, _, err := c.View().Get(e.path); err != nil || !strings.Contains(string(data), `"`+e.key+`":"`+e.value) {
			t.Errorf("%s: %s, %v", e.path, data, err)
		}
		if shown := configs(append([]string{"--describe"}, e.entity...)...); !strings.Contains(shown, e.key+"="+e.value) {
			t.Errorf("%v: %s", e.entity, shown)
		}
		configs(append(append([]string{"--alter"}, e.entity...), "--delete-config", e.key)...)
		if data, _, err := c.View().Get(e.path); err == nil {
			t.Errorf("%s is still there: %s", e.path, data)
		}
	}
	if _, _, err := c.View().Get("/config/users/bob"); err == nil {
		t.Error("a user of whom nothing is left is still there")
	}
}
