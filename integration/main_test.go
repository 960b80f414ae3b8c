// Package integration tests real clusters: ZooKeeper ensembles and broker processes, through clients, tools, znodes and
// signals. It knows only the program, the wire and ZooKeeper.
package integration

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// franz makes a franz-go client of the cluster, closed with the test.
func franz(t testing.TB, c *harness.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.Bootstrap()...)}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// createTopic creates a topic and waits until it is led with all its replicas in sync.
func createTopic(t testing.TB, c *harness.Cluster, topic string, partitions, replicas int, configs map[string]string) {
	t.Helper()
	values := map[string]*string{}
	for k, v := range configs {
		values[k] = &v
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	resp, err := kadm.NewClient(franz(t, c)).CreateTopic(ctx, int32(partitions), int16(replicas), values, topic)
	if err := errors.Join(err, resp.Err); err != nil {
		t.Fatalf("create topic %s: %v %s", topic, err, resp.ErrMessage)
	}
	c.WaitLed(topic, partitions, replicas)
}

// endOffsets sums the end offsets of a topic's partitions, as consumers see them.
func endOffsets(t testing.TB, c *harness.Cluster, topic string) (total int64, ends kadm.ListedOffsets) {
	t.Helper()
	admin := kadm.NewClient(franz(t, c))
	harness.Eventually(t, 30*time.Second, "end offsets of "+topic, func() (err error) { // a leader may just be moving
		ends, err = admin.ListEndOffsets(t.Context(), topic)
		return errors.Join(err, ends.Error())
	})
	ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
	return total, ends
}

// readAll consumes a topic from its start until count records have come, with franz-go.
func readAll(t testing.TB, c *harness.Cluster, topic string, count int, opts ...kgo.Opt) []*kgo.Record {
	t.Helper()
	client := franz(t, c, append(opts, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))...)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var out []*kgo.Record
	for len(out) < count {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			t.Fatalf("consume %s: %d of %d records: %v", topic, len(out), count, err)
		}
		for _, e := range fetches.Errors() {
			t.Logf("consume %s/%d: %v", e.Topic, e.Partition, e.Err)
		}
		out = append(out, fetches.Records()...)
	}
	return out
}

// kcat runs kcat against the cluster. It skips the test where kcat is missing.
func kcat(t testing.TB, c *harness.Cluster, stdin string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath("kcat")
	if err != nil {
		t.Skip("kcat is not installed (on Debian: apt install kcat)")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append([]string{"-b", c.BootstrapText()}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("kcat %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	return stdout.String()
}

// kafkaGoWriter makes a kafka-go producer that waits for every in-sync replica. It has a transport of its own: the shared one
// remembers for seconds which topics do not exist.
func kafkaGoWriter(t testing.TB, c *harness.Cluster, topic string, codec kafkago.Compression) *kafkago.Writer {
	t.Helper()
	transport := &kafkago.Transport{}
	w := &kafkago.Writer{
		Transport: transport,
		Addr:      kafkago.TCP(c.Bootstrap()...), Topic: topic, Balancer: &kafkago.Hash{}, Compression: codec,
		RequiredAcks: kafkago.RequireAll, BatchTimeout: 5 * time.Millisecond, BatchBytes: 4 << 20,
	}
	t.Cleanup(func() {
		_ = w.Close()
		transport.CloseIdleConnections()
	})
	return w
}

func numbered(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("%06d %s", i, strings.Repeat("abcdefgh", i%9))
	}
	return out
}
