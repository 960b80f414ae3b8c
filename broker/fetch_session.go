package broker

import (
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/broker/replication"
	"ottla/internal/cluster"
)

// Fetch sessions (KIP-227): a client names its partitions once, later only what changed, and is told only what changed.
// Each partition of a session is itself a waiter on its partition: progress marks it due, so an incremental fetch looks at
// what was named and what is due, never at the idle rest.

// Special session epochs of KIP-227.
const (
	sessionlessEpoch    = -1 // no session wanted, or close the one named
	initialSessionEpoch = 0  // a full request that opens a session
)

// fetchKey names a partition inside a session: by topic id since version 13, by name before.
type fetchKey struct {
	id        cluster.TopicID
	topic     string
	partition int32
}

// fetchTarget is one partition of a fetch, as the client wants it.
type fetchTarget struct {
	fetchKey
	offset           int64
	maxBytes         int32
	leaderEpoch      cluster.LeaderEpoch
	lastFetchedEpoch cluster.LeaderEpoch
	logStartOffset   int64
}

// fetchSession is one client's session; one fetch at a time works with it.
// Lock order: fetchSessions.mu before fetchSession.mu; a fetch's mu before both of its session.
type fetchSession struct {
	id       int32
	replica  bool
	topicIDs bool
	// registration is the follower's that opened the session. A broker that registered anew names everything again: an idle partition
	// would else stay known to its leader under the old registration, which the controller refuses in an ISR.
	registration cluster.BrokerEpoch
	touched      replication.Session // a follower's: when it last fetched, for the partitions that it did not name

	mu struct {
		sync.Mutex
		epoch      int32
		partitions map[fetchKey]*sessionPartition
		due        []*sessionPartition // FIFO; a partition is in it at most once
		inUse      *fetch              // the fetch that works with the session: at most one
		parked     *fetch              // the same while it waits for progress
		lastUsed   time.Time
		closed     bool
	}
}

// sessionPartition is one partition of a session. Its session's mu guards it.
type sessionPartition struct {
	session *fetchSession
	target  fetchTarget
	on      *partition.Partition // where it waits; nil while the partition is unknown here
	due     bool                 // in session.mu.due
	gone    bool                 // forgotten by the client

	sentHighWatermark int64
	sentLogStart      int64

	slotOf *fetch // the fetch that has a place for this partition in its answer; that fetch's mu guards both
	slot   int
}

// Wake is called by the partition after progress, with none of its locks held.
func (sp *sessionPartition) Wake(*partition.Partition) {
	s := sp.session
	s.mu.Lock()
	s.markDueLocked(sp)
	parked := s.mu.parked
	s.mu.Unlock()
	if parked != nil {
		parked.progress()
	}
}

func (s *fetchSession) markDueLocked(sp *sessionPartition) {
	if sp.due || sp.gone {
		return
	}
	sp.due = true
	s.mu.due = append(s.mu.due, sp)
}

// takeDue empties the queue of due partitions; those that the client has forgotten meanwhile are left out.
func (s *fetchSession) takeDue() []*sessionPartition {
	s.mu.Lock()
	defer s.mu.Unlock()
	due := s.mu.due
	s.mu.due = nil
	for _, sp := range due {
		sp.due = false
	}
	return slices.DeleteFunc(due, func(sp *sessionPartition) bool { return sp.gone })
}

// keepDue puts partitions back whose answer may still hold news next time: they had data, an error, or found no room.
func (s *fetchSession) keepDue(partitions []*sessionPartition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sp := range partitions {
		s.markDueLocked(sp)
	}
}

// park names the fetch that progress is to be told to, unless that one has left already.
func (s *fetchSession) park(f *fetch) {
	s.mu.Lock()
	if s.mu.inUse == f {
		s.mu.parked = f
	}
	s.mu.Unlock()
}

// leave ends f's work with the session.
func (s *fetchSession) leave(f *fetch) {
	s.mu.Lock()
	if s.mu.inUse == f {
		s.mu.inUse, s.mu.parked = nil, nil
	}
	s.mu.Unlock()
}

// keepDueAll marks every partition due: the second look of a fetch that had not waited on them before.
func (s *fetchSession) keepDueAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sp := range s.mu.partitions {
		s.markDueLocked(sp)
	}
}

// size counts the partitions of the session.
func (s *fetchSession) size() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mu.partitions)
}

// apply takes over what an incremental request names, marks it due, and forgets what it drops, in this order: what is both named and
// dropped is gone, as in Kafka.
func (s *fetchSession) apply(targets []fetchTarget, forgotten []fetchKey) {
	s.mu.Lock()
	if s.mu.closed { // somebody else got its slot just now
		s.mu.Unlock()
		return
	}
	for _, t := range targets {
		sp := s.mu.partitions[t.fetchKey]
		if sp == nil {
			sp = &sessionPartition{session: s, sentHighWatermark: -1, sentLogStart: -1}
			s.mu.partitions[t.fetchKey] = sp
		}
		sp.target = t
		s.markDueLocked(sp)
	}
	var left []*sessionPartition
	for _, k := range forgotten {
		if sp := s.mu.partitions[k]; sp != nil {
			sp.gone = true
			delete(s.mu.partitions, k)
			left = append(left, sp)
		}
	}
	s.mu.Unlock()
	for _, sp := range left {
		sp.unwatch()
	}
}

