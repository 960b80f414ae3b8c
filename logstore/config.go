package logstore

import (
	"math"
	"time"
)

// Config is what one partition's log obeys: the topic's settings, resolved. It is immutable once given to a log.
type Config struct {
	SegmentBytes       int           // segment.bytes: a segment never grows past it, except for a single larger append
	SegmentMs          time.Duration // segment.ms: the time (of messages) that one segment may span
	SegmentJitterMs    time.Duration // segment.jitter.ms: random share taken off SegmentMs, drawn for each segment
	IndexBytes         int           // segment.index.bytes: bounds both indexes; a full one rolls the segment
	IndexIntervalBytes int           // index.interval.bytes: bytes of log between two index entries
	RetentionMs        int64         // retention.ms, -1 unlimited
	RetentionBytes     int64         // retention.bytes of the partition, -1 unlimited
	Compact            bool          // cleanup.policy contains compact
	Delete             bool          // cleanup.policy contains delete
	FileDeleteDelay    time.Duration // file.delete.delay.ms: how long removed segments stay as .deleted
	FlushMessages      int64         // flush.messages: unflushed offsets that start a flush
	FlushMs            time.Duration // flush.ms: age of unflushed data that starts a flush in FlushPass
	MaxMessageBytes    int           // max.message.bytes, of a batch as stored
	TimestampType      TimestampType // message.timestamp.type
	TimestampBeforeMax time.Duration // message.timestamp.before.max.ms; NoTimestampLimit: none
	TimestampAfterMax  time.Duration // message.timestamp.after.max.ms; NoTimestampLimit: none
	Compression        Compression   // compression.type; CodecProducer keeps the producer's
	MinCompactionLag   time.Duration // min.compaction.lag.ms
	MaxCompactionLag   time.Duration // max.compaction.lag.ms
	DeleteRetention    time.Duration // delete.retention.ms
	MinCleanableRatio  float64       // min.cleanable.dirty.ratio
	Preallocate        bool          // preallocate: the space of a new segment is reserved, without making its file longer
	ProducerExpiration time.Duration // producer.id.expiration.ms; 0: one day
}

// DefaultConfig returns Kafka's defaults.
func DefaultConfig() *Config {
	return &Config{
		SegmentBytes:       1 << 30,
		SegmentMs:          7 * 24 * time.Hour,
		IndexBytes:         10 << 20,
		IndexIntervalBytes: 4096,
		RetentionMs:        (7 * 24 * time.Hour).Milliseconds(),
		RetentionBytes:     -1,
		Delete:             true,
		FileDeleteDelay:    time.Minute,
		FlushMessages:      math.MaxInt64,
		FlushMs:            math.MaxInt64,
		MaxMessageBytes:    1048588,
		TimestampBeforeMax: NoTimestampLimit,
		TimestampAfterMax:  NoTimestampLimit,
		Compression:        Compression{Codec: CodecProducer},
		MaxCompactionLag:   math.MaxInt64,
		DeleteRetention:    24 * time.Hour,
		MinCleanableRatio:  0.5,
		ProducerExpiration: 24 * time.Hour,
	}
}

func (c *Config) producerExpiration() time.Duration {
	if c.ProducerExpiration <= 0 {
		return 24 * time.Hour
	}
	return c.ProducerExpiration
}

// maxIndexEntries is how many entries the offset index may hold: Kafka maps exactly IndexBytes and refuses longer files.
func (c *Config) maxIndexEntries() int { return c.IndexBytes / indexEntrySize }

// maxTimeIndexEntries leaves one slot for the entry that sealing adds.
func (c *Config) maxTimeIndexEntries() int { return c.IndexBytes/timeEntrySize - 1 }

// maxSegmentAge is SegmentMs, for compacted logs bounded by MaxCompactionLag so that the cleaner gets at the data in time.
func (c *Config) maxSegmentAge() time.Duration {
	if c.Compact && c.MaxCompactionLag > 0 {
		return min(c.SegmentMs, c.MaxCompactionLag)
	}
	return c.SegmentMs
}
