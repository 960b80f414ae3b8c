package partition

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/replication"
	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/logstore/crashfs"
)

var (
	simSeed  = flag.Int64("sim.seed", 0, "run this seed only")
	simRuns  = flag.Int("sim.runs", 100, "runs of each simulation")
	simTrace = flag.Bool("sim.trace", false, "print what a failing run did")
)

// A simulation runs three brokers' real partitions over real logs on file systems in memory. Clock, network, controller and
// clients are the test's, one step after the other, chosen by a seed. Where the simulator of package replication has models of
// logs and purgatories, this one has the things themselves; in return its controller is simpler.
//
// At the end everything is healed, and then: every acknowledged record lies where it was acknowledged, in the order of its
// producer, once; nothing that was read has changed; what was refused is not there; the replicas are equal, epochs included.
type simulation struct {
	rng     *rand.Rand
	began   time.Time
	elapsed atomic.Int64
	flush   bool // flush.messages=1
	darkens bool // all power may be lost at once
	minISR  int
	retains bool // old segments go
	nodes   []*simNode
	ctl     simController
	life    int // counts losses of power: answers of an earlier life never reached anybody
	mu      sync.Mutex
	records map[uint64]*sent
	next    uint64
	writers []*simWriter
	read    map[int64]uint64
	tracing sync.Mutex // guards trace: flushers answer clients too
	trace   []string
	problem string
	acked   int
	deleted int64 // below, records may be gone
	reached map[string]int
}

// sent is one record that a client sent.
type sent struct {
	outcome string // "", acked, failed, unknown
	offset  int64
	writer  int
}

// simWriter is a producer with one batch under way.
type simWriter struct {
	id       int64 // of an idempotent producer, -1 of a plain one
	sequence int32
	pending  [][]uint64 // batches that have no verdict yet; all are sent again if one has none
	waiting  bool       // for an answer
	attempt  int
}

type simController struct {
	leader  int32
	epoch   int32
	version int32
	isr     []int32
	live    map[int32]int64 // registrations as the controller knows them
	refused map[int32]int64 // registrations that answered KAFKA_STORAGE_ERROR
}

type simNode struct {
	s        *simulation
	id       int32
	fs       *crashfs.FS
	logs     *logstore.Manager
	set      *Set
	up       bool
	unclean  bool        // power was lost
	full     bool        // the disk has no room
	asks     atomic.Bool // to be looked at again
	epoch    int64
	known    int32 // newest leader epoch that was told
	inbox    []*kmsg.LeaderAndISRRequest
	metadata atomic.Pointer[map[cluster.BrokerID]bool] // who lives, as this broker knows; replaced whole
	alters   []proposed
	answers  []func()            // fetches on their way back
	asked    cluster.LeaderEpoch // in which the newest fetch was sent
}

const simPartition = "t"

func newSimulation(seed int64, flush bool) *simulation {
	s := &simulation{
		rng: rand.New(rand.NewPCG(uint64(seed), 7)), began: time.Now(), flush: flush, records: map[uint64]*sent{}, read: map[int64]uint64{},
		darkens: flush, reached: map[string]int{}, minISR: 1 + int(seed%2), retains: seed%3 == 0,
	}
	s.ctl = simController{leader: 1, isr: []int32{1, 2, 3}, live: map[int32]int64{}, refused: map[int32]int64{}}
	for id := int32(1); id <= 3; id++ {
		n := &simNode{s: s, id: id, fs: crashfs.New(), known: -1}
		s.nodes = append(s.nodes, n)
		n.open()
	}
	for i := range 3 {
		w := &simWriter{id: int64(1000 + i)}
		if i == 2 {
			w.id = logstore.NoProducerID
		}
		s.writers = append(s.writers, w)
	}
	s.announce()
	for _, n := range s.nodes {
		s.deliver(n) // only the first word lets a broker create the log
	}
	return s
}

func (s *simulation) now() time.Time { return s.began.Add(time.Duration(s.elapsed.Load())) }

func (s *simulation) logf(format string, args ...any) {
	s.tracing.Lock()
	defer s.tracing.Unlock()
	s.trace = append(s.trace, fmt.Sprintf(format, args...))
}

func (s *simulation) failf(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.problem == "" {
		s.problem = fmt.Sprintf(format, args...)
	}
}

func (s *simulation) node(id int32) *simNode { return s.nodes[id-1] }

