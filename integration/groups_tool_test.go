package integration

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
	"ottla/integration/kafka39"
)

var update = flag.Bool("update", false, "write what Kafka's tools say to Kafka 3.9 into testdata; with OTTLA_TEST_CLUSTER=kafka")

// TestKafkaConsumerGroupsTool gives Kafka's kafka-consumer-groups every kind of work, and compares what it says with what it says
// to Kafka 3.9, which is kept in testdata.
func TestKafkaConsumerGroupsTool(t *testing.T) {
	k := harness.NeedKafka(t)
	for _, storage := range []string{"kafka", "zookeeper"} {
		t.Run(storage, func(t *testing.T) {
			properties := map[string]string{}
			if storage == "zookeeper" {
				if harness.Default() == harness.Kafka || !harness.Long() {
					t.Skip("Kafka 3.9 has no such storage; in the long form")
				}
				properties["offsets.storage"] = "zookeeper"
			}
			c := harness.Start(t, harness.Options{Properties: properties})
			toolGroups(t, c)
			s := &toolScript{t: t, c: c, k: k, dir: t.TempDir()}
			const golden = "testdata/kafka-consumer-groups.txt"
			if *update {
				s.all()
				if err := os.WriteFile(golden, []byte(s.text.String()), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			text, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if harness.Long() {
				s.all()
				if diff := cmp.Diff(string(text), s.text.String()); diff != "" {
					t.Error(diff)
				}
				return
			}
			s.look()
			for _, part := range strings.SplitAfter(s.text.String(), "\n\n") {
				if !strings.Contains(string(text), part) {
					t.Errorf("not as with Kafka 3.9:\n%s", part)
				}
			}
		})
	}
}

// toolGroups makes a topic of three partitions with ten records each, one an hour; a group with a member, and two without.
func toolGroups(t *testing.T, c *harness.Cluster) {
	createTopic(t, c, "orders", 3, 1, map[string]string{"retention.ms": "-1"})
	createTopic(t, c, "other", 1, 1, nil)
	var records []*kgo.Record
	began := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := range 30 {
		records = append(records, &kgo.Record{Topic: "orders", Partition: int32(i % 3), Value: []byte("x"), Timestamp: began.Add(time.Duration(i/3) * time.Hour)})
	}
	records = append(records, &kgo.Record{Topic: "other", Value: []byte("x")})
	// One after the other: records of one batch that stand in a row would be found together.
	producer := franz(t, c, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	for _, r := range records {
		if err := producer.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	commitOffsets(t, c, "old", map[int32]int64{0: 3, 1: 5, 2: 7})
	commitOffsets(t, c, "spare", map[int32]int64{0: 1})
	member := franz(t, c, kgo.ClientID("reader"), kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.Balancers(kgo.RangeBalancer()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	member.PollFetches(ctx)
	offsets := map[string]map[int32]kgo.EpochOffset{"orders": {0: {Epoch: -1, Offset: 4}, 1: {Epoch: -1, Offset: 10}}}
	committed := make(chan error, 1)
	member.CommitOffsetsSync(ctx, offsets, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
		committed <- err
	})
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
}

func commitOffsets(t testing.TB, c *harness.Cluster, group string, at map[int32]int64) {
	t.Helper()
	commitOffsetsOf(t, c, group, "orders", at)
}

func commitOffsetsOf(t testing.TB, c *harness.Cluster, group, topic string, at map[int32]int64) {
	t.Helper()
	offsets := kadm.Offsets{}
	for p, o := range at {
		offsets.AddOffset(topic, p, o, -1)
	}
	admin := kadm.NewClient(franz(t, c))
	harness.Eventually(t, time.Minute, "offsets of "+group+" are committed", func() error {
		return admin.CommitAllOffsets(t.Context(), group, offsets)
	})
}

// toolScript writes down what the tool says.
type toolScript struct {
	t    *testing.T
	c    *harness.Cluster
	k    *kafka39.Kafka
	dir  string
	text strings.Builder
}

// look is the part that changes nothing and takes little time.
func (s *toolScript) look() {
	s.say("--describe --all-groups --offsets")
	s.say("--describe --group billing --members --verbose")
	s.say("--reset-offsets --group old --topic orders --to-datetime 2026-01-01T05:30:00.000 --dry-run")
}

func (s *toolScript) all() {
	s.say("--list")
	s.say("--list --state")
	s.say("--list --state Empty,Stable")
	s.say("--list --type classic")
	s.look()
	s.say("--describe --group billing")
	s.say("--describe --group billing --members")
	s.say("--describe --all-groups --state")
	s.say("--describe --all-groups --all-topics")
	s.say("--describe --group nobody")
	for _, form := range []string{
		"--to-earliest", "--to-latest", "--to-current", "--to-offset 6", "--to-offset 4711", "--shift-by -2", "--shift-by 100",
		"--by-duration P9999D", "--by-duration PT1H",
	} {
		s.say("--reset-offsets --group old --topic orders " + form + " --dry-run")
	}
	s.say("--reset-offsets --group old --topic orders:0,2 --to-offset 6 --dry-run")
	s.say("--reset-offsets --group old --all-topics --to-latest")
	s.say("--reset-offsets --group old --group spare --topic orders:0 --to-latest --dry-run")
	s.say("--reset-offsets --all-groups --topic orders:0 --to-earliest --dry-run")
	s.say("--reset-offsets --group new --topic other --to-earliest --execute")
	s.say("--reset-offsets --group billing --topic orders --to-earliest --execute")
	s.say("--describe --group old")
	export := s.say("--reset-offsets --group old --topic orders --to-current --export")
	file := filepath.Join(s.dir, "offsets.csv")
	if err := os.WriteFile(file, []byte(export), 0o644); err != nil {
		s.t.Fatal(err)
	}
	s.say("--reset-offsets --group old --topic orders --to-earliest --execute")
	s.say("--describe --group old")
	s.say("--reset-offsets --group old --from-file FILE --dry-run")
	s.say("--reset-offsets --group old --from-file FILE --execute")
	s.say("--describe --group old")
	s.say("--delete-offsets --group old --topic orders:0,1")
	s.say("--delete-offsets --group billing --topic orders")
	s.say("--delete-offsets --group nobody --topic orders")
	s.say("--describe --group old")
	s.say("--delete --group old --group billing --group nobody")
	s.say("--list --state")
}

var toolVaries = []struct {
	pattern *regexp.Regexp
	to      string
}{
	{regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), "UUID"},
	{regexp.MustCompile(`/?127\.0\.0\.1:\d+`), "BROKER"},
	{regexp.MustCompile(`(?m)^\tat .*\n|^\t?\.\.\. \d+ more\n`), ""}, // of stack traces
	{regexp.MustCompile(`(?m)^\[\d{4}-[^]]*\] `), ""},
	{regexp.MustCompile(`(?m)[ \t]+$`), ""},
	{regexp.MustCompile(` {2,}`), "  "},
}

// say runs the tool and writes down what it prints, with its lines sorted: the tool has no order of its own.
func (s *toolScript) say(args string) (out string) {
	s.t.Helper()
	words := strings.Fields(strings.ReplaceAll(args, "FILE", filepath.Join(s.dir, "offsets.csv")))
	cmd := s.k.Tool("kafka-consumer-groups", append([]string{"--bootstrap-server", s.c.BootstrapText()}, words...)...)
	cmd.Env = append(os.Environ(), "TZ=UTC")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		s.t.Fatalf("%s: %v", args, err)
	}
	text := stdout.String() + "\n" + stderr.String()
	for _, v := range toolVaries {
		text = v.pattern.ReplaceAllString(text, v.to)
	}
	list := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool { return line == "" })
	slices.Sort(list)
	fmt.Fprintf(&s.text, "# %s\n%s\nexit %d\n\n", args, strings.Join(list, "\n"), cmd.ProcessState.ExitCode())
	return stdout.String()
}

// TestToolsOfKafkaReadCommits reads commits as operators do who look below the protocol: kafka-dump-log with its decoder of offsets
// reads the segments of __consumer_offsets, zkCli the znodes.
func TestToolsOfKafkaReadCommits(t *testing.T) {
	harness.NeedKafka(t)
	t.Run("kafka", func(t *testing.T) {
		c := harness.Start(t, harness.Options{Properties: map[string]string{"offsets.topic.num.partitions": "1"}})
		toolGroups(t, c)
		commitOffsets(t, c, "spare", map[int32]int64{0: 2})
		gone, err := kadm.NewClient(franz(t, c)).DeleteGroups(t.Context(), "spare")
		if err := errors.Join(err, gone.Error()); err != nil {
			t.Fatal(err)
		}
		logs := glob(t, filepath.Join(c.Broker(1).DataDir, "__consumer_offsets-0", "*.log"))
		out := c.Tool(t, "kafka-dump-log", "--offsets-decoder", "--files", strings.Join(logs, ","))
		for _, want := range []string{
			`key: \{"type":"1","data":\{"group":"old","topic":"orders","partition":1\}\} payload: \{"version":"3","data":\{"offset":5,"leaderEpoch":-1,"metadata":"","commitTimestamp":\d+\}\}`,
			`key: \{"type":"1","data":\{"group":"spare","topic":"orders","partition":0\}\} payload: <DELETE>`,
			`key: \{"type":"2","data":\{"group":"billing"\}\} payload: \{"version":"3","data":\{"protocolType":"consumer","generation":1,"protocol":"range","leader":"reader-[^"]*","currentStateTimestamp":\d+,"members":\[\{"memberId":"reader-[^"]*"`,
		} {
			if !regexp.MustCompile(want).MatchString(out) {
				t.Errorf("no line of this kind: %s\n%.5000s", want, out)
			}
		}
		if bad := faults(out); bad != "" {
			t.Error(bad)
		}
	})
	t.Run("zookeeper", func(t *testing.T) {
		if harness.Default() == harness.Kafka {
			t.Skip("Kafka 3.9 has no such storage")
		}
		c := harness.Start(t, harness.Options{Properties: map[string]string{"offsets.storage": "zookeeper"}})
		toolGroups(t, c)
		out := c.ToolInput(t, "ls -R /consumers\nget /consumers/old/offsets/orders/1\nget /consumers/billing/offsets/orders/0\nquit\n", "zookeeper-shell", "-server", c.Connect)
		for _, want := range []string{"/consumers/old/offsets/orders/2", "\n5\n", "\n4\n"} {
			if !strings.Contains(out, want) {
				t.Errorf("no %q in:\n%s", want, out)
			}
		}
	})
}
