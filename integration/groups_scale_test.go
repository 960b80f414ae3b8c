package integration

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
)

// TestCoordinatorFailOverWithManyOffsets kills the coordinator of 100,000 committed offsets (in the short form fewer) and measures
// how long the next one takes to know them.
func TestCoordinatorFailOverWithManyOffsets(t *testing.T) {
	groups, partitions := harness.Pick(20, 1000), 100
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), Properties: map[string]string{
		"offsets.topic.replication.factor": "3", "offsets.topic.num.partitions": "1", "offset.metadata.max.bytes": "4096",
	}})
	createTopic(t, c, "orders", partitions, 1, nil)
	at := map[int32]int64{}
	for p := range partitions {
		at[int32(p)] = int64(p)
	}
	began := time.Now()
	for n := range groups {
		commitOffsets(t, c, fmt.Sprintf("group-%04d", n), at)
	}
	t.Logf("%d offsets of %d groups committed in %v", groups*partitions, groups, time.Since(began).Round(time.Millisecond))
	state, err := c.View().State("__consumer_offsets", 0)
	if err != nil {
		t.Fatal(err)
	}
	old := c.Broker(state.Leader)
	began = time.Now()
	old.Kill()
	var next *harness.Broker
	harness.Eventually(t, time.Minute, "another broker leads", func() error {
		s, err := c.View().State("__consumer_offsets", 0)
		if err != nil || s.Leader == old.ID || s.Leader < 0 {
			return fmt.Errorf("leader %d, %v", s.Leader, err)
		}
		next = c.Broker(s.Leader)
		return nil
	})
	led := time.Now()
	admin := kadm.NewClient(franz(t, c))
	fetched := func(group string) error {
		offsets, err := admin.FetchOffsets(t.Context(), group)
		if err == nil && len(offsets["orders"]) != partitions {
			err = fmt.Errorf("%d offsets", len(offsets["orders"]))
		}
		return err
	}
	harness.Eventually(t, time.Minute, "the next coordinator serves", func() error { return fetched("group-0000") })
	serves := time.Now()
	for n := range groups {
		if err := fetched(fmt.Sprintf("group-%04d", n)); err != nil {
			t.Fatalf("group %d: %v", n, err)
		}
	}
	t.Logf("killed → another leader in ZooKeeper: %v, → its coordinator serves: %v more", led.Sub(began).Round(time.Millisecond), serves.Sub(led).Round(time.Millisecond))
	t.Log(regexp.MustCompile(`.*groups loaded.*`).FindString(next.Log()))
}

