package groupcoord

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Join is a JoinGroup request. Its bytes and strings are the group's from here on.
type Join struct {
	Group            string
	MemberID         string  // "": a new member
	Instance         *string // of a static member (KIP-345)
	ClientID         string
	ClientHost       string
	SessionTimeout   time.Duration
	RebalanceTimeout time.Duration
	ProtocolType     string
	Protocols        []Protocol
	RequireMemberID  bool // version 4 and later, of dynamic members: the id is given out first (KIP-394)
	CanSkip          bool // version 9 and later: knows skip_assignment (KIP-814)
}

// join takes a JoinGroup. The reply is in the decision, or it is parked with the member.
func (g *group) join(d *decision, r *Join, reply JoinReply) {
	switch {
	case !g.hasRoomFor(r.MemberID):
		g.remove(r.MemberID)
		d.reply(reply, joinFailed("", kerr.GroupMaxSizeReached))
	case g.state == Dead:
		d.reply(reply, joinFailed(r.MemberID, kerr.CoordinatorNotAvailable))
	case !g.accepts(r.ProtocolType, r.Protocols):
		d.reply(reply, joinFailed(r.MemberID, kerr.InconsistentGroupProtocol))
	case r.MemberID == "":
		g.joinNew(d, r, reply)
	default:
		g.rejoin(d, r, reply)
	}
	if g.state == PreparingRebalance {
		g.checkJoined(d)
	}
}

// hasRoomFor judges group.max.size. In a rebalance only those who have joined count, so that a group that is too large loses
// those who come last. Source: KIP-389.
func (g *group) hasRoomFor(memberID string) bool {
	m := g.members[memberID]
	switch g.state {
	case PreparingRebalance:
		return m != nil && m.join != nil || g.joined() < g.limits.MaxSize
	case CompletingRebalance, Stable:
		return m != nil || len(g.members) < g.limits.MaxSize
	}
	return true
}

func (g *group) joinNew(d *decision, r *Join, reply JoinReply) {
	if r.Instance != nil {
		id := *r.Instance + "-" + g.newID()
		if old, ok := g.statics[*r.Instance]; ok {
			g.rejoinStatic(d, r, old, id, reply)
			return
		}
		g.admit(d, r, id, reply)
		return
	}
	id := r.ClientID + "-" + g.newID()
	if !r.RequireMemberID {
		g.admit(d, r, id, reply)
		return
	}
	if len(g.pending) >= pendingMax {
		g.forgetPending()
	}
	g.pending[id] = d.now.Add(r.SessionTimeout)
	d.reply(reply, joinFailed(id, kerr.MemberIDRequired))
}

// forgetPending drops the pending id that would end first.
func (g *group) forgetPending() {
	first := ""
	for id, t := range g.pending {
		if first == "" || t.Before(g.pending[first]) {
			first = id
		}
	}
	delete(g.pending, first)
}

// admit makes a member of who asks.
func (g *group) admit(d *decision, r *Join, id string, reply JoinReply) {
	if len(g.members) == 0 {
		g.protocolType = r.ProtocolType
	}
	if g.state == PreparingRebalance && g.generation == 0 {
		g.rebalance.newcomers = true
	}
	g.add(&member{
		id: id, instance: r.Instance, clientID: r.ClientID, clientHost: r.ClientHost,
		rebalanceTimeout: r.RebalanceTimeout, sessionTimeout: r.SessionTimeout, protocols: r.Protocols,
		isNew: true, deadline: d.now.Add(newMemberTimeout), join: reply,
	})
	d.note("member joined", id)
	g.maybePrepare(d, "member joined")
}

// rejoin takes the JoinGroup of one who has an id.
func (g *group) rejoin(d *decision, r *Join, reply JoinReply) {
	if _, ok := g.pending[r.MemberID]; ok {
		if r.Instance != nil { // ids are given out to dynamic members only
			d.reply(reply, joinFailed(r.MemberID, kerr.UnknownMemberID))
			return
		}
		g.admit(d, r, r.MemberID, reply)
		return
	}
	if err := g.check(r.MemberID, r.Instance); err != nil {
		d.reply(reply, joinFailed(r.MemberID, err))
		return
	}
	m := g.members[r.MemberID]
	switch g.state {
	case PreparingRebalance:
		g.park(d, m, r, reply)
	case CompletingRebalance:
		if m.sameProtocols(r.Protocols) { // it may have missed the answer
			d.reply(reply, g.joinResult(m))
			return
		}
		g.park(d, m, r, reply)
		g.maybePrepare(d, "member joined with other metadata")
	case Stable:
		if m.id != g.leader && m.sameProtocols(r.Protocols) {
			d.reply(reply, g.joinResult(m))
			return
		}
		// A leader that joins again has seen a change that its metadata do not show.
		g.park(d, m, r, reply)
		g.maybePrepare(d, "leader joined again or member joined with other metadata")
	default:
		d.reply(reply, joinFailed(r.MemberID, kerr.UnknownMemberID))
	}
}