func (n *simNode) open() {
	c := logstore.DefaultConfig()
	c.SegmentBytes = 2000
	if n.s.retains {
		c.RetentionBytes = 5000
	}
	if n.s.flush {
		c.FlushMessages = 1
	}
	logs, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{"/data"}, FS: n.fs, BrokerID: cluster.BrokerID(n.id), ClusterID: "test", RecoveryThreads: 1,
		Defaults: func(string) *logstore.Config { return c }, Logger: zerolog.Nop(),
	})
	if err != nil {
		n.s.failf("broker %d does not start: %v", n.id, err)
		return
	}
	n.logs = logs
	n.metadata.Store(&map[cluster.BrokerID]bool{})
	n.set = NewSet(Options{
		BrokerID: cluster.BrokerID(n.id), Logs: logs, Logger: zerolog.Nop(), Alter: n,
		LagMax: func() time.Duration { return 3 * time.Second },
		Topic:  func(string) TopicSettings { return TopicSettings{MinISR: n.s.minISR} },
		Alive:  n.alive,
		ReadState: func(cluster.TopicPartition) (AlterResult, error) {
			c := &n.s.ctl
			return AlterResult{
				Leader: cluster.BrokerID(c.leader), LeaderEpoch: cluster.LeaderEpoch(c.epoch), ISR: brokers(c.isr),
				PartitionEpoch: cluster.PartitionEpoch(c.version),
			}, nil
		},
		Now: n.s.now,
	})
	n.epoch++
	n.known, n.inbox, n.alters, n.answers = -1, nil, nil, nil
	n.up = true
	n.s.ctl.live[n.id] = n.epoch
}

func (n *simNode) alive(id cluster.BrokerID) bool { return (*n.metadata.Load())[id] }

// learn brings the metadata up to date, but for one broker if behind is set.
func (n *simNode) learn(behind ...cluster.BrokerID) {
	live := map[cluster.BrokerID]bool{}
	for id := range n.s.ctl.live {
		live[cluster.BrokerID(id)] = !slices.Contains(behind, cluster.BrokerID(id))
	}
	n.metadata.Store(&live)
}

// close ends the process; what it had under way hears nothing more.
func (n *simNode) close() {
	n.up = false
	n.set.tasks.Wait()
	if p := n.set.lookup(cluster.TopicPartition{Topic: simPartition}); p != nil {
		p.stop(-1)
	}
	_ = n.logs.Close(false)
	n.set.tasks.Wait()
}

// Propose keeps the ISR change for a later step.
func (n *simNode) Propose(p AlterProposal, done func(AlterResult)) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	n.alters = append(n.alters, proposed{p, done})
}

// announce sends the state to every registered broker.
func (s *simulation) announce() {
	c := &s.ctl
	req := kmsg.NewPtrLeaderAndISRRequest()
	req.Version, req.BrokerEpoch, req.ControllerEpoch = 7, -1, 1
	topic := kmsg.NewLeaderAndISRRequestTopicState()
	topic.Topic, topic.TopicID = simPartition, topicID
	p := kmsg.NewLeaderAndISRRequestTopicPartition()
	p.Leader, p.LeaderEpoch, p.ZKVersion, p.ISR, p.Replicas = c.leader, c.epoch, c.version, slices.Clone(c.isr), []int32{1, 2, 3}
	p.IsNew = c.epoch == 0
	topic.PartitionStates = append(topic.PartitionStates, p)
	req.TopicStates = append(req.TopicStates, topic)
	for _, n := range s.nodes {
		if _, live := c.live[n.id]; !live || !n.up {
			continue
		}
		if n.learn(); s.rng.IntN(12) == 0 {
			n.learn(cluster.BrokerID(1 + s.rng.IntN(3)))
		}
		if len(n.inbox) > 0 && s.rng.IntN(2) == 0 {
			n.inbox = nil // a new controller tells only what is
		}
		n.inbox = append(n.inbox, req)
	}
	s.logf("state: leader %d epoch %d isr %v version %d", c.leader, c.epoch, c.isr, c.version)
}

// usable are the members that may lead.
func (s *simulation) usable() []int32 {
	c := &s.ctl
	return slices.DeleteFunc(slices.Clone(c.isr), func(id int32) bool {
		epoch, live := c.live[id]
		return !live || c.refused[id] == epoch
	})
}

// settle is the controller's look at who lives: it removes the dead from the ISR and elects.
func (s *simulation) settle() {
	c := &s.ctl
	in := s.usable()
	leads := slices.Contains(in, c.leader)
	switch {
	case leads && len(in) == len(c.isr):
		return
	case len(in) == 0:
		if c.leader == -1 {
			return
		}
		c.leader = -1
		s.reached["partition without leader"]++
	case !leads:
		c.leader, c.isr = in[0], in
	default:
		c.isr = in
	}
	c.epoch++
	c.version++
	s.announce()
}

