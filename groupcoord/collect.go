package groupcoord

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"ottla/internal/cluster"
)

// Collector shows what a coordinator has, when it is asked: groups by state, members, committed offsets and lag. It costs
// nothing between scrapes. Lag is told where this broker has a replica of the partition; offsets that live in ZooKeeper are
// not shown, since they are not kept here.
type Collector struct {
	c *Coordinator
	// end returns the high watermark of a partition, if this broker knows it.
	end func(cluster.TopicPartition) (int64, bool)
}

// NewCollector returns a collector; end may be nil.
func NewCollector(c *Coordinator, end func(cluster.TopicPartition) (int64, bool)) *Collector {
	if end == nil {
		end = func(cluster.TopicPartition) (int64, bool) { return 0, false }
	}
	return &Collector{c, end}
}

var (
	groupsDesc    = prometheus.NewDesc("kafka_coordinator_group_groupmetadatamanager_numgroups", "Groups that this broker coordinates.", nil, nil)
	offsetsDesc   = prometheus.NewDesc("kafka_coordinator_group_groupmetadatamanager_numoffsets", "Committed offsets that this broker keeps.", nil, nil)
	statesDesc    = prometheus.NewDesc("ottla_group_states", "Groups that this broker coordinates, by state.", []string{"state"}, nil)
	membersDesc   = prometheus.NewDesc("ottla_group_members", "Members of a group.", []string{"group"}, nil)
	generation    = prometheus.NewDesc("ottla_group_generation", "Rebalances of a group so far.", []string{"group"}, nil)
	committedDesc = prometheus.NewDesc("ottla_group_committed_offset", "Committed offset.", []string{"group", "topic", "partition"}, nil)
	lagDesc       = prometheus.NewDesc("ottla_group_lag", "Records between the committed offset and the end of the partition.", []string{"group", "topic", "partition"}, nil)
)

// Describe implements prometheus.Collector.
func (m *Collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{groupsDesc, offsetsDesc, statesDesc, membersDesc, generation, committedDesc, lagDesc} {
		ch <- d
	}
}

// groupPicture is one group at the moment of a scrape.
type groupPicture struct {
	id         string
	state      State
	members    int
	generation int32
	offsets    []Fetched
}

func (e *entry) picture() groupPicture {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.mu.group
	p := groupPicture{id: g.id, state: g.state, members: len(g.order), generation: g.generation}
	for topic, partitions := range e.mu.offsets.topics {
		for number, c := range partitions {
			p.offsets = append(p.offsets, Fetched{TopicPartition: cluster.TopicPartition{Topic: topic, Partition: number}, Offset: c.Offset})
		}
	}
	return p
}

// Collect implements prometheus.Collector.
func (m *Collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	var states [len(stateNames)]int
	groups, offsets := 0, 0
	for _, s := range *m.c.shards.Load() {
		if s.phase.Load() != ready {
			continue
		}
		for _, e := range s.all() {
			p := e.picture()
			groups++
			offsets += len(p.offsets)
			states[p.state]++
			gauge(membersDesc, float64(p.members), p.id)
			gauge(generation, float64(p.generation), p.id)
			for _, o := range p.offsets {
				number := strconv.Itoa(int(o.Partition))
				gauge(committedDesc, float64(o.Offset), p.id, o.Topic, number)
				if end, ok := m.end(o.TopicPartition); ok {
					gauge(lagDesc, float64(max(end-o.Offset, 0)), p.id, o.Topic, number)
				}
			}
		}
	}
	gauge(groupsDesc, float64(groups))
	gauge(offsetsDesc, float64(offsets))
	for s, n := range states[:Dead] {
		gauge(statesDesc, float64(n), State(s).String())
	}
}
