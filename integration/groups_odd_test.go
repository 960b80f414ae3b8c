package integration

import (
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
)

// TestOddGroupClientsAreAnsweredAsByKafka runs one script of unusual requests against this broker and against Kafka 3.9, and
// compares every answer, field by field.
func TestOddGroupClientsAreAnsweredAsByKafka(t *testing.T) {
	harness.NeedKafka(t)
	answers := map[harness.Kind][]string{}
	for _, kind := range []harness.Kind{harness.Kafka, harness.Ottla} {
		c := harness.Start(t, harness.Options{Brokers: []harness.Kind{kind}, Properties: map[string]string{
			"group.initial.rebalance.delay.ms": "0", "group.max.size": "3", "offsets.topic.num.partitions": "5",
			"auto.create.topics.enable": "false",
		}})
		createTopic(t, c, "t", 2, 1, nil)
		createTopic(t, c, "u", 1, 1, nil)
		answers[kind] = oddGroups(t, c.Broker(1).Address)
	}
	if diff := gocmp.Diff(answers[harness.Kafka], answers[harness.Ottla]); diff != "" {
		t.Errorf("Kafka (-), Ottla (+):\n%s", diff)
	}
	t.Logf("%d answers compared", len(answers[harness.Kafka]))
}

func oddGroups(t *testing.T, address string) []string {
	s := &groupScript{t: t, address: address, names: map[string]string{}}
	s.awaitCoordinator()
	for _, scene := range []func(){
		s.sceneCoordinators, s.sceneJoins, s.sceneMemberIDs, s.sceneProtocols, s.sceneSyncs, s.sceneHeartbeats,
		s.sceneLeaves, s.sceneStatics, s.sceneStaticsAcrossVersions, s.sceneNeverSyncs, s.sceneTooMany, s.sceneRejoins,
		s.sceneCommits, s.sceneOldCommits, s.sceneFetches, s.sceneDescribe, s.sceneDelete, s.sceneOffsetDelete, s.sceneConnect,
	} {
		scene()
	}
	return s.lines
}

// awaitCoordinator has the offsets topic made and loaded.
func (s *groupScript) awaitCoordinator() {
	m := s.member("first", "warm-up")
	harness.Eventually(s.t, 30*time.Second, "a coordinator", func() error {
		r := kmsg.NewPtrFindCoordinatorRequest()
		r.CoordinatorKey = "warm-up"
		return kerr.ErrorForCode(m.ask(2, r).(*kmsg.FindCoordinatorResponse).ErrorCode)
	})
	for _, group := range []string{"warm-up", "a", "b", "c", "d", "e", "f", "g", "h", "i", "j"} { // all five partitions
		m.group = group
		harness.Eventually(s.t, 30*time.Second, "loading", func() error {
			return kerr.ErrorForCode(m.ask(3, m.fetch("t", 0)).(*kmsg.OffsetFetchResponse).ErrorCode)
		})
	}
}

func (s *groupScript) sceneCoordinators() {
	s.title("FindCoordinator")
	m := s.member("finder", "g")
	for version := range int16(7) {
		r := kmsg.NewPtrFindCoordinatorRequest()
		r.CoordinatorKey, r.CoordinatorKeys = "g", []string{"g", "", "another"}
		m.say("group", version, r)
	}
	for _, version := range []int16{1, 3, 4, 5, 6} {
		for _, kind := range []int8{2, 7, -1} {
			r := kmsg.NewPtrFindCoordinatorRequest()
			r.CoordinatorKey, r.CoordinatorKeys, r.CoordinatorType = "g", []string{"g"}, kind
			m.say("odd key type", version, r)
		}
	}
	r := kmsg.NewPtrFindCoordinatorRequest()
	m.say("no key", 4, r)
}

