package groupcoord

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/coordlog"
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

// zkCommit is a commit, and the session in which it was decided: in no other one may it be written. Or it is a reader that waits
// for the commits before it.
type zkCommit struct {
	p       *pendingCommit // nil: a reader
	session zkcoord.Session
	read    func()
}

// readAfter calls read once the commits that are on their way have arrived or failed, and reports whether there are any: whoever takes
// over a partition is not told of an offset below one that its predecessor is just committing.
func (q *zkQueue) readAfter(read func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.running && len(q.queue) == 0 {
		return false
	}
	q.queue = append(q.queue, zkCommit{read: read})
	return true
}

func (q *zkQueue) enqueue(p *pendingCommit, s zkcoord.Session) {
	q.mu.Lock()
	q.queue = append(q.queue, zkCommit{p: p, session: s})
	q.mu.Unlock()
}

// take removes the commits of one session from the head, or a reader; none when another drain runs, or nothing is left.
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
	for n < len(q.queue) && q.queue[0].p != nil && q.queue[n].p != nil && q.queue[n].session == q.queue[0].session {
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
	if commits[0].p == nil {
		commits[0].read()
		return
	}
	latest := map[cluster.TopicPartition]int64{}
	for _, c := range commits {
		for _, i := range c.p.at {
			en := &c.p.r.Entries[i]
			latest[en.TopicPartition] = en.Offset
		}
	}
	failed := e.shard.writeFenced(commits[0].session, commits[0].p.r.Group, latest)
	for _, c := range commits {
		c.p.inZooKeeper(c.p.failures(failed))
	}
}

// OffsetsTopic is the topic whose partitions decide who coordinates.
const OffsetsTopic = "__consumer_offsets"

const (
	offsetsPerMulti = 100
	zkAttempts      = 6
	zkPause         = 20 * time.Millisecond // before the next attempt, growing
)

// writeFenced sets a group's offsets as long as this shard's leader epoch is the one in ZooKeeper: every write carries the
// check of the partition's state znode. So a commit that was decided before the leadership moved cannot overwrite a newer
// one of the next coordinator, however late it arrives. The result names what failed.
func (s *shard) writeFenced(session zkcoord.Session, group string, offsets map[cluster.TopicPartition]int64) map[cluster.TopicPartition]error {
	w := &zkWrite{s: s, session: session, group: group, offsets: offsets, left: map[cluster.TopicPartition]error{}}
	for tp := range offsets {
		w.left[tp] = kerr.CoordinatorNotAvailable
	}
	for attempt := range zkAttempts {
		time.Sleep(zkPause * time.Duration(attempt))
		if err := w.try(attempt > 0); err != nil {
			for tp := range w.left {
				w.left[tp] = err
			}
			break
		}
		if len(w.left) == 0 {
			break
		}
	}
	return w.left
}

// zkWrite is one group's offsets on their way; left is what is not there yet.
type zkWrite struct {
	s       *shard
	session zkcoord.Session
	group   string
	offsets map[cluster.TopicPartition]int64
	left    map[cluster.TopicPartition]error
}

// try writes what is left. An error ends the attempts for all.
func (w *zkWrite) try(afresh bool) error {
	if w.s.Closed() || !w.s.c.o.Lease() {
		return kerr.NotCoordinator
	}
	if err := checkGroupName(w.group); err != nil {
		return err
	}
	if err := w.s.readFence(w.session, afresh); err != nil {
		return err
	}
	absent, err := w.multi(w.sorted(), offsetsPerMulti, w.set)
	if err == nil && len(absent) > 0 { // one that is missing fails its whole batch
		absent, err = w.multi(absent, 1, w.set)
	}
	if err != nil || len(absent) == 0 {
		return err
	}
	parents := map[string]bool{}
	for _, tp := range absent {
		parents[zkcoord.GroupOffsetsPath(w.group)+"/"+tp.Topic] = true
	}
	for path := range parents {
		if err := w.session.CreateAll(path, nil); err != nil && !errors.Is(err, zkcoord.ErrNodeExists) && !errors.Is(err, zkcoord.ErrConnectionLost) {
			return err
		}
	}
	_, err = w.multi(absent, 1, w.create)
	return err
}

func (w *zkWrite) sorted() []cluster.TopicPartition {
	return slices.SortedFunc(maps.Keys(w.left), comparePartitions)
}

