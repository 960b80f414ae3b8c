// Package sim drives the rules of broker/replication through seeded, exactly replayable runs: a handful of brokers, a
// controller, ZooKeeper sessions, a network that delays, loses and reorders, disks that lose what was not synced. Every
// decision about replication is taken by the real code; everything around it is a model.
//
// After every event the invariants I1 to I13 (see package replication) are checked on the whole world, which knows more
// than any broker: in particular the records that any leader ever called committed. At the end everything is healed, and the
// cluster must converge (I15).
//
// A run is a function of its seed. To look at a failing one: go test ./broker/replication/sim -run Seeds -args -sim.seed N -sim.trace.
package sim

import (
	"container/heap"
	"fmt"
	"math/rand"
	"strings"
	"time"

	"ottla/broker/replication"
	"ottla/internal/cluster"
)

// Config shapes a run. The zero value is completed by the seed.
type Config struct {
	Seed       int64
	Brokers    int           // 3 to 5
	Partitions int           // 1 to 3
	Replicas   int           // replication factor
	MinISR     int           // min.insync.replicas
	Faults     time.Duration // simulated time under faults
	Trace      bool          // keep every line, not only the last ones
}

// Result is what a run has seen.
type Result struct {
	Seed     int64
	Events   int
	Acked    int // acks=all appends answered positively
	Appended int
	Coverage map[string]int // how often each named state was reached
	Err      error
	Trace    []string
}

const (
	ms       = replication.Instant(time.Millisecond)
	second   = replication.Instant(time.Second)
	lagMax   = 3 * time.Second
	sessionT = 6 * second
	healFor  = 120 * second

	stillProducing = 8 * second // after the end of the faults
)

// world is everything there is.
type world struct {
	cfg        Config
	rng        *rand.Rand
	now        replication.Instant
	queue      eventHeap
	seq        uint64
	events     int
	brokers    []*node
	zk         *zookeeper
	truth      []*truth
	cover      map[string]int
	err        error
	trace      []string
	healed     bool
	healedAt   replication.Instant
	links      map[[2]int]*link // directed; index -1 is ZooKeeper
	nextID     uint64
	scripted   bool // faults come from a script alone
	forgetful  bool // controllers take Kafka's view of a write whose answer was lost
	coalesces  bool // controllers replace a request that waits by a newer one: brokers miss epochs
	keepsWaits bool // leaders that end do not end the waits for replication
	acked      int
}

type event struct {
	at  replication.Instant
	seq uint64
	fn  func()
}

type eventHeap []event

func (h eventHeap) Len() int { return len(h) }
func (h eventHeap) Less(i, j int) bool {
	return h[i].at < h[j].at || h[i].at == h[j].at && h[i].seq < h[j].seq
}
func (h eventHeap) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *eventHeap) Push(x any)   { *h = append(*h, x.(event)) }
func (h *eventHeap) Pop() any {
	old := *h
	e := old[len(old)-1]
	old[len(old)-1] = event{}
	*h = old[:len(old)-1]
	return e
}

// Run makes one run.
func Run(cfg Config) Result {
	w := newWorld(cfg)
	w.start()
	w.scheduleFaults()
	w.runUntil(w.now + replication.Instant(w.cfg.Faults))
	w.heal()
	w.converge()
	return Result{
		Seed: w.cfg.Seed, Events: w.events, Acked: w.acked, Appended: int(w.nextID), Coverage: w.cover, Err: w.err, Trace: w.trace,
	}
}

// converge gives the healed cluster up to healFor, and ends early once everything is as it should be.
func (w *world) converge() {
	end := w.now + healFor
	w.runUntil(w.now + stillProducing + 5*second)
	for w.err == nil && w.now < end && w.converged() != nil {
		w.runUntil(w.now + 5*second)
	}
	if err := w.converged(); err != nil {
		w.fail("%v", err)
	}
}

func newWorld(cfg Config) *world {
	rng := rand.New(rand.NewSource(cfg.Seed))
	pick := func(v *int, from, to int) {
		n := from + rng.Intn(to-from+1)
		if *v == 0 {
			*v = n
		}
	}
	pick(&cfg.Brokers, 3, 5)
	pick(&cfg.Partitions, 1, 3)
	pick(&cfg.Replicas, 3, 3)
	pick(&cfg.MinISR, 1, 2)
	if cfg.Faults == 0 {
		cfg.Faults = time.Duration(20+rng.Intn(40)) * time.Second
	}
	w := &world{cfg: cfg, rng: rng, cover: map[string]int{}, links: map[[2]int]*link{}}
	w.forgetful, w.coalesces, w.keepsWaits = w.chance(50), w.chance(50), w.chance(50)
	w.zk = newZookeeper(w)
	for i := range cfg.Brokers {
		w.brokers = append(w.brokers, newNode(w, cluster.BrokerID(i)))
	}
	for p := range cfg.Partitions {
		w.truth = append(w.truth, &truth{leaders: map[cluster.LeaderEpoch]cluster.BrokerID{}})
		var replicas []cluster.BrokerID
		for r := range min(cfg.Replicas, cfg.Brokers) {
			replicas = append(replicas, cluster.BrokerID((p+r)%cfg.Brokers))
		}
		w.zk.states = append(w.zk.states, &stateNode{
			replicas: replicas, leader: replicas[0], isr: replicas, epoch: 0, version: 0,
		})
	}
	return w
}