func (s *groupScript) sceneJoins() {
	s.title("joins that are refused")
	for version := range int16(10) {
		m := s.member("joiner", "")
		m.say("empty group id", version, m.join())
		m.group = "refused"
		r := m.join()
		r.SessionTimeoutMillis = 10
		m.say("short session timeout", version, r)
		r = m.join()
		r.SessionTimeoutMillis = 100_000_000
		m.say("long session timeout", version, r)
		m.say("no protocols", version, m.join([]kmsg.JoinGroupRequestProtocol{}...))
		r = m.join()
		r.Protocols = nil
		m.say("no protocols", version, r)
		r = m.join()
		r.ProtocolType = ""
		m.say("no protocol type", version, r)
		m.id, m.group = "made-up", "never-seen"
		m.say("unknown member of an unknown group", version, m.join())
	}
	known := s.member("resident", "known").admit()
	for version := range int16(10) {
		m := s.member("joiner", "known")
		m.id = "made-up"
		m.say("unknown member", version, m.join())
		if version >= 5 {
			m.instance = kmsg.StringPtr("nobody")
			m.say("unknown instance", version, m.join())
		}
	}
	known.ask(0, known.leave())
}

func (s *groupScript) sceneMemberIDs() {
	s.title("member ids are given out first")
	for version := range int16(10) {
		m := s.member("newcomer", "ids")
		resp := m.say("joins", version, m.join()).(*kmsg.JoinGroupResponse)
		m.id = resp.MemberID
		if resp.ErrorCode == kerr.MemberIDRequired.Code {
			h := m.heartbeat()
			m.say("heartbeat of a pending member", 3, h)
			m.say("commit of a pending member", 7, m.commit("t", 0, 1, ""))
			resp = m.say("joins with the id", version, m.join()).(*kmsg.JoinGroupResponse)
		}
		m.gen = resp.Generation
		m.say("syncs", min(version, 5), m.sync(m.id, "all"))
		m.say("heartbeats", min(version, 4), m.heartbeat())
		m.say("leaves", min(version, 5), m.leave())
	}
}

func (s *groupScript) sceneProtocols() {
	s.title("protocols")
	a := s.member("a", "protocols")
	a.took(a.say("joins", 3, a.join(offer("x", []byte("ax")), offer("y", []byte("ay")))))
	a.say("syncs with another protocol type", 5, a.sync())
	r := a.sync(a.id, "1")
	r.Protocol = kmsg.StringPtr("x")
	r.ProtocolType = kmsg.StringPtr("consumer")
	a.say("syncs", 5, r)
	b := s.member("b", "protocols")
	b.say("nothing in common", 3, b.join(offer("z", nil)))
	odd := b.join(offer("x", nil))
	odd.ProtocolType = "connect"
	b.say("another protocol type", 3, odd)
	bj := b.later("joins", 3, b.join(offer("y", []byte("by")), offer("x", []byte("bx"))))
	a.say("heartbeats", 3, a.heartbeat())
	a.say("commits while preparing", 6, a.commit("t", 0, 5, ""))
	a.say("syncs while preparing", 3, a.sync())
	a.took(a.say("joins again", 3, a.join(offer("x", []byte("ax")), offer("y", []byte("ay")))))
	b.took(bj.wait())
	a.say("heartbeats before the sync", 3, a.heartbeat())
	a.say("commits before the sync", 6, a.commit("t", 0, 6, ""))
	as := a.later("syncs", 3, a.sync())
	as.wait()
	b.say("syncs", 3, b.sync())
	a.ask(0, a.leave())
	b.ask(0, b.leave())
}

func (s *groupScript) sceneSyncs() {
	s.title("SyncGroup")
	for version := range int16(6) {
		m := s.member("syncer", "")
		m.id, m.gen = "made-up", 1
		m.say("empty group id", version, m.sync())
		m.group = "never-seen"
		m.say("unknown group", version, m.sync())
	}
	a := s.member("a", "syncs").first()
	for version := range int16(6) {
		x := s.member("x", "syncs")
		x.id, x.gen = "made-up", 1
		x.say("unknown member", version, x.sync())
		x.id, x.gen = a.id, 7
		x.say("wrong generation", version, x.sync())
		if version >= 3 {
			x.instance, x.gen = kmsg.StringPtr("nobody"), 1
			x.say("unknown instance", version, x.sync())
		}
	}
	r := a.sync()
	r.Protocol = nil
	a.say("no protocol", 5, r)
	r = a.sync()
	r.ProtocolType = nil
	a.say("no protocol type", 5, r)
	r = a.sync()
	r.Protocol = kmsg.StringPtr("roundrobin")
	a.say("other protocol", 5, r)
	a.say("assigns to strangers only", 5, a.sync("stranger", "all"))
	a.say("syncs again", 5, a.sync(a.id, "something else"))
	a.ask(0, a.leave())
}

