package txncoord

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

// Described is a transactional id as DescribeTransactions shows it.
type Described struct {
	Producer
	State      string
	TimeoutMs  int32
	StartedMs  int64 // -1: no transaction
	Partitions []cluster.TopicPartition
}

// Describe tells of a transactional id: TRANSACTIONAL_ID_NOT_FOUND when it is not known. Source: KIP-664.
func (c *Coordinator) Describe(id string) (Described, error) {
	s, err := c.usable(id)
	if err != nil {
		return Described{}, err
	}
	e := s.get(id)
	if e == nil {
		return Described{}, kerr.TransactionalIDNotFound
	}
	e.mu.Lock()
	i := e.mu.now
	e.mu.Unlock()
	if i.ID == noProducerID || i.state == Dead {
		return Described{}, kerr.TransactionalIDNotFound
	}
	return Described{Producer: i.Producer, State: i.state.String(), TimeoutMs: i.timeoutMs, StartedMs: i.startedMs, Partitions: i.partitions.sorted()}, nil
}

// Filter says which transactional ids List shows; empty lists and a negative duration show all.
type Filter struct {
	ProducerIDs []int64
	States      []string
	DurationMs  int64 // transactions that are open for longer (KIP-994)
}

// Listed is a transactional id as ListTransactions shows it.
type Listed struct {
	ID         string
	ProducerID int64
	State      string
}

// List shows the transactional ids that this broker coordinates, in no order, and the names of states in the filter that are none.
func (c *Coordinator) List(f *Filter) (list []Listed, unknown []string, err error) {
	if c.shards.Stopped() {
		return nil, nil, kerr.CoordinatorNotAvailable
	}
	shards := c.shards.All()
	for _, s := range shards {
		if s.Loading() {
			return nil, nil, kerr.CoordinatorLoadInProgress
		}
	}
	var states []State
	for _, name := range f.States {
		if s, ok := stateNamed(name); ok {
			states = append(states, s)
		} else {
			unknown = append(unknown, name)
		}
	}
	now := c.now().UnixMilli()
	for _, s := range shards {
		for _, e := range s.all() {
			e.mu.Lock()
			id, i := e.mu.id, e.mu.now
			e.mu.Unlock()
			switch {
			case i.ID == noProducerID, i.state == Dead:
			case len(f.ProducerIDs) > 0 && !slices.Contains(f.ProducerIDs, i.ID):
			case len(f.States) > 0 && !slices.Contains(states, i.state):
			case f.DurationMs >= 0 && (i.startedMs < 0 || now-i.startedMs <= f.DurationMs):
			default:
				list = append(list, Listed{ID: id, ProducerID: i.ID, State: i.state.String()})
			}
		}
	}
	return list, unknown, nil
}

// Count is how many transactional ids this broker coordinates, by state.
func (c *Coordinator) Count() map[string]int {
	count := map[string]int{}
	for _, s := range c.shards.All() {
		for _, e := range s.all() {
			e.mu.Lock()
			if !e.mu.unused() {
				count[e.mu.now.state.String()]++
			}
			e.mu.Unlock()
		}
	}
	return count
}
