package integration

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
)

// A group of five reads twelve partitions while members leave, die and come, and while the broker that coordinates them is
// killed. Every record is handled, committed offsets only go forward, and whoever comes back goes on where they stand.

const (
	groupMembers    = 5
	groupPartitions = 12
)

func TestGroupsLoseNothing(t *testing.T) {
	for _, storage := range []string{"kafka", "zookeeper"} {
		for _, family := range []struct {
			name  string
			start startMember
		}{{"franz-go", startFranz}, {"franz-go-static", startStaticFranz}, {"kafka-go", startKafkaGo}} {
			t.Run(storage+"/"+family.name, func(t *testing.T) {
				if storage == "zookeeper" && (harness.Default() == harness.Kafka || family.name == "franz-go-static" && !harness.Long()) {
					t.Skip("Kafka 3.9 has no such storage; static members in the long form")
				}
				runGroup(t, storage, family.start)
			})
		}
	}
}

// groupMember is one member that runs until it is stopped (it leaves) or killed (its connections are cut, without a word).
type groupMember interface {
	stop()
	kill()
}

type startMember func(t *testing.T, g *groupRun, n int) groupMember

// groupRun is one run: what was produced, what was handled.
type groupRun struct {
	c     *harness.Cluster
	group string
	topic string

	mu         sync.Mutex
	handled    map[string]int
	duplicates int
	backwards  []string
	last       map[int32]int64 // committed offsets, as last seen
}

func (g *groupRun) handle(value []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.handled[string(value)]++; g.handled[string(value)] > 1 {
		g.duplicates++
	}
}

func (g *groupRun) distinct() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.handled)
}

func runGroup(t *testing.T, storage string, start startMember) {
	properties := map[string]string{"group.initial.rebalance.delay.ms": "500", "offsets.topic.replication.factor": "3"}
	if storage == "zookeeper" {
		properties["offsets.storage"] = "zookeeper"
	}
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), Properties: properties})
	createTopic(t, c, "work", groupPartitions, 3, nil)
	g := &groupRun{c: c, group: "crew", topic: "work", handled: map[string]int{}, last: map[int32]int64{}}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var background sync.WaitGroup
	var produced atomic.Int64
	background.Go(func() { g.produce(ctx, t, &produced) })
	background.Go(func() { g.watch(ctx, t) })

	members := make([]groupMember, groupMembers)
	for n := range members {
		members[n] = start(t, g, n)
	}
	progress := func(what string) {
		before := g.distinct()
		harness.Eventually(t, time.Minute, "progress after "+what, func() error {
			if now := g.distinct(); now < before+200 {
				return fmt.Errorf("%d more records were handled", now-before)
			}
			return nil
		})
	}
	progress("the start")
	members[0].stop()
	progress("a leave")
	members[0] = start(t, g, 0)
	progress("a join")
	members[1].kill()
	progress("a kill of a member")
	members[1] = start(t, g, 1)
	b := g.coordinator(t)
	b.Kill()
	progress("a kill of the coordinator's broker")
	b.Start()
	c.WaitRegistered(b)
	progress("its restart")
	if harness.Long() {
		for _, b := range c.Brokers {
			b.Terminate()
			b.Start()
			c.WaitRegistered(b)
			c.WaitLed("work", groupPartitions, 3)
			progress("a rolling restart")
		}
	}
	cancel()
	background.Wait()
	total := int(produced.Load())
	harness.Eventually(t, time.Minute, "all records", func() error {
		if n := g.distinct(); n < total {
			return fmt.Errorf("%d of %d records were handled", n, total)
		}
		return nil
	})
	for _, m := range members {
		m.stop()
	}
	g.watchOnce(t.Context(), t)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.backwards {
		t.Error(s)
	}
	t.Logf("%s: %d records, lost 0, duplicates %d (killed member and coordinator: handled but not committed), commits went back %d times",
		t.Name(), total, g.duplicates, len(g.backwards))
	if storage == "zookeeper" {
		g.compareZooKeeper(t)
	}
}

