package groupcoord

import (
	"fmt"
	"testing"
	"time"

	"pgregory.net/rapid"

	"ottla/internal/cluster"
)

// TestGroupKeepsItsPromisesUnderAnySchedule drives the core with random members, times and failures. After every step:
// the invariants hold; generations never fall; a generation has one leader (a static one may be renamed); every parked
// request is answered at most once, and all are in the end, when nobody comes any more and every write is settled.
func TestGroupKeepsItsPromisesUnderAnySchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &hand{t: t, story: newStory(), leaders: map[int32]string{}, open: map[int]bool{}}
		h.limits.InitialDelay = time.Duration(rapid.IntRange(0, 4).Draw(t, "delay")) * time.Second
		h.limits.MaxSize = rapid.IntRange(1, 6).Draw(t, "max")
		t.Repeat(map[string]func(*rapid.T){
			"join": h.joinSome, "sync": h.syncSome, "heartbeat": h.heartbeatSome, "leave": h.leaveSome,
			"commit": h.commitSome, "stored": h.storeSome, "tick": h.tickSome, "": h.check,
		})
		h.drain()
	})
}

// hand plays the members.
type hand struct {
	*story
	t          *rapid.T
	known      []known // ids that were told to somebody
	leaders    map[int32]string
	open       map[int]bool // requests that were not answered
	requests   int
	generation int32
	renamed    bool
}

type known struct {
	id       string
	instance *string
	gen      int32
}

func (h *hand) do(fn func(d *decision)) {
	d := &decision{now: h.now}
	fn(d)
	h.writes = append(h.writes, d.writes...)
	d.deliver()
	checkInvariants(h.g, h.t.Fatalf)
	if h.g.generation < h.generation {
		h.t.Fatalf("generation went from %d to %d", h.generation, h.g.generation)
	}
	h.generation = h.g.generation
}

func (h *hand) request() int {
	h.requests++
	h.open[h.requests] = true
	return h.requests
}

func (h *hand) answered(n int) {
	if !h.open[n] {
		h.t.Fatalf("request %d was answered twice", n)
	}
	delete(h.open, n)
}

func (h *hand) pick() known {
	if len(h.known) == 0 || rapid.IntRange(0, 9).Draw(h.t, "stranger") == 0 {
		return known{id: "stranger-0", gen: 1}
	}
	k := rapid.SampledFrom(h.known).Draw(h.t, "member")
	if rapid.IntRange(0, 9).Draw(h.t, "old") == 0 {
		k.gen--
	}
	return k
}

func (h *hand) joinSome(t *rapid.T) {
	r := &Join{Group: "g", ClientID: "c", ProtocolType: "consumer", SessionTimeout: 10 * time.Second}
	r.RebalanceTimeout = time.Duration(rapid.IntRange(1, 20).Draw(t, "rebalance")) * time.Second
	r.Protocols = rapid.SampledFrom([][]Protocol{
		{{"range", []byte("a")}}, {{"range", []byte("b")}, {"sticky", nil}}, {{"sticky", nil}, {"range", []byte("a")}}, {{"odd", nil}}, nil,
	}).Draw(t, "protocols")
	r.RequireMemberID, r.CanSkip = rapid.Bool().Draw(t, "v4"), rapid.Bool().Draw(t, "v9")
	if rapid.Bool().Draw(t, "again") {
		k := h.pick()
		r.MemberID, r.Instance = k.id, k.instance
	} else if rapid.IntRange(0, 2).Draw(t, "static") == 0 {
		i := rapid.SampledFrom([]string{"one", "two"}).Draw(t, "instance")
		r.Instance = &i
		h.renamed = true
	}
	n := h.request()
	h.do(func(d *decision) {
		h.g.join(d, r, func(res JoinResult) {
			h.answered(n)
			if res.MemberID != "" {
				h.known = append(h.known, known{res.MemberID, r.Instance, res.Generation})
			}
			if res.Err == nil && len(res.Members) > 0 && !h.renamed {
				if was, ok := h.leaders[res.Generation]; ok && was != res.MemberID {
					t.Fatalf("generation %d has the leaders %s and %s", res.Generation, was, res.MemberID)
				}
				h.leaders[res.Generation] = res.MemberID
			}
		})
	})
}

