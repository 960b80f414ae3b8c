package sim

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/broker/replication"
	"ottla/internal/cluster"
)

var (
	errFencedLeader   error = kerr.FencedLeaderEpoch
	errInvalidVersion error = kerr.InvalidUpdateVersion
	errIneligible     error = kerr.IneligibleReplica
	errStorage        error = kerr.KafkaStorageError
)

type alterAnswer struct {
	again bool
	err   error
	state *stateNode
}

// node is a broker: a process that comes and goes, and disks that stay.
type node struct {
	w     *world
	index int
	id    cluster.BrokerID
	disks []*disk

	// The process.
	life     int // counts starts; events of an earlier life are void
	up       bool
	paused   bool
	backlog  []func() // what arrived while paused
	unclean  bool     // power was lost since the last clean start
	clock    float64  // rate of the monotonic clock
	replicas []*replica

	session     *zkSession
	connected   bool // as the process believes
	lastAnswer  replication.Instant
	brokerEpoch cluster.BrokerEpoch
	metadata    decisionRequest
	seenEpoch   int // highest controller epoch
	controller  *controller
	alterQueue  []alteration
	alterBusy   bool
	registering bool
}

// replica is one partition of a process.
type replica struct {
	state     *replication.State
	waits     []wait
	fetchGen  int // a new one for each role, so that old loops end
	parkedCut bool
	checked   int64 // high watermark that was compared with the truth
}

// wait is an acks=all append that waits.
type wait struct {
	replication.Wait
	id uint64
}

func newNode(w *world, id cluster.BrokerID) *node {
	n := &node{w: w, index: int(id), id: id, clock: 1}
	if w.chance(50) {
		n.clock = 0.98 + 0.04*w.rng.Float64()
	}
	for range w.cfg.Partitions {
		n.disks = append(n.disks, &disk{})
	}
	return n
}

// guard makes an event void after the process has ended, and holds it back while the process is stopped.
func (n *node) guard(fn func()) func() {
	life := n.life
	return func() {
		switch {
		case n.life != life || !n.up:
		case n.paused:
			n.backlog = append(n.backlog, fn)
		default:
			fn()
		}
	}
}

func (n *node) guard2(fn func(any, bool)) func(any, bool) {
	life := n.life
	return func(v any, ok bool) {
		switch {
		case n.life != life || !n.up:
		case n.paused:
			n.backlog = append(n.backlog, func() { fn(v, ok) })
		default:
			fn(v, ok)
		}
	}
}

// serve is guard for the receiving end of a request: a process that is down answers nothing.
func (n *node) serve(fn func(reply func(any))) func(reply func(any)) {
	return func(reply func(any)) {
		switch {
		case !n.up:
		case n.paused:
			n.backlog = append(n.backlog, func() { fn(reply) })
		default:
			fn(reply)
		}
	}
}

func (n *node) every(d replication.Instant, fn func()) {
	n.w.after(d/2+n.w.dur(d), n.guard(func() {
		fn()
		n.every(d, fn)
	}))
}

func (n *node) env() replication.Env {
	return replication.Env{
		Now: n.time(), LagMax: lagMax, MinISR: n.w.cfg.MinISR,
		Alive: func(id cluster.BrokerID) bool { return n.metadata.live[id] },
	}
}

// time is the process's monotonic clock.
func (n *node) time() replication.Instant {
	return replication.Instant(float64(n.w.now)*n.clock) + replication.Instant(n.life)*1000*second
}

// boot starts the process.
func (n *node) boot() {
	n.life++
	n.up, n.paused = true, false
	n.backlog = nil
	n.session, n.connected, n.brokerEpoch = nil, false, 0
	n.controller = nil
	n.metadata = decisionRequest{}
	n.seenEpoch = -1
	n.alterQueue, n.alterBusy, n.registering = nil, false, false
	n.replicas = nil
	for p := range n.disks {
		d := n.disks[p]
		d.mustReach = max(d.mustReach, d.checkpoint)
		n.replicas = append(n.replicas, &replica{state: replication.NewState(n.id, 0, d.end(), d.checkpoint)})
		n.fetchLoop(p, n.replicas[p].fetchGen)
	}
	n.connect()
	n.every(second, n.ping)
	n.every(300*ms, n.checkISR)
	n.every(2*second, n.checkpoint)
	n.every(1500*ms, n.flush)
	n.every(2*second, n.zkChanged)
}

func (n *node) die() {
	n.up = false
	n.life++
	for _, r := range n.replicas {
		r.waits = nil
	}
	n.controller = nil
}

