package broker

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/internal/cluster"
	"ottla/logstore"
)

// AlterReplicaLogDirs v0–2 moves replicas between this broker's log directories (KIP-113). It answers when the move has begun; how far
// it is, DescribeLogDirs tells. A directory that is none of log.dirs: LOG_DIR_NOT_FOUND. A replica that is not here yet will be
// created there, should it come: REPLICA_NOT_AVAILABLE, which kafka-reassign-partitions knows how to take.

func (b *Broker) handleAlterReplicaLogDirs(r *wire.Request, req *kmsg.AlterReplicaLogDirsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.AlterReplicaLogDirsResponse)
	allowed := b.allowed(r, opAlter, clusterResource)
	var work []func()
	for _, d := range req.Dirs {
		for _, t := range d.Topics {
			rt := kmsg.NewAlterReplicaLogDirsResponseTopic()
			rt.Topic = strings.Clone(t.Topic)
			rt.Partitions = make([]kmsg.AlterReplicaLogDirsResponseTopicPartition, len(t.Partitions))
			resp.Topics = append(resp.Topics, rt)
			for i, number := range t.Partitions {
				out := &rt.Partitions[i]
				out.Partition = number
				if !allowed {
					out.ErrorCode = kerr.ClusterAuthorizationFailed.Code
					continue
				}
				dir, tp := strings.Clone(d.Dir), cluster.TopicPartition{Topic: rt.Topic, Partition: number}
				work = append(work, func() { out.ErrorCode = b.errorCode(b.alterLogDir(tp, dir)) })
			}
		}
	}
	if len(work) == 0 {
		return resp
	}
	b.tasks.run(func() { // directories are created and synced
		for _, do := range work {
			do()
		}
		mergeTopics(resp)
		r.Respond(resp)
	})
	return nil
}

func (b *Broker) alterLogDir(tp cluster.TopicPartition, dir string) error {
	if err := b.logs.CheckDir(dir); err != nil {
		return err
	}
	if b.metadata.load().partition(tp.Topic, tp.Partition) == nil {
		return kerr.UnknownTopicOrPartition // and nothing is remembered of it
	}
	return b.partitions.AlterDir(tp, dir)
}

// mergeTopics names each topic once, though its partitions may go to several directories: clients read the answer into a map.
func mergeTopics(resp *kmsg.AlterReplicaLogDirsResponse) {
	at := map[string]int{}
	merged := resp.Topics[:0]
	for _, t := range resp.Topics {
		if i, ok := at[t.Topic]; ok {
			merged[i].Partitions = append(merged[i].Partitions, t.Partitions...)
			continue
		}
		at[t.Topic] = len(merged)
		merged = append(merged, t)
	}
	resp.Topics = merged
}

// DescribeLogDirs v0–4: sizes and lags of this broker's replicas, per directory (KIP-113). Version 3 adds an error for the whole,
// 4 the size of the volumes (KIP-827).

func (b *Broker) handleDescribeLogDirs(r *wire.Request, req *kmsg.DescribeLogDirsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	wanted := func(string, int32) bool { return true }
	if req.Topics != nil {
		asked := map[string][]int32{}
		for _, t := range req.Topics {
			asked[t.Topic] = append(asked[t.Topic], t.Partitions...)
		}
		wanted = func(topic string, p int32) bool { return slices.Contains(asked[topic], p) }
	}
	for _, dir := range b.logs.Dirs() {
		resp.Dirs = append(resp.Dirs, b.describeDir(dir, wanted))
	}
	return resp
}

func (b *Broker) describeDir(dir logstore.DirInfo, wanted func(string, int32) bool) kmsg.DescribeLogDirsResponseDir {
	out := kmsg.NewDescribeLogDirsResponseDir()
	out.Dir, out.TotalBytes, out.UsableBytes = dir.Path, -1, -1
	if dir.Err != nil {
		out.ErrorCode = kerr.KafkaStorageError.Code
		return out
	}
	out.TotalBytes, out.UsableBytes = volumeSize(dir.Path)
	at := map[string]int{}
	for _, log := range b.logs.LogsIn(dir.Path) {
		tp := log.TopicPartition
		if !wanted(tp.Topic, tp.Partition) {
			continue
		}
		i, ok := at[tp.Topic]
		if !ok {
			i = len(out.Topics)
			at[tp.Topic] = i
			t := kmsg.NewDescribeLogDirsResponseDirTopic()
			t.Topic = tp.Topic
			out.Topics = append(out.Topics, t)
		}
		dp := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
		dp.Partition, dp.Size, dp.OffsetLag, dp.IsFuture = tp.Partition, log.Size, log.OffsetLag, log.Future
		out.Topics[i].Partitions = append(out.Topics[i].Partitions, dp)
	}
	return out
}
