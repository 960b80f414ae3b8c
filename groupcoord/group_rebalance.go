package groupcoord

import (
	"encoding/binary"

	"github.com/twmb/franz-go/pkg/kerr"
)

// maybePrepare begins a rebalance unless one is being prepared.
func (g *group) maybePrepare(d *decision, why string) {
	switch g.state {
	case Empty, CompletingRebalance, Stable:
		g.prepare(d, why)
	}
}

// prepare begins a rebalance: everybody is to join. Source: KIP-134 for the initial delay.
func (g *group) prepare(d *decision, why string) {
	if g.state == CompletingRebalance {
		g.dropAssignments(d, kerr.RebalanceInProgress)
	}
	clear(g.syncing)
	d.rebalances++
	d.note("rebalance: "+why, "")
	timeout := g.rebalanceTimeout()
	r := rebalance{deadline: d.now.Add(timeout)}
	if g.state == Empty {
		r.initial = true
		r.delay = g.limits.InitialDelay
		r.remaining = max(timeout-r.delay, 0)
		r.deadline = d.now.Add(r.delay)
	}
	g.rebalance = r
	g.enter(d, PreparingRebalance)
	if r.initial && r.delay <= 0 {
		g.waited(d)
		return
	}
	g.checkJoined(d)
}

// checkJoined ends the wait as soon as nobody is missing; the initial wait lasts its time.
func (g *group) checkJoined(d *decision) {
	if g.state == PreparingRebalance && !g.rebalance.initial && g.allJoined() {
		g.complete(d)
	}
}

// waited is called when the wait is over.
func (g *group) waited(d *decision) {
	r := &g.rebalance
	if r.initial && r.newcomers && r.remaining > 0 {
		r.newcomers = false
		delay := min(g.limits.InitialDelay, r.remaining)
		r.remaining = max(r.remaining-r.delay, 0)
		r.delay = delay
		r.deadline = d.now.Add(delay)
		return
	}
	g.complete(d)
}

// complete begins the next generation with those who are there. Static members that are missing stay until their session
// expires; dynamic ones are out.
func (g *group) complete(d *decision) {
	for _, m := range append([]*member(nil), g.order...) {
		if m.join == nil && m.instance == nil {
			d.note("member did not join in time", m.id)
			g.remove(m.id)
		}
	}
	if len(g.order) > 0 && !g.electLeader() {
		// Only static members are known, and none has come: wait on until their sessions expire.
		g.rebalance = rebalance{deadline: d.now.Add(g.rebalanceTimeout())}
		return
	}
	g.rebalance = rebalance{}
	g.generation++
	clear(g.syncing)
	if len(g.order) == 0 {
		g.protocol = ""
		g.subscribed = g.subscriptions()
		g.enter(d, Empty)
		g.write(d, groupWrite{kind: writeEmpty, generation: g.generation}, nil)
		return
	}
	g.protocol = g.choose()
	g.subscribed = g.subscriptions()
	g.enter(d, CompletingRebalance)
	g.syncBy = d.now.Add(g.rebalanceTimeout())
	for _, m := range g.order {
		d.answerJoin(m, g.joinResult(m))
		m.heard(d.now)
		m.isNew = false
		g.syncing[m.id] = true
	}
}

// electLeader keeps the leader if it has joined, else takes the first that has. It reports whether anybody has.
func (g *group) electLeader() bool {
	if m := g.members[g.leader]; m != nil && m.join != nil {
		return true
	}
	for _, m := range g.order {
		if m.join != nil {
			g.leader = m.id
			return true
		}
	}
	return false
}

// dropAssignments forgets the assignments and tells those who wait for theirs why.
func (g *group) dropAssignments(d *decision, err error) {
	for _, m := range g.order {
		m.assignment = nil
		if d.answerSync(m, syncFailed(err)) {
			m.heard(d.now)
		}
	}
}

// Sync is a SyncGroup request. Its bytes are the group's from here on.
type Sync struct {
	Group        string
	MemberID     string
	Instance     *string
	Generation   int32
	ProtocolType *string // version 5 and later (KIP-559)
	Protocol     *string
	Assignments  map[string][]byte // from the leader, by member id
}

