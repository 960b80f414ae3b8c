package partition

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/broker/replication"
	"ottla/internal/cluster"
	"ottla/logstore"
)

// Options are what a Set is made of.
type Options struct {
	BrokerID cluster.BrokerID
	Logs     *logstore.Manager
	// LagMax gives replica.lag.time.max.ms. Nil: Kafka's default, 30 s.
	LagMax func() time.Duration
	// Topic gives what of a topic's resolved settings is needed here, from a cache: a role change must not wait for
	// ZooKeeper. Nil: the defaults.
	Topic  func(topic string) TopicSettings
	Logger zerolog.Logger
	Alter  AlterPartitionSender
	// Alive reports whether a broker is registered, as far as the metadata says.
	Alive func(cluster.BrokerID) bool
	// Lease reports whether the session with ZooKeeper is proven to live. Nil: always. It gates what the high watermark
	// does not protect: acks 0 and 1, consumers' reads, ListOffsets.
	Lease func() bool
	// StrictLease has the lease gate acks=all too: safer than needed, at the price of availability while the whole ensemble is
	// away. Nil: no. Source: ottla.strict.acks.
	StrictLease func() bool
	// SelectReplica chooses where a consumer in rack should read, among members that hold the offset (the leader first). Nil
	// or NoBroker: here. Source: replica.selector.class, KIP-392.
	SelectReplica func(rack string, candidates []cluster.BrokerID) cluster.BrokerID
	// ReadState reads the partition's state znode, to settle an ISR change whose outcome is unknown. May be nil.
	ReadState func(cluster.TopicPartition) (AlterResult, error)
	// AskAgain tells the controller that replicas which refused to lead may serve again: it takes a replica that answered
	// KAFKA_STORAGE_ERROR for lost, and tells it nothing more, until it is asked to look. Nil: nobody is told.
	AskAgain func()
	// LeadShortened allows logs that may lack acknowledged records to lead: an operator's decision. Nil: no.
	LeadShortened func() bool
	// Moves bounds what moves between log directories copy. Nil: nothing does.
	Moves MoveThrottle
	Now   func() time.Time // default time.Now
}

// Set is this broker's partitions. Kafka's name for it is ReplicaManager.
type Set struct {
	options Options
	log     zerolog.Logger
	start   time.Time // the zero of replication.Instant
	active  activeList
	tasks   sync.WaitGroup // background I/O; see background
	slots   chan struct{}  // as many as may run at a time
	traffic trafficTable   // guards itself
	changes isrChanges
	refused refused // guards itself
	moves   moves

	lagMax   atomic.Int64                 // replica.lag.time.max.ms in nanoseconds, taken from the settings by Reconfigure
	fetchers atomic.Pointer[Fetchers]     // set once
	onChange atomic.Pointer[[]changeFunc] // coordinators

	// roles is held for the whole of a request that changes roles: one decision at a time, in the order of arrival. Never
	// taken with another lock held.
	roles struct {
		sync.Mutex
		controllerEpoch atomic.Int32 // highest seen
	}
	mu struct {
		sync.RWMutex
		partitions map[cluster.TopicPartition]*Partition
	}
}

type changeFunc = func(became, resigned []*Partition)

// NewSet returns a Set. SetFetchers must follow before the first LeaderAndISR.
func NewSet(o Options) *Set {
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &Set{options: o, log: o.Logger.With().Str("component", "partition").Logger(), start: o.Now()}
	s.slots = make(chan struct{}, changeWorkers)
	s.moves.slots = make(chan struct{}, movesAtOnce)
	s.moves.running = map[cluster.TopicPartition]*move{}
	s.mu.partitions = map[cluster.TopicPartition]*Partition{}
	s.active.partitions = map[*Partition]struct{}{}
	s.roles.controllerEpoch.Store(-1)
	s.Reconfigure()
	return s
}

// SetFetchers tells the Set who replicates.
func (s *Set) SetFetchers(f Fetchers) { s.fetchers.Store(&f) }

func (s *Set) follow(p *Partition, leader cluster.BrokerID, epoch cluster.LeaderEpoch) {
	if f := s.fetchers.Load(); f != nil {
		(*f).Follow(p, leader, epoch)
	}
}

func (s *Set) unfollow(p *Partition) {
	if f := s.fetchers.Load(); f != nil {
		(*f).Unfollow(p)
	}
}

func (s *Set) now() time.Time { return s.options.Now() }

func (s *Set) instant(now time.Time) replication.Instant {
	return replication.Instant(now.Sub(s.start))
}

// Instant is a moment on this Set's monotonic clock, for fetch sessions (replication.Session).
func (s *Set) Instant(now time.Time) replication.Instant { return s.instant(now) }

func (s *Set) env(now time.Time, minISR int) replication.Env {
	return replication.Env{
		Now: s.instant(now), LagMax: time.Duration(s.lagMax.Load()), MinISR: minISR, Alive: s.options.Alive,
	}
}

// mayAppend reports whether the lease admits an append with the given acks: the high watermark alone protects acks=all.
func (s *Set) mayAppend(acks int16) bool {
	if acks == -1 && (s.options.StrictLease == nil || !s.options.StrictLease()) {
		return true
	}
	return s.leaseValid()
}

func (s *Set) leaseValid() bool { return s.options.Lease == nil || s.options.Lease() }

func (s *Set) mayLeadShortened() bool {
	return s.options.LeadShortened != nil && s.options.LeadShortened()
}

