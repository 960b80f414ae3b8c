package groupcoord

import (
	"sync/atomic"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/coordlog"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// Commit is an OffsetCommit request. Entries whose Err is set are left alone.
type Commit struct {
	Group      string
	MemberID   string
	Instance   *string
	Generation int32 // -1: not a member
	Entries    []CommitEntry
}

// CommitEntry is one partition's share, and its result.
type CommitEntry struct {
	cluster.TopicPartition
	Committed
	Err error
}

// Fail gives all entries that have none yet the same error.
func (r *Commit) Fail(err error) {
	for i := range r.Entries {
		if r.Entries[i].Err == nil {
			r.Entries[i].Err = err
		}
	}
}

// Commit stores offsets; done is called when they are safe, or their entries say why not.
func (c *Coordinator) Commit(r *Commit, done func()) {
	s, err := c.usable(r.Group)
	if err != nil {
		r.Fail(err)
		done()
		return
	}
	e := s.get(r.Group)
	if e == nil {
		if r.Generation >= 0 { // of a group that is gone
			r.Fail(kerr.IllegalGeneration)
			done()
			return
		}
		if e = s.getOrAdd(r.Group); e == nil {
			r.Fail(kerr.NotCoordinator)
			done()
			return
		}
	}
	e.commit(r, done)
}

// checkMetadata refuses oversized metadata, entry by entry.
func (r *Commit) checkMetadata(most int) {
	for i := range r.Entries {
		if e := &r.Entries[i]; e.Err == nil && len(e.Metadata) > most && utf16Len(e.Metadata) > most {
			e.Err = kerr.OffsetMetadataTooLarge
		}
	}
}

// utf16Len is the length that Java tells of a string; never more than its bytes.
func utf16Len(s string) (n int) {
	for _, r := range s {
		n += utf16.RuneLen(r)
	}
	return n
}

// pendingCommit is a commit on its way to one or both storages.
type pendingCommit struct {
	e      *entry
	r      *Commit
	at     []int // entries of r that are to be stored
	parts  atomic.Int32
	done   func()
	failed [2][]error // by storage, in the order of at; nil: all well
}

func (e *entry) commit(r *Commit, done func()) {
	c := e.shard.c
	d := decision{now: c.now()}
	toTopic, toZooKeeper := !c.o.InZooKeeper || c.o.Dual, c.o.InZooKeeper || c.o.Dual && checkGroupName(r.Group) == nil
	var session zkcoord.Session
	if toZooKeeper {
		session = c.o.Session()
	}
	e.mu.Lock()
	if err := e.mu.group.commit(&d, r.MemberID, r.Instance, r.Generation, false); err != nil {
		e.mu.Unlock()
		r.Fail(err)
		done()
		return
	}
	r.checkMetadata(c.o.MetadataMax)
	p := &pendingCommit{e: e, r: r, done: done}
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
	if toTopic {
		p.parts.Add(1)
		e.shard.Enqueue(&coordlog.Write{Records: p.records(), Done: p.inTopic})
	}
	if toZooKeeper {
		p.parts.Add(1)
		e.mu.external = true
		e.zk.enqueue(p, session)
	}
	e.mu.Unlock()
	if toTopic {
		e.shard.Flush()
	}
	if toZooKeeper {
		c.o.Run(e.drainZooKeeper)
	}
}

func (p *pendingCommit) records() []coordlog.Record {
	records := make([]coordlog.Record, len(p.at))
	for n, i := range p.at {
		en := &p.r.Entries[i]
		records[n] = coordlog.Record{Key: offsetKey(p.r.Group, en.TopicPartition), Value: offsetValue(&en.Committed)}
	}
	return records
}

// inTopic is told how the append went: what is committed now can be seen.
func (p *pendingCommit) inTopic(at int64, err error) {
	p.e.mu.Lock()
	alive := p.e.mu.group.state != Dead
	for n, i := range p.at {
		if en := &p.r.Entries[i]; err == nil && alive {
			en.Committed.at = at + int64(n)
			p.e.mu.offsets.put(en.TopicPartition, en.Committed)
		}
	}
	p.e.mu.Unlock()
	if err = commitVerdict(err); err != nil {
		errs := make([]error, len(p.at))
		for n := range errs {
			errs[n] = err
		}
		p.failed[0] = errs
	}
	p.part()
}

// inZooKeeper is told how the write to ZooKeeper went, entry by entry; nil: all well.
func (p *pendingCommit) inZooKeeper(errs []error) {
	p.failed[1] = errs
	p.part()
}

// part is called when one storage is done; the last one answers.
func (p *pendingCommit) part() {
	if p.parts.Add(-1) > 0 {
		return
	}
	for n, i := range p.at {
		for _, errs := range p.failed {
			if errs != nil && errs[n] != nil && p.r.Entries[i].Err == nil {
				p.r.Entries[i].Err = errs[n]
			}
		}
	}
	p.e.mu.Lock()
	for _, i := range p.at {
		p.e.mu.offsets.end(p.r.Entries[i].TopicPartition)
	}
	p.e.mu.Unlock()
	p.e.shard.c.o.Metrics.commits.Add(float64(len(p.at)))
	p.done()
}

// commitVerdict turns a failed append of commits into what the client is told.
func commitVerdict(err error) error {
	switch err {
	case nil:
		return nil
	case kerr.UnknownTopicOrPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend:
		return kerr.CoordinatorNotAvailable
	case kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch:
		return kerr.NotCoordinator
	case kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidFetchSize:
		return kerr.InvalidCommitOffsetSize
	}
	return err
}
