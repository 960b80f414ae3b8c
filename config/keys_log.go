package config

import (
	"time"
)

// The log: segments, retention, compaction, flush.
var (
	CompressionGzipLevel                    = intKey("compression.gzip.level", "-1", betweenOr(1, 9, -1), ClusterWide, "Level for recompression with gzip.")
	CompressionLz4Level                     = intKey("compression.lz4.level", "9", between(1, 17), ClusterWide, "Level for recompression with lz4.")
	CompressionType                         = textKey("compression.type", "producer", compressions, ClusterWide, "How batches are stored: producer keeps what the producer chose.")
	CompressionZstdLevel                    = intKey("compression.zstd.level", "3", between(-131072, 22), ClusterWide, "Level for recompression with zstd.")
	LogCleanerBackoffMs                     = timeKey("log.cleaner.backoff.ms", Long, "15000", time.Millisecond, atLeast[int64](0), ClusterWide, "Pause of the cleaner when there is nothing to do.")
	LogCleanerDedupeBufferSize              = longKey("log.cleaner.dedupe.buffer.size", "134217728", anything[int64](), ClusterWide, "Memory for the cleaner's map of keys, for all threads together.")
	LogCleanerDeleteRetentionMs             = timeKey("log.cleaner.delete.retention.ms", Long, "86400000", time.Millisecond, atLeast[int64](0), ClusterWide, "How long tombstones stay in compacted topics.")
	LogCleanerEnable                        = boolKey("log.cleaner.enable", "true", ReadOnly, "Run the cleaner, which compacts and applies retention to compacted topics.")
	LogCleanerIOBufferLoadFactor            = doubleKey("log.cleaner.io.buffer.load.factor", "0.9", anything[float64](), ClusterWide, "How full the cleaner's map may get.")
	LogCleanerIOBufferSize                  = later(intKey("log.cleaner.io.buffer.size", "524288", atLeast(0), ClusterWide, "Memory for the cleaner's reads and writes."))
	LogCleanerIOMaxBytesPerSecond           = doubleKey("log.cleaner.io.max.bytes.per.second", "1.7976931348623157E308", anything[float64](), ClusterWide, "Limit of the cleaner's reads and writes together.")
	LogCleanerMaxCompactionLagMs            = timeKey("log.cleaner.max.compaction.lag.ms", Long, "9223372036854775807", time.Millisecond, atLeast[int64](1), ClusterWide, "The longest that a record may stay uncompacted.")
	LogCleanerMinCleanableRatio             = doubleKey("log.cleaner.min.cleanable.ratio", "0.5", between[float64](0, 1), ClusterWide, "Share of uncompacted bytes from which a log is compacted.")
	LogCleanerMinCompactionLagMs            = timeKey("log.cleaner.min.compaction.lag.ms", Long, "0", time.Millisecond, atLeast[int64](0), ClusterWide, "The shortest that a record stays uncompacted.")
	LogCleanerThreads                       = intKey("log.cleaner.threads", "1", atLeast(0), ClusterWide, "How many logs are compacted at once.")
	LogCleanupPolicy                        = listKey("log.cleanup.policy", "delete", eachOf("compact", "delete"), ClusterWide, "What happens to old segments: delete, compact, or both.")
	LogDir                                  = textKey("log.dir", "/tmp/kafka-logs", anything[string](), ReadOnly, "Directory for the logs.")
	_                                       = inert(timeKey("log.dir.failure.timeout.ms", Long, "30000", time.Millisecond, atLeast[int64](1), ReadOnly, kraft))
	LogDirs                                 = textListKey("log.dirs", unset, ReadOnly, "Directories for the logs, with commas between; log.dir when unset.").or(func(s *Snapshot) []string { l, _ := readTextList(LogDir.Of(s)); return l }, "log.dir")
	LogFlushIntervalMessages                = longKey("log.flush.interval.messages", "9223372036854775807", atLeast[int64](1), ClusterWide, "Records after which a partition is flushed to disk; 1 flushes before anything is acknowledged.")
	LogFlushIntervalMs                      = timeKey("log.flush.interval.ms", Long, unset, time.Millisecond, anything[int64](), ClusterWide, "The longest that a record stays unflushed.").or(func(s *Snapshot) time.Duration { return LogFlushSchedulerIntervalMs.Of(s) }, "log.flush.scheduler.interval.ms")
	LogFlushOffsetCheckpointIntervalMs      = timeKey("log.flush.offset.checkpoint.interval.ms", Int, "60000", time.Millisecond, atLeast[int64](0), ReadOnly, "How often recovery points are written down.")
	LogFlushSchedulerIntervalMs             = timeKey("log.flush.scheduler.interval.ms", Long, "9223372036854775807", time.Millisecond, anything[int64](), ReadOnly, "How often log.flush.interval.ms is looked at.")
	LogFlushStartOffsetCheckpointIntervalMs = timeKey("log.flush.start.offset.checkpoint.interval.ms", Int, "60000", time.Millisecond, atLeast[int64](0), ReadOnly, "How often log start offsets are written down.")
	LogIndexIntervalBytes                   = intKey("log.index.interval.bytes", "4096", atLeast(0), ClusterWide, "Bytes of log between two entries of an index.")
	LogIndexSizeMaxBytes                    = intKey("log.index.size.max.bytes", "10485760", atLeast(4), ClusterWide, "Size of an index at which its segment is rolled.")
	LogInitialTaskDelayMs                   = internal(timeKey("log.initial.task.delay.ms", Long, "30000", time.Millisecond, atLeast[int64](0), ReadOnly, "Pause before the first background work on logs."))
	logLocalRetentionBytes                  = inert(longKey("log.local.retention.bytes", "-2", atLeast[int64](-2), ClusterWide, tiered))
	logLocalRetentionMs                     = inert(timeKey("log.local.retention.ms", Long, "-2", time.Millisecond, atLeast[int64](-2), ClusterWide, tiered))
	logMessageDownconversionEnable          = inert(boolKey("log.message.downconversion.enable", "true", ClusterWide, "Accepted without effect."))
	logMessageFormatVersion                 = inert(textKey("log.message.format.version", "3.0-IV1", release(), ReadOnly, "Accepted without effect: records are written in the present format."))
	LogMessageTimestampAfterMaxMs           = timeKey("log.message.timestamp.after.max.ms", Long, "9223372036854775807", time.Millisecond, atLeast[int64](0), ClusterWide, "How far a record's timestamp may be ahead of the clock.")
	LogMessageTimestampBeforeMaxMs          = timeKey("log.message.timestamp.before.max.ms", Long, "9223372036854775807", time.Millisecond, atLeast[int64](0), ClusterWide, "How far a record's timestamp may be behind the clock.")
	LogMessageTimestampDifferenceMaxMs      = timeKey("log.message.timestamp.difference.max.ms", Long, "9223372036854775807", time.Millisecond, atLeast[int64](0), ClusterWide, "Older form of the two limits above, which win over it.")
	LogMessageTimestampType                 = textKey("log.message.timestamp.type", "CreateTime", oneOf("CreateTime", "LogAppendTime"), ClusterWide, "Whose timestamp records carry: CreateTime of the producer, or LogAppendTime of the broker.")
	LogPreallocate                          = boolKey("log.preallocate", "false", ClusterWide, "Reserve the space of new segments.")
	LogRetentionBytes                       = longKey("log.retention.bytes", "-1", anything[int64](), ClusterWide, "Size of a partition above which old segments go; -1 unlimited.")
	LogRetentionCheckIntervalMs             = timeKey("log.retention.check.interval.ms", Long, "300000", time.Millisecond, atLeast[int64](1), ReadOnly, "How often retention is looked at.")
	LogRetentionHours                       = intKey("log.retention.hours", "168", anything[int](), ReadOnly, "Age at which segments go, in hours; log.retention.minutes and .ms win over it.")
	LogRetentionMinutes                     = intKey("log.retention.minutes", unset, anything[int](), ReadOnly, "Age at which segments go, in minutes; log.retention.ms wins over it.")
	LogRetentionMs                          = limitKey("log.retention.ms", unset, anything[int64](), ClusterWide, "Age at which segments go; -1 unlimited.").or(retention, "log.retention.minutes", "log.retention.hours")
	LogRollHours                            = timeKey("log.roll.hours", Int, "168", time.Hour, atLeast[int64](1), ReadOnly, "Age at which a segment is rolled, in hours; log.roll.ms wins over it.")
	LogRollJitterHours                      = timeKey("log.roll.jitter.hours", Int, "0", time.Hour, atLeast[int64](0), ReadOnly, "Random share taken off that age, in hours.")
	LogRollJitterMs                         = timeKey("log.roll.jitter.ms", Long, unset, time.Millisecond, anything[int64](), ClusterWide, "Random share taken off the age at which segments are rolled.").or(func(s *Snapshot) time.Duration { return LogRollJitterHours.Of(s) }, "log.roll.jitter.hours")
	LogRollMs                               = timeKey("log.roll.ms", Long, unset, time.Millisecond, anything[int64](), ClusterWide, "Age at which a segment is rolled.").or(func(s *Snapshot) time.Duration { return LogRollHours.Of(s) }, "log.roll.hours")
	LogSegmentBytes                         = intKey("log.segment.bytes", "1073741824", atLeast(14), ClusterWide, "Size at which a segment is rolled.")
	LogSegmentDeleteDelayMs                 = timeKey("log.segment.delete.delay.ms", Long, "60000", time.Millisecond, atLeast[int64](0), ClusterWide, "How long removed files stay before they are deleted.")
	MessageMaxBytes                         = intKey("message.max.bytes", "1048588", atLeast(0), ClusterWide, "The largest batch that is stored.")
	MinInsyncReplicas                       = intKey("min.insync.replicas", "1", atLeast(1), ClusterWide, "In-sync replicas without which acks=all writes are refused.")
	NumRecoveryThreadsPerDataDir            = intKey("num.recovery.threads.per.data.dir", "1", atLeast(1), ClusterWide, "Logs of one directory that are opened at once at start.")
	ProducerIDExpirationCheckIntervalMs     = internal(timeKey("producer.id.expiration.check.interval.ms", Int, "600000", time.Millisecond, atLeast[int64](1), ReadOnly, "How often idle producers are looked for."))
	ProducerIDExpirationMs                  = timeKey("producer.id.expiration.ms", Int, "86400000", time.Millisecond, atLeast[int64](1), ClusterWide, "How long an idle producer's sequence numbers are remembered.")
	UncleanLeaderElectionEnable             = boolKey("unclean.leader.election.enable", "false", ClusterWide, "Let a replica lead that may lack committed records, when no other is left.")
	_                                       = inert(internal(timeKey("unclean.leader.election.interval.ms", Long, "300000", time.Millisecond, atLeast[int64](1), ReadOnly, kraft)))
)

var compressions = oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")

// retention is log.retention.ms where it is not set: minutes win over hours; any negative span is unlimited.
func retention(s *Snapshot) int64 {
	if LogRetentionMinutes.IsSet(s) {
		return span(LogRetentionMinutes.Of(s), 60_000)
	}
	return span(LogRetentionHours.Of(s), 3_600_000)
}

func span(n int, factor int64) int64 {
	if n < 0 {
		return -1
	}
	return int64(n) * factor
}