// TestManyGroupsAreCheap has 1,000 groups of three members (in the short form fewer) on one broker, and measures how long they take to
// join, and what they cost when they only send heartbeats.
func TestManyGroupsAreCheap(t *testing.T) {
	const size = 3
	groups := harness.Pick(50, 1000)
	raiseFileLimit(t, uint64(groups*size)+1000)
	c := harness.Start(t, harness.Options{Properties: map[string]string{"group.initial.rebalance.delay.ms": harness.Pick("500", "3000")}})
	commitOffsetsTopicExists(t, c)
	b := c.Broker(1)
	crowd := &crowd{stop: make(chan struct{}), whole: map[string]bool{}}
	t.Cleanup(crowd.end)
	before := usage(t, b)
	began := time.Now()
	for n := range groups * size {
		conn, err := net.DialTimeout("tcp", b.Address, 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		m := &crowdMember{conn: &scriptMember{conn: conn, client: "crowd"}, group: fmt.Sprintf("group-%04d", n/size), size: size}
		crowd.wg.Go(func() { crowd.live(m) })
	}
	connected := time.Since(began)
	harness.Eventually(t, 2*time.Minute, "all groups are whole", func() error {
		crowd.mu.Lock()
		defer crowd.mu.Unlock()
		if len(crowd.whole) < groups {
			return fmt.Errorf("%d of %d; %v", len(crowd.whole), groups, crowd.failed)
		}
		return nil
	})
	joined := time.Since(began)
	with := usage(t, b)
	idle := harness.Pick(2*time.Second, 30*time.Second)
	time.Sleep(idle)
	after := usage(t, b)
	t.Logf("%d groups of %d members: connected in %v, all joined and assigned after %v (group.initial.rebalance.delay.ms=%s), %v of processor time",
		groups, size, connected.Round(time.Millisecond), joined.Round(time.Millisecond), harness.Pick("500", "3000"), with.cpu-before.cpu)
	t.Logf("memory: %.1f MiB more, %.1f KiB for each member with its connection", float64(after.memory-before.memory)/(1<<20), float64(after.memory-before.memory)/1024/float64(groups*size))
	t.Logf("idle, a heartbeat of each member every 3 s: %.1f %% of one core", 100*(after.cpu-with.cpu).Seconds()/idle.Seconds())
	crowd.mu.Lock()
	defer crowd.mu.Unlock()
	for _, err := range crowd.failed {
		t.Error(err)
	}
}

// commitOffsetsTopicExists has the broker create __consumer_offsets, and waits until it coordinates.
func commitOffsetsTopicExists(t *testing.T, c *harness.Cluster) {
	t.Helper()
	createTopic(t, c, "orders", 1, 1, nil)
	commitOffsets(t, c, "first", map[int32]int64{0: 0})
}

// crowd are many members that do nothing but live.
type crowd struct {
	wg     sync.WaitGroup
	stop   chan struct{}
	mu     sync.Mutex
	whole  map[string]bool // groups whose leader has seen all members
	failed []error
}

func (c *crowd) end() {
	close(c.stop)
	c.wg.Wait()
}

type crowdMember struct {
	conn       *scriptMember
	group, id  string
	generation int32
	size       int
}

// live joins and sends heartbeats until the end.
func (c *crowd) live(m *crowdMember) {
	if err := c.join(m); err != nil {
		c.fail(m, err)
		return
	}
	for {
		select {
		case <-c.stop:
			return
		case <-time.After(3 * time.Second):
		}
		r := kmsg.NewPtrHeartbeatRequest()
		r.Group, r.MemberID, r.Generation = m.group, m.id, m.generation
		resp, err := m.conn.trip(3, r)
		if err == nil {
			err = kerr.ErrorForCode(resp.(*kmsg.HeartbeatResponse).ErrorCode)
		}
		if errors.Is(err, kerr.RebalanceInProgress) {
			err = c.join(m)
		}
		if err != nil {
			c.fail(m, err)
			return
		}
	}
}

func (c *crowd) fail(m *crowdMember, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.stop:
	default:
		c.failed = append(c.failed, fmt.Errorf("%s: %w", m.group, err))
	}
}

// join joins until the member has its assignment.
func (c *crowd) join(m *crowdMember) error {
	for {
		r := kmsg.NewPtrJoinGroupRequest()
		r.Group, r.MemberID, r.ProtocolType, r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = m.group, m.id, "consumer", 45_000, 60_000
		protocol := kmsg.NewJoinGroupRequestProtocol()
		protocol.Name, protocol.Metadata = "range", []byte{0, 0, 0, 0, 0, 1, 0, 6, 'o', 'r', 'd', 'e', 'r', 's', 0, 0, 0, 0}
		r.Protocols = append(r.Protocols, protocol)
		resp, err := m.conn.trip(5, r)
		if err != nil {
			return err
		}
		j := resp.(*kmsg.JoinGroupResponse)
		switch err := kerr.ErrorForCode(j.ErrorCode); {
		case errors.Is(err, kerr.MemberIDRequired):
			m.id = j.MemberID
			continue
		case err != nil:
			return err
		}
		m.id, m.generation = j.MemberID, j.Generation
		s := kmsg.NewPtrSyncGroupRequest()
		s.Group, s.MemberID, s.Generation = m.group, m.id, m.generation
		for _, o := range j.Members {
			a := kmsg.NewSyncGroupRequestGroupAssignment()
			a.MemberID, a.MemberAssignment = o.MemberID, make([]byte, 30)
			s.GroupAssignment = append(s.GroupAssignment, a)
		}
		if resp, err = m.conn.trip(3, s); err != nil {
			return err
		}
		switch err := kerr.ErrorForCode(resp.(*kmsg.SyncGroupResponse).ErrorCode); {
		case errors.Is(err, kerr.RebalanceInProgress):
			continue
		case err != nil:
			return err
		}
		if len(j.Members) == m.size {
			c.mu.Lock()
			c.whole[m.group] = true
			c.mu.Unlock()
		}
		return nil
	}
}
