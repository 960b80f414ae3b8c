package controller

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ottla/zkcoord/zktest"
)

// crashStories are operations during which the controller loses its session at each of its writes in turn. The commands are those of
// the scenarios.
var crashStories = map[string]struct{ before, during []string }{
	"create topic": {
		during: []string{"create u 0:1,2,3 1:2,3,1 2:3,1,2"},
	},
	"create partitions": {
		during: []string{"partitions t 5"},
	},
	"broker death": {
		during: []string{"kill 3", "wait 100ms", "start 3"},
	},
	"reassignment": {
		during: []string{"reassign t-0 4,2", "catch-up", "catch-up"},
	},
	"reassignment by znode": {
		during: []string{`znode /admin/reassign_partitions {"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[4,2]},{"topic":"t","partition":1,"replicas":[3,4]}]}`,
			"catch-up", "catch-up"},
	},
	"cancelled reassignment": {
		before: []string{"reassign t-0 4,2"},
		during: []string{"reassign t-0 cancel", "catch-up"},
	},
	"topic deletion": {
		during: []string{"delete t"},
	},
	"preferred election": {
		before: []string{"kill 3", "start 3", "catch-up"},
		during: []string{"elect preferred t-2"},
	},
	"controlled shutdown": {
		during: []string{"shutdown 2", "kill 2", "start 2"},
	},
	"failover": {
		before: []string{"kill 4"},
		during: []string{"expire 1", "start 4"},
	},
}

// TestControllerCrashAtEveryWrite lets the controller lose its session at every write of an operation, before and after the write is
// applied, and expects the next controller to bring everything into a consistent state.
func TestControllerCrashAtEveryWrite(t *testing.T) {
	for name, story := range crashStories {
		for _, fault := range []zktest.Fault{zktest.LostBefore, zktest.LostAfter} {
			t.Run(fmt.Sprintf("%s/%s", name, faultName(fault)), func(t *testing.T) {
				for at := 0; ; at++ {
					hit := false
					synctest.Test(t, func(t *testing.T) { hit = crashOnce(t, story.before, story.during, at, fault) })
					if !hit {
						require.Positive(t, at, "the operation wrote nothing")
						t.Logf("%d writes", at)
						return
					}
				}
			})
		}
	}
}

func faultName(f zktest.Fault) string {
	if f == zktest.LostBefore {
		return "before"
	}
	return "after"
}

// crashOnce reports false when the operation made fewer writes than at.
func crashOnce(t *testing.T, before, during []string, at int, fault zktest.Fault) bool {
	t.Helper()
	s := &story{w: newWorld(t, nil)}
	w := s.w
	defer w.close()
	s.run(strings.Fields("start 1 2 3 4"))
	s.run(strings.Fields("create t 0:1,2,3 1:2,3,1 2:3,1,2"))
	for _, command := range before {
		s.run(strings.Fields(command))
	}
	seen := &watcher{}
	require.NoError(t, seen.step(w))

	crashed := make(chan struct{})
	var victim *fakeBroker
	var disarmed atomic.Bool
	n, dead := 0, map[*zktest.FakeSession]bool{} // guarded by the tree's lock
	check := checkWrites(t.Errorf)
	arm := func(b *fakeBroker) {
		s := b.session
		s.SetFault(func(call zktest.Call) zktest.Fault {
			check(call)
			if dead[s] {
				return zktest.LostBefore
			}
			if n++; disarmed.Load() || n-1 != at {
				return zktest.NoFault
			}
			dead[s], victim = true, b
			close(crashed)
			return fault
		})
	}
	for _, id := range w.ids() {
		if w.brokers[id].up {
			arm(w.brokers[id])
		}
	}
	w.opened = arm
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-crashed:
		case <-time.After(time.Minute):
			return
		}
		w.expire(victim.id)
	}()
	for _, command := range during {
		s.run(strings.Fields(command))
		require.NoError(t, seen.step(w))
	}
	<-done
	disarmed.Store(true)
	for range 5 {
		time.Sleep(10 * time.Second)
		synctest.Wait()
		require.NoError(t, seen.step(w))
		w.catchUp()
		synctest.Wait()
	}
	story := strings.Join(during, " ")
	strays := strings.Contains(story, "reassign") || strings.Contains(story, "delete")
	require.NoError(t, w.converged(strays), "crash at write %d\n%s", at, w.dump())
	return victim != nil
}