func (s *groupScript) sceneHeartbeats() {
	s.title("Heartbeat")
	a := s.member("a", "beats").admit()
	for version := range int16(5) {
		m := s.member("x", "")
		m.id, m.gen = "made-up", 1
		m.say("empty group id", version, m.heartbeat())
		m.group = "never-seen"
		m.say("unknown group", version, m.heartbeat())
		m.group = "beats"
		m.say("unknown member", version, m.heartbeat())
		m.id = ""
		m.say("empty member", version, m.heartbeat())
		m.id, m.gen = a.id, 9
		m.say("wrong generation", version, m.heartbeat())
		m.gen = -1
		m.say("no generation", version, m.heartbeat())
		m.gen = a.gen
		m.say("right", version, m.heartbeat())
		if version >= 3 {
			m.instance = kmsg.StringPtr("nobody")
			m.say("unknown instance", version, m.heartbeat())
		}
	}
	a.ask(0, a.leave())
	a.say("after it left", 3, a.heartbeat())
}

func (s *groupScript) sceneLeaves() {
	s.title("LeaveGroup")
	for version := range int16(6) {
		a := s.member("a", "leaves").admit()
		m := s.member("x", "")
		m.id = "made-up"
		m.say("empty group id", version, m.leave())
		m.group = "never-seen"
		m.say("unknown group", version, m.leave())
		m.group = "leaves"
		m.say("unknown member", version, m.leave())
		m.id = ""
		m.say("nobody", version, m.leave())
		if version >= 3 {
			m.say("several", version, m.leave(leaving("made-up", nil), leaving("", kmsg.StringPtr("nobody")), leaving(a.id, kmsg.StringPtr("nobody")), leaving(a.id, nil)))
			m.say("none at all", version, m.leave([]kmsg.LeaveGroupRequestMember{}...))
		}
		a.say("leaves", version, a.leave())
		a.say("leaves again", version, a.leave())
		p := s.member("p", "leaves")
		p.id = p.ask(4, p.join()).(*kmsg.JoinGroupResponse).MemberID
		p.say("pending member leaves", version, p.leave())
	}
}

func (s *groupScript) sceneStatics() {
	s.title("two static members with one id")
	one := kmsg.StringPtr("one")
	a := s.member("a", "statics")
	a.instance = one
	a.took(a.say("joins", 5, a.join()))
	a.say("syncs", 3, a.sync(a.id, "mine"))
	b := s.member("b", "statics")
	b.instance = one
	b.took(b.say("joins with the same instance", 9, b.join()))
	b.say("syncs", 5, b.sync())
	a.say("the first heartbeats", 3, a.heartbeat())
	a.say("the first syncs", 5, a.sync())
	a.say("the first joins", 9, a.join())
	a.say("the first commits", 7, a.commit("t", 0, 3, ""))
	a.say("the first leaves", 3, a.leave())
	b.say("heartbeats", 4, b.heartbeat())
	b.say("commits", 9, b.commit("t", 0, 4, "by b"))
	c := s.member("c", "statics")
	c.instance = one
	c.took(c.say("an older client takes over", 5, c.join()))
	c.say("syncs", 3, c.sync())
	d := s.member("d", "statics")
	d.instance = one
	d.took(d.say("takes over with other metadata", 9, d.join(offer("range", subscribed("t", "u")))))
	d.say("syncs", 5, d.sync(d.id, "anew"))
	e := s.member("e", "statics")
	e.instance = one
	e.say("takes over with nothing in common", 9, e.join(offer("sticky", nil)))
	e.took(e.say("takes over with another preference", 9, e.join(offer("sticky", nil), offer("range", subscribed("t")))))
	r := e.sync(e.id, "other")
	r.Protocol = kmsg.StringPtr("sticky")
	e.say("syncs", 5, r)
	s.member("admin", "statics").say("is removed by its instance", 3, s.member("admin", "statics").leave(leaving("", one)))
	e.say("heartbeats after that", 3, e.heartbeat())
}