// sync takes a SyncGroup: the leader's assignment is written, the others wait for it.
func (g *group) sync(d *decision, r *Sync, reply SyncReply) {
	answer := func(s SyncResult) { d.syncs = append(d.syncs, syncAnswer{reply, s}) }
	if err := g.checkSync(r); err != nil {
		answer(syncFailed(err))
		return
	}
	m := g.members[r.MemberID]
	switch g.state {
	case PreparingRebalance:
		answer(syncFailed(kerr.RebalanceInProgress))
	case CompletingRebalance:
		d.answerSync(m, syncFailed(kerr.RebalanceInProgress)) // of a connection that its client has given up
		m.sync = reply
		delete(g.syncing, m.id)
		if m.id == g.leader {
			g.assign(d, r.Assignments)
		}
	case Stable:
		delete(g.syncing, m.id)
		answer(g.syncResult(m))
		m.heard(d.now)
	default:
		answer(syncFailed(kerr.UnknownMemberID))
	}
}

func (g *group) checkSync(r *Sync) error {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable
	}
	if err := g.checkGeneration(r.MemberID, r.Instance, r.Generation); err != nil {
		return err
	}
	if r.ProtocolType != nil && *r.ProtocolType != g.protocolType || r.Protocol != nil && *r.Protocol != g.protocol {
		return kerr.InconsistentGroupProtocol
	}
	return nil
}

// assign writes the leader's assignment. Members that it forgot get an empty one.
func (g *group) assign(d *decision, given map[string][]byte) {
	assignment := make(map[string][]byte, len(g.order))
	for _, m := range g.order {
		assignment[m.id] = given[m.id]
	}
	g.write(d, groupWrite{kind: writeAssignment, generation: g.generation, assignment: assignment}, assignment)
}

// assigned follows the write of an assignment.
func (g *group) assigned(d *decision, w *groupWrite, err error) {
	if g.state != CompletingRebalance || g.generation != w.generation {
		return // somebody joined or left meanwhile
	}
	if err != nil {
		g.dropAssignments(d, err)
		g.maybePrepare(d, "the assignment could not be stored")
		return
	}
	for _, m := range g.order {
		m.assignment = w.assignment[m.id]
	}
	g.enter(d, Stable)
	d.completed++
	for _, m := range g.order {
		if d.answerSync(m, g.syncResult(m)) {
			m.heard(d.now)
		}
	}
}

func (g *group) syncResult(m *member) SyncResult {
	return SyncResult{ProtocolType: g.protocolType, Protocol: g.protocol, Assignment: m.assignment}
}

// write puts the group's record into the decision; assignment replaces what the members have, when not nil.
func (g *group) write(d *decision, w groupWrite, assignment map[string][]byte) {
	w.value = g.record(assignment)
	d.writes = append(d.writes, w)
}

// stored is told how a write of the group's record went.
func (g *group) stored(d *decision, w *groupWrite, err error) {
	err = groupWriteVerdict(err)
	if g.state == Dead {
		return
	}
	switch w.kind {
	case writeAssignment:
		g.assigned(d, w, err)
	case writeStatic:
		g.staticStored(d, w, err)
	case writeEmpty:
		if err != nil { // safe: should the older generation come back, its members' sessions expire
			d.note("the record of an empty group could not be written: "+err.Error(), "")
		}
	}
}

// subscriptions are the topics that the members subscribe to; nil when that cannot be known: another protocol type, or
// metadata that nobody can read.
func (g *group) subscriptions() map[string]bool {
	if g.protocolType != consumerProtocol {
		return nil
	}
	topics := map[string]bool{}
	for _, m := range g.order {
		names, ok := subscription(m.metadata(g.protocol))
		if !ok {
			return nil
		}
		for _, t := range names {
			topics[t] = true
		}
	}
	return topics
}

// subscription reads the topics of a consumer's metadata: int16 version, then the array of names. Later versions add fields
// behind; nobody else's business here.
func subscription(metadata []byte) ([]string, bool) {
	if len(metadata) < 6 {
		return nil, false
	}
	n := int32(binary.BigEndian.Uint32(metadata[2:]))
	rest := metadata[6:]
	if n < 0 || int(n) > len(rest)/2 {
		return nil, false
	}
	topics := make([]string, 0, n)
	for range n {
		if len(rest) < 2 {
			return nil, false
		}
		length := int(binary.BigEndian.Uint16(rest))
		if rest = rest[2:]; length > len(rest) {
			return nil, false
		}
		topics = append(topics, string(rest[:length]))
		rest = rest[length:]
	}
	return topics, true
}
