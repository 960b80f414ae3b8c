package broker

import (
	"math"
	"strconv"
	"strings"
	"time"

	"ottla/broker/quota"
	"ottla/config"
	"ottla/internal/cluster"
)

// Replication throttles (KIP-73): a broker's rate, and per topic the replicas that it holds for. Both sides hold back only
// replicas that are not in sync, so a throttle never pushes a replica out of the in-sync set.

// The keys of the rates; they exist only as dynamic settings of a broker.
const (
	leaderThrottledRate   = "leader.replication.throttled.rate"
	followerThrottledRate = "follower.replication.throttled.rate"
)

// movesThrottledRate is the rate of moves between log directories. Source: KIP-113.
const movesThrottledRate = "replica.alter.log.dirs.io.max.bytes.per.second"

// moveThrottle holds back all moves together.
func (b *Broker) moveThrottle() *quota.Throttle {
	s := b.config.Load()
	return b.throttleOver(config.AlterLogDirsReplicationQuotaWindowNum.Of(s), config.AlterLogDirsReplicationQuotaWindowSizeSeconds.Of(s), movesThrottledRate)
}

func (b *Broker) throttleOf(rateKey string) *quota.Throttle {
	s := b.config.Load()
	return b.throttleOver(config.ReplicationQuotaWindowNum.Of(s), config.ReplicationQuotaWindowSizeSeconds.Of(s), rateKey)
}

func (b *Broker) throttleOver(samples int, span time.Duration, rateKey string) *quota.Throttle {
	return quota.NewThrottle(samples, span, func() float64 {
		text, _, ok := b.config.Load().Value(rateKey)
		if !ok {
			return math.Inf(1)
		}
		rate, err := strconv.ParseFloat(text, 64)
		if err != nil || rate < 0 {
			return math.Inf(1)
		}
		return rate
	})
}

// throttleTopic takes a topic's lists of throttled replicas.
func (b *Broker) throttleTopic(topic string, t *config.Topic) {
	all, listed := b.throttledHere(config.TopicLeaderReplicationThrottledReplicas.Of(t))
	b.leaderThrottle.SetTopic(topic, all, listed)
	all, listed = b.throttledHere(config.TopicFollowerReplicationThrottledReplicas.Of(t))
	b.followerThrottle.SetTopic(topic, all, listed)
}

// throttledHere picks this broker's partitions out of a list of partition:broker pairs.
func (b *Broker) throttledHere(list []string) (all bool, listed map[int32]bool) {
	own := itoa(int64(b.id))
	listed = map[int32]bool{}
	for _, entry := range list {
		if entry == "*" {
			return true, nil
		}
		number, id, _ := strings.Cut(entry, ":")
		if n, err := strconv.ParseInt(number, 10, 32); err == nil && id == own {
			listed[int32(n)] = true
		}
	}
	return false, listed
}

// followerSide is what the fetchers see of it.
type followerSide struct{ t *quota.Throttle }

func (f followerSide) Throttled(tp cluster.TopicPartition) bool {
	return f.t.Lists(tp.Topic, tp.Partition) && f.t.Exceeded(time.Now())
}

func (f followerSide) Record(tp cluster.TopicPartition, bytes int) {
	if f.t.Lists(tp.Topic, tp.Partition) {
		f.t.Record(bytes, time.Now())
	}
}
