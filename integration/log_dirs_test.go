package integration

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
	"ottla/internal/freeport"
)

// severalLogDirs gives a broker log directories beside DataDir: DataDir-1 …
func severalLogDirs(t *testing.T, n int) func(*harness.Broker) {
	return func(b *harness.Broker) {
		f, err := os.OpenFile(filepath.Join(b.Dir, "server.properties"), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fmt.Fprintln(f, "log.dirs="+strings.Join(logDirsOf(b, n), ","))
		if b.Kind == harness.Ottla {
			fmt.Fprintf(f, "ottla.admin.listener=127.0.0.1:%d\n", freeport.Find(t, 1)[0])
		}
	}
}

func logDirsOf(b *harness.Broker, n int) []string {
	var dirs []string
	for i := range n {
		dirs = append(dirs, fmt.Sprintf("%s-%d", b.DataDir, i+1))
	}
	return dirs
}

// replicaDirs is what kafka-log-dirs says: directory by partition of the topic.
func replicaDirs(t *testing.T, c *harness.Cluster, topic string) map[string]string {
	t.Helper()
	out := c.Tool(t, "kafka-log-dirs", "--bootstrap-server", c.BootstrapText(), "--describe", "--topic-list", topic)
	var told struct {
		Brokers []struct {
			LogDirs []struct {
				LogDir     string
				Error      *string
				Partitions []struct {
					Partition string
				}
			}
		}
	}
	if err := json.Unmarshal([]byte(lastLine(out)), &told); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	dirs := map[string]string{}
	for _, b := range told.Brokers {
		for _, d := range b.LogDirs {
			for _, p := range d.Partitions {
				dirs[p.Partition] = d.LogDir
			}
		}
	}
	return dirs
}

// TestReplicasMoveBetweenLogDirs moves partitions with kafka-reassign-partitions while they are written, and kills the broker on the
// way.
func TestReplicasMoveBetweenLogDirs(t *testing.T) {
	harness.NeedKafka(t)
	c := harness.Start(t, harness.Options{Prepare: severalLogDirs(t, 3)})
	b := c.Broker(1)
	const partitions = 6
	createTopic(t, c, "moved", partitions, 1, nil)
	spread := replicaDirs(t, c, "moved")
	count := map[string]int{}
	for _, dir := range spread {
		count[dir]++
	}
	for _, dir := range logDirsOf(b, 3) {
		if count[dir] != partitions/3 {
			t.Errorf("%d partitions in %s, want %d", count[dir], dir, partitions/3)
		}
	}
	stop, wait := keepProducing(t, c, "moved")
	to := logDirsOf(b, 3)[2]
	var plan strings.Builder
	for i := range partitions {
		fmt.Fprintf(&plan, `,{"topic":"moved","partition":%d,"replicas":[1],"log_dirs":[%q]}`, i, to)
	}
	file := filepath.Join(t.TempDir(), "plan.json")
	if err := os.WriteFile(file, []byte(`{"version":1,"partitions":[`+plan.String()[1:]+`]}`), 0o644); err != nil {
		t.Fatal(err)
	}
	out := c.Tool(t, "kafka-reassign-partitions", "--bootstrap-server", c.BootstrapText(), "--reassignment-json-file", file, "--execute", "--replica-alter-log-dirs-throttle", "100000000")
	if !strings.Contains(out, "Successfully started moving log directory") {
		t.Errorf("kafka-reassign-partitions: %s", out)
	}
	if harness.Long() { // a move survives its broker's death
		b.Kill()
		c.Restart(b)
	}
	harness.Eventually(t, time.Minute, "all partitions are in "+to, func() error {
		described, err := kadm.NewClient(franz(t, c)).DescribeBrokerLogDirs(t.Context(), 1, nil)
		if err != nil {
			return err
		}
		described.EachPartition(func(p kadm.DescribedLogDirPartition) {
			if p.Topic == "moved" && (p.Dir != to || p.IsFuture) {
				err = fmt.Errorf("%s-%d is in %s, a copy: %t", p.Topic, p.Partition, p.Dir, p.IsFuture)
			}
		})
		return err
	})
	out = c.Tool(t, "kafka-reassign-partitions", "--bootstrap-server", c.BootstrapText(), "--reassignment-json-file", file, "--verify")
	if !strings.Contains(out, "completed") || strings.Contains(out, "still in progress") {
		t.Errorf("kafka-reassign-partitions --verify: %s", out)
	}
	stop()
	acked := wait()
	consumeExactly(t, c, "moved", acked)
	if code := b.Terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	checkWithLogTool(t, logDirsOf(b, 3)...)
}

// keepProducing writes numbered records, idempotently, until stop; wait says how many were acknowledged.
func keepProducing(t *testing.T, c *harness.Cluster, topic string) (stop func(), wait func() int) {
	client := franz(t, c, kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(2*time.Millisecond))
	done, counted := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for {
			select {
			case <-done:
				counted <- n
				return
			default:
			}
			var batch []*kgo.Record
			for i := range 50 {
				batch = append(batch, kgo.StringRecord(fmt.Sprintf("%d %s", n+i, strings.Repeat("x", 100))))
			}
			if err := client.ProduceSync(t.Context(), batch...).FirstErr(); err != nil {
				t.Errorf("produce: %v", err)
				counted <- n
				return
			}
			n += len(batch)
			time.Sleep(5 * time.Millisecond)
		}
	}()
	return func() { close(done) }, func() int { return <-counted }
}