func (s *groupScript) sceneStaticsAcrossVersions() {
	s.title("a static leader and a follower")
	a := s.member("a", "pair")
	a.instance = kmsg.StringPtr("i-a")
	a.first()
	b := s.member("b", "pair")
	b.instance = kmsg.StringPtr("i-b")
	bj := b.later("joins", 5, b.join())
	a.took(a.say("joins again", 5, a.join()))
	b.took(bj.wait())
	bs := b.later("syncs", 3, b.sync())
	a.say("syncs", 3, a.sync(a.id, "A", b.id, "B"))
	bs.wait()
	again := s.member("b2", "pair")
	again.instance = b.instance
	again.took(again.say("the follower comes back", 9, again.join()))
	again.say("syncs", 5, again.sync())
	lead := s.member("a2", "pair")
	lead.instance = a.instance
	lead.took(lead.say("the leader comes back", 9, lead.join()))
	lead.say("syncs", 5, lead.sync())
	old := s.member("a3", "pair")
	old.instance = a.instance
	old.took(old.say("the leader comes back as an older client", 8, old.join()))
	old.say("syncs", 5, old.sync())
	// While it waits to join, its twin comes.
	wait := old.later("joins again", 9, old.join(offer("range", subscribed("t", "u"))))
	twin := s.member("a4", "pair")
	twin.instance = a.instance
	tj := twin.later("its twin joins", 9, twin.join())
	wait.wait()
	again.took(again.say("the follower joins", 9, again.join()))
	twin.took(tj.wait())
	admin := s.member("admin", "pair")
	admin.say("both are removed", 4, admin.leave(leaving("", a.instance), leaving("", b.instance)))
}

func (s *groupScript) sceneNeverSyncs() {
	s.title("a member that never syncs")
	a := s.member("a", "silent").first()
	b := s.member("b", "silent")
	bj := b.later("joins", 3, b.join())
	a.took(a.say("joins", 3, a.join()))
	b.took(bj.wait())
	a.say("syncs", 3, a.sync(a.id, "A", b.id, "B"))
	time.Sleep(2500 * time.Millisecond) // the rebalance timeout is 2 s
	a.say("heartbeats after the rebalance timeout", 3, a.heartbeat())
	b.say("the silent one heartbeats", 3, b.heartbeat())
	b.say("and syncs at last", 3, b.sync())
	a.took(a.say("joins", 3, a.join()))
	a.say("syncs", 3, a.sync(a.id, "all"))
	a.ask(0, a.leave())

	s.title("a member that does not join again")
	a = s.member("a", "absent").admit()
	b = s.member("b", "absent")
	bj = b.later("joins", 3, b.join())
	b.took(bj.wait()) // after the rebalance timeout
	a.say("the absent one heartbeats", 3, a.heartbeat())
	b.say("syncs", 3, b.sync(b.id, "all"))
	b.ask(0, b.leave())
}

func (s *groupScript) sceneTooMany() {
	s.title("more members than group.max.size")
	var members []*scriptMember
	var joins []*parked
	first := s.member("m1", "crowd").admit()
	for _, name := range []string{"m2", "m3"} {
		m := s.member(name, "crowd")
		members, joins = append(members, m), append(joins, m.later("joins", 3, m.join()))
	}
	first.took(first.say("joins", 3, first.join()))
	for i, m := range members {
		m.took(joins[i].wait())
	}
	more := s.member("m4", "crowd")
	more.say("joins when all are there", 3, more.join())
	more.say("joins when all are there", 9, more.join())
	first.say("syncs", 3, first.sync())
	more.say("joins when it is stable", 5, more.join())
	for _, m := range append(members, first) {
		m.ask(0, m.leave())
	}
}