func (s *simulation) prefer() {
	in := s.usable()
	if s.ctl.leader == -1 || len(in) < 2 {
		return
	}
	s.ctl.leader = in[s.rng.IntN(len(in))]
	s.ctl.epoch++
	s.ctl.version++
	s.announce()
}

// deliver hands a broker the oldest word of the controller.
func (s *simulation) deliver(n *simNode) {
	if !n.up || len(n.inbox) == 0 {
		return
	}
	req := n.inbox[0]
	n.inbox = n.inbox[1:]
	word := req.TopicStates[0].PartitionStates[0]
	before := n.role()
	resp := n.set.LeaderAndISR(req, cluster.BrokerEpoch(n.epoch))
	n.set.tasks.Wait()
	code := resp.Topics[0].Partitions[0].ErrorCode
	s.logf("%d: told leader %d epoch %d: code %d", n.id, word.Leader, word.LeaderEpoch, code)
	if code == kerr.KafkaStorageError.Code {
		s.ctl.refused[n.id] = n.epoch
		s.reached["refused to lead"]++
		return
	}
	n.known = max(n.known, word.LeaderEpoch)
	if p := n.partition(); p != nil && p.Snapshot().Role == replication.Leader && int32(p.Snapshot().LeaderEpoch) < n.known {
		s.failf("broker %d leads epoch %d, though it was told of epoch %d", n.id, p.Snapshot().LeaderEpoch, n.known)
	}
	if before == replication.Leader && word.Leader != n.id {
		s.reached["demotion"]++
		if word.Leader == -1 || !n.alive(cluster.BrokerID(word.Leader)) {
			s.reached["demotion with the new leader unknown"]++
		}
	}
}

func (n *simNode) partition() *Partition {
	if !n.up {
		return nil
	}
	return n.set.lookup(cluster.TopicPartition{Topic: simPartition})
}

func (n *simNode) role() replication.Role {
	if p := n.partition(); p != nil {
		return p.view.Load().role
	}
	return replication.NoRole
}

// produce lets a writer send its batch, or what it has not got a verdict for once more, to whoever believes to lead.
func (s *simulation) produce() {
	w := s.writers[s.rng.IntN(len(s.writers))]
	var to []*simNode
	for _, n := range s.nodes {
		if n.role() == replication.Leader {
			to = append(to, n)
		}
	}
	if len(to) == 0 {
		return
	}
	s.mu.Lock()
	if w.waiting && s.rng.IntN(6) > 0 {
		s.mu.Unlock()
		return // waits on
	}
	if w.waiting && w.id == logstore.NoProducerID || len(w.pending) == 0 {
		s.newBatches(w)
	}
	acks := int16(-1)
	if w.id == logstore.NoProducerID && s.rng.IntN(2) == 0 {
		acks = 1
	}
	w.attempt++
	w.waiting = true
	attempt, life, sequence := w.attempt, s.life, w.sequence
	batches := slices.Clone(w.pending)
	s.mu.Unlock()
	n := to[s.rng.IntN(len(to))]
	refused := false // one of these: those after it do not follow
	for _, ids := range batches {
		s.mu.Lock()
		done := s.records[ids[0]].outcome == "acked"
		s.mu.Unlock()
		if done {
			sequence += int32(len(ids))
			continue
		}
		s.logf("%d: append %v of writer %d, acks %d", n.id, ids, w.id, acks)
		body := s.batch(w.id, sequence, ids)
		sequence += int32(len(ids))
		epoch := n.partition().Snapshot().LeaderEpoch
		n.partition().Append(AppendRequest{Records: body, Acks: acks, Timeout: time.Hour, ProduceVersion: 9}, func(r AppendResult) {
			s.mu.Lock()
			inOrder := !refused
			s.mu.Unlock()
			if inOrder && errors.Is(r.Err, kerr.OutOfOrderSequenceNumber) && s.ctl.leader == n.id && int32(epoch) == s.ctl.epoch {
				s.failf("the leader does not know what came before %v of writer %d", ids, w.id)
			}
			s.answered(w, attempt, life, ids, acks, r)
			s.mu.Lock()
			refused = refused || r.Err != nil
			s.mu.Unlock()
		})
		n.set.tasks.Wait()
	}
}

func (s *simulation) batch(producer int64, sequence int32, ids []uint64) []byte {
	o := logstore.PlainBatch()
	if producer != logstore.NoProducerID {
		o.ProducerID, o.ProducerEpoch, o.BaseSequence = producer, 0, sequence
	}
	bd := logstore.NewBuilder(o)
	for i, id := range ids {
		if err := bd.Append(logstore.Record{Offset: int64(i), Timestamp: s.now().UnixMilli(), Value: fmt.Appendf(nil, "%d", id)}); err != nil {
			panic(err)
		}
	}
	batch, err := bd.Finish()
	if err != nil {
		panic(err)
	}
	return slices.Clone([]byte(batch))
}

