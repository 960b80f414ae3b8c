package controller

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ottla/zkcoord/zktest"
)

// TestRandomEvents runs random sequences of events: brokers that die, return, bounce, lose their sessions or shut down; topics that
// are created, widened, reassigned and deleted; lost answers of ZooKeeper. After each event what is in ZooKeeper must only have moved
// forward, every write must keep the invariants, and when everything is up again the cluster must come to rest in a whole state.
func TestRandomEvents(t *testing.T) {
	brokers := []int{1, 2, 3, 4}
	rapid.Check(t, func(rt *rapid.T) {
		kinds := []string{"create", "delete", "partitions", "kill", "start", "bounce", "expire", "shutdown", "reassign", "cancel",
			"preferred", "unclean", "catch-up", "shrink", "lose", "wait", "logdir"}
		var events []string
		for range rapid.IntRange(5, 25).Draw(rt, "length") {
			events = append(events, fmt.Sprintf("%s %d %d %d",
				rapid.SampledFrom(kinds).Draw(rt, "kind"),
				rapid.SampledFrom(brokers).Draw(rt, "broker"),
				rapid.IntRange(0, 2).Draw(rt, "topic"),
				rapid.IntRange(0, 1000).Draw(rt, "choice")))
		}
		var problem error
		synctest.Test(t, func(t *testing.T) { problem = runEvents(t, events) })
		if problem != nil {
			rt.Fatalf("%v\nevents %q", problem, events)
		}
	})
}

// runEvents returns the first thing that went wrong.
func runEvents(t *testing.T, events []string) (problem error) {
	w := newWorld(t, nil)
	defer w.close()
	report := func(format string, args ...any) {
		if problem == nil {
			problem = fmt.Errorf(format, args...)
		}
	}
	faults := &lostAnswers{check: checkWrites(report)}
	w.report = report
	w.opened = func(b *fakeBroker) { b.session.SetFault(faults.hook) }
	for id := range 4 {
		w.start(brokerArg(fmt.Sprint(id+1)), "")
	}
	synctest.Wait()
	s := &story{w: w}
	seen := &watcher{}
	for i, event := range events {
		s.event(t, event, faults)
		synctest.Wait()
		if err := seen.step(w); err != nil {
			report("after event %d: %w", i, err)
		}
		if problem != nil {
			return problem
		}
	}
	for _, id := range w.ids() {
		b := w.brokers[id]
		if !b.up {
			w.start(id, "")
		}
		w.mu.Lock()
		clear(b.failedDir)
		w.mu.Unlock()
	}
	s.run([]string{"bounce", "1"}) // clears marks of broken directories and of shutdowns
	for id := range 3 {
		s.run([]string{"bounce", fmt.Sprint(id + 2)})
	}
	for range 8 {
		time.Sleep(10 * time.Second)
		synctest.Wait()
		w.catchUp()
		synctest.Wait()
		if err := seen.step(w); err != nil {
			report("coming to rest: %w", err)
		}
	}
	if err := w.converged(true); err != nil {
		report("%w\n%s", err, w.dump())
	}
	return problem
}

// lostAnswers makes single answers of ZooKeeper get lost. The tree's lock guards it.
type lostAnswers struct {
	check func(zktest.Call) zktest.Fault
	next  zktest.Fault
}

func (l *lostAnswers) hook(call zktest.Call) zktest.Fault {
	l.check(call)
	fault := l.next
	l.next = zktest.NoFault
	return fault
}

// event does one random event; what makes no sense at the moment is left out.
func (s *story) event(t *testing.T, event string, faults *lostAnswers) {
	var kind string
	var broker, topic, choice int
	_, err := fmt.Sscan(event, &kind, &broker, &topic, &choice)
	require.NoError(t, err)
	w, id := s.w, brokerArg(fmt.Sprint(broker))
	b := w.brokers[id]
	name := fmt.Sprintf("t%d", topic)
	tp := fmt.Sprintf("%s-%d", name, choice%2)
	pick := func(k int) string { return fmt.Sprint((choice+k)%4 + 1) }
	switch kind {
	case "create":
		s.run([]string{"create", name, "0:" + pick(0) + "," + pick(1) + "," + pick(2), "1:" + pick(1) + "," + pick(2) + "," + pick(3)})
	case "delete":
		s.run([]string{"delete", name})
	case "partitions":
		s.run([]string{"partitions", name, "3"})
	case "kill":
		if b.up {
			w.kill(id)
		}
	case "start":
		if !b.up {
			w.start(id, "")
		}
	case "bounce":
		if b.up {
			s.run([]string{"bounce", fmt.Sprint(broker)})
		}
	case "expire":
		if b.up {
			w.expire(id)
		}
	case "shutdown":
		if b.up {
			s.run([]string{"shutdown", fmt.Sprint(broker)})
		}
	case "reassign":
		s.run([]string{"reassign", tp, pick(0) + "," + pick(1)})
	case "cancel":
		s.run([]string{"reassign", tp, "cancel"})
	case "preferred", "unclean":
		s.run([]string{"elect", kind, tp})
	case "catch-up":
		w.catchUp()
	case "shrink":
		states, _ := w.states()
		if st, found := states[tpArg(tp)]; found {
			w.propose(tpArg(tp), []int32{int32(st.State.Leader)})
		}
	case "lose":
		faults.next = zktest.Fault(1 + choice%2)
	case "wait":
		time.Sleep(time.Duration(choice%10) * time.Second)
	case "logdir":
		if b.up {
			s.run([]string{"logdir", fmt.Sprint(broker), tp})
		}
	}
}