func (h *hand) syncSome(t *rapid.T) {
	k := h.pick()
	r := &Sync{Group: "g", MemberID: k.id, Instance: k.instance, Generation: k.gen, Assignments: map[string][]byte{}}
	for _, m := range h.g.order {
		r.Assignments[m.id] = fmt.Appendf(nil, "%s in %d", m.id, k.gen)
	}
	n := h.request()
	h.do(func(d *decision) {
		h.g.sync(d, r, func(res SyncResult) {
			h.answered(n)
			if res.Err == nil && len(res.Assignment) > 0 && !h.renamed {
				if want := fmt.Sprintf("%s in %d", k.id, k.gen); string(res.Assignment) != want {
					t.Fatalf("%s got %q", k.id, res.Assignment)
				}
			}
		})
	})
}

func (h *hand) heartbeatSome(*rapid.T) {
	k := h.pick()
	h.do(func(d *decision) { _ = h.g.heartbeat(d, k.id, k.instance, k.gen) })
}

func (h *hand) commitSome(t *rapid.T) {
	k := h.pick()
	h.do(func(d *decision) {
		if err := h.g.commit(d, k.id, k.instance, k.gen, false); err == nil && k.gen != h.g.generation && k.gen >= 0 {
			t.Fatalf("a commit of generation %d was taken in %d", k.gen, h.g.generation)
		}
	})
}

func (h *hand) leaveSome(*rapid.T) {
	k := h.pick()
	h.do(func(d *decision) { _ = h.g.leave(d, k.id, k.instance) })
}

func (h *hand) storeSome(t *rapid.T) {
	if len(h.writes) == 0 {
		return
	}
	w := h.writes[0]
	h.writes = h.writes[1:]
	var err error
	if rapid.IntRange(0, 4).Draw(t, "fails") == 0 {
		err = errorNamed("NOT_ENOUGH_REPLICAS")
	}
	h.do(func(d *decision) { h.g.stored(d, &w, err) })
}

func (h *hand) tickSome(t *rapid.T) {
	h.pass(time.Duration(rapid.IntRange(1, 30_000).Draw(t, "ms")) * time.Millisecond)
	h.generation = max(h.generation, h.g.generation)
}

func (h *hand) check(t *rapid.T) {
	if len(h.out) > 0 {
		for _, line := range h.out {
			if len(line) > 6 && line[:6] == "BROKEN" {
				t.Fatal(line)
			}
		}
		h.out = nil
	}
}

// drain lets time pass until everybody's session has ended.
func (h *hand) drain() {
	for range 100 {
		for len(h.writes) > 0 {
			w := h.writes[0]
			h.writes = h.writes[1:]
			h.do(func(d *decision) { h.g.stored(d, &w, nil) })
		}
		h.pass(time.Minute)
		if h.g.state == Empty && len(h.writes) == 0 && len(h.g.pending) == 0 {
			break
		}
	}
	if h.g.state != Empty {
		h.t.Fatalf("the group is %s though nobody came for hours", h.g.state)
	}
	if len(h.open) > 0 {
		h.t.Fatalf("%d requests were never answered", len(h.open))
	}
}

// TestCommittedOffsetsGoForward: whatever the order in which appends are reported, the newest record counts.
func TestCommittedOffsetsGoForward(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o offsets
		newest := map[cluster.TopicPartition]int64{}
		order := rapid.Permutation([]int64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}).Draw(t, "order")
		for _, at := range order {
			tp := cluster.TopicPartition{Topic: "t", Partition: int32(at % 2)}
			o.put(tp, Committed{Offset: at * 10, ExpireMs: noTimestamp, at: at})
			newest[tp] = max(newest[tp], at)
			if c, _ := o.get(tp.Topic, tp.Partition); c.at != newest[tp] {
				t.Fatalf("%v is at the record %d, not %d", tp, c.at, newest[tp])
			}
		}
	})
}