// connect opens a session once ZooKeeper is reached, and registers.
func (n *node) connect() {
	w := n.w
	var opened *zkSession
	w.call(n.index, zkIndex, second, func(reply func(any)) {
		opened = w.zk.open(n)
		reply(opened)
	}, n.guard2(func(v any, ok bool) {
		if !ok {
			w.after(200*ms, n.guard(n.connect))
			return
		}
		n.session = v.(*zkSession)
		n.connected, n.lastAnswer = true, w.now
		n.register()
	}))
}

// register announces the broker. After a loss of power it first waits until it is out of every ISR in which others are
// (rule A of an unseen bounce): the controller must not take what it finds here for what it was.
func (n *node) register() {
	if n.session == nil {
		return
	}
	s := n.session
	again := n.guard(func() {
		if n.session == s {
			n.register()
		}
	})
	n.w.zk.call(n, s, func() (any, error) {
		if n.unclean {
			for p := range n.w.zk.states {
				isr := n.w.zk.states[p].isr
				if len(isr) > 1 && slices.Contains(isr, n.id) {
					n.w.reached("registration held back after an unclean stop")
					return nil, errNodeExists
				}
			}
		}
		return n.w.zk.register(s)
	}, func(v any, err error) {
		switch {
		case n.session != s:
		case err == errSessionLost:
			n.sessionLost()
		case err != nil:
			n.w.after(300*ms, again)
		default:
			n.brokerEpoch = v.(cluster.BrokerEpoch)
			n.unclean = false
			n.zkChanged()
		}
	})
}

// ping keeps the session alive, and learns late that it is not.
func (n *node) ping() {
	if n.session == nil {
		return
	}
	s := n.session
	n.w.zk.call(n, s, func() (any, error) { return nil, nil }, func(_ any, err error) {
		if n.session == s && err == errSessionLost {
			n.sessionLost()
		}
	})
}

// sessionLost stops what belonged to the session before a new one is opened.
func (n *node) sessionLost() {
	n.w.reached("session lost")
	n.w.logf("%v: session lost", n.id)
	if n.controller != nil {
		n.controller.resign()
	}
	for p, r := range n.replicas {
		if r.state.StandDown() {
			n.abandon(p)
		}
	}
	n.session = nil
	n.connect()
}

// zkChanged looks who is controller, stands for it, or tells the own controller that brokers changed.
func (n *node) zkChanged() {
	if n.session == nil || n.brokerEpoch == 0 {
		return
	}
	s := n.session
	if c := n.controller; c != nil {
		c.do(c.brokersChanged)
		return
	}
	n.w.zk.call(n, s, func() (any, error) {
		if n.w.zk.active == s {
			return n.w.zk.epoch, nil // elected, though the answer was lost
		}
		return n.w.zk.elect(s)
	}, func(v any, err error) {
		if err == nil && n.session == s && n.controller == nil {
			n.controller = newController(n, s, v.(int))
		}
	})
}

// abandon ends the waits of a leadership, or forgets to in some runs: the rules have to recognise a wait of the past by themselves.
func (n *node) abandon(p int) {
	if n.w.keepsWaits {
		n.w.reached("wait kept over the end of a leadership")
		return
	}
	n.replicas[p].waits = nil
}

// decide carries out the controller's decisions as partition.Set does.
func (n *node) decide(req decisionRequest) []error {
	if req.brokerEpoch < n.brokerEpoch || req.controllerEpoch < n.seenEpoch {
		n.w.reached("stale controller request")
		return nil
	}
	n.seenEpoch = req.controllerEpoch
	n.metadata = req
	errs := make([]error, len(req.states))
	for p, s := range req.states {
		if slices.Contains(s.replicas, n.id) {
			errs[p] = n.decidePartition(p, s)
		}
	}
	return errs
}

func (n *node) decidePartition(p int, s *stateNode) error {
	r, d := n.replicas[p], n.disks[p]
	c := replication.Change{
		ControllerEpoch: cluster.ControllerEpoch(s.controllerEpoch), Leader: s.leader, LeaderEpoch: s.epoch,
		PartitionEpoch: s.version, ISR: s.isr, Replicas: s.replicas,
	}
	if s.recovering {
		c.Recovery = cluster.Recovering
	}
	skip, err := r.state.Admit(c)
	if err != nil || skip {
		return err
	}
	if s.leader != n.id {
		if r.state.Role() == replication.Leader {
			n.w.reached("demotion")
			if s.leader == cluster.NoBroker || !n.metadata.live[s.leader] {
				n.w.reached("demotion with the new leader unknown")
			}
		}
		r.state.BecomeFollower(c)
		r.parkedCut = false
		n.abandon(p)
		r.fetchGen++
		n.fetchLoop(p, r.fetchGen)
		return nil
	}
	if d.end() < d.mustReach {
		n.w.reached("refused to lead with a shortened log")
		if r.state.StandDown() {
			n.abandon(p)
		}
		return errStorage
	}
	n.lead(p, c)
	return nil
}

