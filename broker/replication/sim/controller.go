package sim

import (
	"slices"

	"ottla/broker/replication"
	"ottla/internal/cluster"
)

// controller is a simple one: it does one thing at a time, each write conditional on the controller's epoch and on the
// state's version. Decisions are Kafka's: first in assignment order that lives and is in sync.
type controller struct {
	n       *node
	epoch   int
	session *zkSession
	live    map[cluster.BrokerID]cluster.BrokerEpoch
	states  []*stateNode
	offline []map[cluster.BrokerID]cluster.BrokerEpoch // replicas that answered KAFKA_STORAGE_ERROR, in which registration
	tasks   []func(done func())
	busy    bool
	over    bool
	senders map[cluster.BrokerID]*sender
}

func newController(n *node, s *zkSession, epoch int) *controller {
	c := &controller{
		n: n, epoch: epoch, session: s, live: map[cluster.BrokerID]cluster.BrokerEpoch{},
		senders: map[cluster.BrokerID]*sender{},
	}
	for range n.w.cfg.Partitions {
		c.offline = append(c.offline, map[cluster.BrokerID]cluster.BrokerEpoch{})
	}
	c.do(c.failover)
	return c
}

func (c *controller) resign() {
	if !c.over {
		c.n.w.logf("%v: resigns as controller of epoch %d", c.n.id, c.epoch)
	}
	c.over = true
	c.tasks = nil
	if c.n.controller == c {
		c.n.controller = nil
	}
}

// do queues a task; tasks run one after the other, each until it calls done.
func (c *controller) do(task func(done func())) {
	if c.over {
		return
	}
	c.tasks = append(c.tasks, task)
	c.next()
}

func (c *controller) next() {
	if c.busy || c.over || len(c.tasks) == 0 {
		return
	}
	task := c.tasks[0]
	c.tasks = c.tasks[1:]
	c.busy = true
	task(func() {
		c.busy = false
		c.next()
	})
}

// read reads the tree, again and again until it gets an answer.
func (c *controller) read(then func(tree)) {
	c.n.w.zk.call(c.n, c.session, c.n.w.zk.read, func(v any, err error) {
		switch {
		case c.over:
		case err == errSessionLost:
			c.resign()
		case err != nil:
			c.read(then)
		default:
			t := v.(tree)
			if t.active != c.n.id {
				c.resign()
				return
			}
			then(t)
		}
	})
}

// write makes a conditional write of one state. After a lost connection it looks what has become of it.
func (c *controller) write(p int, next *stateNode, then func(ok bool)) {
	next.controllerEpoch = c.epoch
	w := c.n.w
	version := next.version
	w.zk.call(c.n, c.session, func() (any, error) { return w.zk.setState(p, next, c.epoch, version) }, func(v any, err error) {
		switch {
		case c.over:
		case err == nil:
			next.version = v.(cluster.PartitionEpoch)
			c.states[p] = next
			then(true)
		case err == errFenced || err == errSessionLost:
			c.resign()
		case w.forgetful && !next.mustKnow:
			// As Kafka's: the client repeats the write by itself, finds its own first try in the way, and the controller answers
			// "invalid version" from a cache that it does not refresh.
			w.reached("controller does not know what it wrote")
			then(false)
		default: // bad version, or unknown outcome
			c.read(func(t tree) {
				c.states[p] = t.states[p]
				mine := t.states[p].version == version+1 && t.states[p].controllerEpoch == c.epoch &&
					t.states[p].epoch == next.epoch && slices.Equal(t.states[p].isr, next.isr)
				if mine {
					w.reached("controller write whose answer was lost")
				}
				then(mine)
			})
		}
	})
}

func (c *controller) failover(done func()) {
	c.read(func(t tree) {
		c.live, c.states = t.brokers, t.states
		c.settle(0, func() {
			c.sendAll(c.liveIDs())
			done()
		})
	})
}

func (c *controller) brokersChanged(done func()) {
	c.read(func(t tree) {
		var fresh []cluster.BrokerID
		for id, epoch := range t.brokers {
			if c.live[id] != epoch {
				fresh = append(fresh, id)
			}
		}
		slices.Sort(fresh)
		// A broker that came back with another registration is dead first, then new.
		for _, id := range fresh {
			if _, bounced := c.live[id]; bounced {
				c.n.w.reached("bounced broker")
				delete(t.brokers, id)
			}
		}
		gone := len(t.brokers) != len(c.live)
		c.live = t.brokers
		c.settle(0, func() {
			if len(fresh) == 0 {
				if gone {
					c.sendAll(c.liveIDs())
				}
				done()
				return
			}
			c.read(func(t tree) {
				c.live = t.brokers
				c.settle(0, func() {
					c.sendAll(c.liveIDs())
					done()
				})
			})
		})
	})
}

