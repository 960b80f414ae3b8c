package groupcoord

import (
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/coordlog"
	"ottla/logstore"
)

// openTxn is what a producer's open transaction commits in a shard. The shard's lock guards it.
type openTxn struct {
	entries map[*entry]bool // groups with offsets in it
	onWay   int             // commits that are not known to be replicated yet
	// The last marker, for commits that were on their way when it came: those before it belong to its transaction.
	markerAt int64
	commit   bool
}

// openTxnLocked returns a producer's transaction, made when there was none.
func (s *shard) openTxnLocked(producer int64) *openTxn {
	t := s.mu.producers[producer]
	if t == nil {
		t = &openTxn{entries: map[*entry]bool{}, markerAt: -1}
		s.mu.producers[producer] = t
	}
	return t
}

// TxnCommit is a TxnOffsetCommit request: a commit that counts if and when the producer's transaction is committed.
type TxnCommit struct {
	Commit
	Producer coordlog.Producer
}

// CommitInTransaction stores offsets as part of a transaction; done is called when they are safe, or their entries say why not.
// They are kept in the topic, whatever offsets.storage says, so where that is ZooKeeper they are refused: nobody would find them.
func (c *Coordinator) CommitInTransaction(r *TxnCommit, done func()) {
	s, err := c.usableNamed(r.Group)
	if err == nil && c.o.InZooKeeper {
		err = kerr.UnsupportedVersion
	}
	var e *entry
	if err == nil {
		if e = s.getOrAdd(r.Group); e == nil {
			err = kerr.NotCoordinator
		}
	}
	if err != nil {
		r.Fail(err)
		done()
		return
	}
	e.commitInTransaction(r, done)
}

func (e *entry) commitInTransaction(r *TxnCommit, done func()) {
	c := e.shard.c
	d := decision{now: c.now()}
	e.mu.Lock()
	if err := e.mu.group.commit(&d, r.MemberID, r.Instance, r.Generation, true); err != nil {
		e.mu.Unlock()
		r.Fail(err)
		done()
		return
	}
	r.checkMetadata(c.o.MetadataMax)
	p := &pendingCommit{e: e, r: &r.Commit}
	for i := range r.Entries {
		if r.Entries[i].Err == nil {
			p.at = append(p.at, i)
			e.mu.offsets.begin(r.Entries[i].TopicPartition)
		}
	}
	if len(p.at) == 0 {
		e.mu.Unlock()
		done()
		return
	}
	e.shard.setOut(r.Producer.ID)
	e.shard.Enqueue(&coordlog.Write{Records: p.records(), Producer: &r.Producer, Done: func(at int64, err error) {
		p.inTransaction(r.Producer.ID, at, err)
		done()
	}})
	e.mu.Unlock()
	e.shard.Flush()
}

// setOut notes a commit that is on its way. A group's lock may be held.
func (s *shard) setOut(producer int64) {
	s.mu.Lock()
	s.openTxnLocked(producer).onWay++
	s.mu.Unlock()
}

// arrived notes that a commit has been replicated, or failed. ended: the marker of its transaction came first.
func (s *shard) arrived(e *entry, producer, at int64, ok bool) (marker int64, commit, ended bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := s.openTxnLocked(producer)
	t.onWay--
	marker, commit, ended = t.markerAt, t.commit, t.markerAt > at
	if ok && !ended {
		t.entries[e] = true
	}
	if t.onWay == 0 && len(t.entries) == 0 {
		delete(s.mu.producers, producer)
	}
	return marker, commit, ended
}

// inTransaction is told how the append went: from here on the marker decides.
func (p *pendingCommit) inTransaction(producer, at int64, err error) {
	e := p.e
	e.mu.Lock()
	ok := err == nil && e.mu.group.state != Dead
	for n, i := range p.at {
		en := &p.r.Entries[i]
		e.mu.offsets.end(en.TopicPartition)
		if ok {
			en.Committed.at = at + int64(n)
			e.mu.offsets.putTxn(producer, en.TopicPartition, en.Committed)
		}
	}
	e.mu.Unlock()
	if marker, commit, ended := e.shard.arrived(e, producer, at, ok); ok && ended {
		e.endTxn(producer, commit, marker)
	}
	if err = commitVerdict(err); err != nil {
		for _, i := range p.at {
			p.r.Entries[i].Err = err
		}
	}
	e.shard.c.o.Metrics.commits.Add(float64(len(p.at)))
}

func (e *entry) endTxn(producer int64, commit bool, at int64) {
	e.mu.Lock()
	e.mu.offsets.endTxn(producer, commit, at)
	e.mu.Unlock()
}

// lateMarker is a marker that the loader may have missed.
type lateMarker struct {
	logstore.EndTxnMarker
	at int64
}

// EndTransaction applies or drops the offsets that a producer committed in a transaction of a partition. It is told after
// the marker, whose offset at is, is in the log.
func (c *Coordinator) EndTransaction(number int32, m logstore.EndTxnMarker, at int64) {
	if s := c.shards.All()[number]; s != nil {
		s.endTransaction(m, at)
	}
}

func (s *shard) endTransaction(m logstore.EndTxnMarker, at int64) {
	s.mu.Lock()
	if s.Loading() {
		s.mu.late = append(s.mu.late, lateMarker{m, at})
		s.mu.Unlock()
		return
	}
	t := s.mu.producers[m.ProducerID]
	if t == nil {
		s.mu.Unlock()
		return
	}
	entries := t.entries
	t.entries = map[*entry]bool{}
	if t.onWay > 0 {
		t.markerAt, t.commit = at, m.Commit
	} else {
		delete(s.mu.producers, m.ProducerID)
	}
	s.mu.Unlock()
	for e := range entries {
		e.endTxn(m.ProducerID, m.Commit, at)
	}
}