// background runs I/O that must not be done by whoever noticed the need for it, some at a time. Run waits for it at its end.
func (s *Set) background(task func()) {
	s.tasks.Go(func() {
		s.slots <- struct{}{}
		defer func() { <-s.slots }()
		task()
	})
}

// Get returns a hosted partition: UNKNOWN_TOPIC_OR_PARTITION when there is none, KAFKA_STORAGE_ERROR when its directory has
// failed. Whether it leads is for the partition's methods to judge.
func (s *Set) Get(topic string, partition int32) (*Partition, error) {
	p := s.lookup(cluster.TopicPartition{Topic: topic, Partition: partition})
	if p == nil {
		return nil, kerr.UnknownTopicOrPartition
	}
	if p.view.Load().offline != nil {
		return nil, kerr.KafkaStorageError
	}
	return p, nil
}

func (s *Set) lookup(tp cluster.TopicPartition) *Partition {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.mu.partitions[tp]
}

// lookupOrAdd returns the partition, made without a log where it was not hosted.
func (s *Set) lookupOrAdd(tp cluster.TopicPartition) *Partition {
	if p := s.lookup(tp); p != nil {
		return p
	}
	p := newPartition(s, tp)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.partitions[tp] = p
	return p
}

func (s *Set) remove(tp cluster.TopicPartition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.mu.partitions[tp]; ok {
		s.traffic.leave(tp.Topic)
	}
	delete(s.mu.partitions, tp)
}

// All returns every hosted partition, in no order.
func (s *Set) All() []*Partition {
	s.mu.RLock()
	defer s.mu.RUnlock()
	out := make([]*Partition, 0, len(s.mu.partitions))
	for _, p := range s.mu.partitions {
		out = append(out, p)
	}
	return out
}

// OnLeadershipChange registers what is done after each request that changed roles: became are the partitions that lead (in a
// new epoch), resigned those that follow or stopped. Called outside all locks of partitions, in the order of the requests.
// Register before the first request.
func (s *Set) OnLeadershipChange(fn func(became, resigned []*Partition)) {
	var list []changeFunc
	if old := s.onChange.Load(); old != nil {
		list = append(list, *old...)
	}
	list = append(list, fn)
	s.onChange.Store(&list)
}

func (s *Set) tellLeadership(became, resigned []*Partition) {
	list := s.onChange.Load()
	if list == nil || len(became)+len(resigned) == 0 {
		return
	}
	for _, fn := range *list {
		fn(became, resigned)
	}
}

// StopLeadingEverything ends every leadership on this broker, because its session is gone: another broker may lead by now.
// Replicas that follow go on. Waiting requests are answered NOT_LEADER_OR_FOLLOWER. The epochs are kept, and the next
// decisions are admitted even when their epochs are the same. It must not use ZooKeeper, and does not.
func (s *Set) StopLeadingEverything(reason string) {
	s.roles.Lock()
	defer s.roles.Unlock()
	var resigned []*Partition
	for _, p := range s.All() {
		if p.standDown() {
			resigned = append(resigned, p)
		}
	}
	s.log.Warn().Str("reason", reason).Int("partitions", len(resigned)).Msg("stopped leading everything")
	s.tellLeadership(nil, resigned)
}

// DirFailed takes the partitions of a failed log directory offline.
func (s *Set) DirFailed(dir string, cause error) {
	s.roles.Lock()
	defer s.roles.Unlock()
	var resigned []*Partition
	n := 0
	for _, p := range s.All() {
		log := p.Log()
		if log == nil || log.LogDir() != cleanPath(dir) {
			continue
		}
		s.stopMove(p.id)
		n++
		if p.goOffline(cause) {
			resigned = append(resigned, p)
		}
	}
	s.log.Error().Err(cause).Str("dir", dir).Int("partitions", n).
		Msg("log directory failed; its partitions are offline until it is repaired and the broker restarted")
	s.tellLeadership(nil, resigned)
}

// activeList is what the periodic check walks. Its lock is a leaf: taken with a partition's mu held, it takes no other.
type activeList struct {
	mu         sync.Mutex
	partitions map[*Partition]struct{}
}

func (l *activeList) add(p *Partition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.partitions[p] = struct{}{}
}

func (l *activeList) take() []*Partition {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*Partition, 0, len(l.partitions))
	for p := range l.partitions {
		out = append(out, p)
	}
	clear(l.partitions)
	return out
}

// CheckISR looks at every partition on which something is going on: members that lag leave, the caught up join, open changes
// are settled.
func (s *Set) CheckISR(now time.Time) {
	for _, p := range s.active.take() {
		if !p.check(now) {
			s.active.add(p)
		}
	}
	s.refused.retry(s, now)
}

// checkInterval is a tenth of the lag time: Kafka looks every half of it, so a member that hangs holds up acks=all for up to
// half as long again.
func (s *Set) checkInterval() time.Duration {
	return min(max(time.Duration(s.lagMax.Load())/10, 20*time.Millisecond), 3*time.Second)
}

// Run does the periodic work until ctx ends, and then waits for background work.
func (s *Set) Run(ctx context.Context) {
	defer s.tasks.Wait()
	defer s.moves.stop()
	timer := time.NewTimer(s.checkInterval())
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
			s.CheckISR(s.now())
			timer.Reset(s.checkInterval())
		}
	}
}
