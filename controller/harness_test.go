package controller

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
	"ottla/zkcoord/zktest"
)

// world is a cluster of fake brokers over a ZooKeeper in memory. Each broker has a real Controller.
type world struct {
	t        testing.TB
	tree     *zktest.Tree
	admin    zkcoord.Session // the test's own eyes
	snapshot *config.Snapshot
	mu       sync.Mutex // guards brokers and what they hold; never held while a controller is called
	brokers  map[cluster.BrokerID]*fakeBroker
	members  map[cluster.BrokerID]bool // that never stand for controller
	seed     uint64
	logger   zerolog.Logger
	slow     time.Duration // of each answer
	quiet    bool          // keeps no log
	connect  func() (zkcoord.Session, func())
	opened   func(b *fakeBroker)              // hears of new sessions; may be nil
	report   func(format string, args ...any) // hears of what no controller may do; may be nil
}

// fakeBroker answers the controller as a broker does, and keeps what a broker keeps.
type fakeBroker struct {
	w           *world
	id          cluster.BrokerID
	rack        string
	member      bool // never stands for controller
	up          bool
	incarnation int
	session     *zktest.FakeSession // nil over a real ensemble
	end         func()              // ends the session
	epoch       cluster.BrokerEpoch
	ctrl        *Controller

	controllerEpoch int32
	hosted          map[cluster.TopicPartition]*fakeReplica // of this process
	disk            map[cluster.TopicPartition]bool         // survives it
	failedDir       map[cluster.TopicPartition]bool
	metadata        map[cluster.TopicPartition]kmsg.UpdateMetadataRequestTopicPartition
	live            []int32
	log             []string
	refuseStop      bool
	recovered       map[cluster.TopicPartition]zkcoord.LogEnd // told before the next registration
}

type fakeReplica struct {
	leader         int32
	leaderEpoch    int32
	partitionEpoch int32
	isr            []int32
	recovery       int8
	topicID        cluster.TopicID
}

func newWorld(t testing.TB, keys map[string]string) *world {
	if keys == nil {
		keys = map[string]string{}
	}
	keys["zookeeper.connect"] = "unused:2181"
	snapshot, err := config.FromMap(keys)
	require.NoError(t, err)
	w := &world{t: t, tree: zktest.NewTree(), snapshot: snapshot, brokers: map[cluster.BrokerID]*fakeBroker{}, logger: zerolog.Nop()}
	w.admin, _ = w.session()
	require.NoError(t, zkcoord.EnsurePaths(w.admin))
	t.Cleanup(w.close)
	return w
}

func (w *world) close() {
	for _, id := range w.ids() {
		if w.brokers[id].up {
			w.kill(id)
		}
	}
}

func (w *world) ids() []cluster.BrokerID {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.brokers))
}

// start starts the process of a broker: registration, then its controller.
func (w *world) start(id cluster.BrokerID, rack string) *fakeBroker {
	w.mu.Lock()
	b := w.brokers[id]
	if b == nil {
		b = &fakeBroker{w: w, id: id, rack: rack, member: w.members[id], disk: map[cluster.TopicPartition]bool{}, failedDir: map[cluster.TopicPartition]bool{}}
		w.brokers[id] = b
	}
	b.up = true
	b.incarnation++
	b.controllerEpoch = 0
	b.hosted = map[cluster.TopicPartition]*fakeReplica{}
	b.metadata = map[cluster.TopicPartition]kmsg.UpdateMetadataRequestTopicPartition{}
	b.live = nil
	w.seed++
	seed := w.seed
	w.mu.Unlock()

	b.ctrl = New(Options{
		BrokerID: id,
		Config:   func() *config.Snapshot { return w.snapshot },
		Logger:   w.logger,
		Eligible: !b.member,
		Dial:     w.dial,
		Rand:     rand.New(rand.NewPCG(seed, 1)),
	})
	b.ctrl.Start()
	w.open(b)
	return b
}