func (w *world) start() {
	for _, b := range w.brokers {
		b.boot()
	}
	w.every(200*ms, w.zk.expire)
	w.every(20*ms, w.produce)
	w.after(second, w.produceBurst)
}

func (w *world) after(d replication.Instant, fn func()) {
	w.seq++
	heap.Push(&w.queue, event{at: w.now + max(d, 0), seq: w.seq, fn: fn})
}

// every repeats fn for ever, roughly each d.
func (w *world) every(d replication.Instant, fn func()) {
	w.after(d/2+w.dur(d), func() {
		fn()
		w.every(d, fn)
	})
}

func (w *world) dur(upTo replication.Instant) replication.Instant {
	return replication.Instant(w.rng.Int63n(int64(max(upTo, 1))))
}

func (w *world) chance(percent int) bool { return w.rng.Intn(100) < percent }

func (w *world) runUntil(end replication.Instant) {
	for w.err == nil && w.queue.Len() > 0 && w.queue[0].at <= end {
		e := heap.Pop(&w.queue).(event)
		w.now = e.at
		w.events++
		w.step(e.fn)
		w.checkAll()
	}
	if w.err == nil {
		w.now = end
	}
}

// step runs one event; a broken invariant inside the real code is a finding like any other.
func (w *world) step(fn func()) {
	defer func() {
		if r := recover(); r != nil {
			if err, ok := r.(error); ok && strings.Contains(err.Error(), "invariant broken") {
				w.fail("%v", err)
				return
			}
			panic(r)
		}
	}()
	fn()
}

func (w *world) fail(format string, args ...any) {
	if w.err != nil {
		return
	}
	w.err = fmt.Errorf("seed %d, %v, event %d: %s", w.cfg.Seed, time.Duration(w.now), w.events, fmt.Sprintf(format, args...))
	w.logf("FAILED: %v", w.err)
}

func (w *world) logf(format string, args ...any) {
	const kept = 400
	if !w.cfg.Trace && len(w.trace) >= 2*kept {
		w.trace = append(w.trace[:0], w.trace[len(w.trace)-kept:]...)
	}
	w.trace = append(w.trace, fmt.Sprintf("%9.3f ", float64(w.now)/float64(second))+fmt.Sprintf(format, args...))
}

func (w *world) reached(state string) { w.cover[state]++ }

// link is a directed way between two nodes. Messages on one connection arrive in order; a new connection may overtake what
// an old one still carries.
type link struct {
	cut      bool
	slow     replication.Instant // extra delay
	lastAt   replication.Instant // arrival of the newest message of this connection
	overtake bool                // the next message opens a new connection
}

func (w *world) link(from, to int) *link {
	k := [2]int{from, to}
	l := w.links[k]
	if l == nil {
		l = &link{}
		w.links[k] = l
	}
	return l
}

// send delivers fn at the other end, or never.
func (w *world) send(from, to int, fn func()) {
	l := w.link(from, to)
	if l.cut {
		return
	}
	at := w.now + 100*1000 + w.dur(2*ms) + l.slow
	if w.chance(2) {
		at += w.dur(300 * ms)
	}
	if !l.overtake {
		at = max(at, l.lastAt+1)
	}
	l.overtake = false
	l.lastAt = at
	w.after(at-w.now, func() {
		if !l.cut {
			fn()
		}
	})
}

// call is a request with an answer, or a time limit after which the outcome is unknown and a new connection is made.
func (w *world) call(from, to int, limit replication.Instant, serve func(reply func(any)), done func(any, bool)) {
	over := false
	finish := func(v any, ok bool) {
		if over {
			return
		}
		over = true
		done(v, ok)
	}
	w.send(from, to, func() {
		serve(func(v any) {
			w.send(to, from, func() { finish(v, true) })
		})
	})
	w.after(limit, func() {
		if !over {
			w.link(from, to).overtake = true
			finish(nil, false)
		}
	})
}
