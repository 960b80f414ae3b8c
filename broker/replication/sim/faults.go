package sim

import (
	"fmt"
	"slices"

	"ottla/broker/replication"
	"ottla/internal/cluster"
)

// produce lets a client append somewhere, preferably where the leader is, but also to whoever still believes to lead.
func (w *world) produce() {
	if w.healed && w.now > w.healedAt+stillProducing {
		return
	}
	p := w.rng.Intn(w.cfg.Partitions)
	for _, b := range w.brokers {
		if b.up && !b.paused && b.replicas[p].state.Role() == replication.Leader && w.chance(70) {
			b.append(p, w.chance(70))
		}
	}
}

// produceBurst makes a leader run ahead of its followers now and then.
func (w *world) produceBurst() {
	for range w.rng.Intn(15) {
		w.produce()
	}
	w.after(w.dur(2*second), w.produceBurst)
}

// scheduleFaults injects a fault every second or so; half of them are aimed (aimFault).
func (w *world) scheduleFaults() {
	w.after(2*second+w.dur(2*second), func() {
		if w.healed {
			return
		}
		w.fault()
		w.scheduleFaults()
	})
}

// aimFault is called at elections, changes of an ISR and truncations: the windows in which faults hurt are short.
func (w *world) aimFault() {
	if w.healed || w.scripted || !w.chance(12) {
		return
	}
	w.after(w.dur(30*ms), func() {
		if !w.healed {
			w.fault()
		}
	})
}

func (w *world) anyBroker() *node { return w.brokers[w.rng.Intn(len(w.brokers))] }

// fault picks one. While a broker that lost records is still in an ISR in ZooKeeper no other is injected: one lossy crash
// at a time is what is promised to be survived.
func (w *world) fault() {
	if w.fragile() {
		return
	}
	n := w.anyBroker()
	switch w.rng.Intn(13) {
	case 0, 1:
		w.kill(n)
	case 2:
		w.loseSomePower(n)
	case 3, 4:
		w.pause(n)
	case 5:
		w.cutBrokers(n)
	case 6:
		w.cutZookeeper(n)
	case 7:
		w.slowDown(n)
	case 8:
		w.prefer(w.rng.Intn(w.cfg.Partitions))
	case 9, 10, 11:
		w.shuffle()
	default:
		w.oneWay(n)
	}
}

func (w *world) fragile() bool {
	for _, b := range w.brokers {
		if !b.unclean {
			continue
		}
		for _, s := range w.zk.states {
			if slices.Contains(s.isr, b.id) {
				return true
			}
		}
	}
	return false
}

func (w *world) kill(n *node) {
	if !n.up {
		return
	}
	w.reached("kill")
	w.logf("FAULT kill %v", n.id)
	n.die()
	w.after(100*ms+w.dur(9*second), func() {
		if !n.up {
			w.logf("start %v", n.id)
			n.boot()
		}
	})
}

// loseSomePower is a crash that loses unsynced records, if the cluster is whole enough to be obliged to survive it.
func (w *world) loseSomePower(n *node) {
	if !w.wholeWithout(n) {
		return
	}
	lost := int64(0)
	w.logf("FAULT power loss of %v", n.id)
	n.die()
	for _, d := range n.disks {
		lost += d.losePower(w)
	}
	if lost > 0 {
		w.reached("power loss with lost records")
	}
	n.unclean = true
	w.after(50*ms+w.dur(9*second), func() {
		w.logf("start %v", n.id)
		n.boot()
	})
}

// wholeWithout reports whether every partition of n has another healthy in-sync member, and nothing else is wrong.
func (w *world) wholeWithout(n *node) bool {
	for _, b := range w.brokers {
		if !b.up || b.paused || b.unclean || b.brokerEpoch == 0 {
			return false
		}
		if r, ok := w.zk.brokers[b.id]; !ok || r.session != b.session {
			return false
		}
		for _, r := range b.replicas {
			if r.state.PendingISR() != nil {
				return false
			}
		}
	}
	for _, l := range w.links {
		if l.cut {
			return false
		}
	}
	for _, s := range w.zk.states {
		if slices.Contains(s.isr, n.id) && len(s.isr) < 2 {
			return false
		}
	}
	return true
}

func (w *world) pause(n *node) {
	if !n.up || n.paused {
		return
	}
	w.reached("pause")
	w.logf("FAULT pause %v", n.id)
	n.paused = true
	life := n.life
	w.after(200*ms+w.dur(12*second), func() {
		if n.life == life {
			w.resume(n)
		}
	})
}

// resume lets a stopped process do what has piled up, in order.
func (w *world) resume(n *node) {
	if !n.paused {
		return
	}
	w.logf("resume %v", n.id)
	n.paused = false
	backlog := n.backlog
	n.backlog = nil
	life := n.life
	for _, fn := range backlog {
		if n.life == life && n.up {
			w.step(fn)
			w.checkAll()
		}
	}
}

func (w *world) cutFor(l *link, d replication.Instant) {
	l.cut = true
	w.after(d, func() {
		l.cut = false
		l.overtake = true
	})
}

func (w *world) cutBrokers(n *node) {
	w.reached("broker cut off from brokers")
	d := 200*ms + w.dur(10*second)
	w.logf("FAULT cut %v off from brokers", n.id)
	for _, other := range w.brokers {
		if other != n && w.chance(75) {
			w.cutFor(w.link(n.index, other.index), d)
			w.cutFor(w.link(other.index, n.index), d)
		}
	}
}

