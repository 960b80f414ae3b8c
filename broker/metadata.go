package broker

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
)

// metadata is what this broker knows of the cluster: an immutable snapshot, replaced whole by each UpdateMetadata.
// Handlers load a pointer and read without a lock.
type metadata struct {
	controller      cluster.BrokerID
	controllerEpoch cluster.ControllerEpoch
	brokers         map[cluster.BrokerID]cluster.Broker // registered, as the controller last said
	brokerIDs       []cluster.BrokerID                  // the same, ascending
	topics          map[string]*topicMetadata
	names           map[cluster.TopicID]string
	partitions      int // over all topics
}

// topicMetadata is one topic of a snapshot; shared between snapshots until the topic changes.
type topicMetadata struct {
	name       string
	id         cluster.TopicID
	partitions []*partitionMetadata // by number; nil where the controller has not told us yet
}

// partitionMetadata is one partition as the controller published it. Immutable.
type partitionMetadata struct {
	leader          cluster.BrokerID
	leaderEpoch     cluster.LeaderEpoch
	partitionEpoch  cluster.PartitionEpoch
	isr             []cluster.BrokerID
	replicas        []cluster.BrokerID
	offlineReplicas []cluster.BrokerID // on a failed log directory
}

// known counts the partitions that the controller has told us about.
func (t *topicMetadata) known() int {
	n := 0
	for _, p := range t.partitions {
		if p != nil {
			n++
		}
	}
	return n
}

// partition returns the metadata of a partition, or nil.
func (m *metadata) partition(topic string, partition int32) *partitionMetadata {
	t := m.topics[topic]
	if t == nil || partition < 0 || int(partition) >= len(t.partitions) {
		return nil
	}
	return t.partitions[partition]
}

// alive reports whether the controller counts the broker among the registered ones.
func (m *metadata) alive(id cluster.BrokerID) bool {
	_, ok := m.brokers[id]
	return ok
}

// metadataCache publishes snapshots and wakes those who wait for a change.
type metadataCache struct {
	current atomic.Pointer[metadata]
	mu      struct {
		sync.Mutex // serialises updates; readers take no lock
		waiters    map[*metadataWaiter]struct{}
	}
}

// metadataWaiter is asked after each update; once it answers true it is dropped.
type metadataWaiter struct{ ready func(*metadata) bool }

func newMetadataCache() *metadataCache {
	c := &metadataCache{}
	c.current.Store(&metadata{controller: cluster.NoBroker})
	c.mu.waiters = map[*metadataWaiter]struct{}{}
	return c
}

func (c *metadataCache) load() *metadata { return c.current.Load() }

// update merges one UpdateMetadata request: the broker list and the controller replace the old ones, partitions are
// merged, and a leader of -2 removes its partition. It returns the partitions that were removed.
// The caller has checked the controller's and the broker's epoch.
func (c *metadataCache) update(req *kmsg.UpdateMetadataRequest) []cluster.TopicPartition {
	c.mu.Lock()
	next, removed := merge(c.current.Load(), req)
	c.current.Store(next)
	waiting := slices.Collect(maps.Keys(c.mu.waiters))
	c.mu.Unlock()

	// A waiter's check may itself wait or answer a request: never under the lock.
	for _, w := range waiting {
		if w.ready(next) {
			c.cancel(w)
		}
	}
	return removed
}

// wait has ready asked at once and after each update, until it answers true. It may be asked from two goroutines at once.
func (c *metadataCache) wait(ready func(*metadata) bool) {
	w := &metadataWaiter{ready: ready}
	c.mu.Lock()
	c.mu.waiters[w] = struct{}{}
	c.mu.Unlock()
	if ready(c.load()) {
		c.cancel(w)
	}
}

// await calls done once: with true as soon as ready answers true, with false at the deadline.
func (c *metadataCache) await(deadline time.Time, ready func(*metadata) bool, done func(in bool)) {
	var finished atomic.Bool
	finish := func(in bool) {
		if finished.CompareAndSwap(false, true) {
			done(in)
		}
	}
	timer := time.AfterFunc(time.Until(deadline), func() { finish(false) })
	c.wait(func(m *metadata) bool {
		if finished.Load() {
			return true // too late: asked no more
		}
		if !ready(m) {
			return false
		}
		timer.Stop()
		finish(true)
		return true
	})
}

func (c *metadataCache) cancel(w *metadataWaiter) {
	c.mu.Lock()
	delete(c.mu.waiters, w)
	c.mu.Unlock()
}

