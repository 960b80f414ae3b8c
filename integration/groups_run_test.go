package integration

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
)

// groupRun is a group at work: a producer writes numbered records, members handle them, and all that they tell is checked:
//   - every record is handled;
//   - a commit that was acknowledged is never seen to be less again, whoever coordinates;
//   - a member that starts, or is assigned a partition, handles nothing that was committed before.
type groupRun struct {
	t            *testing.T
	c            *harness.Cluster
	group, topic string
	family       memberFamily
	command      memberCommand
	members      []*groupMember
	stop         context.CancelFunc
	background   sync.WaitGroup

	mu        sync.Mutex
	ends      [groupPartitions]int64 // of what was produced
	records   int                    // that were acknowledged: the numbers below
	seen      []int                  // how often each number was handled
	whole     int                    // the first number that was not handled
	committed [groupPartitions]int64 // acknowledged, or seen

	now        string // the stage
	stages     []string
	duplicates map[string]int // by stage
	errors     map[string]int // what members complained of, by stage
	violations []string
}

// memberSession is the members' session timeout: how long a group waits for one that was killed.
func memberSession() time.Duration { return harness.Pick(3*time.Second, 6*time.Second) }

func startGroup(t *testing.T, c *harness.Cluster, group, topic string, family memberFamily, command memberCommand) *groupRun {
	g := &groupRun{
		t: t, c: c, group: group, topic: topic, family: family, command: command, duplicates: map[string]int{}, errors: map[string]int{},
	}
	ctx, cancel := context.WithCancel(t.Context())
	g.stop = cancel
	t.Cleanup(func() {
		cancel()
		g.background.Wait()
	})
	producer := franz(t, c, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	g.background.Go(func() { g.produce(ctx, producer) })
	g.background.Go(func() {
		for ctx.Err() == nil {
			g.look(ctx)
			time.Sleep(200 * time.Millisecond)
		}
	})
	return g
}

func (g *groupRun) startAll(n int) {
	g.members = make([]*groupMember, n)
	for i := range g.members {
		g.start(i)
	}
}

func (g *groupRun) start(n int) { g.members[n] = startMember(g, n) }

// stage has something happen, and waits until the group is stable with so many members, and until everything that was produced by
// then was handled, and some more: so every partition has an owner again.
func (g *groupRun) stage(name string, members int, what func()) {
	g.t.Helper()
	g.mu.Lock()
	g.now = name
	if !slices.Contains(g.stages, name) {
		g.stages = append(g.stages, name)
	}
	g.mu.Unlock()
	what()
	g.waitStable(members, name)
	g.mu.Lock()
	goal := g.records + 100
	g.mu.Unlock()
	g.waitHandled(goal, name)
}

func (g *groupRun) waitStable(members int, what string) {
	g.t.Helper()
	harness.Eventually(g.t, 2*time.Minute, "the group is stable after: "+what, func() error {
		client, err := kgo.NewClient(kgo.SeedBrokers(g.c.Bootstrap()...)) // a new one, which remembers no dead coordinator
		if err != nil {
			return err
		}
		defer client.Close()
		ctx, cancel := context.WithTimeout(g.t.Context(), 5*time.Second)
		defer cancel()
		described, err := kadm.NewClient(client).DescribeGroups(ctx, g.group)
		if err != nil {
			return err
		}
		if d := described[g.group]; d.Err != nil || d.State != "Stable" || len(d.Members) != members {
			return fmt.Errorf("%s with %d members, want %d; %v", d.State, len(d.Members), members, d.Err)
		}
		return nil
	})
}

func (g *groupRun) waitHandled(goal int, what string) {
	g.t.Helper()
	harness.Eventually(g.t, 2*time.Minute, "all records are handled after: "+what, func() error {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.whole < goal {
			return fmt.Errorf("%d of %d; %v", g.whole, goal, g.errors)
		}
		return nil
	})
}

// finish stops the producer, waits until all is handled and committed, stops the members, and tells the figures.
func (g *groupRun) finish() {
	g.t.Helper()
	g.stop()
	g.background.Wait()
	g.waitHandled(g.records, "the end")
	harness.Eventually(g.t, time.Minute, "all is committed", func() error {
		g.look(g.t.Context())
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.committed != g.ends {
			return fmt.Errorf("committed %v, written %v", g.committed, g.ends)
		}
		return nil
	})
	for _, m := range g.members {
		m.stop()
	}
	rebalances := lastGeneration(g.t, g.c, g.group)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, v := range g.violations {
		g.t.Error(v)
	}
	var causes []string
	for _, s := range g.stages {
		causes = append(causes, fmt.Sprintf("%s %d", s, g.duplicates[s]))
	}
	g.t.Logf("%s: %d records, %d rebalances, lost 0, committed offsets went back %d times; duplicates by cause: %s; members' errors: %v",
		g.t.Name(), g.records, rebalances, len(g.violations), strings.Join(causes, ", "), g.errors)
}

// produced is where each partition ends.
func (g *groupRun) produced() [groupPartitions]int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ends
}

