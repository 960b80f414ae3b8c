package groupcoord

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/coordlog"
	"ottla/internal/cluster"
)

// Description is a group as DescribeGroups shows it. An absent group is "Dead" without error.
type Description struct {
	State        string
	ProtocolType string
	Protocol     string
	Members      []DescribedMember
}

// DescribedMember is one member; Metadata and Assignment are told of stable groups only.
type DescribedMember struct {
	ID, ClientID, ClientHost string
	Instance                 *string
	Metadata, Assignment     []byte
}

// Describe shows a group.
func (c *Coordinator) Describe(group string) (Description, error) {
	s, err := c.usable(group)
	if err != nil {
		return Description{}, err
	}
	e := s.get(group)
	if e == nil {
		return Description{State: Dead.String()}, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.group.describe(), nil
}

func (g *group) describe() Description {
	d := Description{State: g.state.String(), ProtocolType: g.protocolType}
	stable := g.state == Stable
	if stable {
		d.Protocol = g.protocol
	}
	for _, m := range g.order {
		dm := DescribedMember{ID: m.id, ClientID: m.clientID, ClientHost: m.clientHost, Instance: m.instance}
		if stable {
			dm.Metadata, dm.Assignment = m.metadata(g.protocol), m.assignment
		}
		d.Members = append(d.Members, dm)
	}
	return d
}

// Listed is a group as ListGroups shows it.
type Listed struct{ Group, ProtocolType, State string }

// List shows the groups that this broker coordinates, in no order. states, if any, are the ones to show, whatever their case.
// With COORDINATOR_LOAD_IN_PROGRESS the list is not complete.
func (c *Coordinator) List(states []string) ([]Listed, error) {
	if c.shards.Stopped() {
		return nil, kerr.CoordinatorNotAvailable
	}
	var err error
	var list []Listed
	for _, s := range c.shards.All() {
		if s.Loading() {
			err = kerr.CoordinatorLoadInProgress
			continue
		}
		for _, e := range s.all() {
			e.mu.Lock()
			g := e.mu.group
			l := Listed{g.id, g.protocolType, g.state.String()}
			e.mu.Unlock()
			wanted := len(states) == 0 || slices.ContainsFunc(states, func(s string) bool { return strings.EqualFold(s, l.State) })
			if wanted {
				list = append(list, l)
			}
		}
	}
	return list, err
}

// Delete deletes groups that have no members, with their offsets. done gets one error for each, once the deletion is
// committed.
func (c *Coordinator) Delete(groups []string, done func([]error)) {
	errs := make([]error, len(groups))
	var wg pendingCount
	wg.start(func() { done(errs) })
	for i, id := range groups {
		wg.add()
		c.deleteGroup(id, func(err error) {
			errs[i] = err
			wg.finish()
		})
	}
	wg.finish()
}

func (c *Coordinator) deleteGroup(id string, done func(error)) {
	s, err := c.usable(id)
	if err != nil {
		done(err)
		return
	}
	e := s.get(id)
	if e == nil {
		done(kerr.GroupIDNotFound)
		return
	}
	finish := done
	var records []coordlog.Record
	e.decide(func(d *decision, g *group) {
		switch g.state {
		case Dead:
			err = kerr.GroupIDNotFound
			return
		case Empty:
		default:
			err = kerr.NonEmptyGroup
			return
		}
		tps := e.mu.offsets.partitions()
		for tp := range e.mu.offsets.pending { // their records come before the tombstones
			tps = append(tps, tp)
		}
		records = g.tombstones(tps, true)
		if e.mu.external || c.o.Dual {
			finish = c.thenFromZooKeeper(id, done)
		}
		e.bury(records, finish)
		g.kill(d, kerr.CoordinatorNotAvailable)
		e.mu.offsets = offsets{pending: e.mu.offsets.pending}
	})
	if err != nil {
		done(err)
		return
	}
	s.drop(e, id)
	s.Flush()
	c.log.Info().Str("group", id).Msg("group deleted")
	if len(records) == 0 {
		finish(nil)
	}
}

// thenFromZooKeeper deletes the group's offsets in ZooKeeper once those in the topic are.
func (c *Coordinator) thenFromZooKeeper(group string, done func(error)) func(error) {
	session := c.o.Session()
	return func(err error) {
		if err != nil {
			done(err)
			return
		}
		c.o.Run(func() { done(zooKeeperVerdict(deleteFromZooKeeper(session, group, nil, true))) })
	}
}

// tombstones are the records that end offsets and, with it, the group itself. A group that never had a generation has no
// record of its own.
func (g *group) tombstones(tps []cluster.TopicPartition, group bool) []coordlog.Record {
	records := make([]coordlog.Record, 0, len(tps)+1)
	for _, tp := range tps {
		records = append(records, coordlog.Record{Key: offsetKey(g.id, tp)})
	}
	if group && g.generation > 0 {
		records = append(records, coordlog.Record{Key: groupKey(g.id)})
	}
	return records
}

// bury enqueues tombstones, if there are any; done is called when they are committed. The entry's lock is held.
func (e *entry) bury(records []coordlog.Record, done func(error)) {
	if len(records) > 0 {
		e.shard.Enqueue(&coordlog.Write{Records: records, Done: func(_ int64, err error) { done(commitVerdict(err)) }})
	}
}

// DeleteOffsets deletes committed offsets of topics that nobody in the group subscribes to. done gets one error for all, or
// one for each partition.
func (c *Coordinator) DeleteOffsets(group string, tps []cluster.TopicPartition, done func([]error, error)) {
	s, err := c.usableNamed(group)
	if err != nil {
		done(nil, err)
		return
	}
	e := s.get(group)
	if e == nil {
		done(nil, kerr.GroupIDNotFound)
		return
	}
	each := make([]error, len(tps))
	var over []cluster.TopicPartition
	var records []coordlog.Record
	e.mu.Lock()
	g := e.mu.group
	switch {
	case g.state == Dead:
		err = kerr.GroupIDNotFound
	case g.state == Empty || g.protocolType == consumerProtocol:
		over, records = e.removeLocked(tps, each)
	default:
		err = kerr.NonEmptyGroup
	}
	external := (e.mu.external || c.o.Dual) && err == nil
	var wg pendingCount
	if err == nil {
		wg.start(func() { done(each, nil) })
		if len(records) > 0 {
			wg.add()
		}
		e.bury(records, func(err error) {
			if err != nil {
				for i := range each {
					each[i] = err
				}
			}
			wg.finish()
		})
	}
	e.mu.Unlock()
	if err != nil {
		done(nil, err)
		return
	}
	if external {
		wg.add()
		session := c.o.Session()
		c.o.Run(func() {
			if err := deleteFromZooKeeper(session, group, over, false); err != nil {
				for i := range each {
					if each[i] == nil {
						each[i] = zooKeeperVerdict(err)
					}
				}
			}
			wg.finish()
		})
	}
	s.Flush()
	wg.finish()
}

// removeLocked forgets offsets, except of topics that are subscribed to, and returns their tombstones.
func (e *entry) removeLocked(tps []cluster.TopicPartition, each []error) (over []cluster.TopicPartition, records []coordlog.Record) {
	g := e.mu.group
	var found []cluster.TopicPartition
	for i, tp := range tps {
		if g.state != Empty && (g.subscribed == nil || g.subscribed[tp.Topic]) {
			each[i] = kerr.GroupSubscribedToTopic
			continue
		}
		over = append(over, tp)
		if e.mu.offsets.remove(tp) {
			found = append(found, tp)
		}
	}
	return over, g.tombstones(found, false)
}

// TopicsDeleted forgets the offsets of partitions that do not exist any more.
func (c *Coordinator) TopicsDeleted(tps []cluster.TopicPartition) {
	for _, s := range c.shards.All() {
		if !s.Ready() {
			continue
		}
		for _, e := range s.all() {
			e.mu.Lock()
			var found []cluster.TopicPartition
			for _, tp := range tps {
				if e.mu.offsets.forget(tp) {
					found = append(found, tp)
				}
			}
			e.bury(e.mu.group.tombstones(found, false), func(error) {})
			external, id := e.mu.external || c.o.Dual, e.mu.group.id
			e.mu.Unlock()
			if external {
				c.deleteLater(id, tps)
			}
		}
		s.Flush()
	}
}

// deleteLater deletes offsets of deleted topics from ZooKeeper: a topic that is created anew begins at its start.
func (c *Coordinator) deleteLater(group string, tps []cluster.TopicPartition) {
	session := c.o.Session()
	c.o.Run(func() {
		if err := deleteFromZooKeeper(session, group, tps, false); err != nil {
			c.log.Warn().Err(err).Str("group", group).Msg("offsets of a deleted topic could not be deleted from zookeeper")
		}
	})
}

// Expire removes offsets whose time is over, and groups of which nothing is left. It is run every
// offsets.retention.check.interval.ms.
func (c *Coordinator) Expire(now time.Time) {
	began := time.Now()
	n, groups := 0, 0
	for _, s := range c.shards.All() {
		if !s.Ready() || !c.o.Lease() {
			continue
		}
		for _, e := range s.all() {
			removed, dead := e.expire(now, c.o.Retention)
			n += removed
			if dead {
				groups++
			}
		}
		s.Flush()
	}
	c.o.Metrics.expiredOffsets.Add(float64(n))
	if n+groups > 0 {
		c.log.Info().Int("offsets", n).Int("groups", groups).Int64("dur_ms", time.Since(began).Milliseconds()).Msg("offsets expired")
	}
}

func (e *entry) expire(now time.Time, retention time.Duration) (removed int, dead bool) {
	e.mu.Lock()
	g := e.mu.group
	over := g.expired(&e.mu.offsets, now, retention)
	for _, tp := range over {
		e.mu.offsets.remove(tp)
	}
	kept := e.mu.external && e.shard.c.o.InZooKeeper // offsets in ZooKeeper do not expire
	dead = g.state == Empty && len(g.pending) == 0 && e.mu.offsets.empty() && !kept
	e.bury(g.tombstones(over, dead), func(error) {})
	if dead {
		g.enter(&decision{now: now}, Dead)
	}
	e.mu.Unlock()
	if dead {
		e.shard.drop(e, g.id)
	}
	return len(over), dead
}

// pendingCount calls a function when everything that was added has finished, and the starter too.
type pendingCount struct {
	mu   sync.Mutex
	n    int
	done func()
}

func (p *pendingCount) start(done func()) { p.n, p.done = 1, done }

func (p *pendingCount) add() {
	p.mu.Lock()
	p.n++
	p.mu.Unlock()
}

func (p *pendingCount) finish() {
	p.mu.Lock()
	p.n--
	last := p.n == 0
	p.mu.Unlock()
	if last {
		p.done()
	}
}
