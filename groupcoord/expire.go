package groupcoord

import (
	"time"

	"ottla/internal/cluster"
)

// expired lists the group's offsets whose time is over. Source: KIP-211.
//   - A group without members that had some: counted from the time when it became empty, all offsets.
//   - A stable group of consumers whose subscriptions can be read: from the commit, topics that nobody subscribes to.
//   - A group that only stores offsets: from the commit.
//   - Otherwise nothing. A commit with its own expiry follows that alone. What is on its way stays.
func (g *group) expired(o *offsets, now time.Time, retention time.Duration) []cluster.TopicPartition {
	var since func(Committed) int64
	var spared map[string]bool
	committed := func(c Committed) int64 { return c.CommitMs }
	switch {
	case g.protocolType != "" && g.state == Empty:
		since = committed
		if !g.since.IsZero() {
			since = func(Committed) int64 { return g.since.UnixMilli() }
		}
	case g.protocolType == consumerProtocol && g.state == Stable && g.subscribed != nil:
		since, spared = committed, g.subscribed
	case g.protocolType == "":
		since = committed
	default:
		return nil
	}
	ms := now.UnixMilli()
	var over []cluster.TopicPartition
	for topic, partitions := range o.topics {
		if spared[topic] {
			continue
		}
		for p, c := range partitions {
			tp := cluster.TopicPartition{Topic: topic, Partition: p}
			end := since(c) + retention.Milliseconds()
			if c.ExpireMs != noTimestamp {
				end = c.ExpireMs
			}
			if ms >= end && !o.unstable(tp) {
				over = append(over, tp)
			}
		}
	}
	return over
}