// session opens a session, in memory unless the world has others.
func (w *world) session() (s zkcoord.Session, end func()) {
	if w.connect != nil {
		return w.connect()
	}
	fake := w.tree.NewSession()
	return fake, fake.Expire
}

// open registers a broker in a new session.
func (w *world) open(b *fakeBroker) {
	s, end := w.session()
	if b.recovered != nil {
		require.NoError(w.t, zkcoord.TellRecovered(s, b.id, b.recovered))
		b.recovered = nil
	}
	epoch, err := zkcoord.RegisterBroker(s, b.id, zkcoord.Registration{
		Endpoints: []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: "host", Port: 9000 + int32(b.id)}},
		Rack:      b.rack, JMXPort: -1,
	}, 0)
	require.NoError(w.t, err)
	w.mu.Lock()
	b.session, _ = s.(*zktest.FakeSession)
	b.end, b.epoch = end, epoch
	w.mu.Unlock()
	if w.opened != nil {
		w.opened(b)
	}
	b.ctrl.SessionEstablished(s, epoch)
}

// kill ends the process of a broker; its session ends at once.
func (w *world) kill(id cluster.BrokerID) {
	w.mu.Lock()
	b := w.brokers[id]
	b.up = false
	w.mu.Unlock()
	b.ctrl.SessionLost()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	b.end()
	require.NoError(w.t, b.ctrl.Close(ctx))
}

// expire ends the session of a broker, which then registers anew.
func (w *world) expire(id cluster.BrokerID) {
	b := w.brokers[id]
	b.end()
	b.ctrl.SessionLost()
	w.open(b)
}

// controller is the broker that acts as controller, or nil.
func (w *world) controller() *fakeBroker {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.brokers {
		if b.up && b.ctrl.Active() {
			return b
		}
	}
	return nil
}

type fakeConn struct {
	b           *fakeBroker
	incarnation int
}

var errConnection = errors.New("connection refused")

func (w *world) dial(_ context.Context, to cluster.Broker) (Conn, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.brokers[to.ID]
	if b == nil || !b.up {
		return nil, errConnection
	}
	return &fakeConn{b, b.incarnation}, nil
}

func (c *fakeConn) Close() error { return nil }

