package broker

import (
	"context"
	"errors"
	"io"

	"ottla/broker/partition"
	"ottla/config"
	"ottla/coordlog"
	"ottla/groupcoord"
	"ottla/logstore"
)

// openGroups makes the group coordinator. It loads a partition of __consumer_offsets when this broker begins to lead it.
func (b *Broker) openGroups(context.Context) error {
	s := b.config.Load()
	b.groups = groupcoord.New(groupcoord.Options{
		Limits: groupcoord.Limits{
			SessionTimeoutMin: config.GroupMinSessionTimeoutMs.Of(s),
			SessionTimeoutMax: config.GroupMaxSessionTimeoutMs.Of(s),
			InitialDelay:      config.GroupInitialRebalanceDelayMs.Of(s),
			MaxSize:           config.GroupMaxSize.Of(s),
		},
		MetadataMax:   config.OffsetMetadataMaxBytes.Of(s),
		CommitTimeout: config.OffsetsCommitTimeoutMs.Of(s),
		Retention:     config.OffsetsRetentionMinutes.Of(s),
		LoadBytes:     config.OffsetsLoadBufferSize.Of(s),
		InZooKeeper:   config.OffsetsStorage.Of(s) == "zookeeper",
		Dual:          config.DualCommitEnabled.Of(s),
		Partitions:    func() int32 { return b.partitionsOf(offsetsTopic) },
		Lease:         b.zk.LeaseValid,
		Session:       b.zk.Session,
		Run:           b.tasks.run,
		Logger:        b.log,
		Metrics:       groupcoord.NewMetrics(b.registry),
	})
	b.groups.Start()
	b.partitions.OnLeadershipChange(b.offsetsLeadership)
	return nil
}

// closeGroups answers the members that wait; what comes later is told COORDINATOR_NOT_AVAILABLE.
func (b *Broker) closeGroups(context.Context) { b.groups.Close() }

// partitionsOf is how many partitions a topic has; 0: it does not exist, as far as is known here.
func (b *Broker) partitionsOf(topic string) int32 {
	t := b.metadata.load().topics[topic]
	if t == nil {
		return 0
	}
	return int32(len(t.partitions))
}

// offsetsPartitionsPlanned is how many partitions __consumer_offsets has, or will have.
func (b *Broker) offsetsPartitionsPlanned() int32 {
	if n := b.partitionsOf(offsetsTopic); n > 0 {
		return n
	}
	return int32(config.OffsetsTopicNumPartitions.Of(b.config.Load()))
}

// offsetsLeadership tells the coordinator which groups it has won and lost.
func (b *Broker) offsetsLeadership(became, resigned []*partition.Partition) {
	for _, p := range resigned {
		if tp := p.TopicPartition(); tp.Topic == offsetsTopic {
			b.groups.Resigned(tp.Partition)
		}
	}
	for _, p := range became {
		tp := p.TopicPartition()
		if tp.Topic != offsetsTopic {
			continue
		}
		if epoch, leads := p.IsLeader(); leads {
			b.groups.Elected(tp.Partition, epoch, coordinatorLog{p})
		}
	}
}

// coordinatorLog is a partition of an internal topic as its coordinator uses it.
type coordinatorLog struct{ p *partition.Partition }

func (l coordinatorLog) Append(batches []byte, a coordlog.Append, done func(int64, error)) {
	l.p.Append(partition.AppendRequest{
		Records: batches, Acks: -1, Timeout: a.Timeout, ProduceVersion: -1, Origin: logstore.OriginCoordinator,
		LeaderEpoch: a.Epoch, Fenced: true, Guard: a.Guard,
	}, func(r partition.AppendResult) { done(r.BaseOffset, r.Err) })
}

func (l coordinatorLog) Bounds() (start, end int64) {
	log := l.p.Log()
	if log == nil {
		return -1, -1
	}
	return log.LogStartOffset(), log.LogEndOffset()
}

func (l coordinatorLog) Committed() int64 {
	log := l.p.Log()
	if log == nil {
		return -1
	}
	return log.HighWatermark()
}

func (l coordinatorLog) Read(offset int64, maxBytes int, buf []byte) ([]byte, error) {
	log := l.p.Log()
	if log == nil {
		return nil, logstore.ErrClosed
	}
	s, err := log.Read(offset, maxBytes, log.LogEndOffset(), true)
	if err != nil {
		return nil, err
	}
	defer s.Release()
	if int64(cap(buf)) < s.Len {
		buf = make([]byte, s.Len)
	}
	buf = buf[:s.Len]
	if _, err := s.ReadAt(buf, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return buf, nil
}