// newBatches is what a writer has under way at a time: up to five batches if it is idempotent.
func (s *simulation) newBatches(w *simWriter) {
	w.settled()
	n := 1
	if w.id != logstore.NoProducerID {
		n += s.rng.IntN(5)
	}
	for range n {
		var ids []uint64
		for range 1 + s.rng.IntN(3) {
			s.next++
			ids = append(ids, s.next)
			s.records[s.next] = &sent{offset: -1, writer: int(w.id)}
		}
		w.pending = append(w.pending, ids)
	}
}

// settled ends what is under way.
func (w *simWriter) settled() {
	for _, ids := range w.pending {
		w.sequence += int32(len(ids))
	}
	w.pending = nil
}

// definite errors promise that nothing was written.
var definite = []error{kerr.NotEnoughReplicas, kerr.InvalidRecord, kerr.MessageTooLarge}

func (s *simulation) answered(w *simWriter, attempt, life int, ids []uint64, acks int16, r AppendResult) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logf("answer for %v of writer %d: %d, duplicate %v, %v", ids, w.id, r.BaseOffset, r.Duplicate, r.Err)
	if life != s.life {
		return
	}
	if w.attempt == attempt && (r.Err != nil || len(w.pending) == 0 || slices.Equal(ids, w.pending[len(w.pending)-1])) {
		w.waiting = false
	}
	switch {
	case r.Err == nil && acks == 1:
		// May be lost, and is only written once.
	case r.Err == nil:
		s.acked += len(ids)
		for i, id := range ids {
			if rec := s.records[id]; rec.outcome != "acked" {
				rec.outcome, rec.offset = "acked", r.BaseOffset+int64(i)
			}
		}
	case w.id != logstore.NoProducerID:
		return // the same batch is sent again
	case slices.ContainsFunc(definite, func(e error) bool { return errors.Is(r.Err, e) }):
		for _, id := range ids {
			s.records[id].outcome = "failed"
		}
	}
	if w.attempt == attempt && (w.id == logstore.NoProducerID || s.allAcked(w)) {
		w.settled()
	}
}

func (s *simulation) allAcked(w *simWriter) bool {
	for _, ids := range w.pending {
		if s.records[ids[0]].outcome != "acked" {
			return false
		}
	}
	return true
}

// fetch is one request of a follower; its answer may come later.
func (s *simulation) fetch(n *simNode) {
	p := n.partition()
	if p == nil {
		return
	}
	pos, ok := p.FollowPosition()
	if !ok {
		return
	}
	if n.asked == pos.LeaderEpoch && len(n.answers) > 0 {
		return // one request at a time
	}
	n.asked = pos.LeaderEpoch
	from := s.node(int32(pos.Leader))
	lp := from.partition()
	if lp == nil {
		return
	}
	r := fetchAs(cluster.BrokerID(n.id), pos.LeaderEpoch, pos.Offset)
	r.MaxBytes, r.LastFetchedEpoch, r.ReplicaLogStart = 100+s.rng.IntN(400), pos.LastFetchedEpoch, pos.LogStartOffset
	r.ReplicaEpoch = cluster.BrokerEpoch(n.epoch)
	out, err := lp.Read(r)
	from.set.tasks.Wait()
	var body []byte
	if err == nil && !out.Slice.Empty() {
		body = make([]byte, out.Slice.Len)
		_, err = out.Slice.ReadAt(body, 0)
	}
	if err == nil || !out.Slice.Empty() {
		out.Slice.Release()
	}
	set := n.set
	apply := func() {
		if n.set == set && n.up {
			s.apply(n, p, lp, pos, out, body, err)
		}
	}
	if s.rng.IntN(4) == 0 {
		n.answers = append(n.answers, apply)
		return
	}
	apply()
}