func (s *groupScript) sceneRejoins() {
	s.title("joins of members")
	a := s.member("a", "again").first()
	b := s.member("b", "again")
	bj := b.later("joins", 3, b.join())
	a.took(a.ask(3, a.join()))
	b.took(bj.wait())
	a.say("joins again before the sync", 3, a.join())
	b.say("joins again before the sync", 3, b.join())
	bs := b.later("syncs", 3, b.sync())
	a.say("syncs", 3, a.sync(a.id, "A", b.id, "B"))
	bs.wait()
	b.say("a follower joins again, unchanged", 9, b.join())
	b.say("and syncs", 5, b.sync())
	aj := a.later("the leader joins again", 9, a.join())
	b.say("the follower heartbeats", 4, b.heartbeat())
	b.took(b.say("and joins", 9, b.join(offer("range", subscribed("u")))))
	a.took(aj.wait())
	as := a.later("syncs", 5, a.sync(b.id, "all"))
	as.wait()
	b.say("syncs", 5, b.sync())
	bj = b.later("a follower joins with other metadata", 9, b.join(offer("range", subscribed("t"))))
	a.say("leaves", 5, a.leave())
	b.took(bj.wait())
	b.ask(0, b.leave())
}

func (s *groupScript) sceneCommits() {
	s.title("OffsetCommit")
	a := s.member("a", "commits").admit()
	for version := int16(1); version < 10; version++ {
		m := s.member("x", "commits")
		m.id, m.gen = a.id, a.gen
		m.say("right", version, m.commit("t", 0, int64(version), "text"))
		m.say("a missing topic", version, m.commit("missing", 0, 1, ""))
		m.say("a missing partition", version, m.commit("t", 9, 1, ""))
		m.say("the longest metadata", version, m.commit("t", 1, 1, strings.Repeat("x", 4096)))
		m.say("oversized metadata", version, m.commit("t", 1, 2, strings.Repeat("x", 4097)))
		m.say("oversized metadata, though not in bytes", version, m.commit("t", 1, 3, strings.Repeat("é", 4096)))
		null := m.commit("t", 1, 4, "")
		null.Topics[0].Partitions[0].Metadata = nil
		m.say("null metadata", version, null)
		m.say("a negative offset", version, m.commit("t", 1, -7, ""))
		m.gen = 99
		m.say("wrong generation", version, m.commit("t", 0, 1, ""))
		m.gen = -1
		m.say("a member without generation", version, m.commit("t", 0, 1, ""))
		m.id = ""
		m.say("nobody, in a group with members", version, m.commit("t", 0, 1, ""))
		m.id, m.gen = "made-up", a.gen
		m.say("unknown member", version, m.commit("t", 0, 1, ""))
		m.group = "never-seen"
		m.say("a generation of an unknown group", version, m.commit("t", 0, 1, ""))
		m.id, m.gen, m.group = "", -1, "simple"
		m.say("without membership", version, m.commit("t", 0, 100+int64(version), "s"))
		m.id = "made-up"
		m.say("with a member id", version, m.commit("t", 0, 1, ""))
		m.id, m.gen = "", 0
		m.say("with a generation", version, m.commit("t", 0, 1, ""))
		m.id, m.gen, m.group = "", -1, ""
		m.say("empty group id", version, m.commit("t", 0, 200+int64(version), ""))
		m.group = "simple"
		none := m.commit("t", 0, 1, "")
		none.Topics = nil
		m.say("nothing", version, none)
		mixed := m.commit("t", 0, 300, "")
		mixed.Topics = append(mixed.Topics, m.commit("missing", 0, 1, "").Topics...)
		mixed.Topics = append(mixed.Topics, m.commit("u", 0, 2, strings.Repeat("y", 5000)).Topics...)
		m.say("good and bad together", version, mixed)
		if version >= 7 {
			m.instance = kmsg.StringPtr("nobody")
			m.say("unknown instance, empty group", version, m.commit("t", 0, 1, ""))
		}
	}
	epoch := a.commit("t", 0, 50, "")
	epoch.Topics[0].Partitions[0].LeaderEpoch = 4
	a.say("with a leader epoch", 8, epoch)
	a.say("fetches it", 5, a.fetch("t", 0))
	retained := a.commit("t", 1, 51, "")
	retained.RetentionTimeMillis = 60_000
	a.say("with its own retention", 3, retained)
	a.say("fetches it", 7, a.fetch("t", 0, 1))
	a.ask(0, a.leave())
	a.say("after it left", 7, a.commit("t", 0, 60, ""))
	a.id, a.gen = "", -1
	a.say("to an empty group", 7, a.commit("t", 0, 61, ""))
	a.say("fetches all", 7, a.fetch(""))
}

