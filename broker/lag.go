package broker

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/scrape"
	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// lagReader tells of the groups that this broker coordinates, and how far they are behind. The ends of partitions that are led
// elsewhere are asked of their leaders, one request for each, at most every few seconds however often somebody scrapes, and a scrape
// waits for it only briefly. The zero value is ready.
type lagReader struct {
	mu struct {
		sync.Mutex
		at      time.Time // when last was read
		last    []scrape.GroupPicture
		reading chan struct{} // closed at the end of the reading under way; nil: none
	}
}

const (
	lagSpan    = 5 * time.Second // how old the last reading may be
	lagWait    = time.Second     // how long a scrape waits for a new one
	lagTimeout = 5 * time.Second // bound of a reading
)

// groups returns the last reading, after having made a new one where that is due.
func (l *lagReader) groups(b *Broker) []scrape.GroupPicture {
	l.mu.Lock()
	if time.Since(l.mu.at) < lagSpan {
		defer l.mu.Unlock()
		return l.mu.last
	}
	reading := l.mu.reading
	if reading == nil {
		reading = make(chan struct{})
		l.mu.reading = reading
		b.tasks.run(func() { l.read(b, reading) })
	}
	l.mu.Unlock()
	timer := time.NewTimer(lagWait)
	defer timer.Stop()
	select {
	case <-reading:
	case <-timer.C:
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.last
}

func (l *lagReader) read(b *Broker, done chan struct{}) {
	defer close(done)
	ctx, cancel := context.WithTimeout(context.Background(), lagTimeout)
	defer cancel()
	groups := b.readGroups(ctx)
	l.mu.Lock()
	l.mu.last, l.mu.at, l.mu.reading = groups, time.Now(), nil
	l.mu.Unlock()
}

// readGroups describes the groups, in the order of their names.
func (b *Broker) readGroups(ctx context.Context) []scrape.GroupPicture {
	var groups []scrape.GroupPicture
	for _, s := range b.groups.Snapshots() {
		g := scrape.GroupPicture{Name: s.Group, State: s.State.String(), Members: s.Members, Generation: s.Generation}
		for _, o := range s.Offsets {
			g.Offsets = append(g.Offsets, scrape.OffsetPicture{Topic: o.Topic, Number: o.Partition, Offset: o.Offset, Lag: -1})
		}
		if s.External {
			g.Offsets = append(b.offsetsInZooKeeper(s.Group), g.Offsets...)
		}
		slices.SortStableFunc(g.Offsets, func(a, b scrape.OffsetPicture) int {
			return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Number, b.Number))
		})
		// Where offsets are in both places, those in ZooKeeper count.
		g.Offsets = slices.CompactFunc(g.Offsets, func(a, b scrape.OffsetPicture) bool { return a.Topic == b.Topic && a.Number == b.Number })
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b scrape.GroupPicture) int { return strings.Compare(a.Name, b.Name) })
	ends := b.endsOf(ctx, groups)
	for i := range groups {
		for j := range groups[i].Offsets {
			o := &groups[i].Offsets[j]
			if end, ok := ends[cluster.TopicPartition{Topic: o.Topic, Partition: o.Number}]; ok {
				o.Lag = max(0, end-o.Offset)
			}
		}
	}
	return groups
}

// offsetsInZooKeeper are a group's offsets where offsets.storage=zookeeper puts them; none while ZooKeeper is not reachable.
func (b *Broker) offsetsInZooKeeper(group string) []scrape.OffsetPicture {
	if config.OffsetsStorage.Of(b.config.Load()) != "zookeeper" || !b.zk.Connected() {
		return nil
	}
	session := b.zk.Session()
	tps, err := zkcoord.GroupPartitions(session, group)
	if err != nil {
		return nil
	}
	offsets, _ := zkcoord.ReadOffsets(session, group, tps) // what cannot be read is left out
	out := make([]scrape.OffsetPicture, 0, len(offsets))
	for tp, offset := range offsets {
		out = append(out, scrape.OffsetPicture{Topic: tp.Topic, Number: tp.Partition, Offset: offset, Lag: -1, InZooKeeper: true})
	}
	return out
}

// endsOf finds the high watermarks of the partitions that groups have offsets of: here where there is a replica, else at the leader.
func (b *Broker) endsOf(ctx context.Context, groups []scrape.GroupPicture) map[cluster.TopicPartition]int64 {
	ends := map[cluster.TopicPartition]int64{}
	elsewhere := map[cluster.BrokerID][]cluster.TopicPartition{}
	asked := map[cluster.TopicPartition]bool{}
	m := b.metadata.load()
	for i := range groups {
		for _, o := range groups[i].Offsets {
			tp := cluster.TopicPartition{Topic: o.Topic, Partition: o.Number}
			if asked[tp] {
				continue
			}
			asked[tp] = true
			if p, err := b.partitions.Get(o.Topic, o.Number); err == nil && p.Log() != nil {
				ends[tp] = p.Log().HighWatermark()
				continue
			}
			if pm := m.partition(o.Topic, o.Number); pm != nil && m.alive(pm.leader) {
				elsewhere[pm.leader] = append(elsewhere[pm.leader], tp)
			}
		}
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for leader, tps := range elsewhere {
		wg.Go(func() {
			found := b.askEnds(ctx, m.brokers[leader], tps)
			mu.Lock()
			defer mu.Unlock()
			for tp, end := range found {
				ends[tp] = end
			}
		})
	}
	wg.Wait()
	return ends
}

// askEnds asks a leader as a consumer would. What it does not tell is missing in the result.
func (b *Broker) askEnds(ctx context.Context, leader cluster.Broker, tps []cluster.TopicPartition) map[cluster.TopicPartition]int64 {
	conn, err := b.dial(ctx, leader)
	if err != nil {
		b.log.Debug().Err(err).Int("leader", int(leader.ID)).Msg("ends of partitions are not known, for want of a connection")
		return nil
	}
	defer conn.Close()
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version, req.ReplicaID = 7, -1
	slices.SortFunc(tps, func(a, b cluster.TopicPartition) int { return strings.Compare(a.Topic, b.Topic) })
	for _, tp := range tps {
		if n := len(req.Topics); n == 0 || req.Topics[n-1].Topic != tp.Topic {
			t := kmsg.NewListOffsetsRequestTopic()
			t.Topic = tp.Topic
			req.Topics = append(req.Topics, t)
		}
		p := kmsg.NewListOffsetsRequestTopicPartition()
		p.Partition, p.Timestamp = tp.Partition, -1
		t := &req.Topics[len(req.Topics)-1]
		t.Partitions = append(t.Partitions, p)
	}
	resp, err := conn.RoundTrip(ctx, req)
	if err != nil {
		return nil
	}
	ends := map[cluster.TopicPartition]int64{}
	for _, t := range resp.(*kmsg.ListOffsetsResponse).Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 {
				ends[cluster.TopicPartition{Topic: strings.Clone(t.Topic), Partition: p.Partition}] = p.Offset
			}
		}
	}
	return ends
}
