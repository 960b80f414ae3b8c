package zkcoord

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"ottla/internal/cluster"
	"ottla/internal/parallel"
)

// Offsets in ZooKeeper: /consumers/G/offsets/T/P holds a committed offset as decimal text. Clients that commit with version 0, and
// offsets.storage=zookeeper, use them. They do not expire.

const (
	offsetsPerMulti = 100 // of one batch of commits
	windowWidth     = 64
)

// checkGroup refuses a group id that is no single name: it would reach into other groups' offsets.
func checkGroup(group string) error {
	if group == "" || strings.Contains(group, "/") {
		return fmt.Errorf("%w: group %q cannot be stored in ZooKeeper", ErrInvalid, group)
	}
	return checkPath(GroupPath(group))
}

// Groups lists the groups that have anything in ZooKeeper, sorted.
func Groups(s Session) ([]string, error) {
	names, _, err := s.Children(ConsumersPath)
	if errors.Is(err, ErrNoNode) {
		return nil, nil
	}
	slices.Sort(names)
	return names, err
}

// GroupPartitions lists the partitions for which a group has committed, sorted.
func GroupPartitions(s Session, group string) ([]cluster.TopicPartition, error) {
	if err := checkGroup(group); err != nil {
		return nil, err
	}
	topics, _, err := s.Children(GroupOffsetsPath(group))
	if errors.Is(err, ErrNoNode) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	partitions := make([][]string, len(topics))
	errs := make([]error, len(topics))
	parallel.For(len(topics), windowWidth, func(i int) {
		partitions[i], _, errs[i] = s.Children(GroupOffsetsPath(group) + "/" + topics[i])
	})
	var tps []cluster.TopicPartition
	for i, topic := range topics {
		if errs[i] != nil && !errors.Is(errs[i], ErrNoNode) {
			return nil, errs[i]
		}
		for _, name := range partitions[i] {
			if partition, err := strconv.ParseInt(name, 10, 32); err == nil {
				tps = append(tps, cluster.TopicPartition{Topic: topic, Partition: int32(partition)})
			}
		}
	}
	slices.SortFunc(tps, comparePartitions)
	return tps, nil
}

// ReadOffsets reads a group's offsets; partitions without one are missing in the result. Unreadable ones are named by a
// *BadNodesError beside the result.
func ReadOffsets(s Session, group string, tps []cluster.TopicPartition) (map[cluster.TopicPartition]int64, error) {
	if err := checkGroup(group); err != nil {
		return nil, err
	}
	paths := make([]string, len(tps))
	for i, tp := range tps {
		paths[i] = GroupOffsetPath(group, tp)
	}
	offsets := make(map[cluster.TopicPartition]int64, len(tps))
	err := readMany(s, paths, func(i int, r GetResult) error {
		offset, err := strconv.ParseInt(string(r.Data), 10, 64)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		offsets[tps[i]] = offset
		return nil
	})
	return offsets, err
}

// WriteOffsets sets a group's offsets, whatever they were. The result names the partitions that failed; it is empty if none did.
// A lost answer is no failure: the same offset is written again.
func WriteOffsets(s Session, group string, offsets map[cluster.TopicPartition]int64) map[cluster.TopicPartition]error {
	failed := make(map[cluster.TopicPartition]error)
	tps := make([]cluster.TopicPartition, 0, len(offsets))
	for tp := range offsets {
		tps = append(tps, tp)
	}
	if err := checkGroup(group); err != nil {
		for _, tp := range tps {
			failed[tp] = err
		}
		return failed
	}
	slices.SortFunc(tps, comparePartitions)
	alone := writeOffsetBatches(s, group, offsets, tps)
	errs := make([]error, len(alone))
	parallel.For(len(alone), windowWidth, func(i int) {
		errs[i] = writeOffset(s, GroupOffsetPath(group, alone[i]), offsets[alone[i]])
	})
	for i, err := range errs {
		if err != nil {
			failed[alone[i]] = err
		}
	}
	return failed
}

// writeOffsetBatches sets offsets that exist, many at a time, and returns those of the batches that failed: a group's first commit
// of a partition creates the znode.
func writeOffsetBatches(s Session, group string, offsets map[cluster.TopicPartition]int64, tps []cluster.TopicPartition) (alone []cluster.TopicPartition) {
	batches := slices.Collect(slices.Chunk(tps, offsetsPerMulti))
	multis := make([][]Op, len(batches))
	for i, batch := range batches {
		for _, tp := range batch {
			multis[i] = append(multis[i], SetOp(GroupOffsetPath(group, tp), strconv.AppendInt(nil, offsets[tp], 10), AnyVersion))
		}
	}
	for i, r := range s.MultiMany(multis) {
		if r.Err != nil {
			alone = append(alone, batches[i]...)
		}
	}
	return alone
}

func writeOffset(s Session, path string, offset int64) error {
	data := strconv.AppendInt(nil, offset, 10)
	return retryLost(func() error {
		_, err := s.Set(path, data, AnyVersion)
		if !errors.Is(err, ErrNoNode) {
			return err
		}
		err = s.CreateAll(path, data)
		if errors.Is(err, ErrNodeExists) {
			return ErrConnectionLost // somebody was faster: set it
		}
		return err
	})
}