// produce writes numbered records until ctx ends; only those that were acknowledged count.
func (g *groupRun) produce(ctx context.Context, t *testing.T, produced *atomic.Int64) {
	client := franz(t, g.c, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	for n := 0; ctx.Err() == nil; {
		var batch []*kgo.Record
		for range 20 {
			batch = append(batch, &kgo.Record{Topic: g.topic, Value: []byte(strconv.Itoa(n))})
			n++
		}
		if err := client.ProduceSync(context.Background(), batch...).FirstErr(); err != nil {
			t.Errorf("produce: %v", err)
			return
		}
		produced.Store(int64(n))
		time.Sleep(20 * time.Millisecond)
	}
}

// watch looks at the committed offsets all the time: they only go forward.
func (g *groupRun) watch(ctx context.Context, t *testing.T) {
	for ctx.Err() == nil {
		g.watchOnce(ctx, t)
		time.Sleep(200 * time.Millisecond)
	}
}

func (g *groupRun) watchOnce(ctx context.Context, t *testing.T) {
	adm := kadm.NewClient(franzQuiet(t, g.c))
	defer adm.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	offsets, err := adm.FetchOffsets(ctx, g.group)
	if err != nil {
		return // no coordinator just now
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	offsets.Each(func(o kadm.OffsetResponse) {
		if o.Err != nil {
			return
		}
		if o.At < g.last[o.Partition] {
			g.backwards = append(g.backwards, fmt.Sprintf("partition %d: committed offset went from %d to %d", o.Partition, g.last[o.Partition], o.At))
		}
		g.last[o.Partition] = o.At
	})
}

func franzQuiet(t *testing.T, c *harness.Cluster) *kgo.Client {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Bootstrap()...), kgo.RequestRetries(1))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// coordinator is the broker that coordinates the group.
func (g *groupRun) coordinator(t *testing.T) *harness.Broker {
	r := kmsg.NewPtrFindCoordinatorRequest()
	r.Version, r.CoordinatorKey = 2, g.group
	resp := harness.Ask[*kmsg.FindCoordinatorResponse](harness.Dial(t, g.c.Broker(1).Address), r)
	if resp.ErrorCode != 0 {
		t.Fatalf("FindCoordinator: error %d", resp.ErrorCode)
	}
	return g.c.Broker(int(resp.NodeID))
}

// compareZooKeeper reads the commits as zkCli shows them.
func (g *groupRun) compareZooKeeper(t *testing.T) {
	view := g.c.View()
	for p, offset := range g.last {
		data, _, err := view.Get(fmt.Sprintf("/consumers/%s/offsets/%s/%d", g.group, g.topic, p))
		if err != nil || string(data) != strconv.FormatInt(offset, 10) {
			t.Errorf("znode of partition %d: %q, %v; committed %d", p, data, err, offset)
		}
	}
}

// network is one member's connections, to be cut.
type network struct {
	mu    sync.Mutex
	conns []net.Conn
	cut   bool
}

func (n *network) dial(ctx context.Context, kind, address string) (net.Conn, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.cut {
		return nil, errors.New("killed")
	}
	conn, err := (&net.Dialer{Timeout: 2 * time.Second}).DialContext(ctx, kind, address)
	if err == nil {
		n.conns = append(n.conns, conn)
	}
	return conn, err
}

func (n *network) kill() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut = true
	for _, c := range n.conns {
		_ = c.Close()
	}
}

type franzMember struct {
	network
	client *kgo.Client
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func startFranz(t *testing.T, g *groupRun, n int) groupMember { return newFranzMember(t, g) }

func startStaticFranz(t *testing.T, g *groupRun, n int) groupMember {
	return newFranzMember(t, g, kgo.InstanceID(fmt.Sprint("worker-", n)))
}

func newFranzMember(t *testing.T, g *groupRun, more ...kgo.Opt) groupMember {
	m := &franzMember{}
	client, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(g.c.Bootstrap()...), kgo.Dialer(m.dial), kgo.ConsumerGroup(g.group), kgo.ConsumeTopics(g.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(500 * time.Millisecond),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(),
	}, more...)...)
	if err != nil {
		t.Fatal(err)
	}
	m.client = client
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.done.Go(func() {
		for ctx.Err() == nil {
			fetches := client.PollRecords(ctx, 50)
			fetches.EachRecord(func(r *kgo.Record) { g.handle(r.Value) })
			commit, done := context.WithTimeout(context.Background(), 10*time.Second)
			_ = client.CommitRecords(commit, fetches.Records()...)
			done()
			client.AllowRebalance()
		}
	})
	return m
}

func (m *franzMember) stop() {
	m.cancel()
	m.done.Wait()
	m.client.CloseAllowingRebalance()
}

func (m *franzMember) kill() {
	m.network.kill()
	m.cancel()
	go m.stop()
}

type kafkaGoMember struct {
	network
	reader *kafkago.Reader
	cancel context.CancelFunc
	done   sync.WaitGroup
}

func startKafkaGo(t *testing.T, g *groupRun, n int) groupMember {
	m := &kafkaGoMember{}
	m.reader = kafkago.NewReader(kafkago.ReaderConfig{
		Brokers: g.c.Bootstrap(), GroupID: g.group, Topic: g.topic, StartOffset: kafkago.FirstOffset, MaxWait: 200 * time.Millisecond,
		SessionTimeout: 6 * time.Second, HeartbeatInterval: 500 * time.Millisecond, RebalanceTimeout: 5 * time.Second,
		JoinGroupBackoff: 500 * time.Millisecond,
		Dialer:           &kafkago.Dialer{ClientID: fmt.Sprint("kafka-go-", n), Timeout: 3 * time.Second, DialFunc: m.dial},
	})
	ctx, cancel := context.WithCancel(context.Background())
	m.cancel = cancel
	m.done.Go(func() {
		for ctx.Err() == nil {
			msg, err := m.reader.FetchMessage(ctx)
			if err != nil {
				continue
			}
			g.handle(msg.Value)
			_ = m.reader.CommitMessages(ctx, msg)
		}
	})
	return m
}

func (m *kafkaGoMember) stop() {
	m.cancel()
	m.done.Wait()
	_ = m.reader.Close()
}

func (m *kafkaGoMember) kill() {
	m.network.kill()
	m.cancel()
	go m.stop()
}