func (n *node) lead(p int, c replication.Change) {
	r, d := n.replicas[p], n.disks[p]
	if err := d.assign(c.LeaderEpoch, d.end()); err != nil {
		n.w.fail("%v", err)
	}
	t := n.w.truth[p]
	if who, ok := t.leaders[c.LeaderEpoch]; ok && who != n.id {
		n.w.fail("I1: partition %d epoch %d: led by %v and %v", p, c.LeaderEpoch, who, n.id)
	}
	t.leaders[c.LeaderEpoch] = n.id
	if n.newest(p, c.LeaderEpoch) {
		if err := t.holds(d); err != nil {
			n.w.fail("I2: partition %d: new leader %v of epoch %d: %v", p, n.id, c.LeaderEpoch, err)
		}
	}
	n.w.reached("became leader")
	n.w.logf("%v: partition %d: leads epoch %d from %d, isr %v", n.id, p, c.LeaderEpoch, d.end(), c.ISR)
	if r.state.Role() == replication.Leader {
		n.w.reached("leader again without having followed")
	}
	if len(c.ISR) == 1 {
		d.synced = d.end() // the only electable copy is flushed
	}
	r.parkedCut = false
	r.fetchGen++
	n.moved(p, r.state.BecomeLeader(c, d.end(), d.end(), n.env()))
}

// newest reports whether epoch is the one in ZooKeeper: a leader of the past may well lack what its successor committed.
func (n *node) newest(p int, epoch cluster.LeaderEpoch) bool { return n.w.zk.states[p].epoch == epoch }

// moved carries out what the rules returned.
func (n *node) moved(p int, m replication.Moved) {
	r, d := n.replicas[p], n.disks[p]
	if m.HighWatermark {
		if err := n.w.truth[p].agree(d, r.state.HighWatermark(), true); err != nil {
			n.w.fail("I6/I10: partition %d: leader %v of epoch %d: %v", p, n.id, r.state.LeaderEpoch(), err)
		}
		n.complete(p)
	}
	if m.Propose != nil {
		if m.Propose.LastMember {
			d.synced = d.end()
		}
		n.alterQueue = append(n.alterQueue, alteration{from: n.id, p: p, Proposal: *m.Propose})
		n.alter()
	}
}

// complete answers the acks=all appends that are over.
func (n *node) complete(p int) {
	r := n.replicas[p]
	kept := r.waits[:0]
	for _, wt := range r.waits {
		over, err := r.state.Acknowledged(wt.Wait, n.env())
		if !over {
			kept = append(kept, wt)
			continue
		}
		if err == nil {
			n.acknowledge(p, wt)
		}
	}
	r.waits = kept
}

func (n *node) acknowledge(p int, wt wait) {
	n.w.acked++
	t := n.w.truth[p]
	if int64(len(t.committed)) < wt.End || t.committed[wt.End-1].id != wt.id || t.committed[wt.End-1].epoch != wt.Epoch {
		n.w.fail("I7: partition %d: acknowledged record %d of epoch %d at %d is not committed", p, wt.id, wt.Epoch, wt.End-1)
	}
	copies := 0
	for _, b := range n.w.brokers {
		// A broker that has just lost power had it when it said so; without flushes one such loss at a time is allowed.
		if d := b.disks[p]; b.unclean || d.end() >= wt.End && d.records[wt.End-1].id == wt.id {
			copies++
		}
	}
	if copies < min(n.w.cfg.MinISR, n.w.cfg.Replicas) {
		n.w.fail("I7: partition %d: acknowledged record %d has %d copies", p, wt.id, copies)
	}
}

// append is a client's produce.
func (n *node) append(p int, all bool) {
	r, d := n.replicas[p], n.disks[p]
	if r.state.Role() != replication.Leader || all && r.state.MayAppendAll(n.env()) != nil {
		return
	}
	n.w.nextID++
	rec := record{id: n.w.nextID, epoch: r.state.LeaderEpoch()}
	if err := d.append(rec); err != nil {
		n.w.fail("%v", err)
	}
	n.moved(p, r.state.SetEnds(d.end(), d.end(), n.env()))
	if !all {
		return
	}
	wt := wait{Wait: replication.Wait{End: d.end(), Epoch: rec.epoch}, id: rec.id}
	over, err := r.state.Acknowledged(wt.Wait, n.env())
	switch {
	case !over:
		r.waits = append(r.waits, wt)
	case err == nil:
		n.acknowledge(p, wt)
	}
}