func (w *zkWrite) set(tp cluster.TopicPartition) zkcoord.Op {
	return zkcoord.SetOp(zkcoord.GroupOffsetPath(w.group, tp), strconv.AppendInt(nil, w.offsets[tp], 10), zkcoord.AnyVersion)
}

func (w *zkWrite) create(tp cluster.TopicPartition) zkcoord.Op {
	return zkcoord.CreateOp(zkcoord.GroupOffsetPath(w.group, tp), strconv.AppendInt(nil, w.offsets[tp], 10), zkcoord.Persistent)
}

// multi does one operation for each partition, each batch with the fence, all batches pipelined. It returns the partitions of
// batches that failed for another reason than the fence or the connection, which are tried again by the next attempt.
func (w *zkWrite) multi(tps []cluster.TopicPartition, atOnce int, op func(cluster.TopicPartition) zkcoord.Op) (refused []cluster.TopicPartition, err error) {
	batches := slices.Collect(slices.Chunk(tps, atOnce))
	multis := make([][]zkcoord.Op, len(batches))
	for i, batch := range batches {
		multis[i] = []zkcoord.Op{w.s.fence()}
		for _, tp := range batch {
			multis[i] = append(multis[i], op(tp))
		}
	}
	for i, r := range w.session.MultiMany(multis) {
		switch {
		case r.Err == nil:
			for _, tp := range batches[i] {
				delete(w.left, tp)
			}
		case errors.Is(r.Err, zkcoord.ErrSessionLost):
			return nil, r.Err
		case errors.Is(r.Err, zkcoord.ErrConnectionLost), len(r.Results) > 0 && errors.Is(r.Results[0].Err, zkcoord.ErrBadVersion):
		default:
			refused = append(refused, batches[i]...)
		}
	}
	return refused, nil
}

func (s *shard) topicPartition() cluster.TopicPartition {
	return cluster.TopicPartition{Topic: OffsetsTopic, Partition: s.Number}
}

// fence is the check that goes with a write.
func (s *shard) fence() zkcoord.Op {
	return zkcoord.CheckOp(zkcoord.StatePath(s.topicPartition()), s.fenceVersion.Load())
}

// readFence learns the version of the partition's state znode; it changes with the in-sync set too, then it is read afresh.
// NOT_COORDINATOR: the znode says that there is another leader epoch.
func (s *shard) readFence(session zkcoord.Session, afresh bool) error {
	if s.fenceVersion.Load() >= 0 && !afresh {
		return nil
	}
	state, ok, err := zkcoord.ReadState(session, s.topicPartition())
	if err != nil {
		return err
	}
	if !ok || state.State.LeaderEpoch != s.Epoch() {
		return kerr.NotCoordinator
	}
	s.fenceVersion.Store(int32(state.Version))
	return nil
}

// checkGroupName refuses a group id that is no single name: it would reach into other groups' znodes.
func checkGroupName(group string) error {
	if group == "" || strings.ContainsAny(group, "/\x00") || group == "." || group == ".." {
		return kerr.InvalidGroupID
	}
	return nil
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

// catchUp waits until our ZooKeeper server has what the former coordinator wrote through another one: it has answered a
// transaction of ours only once it knew all before. Reads without it could show older offsets.
func (s *shard) catchUp(session zkcoord.Session) error {
	_, err := session.Multi(zkcoord.CheckOp(zkcoord.StatePath(s.topicPartition()), zkcoord.AnyVersion))
	return err
}

// addExternal makes groups known that have offsets in ZooKeeper only, so that they can be listed and deleted.
func (l *loader) addExternal() error {
	s := l.s.c.o.Session()
	if err := l.s.catchUp(s); err != nil {
		return err
	}
	names, err := zkcoord.Groups(s)
	if err != nil {
		return err
	}
	n := l.s.c.o.Partitions()
	for _, name := range names {
		if n <= 0 || coordlog.PartitionOf(name, n) != l.s.Number {
			continue
		}
		tps, err := zkcoord.GroupPartitions(s, name)
		if err != nil || len(tps) == 0 {
			continue
		}
		l.entry(name).mu.external = true
	}
	return nil
}

// deleteFromZooKeeper removes a group's offsets of some partitions, or all of them. Ids and owners belong to the clients
// that write them.
func deleteFromZooKeeper(s zkcoord.Session, group string, tps []cluster.TopicPartition, all bool) error {
	if checkGroupName(group) != nil {
		return nil // nothing of it can be there
	}
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
