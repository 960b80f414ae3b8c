package integration

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/integration/harness"
)

// The mixed clusters: brokers of both kinds work together, whoever leads, follows and decides.

func TestS20TwoOfOursAndOneKafka(t *testing.T) {
	mixedCluster(t, harness.Ottla, harness.Ottla, harness.Kafka)
}

func TestS20OneOfOursAndTwoKafkas(t *testing.T) {
	mixedCluster(t, harness.Kafka, harness.Kafka, harness.Ottla)
}

// TestKafkasAlone tells what the story looks like without us.
func TestKafkasAlone(t *testing.T) {
	if !harness.Long() {
		t.Skip("in the long form only")
	}
	mixedCluster(t, harness.Kafka, harness.Kafka, harness.Kafka)
}

// mixedCluster makes each broker controller, leader and follower in turn, and stops and kills it, while a producer writes. Under each
// controller a topic is created, grown, reassigned and deleted. Nothing may be lost or doubled, and in the end all replicas hold
// the same records.
func mixedCluster(t *testing.T, kinds ...harness.Kind) {
	harness.NeedKafka(t)
	c := harness.Start(t, harness.Options{Brokers: kinds, Properties: map[string]string{
		"min.insync.replicas": "2", "default.replication.factor": "3", "auto.leader.rebalance.enable": "false",
	}})
	const topic, partitions = "orders", 3
	createTopic(t, c, topic, partitions, len(kinds), nil)
	load := startLoad(t, c, topic)
	for _, b := range c.Brokers {
		stage := func(what string) { t.Logf("%s %d: %s; %d records acknowledged", b.Kind, b.ID, what, load.acked()) }
		becomeController(t, c, b)
		stage("is controller")
		topicLife(t, c, fmt.Sprint("made-under-", b.ID))
		stage("has led a topic through its life")
		becomeLeader(t, c, b, topic, partitions)
		load.waitAcked(t, load.acked()+200)
		stage("leads")

		if code := b.Terminate(); code != 0 && b.Kind == harness.Ottla {
			t.Errorf("broker %d stopped with exit code %d", b.ID, code)
		}
		load.waitAcked(t, load.acked()+200)
		c.Restart(b)
		c.WaitLed(topic, partitions, len(kinds))
		stage("was stopped and is back in sync")

		becomeController(t, c, b)
		becomeLeader(t, c, b, topic, partitions)
		b.Kill()
		load.waitAcked(t, load.acked()+200)
		c.Restart(b)
		c.WaitLed(topic, partitions, len(kinds))
		stage("was killed as leader and controller and is back in sync")
	}
	load.stop()
	load.check(t, c)
	c.WaitLed(topic, partitions, len(kinds))
	for _, b := range c.Brokers {
		b.Terminate()
		for _, line := range errorLines(b) {
			if b.Kind == harness.Kafka && !usualError.MatchString(line) {
				t.Errorf("broker %d logged an error that Kafkas alone do not show: %s", b.ID, line)
			}
			t.Logf("%s %d: %s", b.Kind, b.ID, line)
		}
	}
	for _, d := range harness.CompareReplicas(c.Brokers, topic, partitions) {
		t.Error(d)
	}
}

