package scrape

import (
	"strconv"
	"time"

	"ottla/broker/partition"
)

// Picture is the state of a broker at a scrape. Its zero value is that of a broker that has just begun to start.
type Picture struct {
	BrokerID    int32
	BrokerState int // Kafka's numbers: 1 starting, 2 recovering, 3 running, 6 controlled shutdown, 7 shutting down
	Version     string
	Idle        float64 // share of the processors' time that this process leaves unused

	Session SessionPicture
	APIs    []APIPicture

	ConnectionsByListener           map[string]int
	Logins                          map[string]LoginCounts
	Opened, Closed, RefusedRequests int64

	Partitions         []PartitionPicture // hosted here, in the order of their names
	PerPartition       bool               // ottla.metrics.partitions
	Topics             []partition.TrafficCounts
	AllTopics          partition.TrafficCounts
	Shrinks, Expands   int64
	FailedUpdates      int64
	Fetchers           int
	FailedFetchers     int
	PausedFetchers     int
	LogDirs            []LogDirPicture
	Cleaner            *CleanerPicture // nil: not enabled
	FetchSessions      int
	Cluster            *ClusterPicture // only on the active controller, so that sums over brokers are right
	Groups             []GroupPicture
	LagSeries          int // ottla.metrics.lag.series: how many partitions of groups are told one by one
	MetadataPartitions int
	MetadataBrokers    int
	GroupsByState      map[string]int
	TransactionalIDs   map[string]int // by state
	MarkersWaiting     int
}

// SessionPicture is the session with ZooKeeper.
type SessionPicture struct {
	Open, Connected, Registered        bool
	LeaseRemaining, LeaseLength        time.Duration
	Disconnects, Expires, SyncConnects int64
	Latency                            Summary
	BrokerEpoch                        int64
}

// State is a session's state as a number: 0 none, 1 open without connection, 2 connected, 3 connected and registered.
func (s SessionPicture) State() int {
	switch {
	case !s.Open:
		return 0
	case !s.Connected:
		return 1
	case !s.Registered:
		return 2
	}
	return 3
}

// PartitionPicture is a partition that is hosted here.
type PartitionPicture struct {
	Topic  string
	Number int32
	partition.Look
	Leads   bool
	Follows bool
	Thread  int // the fetcher that replicates it
	labels  string
}

// PictureOf makes the picture of a partition.
func PictureOf(topic string, number int32, l partition.Look) PartitionPicture {
	return PartitionPicture{Topic: topic, Number: number, Look: l, labels: partitionLabels(topic, number)}
}

// partitionLabels needs no escaping: the names of topics have none of the characters.
func partitionLabels(topic string, number int32) string {
	return `topic="` + topic + `",partition="` + strconv.Itoa(int(number)) + `"`
}

// LogDirPicture is a log directory.
type LogDirPicture struct {
	Path       string
	Size       int64
	Partitions int
	Offline    bool
	Reserve    bool // less free space than ottla.disk.reserve.percent
}

// CleanerPicture is the log cleaner, totals since the start.
type CleanerPicture struct {
	Runs, BytesRead, BytesWritten int64
	LastRun                       time.Duration
}

// ClusterPicture is what kafka_exporter tells of the cluster as a whole.
type ClusterPicture struct {
	Brokers    []BrokerPicture
	Controller int32
	Topics     map[string]int     // partitions by topic
	Leaderless []PartitionPicture // nobody leads them, so nobody else tells of them
}

// BrokerPicture is a registered broker.
type BrokerPicture struct {
	ID      int32
	Address string
}

// GroupPicture is a group that this broker coordinates.
type GroupPicture struct {
	Name       string
	State      string
	Members    int
	Generation int32
	Offsets    []OffsetPicture
}

// OffsetPicture is a committed offset; Lag is -1 where the end of the partition is not known.
type OffsetPicture struct {
	Topic       string
	Number      int32
	Offset, Lag int64
	InZooKeeper bool
}

func (p *Picture) offsets() int {
	n := 0
	for i := range p.Groups {
		n += len(p.Groups[i].Offsets)
	}
	return n
}

// count counts the partitions for which is holds.
func (p *Picture) count(is func(*PartitionPicture) bool) float64 {
	n := 0
	for i := range p.Partitions {
		if is(&p.Partitions[i]) {
			n++
		}
	}
	return float64(n)
}

func (p *PartitionPicture) underReplicated() bool { return p.Leads && p.UnderReplicated }
func (p *PartitionPicture) underMinISR() bool     { return p.Leads && p.ISR < p.MinISR }
func (p *PartitionPicture) atMinISR() bool        { return p.Leads && p.ISR == p.MinISR }
func (p *PartitionPicture) offline() bool         { return p.Offline }
func (p *PartitionPicture) leads() bool           { return p.Leads }
func (p *PartitionPicture) reassigning() bool     { return p.Leads && p.Reassigning }
