package broker

import (
	"slices"

	"ottla/broker/partition"
	"ottla/config"
	"ottla/logstore"
)

// logConfig turns a topic's settings, and the broker's where there are none by topic, into what its logs need.
func logConfig(s *config.Snapshot, t *config.Topic) *logstore.Config {
	policy := config.TopicCleanupPolicy.Of(t)
	return &logstore.Config{
		SegmentBytes:       config.TopicSegmentBytes.Of(t),
		SegmentMs:          config.TopicSegmentMs.Of(t),
		SegmentJitterMs:    config.TopicSegmentJitterMs.Of(t),
		IndexBytes:         config.TopicSegmentIndexBytes.Of(t),
		IndexIntervalBytes: config.TopicIndexIntervalBytes.Of(t),
		RetentionMs:        config.TopicRetentionMs.Of(t),
		RetentionBytes:     config.TopicRetentionBytes.Of(t),
		Compact:            slices.Contains(policy, "compact"),
		Delete:             slices.Contains(policy, "delete"),
		FileDeleteDelay:    config.TopicFileDeleteDelayMs.Of(t),
		FlushMessages:      config.TopicFlushMessages.Of(t),
		FlushMs:            config.TopicFlushMs.Of(t),
		MaxMessageBytes:    config.TopicMaxMessageBytes.Of(t),
		TimestampType:      timestampType(config.TopicMessageTimestampType.Of(t)),
		TimestampBeforeMax: config.TopicMessageTimestampBeforeMaxMs.Of(t),
		TimestampAfterMax:  config.TopicMessageTimestampAfterMaxMs.Of(t),
		Compression:        compression(t),
		MinCompactionLag:   config.TopicMinCompactionLagMs.Of(t),
		MaxCompactionLag:   config.TopicMaxCompactionLagMs.Of(t),
		DeleteRetention:    config.TopicDeleteRetentionMs.Of(t),
		MinCleanableRatio:  config.TopicMinCleanableDirtyRatio.Of(t),
		Preallocate:        config.TopicPreallocate.Of(t),
		ProducerExpiration: config.ProducerIDExpirationMs.Of(s),
	}
}

func timestampType(name string) logstore.TimestampType {
	if name == "LogAppendTime" {
		return logstore.LogAppendTime
	}
	return logstore.CreateTime
}

func compression(t *config.Topic) logstore.Compression {
	codec, ok := logstore.ParseCodec(config.TopicCompressionType.Of(t))
	if !ok {
		codec = logstore.CodecProducer // the table admits no other name
	}
	c := logstore.DefaultCompression(codec)
	switch codec {
	case logstore.CodecGzip:
		c.Level = config.TopicCompressionGzipLevel.Of(t)
	case logstore.CodecLZ4:
		c.Level = config.TopicCompressionLz4Level.Of(t)
	case logstore.CodecZstd:
		c.Level = config.TopicCompressionZstdLevel.Of(t)
	}
	return c
}

func partitionSettings(t *config.Topic) partition.TopicSettings {
	return partition.TopicSettings{
		MinISR:          config.TopicMinInsyncReplicas.Of(t),
		UncleanElection: config.TopicUncleanLeaderElectionEnable.Of(t),
	}
}