func (s *groupScript) sceneOldCommits() {
	s.title("version 0: offsets in ZooKeeper")
	m := s.member("old", "old-group")
	m.say("fetches nothing", 0, m.fetch("t", 0))
	m.say("commits", 0, m.commit("t", 0, 12, "ignored"))
	m.say("a missing topic", 0, m.commit("missing", 0, 12, ""))
	m.say("oversized metadata", 0, m.commit("t", 1, 12, strings.Repeat("x", 4097)))
	m.say("fetches", 0, m.fetch("t", 0, 1))
	m.say("a missing topic", 0, m.fetch("missing", 0))
	m.say("is not seen by version 1", 1, m.fetch("t", 0))
	m.say("commits again", 0, m.commit("t", 0, 5, ""))
	m.say("fetches", 0, m.fetch("t", 0))
}

func (s *groupScript) sceneFetches() {
	s.title("OffsetFetch")
	for version := int16(1); version < 10; version++ {
		m := s.member("x", "never-seen")
		m.say("unknown group", version, m.fetch("t", 0, 1))
		m.say("unknown group, missing topic", version, m.fetch("missing", 0))
		m.group = "simple"
		m.say("some", version, m.fetch("t", 0, 1))
		m.say("missing topic", version, m.fetch("missing", 3))
		stable := m.fetch("t", 0)
		stable.RequireStable = true
		m.say("stable ones", version, stable)
		if version >= 2 {
			m.say("all", version, m.fetch(""))
			m.group = "never-seen"
			m.say("all of an unknown group", version, m.fetch(""))
		}
		m.group = ""
		m.say("empty group id", version, m.fetch("t", 0))
		if version >= 8 {
			r := m.fetch("t", 0)
			r.Groups = append(r.Groups, s.member("x", "simple").fetch("t", 0).Groups[0], s.member("x", "never-seen").fetch("").Groups[0])
			m.say("three groups", version, r) // to none at all Kafka 3.9 never answers
		}
	}
}

func (s *groupScript) sceneDescribe() {
	s.title("DescribeGroups, ListGroups")
	s.member("i", "one-left").admit()
	p := s.member("p", "joining")
	p.first()
	for version := range int16(6) {
		m := s.member("x", "")
		r := kmsg.NewPtrDescribeGroupsRequest()
		r.Groups = []string{"one-left", "joining", "simple", "commits", "never-seen", ""}
		r.IncludeAuthorizedOperations = version == 4
		m.say("describes", version, r)
		none := kmsg.NewPtrDescribeGroupsRequest()
		m.say("describes none", version, none)
		l := kmsg.NewPtrListGroupsRequest()
		m.say("lists", version, l)
		if version >= 4 {
			l.StatesFilter = []string{"stable", "COMPLETINGREBALANCE"}
			m.say("lists by state", version, l)
			l.StatesFilter = []string{"Nonsense"}
			m.say("lists by an unknown state", version, l)
		}
		if version >= 5 {
			l.StatesFilter, l.TypesFilter = nil, []string{"consumer"}
			m.say("lists by type", version, l)
			l.TypesFilter = []string{"CLASSIC"}
			m.say("lists by type", version, l)
			l.TypesFilter = []string{"nonsense"}
			m.say("lists by an unknown type", version, l)
		}
	}
}