func (s *simulation) apply(n *simNode, p, lp *Partition, pos FollowPosition, out ReadResult, body []byte, err error) {
	switch {
	case errors.Is(err, kerr.OffsetOutOfRange):
		s.reached["out of range"]++
		log := lp.Log()
		last := replication.Undefined
		if e, found := p.Log().LatestEpoch(); found {
			if end, err := lp.OffsetForLeaderEpoch(pos.LeaderEpoch, e, cluster.BrokerID(n.id)); err == nil {
				last = end
			}
		}
		if log != nil {
			err = p.TruncateOutOfRange(pos.LeaderEpoch, pos.Offset, log.LogStartOffset(), log.LogEndOffset(), last)
		}
	case err != nil:
		return
	case out.Diverging != nil:
		s.reached["diverging fetch"]++
		s.logf("%d: at %d diverges: %+v, its epochs %v, the leader's %v", n.id, pos.Offset, *out.Diverging, p.Log().EpochEntries(), lp.Log().EpochEntries())
		_, err = p.TruncateTo(pos.LeaderEpoch, pos.Offset, *out.Diverging, out.LogStartOffset)
	default:
		if len(body) > 0 {
			s.logf("%d: applies %d bytes from %d at %d, epoch %d", n.id, len(body), pos.Leader, pos.Offset, pos.LeaderEpoch)
		}
		err = p.Apply(Fetched{
			LeaderEpoch: pos.LeaderEpoch, Offset: pos.Offset, Records: body, HighWatermark: out.HighWatermark, LogStartOffset: out.LogStartOffset,
		})
	}
	if err != nil && !errors.Is(err, ErrStale) {
		s.logf("%d: %v", n.id, err)
	}
	if errors.Is(err, ErrCommittedCut) {
		st, ls := p.Snapshot(), lp.Snapshot()
		s.failf("broker %d was asked to cut committed records: ends at %d, high watermark %d, epochs %v; the leader %d ends at %d, high watermark %d, epochs %v",
			n.id, st.LogEndOffset, st.HighWatermark, p.Log().EpochEntries(), pos.Leader, ls.LogEndOffset, ls.HighWatermark, lp.Log().EpochEntries())
	}
	n.set.tasks.Wait()
}

// alter is the controller's judgement of one ISR change. Its answer may say nothing though the change was made.
func (s *simulation) alter(n *simNode) {
	s.mu.Lock()
	if len(n.alters) == 0 {
		s.mu.Unlock()
		return
	}
	a := n.alters[0]
	n.alters = n.alters[1:]
	s.mu.Unlock()
	c := &s.ctl
	var err error
	switch {
	case c.leader != n.id || int32(a.LeaderEpoch) != c.epoch:
		err = kerr.FencedLeaderEpoch
	case int32(a.PartitionEpoch) != c.version:
		err = kerr.InvalidUpdateVersion
	}
	var isr []int32
	for _, m := range a.ISR {
		epoch, live := c.live[int32(m.Broker)]
		if err == nil && (!live || m.Epoch != cluster.NoBrokerEpoch && int64(m.Epoch) != epoch) {
			err = kerr.IneligibleReplica
		}
		isr = append(isr, int32(m.Broker))
	}
	if err == nil {
		c.isr = isr
		c.version++
		s.logf("isr %v by leader %d in epoch %d, version %d", isr, n.id, a.LeaderEpoch, c.version)
		s.reached["ISR changed by its leader"]++
		if s.rng.IntN(6) == 0 {
			err = kerr.InvalidUpdateVersion // the answer to the first try was lost
		}
	}
	a.done(AlterResult{
		Err: err, Leader: cluster.BrokerID(c.leader), LeaderEpoch: cluster.LeaderEpoch(c.epoch), ISR: brokers(c.isr),
		PartitionEpoch: cluster.PartitionEpoch(c.version),
	})
	n.set.tasks.Wait()
}

// consume reads a batch somewhere, and remembers what was shown.
func (s *simulation) consume() {
	n := s.nodes[s.rng.IntN(3)]
	p := n.partition()
	if p == nil || p.Log() == nil || p.Log().LogEndOffset() == 0 {
		return
	}
	out, err := p.Read(consume(s.rng.Int64N(p.Log().LogEndOffset() + 1)))
	if err != nil || out.Slice.Empty() {
		return
	}
	s.logf("%d: read as %v, high watermark %d, log end %d", n.id, n.role(), out.HighWatermark, out.LogEndOffset)
	for offset, id := range idsIn(out.Slice) {
		if before, seen := s.read[offset]; seen && before != id {
			s.failf("offset %d showed record %d and now %d", offset, before, id)
		}
		s.read[offset] = id
	}
}

func idsIn(slice logstore.Slice) map[int64]uint64 {
	body := make([]byte, slice.Len)
	_, err := slice.ReadAt(body, 0)
	slice.Release()
	if err != nil {
		return nil
	}
	out := map[int64]uint64{}
	for len(body) > 0 {
		b, rest, err := logstore.NextBatch(body)
		if err != nil {
			break
		}
		for r, err := range b.Records() {
			if err != nil {
				break
			}
			id, _ := strconv.ParseUint(string(r.Value), 10, 64)
			out[r.Offset] = id
		}
		body = rest
	}
	return out
}