func (n *node) checkISR() {
	for p, r := range n.replicas {
		if r.state.Role() != replication.Leader {
			continue
		}
		m, _ := r.state.Check(n.env())
		n.moved(p, m)
		if r.state.Unsettled(n.time()) {
			n.readState(p)
		}
	}
}

// readState settles a change that the controller left open.
func (n *node) readState(p int) {
	if n.session == nil {
		return
	}
	n.w.zk.call(n, n.session, func() (any, error) { return n.w.zk.states[p].clone(), nil }, func(v any, err error) {
		if err != nil {
			return
		}
		s := v.(*stateNode)
		outcome, m := n.replicas[p].state.Adopt(s.leader, replication.Answer{
			LeaderEpoch: s.epoch, ISR: s.isr, PartitionEpoch: s.version,
		}, n.env())
		if outcome == replication.Committed {
			n.w.reached("open ISR change settled by the znode")
		}
		if outcome != replication.Ignored {
			n.moved(p, m)
			n.complete(p)
		}
	})
}

// alter sends one ISR change at a time to whom the metadata calls controller.
func (n *node) alter() {
	if n.alterBusy || len(n.alterQueue) == 0 {
		return
	}
	n.alterBusy = true
	a := n.alterQueue[0]
	a.brokerEpoch = n.brokerEpoch
	to := n.w.brokers[n.metadata.controller]
	n.w.call(n.index, to.index, 2*second, to.serve(func(reply func(any)) {
		if to.controller == nil {
			reply(alterAnswer{again: true})
			return
		}
		to.controller.alterPartition(a, reply)
	}), n.guard2(func(v any, ok bool) {
		n.alterBusy = false
		answer, _ := v.(alterAnswer)
		if !ok || answer.again {
			if !ok {
				n.alterQueue[0].retried = true
				n.w.reached("AlterPartition whose answer was lost")
			}
			n.w.after(50*ms, n.guard(n.alter))
			return
		}
		n.alterQueue = n.alterQueue[1:]
		n.altered(a, answer)
		n.alter()
	}))
}

func (n *node) altered(a alteration, answer alterAnswer) {
	r := n.replicas[a.p]
	outcome, m := r.state.Answered(a.Proposal, replication.Answer{
		Err: answer.err, LeaderEpoch: answer.state.epoch, ISR: answer.state.isr, PartitionEpoch: answer.state.version,
		Retried: a.retried,
	}, n.env())
	switch outcome {
	case replication.Ignored:
		n.w.reached("answer for a change of the past")
		return
	case replication.Unsettled:
		n.w.reached("ISR change left open")
	case replication.RolledBack:
		n.w.reached("ISR change refused")
	}
	n.moved(a.p, m)
	n.complete(a.p)
}

func (n *node) checkpoint() {
	for p, r := range n.replicas {
		n.disks[p].checkpoint = r.state.HighWatermark()
	}
}

func (n *node) flush() {
	for _, d := range n.disks {
		d.synced = d.end()
	}
}

// fetchRequest and fetchAnswer are one partition's fetch.
type fetchRequest struct {
	replication.Fetch
	lastEpoch cluster.LeaderEpoch
}

type fetchAnswer struct {
	err       error
	diverging *replication.EpochEnd
	records   []record
	highMark  int64
	end       int64
}

// fetchLoop replicates one partition while this role lasts.
func (n *node) fetchLoop(p, gen int) {
	again := func(d replication.Instant) { n.w.after(d, n.guard(func() { n.fetchLoop(p, gen) })) }
	r, d := n.replicas[p], n.disks[p]
	if r.fetchGen != gen || r.state.Role() != replication.Follower || r.parkedCut {
		return
	}
	leader := r.state.Leader()
	if leader == cluster.NoBroker {
		return
	}
	req := fetchRequest{Fetch: replication.Fetch{
		Replica: n.id, Incarnation: n.brokerEpoch, Epoch: r.state.LeaderEpoch(), Offset: d.end(),
	}, lastEpoch: d.lastEpoch()}
	to := n.w.brokers[leader]
	n.w.call(n.index, to.index, second, to.serve(func(reply func(any)) { reply(to.serveFetch(p, req)) }),
		n.guard2(func(v any, ok bool) {
			if !ok {
				again(100 * ms)
				return
			}
			answer := v.(fetchAnswer)
			n.fetched(p, req, answer)
			switch {
			case answer.err != nil:
				again(30 * ms)
			case len(answer.records) > 0 || answer.diverging != nil:
				again(0)
			default:
				again(20*ms + n.w.dur(60*ms))
			}
		}))
}