// consumeExactly reads a topic from its beginning: the records numbered 0 to n-1, each once.
func consumeExactly(t *testing.T, c *harness.Cluster, topic string, n int) {
	t.Helper()
	client := franz(t, c, kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer client.Close()
	seen := make([]bool, n)
	deadline := time.Now().Add(time.Minute)
	for left := n; left > 0; {
		fetches := client.PollFetches(t.Context())
		if err := fetches.Err(); err != nil {
			t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			var i int
			if _, err := fmt.Sscanf(string(r.Value), "%d ", &i); err != nil || i >= n || seen[i] {
				t.Fatalf("record %q at %d:%d is foreign, or came twice", r.Value, r.Partition, r.Offset)
			}
			seen[i] = true
			left--
		})
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d records are missing", left, n)
		}
	}
}

// checkWithLogTool has 'ottla log check' look at the log directories of a stopped broker.
func checkWithLogTool(t *testing.T, dirs ...string) {
	t.Helper()
	binary, err := harness.Binary()
	if err != nil {
		t.Skip(err)
	}
	out, err := exec.Command(binary, append([]string{"log", "check", "--notes"}, dirs...)...).CombinedOutput()
	if err != nil {
		t.Errorf("ottla log check: %v\n%.3000s", err, out)
	}
}

// TestFailedLogDirGoesOfflineAlone takes one of two directories away from under a running broker.
func TestFailedLogDirGoesOfflineAlone(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 2), Prepare: severalLogDirs(t, 2), Properties: map[string]string{
		"replica.high.watermark.checkpoint.interval.ms": "500",
	}})
	createTopic(t, c, "spread", 4, 2, nil)
	stop, wait := keepProducing(t, c, "spread")
	events := childrenChanges(t, c, "/log_dir_event_notification")
	b := c.Broker(1)
	bad := logDirsOf(b, 2)[0]
	if err := os.Rename(bad, bad+".gone"); err != nil {
		t.Fatal(err)
	}
	lost, kept := 0, 0
	for i := range 4 {
		if _, err := os.Stat(filepath.Join(bad+".gone", fmt.Sprintf("spread-%d", i))); err == nil {
			lost++
			harness.Eventually(t, time.Minute, "another broker leads", func() error {
				s, err := c.View().State("spread", i)
				if err == nil && (s.Leader != 2 || len(s.ISR) != 1) {
					err = fmt.Errorf("partition %d: leader %d, in sync %v", i, s.Leader, s.ISR)
				}
				return err
			})
			continue
		}
		kept++
	}
	if lost != 2 || kept != 2 {
		t.Errorf("%d partitions were in the failed directory, %d in the other", lost, kept)
	}
	for i := range 4 {
		if _, err := os.Stat(filepath.Join(bad+".gone", fmt.Sprintf("spread-%d", i))); err == nil {
			continue
		}
		s, err := c.View().State("spread", i)
		if err != nil || len(s.ISR) != 2 {
			t.Errorf("partition %d of the good directory: %+v, %v", i, s, err)
		}
	}
	if now := childrenChanges(t, c, "/log_dir_event_notification"); now == events {
		t.Error("nothing was told in /log_dir_event_notification")
	}
	if b.Kind == harness.Ottla {
		text := scrapeOf(t, b)
		for _, want := range []string{"kafka_log_logmanager_offlinelogdirectorycount 1", fmt.Sprintf("ottla_log_directory_offline{dir=%q} 1", bad), "kafka_server_replicamanager_offlinereplicacount 2"} {
			if !strings.Contains(text, want) {
				t.Errorf("metrics lack %s", want)
			}
		}
	}
	described, err := kadm.NewClient(franz(t, c)).DescribeAllLogDirs(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for dir, d := range described[1] {
		if failed := d.Err != nil; failed != (dir == bad) {
			t.Errorf("%s: %v", dir, d.Err)
		}
	}
	stop()
	acked := wait()
	consumeExactly(t, c, "spread", acked)
	// Repaired, and the broker restarted, everything comes back in sync.
	b.Terminate()
	if err := os.Rename(bad+".gone", bad); err != nil {
		t.Fatal(err)
	}
	c.Restart(b)
	c.WaitLed("spread", 4, 2)
}

func childrenChanges(t *testing.T, c *harness.Cluster, path string) int32 {
	t.Helper()
	_, stat, err := c.View().Get(path)
	if err != nil {
		t.Fatal(err)
	}
	return stat.Cversion
}

func scrapeOf(t *testing.T, b *harness.Broker) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(b.Dir, "server.properties"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "ottla.admin.listener=")
	address, _, _ := strings.Cut(rest, "\n")
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	out, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