// produce writes numbered records until ctx ends; all are acknowledged.
func (g *groupRun) produce(ctx context.Context, client *kgo.Client) {
	for n := 0; ctx.Err() == nil; {
		var batch []*kgo.Record
		for range 20 {
			batch = append(batch, &kgo.Record{Topic: g.topic, Value: []byte(strconv.Itoa(n))})
			n++
		}
		results := client.ProduceSync(context.Background(), batch...)
		if err := results.FirstErr(); err != nil {
			g.t.Errorf("produce: %v", err)
			return
		}
		g.mu.Lock()
		g.records = n
		for _, r := range results {
			g.ends[r.Record.Partition] = max(g.ends[r.Record.Partition], r.Record.Offset+1)
		}
		g.mu.Unlock()
		time.Sleep(40 * time.Millisecond)
	}
}

// look compares what the coordinator tells of the commits with what was acknowledged before it was asked.
func (g *groupRun) look(ctx context.Context) {
	client, err := kgo.NewClient(kgo.SeedBrokers(g.c.Bootstrap()...), kgo.RequestRetries(1))
	if err != nil {
		return
	}
	defer client.Close()
	g.mu.Lock()
	before := g.committed
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	offsets, err := kadm.NewClient(client).FetchOffsets(ctx, g.group)
	if err != nil {
		return // no coordinator just now
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	offsets.Each(func(o kadm.OffsetResponse) {
		if o.Err != nil {
			return
		}
		if o.At < before[o.Partition] {
			g.violations = append(g.violations, fmt.Sprintf("%s: partition %d: the coordinator tells of offset %d, after %d was committed", g.now, o.Partition, o.At, before[o.Partition]))
		}
		g.committed[o.Partition] = max(g.committed[o.Partition], o.At)
	})
}

func (g *groupRun) handled(m *groupMember, partition int32, offset int64, number int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if offset < m.floor[partition] {
		g.violations = append(g.violations, fmt.Sprintf("%s: %s handled offset %d of partition %d, though %d was committed before", g.now, m.name, offset, partition, m.floor[partition]))
		m.floor[partition] = offset // say it once
	}
	for number >= len(g.seen) {
		g.seen = append(g.seen, 0)
	}
	if g.seen[number]++; g.seen[number] > 1 {
		g.duplicates[g.now]++
	}
	for g.whole < len(g.seen) && g.seen[g.whole] > 0 {
		g.whole++
	}
}

func (g *groupRun) acknowledged(partition int32, offset int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.committed[partition] = max(g.committed[partition], offset)
}

func (g *groupRun) assigned(m *groupMember, partitions []int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, p := range partitions {
		m.floor[p] = g.committed[p]
	}
}

func (g *groupRun) memberError(m *groupMember, line string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.errors[g.now]++
	if g.errors[g.now] <= 5 {
		g.t.Logf("%s, %s: %.300s", g.now, m.name, line)
	}
}

func (g *groupRun) memberEnded(m *groupMember) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !m.ending && g.t.Context().Err() == nil {
		g.t.Errorf("%s: %s ended by itself: %v\n%.3000s", g.now, m.name, m.cmd.ProcessState, m.stderr.String())
	}
}

// coordinator is the broker that coordinates the group.
func (g *groupRun) coordinator() *harness.Broker {
	g.t.Helper()
	r := kmsg.NewPtrFindCoordinatorRequest()
	r.Version, r.CoordinatorKey = 2, g.group
	resp := harness.Ask[*kmsg.FindCoordinatorResponse](harness.Dial(g.t, g.c.Broker(1).Address), r)
	if resp.ErrorCode != 0 {
		g.t.Fatalf("FindCoordinator: error %d", resp.ErrorCode)
	}
	return g.c.Broker(int(resp.NodeID))
}

// lastGeneration reads the group's records in __consumer_offsets: each rebalance began a generation, and none comes back.
func lastGeneration(t *testing.T, c *harness.Cluster, group string) (generation int32) {
	t.Helper()
	_, ends := endOffsets(t, c, "__consumer_offsets")
	starts := map[int32]kgo.Offset{}
	left := map[int32]int64{}
	for p, end := range ends["__consumer_offsets"] {
		if end.Offset > 0 {
			starts[p], left[p] = kgo.NewOffset().AtStart(), end.Offset
		}
	}
	client := franz(t, c, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{"__consumer_offsets": starts}))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for len(left) > 0 {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			var key kmsg.GroupMetadataKey
			var value kmsg.GroupMetadataValue
			if len(r.Key) > 1 && r.Key[1] == 2 && r.Value != nil && key.ReadFrom(r.Key) == nil && key.Group == group && value.ReadFrom(r.Value) == nil {
				if value.Generation < generation {
					t.Errorf("group %s: generation %d follows %d", group, value.Generation, generation)
				}
				generation = value.Generation
			}
			if r.Offset+1 >= left[r.Partition] {
				delete(left, r.Partition)
			}
		})
		if ctx.Err() != nil {
			t.Fatalf("__consumer_offsets: not read to its end: %v", slices.Collect(maps.Keys(left)))
		}
	}
	return generation
}
