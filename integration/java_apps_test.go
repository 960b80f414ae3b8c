package integration

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
	"ottla/internal/freeport"
)

// What is built on Kafka's clients: Streams, Connect with several workers, MirrorMaker 2.

// TestStreamsCountsWords has a Streams application count words over its internal topics. A broker and the application are killed
// on the way.
func TestStreamsCountsWords(t *testing.T) {
	k := harness.NeedKafka(t)
	for _, guarantee := range harness.Pick([]string{"at_least_once"}, []string{"at_least_once", "exactly_once_v2"}) {
		t.Run(guarantee, func(t *testing.T) {
			c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), Properties: map[string]string{
				"default.replication.factor": "3", "min.insync.replicas": "2", "offsets.topic.replication.factor": "3",
				"transaction.state.log.replication.factor": "3", "transaction.state.log.min.isr": "2", "transaction.state.log.num.partitions": "4",
			}})
			createTopic(t, c, "text", 3, 3, nil)
			createTopic(t, c, "counts", 3, 3, nil)
			app := func() *verifiable {
				return startVerifiable(t, k.Source("testdata/WordCount.java", c.BootstrapText(), "words", t.TempDir(), guarantee))
			}
			words := strings.Fields("one two two three three three")
			want := map[string]int64{}
			write := func(count int) {
				batch := make([]string, count)
				for i := range batch {
					w := words[i%len(words)]
					batch[i] = w + " all"
					want[w]++
					want["all"]++
				}
				produce(t, franz(t, c), "text", batch)
			}
			counted := func(what string) {
				t.Helper()
				harness.Eventually(t, 90*time.Second, what, func() error {
					got := lastCounts(t, c)
					if exact := guarantee == "exactly_once_v2"; exact && !maps.Equal(got, want) || !exact && !atLeast(got, want) {
						return fmt.Errorf("counted %v, want %v", got, want)
					}
					return nil
				})
			}
			first := app()
			write(600)
			counted("the words are counted")
			c.Broker(2).Kill()
			write(600)
			counted("the words are counted although a broker was killed")
			c.Restart(c.Broker(2))
			first.kill()
			write(600)
			second := app() // starts with nothing on disk: restores from the changelog
			counted("another instance goes on from the changelog")
			second.stop()
			second.wait(t, time.Minute)
		})
	}
}

func atLeast(got, want map[string]int64) bool {
	for w, n := range want {
		if got[w] < n {
			return false
		}
	}
	return true
}

// lastCounts reads topic counts as far as it is committed: the last value of each word.
func lastCounts(t *testing.T, c *harness.Cluster) map[string]int64 {
	t.Helper()
	ends, err := kadm.NewClient(franz(t, c)).ListCommittedOffsets(t.Context(), "counts")
	if err != nil || ends.Error() != nil {
		return nil
	}
	missing := map[int32]int64{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			missing[o.Partition] = o.Offset
		}
	})
	client := franz(t, c, kgo.ConsumeTopics("counts"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer client.Close()
	out := map[string]int64{}
	deadline := time.Now().Add(20 * time.Second)
	for len(missing) > 0 && time.Now().Before(deadline) {
		client.PollFetches(t.Context()).EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() && len(r.Value) == 8 {
				out[string(r.Key)] = int64(binary.BigEndian.Uint64(r.Value))
			}
			if end, ok := missing[r.Partition]; ok && r.Offset+1 >= end {
				delete(missing, r.Partition)
			}
		})
	}
	return out
}

