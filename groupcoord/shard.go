package groupcoord

import (
	"sync"
	"sync/atomic"

	"ottla/coordlog"
	"ottla/internal/cluster"
)

// shard is one partition of __consumer_offsets that this broker leads, in one leader epoch, with its groups.
type shard struct {
	*coordlog.Shard
	c            *Coordinator // constant
	fenceVersion atomic.Int32 // of the partition's state znode, -1: not read yet
	mu           struct {
		sync.RWMutex
		groups    map[string]*entry
		producers map[int64]*openTxn // by producer id
		late      []lateMarker       // written while the shard was being loaded
	}
}

func newShard(c *Coordinator, number int32, epoch cluster.LeaderEpoch, p coordlog.Partition) *shard {
	s := &shard{Shard: coordlog.NewShard(number, coordlog.NewWriter(p, epoch, c.o.CommitTimeout, c.now)), c: c}
	s.fenceVersion.Store(-1)
	s.mu.groups = map[string]*entry{}
	s.mu.producers = map[int64]*openTxn{}
	return s
}

// entry is one group: a small lock around the pure core.
type entry struct {
	shard *shard
	timer timer   // guarded by timers.mu
	zk    zkQueue // guards itself
	mu    struct {
		sync.Mutex
		*group
		offsets offsets
		// external: there may be offsets in ZooKeeper, so the group is not removed for want of offsets.
		external bool
	}
}

func (s *shard) newEntry(group string) *entry {
	e := &entry{shard: s}
	e.timer = timer{entry: e, index: -1}
	e.mu.group = newGroup(group, &s.c.o.Limits, s.c.o.NewID, s.c.now())
	e.mu.group.since = s.c.now()
	return e
}

// get returns a group, or nil.
func (s *shard) get(group string) *entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.groups[group]
}

// getOrAdd returns a group, made when it did not exist; nil when the shard was closed.
func (s *shard) getOrAdd(group string) *entry {
	if e := s.get(group); e != nil {
		return e
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Closed() {
		return nil
	}
	e := s.mu.groups[group]
	if e == nil {
		e = s.newEntry(group)
		s.mu.groups[group] = e
	}
	return e
}

// drop forgets a group that is Dead.
func (s *shard) drop(e *entry, group string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.groups[group] == e {
		delete(s.mu.groups, group)
	}
}

// all lists the groups, in no order.
func (s *shard) all() []*entry {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*entry, 0, len(s.mu.groups))
	for _, e := range s.mu.groups {
		out = append(out, e)
	}
	return out
}

// decide has the core decide under the group's lock, then writes and answers.
func (e *entry) decide(fn func(d *decision, g *group)) {
	d := decision{now: e.shard.c.now()}
	e.mu.Lock()
	g := e.mu.group
	before := g.state
	fn(&d, g)
	e.queueLocked(&d)
	next := g.nextDeadline()
	change := stateChange{id: g.id, from: before, to: g.state, generation: g.generation, members: len(g.order)}
	e.mu.Unlock()
	e.shard.c.timers.atLatest(e, next)
	if len(d.writes) > 0 {
		e.shard.Flush()
	}
	d.deliver()
	e.shard.c.report(&d, change)
}

// queueLocked gives the group's records their place in the order of the log.
func (e *entry) queueLocked(d *decision) {
	for i := range d.writes {
		w := &d.writes[i]
		e.shard.Enqueue(&coordlog.Write{
			Records: []coordlog.Record{{Key: groupKey(e.mu.group.id), Value: w.value}},
			Done: func(_ int64, err error) {
				e.decide(func(d *decision, g *group) { g.stored(d, w, err) })
			},
		})
	}
}

// tick is called at the group's deadline, or before.
func (e *entry) tick() {
	if e.shard.Closed() {
		return
	}
	e.decide(func(d *decision, g *group) { g.tick(d) })
}
