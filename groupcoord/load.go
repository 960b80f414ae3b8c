package groupcoord

import (
	"fmt"
	"time"

	"ottla/logstore"
)

// loader builds the groups of a shard from its partition's records, from the log's start to its end. It is the only one who
// knows them until they are published.
type loader struct {
	s       *shard
	groups  map[string]*entry
	topics  map[string]string // each name is kept once
	records int
	skipped int // records that could not be read, or of other protocols
}

func (c *Coordinator) load(s *shard) error {
	began := time.Now()
	clear(s.mu.producers) // of an attempt that failed; nobody else looks yet
	l := &loader{s: s, groups: map[string]*entry{}, topics: map[string]string{}}
	if err := c.shards.InTurn(func() error { return s.Read(c.o.LoadBytes, l.batch) }); err != nil {
		return err
	}
	if c.o.InZooKeeper {
		if err := l.addExternal(); err != nil && s.Loading() {
			return fmt.Errorf("groups in zookeeper: %w", err)
		}
	}
	s.WaitCommitted()
	if s.Closed() {
		return nil
	}
	groups, n := l.publish()
	took := time.Since(began)
	c.o.Metrics.loadSeconds.Observe(took.Seconds())
	line := c.log.Info()
	if l.records == 0 { // most partitions of a small cluster
		line = c.log.Debug()
	}
	line.Int32("partition", s.Number).Int32("leader_epoch", int32(s.Epoch())).Int("groups", groups).Int("offsets", n).
		Int("records", l.records).Int("skipped", l.skipped).Int64("dur_ms", took.Milliseconds()).Msg("groups loaded")
	return nil
}

func (l *loader) batch(b logstore.Batch) error {
	if b.IsControl() {
		m, ok, err := b.EndTxnMarker()
		if err != nil {
			return err
		}
		if ok {
			l.endTxn(m.ProducerID, m.Commit, b.BaseOffset())
		}
		return nil
	}
	producer := int64(logstore.NoProducerID)
	if b.Magic() == 2 && b.IsTransactional() {
		producer = b.ProducerID()
	}
	for r, err := range b.Records() {
		if err != nil {
			return err
		}
		l.records++
		if err := l.record(&r, producer); err != nil {
			l.skipped++
			l.s.c.log.Warn().Err(err).Int32("partition", l.s.Number).Int64("offset", r.Offset).Msg("record skipped")
		}
	}
	return nil
}

func (l *loader) record(r *logstore.Record, producer int64) error {
	k, known, err := decodeKey(r.Key)
	if err != nil {
		return err
	}
	if !known {
		l.skipped++
		return nil
	}
	if k.offset {
		return l.offset(&k, r, producer)
	}
	if r.Value == nil {
		if e := l.groups[k.group]; e != nil { // its offsets have tombstones of their own
			e.mu.group = newGroup(k.group, &l.s.c.o.Limits, l.s.c.o.NewID, time.Time{})
		}
		return nil
	}
	v, err := decodeGroup(r.Value)
	if err != nil {
		return err
	}
	e := l.entry(k.group)
	e.mu.group = newGroup(k.group, &l.s.c.o.Limits, l.s.c.o.NewID, time.Time{})
	e.mu.group.restore(v, l.s.c.now())
	return nil
}

func (l *loader) offset(k *loadedKey, r *logstore.Record, producer int64) error {
	k.tp.Topic = l.intern(k.tp.Topic)
	if r.Value == nil {
		if e := l.groups[k.group]; e != nil {
			e.mu.offsets.remove(k.tp)
		}
		return nil
	}
	c, err := decodeOffset(r.Value)
	if err != nil {
		return err
	}
	c.at = r.Offset
	e := l.entry(k.group)
	if producer == logstore.NoProducerID {
		e.mu.offsets.put(k.tp, c)
		return nil
	}
	e.mu.offsets.putTxn(producer, k.tp, c)
	l.s.openTxnLocked(producer).entries[e] = true
	return nil
}

func (l *loader) endTxn(producer int64, commit bool, at int64) {
	if t := l.s.mu.producers[producer]; t != nil {
		delete(l.s.mu.producers, producer)
		for e := range t.entries {
			e.mu.offsets.endTxn(producer, commit, at)
		}
	}
}

func (l *loader) intern(topic string) string {
	if known, ok := l.topics[topic]; ok {
		return known
	}
	l.topics[topic] = topic
	return topic
}

func (l *loader) entry(group string) *entry {
	e := l.groups[group]
	if e == nil {
		e = l.s.newEntry(group)
		e.mu.group.since = time.Time{}
		l.groups[group] = e
	}
	return e
}

// publish opens the shard, and returns what it has; the groups are everybody's then. Groups of which nothing is left are
// dropped. Sessions of members begin now.
func (l *loader) publish() (groups, offsets int) {
	s := l.s
	for id, e := range l.groups {
		offsets += e.mu.offsets.count
		g := e.mu.group
		if g.state == Empty && g.generation == 0 && e.mu.offsets.empty() && !e.mu.external {
			delete(l.groups, id)
		}
	}
	s.mu.Lock()
	if !s.Open() {
		s.mu.Unlock()
		return 0, 0
	}
	s.mu.groups = l.groups
	entries := make([]*entry, 0, len(l.groups))
	for _, e := range l.groups {
		entries = append(entries, e)
	}
	late := s.mu.late
	s.mu.late = nil
	s.mu.Unlock()
	for _, m := range late {
		s.endTransaction(m.EndTxnMarker, m.at)
	}
	for _, e := range entries {
		e.decide(func(d *decision, g *group) { g.loaded(d) })
	}
	return len(entries), offsets
}

// loaded begins what a group that was just loaded needs: its members' sessions run, and one that is larger than the limit
// rebalances.
func (g *group) loaded(d *decision) {
	if g.state != Stable {
		return
	}
	for _, m := range g.order {
		m.heard(d.now)
	}
	if len(g.order) > g.limits.MaxSize {
		g.prepare(d, "the group is over capacity")
	}
}