func (c *controller) liveIDs() []cluster.BrokerID {
	var ids []cluster.BrokerID
	for id := range c.live {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

func (c *controller) usable(p int, id cluster.BrokerID) bool {
	epoch, live := c.live[id]
	bad, off := c.offline[p][id]
	return live && (!off || bad != epoch)
}

// settle brings every partition, from p on, to what the living allow: elects leaders, removes the dead from ISRs.
func (c *controller) settle(p int, done func()) {
	if p == len(c.states) {
		done()
		return
	}
	s := c.states[p]
	next := s.clone()
	next.isr = slices.DeleteFunc(next.isr, func(id cluster.BrokerID) bool { return !c.usable(p, id) })
	leaderGone := s.leader == cluster.NoBroker || !c.usable(p, s.leader)
	switch {
	case leaderGone && len(next.isr) > 0:
		for _, id := range s.replicas {
			if slices.Contains(next.isr, id) {
				next.leader = id
				break
			}
		}
	case leaderGone && s.leader != cluster.NoBroker:
		next.leader, next.isr = cluster.NoBroker, slices.Clone(s.isr)
		if len(next.isr) > 1 {
			next.isr = next.isr[:1] // the last one that is handled stays
		}
		c.n.w.reached("partition without leader")
	case leaderGone, len(next.isr) == len(s.isr):
		c.settle(p+1, done)
		return
	}
	next.epoch++
	next.recovering = false
	next.mustKnow = true
	c.write(p, next, func(ok bool) {
		if !ok {
			c.settle(p, done) // look again
			return
		}
		c.n.w.reached("election or removal by the controller")
		c.settle(p+1, done)
	})
}

// prefer moves the leadership of a partition to another member, as an administrator or the balancer would.
func (c *controller) prefer(p int, done func()) {
	replicas := c.states[p].replicas
	c.moveTo(p, replicas[c.n.w.rng.Intn(len(replicas))], done)
}

func (c *controller) moveTo(p int, id cluster.BrokerID, done func()) {
	c.read(func(t tree) {
		c.states = t.states
		next := c.states[p].clone()
		if next.leader == cluster.NoBroker || next.leader == id || !slices.Contains(next.isr, id) || !c.usable(p, id) {
			done()
			return
		}
		next.leader = id
		next.epoch++
		next.mustKnow = true
		c.write(p, next, func(ok bool) {
			if ok {
				c.n.w.reached("preferred election")
				c.sendAll(c.liveIDs())
			}
			done()
		})
	})
}

// alteration is one partition's AlterPartition request.
type alteration struct {
	from        cluster.BrokerID
	brokerEpoch cluster.BrokerEpoch
	p           int
	replication.Proposal
	retried bool
}

// alterPartition judges in Kafka's order, with the members' registrations compared (KIP-903).
func (c *controller) alterPartition(a alteration, reply func(any)) {
	c.do(func(done func()) {
		answer := func(err error) {
			reply(alterAnswer{err: err, state: c.states[a.p].clone()})
			done()
		}
		s := c.states[a.p]
		switch {
		case c.live[a.from] != a.brokerEpoch:
			reply(alterAnswer{again: true})
			done()
		case a.PartitionEpoch > s.version || a.LeaderEpoch > s.epoch:
			reply(alterAnswer{again: true})
			done()
			c.do(c.failover) // it doubts itself
		case a.LeaderEpoch < s.epoch || s.leader != a.from:
			answer(errFencedLeader)
		case sameMembers(s.isr, a.ISR) && a.PartitionEpoch <= s.version:
			answer(nil)
		case a.PartitionEpoch < s.version:
			answer(errInvalidVersion)
		case !c.eligible(a):
			c.n.w.reached("ineligible replica")
			answer(errIneligible)
		default:
			c.read(func(t tree) {
				if !c.asRegistered(a, s, t) {
					c.n.w.reached("ineligible replica")
					answer(errIneligible)
					return
				}
				c.alter(a, s, answer)
			})
		}
	})
}

func (c *controller) alter(a alteration, s *stateNode, answer func(error)) {
	next := s.clone()
	next.isr = members(a.ISR)
	next.version = a.PartitionEpoch
	next.recovering, next.mustKnow = false, false
	c.write(a.p, next, func(ok bool) {
		if !ok {
			answer(errInvalidVersion)
			return
		}
		c.n.w.reached("ISR changed by its leader")
		c.n.w.aimFault()
		answer(nil)
	})
}

// asRegistered reports whether those that are to join are still registered as this controller believes: it may not have heard yet.
func (c *controller) asRegistered(a alteration, s *stateNode, t tree) bool {
	for _, m := range a.ISR {
		if !slices.Contains(s.isr, m.Broker) && t.brokers[m.Broker] != c.live[m.Broker] {
			return false
		}
	}
	return true
}

func (c *controller) eligible(a alteration) bool {
	for _, m := range a.ISR {
		epoch, live := c.live[m.Broker]
		if !live || !c.usable(a.p, m.Broker) || m.Epoch != cluster.NoBrokerEpoch && m.Epoch != epoch {
			return false
		}
	}
	return true
}

func members(isr []replication.Member) []cluster.BrokerID {
	var out []cluster.BrokerID
	for _, m := range isr {
		out = append(out, m.Broker)
	}
	return out
}

func sameMembers(isr []cluster.BrokerID, other []replication.Member) bool {
	if len(isr) != len(other) {
		return false
	}
	for _, m := range other {
		if !slices.Contains(isr, m.Broker) {
			return false
		}
	}
	return true
}

// sender keeps the order of requests to one broker: one in flight, repeated until answered.
type sender struct {
	queue []decisionRequest
	busy  bool
}

// decisionRequest stands for UpdateMetadata followed by LeaderAndIsr.
type decisionRequest struct {
	controllerEpoch int
	controller      cluster.BrokerID
	brokerEpoch     cluster.BrokerEpoch
	live            map[cluster.BrokerID]bool
	states          []*stateNode
}

func (c *controller) sendAll(to []cluster.BrokerID) {
	live := map[cluster.BrokerID]bool{}
	for id := range c.live {
		live[id] = true
	}
	if !c.n.w.healed && c.n.w.chance(10) {
		// The metadata is behind: somebody is missing in it until the next word.
		delete(live, cluster.BrokerID(c.n.w.rng.Intn(c.n.w.cfg.Brokers)))
		c.n.w.after(c.n.w.dur(2*second), c.n.guard(func() {
			if !c.over {
				c.sendAll(c.liveIDs())
			}
		}))
	}
	states := make([]*stateNode, len(c.states))
	for i, s := range c.states {
		states[i] = s.clone()
	}
	for _, id := range to {
		s := c.senders[id]
		if s == nil {
			s = &sender{}
			c.senders[id] = s
		}
		if waiting := min(len(s.queue), 1); c.n.w.coalesces && len(s.queue) > waiting {
			c.n.w.reached("request replaced by a newer one")
			s.queue = s.queue[:waiting] // the first one may be on its way
		}
		s.queue = append(s.queue, decisionRequest{
			controllerEpoch: c.epoch, controller: c.n.id, brokerEpoch: c.live[id], live: live, states: states,
		})
		c.pump(id, s)
	}
}

func (c *controller) pump(id cluster.BrokerID, s *sender) {
	if s.busy || c.over || len(s.queue) == 0 {
		return
	}
	req := s.queue[0]
	if c.live[id] != req.brokerEpoch {
		s.queue = s.queue[1:] // not registered any more, or anew
		c.pump(id, s)
		return
	}
	s.busy = true
	to := c.n.w.brokers[id]
	c.n.w.call(c.n.index, to.index, 2*second, to.serve(func(reply func(any)) {
		if to.brokerEpoch != 0 { // requests are processed once the broker knows its registration
			reply(to.decide(req))
		}
	}),
		c.n.guard2(func(v any, ok bool) {
			s.busy = false
			if c.over {
				return
			}
			if !ok {
				c.n.w.after(100*ms, c.n.guard(func() { c.pump(id, s) }))
				return
			}
			s.queue = s.queue[1:]
			c.decided(id, req, v.([]error))
			c.pump(id, s)
		}))
}

// decided learns which replicas cannot serve.
func (c *controller) decided(id cluster.BrokerID, req decisionRequest, errs []error) {
	for p, err := range errs {
		if err == errStorage && c.live[id] == req.brokerEpoch {
			if _, known := c.offline[p][id]; !known {
				c.offline[p][id] = req.brokerEpoch
				c.do(func(done func()) {
					c.settle(0, func() {
						c.sendAll(c.liveIDs())
						done()
					})
				})
			}
		}
	}
}