// fillDisk leaves no room on a disk; makeRoom gives it back.
func (s *simulation) fillDisk(n *simNode) {
	if !n.up || n.full {
		return
	}
	s.logf("%d: disk full", n.id)
	s.reached["full disk"]++
	n.full = true
	n.fs.SetSpace(logstore.Space{Total: 1 << 30})
	n.fs.FailWith(func(op crashfs.Op) error {
		if op.Kind == "write" {
			return syscall.ENOSPC
		}
		return nil
	})
}

func (s *simulation) makeRoom(n *simNode) {
	if !n.full {
		return
	}
	s.logf("%d: room again", n.id)
	n.full = false
	n.fs.SetSpace(logstore.Space{Total: 1 << 30, Free: 1 << 29})
	n.fs.FailWith(nil)
}

// hear is what a controller does about a broker that wants its replicas looked at.
func (s *simulation) hear(n *simNode) {
	if n.asks.Swap(false) && n.up {
		delete(s.ctl.refused, n.id)
		s.reached["looked at again"]++
		s.settle()
		s.announce()
	}
}

// kill ends a process, if another member lives; what was written stays.
func (s *simulation) kill(n *simNode) {
	if !n.up {
		return
	}
	if s.rng.IntN(2) == 0 { // in the middle of what it does next
		n.fs.FailAt(1+s.rng.Int64N(3), true, syscall.EIO)
		s.produce()
		s.fetch(n)
	}
	n.fs.FailWith(nil)
	n.full = false
	s.logf("%d: killed", n.id)
	s.reached["kill"]++
	left := n.fs.Kill()
	n.close()
	n.fs = left
	delete(s.ctl.live, n.id)
}

// losePower is a kill that also loses what was not flushed. Without flushes before acknowledgements, only one broker that is not
// needed may do so at a time.
func (s *simulation) losePower(n *simNode) {
	for _, other := range s.nodes {
		if !other.up || other.unclean || len(s.ctl.isr) < 3 {
			return
		}
	}
	s.logf("%d: loses power", n.id)
	s.reached["loss of power"]++
	left := n.fs.Crash(s.rng)
	n.close()
	n.fs, n.unclean, n.full = left, true, false
	delete(s.ctl.live, n.id)
}

// blackout is the loss of power of everything at once.
func (s *simulation) blackout() {
	s.mu.Lock()
	s.life++
	for _, w := range s.writers {
		w.waiting = false
		if w.id == logstore.NoProducerID {
			w.pending = nil // its client does not send twice
		}
	}
	s.mu.Unlock()
	s.logf("all lose power")
	s.reached["loss of all power"]++
	for _, n := range s.nodes {
		left := n.fs.Crash(s.rng)
		if n.up {
			n.close()
		}
		n.fs, n.full = left, false
		delete(s.ctl.live, n.id)
	}
	s.settle()
	for _, i := range s.rng.Perm(3) {
		s.start(s.nodes[i])
	}
}

// start brings a broker back. One that lost power registers only once it is out of the ISR.
func (s *simulation) start(n *simNode) {
	if n.up {
		return
	}
	if n.unclean {
		s.settle()
		if slices.Contains(s.ctl.isr, n.id) {
			return
		}
	}
	s.logf("%d: starts", n.id)
	n.unclean = false
	n.open()
	s.settle()
	s.announce()
}

// step does one thing.
func (s *simulation) step(faults bool) {
	n := s.nodes[s.rng.IntN(3)]
	s.elapsed.Add(s.rng.Int64N(int64(5 * time.Millisecond)))
	if n.full && s.rng.IntN(20) == 0 {
		s.makeRoom(n)
	}
	s.hear(n)
	switch k := s.rng.IntN(100); {
	case k < 25:
		s.produce()
	case k < 62:
		s.fetch(n)
	case k < 70:
		s.arrive(n)
	case k < 78:
		s.deliver(n)
	case k < 84:
		s.alter(n)
	case k < 88:
		s.consume()
	case k < 92:
		s.check(time.Duration(s.rng.Int64N(int64(time.Second))))
	case k < 93:
		s.housekeep(n)
	case k < 94:
		s.settle()
	case !faults:
	case k < 97:
		s.prefer()
	case k < 98:
		if s.rng.IntN(3) == 0 {
			s.fault(n)
		}
	default:
		s.start(n)
		s.settle()
	}
}

func (s *simulation) fault(n *simNode) {
	switch k := s.rng.IntN(6); {
	case k > 3:
		s.fillDisk(n)
	case k == 0 && s.darkens:
		s.blackout()
	case k == 0:
		s.losePower(n)
	default:
		s.kill(n)
	}
}

