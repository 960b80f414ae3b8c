package config

import (
	"strconv"
	"strings"
)

func same(i *Info) synonym                              { return synonym{i, 1} }
func hours(i *Info) synonym                             { return synonym{i, 3_600_000} }
func minutes(i *Info) synonym                           { return synonym{i, 60_000} }
func direct[T any](name string, k *Key[T]) *TopicKey[T] { return topicKey(name, k, same(k.Info)) }

// Topic-level keys; each takes its type, range and default from the broker's key.
var (
	TopicSegmentBytes                    = direct("segment.bytes", LogSegmentBytes)
	TopicSegmentMs                       = topicKey("segment.ms", LogRollMs, same(LogRollMs.Info), hours(LogRollHours.Info))
	TopicSegmentJitterMs                 = topicKey("segment.jitter.ms", LogRollJitterMs, same(LogRollJitterMs.Info), hours(LogRollJitterHours.Info))
	TopicSegmentIndexBytes               = direct("segment.index.bytes", LogIndexSizeMaxBytes)
	TopicFlushMessages                   = direct("flush.messages", LogFlushIntervalMessages)
	TopicFlushMs                         = topicKey("flush.ms", LogFlushIntervalMs, same(LogFlushIntervalMs.Info), same(LogFlushSchedulerIntervalMs.Info))
	TopicRetentionBytes                  = direct("retention.bytes", LogRetentionBytes)
	TopicRetentionMs                     = topicKey("retention.ms", LogRetentionMs, same(LogRetentionMs.Info), minutes(LogRetentionMinutes.Info), hours(LogRetentionHours.Info))
	TopicMaxMessageBytes                 = direct("max.message.bytes", MessageMaxBytes)
	TopicIndexIntervalBytes              = direct("index.interval.bytes", LogIndexIntervalBytes)
	TopicDeleteRetentionMs               = direct("delete.retention.ms", LogCleanerDeleteRetentionMs)
	TopicMinCompactionLagMs              = direct("min.compaction.lag.ms", LogCleanerMinCompactionLagMs)
	TopicMaxCompactionLagMs              = direct("max.compaction.lag.ms", LogCleanerMaxCompactionLagMs)
	TopicFileDeleteDelayMs               = direct("file.delete.delay.ms", LogSegmentDeleteDelayMs)
	TopicMinCleanableDirtyRatio          = direct("min.cleanable.dirty.ratio", LogCleanerMinCleanableRatio)
	TopicCleanupPolicy                   = direct("cleanup.policy", LogCleanupPolicy)
	TopicUncleanLeaderElectionEnable     = direct("unclean.leader.election.enable", UncleanLeaderElectionEnable)
	TopicMinInsyncReplicas               = direct("min.insync.replicas", MinInsyncReplicas)
	TopicCompressionType                 = direct("compression.type", CompressionType)
	TopicCompressionGzipLevel            = direct("compression.gzip.level", CompressionGzipLevel)
	TopicCompressionLz4Level             = direct("compression.lz4.level", CompressionLz4Level)
	TopicCompressionZstdLevel            = direct("compression.zstd.level", CompressionZstdLevel)
	TopicPreallocate                     = direct("preallocate", LogPreallocate)
	TopicMessageTimestampType            = direct("message.timestamp.type", LogMessageTimestampType)
	TopicMessageTimestampBeforeMaxMs     = direct("message.timestamp.before.max.ms", LogMessageTimestampBeforeMaxMs)
	TopicMessageTimestampAfterMaxMs      = direct("message.timestamp.after.max.ms", LogMessageTimestampAfterMaxMs)
	TopicMessageTimestampDifferenceMaxMs = direct("message.timestamp.difference.max.ms", LogMessageTimestampDifferenceMaxMs)

	TopicLeaderReplicationThrottledReplicas   = topicOnly("leader.replication.throttled.replicas", "", throttled, "Replicas whose leaders hold back bytes while the throttle is used up; * for all.")
	TopicFollowerReplicationThrottledReplicas = topicOnly("follower.replication.throttled.replicas", "", throttled, "Replicas that fetch no more while the throttle is used up; * for all.")

	_ = topicInert("message.format.version", String, "3.0-IV1")
	_ = topicInert("message.downconversion.enable", Boolean, "true")
	_ = topicInert("remote.storage.enable", Boolean, "false")
	_ = topicInert("local.retention.ms", Long, "-2")
	_ = topicInert("local.retention.bytes", Long, "-2")
	_ = topicInert("remote.log.copy.disable", Boolean, "false")
	_ = topicInert("remote.log.delete.on.disable", Boolean, "false")
)

// topicOnly makes a topic-level list that no broker key stands behind.
func topicOnly(name, def string, r rule[[]string], doc string) *TopicKey[[]string] {
	return registerTopic[[]string](&Info{Name: name, Type: List, Default: def, Doc: doc, Allowed: r.words, Mode: ClusterWide, check: func(text string) (any, error) {
		if list, _ := readList(text); r.ok(list) {
			return list, nil
		}
		return nil, &ValueError{name, text, "a list, " + r.words}
	}})
}

// topicInert makes a topic-level key that is accepted without effect.
func topicInert(name string, t Type, def string) *TopicKey[string] {
	return registerTopic[string](&Info{Name: name, Type: t, Default: def, Inert: true, Doc: "Accepted without effect.", Mode: ClusterWide,
		check: func(text string) (any, error) { return text, nil }})
}

// throttled is the form of the two throttle lists.
var throttled = rule[[]string]{"partition:broker pairs with commas between, or *", func(list []string) bool {
	for _, e := range list {
		p, b, ok := strings.Cut(e, ":")
		if e == "*" || e == "none" {
			continue
		}
		_, err1 := strconv.Atoi(p)
		_, err2 := strconv.Atoi(b)
		if !ok || err1 != nil || err2 != nil {
			return false
		}
	}
	return true
}}
