package txncoord

import (
	"time"

	"ottla/logstore"
)

// loader builds the transactional ids of a shard from its partition's records. It is the only one who knows them until they are
// published.
type loader struct {
	s       *shard
	entries map[string]*entry
	records int
	skipped int // records that could not be read, or of other kinds
}

func (c *Coordinator) load(s *shard) error {
	began := time.Now()
	l := &loader{s: s, entries: map[string]*entry{}}
	if err := c.shards.InTurn(func() error { return s.Read(c.o.LoadBytes, l.batch) }); err != nil {
		return err
	}
	s.WaitCommitted()
	if s.Closed() {
		return nil
	}
	ids, ending := l.publish()
	took := time.Since(began)
	c.o.Metrics.loadSeconds.Observe(took.Seconds())
	line := c.log.Info()
	if l.records == 0 { // most partitions of a small cluster
		line = c.log.Debug()
	}
	line.Int32("partition", s.Number).Int32("leader_epoch", int32(s.Epoch())).Int("transactional_ids", ids).Int("ending", ending).
		Int("records", l.records).Int("skipped", l.skipped).Int64("dur_ms", took.Milliseconds()).Msg("transactions loaded")
	return nil
}

func (l *loader) batch(b logstore.Batch) error {
	if b.IsControl() {
		return nil
	}
	for r, err := range b.Records() {
		if err != nil {
			return err
		}
		l.records++
		if err := l.record(&r); err != nil {
			l.skipped++
			l.s.c.log.Warn().Err(err).Int32("partition", l.s.Number).Int64("offset", r.Offset).Msg("record skipped")
		}
	}
	return nil
}

func (l *loader) record(r *logstore.Record) error {
	id, known, err := decodeKey(r.Key)
	if err != nil {
		return err
	}
	if !known {
		l.skipped++
		return nil
	}
	if r.Value == nil {
		delete(l.entries, id)
		return nil
	}
	i, err := decodeImage(r.Value)
	if err != nil {
		return err
	}
	e := l.entries[id]
	if e == nil {
		e = l.s.newEntry(id)
		l.entries[id] = e
	}
	e.mu.now = i
	return nil
}

// publish opens the shard and goes on with the transactions whose end is decided; it returns how many ids and
// how many of these there are. The entries are everybody's then.
func (l *loader) publish() (ids, ending int) {
	s := l.s
	s.mu.Lock()
	if !s.Open() {
		s.mu.Unlock()
		return 0, 0
	}
	s.mu.entries = l.entries
	ids = len(l.entries)
	var entries []*entry
	for _, e := range l.entries {
		if e.mu.now.state.ending() {
			entries = append(entries, e)
		}
	}
	s.mu.Unlock()
	for _, e := range entries {
		s.c.markers.begin(e)
	}
	return ids, len(entries)
}
