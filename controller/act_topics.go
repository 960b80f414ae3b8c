package controller

import (
	"errors"
	"fmt"
	"maps"
	"slices"

	"ottla/zkcoord"
)

// onTopicChange compares the topics that are there with the known ones: new ones start, gone ones (deleted by hand) are forgotten.
func (r *reign) onTopicChange() error {
	names, err := zkcoord.TopicNames(r.s)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	there := make(map[string]struct{}, len(names))
	var fresh []string
	for _, name := range names {
		there[name] = struct{}{}
		if r.m.topics[name] == nil {
			fresh = append(fresh, name)
		}
	}
	for name, t := range r.m.topics {
		if _, found := there[name]; !found {
			r.log.Warn().Str("topic", name).Msg("topic was removed from zookeeper by somebody else, forgetting it")
			r.m.forgetTopic(t)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	return r.startTopics(fresh)
}

// startTopics takes new topics into the model and starts their partitions.
func (r *reign) startTopics(names []string) error {
	topics, err := r.takeTopics(names)
	if err != nil {
		return err
	}
	var ps []*partition
	for _, t := range topics {
		for p := range t.each() {
			ps = append(ps, p)
		}
	}
	return r.startPartitions(ps)
}

// onTopicsModified looks at the topics whose znode changed since it last ran.
func (r *reign) onTopicsModified() error {
	r.mu.Lock()
	modified := r.mu.modified
	r.mu.modified = map[string]struct{}{}
	r.mu.Unlock()
	var names []string
	for _, name := range slices.Sorted(maps.Keys(modified)) {
		if r.m.topics[name] != nil {
			names = append(names, name)
		}
	}
	return r.topicsModified(names)
}

// topicsModified starts partitions that were added to topics. Other changes of the znode by outsiders are not taken over; a topic
// id that an old tool dropped is put back (KAFKA-14190), and partitions added to a topic that is being deleted are taken out again
// (KAFKA-6612).
func (r *reign) topicsModified(names []string) error {
	nodes, err := zkcoord.ReadTopics(r.s, names)
	if err = r.tolerateBadNodes(err); err != nil {
		return fmt.Errorf("read topics: %w", err)
	}
	var fresh []*partition
	var repair []*topic
	for _, name := range names {
		node, found := nodes[name]
		t := r.m.topics[name]
		if !found || t == nil {
			continue
		}
		t.version = node.Version
		added := r.addedPartitions(t, node)
		if node.ID != t.id || t.deleting() && len(added) > 0 {
			repair = append(repair, t)
		}
		if t.deleting() {
			continue
		}
		for _, number := range added {
			if p := t.addPartition(number, assignmentOf(node, number)); p != nil {
				fresh = append(fresh, p)
			}
		}
	}
	if len(repair) > 0 {
		r.log.Warn().Int("topics", len(repair)).Msg("topic znodes were changed by an outsider, repairing them")
		if err := r.writeTopics(repair); err != nil {
			return err
		}
	}
	return r.startPartitions(fresh)
}

func (r *reign) addedPartitions(t *topic, node zkcoord.TopicNode) []int32 {
	var added []int32
	for _, number := range slices.Sorted(maps.Keys(node.Partitions)) {
		if t.partition(number) == nil {
			added = append(added, number)
		}
	}
	return added
}

// writeTopics writes topic znodes as the model has them, conditionally on the version that is known.
func (r *reign) writeTopics(topics []*topic) error {
	nodes := make([]zkcoord.TopicNode, len(topics))
	for i, t := range topics {
		nodes[i] = t.node()
	}
	return r.writeTopicNodes(topics, nodes)
}

// writeTopicNodes writes topic znodes. A znode that was changed meanwhile is read again; what it has and the node to write does not
// know (partitions added by an old tool) is kept. Once a topic's znode is gone nothing is written for it.
func (r *reign) writeTopicNodes(topics []*topic, nodes []zkcoord.TopicNode) error {
	todo := make([]int, len(topics))
	for i := range todo {
		todo[i] = i
	}
	for round := 0; len(todo) > 0; round++ {
		if round == roundsMax {
			return fmt.Errorf("write topic %s: given up after %d attempts", topics[todo[0]].name, round)
		}
		units := make([][]zkcoord.Op, len(todo))
		for n, i := range todo {
			units[n] = []zkcoord.Op{zkcoord.SetOp(zkcoord.TopicPath(topics[i].name), zkcoord.EncodeTopic(nodes[i]), topics[i].version)}
		}
		results, err := zkcoord.WriteFenced(r.s, r.epochVersion, units)
		if err != nil {
			return fmt.Errorf("write topics: %w", err)
		}
		var again []int
		for n, i := range todo {
			switch err := results[n].Err; {
			case err == nil:
				topics[i].version++
			case errors.Is(err, zkcoord.ErrBadVersion), errors.Is(err, zkcoord.ErrConnectionLost):
				again = append(again, i)
			case errors.Is(err, zkcoord.ErrNoNode):
				r.log.Warn().Str("topic", topics[i].name).Msg("topic znode is gone, nothing written")
			default:
				return fmt.Errorf("write topic %s: %w", topics[i].name, err)
			}
		}
		if todo, err = r.rereadTopics(topics, nodes, again); err != nil {
			return err
		}
	}
	return nil
}

// rereadTopics takes the current versions, and returns the topics that still need the write.
func (r *reign) rereadTopics(topics []*topic, nodes []zkcoord.TopicNode, which []int) ([]int, error) {
	if len(which) == 0 {
		return nil, nil
	}
	names := make([]string, len(which))
	for n, i := range which {
		names[n] = topics[i].name
	}
	read, err := zkcoord.ReadTopics(r.s, names)
	if err = r.tolerateBadNodes(err); err != nil {
		return nil, fmt.Errorf("read topics: %w", err)
	}
	var left []int
	for _, i := range which {
		node, found := read[topics[i].name]
		if !found {
			continue
		}
		topics[i].version = node.Version
		for number, replicas := range node.Partitions {
			if _, known := nodes[i].Partitions[number]; !known && !topics[i].deleting() {
				nodes[i].Partitions[number] = replicas
			}
		}
		if string(zkcoord.EncodeTopic(node)) != string(zkcoord.EncodeTopic(nodes[i])) {
			left = append(left, i)
		}
	}
	return left, nil
}
