package broker

import (
	"cmp"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"

	"ottla/broker/fetcher"
	"ottla/broker/partition"
	"ottla/broker/replication"
	"ottla/broker/scrape"
	"ottla/config"
	"ottla/internal/cluster"
)

// reached reports whether a step of the start stands. What the step has set may be used then by those who look from outside.
func (b *Broker) reached(name string) bool {
	return int(b.stage.Load()) > slices.IndexFunc(b.steps(), func(s step) bool { return s.name == name })
}

// Kafka's numbers for the state of a broker.
const (
	stateStarting           = 1
	stateRecovery           = 2
	stateRunning            = 3
	stateControlledShutdown = 6
	stateShuttingDown       = 7
)

func (b *Broker) state() int {
	complete := int(b.stage.Load()) == len(b.steps())
	started := false
	select {
	case <-b.ready:
		started = true
	default:
	}
	switch {
	case started && complete:
		return stateRunning
	case b.shuttingDown.Load() && b.reached("listeners"):
		return stateControlledShutdown
	case started:
		return stateShuttingDown
	case b.reached("identity"):
		return stateRecovery
	}
	return stateStarting
}

// picture describes the broker at this moment, as far as it stands.
func (b *Broker) picture(now time.Time) *scrape.Picture {
	s := b.config.Load()
	p := &scrape.Picture{
		BrokerID: -1, BrokerState: b.state(), Version: b.version, Idle: b.metrics.idle.Share(now),
		APIs: b.metrics.requests.Picture(now), PerPartition: config.OttlaMetricsPartitions.Of(s), LagSeries: config.OttlaMetricsLagSeries.Of(s),
	}
	p.Opened, p.Closed, p.RefusedRequests = b.metrics.requests.Connections()
	p.Session = b.sessionPicture(now)
	m := b.metadata.load()
	p.MetadataBrokers, p.MetadataPartitions = len(m.brokers), m.partitions
	p.FetchSessions = b.fetchSessions.size()
	if b.reached("identity") {
		p.BrokerID = int32(b.id)
	}
	if b.reached("logs") {
		b.logPicture(p)
	}
	if b.reached("partitions") {
		b.partitionPictures(p)
	}
	if b.reached("listeners") {
		p.ConnectionsByListener = b.server.ConnsByListener()
		p.Logins = b.metrics.logins.Picture()
	}
	if b.reached("controller") && b.controller.Active() {
		p.Cluster = b.clusterPicture(m)
	}
	if b.reached("registration") {
		b.groupPictures(p)
		p.TransactionalIDs, p.MarkersWaiting = b.transactions.Count(), b.transactions.Homeless()
	}
	return p
}

func (b *Broker) sessionPicture(now time.Time) scrape.SessionPicture {
	c := &b.metrics.session
	p := scrape.SessionPicture{
		BrokerEpoch: b.brokerEpoch.Load(), Registered: cluster.BrokerEpoch(b.brokerEpoch.Load()) != cluster.NoBrokerEpoch,
		Disconnects: c.disconnects.Load(), Expires: c.expires.Load(), SyncConnects: c.syncConnects.Load(),
		Latency: b.metrics.zookeeper.Summary(now),
	}
	if !b.reached("zookeeper") {
		return p
	}
	select {
	case <-b.zk.Session().Done():
	default:
		p.Open = true
	}
	p.Connected, p.LeaseRemaining = b.zk.Connected(), b.zk.LeaseRemaining()
	p.LeaseLength, _ = b.zk.LeaseLength()
	return p
}

func (b *Broker) logPicture(p *scrape.Picture) {
	for _, d := range b.logs.Dirs() {
		p.LogDirs = append(p.LogDirs, scrape.LogDirPicture{Path: d.Path, Size: d.Size, Partitions: d.Partitions, Offline: d.Err != nil, Reserve: d.Short})
	}
	if b.reached("jobs") && b.cleaner != nil {
		c := b.cleaner.Stats()
		p.Cleaner = &scrape.CleanerPicture{Runs: c.Runs, BytesRead: c.BytesRead, BytesWritten: c.BytesWritten, LastRun: c.LastRun}
	}
}

func (b *Broker) partitionPictures(p *scrape.Picture) {
	threads := config.NumReplicaFetchers.Of(b.config.Load())
	for _, part := range b.partitions.All() {
		tp := part.TopicPartition()
		q := scrape.PictureOf(tp.Topic, tp.Partition, part.Look())
		q.Leads, q.Follows = q.Role == replication.Leader && !q.Offline, q.Role == replication.Follower && !q.Offline
		q.Thread = fetcher.Thread(tp, threads)
		p.Partitions = append(p.Partitions, q)
	}
	slices.SortFunc(p.Partitions, func(a, b scrape.PartitionPicture) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Number, b.Number))
	})
	p.Topics, p.AllTopics = b.partitions.Traffic()
	slices.SortFunc(p.Topics, func(a, b partition.TrafficCounts) int { return strings.Compare(a.Topic, b.Topic) })
	p.Shrinks, p.Expands, p.FailedUpdates = b.partitions.ISRChanges()
	for _, f := range b.fetchers.Status() {
		p.Fetchers++
		p.FailedFetchers += f.Failed
		p.PausedFetchers += f.Paused
	}
}

// clusterPicture is told by the controller alone.
func (b *Broker) clusterPicture(m *metadata) *scrape.ClusterPicture {
	c := &scrape.ClusterPicture{Controller: int32(b.id), Topics: make(map[string]int, len(m.topics))}
	listener := b.interBrokerListener()
	for _, id := range m.brokerIDs {
		info := scrape.BrokerPicture{ID: int32(id)}
		if e, ok := m.brokers[id].Endpoint(listener); ok {
			info.Address = hostPort(e.Host, e.Port)
		}
		c.Brokers = append(c.Brokers, info)
	}
	for name, t := range m.topics {
		c.Topics[name] = t.known()
		for number, p := range t.partitions {
			if p == nil || m.alive(p.leader) {
				continue
			}
			c.Leaderless = append(c.Leaderless, scrape.PictureOf(name, int32(number), partition.Look{
				Leader: int32(cluster.NoBroker), Replicas: len(p.replicas), ISR: len(p.isr),
			}))
		}
	}
	return c
}

func (b *Broker) groupPictures(p *scrape.Picture) {
	p.Groups = b.lags.groups(b)
	p.GroupsByState = map[string]int{}
	for i := range p.Groups {
		p.GroupsByState[p.Groups[i].State]++
	}
}

// serveMetrics is GET /metrics.
func (b *Broker) serveMetrics(w http.ResponseWriter, r *http.Request) {
	select {
	case b.metrics.scrapes <- struct{}{}:
		defer func() { <-b.metrics.scrapes }()
	case <-r.Context().Done():
		return
	}
	families, err := b.registry.Gather()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", scrape.ContentType)
	out := compressed(w, r)
	defer out.Close()
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(out, f); err != nil {
			return // the scraper has gone
		}
	}
	_ = b.picture(time.Now()).Write(out)
}