// serveFetch is the leader's side, as partition.Read.
func (n *node) serveFetch(p int, req fetchRequest) fetchAnswer {
	r, d := n.replicas[p], n.disks[p]
	if err := r.state.CheckFetch(req.Fetch); err != nil {
		n.w.reached("fetch refused")
		return fetchAnswer{err: err}
	}
	diverging, err := replication.Divergence(d, req.Offset, req.lastEpoch)
	if err == nil && diverging == nil && req.Offset > d.end() {
		err = kerr.OffsetOutOfRange
	}
	if err != nil {
		return fetchAnswer{err: err, end: d.end()}
	}
	if diverging != nil {
		n.w.reached("diverging fetch")
		return fetchAnswer{diverging: diverging}
	}
	m, err := r.state.RecordFetch(req.Fetch, n.env())
	if err != nil {
		return fetchAnswer{err: err}
	}
	n.moved(p, m)
	upTo := min(d.end(), req.Offset+1+n.w.rng.Int63n(20))
	return fetchAnswer{records: slices.Clone(d.records[req.Offset:upTo]), highMark: r.state.HighWatermark()}
}

// fetched is the follower's side, as partition.Apply and TruncateTo.
func (n *node) fetched(p int, req fetchRequest, a fetchAnswer) {
	r, d := n.replicas[p], n.disks[p]
	if r.state.MayAppendFetched(req.Epoch, req.Offset) != nil {
		n.w.reached("answer of a past epoch")
		return
	}
	switch {
	case a.err == kerr.OffsetOutOfRange:
		n.w.reached("out of range")
		action, cut := replication.OutOfRange(d.end(), r.state.HighWatermark(), 0, a.end)
		if action == replication.TruncateTail {
			n.cut(p, cut)
		}
	case a.err != nil:
	case a.diverging != nil:
		cut := replication.TruncateOnDivergence(d, d.end(), r.state.HighWatermark(), *a.diverging)
		if cut.Again {
			n.w.reached("divergence over several epochs")
		}
		n.cut(p, cut)
	default:
		for _, rec := range a.records {
			if rec.epoch > req.Epoch {
				n.w.reached("records of a newer epoch refused")
				return
			}
			if err := d.append(rec); err != nil {
				n.w.fail("%v", err)
			}
		}
		r.state.SetEnds(d.end(), d.end(), n.env())
		r.state.FollowHighWatermark(a.highMark)
		if d.end() >= d.mustReach {
			d.mustReach = 0
		}
	}
}

func (n *node) cut(p int, cut replication.Cut) {
	r, d := n.replicas[p], n.disks[p]
	t := n.w.truth[p]
	if cut.Committed && !r.state.ExplainsCommittedCut() {
		n.w.reached("cut of committed records refused")
		n.w.logf("%v: partition %d: refuses to cut to %d, high watermark %d, log end %d, epochs %v, leader %v", n.id, p, cut.Offset, r.state.HighWatermark(), d.end(), d.epochs, n.w.brokers[r.state.Leader()].disks[p].epochs)
		r.parkedCut = true
		return
	}
	// I10. Outside the ISR, on the word of a leader that has been replaced meanwhile, a replica may cut what a later leader has
	// committed without it: it will fetch it again. I3 sees to the members.
	for i := cut.Offset; i < min(d.end(), int64(len(t.committed))) && n.newest(p, r.state.LeaderEpoch()); i++ {
		if d.records[i] == t.committed[i] {
			n.w.fail("I10: partition %d: %v cuts committed offset %d (to %d, log end %d)", p, n.id, i, cut.Offset, d.end())
		}
	}
	n.w.reached("truncation")
	n.w.logf("%v: partition %d: cuts to %d of %d by epoch %d of %v, epochs %v, the leader's %v end %d", n.id, p, cut.Offset, d.end(),
		r.state.LeaderEpoch(), r.state.Leader(), d.epochs, n.w.brokers[r.state.Leader()].disks[p].epochs, n.w.brokers[r.state.Leader()].disks[p].end())
	n.w.aimFault()
	d.truncate(cut.Offset)
	r.state.Truncated(d.end())
	if cut.Committed {
		d.mustReach = 0
	}
}