// TestConnectWorkersShareTasks runs two distributed workers, whose state is in topics: a connector that is made on one of them copies a
// file, and goes on when the worker that ran it is killed.
func TestConnectWorkersShareTasks(t *testing.T) {
	k := harness.NeedKafka(t)
	if !harness.Long() {
		t.Skip("in the long form only")
	}
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), Properties: map[string]string{
		"default.replication.factor": "3", "min.insync.replicas": "2", "offsets.topic.replication.factor": "3",
	}})
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	text := lines(numbered(300))
	write := func() {
		if err := os.WriteFile(from, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write()
	ports := freeport.Find(t, 2)
	workers := make([]*verifiable, len(ports))
	for i, port := range ports {
		file := filepath.Join(dir, fmt.Sprintf("worker-%d.properties", i))
		properties := fmt.Sprintf(`bootstrap.servers=%s
group.id=workers
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
config.storage.topic=connect-configs
offset.storage.topic=connect-offsets
status.storage.topic=connect-status
offset.storage.partitions=3
offset.flush.interval.ms=500
session.timeout.ms=6000
heartbeat.interval.ms=1000
scheduled.rebalance.max.delay.ms=1000
plugin.discovery=service_load
plugin.path=%s
listeners=http://127.0.0.1:%d
`, c.BootstrapText(), k.Plugins(), port)
		if err := os.WriteFile(file, []byte(properties), 0o644); err != nil {
			t.Fatal(err)
		}
		workers[i] = startVerifiable(t, k.Tool("connect-distributed", file))
	}
	rest := func(i int) string { return fmt.Sprintf("http://127.0.0.1:%d/connectors", ports[i]) }
	post := func(name, class, more string) {
		body := fmt.Sprintf(`{"name":%q,"config":{"connector.class":"org.apache.kafka.connect.file.%s","tasks.max":"1",%s}}`, name, class, more)
		harness.Eventually(t, 2*time.Minute, "connector "+name+" is made", func() error {
			resp, err := http.Post(rest(0), "application/json", strings.NewReader(body))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			said, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != http.StatusCreated && resp.StatusCode != http.StatusConflict {
				return fmt.Errorf("%s: %s", resp.Status, said)
			}
			return nil
		})
	}
	post("source", "FileStreamSourceConnector", fmt.Sprintf(`"file":%q,"topic":"copied"`, from))
	post("sink", "FileStreamSinkConnector", fmt.Sprintf(`"file":%q,"topics":"copied"`, to))
	copied := func(what string) {
		t.Helper()
		harness.Eventually(t, 2*time.Minute, what, func() error {
			got, err := os.ReadFile(to)
			if err == nil && !strings.HasSuffix(string(got), text[len(text)-200:]) {
				err = fmt.Errorf("%d bytes, of %d", len(got), len(text))
			}
			return err
		})
	}
	copied("the copy is whole")
	c.Broker(1).Kill()
	workers[0].kill()
	text += lines(numbered(600)[300:])
	write()
	copied("the other worker goes on")
	var names []string
	resp, err := http.Get(rest(1))
	if err == nil {
		defer resp.Body.Close()
		err = json.NewDecoder(resp.Body).Decode(&names)
	}
	if err != nil || len(names) != 2 {
		t.Errorf("connectors of the worker that is left: %v, %v", names, err)
	}
}

// TestMirrorMakerCopiesACluster copies topics, their settings, and a group's offsets from one cluster to another.
func TestMirrorMakerCopiesACluster(t *testing.T) {
	k := harness.NeedKafka(t)
	if !harness.Long() {
		t.Skip("in the long form only")
	}
	east, west := harness.Start(t, harness.Options{}), harness.Start(t, harness.Options{})
	createTopic(t, east, "orders", 3, 1, map[string]string{"retention.ms": "777000000"})
	produce(t, franz(t, east), "orders", numbered(500))
	commits := kadm.Offsets{}
	for p := range int32(3) {
		commits.AddOffset("orders", p, 100, -1)
	}
	if err := kadm.NewClient(franz(t, east)).CommitAllOffsets(t.Context(), "readers", commits); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "mm2.properties")
	properties := fmt.Sprintf(`clusters=east,west
east.bootstrap.servers=%s
west.bootstrap.servers=%s
east->west.enabled=true
west->east.enabled=false
topics=orders
groups=readers
replication.factor=1
checkpoints.topic.replication.factor=1
heartbeats.topic.replication.factor=1
offset-syncs.topic.replication.factor=1
offset.storage.replication.factor=1
status.storage.replication.factor=1
config.storage.replication.factor=1
emit.checkpoints.interval.seconds=1
sync.group.offsets.enabled=true
sync.group.offsets.interval.seconds=1
refresh.topics.interval.seconds=2
refresh.groups.interval.seconds=2
sync.topic.configs.interval.seconds=2
offset.lag.max=0
dedicated.mode.enable.internal.rest=false
plugin.path=%s
`, east.BootstrapText(), west.BootstrapText(), k.Plugins())
	if err := os.WriteFile(file, []byte(properties), 0o644); err != nil {
		t.Fatal(err)
	}
	mirror := startVerifiable(t, k.Tool("connect-mirror-maker", file))
	harness.Eventually(t, 3*time.Minute, "the copy is whole", func() error {
		ends, err := kadm.NewClient(franz(t, west)).ListEndOffsets(t.Context(), "east.orders")
		if err != nil || ends.Error() != nil {
			return fmt.Errorf("%w %w", err, ends.Error())
		}
		total := int64(0)
		ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
		if total < 500 {
			return fmt.Errorf("%d of 500 records", total)
		}
		return nil
	})
	seen := map[string]bool{}
	for _, r := range readAll(t, west, "east.orders", 500) {
		seen[string(r.Value)] = true
	}
	if len(seen) != 500 {
		t.Errorf("%d different values, want 500", len(seen))
	}
	harness.Eventually(t, 2*time.Minute, "settings and commits are copied", func() error {
		admin := kadm.NewClient(franz(t, west))
		configs, err := admin.DescribeTopicConfigs(t.Context(), "east.orders")
		if err != nil {
			return err
		}
		for _, entry := range configs[0].Configs {
			if entry.Key == "retention.ms" && entry.MaybeValue() != "777000000" {
				return fmt.Errorf("retention.ms=%s", entry.MaybeValue())
			}
		}
		offsets, err := admin.FetchOffsets(t.Context(), "readers")
		if err != nil {
			return err
		}
		if _, ok := offsets.Lookup("east.orders", 0); !ok {
			return fmt.Errorf("the group has %d commits", len(offsets["east.orders"]))
		}
		return nil
	})
	mirror.stop()
	mirror.wait(t, time.Minute)
}