// converge heals everything and waits until the replicas agree.
func (s *simulation) converge() {
	for range 300 {
		s.round()
		s.step(false)
	}
	for i := 0; i < 2000 && s.problem == "" && s.done() != ""; i++ {
		s.round()
		if i%10 == 0 {
			s.check(time.Second)
		}
		if s.flush {
			time.Sleep(50 * time.Microsecond) // flushes end when they end
		}
	}
	if why := s.done(); why != "" {
		s.failf("does not come to rest: %s", why)
		return
	}
	s.compare()
}

// round lets everything go on by one step.
func (s *simulation) round() {
	for _, n := range s.nodes {
		s.start(n)
		s.makeRoom(n)
		s.hear(n)
	}
	s.settle()
	for _, n := range s.nodes {
		n.learn()
		s.deliver(n)
		s.arrive(n)
		s.fetch(n)
		s.alter(n)
	}
}

// housekeep is what a broker does now and then: checkpoints, retention; and a client that deletes records.
func (s *simulation) housekeep(n *simNode) {
	p := n.partition()
	if p == nil || p.Log() == nil {
		return
	}
	switch s.rng.IntN(4) {
	case 0:
		_ = n.logs.CheckpointHighWatermarks()
	case 1:
		_ = n.logs.CheckpointLogStarts()
	case 2:
		n.logs.RetentionPass(s.now())
		n.logs.DeletePass(s.now().Add(time.Hour))
		s.deleted = max(s.deleted, p.Log().LogStartOffset())
	default:
		if s.rng.IntN(3) > 0 || n.role() != replication.Leader {
			return
		}
		upTo := p.Log().LogStartOffset() + s.rng.Int64N(1+p.Log().HighWatermark()-p.Log().LogStartOffset())
		s.logf("%d: delete records below %d", n.id, upTo)
		s.reached["records deleted"]++
		s.deleted = max(s.deleted, upTo)
		p.DeleteRecords(upTo, time.Hour, func(int64, error) {})
	}
	n.set.tasks.Wait()
}

// check lets time pass.
func (s *simulation) check(d time.Duration) {
	s.elapsed.Add(int64(d))
	for _, n := range s.nodes {
		if n.up {
			n.set.CheckISR(s.now())
			n.set.tasks.Wait()
		}
	}
}

// arrive lets the oldest answer that is held back arrive.
func (s *simulation) arrive(n *simNode) {
	if len(n.answers) == 0 {
		return
	}
	late := n.answers[0]
	n.answers = n.answers[1:]
	late()
}

// done says what is missing.
func (s *simulation) done() string {
	if len(s.ctl.isr) < 3 || s.ctl.leader == -1 {
		return fmt.Sprintf("leader %d, isr %v", s.ctl.leader, s.ctl.isr)
	}
	end := int64(-1)
	for _, n := range s.nodes {
		p := n.partition()
		if p == nil || p.Log() == nil {
			return fmt.Sprintf("broker %d has no log", n.id)
		}
		st := p.Snapshot()
		if end < 0 {
			end = st.LogEndOffset
		}
		if st.LogEndOffset != end || st.HighWatermark != end || int32(st.LeaderEpoch) != s.ctl.epoch {
			return fmt.Sprintf("broker %d: %+v", n.id, st)
		}
	}
	return ""
}

// compare is the verdict.
func (s *simulation) compare() {
	final := s.node(s.ctl.leader).all()
	epochs := s.node(s.ctl.leader).epochs()
	for _, n := range s.nodes {
		start := max(n.partition().Log().LogStartOffset(), s.node(s.ctl.leader).partition().Log().LogStartOffset())
		if mine := n.all(); !maps.Equal(from(start, mine), from(start, final)) {
			s.failf("diverged: broker %d holds %d records, the leader %d", n.id, len(mine), len(final))
		}
		mine := n.epochs()
		for _, known := range [][]logstore.EpochEntry{mine, epochs} {
			if len(known) > 0 {
				start = max(start, known[0].StartOffset) // a log start may be forgotten that the history was cut to
			}
		}
		later := func(e []logstore.EpochEntry) []logstore.EpochEntry {
			return slices.DeleteFunc(slices.Clone(e), func(e logstore.EpochEntry) bool { return e.StartOffset <= start })
		}
		if !slices.Equal(later(mine), later(epochs)) {
			s.failf("diverged: broker %d has the epochs %v, the leader %v", n.id, mine, epochs)
		}
	}
	s.mu.Lock() // an answer may still come from a flush
	records := maps.Clone(s.records)
	for id, rec := range records {
		was := *rec
		records[id] = &was
	}
	s.mu.Unlock()
	at := map[uint64]int64{}
	last := map[int]uint64{}
	for _, offset := range slices.Sorted(maps.Keys(final)) {
		id := final[offset]
		rec := records[id]
		if before, twice := at[id]; twice {
			s.failf("duplicated: record %d at %d and %d", id, before, offset)
		}
		at[id] = offset
		switch {
		case rec == nil:
			s.failf("phantom: record %d at %d was never sent", id, offset)
		case rec.outcome == "failed":
			s.failf("phantom: record %d at %d was refused", id, offset)
		case rec.writer >= 0 && id < last[rec.writer]:
			s.failf("reordered: record %d of writer %d after %d", id, rec.writer, last[rec.writer])
		default:
			last[rec.writer] = id
		}
	}
	for id, rec := range records {
		if rec.outcome == "acked" && rec.offset >= s.deleted && final[rec.offset] != id {
			s.failf("lost: record %d was acknowledged at %d; there is %d", id, rec.offset, final[rec.offset])
		}
	}
	for offset, id := range s.read {
		if offset >= s.deleted && final[offset] != id {
			s.failf("lost: record %d was read at %d; there is %d", id, offset, final[offset])
		}
	}
}

