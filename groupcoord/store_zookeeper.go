package groupcoord

import (
	"cmp"
	"errors"
	"slices"
	"strings"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// Offsets in ZooKeeper: /consumers/GROUP/offsets/TOPIC/PARTITION as decimal text, without metadata, leader epoch or expiry. What
// is there is the truth: old consumers and tools write it too, so nothing is cached.

// zkQueue keeps a group's commits in the order of their decisions. One drain runs at a time and takes everything that has
// come meanwhile together: many partitions and members cost a few pipelined writes.
type zkQueue struct {
	mu      sync.Mutex // a leaf
	queue   []zkCommit
	running bool
}

// zkCommit is a commit, and the session in which it was decided: in no other one may it be written.
type zkCommit struct {
	p       *pendingCommit
	session zkcoord.Session
}

func (q *zkQueue) enqueue(p *pendingCommit, s zkcoord.Session) {
	q.mu.Lock()
	q.queue = append(q.queue, zkCommit{p, s})
	q.mu.Unlock()
}

// take removes the commits of one session from the head; none when another drain runs, or nothing is left.
func (q *zkQueue) take(own bool) []zkCommit {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running && !own {
		return nil
	}
	if len(q.queue) == 0 {
		q.running = false
		return nil
	}
	q.running = true
	n := 1
	for n < len(q.queue) && q.queue[n].session == q.queue[0].session {
		n++
	}
	head := q.queue[:n:n]
	q.queue = q.queue[n:]
	return head
}

// drainZooKeeper writes what is queued. It waits for ZooKeeper.
func (e *entry) drainZooKeeper() {
	own := false
	for {
		commits := e.zk.take(own)
		if len(commits) == 0 {
			return
		}
		own = true
		e.writeZooKeeper(commits)
	}
}

func (e *entry) writeZooKeeper(commits []zkCommit) {
	latest := map[cluster.TopicPartition]int64{}
	for _, c := range commits {
		for _, i := range c.p.at {
			en := &c.p.r.Entries[i]
			latest[en.TopicPartition] = en.Offset
		}
	}
	var failed map[cluster.TopicPartition]error
	if e.shard.phase.Load() == closed || !e.shard.c.o.Lease() {
		failed = map[cluster.TopicPartition]error{}
		for tp := range latest {
			failed[tp] = kerr.NotCoordinator
		}
	} else {
		failed = zkcoord.WriteOffsets(commits[0].session, commits[0].p.r.Group, latest)
	}
	for _, c := range commits {
		c.p.inZooKeeper(c.p.failures(failed))
	}
}

// failures picks the errors of this commit's entries; nil when there are none.
func (p *pendingCommit) failures(failed map[cluster.TopicPartition]error) []error {
	if len(failed) == 0 {
		return nil
	}
	errs := make([]error, len(p.at))
	for n, i := range p.at {
		errs[n] = zooKeeperVerdict(failed[p.r.Entries[i].TopicPartition])
	}
	return errs
}

// CommitToZooKeeper stores offsets below /consumers, wherever the group is coordinated: OffsetCommit version 0, which knows no
// members. It waits for ZooKeeper.
func (c *Coordinator) CommitToZooKeeper(s zkcoord.Session, r *Commit) {
	r.checkMetadata(c.o.MetadataMax)
	offsets := map[cluster.TopicPartition]int64{}
	for i := range r.Entries {
		if en := &r.Entries[i]; en.Err == nil {
			offsets[en.TopicPartition] = en.Offset
		}
	}
	if len(offsets) == 0 {
		return
	}
	failed := zkcoord.WriteOffsets(s, r.Group, offsets)
	for i := range r.Entries {
		if en := &r.Entries[i]; en.Err == nil {
			en.Err = zooKeeperVerdict(failed[en.TopicPartition])
		}
	}
}

// zooKeeperVerdict turns a fault of ZooKeeper into what the client should do: find the coordinator again, or try again.
func zooKeeperVerdict(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, zkcoord.ErrSessionLost):
		return kerr.NotCoordinator
	case errors.Is(err, zkcoord.ErrConnectionLost):
		return kerr.CoordinatorNotAvailable
	case errors.Is(err, zkcoord.ErrInvalid):
		return kerr.InvalidGroupID
	}
	return err
}

func comparePartitions(a, b cluster.TopicPartition) int {
	return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
}

// addExternal makes groups known that have offsets in ZooKeeper only, so that they can be listed and deleted.
func (l *loader) addExternal() {
	s := l.s.c.o.Session()
	names, err := zkcoord.Groups(s)
	if err != nil {
		l.s.c.log.Warn().Err(err).Int32("partition", l.s.number).Msg("groups in zookeeper could not be listed")
		return
	}
	n := l.s.c.o.Partitions()
	for _, name := range names {
		if n <= 0 || PartitionOf(name, n) != l.s.number {
			continue
		}
		tps, err := zkcoord.GroupPartitions(s, name)
		if err != nil || len(tps) == 0 {
			continue
		}
		l.entry(name).mu.external = true
	}
}

// deleteFromZooKeeper removes a group's offsets of some partitions, or all of them. Ids and owners belong to the clients
// that write them.
func deleteFromZooKeeper(s zkcoord.Session, group string, tps []cluster.TopicPartition, all bool) error {
	if all {
		var err error
		if tps, err = zkcoord.GroupPartitions(s, group); err != nil {
			return err
		}
	}
	for chunk := range slices.Chunk(tps, 100) {
		for _, tp := range chunk {
			err := s.Delete(zkcoord.GroupOffsetPath(group, tp), zkcoord.AnyVersion)
			if err != nil && !errors.Is(err, zkcoord.ErrNoNode) {
				return err
			}
		}
	}
	if !all {
		return nil
	}
	parents := map[string]bool{}
	for _, tp := range tps {
		parents[zkcoord.GroupOffsetsPath(group)+"/"+tp.Topic] = true
	}
	for path := range parents {
		_ = s.Delete(path, zkcoord.AnyVersion) // not empty: somebody commits
	}
	_ = s.Delete(zkcoord.GroupOffsetsPath(group), zkcoord.AnyVersion)
	_ = s.Delete(zkcoord.GroupPath(group), zkcoord.AnyVersion)
	return nil
}
