package integration

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// bulk fills a topic's only partition with so many bytes.
func bulk(t *testing.T, c *harness.Cluster, topic string, bytes int) {
	t.Helper()
	value := []byte(strings.Repeat("ottla", 10_000))
	client := franz(t, c, kgo.ProducerBatchCompression(kgo.NoCompression()))
	for written := 0; written < bytes; written += len(value) {
		client.Produce(t.Context(), &kgo.Record{Topic: topic, Value: value}, nil)
	}
	if err := client.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// throttleTopic limits replication of the topic to a rate in bytes a second, on all brokers and both sides.
func throttleTopic(t *testing.T, c *harness.Cluster, topic string, rate int) {
	t.Helper()
	admin := kadm.NewClient(franz(t, c))
	set := func(key, value string) kadm.AlterConfig { return kadm.AlterConfig{Name: key, Value: &value} }
	text := strconv.Itoa(rate)
	var ids []int32
	for _, b := range c.Brokers {
		ids = append(ids, int32(b.ID))
	}
	brokers, err := admin.AlterBrokerConfigs(t.Context(),
		[]kadm.AlterConfig{set("leader.replication.throttled.rate", text), set("follower.replication.throttled.rate", text)}, ids...)
	for _, r := range brokers {
		err = errors.Join(err, r.Err)
	}
	topics, topicErr := admin.AlterTopicConfigs(t.Context(),
		[]kadm.AlterConfig{set("leader.replication.throttled.replicas", "*"), set("follower.replication.throttled.replicas", "*")}, topic)
	err = errors.Join(err, topicErr)
	for _, r := range topics {
		err = errors.Join(err, r.Err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// replicaSize is the size of the topic's first partition on a broker, 0 where it has none.
func replicaSize(t *testing.T, c *harness.Cluster, topic string, broker int) int64 {
	t.Helper()
	dirs, err := kadm.NewClient(franz(t, c)).DescribeBrokerLogDirs(t.Context(), int32(broker), nil)
	if err := errors.Join(err, dirs.Error()); err != nil {
		t.Fatal(err)
	}
	p, _ := dirs.LookupPartition(topic, 0)
	return p.Size
}

// TestReplicaIsAddedAtTheThrottlesRate adds a replica under a throttle: progress can be seen, a cancelled move leaves nothing, and
// the copy takes as long as the rate says. A throttle lets ten seconds' worth through at once, as Kafka's does.
func TestReplicaIsAddedAtTheThrottlesRate(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 2)})
	createTopic(t, c, "big", 1, 1, nil)
	s, err := c.View().State("big", 0)
	if err != nil {
		t.Fatal(err)
	}
	from, to := s.Leader, 3-s.Leader
	rate, bytes := harness.Pick(1<<20, 4<<20), harness.Pick(15<<20, 100<<20)
	bulk(t, c, "big", bytes)
	throttleTopic(t, c, "big", rate/100)
	admin := kadm.NewClient(franz(t, c))
	alter := func(replicas []int32) {
		t.Helper()
		var req kadm.AlterPartitionAssignmentsReq
		if replicas == nil {
			req.CancelAssign("big", 0)
		} else {
			req.Assign("big", 0, replicas)
		}
		resp, err := admin.AlterPartitionAssignments(t.Context(), req)
		if err := errors.Join(err, resp.Error()); err != nil {
			t.Fatal(err)
		}
	}
	moving := func() kadm.ListPartitionReassignmentsResponses {
		t.Helper()
		set := kadm.TopicsSet{}
		set.Add("big", 0)
		list, err := admin.ListPartitionReassignments(t.Context(), set)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}

	both := []int32{int32(from), int32(to)}
	alter(both)
	if got := moving()["big"][0]; !slices.Equal(got.AddingReplicas, []int32{int32(to)}) || !slices.Equal(got.Replicas, both) {
		t.Errorf("under way: %+v, want broker %d to be added", got, to)
	}
	harness.Eventually(t, 20*time.Second, "the copy begins", func() error {
		if replicaSize(t, c, "big", to) == 0 {
			return errors.New("nothing there")
		}
		return nil
	})
	if size := replicaSize(t, c, "big", to); size >= int64(bytes) {
		t.Errorf("%d bytes are copied already", size)
	}
	alter(nil)
	if list := moving(); len(list) != 0 {
		t.Errorf("after cancelling: %+v", list)
	}
	harness.Eventually(t, 20*time.Second, "the cancelled copy goes", func() error {
		if size := replicaSize(t, c, "big", to); size > 0 {
			return fmt.Errorf("%d bytes are left", size)
		}
		return nil
	})

	throttleTopic(t, c, "big", rate)
	began := time.Now()
	alter(both)
	harness.Eventually(t, 2*time.Minute, "the copy is complete", func() error {
		if len(moving()) > 0 {
			return fmt.Errorf("%d bytes of %d", replicaSize(t, c, "big", to), bytes)
		}
		return nil
	})
	took := time.Since(began)
	// What the cancelled copy moved counts for the window, so this is the least that it can take.
	if least := time.Duration(float64(bytes)/float64(rate)*float64(time.Second)) - 11*time.Second; took < least {
		t.Errorf("%d bytes were copied in %v, at %d bytes a second it takes %v", bytes, took, rate, least)
	}
	t.Logf("%d bytes at %d a second: %v (a throttle lets ten seconds' worth through at once)", bytes, rate, took.Round(time.Millisecond))
	if s, err = c.View().State("big", 0); err != nil || len(s.ISR) != 2 {
		t.Errorf("%+v %v, want two in sync", s, err)
	}
	if got := len(readAll(t, c, "big", bytes/50_000)); got < bytes/50_000 {
		t.Errorf("%d records", got)
	}
}

// TestKafkasToolsOperateTheCluster runs what operators of Kafka 3.9 use.
func TestKafkasToolsOperateTheCluster(t *testing.T) {
	if !harness.Long() {
		t.Skip("starts a Java process for each step: long form only")
	}
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3)})
	at := []string{"--bootstrap-server", c.BootstrapText()}
	tool := func(name string, args ...string) string {
		t.Helper()
		return c.Tool(t, name, append(slices.Clone(at), args...)...)
	}
	says := func(out string, want ...string) {
		t.Helper()
		for _, w := range want {
			if !regexp.MustCompile(w).MatchString(out) {
				t.Errorf("no %q in:\n%s", w, out)
			}
		}
	}
	file := func(name string, content any) string {
		text, err := json.Marshal(content)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}

	says(tool("kafka-topics", "--create", "--topic", "ops", "--partitions", "1", "--replication-factor", "2", "--config", "retention.ms=3600000"), "Created topic ops")
	c.WaitLed("ops", 1, 2)
	bulk(t, c, "ops", 20<<20)
	says(tool("kafka-topics", "--list"), "(?m)^ops$")
	says(tool("kafka-topics", "--describe", "--topic", "ops"), "PartitionCount: 1", "ReplicationFactor: 2", "retention.ms=3600000")

	says(tool("kafka-configs", "--alter", "--entity-type", "topics", "--entity-name", "ops", "--add-config", "retention.ms=7200000"), "Completed updating config for topic ops")
	says(tool("kafka-configs", "--describe", "--entity-type", "topics", "--entity-name", "ops"), "retention.ms=7200000")
	says(tool("kafka-configs", "--alter", "--entity-type", "brokers", "--entity-default", "--add-config", "log.cleaner.backoff.ms=14000"), "Completed updating default config for brokers")
	says(tool("kafka-configs", "--describe", "--entity-type", "brokers", "--entity-default"), "log.cleaner.backoff.ms=14000")

	s, err := c.View().State("ops", 0)
	if err != nil {
		t.Fatal(err)
	}
	others := slices.DeleteFunc([]int{1, 2, 3}, func(id int) bool { return id == s.Leader })
	plan := func(replicas ...int) string {
		return file("plan.json", map[string]any{"version": 1, "partitions": []any{map[string]any{"topic": "ops", "partition": 0, "replicas": replicas}}})
	}
	says(tool("kafka-reassign-partitions", "--generate", "--topics-to-move-json-file",
		file("topics.json", map[string]any{"version": 1, "topics": []any{map[string]any{"topic": "ops"}}}), "--broker-list", "1,2,3"),
		"Proposed partition reassignment configuration", `"topic":"ops"`)
	// The tool's --cancel overlooks reassignments that only add, so this one also removes.
	away := plan(others[0], others[1])
	says(tool("kafka-reassign-partitions", "--execute", "--throttle", "100000", "--reassignment-json-file", away), "Successfully started partition reassignment")
	says(tool("kafka-reassign-partitions", "--list"), "Current partition reassignments", "ops-0: replicas: [0-9,]+. adding: [0-9]")
	says(tool("kafka-reassign-partitions", "--verify", "--reassignment-json-file", away), "Reassignment of partition ops-0 is still in progress")
	says(tool("kafka-reassign-partitions", "--cancel", "--reassignment-json-file", away), "Successfully cancelled partition reassignment")
	says(tool("kafka-reassign-partitions", "--list"), "No partition reassignments found")
	all := plan(others[0], s.Leader, others[1])
	says(tool("kafka-reassign-partitions", "--execute", "--throttle", "100000000", "--reassignment-json-file", all), "Successfully started partition reassignment")
	c.WaitLed("ops", 1, 3)
	harness.Eventually(t, time.Minute, "the reassignment is verified", func() error {
		out := tool("kafka-reassign-partitions", "--verify", "--reassignment-json-file", all)
		if !strings.Contains(out, "Reassignment of partition ops-0 is completed") || !strings.Contains(out, "Clearing broker-level throttles") {
			return errors.New(out)
		}
		return nil
	})
	says(tool("kafka-configs", "--describe", "--entity-type", "brokers", "--entity-name", "1"), `(?s)^((?:[^t]|t[^h])*)$`) // no throttle is left

	says(tool("kafka-leader-election", "--election-type", "preferred", "--topic", "ops", "--partition", "0"), "Successfully completed leader election")
	if s, err = c.View().State("ops", 0); err != nil || s.Leader != others[0] {
		t.Errorf("leader %d (%v), want the preferred %d", s.Leader, err, others[0])
	}
	tool("kafka-leader-election", "--election-type", "preferred", "--all-topic-partitions") // says nothing where none is needed
	says(tool("kafka-log-dirs", "--describe", "--topic-list", "ops"), `"partition":"ops-0"`, `"size":2[0-9]{7}`)
	replicaVerification(t, c, "ops")
	says(tool("kafka-topics", "--alter", "--topic", "ops", "--partitions", "3"), "^$")
	c.WaitLed("ops", 3, 2)
	tool("kafka-topics", "--delete", "--topic", "ops")
	waitDeleted(t, c, "ops")
}

// replicaVerification runs kafka-replica-verification, which goes on for ever, until it has said twice that the replicas are equal.
func replicaVerification(t *testing.T, c *harness.Cluster, topic string) {
	t.Helper()
	cmd := harness.NeedKafka(t).Tool("kafka-replica-verification", "--broker-list", c.BootstrapText(), "--topics-include", topic,
		"--report-interval-ms", "1000")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	var seen []string
	equal := 0
	for lines := bufio.NewScanner(out); equal < 2 && lines.Scan(); {
		seen = append(seen, lines.Text())
		if strings.Contains(lines.Text(), "max lag is 0 for partition "+topic) {
			equal++
		}
	}
	if equal < 2 {
		t.Errorf("the replicas were not found equal:\n%s", strings.Join(seen, "\n"))
	}
}