// becomeController deletes /controller while the others cannot answer.
func becomeController(t *testing.T, c *harness.Cluster, b *harness.Broker) {
	t.Helper()
	now, epoch := c.WaitController()
	if now == b.ID {
		return
	}
	for _, o := range c.Brokers {
		if o != b {
			o.Pause()
		}
	}
	err := c.View().Delete("/controller")
	if err == nil {
		harness.Eventually(t, 3*time.Second, fmt.Sprintf("broker %d takes over", b.ID), func() error {
			id, e, err := c.View().Controller()
			if err == nil && (id != b.ID || e <= epoch) {
				err = fmt.Errorf("controller %d with epoch %d", id, e)
			}
			return err
		})
	}
	for _, o := range c.Brokers {
		if o != b {
			o.Resume()
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}

// becomeLeader makes b the preferred leader of every partition and has it elected.
func becomeLeader(t *testing.T, c *harness.Cluster, b *harness.Broker, topic string, partitions int) {
	t.Helper()
	replicas := []int32{int32(b.ID)}
	for _, o := range c.Brokers {
		if o != b {
			replicas = append(replicas, int32(o.ID))
		}
	}
	reassign(t, c, topic, partitions, replicas)
	admin := kadm.NewClient(franz(t, c))
	harness.Eventually(t, time.Minute, fmt.Sprintf("broker %d is elected as preferred leader", b.ID), func() error {
		set := kadm.TopicsSet{}
		for p := range partitions {
			set.Add(topic, int32(p))
		}
		results, err := admin.ElectLeaders(t.Context(), kadm.ElectPreferredReplica, set)
		if err != nil {
			return err
		}
		for _, r := range results[topic] {
			if r.Err != nil && !errors.Is(r.Err, kerr.ElectionNotNeeded) {
				return r.Err
			}
		}
		for p := range partitions {
			s, err := c.View().State(topic, p)
			if err != nil {
				return err
			}
			if s.Leader != b.ID || len(s.ISR) < len(c.Brokers) {
				return fmt.Errorf("partition %d: leader %d, in sync %v", p, s.Leader, s.ISR)
			}
		}
		return nil
	})
}

// reassign gives every partition of a topic these replicas and waits until that is done.
func reassign(t *testing.T, c *harness.Cluster, topic string, partitions int, replicas []int32) {
	t.Helper()
	admin := kadm.NewClient(franz(t, c))
	var req kadm.AlterPartitionAssignmentsReq
	for p := range partitions {
		req.Assign(topic, int32(p), replicas)
	}
	harness.Eventually(t, time.Minute, fmt.Sprintf("%s is reassigned to %v", topic, replicas), func() error {
		resp, err := admin.AlterPartitionAssignments(t.Context(), req)
		return errors.Join(err, resp.Error())
	})
	harness.Eventually(t, time.Minute, fmt.Sprintf("%s has moved to %v", topic, replicas), func() error {
		var set kadm.TopicsSet
		for p := range partitions {
			set.Add(topic, int32(p)) // an empty list stands for none
		}
		list, err := admin.ListPartitionReassignments(t.Context(), set)
		if err != nil {
			return err
		}
		if moving := list.Sorted(); len(moving) > 0 {
			return fmt.Errorf("%d partitions are moving", len(moving))
		}
		for p := range partitions {
			s, err := c.View().State(topic, p)
			if err != nil {
				return err
			}
			isr := slices.Sorted(slices.Values(s.ISR))
			want := slices.Sorted(slices.Values(toInts(replicas)))
			if !slices.Equal(isr, want) {
				return fmt.Errorf("partition %d: in sync %v, want %v", p, isr, want)
			}
		}
		return nil
	})
}

func toInts(list []int32) []int {
	out := make([]int, len(list))
	for i, v := range list {
		out[i] = int(v)
	}
	return out
}

// topicLife creates, fills, grows, reassigns, reads and deletes a topic.
func topicLife(t *testing.T, c *harness.Cluster, topic string) {
	t.Helper()
	createTopic(t, c, topic, 2, 2, map[string]string{"segment.bytes": "16384"})
	produce(t, franz(t, c), topic, numbered(500))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	resp, err := kadm.NewClient(franz(t, c)).UpdatePartitions(ctx, 4, topic)
	if err := errors.Join(err, resp.Error()); err != nil {
		t.Fatalf("grow %s: %v", topic, err)
	}
	c.WaitLed(topic, 4, 2)
	produce(t, franz(t, c), topic, numbered(500))
	for _, replicas := range [][]int32{{1, 2, 3}, {3, 1}, {2, 3, 1}} {
		reassign(t, c, topic, 4, replicas)
	}
	total, _ := endOffsets(t, c, topic)
	if got := len(readAll(t, c, topic, int(total))); got != 1000 {
		t.Errorf("%s has %d records, want 1000", topic, got)
	}
	deleteTopic(t, c, topic)
	waitDeleted(t, c, topic)
}

// usualError is what Kafka 3.9 logs as an error in this story also among its like (TestKafkasAlone). The interrupted request is a
// sender thread that was ended, because its broker was gone, while it paused before a reconnect.
var usualError = regexp.MustCompile(`cannot become follower since the new leader|failed to change state for partition|` +
	`Error while electing or becoming controller|Error processing event (RegisterBrokerAnd)?Reelect|` +
	`fails to send a request to broker .*: java.lang.InterruptedException$`)

// errorLines are the distinct ERROR lines of a broker's log, without their times, each with its exception.
func errorLines(b *harness.Broker) []string {
	var out []string
	lines := slices.Collect(strings.Lines(b.Log()))
	for i, line := range lines {
		_, text, found := strings.Cut(line, "] ERROR ")
		if !found {
			continue
		}
		text = strings.TrimSpace(text)
		if next := i + 1; next < len(lines) && exception.MatchString(lines[next]) {
			text += ": " + strings.TrimSpace(lines[next])
		}
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

var exception = regexp.MustCompile(`^[a-z]+(\.\w+)+(Exception|Error)\b`)