func (s *groupScript) sceneDelete() {
	s.title("DeleteGroups")
	for version := range int16(3) {
		m := s.member("x", "to-delete")
		m.ask(3, m.commit("t", 0, 1, ""))
		r := kmsg.NewPtrDeleteGroupsRequest()
		r.Groups = []string{"to-delete", "one-left", "joining", "never-seen"}
		m.say("deletes", version, r)
		m.say("deletes again", version, r)
		m.say("fetches", 3, m.fetch("t", 0))
		none := kmsg.NewPtrDeleteGroupsRequest()
		m.say("deletes none", version, none)
	}
	gone := s.member("g", "was-a-group").admit()
	gone.ask(3, gone.commit("t", 0, 7, ""))
	gone.ask(0, gone.leave())
	r := kmsg.NewPtrDeleteGroupsRequest()
	r.Groups = []string{"was-a-group", ""}
	gone.say("deletes a group that had members, and the nameless one", 2, r)
	gone.say("the old member heartbeats", 3, gone.heartbeat())
}

func (s *groupScript) sceneOffsetDelete() {
	s.title("OffsetDelete")
	ask := func(group, topic string, partitions ...int32) *kmsg.OffsetDeleteRequest {
		r := kmsg.NewPtrOffsetDeleteRequest()
		r.Group = group
		t := kmsg.NewOffsetDeleteRequestTopic()
		t.Topic = topic
		for _, p := range partitions {
			rp := kmsg.NewOffsetDeleteRequestTopicPartition()
			rp.Partition = p
			t.Partitions = append(t.Partitions, rp)
		}
		r.Topics = append(r.Topics, t)
		return r
	}
	a := s.member("a", "offset-delete").admit()
	a.ask(3, a.commit("t", 0, 1, ""))
	a.ask(3, a.commit("u", 0, 1, ""))
	a.say("a subscribed topic", 0, ask("offset-delete", "t", 0, 1))
	a.say("another topic", 0, ask("offset-delete", "u", 0))
	a.say("a missing topic", 0, ask("offset-delete", "missing", 0))
	a.say("a missing partition", 0, ask("offset-delete", "u", 5))
	a.say("an unknown group", 0, ask("never-seen", "t", 0))
	a.say("no group", 0, ask("", "t", 0))
	a.say("what is left", 5, a.fetch(""))
	a.ask(0, a.leave())
	a.say("a topic of an empty group", 0, ask("offset-delete", "t", 0))
	a.say("what is left", 5, a.fetch(""))
	unreadable := s.member("b", "unreadable").admit(offer("range", []byte{1}))
	unreadable.ask(3, unreadable.commit("u", 0, 1, ""))
	unreadable.say("of unreadable subscriptions", 0, ask("unreadable", "u", 0))
	unreadable.ask(0, unreadable.leave())
}

func (s *groupScript) sceneConnect() {
	s.title("another protocol type")
	w := s.member("worker", "connect-cluster")
	r := w.join(offer("sessioned", []byte("url")), offer("compatible", []byte("url")))
	r.ProtocolType = "connect"
	w.took(w.say("joins", 7, withID(w, r)))
	sync := w.sync(w.id, "connectors")
	sync.ProtocolType, sync.Protocol = kmsg.StringPtr("connect"), kmsg.StringPtr("sessioned")
	w.say("syncs", 5, sync)
	d := kmsg.NewPtrDescribeGroupsRequest()
	d.Groups = []string{"connect-cluster"}
	w.say("is described", 5, d)
	o := kmsg.NewPtrOffsetDeleteRequest()
	o.Group = "connect-cluster"
	o.Topics = []kmsg.OffsetDeleteRequestTopic{{Topic: "t", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}}}}
	w.say("offsets cannot be deleted", 0, o)
	w.ask(0, w.leave())
}

// withID has the id given out first, as version 4 and later demand.
func withID(m *scriptMember, r *kmsg.JoinGroupRequest) *kmsg.JoinGroupRequest {
	m.id = m.ask(7, r).(*kmsg.JoinGroupResponse).MemberID
	r.MemberID = m.id
	return r
}
