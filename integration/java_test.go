package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ottla/integration/harness"
	"ottla/integration/kafka39"
)

// javaReleases are the Java clients that people have: those of the brokers' own age, and the newest.
var javaReleases = []struct {
	name, version string
	find          func() (*kafka39.Kafka, error)
}{
	{"3.9", kafka39.Version(), kafka39.Find},
	{"4.x", kafka39.Version4(), kafka39.Find4},
}

// TestJavaClientsWithTheirDefaults has Kafka's own console clients, of 3.9 and of 4.x, write (idempotently, acks=all: their
// defaults) and read in a group, with every codec, on three brokers; and then its verifiable clients go on over the death of a
// leader.
func TestJavaClientsWithTheirDefaults(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), Properties: map[string]string{
		"offsets.topic.replication.factor": "3", "min.insync.replicas": "2",
	}})
	for i, release := range javaReleases {
		t.Run(release.name, func(t *testing.T) {
			k, err := release.find()
			if err != nil {
				t.Skip(err)
			}
			t.Logf("Kafka %s", release.version)
			prefix := "java-" + release.name + "-"
			short := [][]string{{"lz4"}, {"none", "gzip"}}[i]
			for _, codec := range harness.Pick(short, []string{"none", "gzip", "snappy", "lz4", "zstd"}) {
				t.Run(codec, func(t *testing.T) { consoleClients(t, c, k, prefix+codec, codec) })
			}
			t.Run("leader killed", func(t *testing.T) { verifiableClients(t, c, k, prefix+"killed") })
		})
	}
}

// consoleClients writes and reads one topic with the console producer and consumer.
func consoleClients(t *testing.T, c *harness.Cluster, k *kafka39.Kafka, topic, codec string) {
	const partitions, group = 3, "console"
	createTopic(t, c, topic, partitions, 3, nil)
	want := numbered(2000)
	java(t, k.Tool("kafka-console-producer", "--bootstrap-server", c.BootstrapText(), "--topic", topic, "--compression-codec", codec), lines(want))
	consume := func(count int) []string {
		out := java(t, k.Tool("kafka-console-consumer", "--bootstrap-server", c.BootstrapText(), "--topic", topic, "--group", group+topic,
			"--from-beginning", "--max-messages", fmt.Sprint(count), "--timeout-ms", "60000"), "")
		return strings.Split(strings.TrimSuffix(out, "\n"), "\n")
	}
	got := consume(len(want))
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	// The group goes on from where it committed.
	java(t, k.Tool("kafka-console-producer", "--bootstrap-server", c.BootstrapText(), "--topic", topic, "--compression-codec", codec), "one more\n")
	if got := consume(1); !slices.Equal(got, []string{"one more"}) {
		t.Errorf("after the commit the group read %q", got)
	}
}

// verifiableClients has Kafka's verifiable producer and a group of two of its consumers go on over the death of a leader:
// what was acknowledged is there once and reaches the group.
func verifiableClients(t *testing.T, c *harness.Cluster, k *kafka39.Kafka, topic string) {
	const messages, throughput = 4000, 500
	createTopic(t, c, topic, 3, 3, nil)
	var members []*verifiable
	for range 2 {
		members = append(members, startVerifiable(t, k.Tool("kafka-verifiable-consumer", "--bootstrap-server", c.BootstrapText(), "--topic", topic,
			"--group-id", topic, "--session-timeout", "6000", "--verbose")))
	}
	// The tool sets retries=0; a producer's own defaults are these.
	defaults := filepath.Join(t.TempDir(), "producer.properties")
	if err := os.WriteFile(defaults, []byte("retries=2147483647\nenable.idempotence=true\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	producer := startVerifiable(t, k.Tool("kafka-verifiable-producer", "--bootstrap-server", c.BootstrapText(), "--topic", topic,
		"--producer.config", defaults, "--max-messages", fmt.Sprint(messages), "--throughput", fmt.Sprint(throughput)))
	harness.Eventually(t, time.Minute, "a quarter is acknowledged", func() error {
		if n := len(producer.values("producer_send_success")); n < messages/4 {
			return fmt.Errorf("%d messages", n)
		}
		return nil
	})
	state, err := c.View().State(topic, 0)
	if err != nil {
		t.Fatal(err)
	}
	leader := c.Broker(state.Leader)
	leader.Kill()
	defer func() {
		c.Restart(leader)
		c.WaitLed(topic, 3, 3)
	}()
	producer.wait(t, 2*time.Minute)
	acked := producer.values("producer_send_success")
	if failed := producer.values("producer_send_error"); len(failed) > 0 || len(acked) != messages {
		t.Errorf("%d messages acknowledged, %d refused, want %d and none", len(acked), len(failed), messages)
	}
	got := values(readAll(t, c, topic, len(acked)))
	slices.Sort(got)
	slices.Sort(acked)
	if diff := cmp.Diff(acked, got); diff != "" {
		t.Errorf("acknowledged and stored: %s", diff)
	}
	harness.Eventually(t, time.Minute, "the group has read it all", func() error {
		seen := map[string]bool{}
		for _, m := range members {
			for _, v := range m.values("record_data") {
				seen[v] = true
			}
		}
		if len(seen) < len(acked) {
			return fmt.Errorf("%d of %d values; members: %s", len(seen), len(acked), members[0].tail()+members[1].tail())
		}
		return nil
	})
	for _, m := range members {
		m.stop()
		m.wait(t, time.Minute)
	}
}

// java runs one of Kafka's programs to its end and returns what it printed. What it has to complain of fails the test.
func java(t testing.TB, cmd *exec.Cmd, stdin string) string {
	t.Helper()
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	timer := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Wait(); err != nil || strings.Contains(stderr.String(), "ERROR") {
		t.Fatalf("%s: %v\n%.3000s\n%.3000s", strings.Join(cmd.Args[6:], " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// verifiable is one of Kafka's verifiable clients, which tell in JSON what they do.
type verifiable struct {
	cmd    *exec.Cmd
	ended  chan struct{}
	stderr bytes.Buffer

	mu   sync.Mutex
	seen map[string][]string // values by the name of the event
	last string
}

func startVerifiable(t testing.TB, cmd *exec.Cmd) *verifiable {
	t.Helper()
	v := &verifiable{cmd: cmd, ended: make(chan struct{}), seen: map[string][]string{}}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = &v.stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(v.ended)
		v.read(out)
		_ = cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-v.ended
	})
	return v
}

func (v *verifiable) read(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var event struct{ Name, Value string }
		_ = json.Unmarshal(lines.Bytes(), &event)
		v.mu.Lock()
		v.seen[event.Name] = append(v.seen[event.Name], event.Value)
		v.last = lines.Text()
		v.mu.Unlock()
	}
}

// values are those of the events with this name, so far.
func (v *verifiable) values(event string) []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.seen[event])
}

func (v *verifiable) tail() string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.last
}

func (v *verifiable) stop() { _ = v.cmd.Process.Signal(syscall.SIGTERM) }

func (v *verifiable) kill() { _ = v.cmd.Process.Kill() }

func (v *verifiable) wait(t testing.TB, patience time.Duration) {
	t.Helper()
	select {
	case <-v.ended:
	case <-time.After(patience):
		t.Fatalf("%s still runs after %v; it said last: %s", v.cmd.Args[6], patience, v.tail())
	}
	if v.stderr.Len() > 0 {
		t.Logf("%s: %.2000s", v.cmd.Args[6], v.stderr.String())
	}
}