func merge(old *metadata, req *kmsg.UpdateMetadataRequest) (*metadata, []cluster.TopicPartition) {
	next := &metadata{
		controller:      cluster.NoBroker,
		controllerEpoch: cluster.ControllerEpoch(req.ControllerEpoch),
		brokers:         brokersOf(req),
		topics:          old.topics,
		names:           old.names,
		partitions:      old.partitions,
	}
	if req.ControllerID >= 0 {
		next.controller = cluster.BrokerID(req.ControllerID)
	}
	next.brokerIDs = slices.Sorted(maps.Keys(next.brokers))
	changes := changedTopics(req)
	if len(changes) == 0 {
		return next, nil
	}

	next.topics, next.names = maps.Clone(old.topics), maps.Clone(old.names)
	if next.topics == nil {
		next.topics, next.names = map[string]*topicMetadata{}, map[cluster.TopicID]string{}
	}
	var removed []cluster.TopicPartition
	for _, change := range changes {
		before := next.topics[change.name]
		after, gone := mergeTopic(before, change)
		removed = append(removed, gone...)
		if before != nil {
			delete(next.names, before.id)
			next.partitions -= before.known()
		}
		if after.known() == 0 {
			delete(next.topics, change.name)
			continue
		}
		next.topics[change.name] = after
		next.partitions += after.known()
		if !after.id.IsZero() {
			next.names[after.id] = change.name
		}
	}
	return next, removed
}

// topicChange is what one request says about one topic.
type topicChange struct {
	name       string
	id         cluster.TopicID
	partitions []kmsg.UpdateMetadataRequestTopicPartition
}

// changedTopics brings the two layouts of the request (by topic since version 5, flat before) into one.
func changedTopics(req *kmsg.UpdateMetadataRequest) []topicChange {
	var changes []topicChange
	for i := range req.TopicStates {
		t := &req.TopicStates[i]
		changes = append(changes, topicChange{t.Topic, t.TopicID, t.PartitionStates})
	}
	at := map[string]int{}
	for _, p := range req.PartitionStates {
		i, ok := at[p.Topic]
		if !ok {
			i = len(changes)
			at[p.Topic] = i
			changes = append(changes, topicChange{name: p.Topic})
		}
		changes[i].partitions = append(changes[i].partitions, p)
	}
	return changes
}

func mergeTopic(before *topicMetadata, change topicChange) (*topicMetadata, []cluster.TopicPartition) {
	after := &topicMetadata{name: change.name, id: change.id}
	switch {
	case before == nil:
	case change.id.IsZero() || before.id.IsZero() || change.id == before.id:
		after.partitions = slices.Clone(before.partitions)
		if change.id.IsZero() { // before version 7 ids are not told
			after.id = before.id
		}
	} // else it is another topic of that name: its deletion was missed here
	var removed []cluster.TopicPartition
	for i := range change.partitions {
		p := &change.partitions[i]
		if p.Partition < 0 || p.Partition > maxPartitionNumber {
			continue
		}
		for int(p.Partition) >= len(after.partitions) {
			after.partitions = append(after.partitions, nil)
		}
		if cluster.LeaderEpoch(p.Leader) == cluster.DeletedLeaderEpoch {
			after.partitions[p.Partition] = nil
			removed = append(removed, cluster.TopicPartition{Topic: change.name, Partition: p.Partition})
			continue
		}
		after.partitions[p.Partition] = &partitionMetadata{
			leader:          cluster.BrokerID(p.Leader),
			leaderEpoch:     cluster.LeaderEpoch(p.LeaderEpoch),
			partitionEpoch:  cluster.PartitionEpoch(p.ZKVersion),
			isr:             brokerIDs(p.ISR),
			replicas:        brokerIDs(p.Replicas),
			offlineReplicas: brokerIDs(p.OfflineReplicas),
		}
	}
	return after, removed
}

// maxPartitionNumber bounds the table of one topic; a state znode larger than ZooKeeper's packet limit comes long before.
const maxPartitionNumber = 1 << 20

func brokersOf(req *kmsg.UpdateMetadataRequest) map[cluster.BrokerID]cluster.Broker {
	brokers := make(map[cluster.BrokerID]cluster.Broker, len(req.LiveBrokers))
	for _, b := range req.LiveBrokers {
		broker := cluster.Broker{ID: cluster.BrokerID(b.ID), Epoch: cluster.NoBrokerEpoch}
		if b.Rack != nil {
			broker.Rack = *b.Rack
		}
		for _, e := range b.Endpoints {
			protocol := securityProtocol(e.SecurityProtocol)
			name := e.ListenerName
			if name == "" { // versions 1 and 2 name only the protocol
				name = protocol
			}
			broker.Endpoints = append(broker.Endpoints, cluster.Endpoint{Listener: name, Protocol: protocol, Host: e.Host, Port: e.Port})
		}
		if len(b.Endpoints) == 0 { // version 0
			broker.Endpoints = []cluster.Endpoint{{Listener: "PLAINTEXT", Protocol: "PLAINTEXT", Host: b.Host, Port: b.Port}}
		}
		brokers[broker.ID] = broker
	}
	return brokers
}

// securityProtocol names the protocol codes that travel in UpdateMetadata.
func securityProtocol(code int16) string {
	names := [...]string{"PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"}
	if code < 0 || int(code) >= len(names) {
		return "PLAINTEXT"
	}
	return names[code]
}

func brokerIDs(ids []int32) []cluster.BrokerID {
	if len(ids) == 0 {
		return nil
	}
	out := make([]cluster.BrokerID, len(ids))
	for i, id := range ids {
		out[i] = cluster.BrokerID(id)
	}
	return out
}

func int32s(ids []cluster.BrokerID) []int32 {
	out := make([]int32, len(ids))
	for i, id := range ids {
		out[i] = int32(id)
	}
	return out
}
