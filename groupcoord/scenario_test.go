package groupcoord

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

var update = flag.Bool("update", false, "rewrite what the scenarios expect; read the diff")

// TestScenarios runs the stories in testdata: a command, ----, what happened. Ids that are made up are c-1, c-2, … for the
// client c; time stands still except in tick.
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { runScenario(t, file) })
	}
}

func runScenario(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := newStory()
	var out strings.Builder
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	for i := 0; i < len(lines); i++ {
		line := lines[i]
		if line == "" || strings.HasPrefix(line, "#") {
			fmt.Fprintln(&out, line)
			continue
		}
		var want []string
		j := i + 1
		if j < len(lines) && lines[j] == "----" {
			for j++; j < len(lines) && lines[j] != ""; j++ {
				want = append(want, lines[j])
			}
		}
		got := s.run(line)
		fmt.Fprintf(&out, "%s\n----\n", line)
		for _, g := range got {
			fmt.Fprintln(&out, g)
		}
		if !*update && !slices.Equal(got, want) {
			t.Errorf("%s:%d: %s\n got: %s\nwant: %s", file, i+1, line, strings.Join(got, "\n      "), strings.Join(want, "\n      "))
		}
		i = j - 1
	}
	if *update {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// story is a group on the table, with a hand that moves the clock.
type story struct {
	limits Limits
	g      *group
	now    time.Time
	ids    int
	writes []groupWrite
	out    []string
}

func newStory() *story {
	s := &story{
		limits: Limits{SessionTimeoutMin: time.Second, SessionTimeoutMax: time.Minute, InitialDelay: 3 * time.Second, MaxSize: 1000},
		now:    time.Unix(1_700_000_000, 0),
	}
	s.g = newGroup("g", &s.limits, func() string { s.ids++; return strconv.Itoa(s.ids) }, s.now)
	return s
}

func (s *story) say(format string, args ...any) { s.out = append(s.out, fmt.Sprintf(format, args...)) }

func (s *story) run(line string) []string {
	s.out = nil
	words := strings.Fields(line)
	arg := func(name, otherwise string) string {
		for _, w := range words {
			if v, ok := strings.CutPrefix(w, name+"="); ok {
				return v
			}
		}
		return otherwise
	}
	number := func(name string, otherwise int) int {
		n, _ := strconv.Atoi(arg(name, strconv.Itoa(otherwise)))
		return n
	}
	instance := func() *string {
		if i := arg("instance", ""); i != "" {
			return &i
		}
		return nil
	}
	d := &decision{now: s.now}
	before := s.g.state
	switch words[0] {
	case "limits":
		s.limits.InitialDelay = time.Duration(number("delay", 3)) * time.Second
		s.limits.MaxSize = number("size", 1000)
	case "join":
		client := words[1]
		r := &Join{
			Group: "g", MemberID: arg("id", ""), Instance: instance(), ClientID: client, ClientHost: "/h", ProtocolType: arg("type", "consumer"),
			SessionTimeout: time.Duration(number("session", 10)) * time.Second, RebalanceTimeout: time.Duration(number("rebalance", 20)) * time.Second,
			RequireMemberID: arg("v", "") == "4", CanSkip: arg("v", "") == "9",
		}
		for _, p := range strings.Split(arg("protocols", "range:t"), ",") {
			name, meta, _ := strings.Cut(p, ":")
			r.Protocols = append(r.Protocols, Protocol{name, []byte(meta)})
		}
		s.g.join(d, r, func(res JoinResult) { s.say("%s joined: %s", client, describeJoin(res)) })
	case "sync":
		client := words[1]
		r := &Sync{Group: "g", MemberID: arg("id", ""), Instance: instance(), Generation: int32(number("gen", 1)), Assignments: map[string][]byte{}}
		for _, a := range strings.Split(arg("assign", ""), ",") {
			if id, what, ok := strings.Cut(a, ":"); ok {
				r.Assignments[id] = []byte(what)
			}
		}
		if p := arg("protocol", ""); p != "" {
			r.Protocol = &p
		}
		s.g.sync(d, r, func(res SyncResult) { s.say("%s synced: %s", client, describeSync(res)) })
	case "heartbeat":
		s.say("%s", verdictName(s.g.heartbeat(d, arg("id", ""), instance(), int32(number("gen", 1)))))
	case "leave":
		s.say("%s", verdictName(s.g.leave(d, arg("id", ""), instance())))
	case "commit":
		s.say("%s", verdictName(s.g.commit(d, arg("id", ""), instance(), int32(number("gen", 1)), false)))
	case "stored":
		if len(s.writes) == 0 {
			s.say("nothing is being written")
			break
		}
		w := s.writes[0]
		s.writes = s.writes[1:]
		var err error
		if name := arg("error", ""); name != "" {
			err = errorNamed(name)
		}
		s.g.stored(d, &w, err)
	case "tick":
		span, err := time.ParseDuration(words[1])
		if err != nil {
			s.say("%v", err)
			break
		}
		s.pass(span)
		return s.out
	case "kill":
		s.g.kill(d, kerr.NotCoordinator)
	case "show":
		s.show()
	default:
		s.say("unknown command %s", words[0])
	}
	s.settle(d, before)
	return s.out
}

// pass moves the clock from deadline to deadline.
func (s *story) pass(span time.Duration) {
	end := s.now.Add(span)
	for {
		next := s.g.nextDeadline()
		if next.IsZero() || next.After(end) {
			break
		}
		if next.After(s.now) {
			s.now = next
		}
		d := &decision{now: s.now}
		before := s.g.state
		n := len(s.out)
		s.g.tick(d)
		s.settle(d, before)
		if len(s.out) > n {
			s.out = slices.Insert(s.out, n, fmt.Sprintf("after %s:", span-end.Sub(s.now)))
		}
	}
	s.now = end
}

func (s *story) settle(d *decision, before State) {
	if s.g.state != before {
		s.say("%s → %s", before, s.g.state)
	}
	for _, w := range d.writes {
		s.say("writes generation %d", w.generation)
	}
	s.writes = append(s.writes, d.writes...)
	d.deliver()
	checkInvariants(s.g, func(format string, args ...any) { s.say("BROKEN: "+format, args...) })
}

func (s *story) show() {
	g := s.g
	s.say("%s, generation %d, protocol %q, leader %s", g.state, g.generation, g.protocol, g.leader)
	for _, m := range g.order {
		left := "suspended"
		if !m.suspended() {
			left = m.deadline.Sub(s.now).String()
		}
		s.say("  %s assignment %q, session ends in %s", m.id, m.assignment, left)
	}
}

func describeJoin(r JoinResult) string {
	if r.Err != nil {
		return strings.TrimSpace(verdictName(r.Err) + " " + r.MemberID)
	}
	text := fmt.Sprintf("as %s, generation %d, %s/%s, leader %s", r.MemberID, r.Generation, r.ProtocolType, r.Protocol, r.Leader)
	if r.SkipAssignment {
		text += ", skip the assignment"
	}
	for _, m := range r.Members {
		text += fmt.Sprintf(", %s:%s", m.ID, m.Metadata)
	}
	return text
}

func describeSync(r SyncResult) string {
	if r.Err != nil {
		return verdictName(r.Err)
	}
	return fmt.Sprintf("%s/%s %q", r.ProtocolType, r.Protocol, r.Assignment)
}

func verdictName(err error) string {
	var k *kerr.Error
	switch {
	case err == nil:
		return "OK"
	case errors.As(err, &k):
		return k.Message
	}
	return err.Error()
}

func errorNamed(name string) error {
	for code := int16(1); code < 130; code++ {
		if e, ok := kerr.ErrorForCode(code).(*kerr.Error); ok && e.Message == name {
			return e
		}
	}
	return errors.New(name)
}

// checkInvariants says what must hold after every decision.
func checkInvariants(g *group, broken func(format string, args ...any)) {
	if len(g.order) != len(g.members) {
		broken("%d members in order, %d by id", len(g.order), len(g.members))
	}
	statics := 0
	for _, m := range g.order {
		if g.members[m.id] != m {
			broken("member %s is not under its id", m.id)
		}
		if m.instance != nil {
			statics++
			if g.statics[*m.instance] != m.id {
				broken("instance %s is %s, not %s", *m.instance, g.statics[*m.instance], m.id)
			}
		}
		if m.sync != nil && g.state != CompletingRebalance {
			broken("%s waits for an assignment in %s", m.id, g.state)
		}
		if g.syncing[m.id] && m.sync != nil {
			broken("%s is waited for though it has asked for its assignment", m.id)
		}
		if (g.state == CompletingRebalance || g.state == Stable) && g.generation > 0 && !m.supports(g.protocol) && m.join == nil {
			broken("%s does not support %s", m.id, g.protocol)
		}
	}
	if statics != len(g.statics) {
		broken("%d static members, %d known", statics, len(g.statics))
	}
	if len(g.order) > 0 && g.members[g.leader] == nil && g.state != Dead {
		broken("the leader %s is no member", g.leader)
	}
	if g.state == Empty && len(g.order) > 0 {
		broken("empty with %d members", len(g.order))
	}
	if (g.state == Stable || g.state == CompletingRebalance) && len(g.order) == 0 {
		broken("%s without members", g.state)
	}
	for id := range g.syncing {
		if g.members[id] == nil {
			broken("%s is waited for though it is no member", id)
		}
	}
	for id := range g.pending {
		if g.members[id] != nil {
			broken("%s is pending and a member", id)
		}
	}
}
