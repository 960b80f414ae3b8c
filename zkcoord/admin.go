package zkcoord

import (
	"errors"
	"slices"

	"ottla/internal/cluster"
)

// RequestTopicDeletion asks the controller to delete a topic. ErrNodeExists if it was asked before.
func RequestTopicDeletion(s Session, topic string) error {
	err := s.CreateAll(DeleteTopicPath(topic), nil)
	if errors.Is(err, ErrConnectionLost) {
		// The request is there in the end, whoever made it.
		err = retryLost(func() error { return s.CreateAll(DeleteTopicPath(topic), nil) })
		if errors.Is(err, ErrNodeExists) {
			return nil
		}
	}
	return err
}

// TopicDeletions lists the topics whose deletion was asked for, sorted.
func TopicDeletions(s Session) ([]string, error) {
	names, _, err := s.Children(DeleteTopicsPath)
	if errors.Is(err, ErrNoNode) {
		return nil, nil
	}
	slices.Sort(names)
	return names, err
}

// Reassignment is /admin/reassign_partitions, written by tools older than 2.4.
type Reassignment struct {
	Partitions map[cluster.TopicPartition][]cluster.BrokerID // the target replicas
	Version    int32                                         // data version
}

// EncodeReassignment writes version 1, sorted by partition.
func EncodeReassignment(partitions map[cluster.TopicPartition][]cluster.BrokerID) []byte {
	tps := make([]cluster.TopicPartition, 0, len(partitions))
	for tp := range partitions {
		tps = append(tps, tp)
	}
	slices.SortFunc(tps, comparePartitions)
	b := appendList([]byte(`{"version":1,"partitions":`), tps, func(b []byte, tp cluster.TopicPartition) []byte {
		return append(appendBrokerIDs(append(appendPartition(b, tp), `,"replicas":`...), partitions[tp]), '}')
	})
	return append(b, '}')
}

func comparePartitions(a, b cluster.TopicPartition) int {
	switch {
	case a.Topic < b.Topic:
		return -1
	case a.Topic > b.Topic:
		return 1
	}
	return int(a.Partition) - int(b.Partition)
}

// appendPartition appends {"topic":"t","partition":0 without the closing brace.
func appendPartition(b []byte, tp cluster.TopicPartition) []byte {
	b = appendQuoted(append(b, `{"topic":`...), tp.Topic)
	return appendInt(append(b, `,"partition":`...), tp.Partition)
}

// DecodeReassignment reads version 1. As in Kafka an unknown key makes it unreadable.
func DecodeReassignment(data []byte) (map[cluster.TopicPartition][]cluster.BrokerID, error) {
	o, err := parseObject(data)
	if err != nil {
		return nil, err
	}
	if err := o.only("version", "partitions"); err != nil {
		return nil, err
	}
	list, err := optional[[]object](o, "partitions", nil)
	if err != nil {
		return nil, err
	}
	partitions := make(map[cluster.TopicPartition][]cluster.BrokerID, len(list))
	for _, entry := range list {
		if err := entry.only("topic", "partition", "replicas"); err != nil {
			return nil, err
		}
		tp, err := decodePartition(entry)
		if err != nil {
			return nil, err
		}
		replicas, err := required[[]*cluster.BrokerID](entry, "replicas")
		if err != nil {
			return nil, err
		}
		if partitions[tp], err = notNull(replicas); err != nil {
			return nil, err
		}
	}
	return partitions, nil
}

func decodePartition(o object) (tp cluster.TopicPartition, err error) {
	if tp.Topic, err = required[string](o, "topic"); err != nil {
		return tp, err
	}
	tp.Partition, err = required[int32](o, "partition")
	return tp, err
}

// ReadReassignment reads /admin/reassign_partitions.
func ReadReassignment(s Session) (r Reassignment, found bool, err error) {
	data, stat, err := s.Get(ReassignPartitionsPath)
	if errors.Is(err, ErrNoNode) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}
	r.Version = stat.Version
	r.Partitions, err = DecodeReassignment(data)
	return r, true, opError("decode", ReassignPartitionsPath, err)
}

// EncodePartitions writes a list of partitions, version 1: the payload of a preferred replica election and of an ISR change.
func EncodePartitions(tps []cluster.TopicPartition) []byte {
	b := appendList([]byte(`{"version":1,"partitions":`), tps, func(b []byte, tp cluster.TopicPartition) []byte {
		return append(appendPartition(b, tp), '}')
	})
	return append(b, '}')
}

// DecodePartitions reads what EncodePartitions writes.
func DecodePartitions(data []byte) ([]cluster.TopicPartition, error) {
	o, err := parseObject(data)
	if err != nil {
		return nil, err
	}
	list, err := required[[]object](o, "partitions")
	if err != nil {
		return nil, err
	}
	tps := make([]cluster.TopicPartition, len(list))
	for i, entry := range list {
		if tps[i], err = decodePartition(entry); err != nil {
			return nil, err
		}
	}
	return tps, nil
}

// ReadPreferredElection reads /admin/preferred_replica_election, written by tools older than 2.4.
func ReadPreferredElection(s Session) (tps []cluster.TopicPartition, found bool, err error) {
	data, _, err := s.Get(PreferredElectionPath)
	if errors.Is(err, ErrNoNode) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	tps, err = DecodePartitions(data)
	return tps, true, opError("decode", PreferredElectionPath, err)
}
