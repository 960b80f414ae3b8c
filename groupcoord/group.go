package groupcoord

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// State is where a group stands. The names are shown to users.
type State uint8

// The states of a group. Empty → PreparingRebalance (members join) → CompletingRebalance (the leader assigns) → Stable.
const (
	Empty State = iota
	PreparingRebalance
	CompletingRebalance
	Stable
	Dead // removed, or its coordinator resigned
)

var stateNames = [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable", "Dead"}

func (s State) String() string { return stateNames[s] }

// The bounds of what Kafka decides without a setting.
const (
	// newMemberTimeout is how long a JoinGroup of a new member may be parked: it has no id yet, so it cannot heartbeat, and
	// nobody notices when its client has gone.
	newMemberTimeout = 5 * time.Minute
	// pendingMax bounds the ids of a group that were given out and not used yet. The one that ends first makes room: who comes with
	// it later is told UNKNOWN_MEMBER_ID and begins anew.
	pendingMax = 5000
	// consumerProtocol is the protocol type of consumers; the metadata of their protocols can be read.
	consumerProtocol = "consumer"
	noGeneration     = -1
)

// Limits are the settings that the core obeys.
type Limits struct {
	SessionTimeoutMin, SessionTimeoutMax time.Duration // group.min.session.timeout.ms, group.max.session.timeout.ms
	InitialDelay                         time.Duration // group.initial.rebalance.delay.ms
	MaxSize                              int           // group.max.size
}

// Protocol is one way of assigning that a member offers, with its metadata for it (a consumer's subscription).
type Protocol struct {
	Name     string
	Metadata []byte
}

// member is one member of a group.
type member struct {
	id         string
	instance   *string // of a static member (KIP-345)
	clientID   string
	clientHost string

	rebalanceTimeout time.Duration
	sessionTimeout   time.Duration
	protocols        []Protocol
	assignment       []byte

	isNew    bool      // has not completed a join yet
	deadline time.Time // when it is given up, see suspended
	join     JoinReply // its parked JoinGroup, or nil
	sync     SyncReply // its parked SyncGroup, or nil
}

// suspended reports whether the deadline is out of force: whoever waits for a rebalance cannot be asked for heartbeats. A
// new member's deadline bounds just that wait.
func (m *member) suspended() bool { return !m.isNew && (m.join != nil || m.sync != nil) }

func (m *member) metadata(protocol string) []byte {
	for _, p := range m.protocols {
		if p.Name == protocol {
			return p.Metadata
		}
	}
	return nil
}

func (m *member) supports(protocol string) bool {
	return slices.ContainsFunc(m.protocols, func(p Protocol) bool { return p.Name == protocol })
}

// sameProtocols reports whether the member joined with just these protocols before, in this order.
func (m *member) sameProtocols(protocols []Protocol) bool {
	return slices.EqualFunc(m.protocols, protocols, func(a, b Protocol) bool {
		return a.Name == b.Name && slices.Equal(a.Metadata, b.Metadata)
	})
}

// heard starts the member's session anew.
func (m *member) heard(now time.Time) { m.deadline = now.Add(m.sessionTimeout) }

// group is the state machine of one group. PURE: it takes values and the time, and returns what to answer and to write in a
// decision. It has no lock; its entry guards it.
//
// Invariants: a member is in order once and under its id in members; statics holds just the static ones; leader is "" only
// without members; generation never falls.
type group struct {
	id     string
	limits *Limits
	newID  func() string // a random UUID

	state        State
	since        time.Time // when state was entered; zero: not known (records of version 0 and 1)
	protocolType string    // "": never had members
	protocol     string    // of the current generation, "" without
	generation   int32
	leader       string

	members map[string]*member
	order   []*member // as they came
	statics map[string]string
	pending map[string]time.Time // ids that were given out (KIP-394), with the time to which they must join

	rebalance rebalance
	syncing   map[string]bool // members of this generation that have not sent SyncGroup
	syncBy    time.Time       // when those are expelled

	subscribed map[string]bool // topics of all members; nil: not known
}

// rebalance is the wait for members in PreparingRebalance.
type rebalance struct {
	deadline  time.Time
	initial   bool // the first wait of an empty group: it takes its time even when all are there
	newcomers bool // somebody came since the initial wait was last extended
	delay     time.Duration
	remaining time.Duration // by which the initial wait may still be extended
}

func newGroup(id string, limits *Limits, newID func() string, now time.Time) *group {
	return &group{
		id: id, limits: limits, newID: newID, since: now,
		members: map[string]*member{}, statics: map[string]string{}, pending: map[string]time.Time{}, syncing: map[string]bool{},
	}
}

// enter changes the state.
func (g *group) enter(d *decision, s State) {
	g.state, g.since = s, d.now
}

// add makes m a member. The caller has checked that it fits.
func (g *group) add(m *member) {
	if len(g.members) == 0 {
		g.leader = ""
	}
	if g.leader == "" {
		g.leader = m.id
	}
	if m.instance != nil {
		g.statics[*m.instance] = m.id
	}
	g.members[m.id] = m
	g.order = append(g.order, m)
	delete(g.pending, m.id)
}

// remove forgets a member or a pending id.
func (g *group) remove(id string) {
	delete(g.pending, id)
	delete(g.syncing, id)
	m := g.members[id]
	if m == nil {
		return
	}
	delete(g.members, id)
	g.order = slices.DeleteFunc(g.order, func(o *member) bool { return o == m })
	if m.instance != nil {
		delete(g.statics, *m.instance)
	}
	if g.leader == id {
		g.leader = ""
		if len(g.order) > 0 {
			g.leader = g.order[0].id
		}
	}
}

// check judges who a request claims to be. Source: KIP-345.
func (g *group) check(memberID string, instance *string) error {
	if instance != nil {
		current, ok := g.statics[*instance]
		switch {
		case !ok:
			return kerr.UnknownMemberID
		case current != memberID:
			return kerr.FencedInstanceID
		}
	}
	if g.members[memberID] == nil {
		return kerr.UnknownMemberID
	}
	return nil
}

// checkGeneration is check, and the generation too.
func (g *group) checkGeneration(memberID string, instance *string, generation int32) error {
	if err := g.check(memberID, instance); err != nil {
		return err
	}
	if generation != g.generation {
		return kerr.IllegalGeneration
	}
	return nil
}

// accepts reports whether a member with these protocols fits in: the group's protocol type, and one protocol in common.
func (g *group) accepts(protocolType string, protocols []Protocol) bool {
	if g.state == Empty {
		return protocolType != "" && len(protocols) > 0
	}
	return protocolType == g.protocolType && slices.ContainsFunc(protocols, func(p Protocol) bool { return g.common(p.Name) })
}

// common reports whether every member supports the protocol.
func (g *group) common(protocol string) bool {
	for _, m := range g.order {
		if !m.supports(protocol) {
			return false
		}
	}
	return true
}

// choose elects the next generation's protocol: each member votes for the first of its protocols that all support.
func (g *group) choose() string {
	votes := map[string]int{}
	best := ""
	for _, m := range g.order {
		for _, p := range m.protocols {
			if !g.common(p.Name) {
				continue
			}
			votes[p.Name]++
			if best == "" || votes[p.Name] > votes[best] {
				best = p.Name
			}
			break
		}
	}
	return best
}

// rebalanceTimeout is how long a rebalance waits: the longest that any member asks for.
func (g *group) rebalanceTimeout() (longest time.Duration) {
	for _, m := range g.order {
		longest = max(longest, m.rebalanceTimeout)
	}
	return longest
}

func (g *group) joined() (n int) {
	for _, m := range g.order {
		if m.join != nil {
			n++
		}
	}
	return n
}

// allJoined reports whether nobody is missing; ids that were given out count.
func (g *group) allJoined() bool {
	return len(g.pending) == 0 && g.joined() == len(g.order)
}

// nextDeadline is when tick has something to do; zero: never.
func (g *group) nextDeadline() (next time.Time) {
	if g.state == Dead {
		return next
	}
	earliest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	for _, t := range g.pending {
		earliest(t)
	}
	for _, m := range g.order {
		if !m.suspended() {
			earliest(m.deadline)
		}
	}
	if g.state == PreparingRebalance {
		earliest(g.rebalance.deadline)
	}
	if len(g.syncing) > 0 {
		earliest(g.syncBy)
	}
	return next
}

// tick does what is due.
func (g *group) tick(d *decision) {
	if g.state == Dead {
		return
	}
	for id, t := range g.pending {
		if !t.After(d.now) {
			d.note("pending member never joined", id)
			g.removePending(d, id)
		}
	}
	for _, m := range slices.Clone(g.order) {
		if g.members[m.id] == m && !m.suspended() && !m.deadline.After(d.now) {
			d.note("member's session expired", m.id)
			d.expired++
			g.expel(d, m)
		}
	}
	if len(g.syncing) > 0 && !g.syncBy.After(d.now) {
		g.expelUnsynced(d)
	}
	if g.state == PreparingRebalance && !g.rebalance.deadline.After(d.now) {
		g.waited(d)
	}
}

// expelUnsynced removes the members that took the generation but never asked for their assignment.
func (g *group) expelUnsynced(d *decision) {
	for _, m := range slices.Clone(g.order) {
		if g.syncing[m.id] {
			d.note("member never sent SyncGroup", m.id)
			d.answerJoin(m, joinFailed("", kerr.UnknownMemberID))
			d.answerSync(m, syncFailed(kerr.UnknownMemberID))
			g.remove(m.id)
		}
	}
	clear(g.syncing)
	g.prepare(d, "members never sent SyncGroup")
}

// expel removes a member; the others rebalance.
func (g *group) expel(d *decision, m *member) {
	d.answerJoin(m, joinFailed("", kerr.UnknownMemberID))
	d.answerSync(m, syncFailed(kerr.UnknownMemberID))
	g.remove(m.id)
	switch g.state {
	case Stable, CompletingRebalance:
		g.prepare(d, "member left")
	case PreparingRebalance:
		g.checkJoined(d)
	}
}

func (g *group) removePending(d *decision, id string) {
	g.remove(id)
	if g.state == PreparingRebalance {
		g.checkJoined(d)
	}
}

// kill ends the group's life here: it was deleted, or another broker coordinates it now. Whoever waits is told why.
func (g *group) kill(d *decision, why *kerr.Error) {
	g.enter(d, Dead)
	for _, m := range g.order {
		d.answerJoin(m, joinFailed(m.id, why))
		d.answerSync(m, syncFailed(why))
	}
}
