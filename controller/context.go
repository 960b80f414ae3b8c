package controller

import (
	"iter"
	"maps"
	"slices"
	"time"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// model is what a reign knows of the cluster. Only the loop touches it.
type model struct {
	epoch   cluster.ControllerEpoch
	brokers map[cluster.BrokerID]*broker // registered: live, or shutting down
	topics  map[string]*topic
	names   map[cluster.TopicID]string
	cancels []func() // of watches that end with the reign

	fullDisks  map[cluster.BrokerID]bool // brokers that lack room for what clients write; replaced whole
	recovering recovering
}

func newModel(epoch cluster.ControllerEpoch) *model {
	return &model{
		epoch:   epoch,
		brokers: map[cluster.BrokerID]*broker{},
		topics:  map[string]*topic{},
		names:   map[cluster.TopicID]string{},
		recovering: recovering{
			ends:  map[cluster.BrokerID]map[cluster.TopicPartition]zkcoord.LogEnd{},
			since: map[*partition]time.Time{},
		},
	}
}

// broker is one registered broker.
type broker struct {
	cluster.Broker
	shuttingDown bool // asked for a controlled shutdown: still gets requests, but never leads and never enters an ISR
	cancelWatch  func()
}

// topic is one topic znode.
type topic struct {
	name        string
	id          cluster.TopicID
	version     int32        // data version of the topic znode
	partitions  []*partition // by number; nil where a foreign writer left a gap
	deletion    *deletion    // nil: not to be deleted
	cancelWatch func()
}

// deletion is the progress of a topic's deletion; that of its replicas is in the replicas.
type deletion struct {
	started    bool
	ineligible string // why it has to wait; "" when it need not
}

// partition is one partition of a topic.
type partition struct {
	topic    *topic
	number   int32
	replicas []replica          // in assignment order; during a reassignment the union, target first
	adding   []cluster.BrokerID // of replicas: not assigned before the reassignment
	removing []cluster.BrokerID // of replicas: not assigned after it

	known   bool // there is a state znode; false: the partition is new
	state   zkcoord.PartitionState
	version cluster.PartitionEpoch // data version of the state znode
	written int64                  // zxid of its last write, as the reign began
}

// replica is one replica of a partition.
type replica struct {
	broker    cluster.BrokerID
	dirFailed bool // on a failed log directory, as its broker said
	deletion  replicaDeletion
}

// replicaDeletion is how far the deletion of a replica has come.
type replicaDeletion uint8

const (
	notDeleting        replicaDeletion = iota
	deletionStarted                    // StopReplica{delete} is on its way
	deletionIneligible                 // its broker is away or refused
	deletionSuccessful
)

// phase is the state of a partition, derived (package comment).
type phase uint8

const (
	phaseNew phase = iota
	phaseOnline
	phaseOffline
)

func (ph phase) String() string { return [...]string{"new", "online", "offline"}[ph] }

func (p *partition) tp() cluster.TopicPartition {
	return cluster.TopicPartition{Topic: p.topic.name, Partition: p.number}
}

func (p *partition) ids() []cluster.BrokerID {
	ids := make([]cluster.BrokerID, len(p.replicas))
	for i := range p.replicas {
		ids[i] = p.replicas[i].broker
	}
	return ids
}

func (p *partition) replica(id cluster.BrokerID) *replica {
	for i := range p.replicas {
		if p.replicas[i].broker == id {
			return &p.replicas[i]
		}
	}
	return nil
}

// preferred is the first assigned replica.
func (p *partition) preferred() cluster.BrokerID {
	if len(p.replicas) == 0 {
		return cluster.NoBroker
	}
	return p.replicas[0].broker
}

func (p *partition) reassigning() bool { return len(p.adding) > 0 || len(p.removing) > 0 }

func (p *partition) assignment() assignment {
	return assignment{replicas: p.ids(), adding: p.adding, removing: p.removing}
}

// setAssignment takes a new replica list; what is known of replicas that stay is kept.
func (p *partition) setAssignment(a assignment) {
	replicas := make([]replica, len(a.replicas))
	for i, id := range a.replicas {
		replicas[i] = replica{broker: id}
		if old := p.replica(id); old != nil {
			replicas[i] = *old
		}
	}
	p.replicas, p.adding, p.removing = replicas, a.adding, a.removing
}

func (p *partition) replicasInDeletion(d replicaDeletion) int {
	n := 0
	for i := range p.replicas {
		if p.replicas[i].deletion == d {
			n++
		}
	}
	return n
}

// each yields the partitions in order.
func (t *topic) each() iter.Seq[*partition] {
	return func(yield func(*partition) bool) {
		for _, p := range t.partitions {
			if p != nil && !yield(p) {
				return
			}
		}
	}
}

func (t *topic) partition(number int32) *partition {
	if number < 0 || int(number) >= len(t.partitions) {
		return nil
	}
	return t.partitions[number]
}

func (t *topic) count() int {
	n := 0
	for range t.each() {
		n++
	}
	return n
}

func (t *topic) reassigning() bool {
	for p := range t.each() {
		if p.reassigning() {
			return true
		}
	}
	return false
}

// partitionNumberMax bounds the table of one topic: its znode would pass ZooKeeper's packet limit long before.
const partitionNumberMax = 1 << 20

// addPartition makes a new partition. It returns nil for a number that no topic can have.
func (t *topic) addPartition(number int32, a assignment) *partition {
	if number < 0 || number > partitionNumberMax {
		return nil
	}
	for int(number) >= len(t.partitions) {
		t.partitions = append(t.partitions, nil)
	}
	p := &partition{topic: t, number: number}
	p.setAssignment(a)
	t.partitions[number] = p
	return p
}

// node is the topic as its znode has it.
func (t *topic) node() zkcoord.TopicNode {
	n := zkcoord.TopicNode{
		ID:         t.id,
		Partitions: map[int32][]cluster.BrokerID{},
		Adding:     map[int32][]cluster.BrokerID{},
		Removing:   map[int32][]cluster.BrokerID{},
	}
	for p := range t.each() {
		n.Partitions[p.number] = p.ids()
		if len(p.adding) > 0 {
			n.Adding[p.number] = p.adding
		}
		if len(p.removing) > 0 {
			n.Removing[p.number] = p.removing
		}
	}
	return n
}

// addTopic takes a topic znode into the model; its partitions are new.
func (m *model) addTopic(name string, node zkcoord.TopicNode) *topic {
	t := &topic{name: name, id: node.ID, version: node.Version}
	for _, number := range slices.Sorted(maps.Keys(node.Partitions)) {
		t.addPartition(number, assignmentOf(node, number))
	}
	m.topics[name] = t
	if !node.ID.IsZero() {
		m.names[node.ID] = name
	}
	return t
}

func (m *model) forgetTopic(t *topic) {
	delete(m.topics, t.name)
	if m.names[t.id] == t.name {
		delete(m.names, t.id)
	}
	if t.cancelWatch != nil {
		t.cancelWatch()
	}
}

func (m *model) partition(tp cluster.TopicPartition) *partition {
	t := m.topics[tp.Topic]
	if t == nil {
		return nil
	}
	return t.partition(tp.Partition)
}

// eachPartition yields every partition; topics in no particular order.
func (m *model) eachPartition() iter.Seq[*partition] {
	return func(yield func(*partition) bool) {
		for _, t := range m.topics {
			for p := range t.each() {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// selectPartitions returns the partitions that pass, ordered by topic and number, so that what is sent and logged does not depend on chance.
func (m *model) selectPartitions(pass func(*partition) bool) []*partition {
	var out []*partition
	for p := range m.eachPartition() {
		if pass(p) {
			out = append(out, p)
		}
	}
	sortPartitions(out)
	return out
}

func sortPartitions(ps []*partition) {
	slices.SortFunc(ps, func(a, b *partition) int {
		if a.topic != b.topic {
			if a.topic.name < b.topic.name {
				return -1
			}
			return 1
		}
		return int(a.number) - int(b.number)
	})
}

// registered reports whether a broker is there: live or shutting down.
func (m *model) registered(id cluster.BrokerID) bool { return m.brokers[id] != nil }

// live reports whether a broker is there and stays.
func (m *model) live(id cluster.BrokerID) bool {
	b := m.brokers[id]
	return b != nil && !b.shuttingDown
}

func (m *model) shuttingDown(id cluster.BrokerID) bool {
	b := m.brokers[id]
	return b != nil && b.shuttingDown
}

func (m *model) liveCount() int {
	n := 0
	for _, b := range m.brokers {
		if !b.shuttingDown {
			n++
		}
	}
	return n
}

// registeredIDs are the brokers that get requests, ascending.
func (m *model) registeredIDs() []cluster.BrokerID { return slices.Sorted(maps.Keys(m.brokers)) }

func (m *model) liveIDs() []cluster.BrokerID {
	var ids []cluster.BrokerID
	for _, id := range m.registeredIDs() {
		if m.live(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// online reports whether a replica may lead and be in the ISR: its broker is live, its log directory works.
func (m *model) online(r *replica) bool { return m.live(r.broker) && !r.dirFailed }

// reachable is online, or on a broker that is shutting down but still there.
func (m *model) reachable(r *replica) bool { return m.registered(r.broker) && !r.dirFailed }

// idOnline is online for a replica given by its broker; a broker without a replica counts as not online.
func (m *model) idOnline(p *partition, id cluster.BrokerID) bool {
	r := p.replica(id)
	return r != nil && m.online(r)
}

func (m *model) idReachable(p *partition, id cluster.BrokerID) bool {
	r := p.replica(id)
	return r != nil && m.reachable(r)
}

// phase derives the state of a partition. A leader that is shutting down still leads; one that came back unclean does not, until it
// is elected again.
func (m *model) phase(p *partition) phase {
	switch {
	case !p.known:
		return phaseNew
	case m.idReachable(p, p.state.Leader) && !m.cameBackUnclean(p, p.state, p.state.Leader):
		return phaseOnline
	}
	return phaseOffline
}

// deleting reports whether the topic is queued for deletion.
func (t *topic) deleting() bool { return t.deletion != nil }

// doomed reports whether nothing is done for the topic any more but its deletion. A reassignment must come to its end first, and for
// that it needs leaders.
func (t *topic) doomed() bool { return t.deleting() && !t.reassigning() }
