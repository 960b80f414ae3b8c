package broker

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/broker/fetcher"
	"ottla/broker/partition"
	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

func (b *Broker) openPartitions(context.Context) error {
	b.alterer = partition.NewAlterer(b.id, b.epoch, alterChannel{b.controllerLink}, b.log)
	b.partitions = partition.NewSet(partition.Options{
		BrokerID: b.id,
		Logs:     b.logs,
		LagMax:   func() time.Duration { return config.ReplicaLagTimeMaxMs.Of(b.config.Load()) },
		Topic: func(topic string) partition.TopicSettings {
			return partitionSettings(b.topicConfigs.orDefault(topic))
		},
		Logger:        b.log,
		Alter:         b.alterer,
		Alive:         func(id cluster.BrokerID) bool { return b.metadata.load().alive(id) },
		Lease:         b.zk.LeaseValid,
		StrictLease:   func() bool { return config.OttlaStrictAcks.Of(b.config.Load()) },
		SelectReplica: b.nearestReplica,
		ReadState:     b.readState,
		AskAgain:      b.tellOfLogDirs,
		Moves:         b.moveThrottle(),
	})
	b.fetchers = fetcher.New(fetcher.Options{
		BrokerID:    b.id,
		BrokerEpoch: b.epoch,
		Dial: func(ctx context.Context, id cluster.BrokerID) (fetcher.Conn, error) {
			to, ok := b.metadata.load().brokers[id]
			if !ok {
				return nil, fmt.Errorf("broker %d is not registered", id)
			}
			return b.dial(ctx, to)
		},
		Settings:  b.fetcherSettings,
		Throttle:  followerSide{b.followerThrottle},
		Connected: b.suspects.connected,
		Logger:    b.log,
	})
	b.partitions.SetFetchers(b.fetchers)
	b.partitions.OnLeadershipChange(func(became, _ []*partition.Partition) { b.leadershipGained(len(became)) })
	b.loops.start(b.partitions.Run, b.alterer.Run)
	return nil
}

// leadershipGained answers the replicas' fetches that wait here: their brokers may now have more to fetch from this one, and a
// partition can only join the next fetch. For a moment replicas' fetches wait only briefly, since their brokers hear of the
// change a little earlier or later than this one.
func (b *Broker) leadershipGained(partitions int) {
	if partitions == 0 {
		return
	}
	b.gainedAt.Store(time.Now().UnixNano())
	b.fetchSessions.answerReplicas()
}

func (b *Broker) closePartitions() {
	b.fetchers.Close()
	b.loops.stop()
	b.controllerLink.close()
}

func (b *Broker) fetcherSettings() fetcher.Settings {
	s := b.config.Load()
	return fetcher.Settings{
		Fetchers:         config.NumReplicaFetchers.Of(s),
		MaxWait:          config.ReplicaFetchWaitMaxMs.Of(s),
		MinBytes:         config.ReplicaFetchMinBytes.Of(s),
		MaxBytes:         config.ReplicaFetchMaxBytes.Of(s),
		ResponseMaxBytes: config.ReplicaFetchResponseMaxBytes.Of(s),
		Backoff:          config.ReplicaFetchBackoffMs.Of(s),
		RequestTimeout:   config.ReplicaSocketTimeoutMs.Of(s),
	}
}

// rackAwareSelector is the one replica selector that Kafka ships.
const rackAwareSelector = "RackAwareReplicaSelector"

// nearestReplica lets a consumer read from a replica in its own rack. candidates hold the offset, the leader first; a leader in
// the rack is left where it is. Source: KIP-392.
func (b *Broker) nearestReplica(rack string, candidates []cluster.BrokerID) cluster.BrokerID {
	if rack == "" || !strings.HasSuffix(config.ReplicaSelectorClass.Of(b.config.Load()), rackAwareSelector) {
		return cluster.NoBroker
	}
	m := b.metadata.load()
	for _, id := range candidates {
		if m.brokers[id].Rack == rack {
			return id
		}
	}
	return cluster.NoBroker
}

// readState asks ZooKeeper what became of an ISR change.
func (b *Broker) readState(tp cluster.TopicPartition) (partition.AlterResult, error) {
	found, ok, err := zkcoord.ReadState(b.zk.Session(), tp)
	if err != nil {
		return partition.AlterResult{}, err
	}
	if !ok {
		return partition.AlterResult{}, kerr.UnknownTopicOrPartition
	}
	return partition.AlterResult{
		Leader:         found.State.Leader,
		LeaderEpoch:    found.State.LeaderEpoch,
		ISR:            found.State.ISR,
		PartitionEpoch: found.Version,
	}, nil
}
