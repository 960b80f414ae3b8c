package sim

import (
	"errors"
	"slices"

	"ottla/broker/replication"
	"ottla/internal/cluster"
)

const zkIndex = -1

var (
	errConnectionLost = errors.New("connection lost: outcome unknown")
	errSessionLost    = errors.New("session expired")
	errBadVersion     = errors.New("bad version")
	errNodeExists     = errors.New("node exists")
	errFenced         = errors.New("controller epoch has moved on")
)

// stateNode is a partition's state znode, with the assignment from the topic's.
type stateNode struct {
	replicas        []cluster.BrokerID
	leader          cluster.BrokerID
	isr             []cluster.BrokerID
	epoch           cluster.LeaderEpoch
	controllerEpoch int
	version         cluster.PartitionEpoch
	recovering      bool
	mustKnow        bool // of a planned write: the controller looks what became of it
}

func (s *stateNode) clone() *stateNode {
	c := *s
	c.isr = slices.Clone(s.isr)
	return &c
}

type zkSession struct {
	id      int64
	owner   *node
	touched replication.Instant
	expired bool
}

type registration struct {
	session *zkSession
	epoch   cluster.BrokerEpoch // czxid
}

// zookeeper is the little of ZooKeeper that matters here: sessions with ephemeral nodes, versions, conditional writes.
type zookeeper struct {
	w        *world
	zxid     int64
	sessions []*zkSession
	brokers  map[cluster.BrokerID]registration
	states   []*stateNode
	epoch    int // /controller_epoch: its value is also its version
	active   *zkSession
	activeID cluster.BrokerID

	loseAnswer bool // of the next write of a state
}

func newZookeeper(w *world) *zookeeper {
	return &zookeeper{w: w, zxid: 100, brokers: map[cluster.BrokerID]registration{}}
}

// call runs op at the server within a session. done hears errConnectionLost when the outcome is unknown.
func (z *zookeeper) call(n *node, s *zkSession, op func() (any, error), done func(any, error)) {
	type answer struct {
		v   any
		err error
	}
	z.w.call(n.index, zkIndex, 2*second, func(reply func(any)) {
		if s.expired {
			reply(answer{err: errSessionLost})
			return
		}
		s.touched = z.w.now
		v, err := op()
		reply(answer{v, err})
	}, n.guard2(func(v any, ok bool) {
		if !ok {
			done(nil, errConnectionLost)
			return
		}
		a := v.(answer)
		done(a.v, a.err)
	}))
}

func (z *zookeeper) open(n *node) *zkSession {
	z.zxid++
	s := &zkSession{id: z.zxid, owner: n, touched: z.w.now}
	z.sessions = append(z.sessions, s)
	return s
}

// expire ends the sessions that were silent for too long.
func (z *zookeeper) expire() {
	kept := z.sessions[:0]
	for _, s := range z.sessions {
		if z.w.now-s.touched > sessionT {
			z.end(s)
			continue
		}
		kept = append(kept, s)
	}
	z.sessions = kept
}

func (z *zookeeper) end(s *zkSession) {
	s.expired = true
	z.w.logf("zk: session %d of %v expired", s.id, s.owner.id)
	if r, ok := z.brokers[s.owner.id]; ok && r.session == s {
		delete(z.brokers, s.owner.id)
		z.notify()
	}
	if z.active == s {
		z.active = nil
		z.notify()
	}
}

// notify tells everybody that something changed; they read again. A node that is cut off learns it by its own look.
func (z *zookeeper) notify() {
	for _, n := range z.w.brokers {
		z.w.send(zkIndex, n.index, n.guard(n.zkChanged))
	}
}

func (z *zookeeper) register(s *zkSession) (any, error) {
	if r, ok := z.brokers[s.owner.id]; ok {
		if r.session == s {
			return r.epoch, nil
		}
		return nil, errNodeExists
	}
	z.zxid++
	z.brokers[s.owner.id] = registration{session: s, epoch: cluster.BrokerEpoch(z.zxid)}
	z.notify()
	return cluster.BrokerEpoch(z.zxid), nil
}

func (z *zookeeper) elect(s *zkSession) (any, error) {
	if z.active != nil {
		return nil, errNodeExists
	}
	z.active, z.activeID = s, s.owner.id
	z.epoch++
	z.w.logf("zk: %v is controller, epoch %d", s.owner.id, z.epoch)
	z.w.reached("controller elected")
	z.notify()
	return z.epoch, nil
}

// cluster is what one read of the tree gives.
type tree struct {
	brokers map[cluster.BrokerID]cluster.BrokerEpoch
	states  []*stateNode
	active  cluster.BrokerID
}

func (z *zookeeper) read() (any, error) {
	t := tree{brokers: map[cluster.BrokerID]cluster.BrokerEpoch{}, active: cluster.NoBroker}
	for id, r := range z.brokers {
		t.brokers[id] = r.epoch
	}
	for _, s := range z.states {
		t.states = append(t.states, s.clone())
	}
	if z.active != nil {
		t.active = z.activeID
	}
	return t, nil
}

// setState is the conditional multi: a check of the controller epoch and a set with the expected version.
func (z *zookeeper) setState(p int, next *stateNode, controllerEpoch int, version cluster.PartitionEpoch) (any, error) {
	if controllerEpoch != z.epoch {
		z.w.reached("controller fenced by ZooKeeper")
		return nil, errFenced
	}
	old := z.states[p]
	if old.version != version {
		return nil, errBadVersion
	}
	if next.epoch < old.epoch || next.controllerEpoch < old.controllerEpoch {
		z.w.fail("I8: partition %d: epochs fall: %+v after %+v", p, *next, *old)
	}
	if next.leader != cluster.NoBroker && next.leader != old.leader && !slices.Contains(old.isr, next.leader) && !next.recovering {
		z.w.fail("I9: partition %d: leader %v was not in the ISR %v", p, next.leader, old.isr)
	}
	if len(next.isr) == 0 {
		z.w.fail("partition %d: empty ISR", p)
	}
	next = next.clone()
	next.version = version + 1
	z.states[p] = next
	z.w.logf("zk: partition %d: leader %v epoch %d isr %v version %d", p, next.leader, next.epoch, next.isr, next.version)
	if next.epoch != old.epoch {
		z.w.aimFault()
	}
	if z.loseAnswer || !z.w.healed && z.w.chance(3) {
		z.loseAnswer = false
		z.w.cutFor(z.w.link(zkIndex, int(z.activeID)), 50*ms) // the answer is lost
	}
	return next.version, nil
}
