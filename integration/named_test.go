package integration

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// Named scenarios of administration under fire. The others are where docs/testing.md says.

// S18: every replica of a topic moves to two other brokers under load, at a throttled rate, while source, target and controller are
// killed in turn, and half of the moves is cancelled. Nothing is lost, and nothing is left behind.
func TestS18ReassignmentUnderFire(t *testing.T) {
	if !harness.Long() {
		t.Skip("long form only (OTTLA_LONG=1)")
	}
	const partitions = 6
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 4), Properties: map[string]string{
		"zookeeper.session.timeout.ms": "4000", "min.insync.replicas": "1", "default.replication.factor": "2",
	}})
	admin := kadm.NewClient(franz(t, c))
	createTopic(t, c, "moved", partitions, 2, map[string]string{"follower.replication.throttled.replicas": "*", "leader.replication.throttled.replicas": "*"})
	load := startLoad(t, c, "moved")
	load.waitAcked(t, 2000)
	throttle(t, admin, "20000")
	moves := kadm.AlterPartitionAssignmentsReq{}
	for p := range int32(partitions) {
		from, err := c.View().State("moved", int(p))
		if err != nil {
			t.Fatal(err)
		}
		to := int32(from.Leader)%4 + 1
		moves.Assign("moved", p, []int32{to, to%4 + 1})
	}
	assign(t, admin, moves)
	for _, id := range []int{1, 3, 2, 4} {
		time.Sleep(time.Second)
		c.Broker(id).Kill()
		time.Sleep(time.Second)
		c.Restart(c.Broker(id))
		if ctl, _, err := c.View().Controller(); err == nil && id == 3 {
			c.Broker(ctl).Kill()
			c.Restart(c.Broker(ctl))
		}
	}
	cancel := kadm.AlterPartitionAssignmentsReq{}
	for p := range int32(partitions / 2) {
		cancel.CancelAssign("moved", p)
	}
	if _, err := admin.AlterPartitionAssignments(t.Context(), cancel); err != nil {
		t.Fatal(err)
	}
	throttle(t, admin, "100000000")
	harness.Eventually(t, 90*time.Second, "no reassignment runs", func() error {
		running, err := admin.ListPartitionReassignments(t.Context(), nil)
		if err == nil && len(running) > 0 {
			err = fmt.Errorf("%v", running)
		}
		return err
	})
	load.waitAcked(t, load.acked()+500)
	load.stop()
	load.check(t, c)
}

func throttle(t *testing.T, admin *kadm.Client, rate string) {
	t.Helper()
	var changes []kadm.AlterConfig
	for _, side := range []string{"leader", "follower"} {
		changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: side + ".replication.throttled.rate", Value: &rate})
	}
	harness.Eventually(t, 30*time.Second, "the throttle is set", func() error {
		resp, err := admin.AlterBrokerConfigs(t.Context(), changes, 1, 2, 3, 4)
		for _, r := range resp {
			err = errors.Join(err, r.Err)
		}
		return err
	})
}

func assign(t *testing.T, admin *kadm.Client, moves kadm.AlterPartitionAssignmentsReq) {
	t.Helper()
	resp, err := admin.AlterPartitionAssignments(t.Context(), moves)
	if err := errors.Join(err, resp.Error()); err != nil {
		t.Fatal(err)
	}
}

// S19: a topic is deleted and created again under its name while a broker with a replica is away. As in Kafka the deletion waits for
// that broker; when it is back it must serve nothing of the old topic, and the deletion must not reach the new one.
func TestS19TopicCreatedAgain(t *testing.T) {
	if !harness.Long() {
		t.Skip("long form only (OTTLA_LONG=1)")
	}
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), Properties: map[string]string{"zookeeper.session.timeout.ms": "4000"}})
	admin := kadm.NewClient(franz(t, c))
	createTopic(t, c, "again", 2, 3, nil)
	first := startLoad(t, c, "again")
	first.waitAcked(t, 300)
	first.stop()
	away := c.Broker(3)
	away.Terminate()
	resp, err := admin.DeleteTopic(t.Context(), "again")
	if err := errors.Join(err, resp.Err); err != nil {
		t.Fatal(err)
	}
	again := func() error {
		resp, err := admin.CreateTopic(t.Context(), 2, 3, nil, "again")
		return errors.Join(err, resp.Err)
	}
	if err := again(); err == nil {
		t.Error("created again before the old replicas were gone")
	}
	away.Start()
	harness.Eventually(t, 30*time.Second, "the topic can be created again", again)
	c.WaitLed("again", 2, 3)
	second := startLoad(t, c, "again")
	second.waitAcked(t, 300)
	away.Terminate()
	c.Restart(away)
	second.waitAcked(t, second.acked()+300)
	second.stop()
	second.check(t, c)
}

// S21: all brokers and all ZooKeeper servers are restarted one after the other under load. Nobody sees an error that it has to handle.
func TestS21RollingRestart(t *testing.T) {
	if !harness.Long() {
		t.Skip("long form only (OTTLA_LONG=1)")
	}
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), ZooKeepers: 3, Properties: map[string]string{
		"min.insync.replicas": "2", "default.replication.factor": "3", "offsets.topic.replication.factor": "3",
	}})
	createTopic(t, c, "rolled", 6, 3, nil)
	load := startLoad(t, c, "rolled")
	reader := franz(t, c, kgo.ConsumerGroup("rolled"), kgo.ConsumeTopics("rolled"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var read, broken atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			fetches := reader.PollFetches(ctx)
			if ctx.Err() != nil {
				return
			}
			for _, e := range fetches.Errors() {
				broken.Add(1)
				t.Logf("reader: %v", e.Err)
			}
			read.Add(int64(fetches.NumRecords()))
		}
	}()
	for _, b := range c.Brokers {
		load.waitAcked(t, load.acked()+300)
		if code := b.Terminate(); code != 0 {
			t.Errorf("broker %d stopped with exit code %d", b.ID, code)
		}
		c.Restart(b)
		c.WaitLed("rolled", 6, 3)
	}
	for n := range c.ZooKeeper.Servers() {
		load.waitAcked(t, load.acked()+300)
		c.ZooKeeper.Restart(n + 1)
		c.ZooKeeper.WaitServing()
	}
	load.waitAcked(t, load.acked()+300)
	load.stop()
	total, _ := endOffsets(t, c, "rolled")
	harness.Eventually(t, time.Minute, "the reader has all", func() error {
		if n := read.Load(); n < total {
			return fmt.Errorf("%d of %d", n, total)
		}
		return nil
	})
	stop()
	<-done
	load.check(t, c)
	if load.mu.unknown > 0 || broken.Load() > 0 {
		t.Errorf("visible errors: producer %d, reader %d", load.mu.unknown, broken.Load())
	}
}