// park takes the request's settings over and keeps its answer for the end of the rebalance.
func (g *group) park(d *decision, m *member, r *Join, reply JoinReply) {
	// An earlier JoinGroup of the same member came over a connection that its client has given up.
	d.answerJoin(m, joinFailed(m.id, kerr.RebalanceInProgress))
	m.protocols, m.rebalanceTimeout, m.sessionTimeout = r.Protocols, r.RebalanceTimeout, r.SessionTimeout
	m.join = reply
}

// staticReturn is what must be undone when the return of a static member cannot be stored.
type staticReturn struct {
	instance, oldID, newID           string
	oldLeader                        string
	protocols                        []Protocol
	rebalanceTimeout, sessionTimeout time.Duration
	canSkip                          bool
}

// rejoinStatic takes the JoinGroup of a static member that comes back without its id: it gets a new one, the old one is
// fenced. In a stable group whose protocol stays the same nobody else notices. Source: KIP-345, KIP-814.
func (g *group) rejoinStatic(d *decision, r *Join, oldID, newID string, reply JoinReply) {
	m := g.members[oldID]
	undo := staticReturn{
		instance: *r.Instance, oldID: oldID, newID: newID, oldLeader: g.leader, protocols: m.protocols,
		rebalanceTimeout: m.rebalanceTimeout, sessionTimeout: m.sessionTimeout, canSkip: r.CanSkip,
	}
	g.rename(d, m, newID)
	g.park(d, m, r, reply)
	m.heard(d.now)
	if m.isNew { // it still waits for its first generation, for as long as other newcomers may
		m.deadline = d.now.Add(newMemberTimeout)
	}
	d.note("static member came back", newID)
	switch g.state {
	case Stable:
		if g.choose() != g.protocol {
			g.maybePrepare(d, "static member came back with other protocols")
			return
		}
		g.write(d, groupWrite{kind: writeStatic, generation: g.generation, static: undo}, nil)
	case CompletingRebalance:
		// The leader may be assigning to the old id just now.
		g.prepare(d, "static member came back")
	}
}

// rename replaces a static member's id. Whoever waits under the old one is a duplicate.
func (g *group) rename(d *decision, m *member, id string) {
	d.answerJoin(m, joinFailed(m.id, kerr.FencedInstanceID))
	d.answerSync(m, syncFailed(kerr.FencedInstanceID))
	old := m.id
	delete(g.members, old)
	if g.syncing[old] {
		delete(g.syncing, old)
		g.syncing[id] = true
	}
	if g.leader == old {
		g.leader = id
	}
	m.id = id
	g.members[id] = m
	g.statics[*m.instance] = id
}

// staticStored follows the write of a returned static member.
func (g *group) staticStored(d *decision, w *groupWrite, err error) {
	s := &w.static
	m := g.members[s.newID]
	if m == nil {
		return
	}
	if err != nil {
		reply := m.join
		m.join = nil
		g.rename(d, m, s.oldID)
		m.protocols, m.rebalanceTimeout, m.sessionTimeout = s.protocols, s.rebalanceTimeout, s.sessionTimeout
		m.heard(d.now)
		if reply != nil {
			failed := g.joinResult(m)
			failed.Err, failed.MemberID, failed.Leader, failed.Members = err, "", s.oldLeader, nil
			d.reply(reply, failed)
		}
		return
	}
	if g.state != Stable || g.generation != w.generation {
		return // a rebalance began meanwhile: the member is part of it, and its answer comes with its end
	}
	result := g.joinResult(m)
	switch {
	case s.canSkip:
		result.SkipAssignment = m.id == g.leader
	default:
		// The old leader's id keeps clients that do not know skip_assignment from assigning.
		result.Leader, result.Members = s.oldLeader, nil
	}
	d.answerJoin(m, result)
	m.heard(d.now)
}

// joinResult is the current generation for one of its members.
func (g *group) joinResult(m *member) JoinResult {
	result := JoinResult{
		Generation: g.generation, ProtocolType: g.protocolType, Protocol: g.protocol, Leader: g.leader, MemberID: m.id,
	}
	if m.id == g.leader {
		result.Members = make([]JoinedMember, 0, len(g.order))
		for _, o := range g.order {
			result.Members = append(result.Members, JoinedMember{o.id, o.instance, o.metadata(g.protocol)})
		}
	}
	return result
}