func from(start int64, records map[int64]uint64) map[int64]uint64 {
	out := maps.Clone(records)
	maps.DeleteFunc(out, func(offset int64, _ uint64) bool { return offset < start })
	return out
}

// epochs are those that have records.
func (n *simNode) epochs() []logstore.EpochEntry {
	log := n.partition().Log()
	return slices.DeleteFunc(slices.Clone(log.EpochEntries()), func(e logstore.EpochEntry) bool { return e.StartOffset >= log.LogEndOffset() })
}

func (n *simNode) all() map[int64]uint64 {
	log := n.partition().Log()
	out := map[int64]uint64{}
	for at := log.LogStartOffset(); at < log.LogEndOffset(); {
		slice, err := log.Read(at, 1<<20, log.LogEndOffset(), true)
		if err != nil || slice.Empty() {
			n.s.failf("broker %d: read at %d: %v", n.id, at, err)
			return out
		}
		for offset, id := range idsIn(slice) {
			out[offset] = id
			at = max(at, offset+1)
		}
	}
	return out
}

func (s *simulation) run(steps int) {
	for range steps {
		if s.problem != "" {
			break
		}
		s.step(true)
	}
	if s.problem == "" {
		s.converge()
	}
	for _, n := range s.nodes {
		if n.up {
			n.close()
		}
	}
}

// simulate runs seeds and returns what was reached in sum.
func simulate(t *testing.T, flush bool) map[string]int {
	t.Helper()
	first, runs := int64(1), *simRuns
	if *simSeed != 0 {
		first, runs = *simSeed, 1
	}
	reached := map[string]int{}
	for seed := first; seed < first+int64(runs); seed++ {
		s := newSimulation(seed, flush)
		s.run(1200)
		for what, n := range s.reached {
			reached[what] += n
		}
		reached["acknowledged"] += s.acked
		if s.problem != "" {
			if *simTrace {
				t.Log(strings.Join(s.trace, "\n"))
			}
			t.Fatalf("seed %d: %s", seed, s.problem)
		}
	}
	t.Logf("%d runs: %v", runs, reached)
	return reached
}

// TestRealPartitionsKeepTheirPromises: kills at any moment, one loss of power at a time, leaders that move, answers that come late.
func TestRealPartitionsKeepTheirPromises(t *testing.T) {
	reached := simulate(t, false)
	for _, want := range []string{"kill", "loss of power", "demotion", "demotion with the new leader unknown", "diverging fetch", "ISR changed by its leader"} {
		if reached[want] == 0 && *simSeed == 0 {
			t.Errorf("no run reached: %s", want)
		}
	}
}

// TestS13WholeClusterLosesPower: with flush.messages=1 nothing that was acknowledged is lost, though every broker loses everything
// that was not flushed, at the same moment, again and again.
func TestS13WholeClusterLosesPower(t *testing.T) {
	if reached := simulate(t, true); reached["loss of all power"] == 0 && *simSeed == 0 {
		t.Error("no run lost all power")
	}
}

// TestWithoutFlushesLosingAllPowerLosesRecords shows that the checks can see what S13 does not find: the same losses of power, but
// acknowledged from the page cache, as Kafka does by default.
func TestWithoutFlushesLosingAllPowerLosesRecords(t *testing.T) {
	lossy, runs := 0, 40
	for seed := range int64(runs) {
		s := newSimulation(seed+1, false)
		s.darkens = true
		s.run(1200)
		if s.problem != "" {
			lossy++
		}
	}
	t.Logf("%d of %d runs lost acknowledged records, or stopped rather than cut them", lossy, runs)
	if lossy == 0 {
		t.Error("nothing was lost: the checks see nothing, or power is not really lost")
	}
}
