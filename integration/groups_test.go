package integration

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"ottla/integration/harness"
)

// A group of five reads twelve partitions while members leave, come and are killed, while the broker that coordinates them is
// killed, and while all brokers are restarted one by one. Every record is handled, committed offsets only go forward, and whoever
// comes back goes on where they stand. Members are processes, of every client family.

const (
	groupMembers    = 5
	groupPartitions = 12
)

func TestGroupsLoseNothing(t *testing.T) {
	build := newMemberBuilds(t)
	for i, storage := range []string{"kafka", "zookeeper"} {
		for _, family := range memberFamilies {
			t.Run(storage+"/"+family.name, func(t *testing.T) {
				switch {
				case storage == "zookeeper" && harness.Default() == harness.Kafka:
					t.Skip("Kafka 3.9 has no such storage")
				case !harness.Long() && family.name != []string{"franz-go", "kafka-go"}[i]:
					t.Skip("in the long form: make test-long")
				}
				if !harness.Long() {
					t.Parallel() // they wait more than they work
				}
				runGroup(t, storage, family, build.command(t, family))
			})
		}
	}
}

func runGroup(t *testing.T, storage string, family memberFamily, command memberCommand) {
	properties := map[string]string{
		"group.initial.rebalance.delay.ms": "500", "group.min.session.timeout.ms": "1000", "offsets.topic.replication.factor": "3",
	}
	if storage == "zookeeper" {
		properties["offsets.storage"] = "zookeeper"
	}
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), Properties: properties})
	createTopic(t, c, "work", groupPartitions, 3, nil)
	g := startGroup(t, c, "crew", "work", family, command)

	g.stage("start", groupMembers, func() { g.startAll(groupMembers) })
	g.stage("leave", groupMembers-1, func() { g.members[0].stop() })
	g.stage("join", groupMembers, func() { g.start(0) })
	g.stage("member killed", groupMembers-1, func() { g.members[1].kill() })
	g.stage("member back", groupMembers, func() { g.start(1) })
	b := g.coordinator()
	g.stage("coordinator killed", groupMembers, b.Kill)
	g.stage("broker back", groupMembers, func() { c.Restart(b) })
	if harness.Long() {
		for _, b := range c.Brokers {
			g.stage("rolling restart", groupMembers, func() {
				b.Terminate()
				c.Restart(b)
				c.WaitLed(g.topic, groupPartitions, 3)
			})
		}
	}
	g.finish()
	if storage == "zookeeper" {
		g.compareZooKeeper()
	}
}

// compareZooKeeper reads the commits as zkCli shows them.
func (g *groupRun) compareZooKeeper() {
	view := g.c.View()
	for p, offset := range g.produced() {
		data, _, err := view.Get(fmt.Sprintf("/consumers/%s/offsets/%s/%d", g.group, g.topic, p))
		if err != nil || string(data) != strconv.FormatInt(offset, 10) {
			g.t.Errorf("znode of partition %d: %q, %v; committed %d", p, data, err, offset)
		}
	}
}

// TestGroupMovesBetweenKinds has a group's coordinator move from Ottla to Kafka 3.9 and back, by election and by kill -9.
func TestGroupMovesBetweenKinds(t *testing.T) {
	harness.NeedKafka(t)
	if !harness.Long() {
		t.Skip("minutes of JVMs: make test-long")
	}
	build := newMemberBuilds(t)
	for _, family := range memberFamilies {
		if family.name != "franz-go" && family.name != "java-static" {
			continue
		}
		t.Run(family.name, func(t *testing.T) {
			c := harness.Start(t, harness.Options{Brokers: []harness.Kind{harness.Ottla, harness.Kafka, harness.Ottla}, Properties: map[string]string{
				"group.initial.rebalance.delay.ms": "500", "offsets.topic.replication.factor": "3", "offsets.topic.num.partitions": "1",
				"auto.leader.rebalance.enable": "false",
			}})
			createTopic(t, c, "work", groupPartitions, 3, nil)
			g := startGroup(t, c, "crew", "work", family, build.command(t, family))
			g.stage("start", groupMembers, func() { g.startAll(groupMembers) })
			ours, kafka := c.Broker(1), c.Broker(2)
			for _, b := range []*harness.Broker{ours, kafka, ours, kafka} {
				g.stage(fmt.Sprintf("moved to %s", b.Kind), groupMembers, func() {
					becomeLeader(t, c, b, "__consumer_offsets", 1)
					harness.Eventually(t, time.Minute, "everybody knows the coordinator", func() error {
						if now := g.coordinator(); now != b {
							return fmt.Errorf("broker %d coordinates, not %d", now.ID, b.ID)
						}
						return nil
					})
				})
			}
			g.stage("kafka killed", groupMembers, func() {
				kafka.Kill()
				harness.Eventually(t, time.Minute, "another coordinator", func() error {
					if s, err := c.View().State("__consumer_offsets", 0); err != nil || s.Leader == kafka.ID || s.Leader < 0 {
						return fmt.Errorf("%+v, %v", s, err)
					}
					return nil
				})
			})
			g.stage("kafka back", groupMembers, func() { c.Restart(kafka); c.WaitLed("__consumer_offsets", 1, 3) })
			for _, b := range []*harness.Broker{ours, c.Broker(3)} {
				g.stage("ottla killed", groupMembers, func() {
					becomeLeader(t, c, b, "__consumer_offsets", 1)
					b.Kill()
				})
				g.stage("ottla back", groupMembers, func() { c.Restart(b); c.WaitLed("__consumer_offsets", 1, 3) })
			}
			g.finish()
		})
	}
}

// TestStorageOfOffsetsMovesUnderARunningGroup takes a cluster from the topic to ZooKeeper, broker by broker, while a group works: no
// commit is lost on the way, whoever coordinates, and whichever storage counts there.
func TestStorageOfOffsetsMovesUnderARunningGroup(t *testing.T) {
	if harness.Default() == harness.Kafka {
		t.Skip("Kafka 3.9 has no such storage")
	}
	if !harness.Long() {
		t.Skip("nine restarts: make test-long")
	}
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Ottla, 3), Properties: map[string]string{
		"group.initial.rebalance.delay.ms": "500", "offsets.topic.replication.factor": "3",
	}})
	createTopic(t, c, "work", groupPartitions, 3, nil)
	family := memberFamilies[0]
	g := startGroup(t, c, "crew", "work", family, newMemberBuilds(t).command(t, family))
	g.stage("start", groupMembers, func() { g.startAll(groupMembers) })
	commitOffsetsOf(t, c, "sleeper", "work", map[int32]int64{3: 7})
	roll := func(what, storage string, dual bool) {
		g.stage(what, groupMembers, func() {
			for _, b := range c.Brokers {
				b.Terminate()
				b.ChangeProperties(map[string]string{"offsets.storage": storage, "dual.commit.enabled": fmt.Sprint(dual)})
				c.Restart(b)
				c.WaitLed("__consumer_offsets", 4, 3)
			}
		})
	}
	roll("both are written", "kafka", true)
	t.Log(groupsCommand(t, c, "migrate-offsets --from kafka --to zookeeper --execute --connect "+c.Connect))
	roll("zookeeper counts", "zookeeper", true)
	roll("zookeeper alone", "zookeeper", false)
	g.finish()
	g.compareZooKeeper()
	if data, _, err := c.View().Get("/consumers/sleeper/offsets/work/3"); string(data) != "7" {
		t.Errorf("the group that committed nothing meanwhile: %q, %v", data, err)
	}
}