func (w *world) cutZookeeper(n *node) {
	w.reached("broker cut off from ZooKeeper")
	d := 200*ms + w.dur(12*second)
	w.logf("FAULT cut %v off from ZooKeeper", n.id)
	w.cutFor(w.link(n.index, zkIndex), d)
	w.cutFor(w.link(zkIndex, n.index), d)
}

// oneWay cuts one direction: requests arrive and are carried out, answers are lost, or the other way round.
func (w *world) oneWay(n *node) {
	w.reached("one-way cut")
	to := w.rng.Intn(len(w.brokers)+1) - 1
	if to == n.index {
		return
	}
	d := 100*ms + w.dur(5*second)
	w.logf("FAULT one-way cut %v %d", n.id, to)
	if w.chance(50) {
		w.cutFor(w.link(n.index, to), d)
		return
	}
	w.cutFor(w.link(to, n.index), d)
}

func (w *world) slowDown(n *node) {
	w.reached("slow link")
	l := w.link(n.index, w.rng.Intn(len(w.brokers)+1)-1)
	l.slow = w.dur(900 * ms)
	w.after(w.dur(8*second), func() { l.slow = 0 })
}

func (w *world) prefer(p int) {
	for _, b := range w.brokers {
		if b.up && b.controller != nil {
			c := b.controller
			w.step(b.guard(func() { c.do(func(done func()) { c.prefer(p, done) }) }))
		}
	}
}

// shuffle moves one partition's leadership several times, faster than followers fetch, with appends in between: logs get
// tails of several epochs that nobody else has (KIP-279).
func (w *world) shuffle() {
	w.reached("shuffle")
	p := w.rng.Intn(w.cfg.Partitions)
	at := replication.Instant(0)
	for range 2 + w.rng.Intn(6) {
		at += w.dur(40 * ms)
		w.after(at, func() { w.prefer(p) })
		for range w.rng.Intn(4) {
			w.after(at+w.dur(30*ms), w.produce)
		}
	}
}

// heal ends all faults.
func (w *world) heal() {
	if w.err != nil {
		return
	}
	w.healed, w.healedAt = true, w.now
	w.logf("heal")
	for _, l := range w.links {
		if l.cut {
			l.overtake = true
		}
		l.cut, l.slow = false, 0
	}
	for _, b := range w.brokers {
		if !b.up {
			b.boot()
		}
		w.resume(b)
	}
}

// checkAll runs the checks that need the whole world. What compares whole logs runs now and then.
func (w *world) checkAll() {
	for p, s := range w.zk.states {
		for _, b := range w.brokers {
			if b.up {
				w.checkReplica(p, s, b)
			}
		}
		if w.events%16 == 0 {
			w.checkMembers(p, s)
		}
	}
}

func (w *world) checkReplica(p int, s *stateNode, b *node) {
	r, d := b.replicas[p], b.disks[p]
	if err := r.state.Verify(); err != nil {
		w.fail("partition %d on %v: %v", p, b.id, err)
	}
	if hw := r.state.HighWatermark(); hw != r.checked {
		r.checked = hw
		if err := w.truth[p].agree(d, hw, false); err != nil {
			w.fail("I11: partition %d: high watermark %d of %v: %v", p, hw, b.id, err)
		}
	}
	if r.state.Role() == replication.Leader && r.state.LeaderEpoch() == s.epoch {
		for _, id := range s.isr {
			if !slices.Contains(r.state.MaximalISR(), id) {
				w.fail("I4: partition %d: %v counts on %v, ZooKeeper says %v", p, b.id, r.state.MaximalISR(), s.isr)
			}
		}
	}
}

// checkMembers is I3, for members that are registered: others cannot be elected.
func (w *world) checkMembers(p int, s *stateNode) {
	for _, id := range s.isr {
		if _, registered := w.zk.brokers[id]; !registered || w.brokers[id].unclean {
			continue
		}
		if err := w.truth[p].holds(w.brokers[id].disks[p]); err != nil {
			w.fail("I3: partition %d: member %v: %v", p, id, err)
		}
	}
}

// converged is I15, and I5 on what everybody has at the end.
func (w *world) converged() error {
	for p, s := range w.zk.states {
		if err := w.convergedPartition(p, s); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) convergedPartition(p int, s *stateNode) error {
	if s.leader == cluster.NoBroker {
		return fmt.Errorf("I15: partition %d has no leader", p)
	}
	leader := w.brokers[s.leader]
	r, end := leader.replicas[p].state, leader.disks[p].end()
	switch {
	case r.Role() != replication.Leader || r.LeaderEpoch() != s.epoch:
		return fmt.Errorf("I15: partition %d: %v does not lead epoch %d", p, s.leader, s.epoch)
	case len(s.isr) != len(s.replicas) || r.PendingISR() != nil || len(r.ISR()) != len(s.isr):
		return fmt.Errorf("I15: partition %d: ISR %v of %v, leader's %v, pending %v", p, s.isr, s.replicas, r.ISR(), r.PendingISR())
	case r.HighWatermark() != end:
		return fmt.Errorf("I15: partition %d: high watermark %d, log end %d", p, r.HighWatermark(), end)
	case len(leader.replicas[p].waits) > 0 && !w.keepsWaits:
		return fmt.Errorf("I15: partition %d: appends still wait", p)
	}
	for _, id := range s.replicas {
		d := w.brokers[id].disks[p]
		if err := w.truth[p].holds(d); err != nil || d.end() != end {
			return fmt.Errorf("I5: partition %d: log of %v ends at %d, the leader's at %d: %v", p, id, d.end(), end, err)
		}
	}
	return nil
}
