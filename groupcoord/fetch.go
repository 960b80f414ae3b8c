package groupcoord

import (
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// Fetch is one group's share of an OffsetFetch request.
type Fetch struct {
	Group         string
	All           bool // every partition that has an offset
	Partitions    []cluster.TopicPartition
	RequireStable bool // UNSTABLE_OFFSET_COMMIT while a commit is on its way (KIP-447)
}

// Fetched is one partition's committed offset: -1 with empty metadata when there is none, which is no error.
type Fetched struct {
	cluster.TopicPartition
	Offset      int64
	LeaderEpoch cluster.LeaderEpoch
	Metadata    string
	Err         error
}

func nothingCommitted(tp cluster.TopicPartition) Fetched {
	return Fetched{TopicPartition: tp, Offset: -1, LeaderEpoch: cluster.NoLeaderEpoch}
}

// Fetch reads committed offsets, whatever the state of the group. done is called inline, or later when they are in ZooKeeper.
func (c *Coordinator) Fetch(f *Fetch, done func([]Fetched, error)) {
	s, err := c.usable(f.Group)
	if err != nil {
		done(nil, err)
		return
	}
	e := s.get(f.Group)
	if c.o.InZooKeeper {
		session := c.o.Session()
		read := func() { c.o.Run(func() { c.readZooKeeper(session, e, f, done) }) }
		if e == nil || !e.zk.readAfter(read) {
			read()
		}
		return
	}
	fetched := e.fetch(f)
	if !c.o.Lease() || !s.Ready() { // somebody else may have taken newer commits by now
		done(nil, kerr.NotCoordinator)
		return
	}
	done(fetched, nil)
}

func (c *Coordinator) readZooKeeper(session zkcoord.Session, e *entry, f *Fetch, done func([]Fetched, error)) {
	fetched, err := fetchFromZooKeeper(session, f)
	if err == nil && !c.o.Lease() {
		err = kerr.NotCoordinator
	}
	if e != nil && f.RequireStable {
		e.markUnstable(fetched)
	}
	done(fetched, err)
}

func (e *entry) fetch(f *Fetch) []Fetched {
	if e == nil {
		return absent(f.Partitions)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.mu.group.state == Dead {
		return absent(f.Partitions)
	}
	o := &e.mu.offsets
	tps := f.Partitions
	if f.All {
		tps = o.partitions()
	}
	fetched := make([]Fetched, len(tps))
	for i, tp := range tps {
		fetched[i] = nothingCommitted(tp)
		if f.RequireStable && o.unstable(tp) {
			fetched[i].Err = kerr.UnstableOffsetCommit
			continue
		}
		if c, ok := o.get(tp.Topic, tp.Partition); ok {
			fetched[i].Offset, fetched[i].LeaderEpoch, fetched[i].Metadata = c.Offset, c.LeaderEpoch, c.Metadata
		}
	}
	return fetched
}

func absent(tps []cluster.TopicPartition) []Fetched {
	fetched := make([]Fetched, len(tps))
	for i, tp := range tps {
		fetched[i] = nothingCommitted(tp)
	}
	return fetched
}

// partitions lists what has an offset, sorted, so that answers group by topic.
func (o *offsets) partitions() []cluster.TopicPartition {
	tps := make([]cluster.TopicPartition, 0, o.count)
	for topic, partitions := range o.topics {
		for p := range partitions {
			tps = append(tps, cluster.TopicPartition{Topic: topic, Partition: p})
		}
	}
	slices.SortFunc(tps, comparePartitions)
	return tps
}

// markUnstable replaces what is being changed just now.
func (e *entry) markUnstable(fetched []Fetched) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for i := range fetched {
		if tp := fetched[i].TopicPartition; e.mu.offsets.unstable(tp) {
			fetched[i] = nothingCommitted(tp)
			fetched[i].Err = kerr.UnstableOffsetCommit
		}
	}
}

// FetchFromZooKeeper reads a group's offsets below /consumers, wherever the group is coordinated: OffsetFetch version 0, and
// tools. It waits for ZooKeeper.
func FetchFromZooKeeper(s zkcoord.Session, f *Fetch) ([]Fetched, error) {
	return fetchFromZooKeeper(s, f)
}

func fetchFromZooKeeper(s zkcoord.Session, f *Fetch) ([]Fetched, error) {
	tps := f.Partitions
	if f.All {
		var err error
		if tps, err = zkcoord.GroupPartitions(s, f.Group); err != nil {
			return nil, zooKeeperVerdict(err)
		}
	}
	found, err := zkcoord.ReadOffsets(s, f.Group, tps)
	var bad *zkcoord.BadNodesError
	if err != nil && !errors.As(err, &bad) {
		return nil, zooKeeperVerdict(err)
	}
	fetched := absent(tps)
	for i, tp := range tps {
		if offset, ok := found[tp]; ok {
			fetched[i].Offset = offset
		}
	}
	if f.All {
		fetched = slices.DeleteFunc(fetched, func(r Fetched) bool { return r.Offset < 0 })
	}
	return fetched, nil
}