// watch makes the session partition wait on p; called by the fetch that resolved it.
func (sp *sessionPartition) watch(p *partition.Partition, on partition.WakeOn) {
	s := sp.session
	s.mu.Lock()
	old := sp.on
	dead := sp.gone || s.mu.closed
	if !dead {
		sp.on = p
	}
	s.mu.Unlock()
	if dead || old == p {
		return
	}
	if old != nil {
		old.RemoveWaiter(sp)
	}
	if p != nil {
		p.AddWaiter(sp, on)
	}
}

func (sp *sessionPartition) unwatch() {
	s := sp.session
	s.mu.Lock()
	on := sp.on
	sp.on = nil
	s.mu.Unlock()
	if on != nil {
		on.RemoveWaiter(sp)
	}
}

func (s *fetchSession) close() {
	s.mu.Lock()
	s.mu.closed = true
	partitions := s.mu.partitions
	s.mu.partitions, s.mu.due = nil, nil
	for _, sp := range partitions {
		sp.gone = true
	}
	s.mu.Unlock()
	for _, sp := range partitions {
		sp.unwatch()
	}
}

// fetchSessions holds at most max.incremental.fetch.session.cache.slots sessions.
type fetchSessions struct {
	slots func() int
	mu    struct {
		sync.Mutex
		byID map[int32]*fetchSession
	}
}

// sessionEvictAfter is how long a session must be unused before a newcomer may take its slot. Source: KIP-227.
const sessionEvictAfter = 2 * time.Minute

func newFetchSessions(slots func() int) *fetchSessions {
	c := &fetchSessions{slots: slots}
	c.mu.byID = map[int32]*fetchSession{}
	return c
}

// open makes a session, or returns nil when all slots are taken by sessions in use.
func (c *fetchSessions) open(replica, topicIDs bool, now time.Time, f *fetch) *fetchSession {
	s := &fetchSession{replica: replica, topicIDs: topicIDs, registration: f.epoch}
	s.mu.inUse = f
	s.mu.epoch = 1
	s.mu.lastUsed = now
	s.mu.partitions = map[fetchKey]*sessionPartition{}

	c.mu.Lock()
	var evicted *fetchSession
	if len(c.mu.byID) >= c.slots() {
		if evicted = c.evictLocked(replica, now); evicted == nil {
			c.mu.Unlock()
			return nil
		}
		delete(c.mu.byID, evicted.id)
	}
	for s.id == 0 || c.mu.byID[s.id] != nil {
		s.id = 1 + rand.Int32N(1<<31-2)
	}
	c.mu.byID[s.id] = s
	c.mu.Unlock()

	if evicted != nil {
		evicted.close()
	}
	return s
}

// evictLocked picks the longest unused session that may go: stale ones always, a consumer's for a replica's.
func (c *fetchSessions) evictLocked(replica bool, now time.Time) *fetchSession {
	var oldest *fetchSession
	var oldestUsed time.Time
	for _, s := range c.mu.byID {
		s.mu.Lock()
		used := s.mu.lastUsed
		s.mu.Unlock()
		stale := now.Sub(used) > sessionEvictAfter
		if !stale && (!replica || s.replica) {
			continue
		}
		if oldest == nil || used.Before(oldestUsed) {
			oldest, oldestUsed = s, used
		}
	}
	return oldest
}

func (c *fetchSessions) remove(id int32) {
	c.mu.Lock()
	s := c.mu.byID[id]
	delete(c.mu.byID, id)
	c.mu.Unlock()
	if s != nil {
		s.close()
	}
}

// resume finds the session of an incremental request, moves its epoch on and gives it to f. A client that sends a second request
// before the first is answered, from another connection, is out of step: INVALID_FETCH_SESSION_EPOCH.
func (c *fetchSessions) resume(req *kmsg.FetchRequest, now time.Time, f *fetch) (*fetchSession, error) {
	c.mu.Lock()
	s := c.mu.byID[req.SessionID]
	c.mu.Unlock()
	if s != nil && s.registration != f.epoch {
		c.remove(s.id)
		s = nil
	}
	if s == nil {
		return nil, kerr.FetchSessionIDNotFound
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closed {
		return nil, kerr.FetchSessionIDNotFound
	}
	if s.mu.epoch != req.SessionEpoch || s.mu.inUse != nil {
		return nil, kerr.InvalidFetchSessionEpoch
	}
	if s.topicIDs != (req.Version >= 13) {
		return nil, kerr.FetchSessionTopicIDError
	}
	s.mu.epoch = nextSessionEpoch(s.mu.epoch)
	s.mu.lastUsed = now
	s.mu.inUse = f
	return s, nil
}

// nextSessionEpoch wraps to 1: 0 and -1 have meanings of their own.
func nextSessionEpoch(epoch int32) int32 {
	if epoch == 1<<31-1 {
		return 1
	}
	return epoch + 1
}

// answerReplicas ends the wait of every replica's fetch.
func (c *fetchSessions) answerReplicas() {
	c.mu.Lock()
	var waiting []*fetch
	for _, s := range c.mu.byID {
		if !s.replica {
			continue
		}
		s.mu.Lock()
		if s.mu.parked != nil {
			waiting = append(waiting, s.mu.parked)
		}
		s.mu.Unlock()
	}
	c.mu.Unlock()
	for _, f := range waiting {
		f.answer()
	}
}

// stats returns how many sessions and how many partitions of sessions there are.
func (c *fetchSessions) stats() (sessions, partitions int) {
	c.mu.Lock()
	all := make([]*fetchSession, 0, len(c.mu.byID))
	for _, s := range c.mu.byID {
		all = append(all, s)
	}
	c.mu.Unlock()
	for _, s := range all {
		partitions += s.size()
	}
	return len(all), partitions
}

// size is the number of sessions.
func (c *fetchSessions) size() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.mu.byID)
}