func (c *fakeConn) RoundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	if d := c.b.w.slow; d > 0 {
		select {
		case <-time.After(d):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	w := c.b.w
	w.mu.Lock()
	defer w.mu.Unlock()
	if !c.b.up || c.incarnation != c.b.incarnation {
		return nil, errConnection
	}
	switch req := req.(type) {
	case *kmsg.LeaderAndISRRequest:
		return c.b.leaderAndISR(recode(w.t, req, kmsg.NewPtrLeaderAndISRRequest())), nil
	case *updateRequest:
		return c.b.updateMetadata(recode(w.t, req, kmsg.NewPtrUpdateMetadataRequest())), nil
	case *kmsg.StopReplicaRequest:
		return c.b.stopReplica(req), nil
	}
	w.t.Errorf("unexpected request %T", req)
	return nil, errConnection
}

// recode sends a request over the wire.
func recode[R kmsg.Request](t testing.TB, req kmsg.Request, into R) R {
	into.SetVersion(req.GetVersion())
	if err := into.ReadFrom(req.AppendTo(nil)); err != nil {
		t.Errorf("decode %T: %v", req, err)
	}
	return into
}

func (b *fakeBroker) accepts(brokerEpoch int64, controllerEpoch int32) int16 {
	switch {
	case brokerEpoch != -1 && brokerEpoch < int64(b.epoch):
		return kerr.StaleBrokerEpoch.Code
	case controllerEpoch < b.controllerEpoch:
		return kerr.StaleControllerEpoch.Code
	}
	b.controllerEpoch = controllerEpoch
	return 0
}

func (b *fakeBroker) leaderAndISR(req *kmsg.LeaderAndISRRequest) *kmsg.LeaderAndISRResponse {
	resp := req.ResponseKind().(*kmsg.LeaderAndISRResponse)
	if resp.ErrorCode = b.accepts(req.BrokerEpoch, req.ControllerEpoch); resp.ErrorCode != 0 {
		b.logf("LISR refused %d", resp.ErrorCode)
		return resp
	}
	for i := range req.TopicStates {
		ts := &req.TopicStates[i]
		rt := kmsg.NewLeaderAndISRResponseTopic()
		rt.TopicID = ts.TopicID
		for k := range ts.PartitionStates {
			ps := &ts.PartitionStates[k]
			rp := kmsg.NewLeaderAndISRResponseTopicPartition()
			rp.Partition = ps.Partition
			rp.ErrorCode = b.takeRole(ts, ps)
			rt.Partitions = append(rt.Partitions, rp)
			b.logf("LISR %s-%d leader=%d epoch=%d isr=%v zk=%d replicas=%v%s%s%s -> %d", ts.Topic, ps.Partition, ps.Leader, ps.LeaderEpoch,
				ps.ISR, ps.ZKVersion, ps.Replicas, list(" adding=", ps.AddingReplicas), list(" removing=", ps.RemovingReplicas),
				mark(" new", ps.IsNew), rp.ErrorCode)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

func (b *fakeBroker) takeRole(ts *kmsg.LeaderAndISRRequestTopicState, ps *kmsg.LeaderAndISRRequestTopicPartition) int16 {
	tp := cluster.TopicPartition{Topic: ts.Topic, Partition: ps.Partition}
	if b.failedDir[tp] {
		return kerr.KafkaStorageError.Code
	}
	cur := b.hosted[tp]
	if cur != nil && cur.topicID != ts.TopicID {
		return kerr.InconsistentTopicID.Code
	}
	if cur != nil && ps.LeaderEpoch <= cur.leaderEpoch {
		return kerr.StaleControllerEpoch.Code
	}
	if !slices.Contains(ps.Replicas, int32(b.id)) {
		return kerr.UnknownTopicOrPartition.Code
	}
	b.hosted[tp] = &fakeReplica{ps.Leader, ps.LeaderEpoch, ps.ZKVersion, ps.ISR, ps.LeaderRecoveryState, ts.TopicID}
	b.disk[tp] = true
	return 0
}

func (b *fakeBroker) updateMetadata(req *kmsg.UpdateMetadataRequest) *kmsg.UpdateMetadataResponse {
	resp := req.ResponseKind().(*kmsg.UpdateMetadataResponse)
	if resp.ErrorCode = b.accepts(req.BrokerEpoch, req.ControllerEpoch); resp.ErrorCode != 0 {
		b.logf("UMR refused %d", resp.ErrorCode)
		return resp
	}
	b.live = b.live[:0]
	for _, l := range req.LiveBrokers {
		b.live = append(b.live, l.ID)
	}
	b.logf("UMR brokers=%v", b.live)
	for _, ts := range req.TopicStates {
		for _, ps := range ts.PartitionStates {
			tp := cluster.TopicPartition{Topic: ts.Topic, Partition: ps.Partition}
			b.logf("UMR %s leader=%d epoch=%d isr=%v zk=%d replicas=%v%s", tp, ps.Leader, ps.LeaderEpoch, ps.ISR, ps.ZKVersion, ps.Replicas,
				list(" offline=", ps.OfflineReplicas))
			if ps.Leader == -2 {
				delete(b.metadata, tp)
				continue
			}
			b.metadata[tp] = ps
		}
	}
	return resp
}

func (b *fakeBroker) stopReplica(req *kmsg.StopReplicaRequest) *kmsg.StopReplicaResponse {
	resp := req.ResponseKind().(*kmsg.StopReplicaResponse)
	if resp.ErrorCode = b.accepts(req.BrokerEpoch, req.ControllerEpoch); resp.ErrorCode != 0 {
		b.logf("SR refused %d", resp.ErrorCode)
		return resp
	}
	for _, ts := range req.Topics {
		for _, ps := range ts.PartitionStates {
			tp := cluster.TopicPartition{Topic: ts.Topic, Partition: ps.Partition}
			rp := kmsg.NewStopReplicaResponsePartition()
			rp.Topic, rp.Partition = tp.Topic, tp.Partition
			cur := b.hosted[tp]
			switch {
			case b.failedDir[tp] || b.refuseStop:
				rp.ErrorCode = kerr.KafkaStorageError.Code
			case cur != nil && ps.LeaderEpoch >= 0 && ps.LeaderEpoch < cur.leaderEpoch:
				rp.ErrorCode = kerr.FencedLeaderEpoch.Code
			default:
				if ps.Delete {
					if wrong := b.w.mayDelete(tp, b.id); wrong != "" && b.w.report != nil {
						b.w.report("%s", wrong)
					}
					delete(b.hosted, tp)
					delete(b.disk, tp)
				}
			}
			b.logf("SR %s epoch=%d%s -> %d", tp, ps.LeaderEpoch, mark(" delete", ps.Delete), rp.ErrorCode)
			resp.Partitions = append(resp.Partitions, rp)
		}
	}
	return resp
}

func (b *fakeBroker) logf(format string, args ...any) {
	b.log = append(b.log, fmt.Sprintf(format, args...))
}

func list(name string, ids []int32) string {
	if len(ids) == 0 {
		return ""
	}
	return name + fmt.Sprint(ids)
}

func mark(name string, set bool) string {
	if set {
		return name
	}
	return ""
}

// call runs one request on the acting controller and waits for its answer.
func call[Q kmsg.Request, R kmsg.Response](w *world, f func(*Controller, Q, func(R)), req Q) (R, bool) {
	var zero R
	b := w.controller()
	if b == nil {
		return zero, false
	}
	return callOn(b, f, req), true
}

func callOn[Q kmsg.Request, R kmsg.Response](b *fakeBroker, f func(*Controller, Q, func(R)), req Q) R {
	answer := make(chan R, 1)
	f(b.ctrl, req, func(r R) { answer <- r })
	return <-answer
}

// propose has a leader propose an ISR, as its broker knows the partition.
func (w *world) propose(tp cluster.TopicPartition, isr []int32) (int16, bool) {
	w.mu.Lock()
	var leader *fakeBroker
	var rep *fakeReplica
	for _, b := range w.brokers {
		if r := b.hosted[tp]; b.up && r != nil && r.leader == int32(b.id) && (rep == nil || r.leaderEpoch > rep.leaderEpoch) {
			leader, rep = b, r
		}
	}
	if leader == nil {
		w.mu.Unlock()
		return 0, false
	}
	req := kmsg.NewPtrAlterPartitionRequest()
	req.Version = 3
	req.BrokerID, req.BrokerEpoch = int32(leader.id), int64(leader.epoch)
	t := kmsg.NewAlterPartitionRequestTopic()
	t.TopicID = rep.topicID
	p := kmsg.NewAlterPartitionRequestTopicPartition()
	p.Partition, p.LeaderEpoch, p.PartitionEpoch = tp.Partition, rep.leaderEpoch, rep.partitionEpoch
	for _, id := range isr {
		member := kmsg.NewAlterPartitionRequestTopicPartitionNewEpochISR()
		member.BrokerID, member.BrokerEpoch = id, -1
		p.NewEpochISR = append(p.NewEpochISR, member)
	}
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	epoch := rep.leaderEpoch
	w.mu.Unlock()

	resp, ok := call(w, (*Controller).AlterPartition, req)
	if !ok || resp.ErrorCode != 0 {
		return 0, false
	}
	answer := resp.Topics[0].Partitions[0]
	w.mu.Lock()
	defer w.mu.Unlock()
	if rep := leader.hosted[tp]; answer.ErrorCode == 0 && rep != nil && rep.leaderEpoch == epoch && answer.LeaderEpoch == epoch {
		rep.isr, rep.partitionEpoch, rep.recovery = answer.ISR, answer.PartitionEpoch, answer.LeaderRecoveryState
	}
	return answer.ErrorCode, true
}

// catchUp has every leader take every live replica into its ISR, as replication does sooner or later.
func (w *world) catchUp() {
	states, topics := w.states()
	for _, tp := range sortedTPs(states) {
		node := topics[tp.Topic]
		st := states[tp].State
		isr := int32s(st.ISR)
		for _, id := range node.Partitions[tp.Partition] {
			w.mu.Lock()
			b := w.brokers[id]
			follows := b != nil && b.up && b.hosted[tp] != nil && b.hosted[tp].leaderEpoch == int32(st.LeaderEpoch) && !b.failedDir[tp]
			w.mu.Unlock()
			if follows && !slices.Contains(isr, int32(id)) {
				isr = append(isr, int32(id))
			}
		}
		if len(isr) != len(st.ISR) || st.Recovery != 0 {
			w.propose(tp, isr)
		}
	}
}

func sortedTPs[V any](m map[cluster.TopicPartition]V) []cluster.TopicPartition {
	tps := slices.Collect(maps.Keys(m))
	slices.SortFunc(tps, func(a, b cluster.TopicPartition) int {
		if c := strings.Compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition) - int(b.Partition)
	})
	return tps
}

// states reads what ZooKeeper has.
func (w *world) states() (map[cluster.TopicPartition]zkcoord.StateAndVersion, map[string]zkcoord.TopicNode) {
	return readTree(w.t, w.admin)
}

func (w *world) dump() string { return dumpTree(w.t, w.admin) }

func readTree(t testing.TB, s zkcoord.Session) (map[cluster.TopicPartition]zkcoord.StateAndVersion, map[string]zkcoord.TopicNode) {
	topics, err := zkcoord.Topics(s)
	require.NoError(t, err)
	var tps []cluster.TopicPartition
	for name, node := range topics {
		for number := range node.Partitions {
			tps = append(tps, cluster.TopicPartition{Topic: name, Partition: number})
		}
	}
	states, err := zkcoord.States(s, tps)
	require.NoError(t, err)
	return states, topics
}

// dumpTree prints topics, states and what waits below /admin.
func dumpTree(t testing.TB, s zkcoord.Session) string {
	states, topics := readTree(t, s)
	var sb strings.Builder
	for _, name := range slices.Sorted(maps.Keys(topics)) {
		if strings.HasPrefix(name, "__") {
			continue
		}
		node := topics[name]
		for _, number := range slices.Sorted(maps.Keys(node.Partitions)) {
			tp := cluster.TopicPartition{Topic: name, Partition: number}
			fmt.Fprintf(&sb, "%s replicas=%v%s%s", tp, node.Partitions[number], list(" adding=", int32s(node.Adding[number])),
				list(" removing=", int32s(node.Removing[number])))
			if st, found := states[tp]; found {
				fmt.Fprintf(&sb, " leader=%d epoch=%d isr=%v controller=%d zk=%d%s", st.State.Leader, st.State.LeaderEpoch, st.State.ISR,
					st.State.ControllerEpoch, st.Version, mark(" recovering", st.State.Recovery != 0))
			} else {
				sb.WriteString(" new")
			}
			sb.WriteByte('\n')
		}
	}
	children, _, err := s.Children(zkcoord.DeleteTopicsPath)
	require.NoError(t, err)
	sort.Strings(children)
	for _, c := range children {
		fmt.Fprintf(&sb, "%s/%s\n", zkcoord.DeleteTopicsPath, c)
	}
	for _, path := range []string{zkcoord.ReassignPartitionsPath, zkcoord.PreferredElectionPath} {
		if data, _, err := s.Get(path); err == nil {
			fmt.Fprintf(&sb, "%s %s\n", path, data)
		}
	}
	return sb.String()
}
