// Package fetcher replicates partitions from their leaders: a few goroutines per source broker, each with a connection and an
// incremental fetch session of its own. Which bytes may be written, and where a log is cut, is judged by the partition; this
// package asks, hands over what came, and decides when to ask again.
//
// # A round
//
// Take what was added and removed, build a fetch that names only partitions whose position has changed, send it, wait, apply
// the answer to the partitions in parallel. A partition on which nothing happens costs nothing: it is in the session, and no
// round visits it.
//
// # What differs from Kafka
//
// Pauses after an error grow from a few milliseconds to replica.fetch.backoff.ms, for each partition by itself: right after
// an election a follower often asks before its leader knows, and a second of waiting would hold up acks=all. A partition in a
// pause leaves the session, so that the leader does not take our silence for being caught up.
package fetcher

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/internal/cluster"
)

// Conn is a connection to another broker, with one request in flight.
type Conn interface {
	RoundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, error)
	// Borrow is RoundTrip whose answer points into a buffer that release gives back.
	Borrow(ctx context.Context, req kmsg.Request) (resp kmsg.Response, release func(), err error)
	Close() error
}

// Throttle holds back replicas that are not in sync. Source: follower.replication.throttled.rate, KIP-73.
type Throttle interface {
	// Throttled reports whether the partition is among the throttled ones and the quota is used up.
	Throttled(cluster.TopicPartition) bool
	// Record counts fetched bytes of a partition.
	Record(tp cluster.TopicPartition, bytes int)
}

// Settings are the broker's settings for followers.
type Settings struct {
	Fetchers         int           // num.replica.fetchers
	MaxWait          time.Duration // replica.fetch.wait.max.ms
	MinBytes         int           // replica.fetch.min.bytes
	MaxBytes         int           // replica.fetch.max.bytes, per partition
	ResponseMaxBytes int           // replica.fetch.response.max.bytes
	Backoff          time.Duration // replica.fetch.backoff.ms: the longest pause after an error
	RequestTimeout   time.Duration // replica.socket.timeout.ms
}

// DefaultSettings are Kafka's defaults.
func DefaultSettings() Settings {
	return Settings{
		Fetchers: 1, MaxWait: 500 * time.Millisecond, MinBytes: 1, MaxBytes: 1 << 20, ResponseMaxBytes: 10 << 20,
		Backoff: time.Second, RequestTimeout: 30 * time.Second,
	}
}

// Options are what a Manager is made of.
type Options struct {
	BrokerID cluster.BrokerID
	// BrokerEpoch is this broker's current registration; it goes into every fetch (KIP-903).
	BrokerEpoch func() cluster.BrokerEpoch
	// Dial connects to a broker on the inter-broker listener. It fails while the broker's end point is unknown, and is asked
	// again after a pause.
	Dial func(ctx context.Context, id cluster.BrokerID) (Conn, error)
	// Settings are read at each round. Nil: the defaults.
	Settings func() Settings
	Throttle Throttle // may be nil
	// Connected hears of each connection to a broker that was made (nil) or has broken (why). May be nil.
	Connected func(source cluster.BrokerID, err error)
	Logger    zerolog.Logger
}

// Manager owns the fetchers of a broker. It implements partition.Fetchers.
type Manager struct {
	options Options
	log     zerolog.Logger
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup

	mu struct {
		sync.Mutex
		fetchers map[fetcherID]*fetcher
		owner    map[*partition.Partition]*fetcher
		closed   bool
	}
}

type fetcherID struct {
	source cluster.BrokerID
	index  int
}

var _ partition.Fetchers = (*Manager)(nil)

// New returns a Manager without fetchers; they start with the first partition and end with the last.
func New(o Options) *Manager {
	if o.Settings == nil {
		o.Settings = DefaultSettings
	}
	if o.Connected == nil {
		o.Connected = func(cluster.BrokerID, error) {}
	}
	m := &Manager{options: o, log: o.Logger.With().Str("component", "fetcher").Logger()}
	m.ctx, m.cancel = context.WithCancel(context.Background())
	m.mu.fetchers = map[fetcherID]*fetcher{}
	m.mu.owner = map[*partition.Partition]*fetcher{}
	return m
}

// Follow starts to replicate p from leader, or goes on in a new epoch. It returns at once.
func (m *Manager) Follow(p *partition.Partition, leader cluster.BrokerID, epoch cluster.LeaderEpoch) {
	id := fetcherID{source: leader, index: indexOf(p.TopicPartition(), m.options.Settings().Fetchers)}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closed {
		return
	}
	if old := m.mu.owner[p]; old != nil && old.id != id {
		old.remove(p)
	}
	f := m.mu.fetchers[id]
	if f == nil {
		f = newFetcher(m, id)
		m.mu.fetchers[id] = f
		m.running.Go(f.runLoop)
	}
	m.mu.owner[p] = f
	f.add(p, epoch)
}

// Unfollow ends the replication of p. What is in flight is refused by p itself.
func (m *Manager) Unfollow(p *partition.Partition) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.mu.owner[p]; f != nil {
		delete(m.mu.owner, p)
		f.remove(p)
	}
}

// retire ends an idle fetcher. It reports false when the fetcher was given work meanwhile.
func (m *Manager) retire(f *fetcher) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !f.idle() {
		return false
	}
	delete(m.mu.fetchers, f.id)
	return true
}

// Close ends every fetcher and waits for it.
func (m *Manager) Close() {
	m.mu.Lock()
	m.mu.closed = true
	m.mu.Unlock()
	m.cancel()
	m.running.Wait()
}

// Status describes one fetcher.
type Status struct {
	Source     cluster.BrokerID
	Index      int
	Partitions int
	Paused     int // in a pause after an error
	Failed     int // not replicated until the next decision
	MaxLag     int64
}

// Status describes all fetchers.
func (m *Manager) Status() []Status {
	m.mu.Lock()
	list := make([]*fetcher, 0, len(m.mu.fetchers))
	for _, f := range m.mu.fetchers {
		list = append(list, f)
	}
	m.mu.Unlock()
	out := make([]Status, 0, len(list))
	for _, f := range list {
		out = append(out, f.status())
	}
	return out
}

// Thread is which of a source's fetchers replicates a partition, when there are n for each source.
func Thread(tp cluster.TopicPartition, n int) int { return indexOf(tp, n) }

// indexOf spreads partitions over the fetchers of a source as Kafka does: abs(31·hash(topic) + partition) mod n.
func indexOf(tp cluster.TopicPartition, n int) int {
	if n <= 1 {
		return 0
	}
	var h int32 // Java's String.hashCode; topic names are ASCII
	for i := range len(tp.Topic) {
		h = 31*h + int32(tp.Topic[i])
	}
	h = 31*h + tp.Partition
	return int(h&0x7fffffff) % n
}
