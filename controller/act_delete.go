package controller

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// loadDeletions reads the requests for deletion at the start of a reign, and says how many there are.
func (r *reign) loadDeletions() (int, error) {
	names, err := zkcoord.TopicDeletions(r.s)
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", zkcoord.DeleteTopicsPath, err)
	}
	n, err := r.queueDeletions(names)
	if err != nil {
		return n, err
	}
	for _, t := range r.m.topics {
		if t.deleting() && t.deletion.ineligible == "" && r.hasOfflineReplica(t) {
			t.deletion.ineligible = "replica offline"
		}
	}
	return n, nil
}

func (r *reign) hasOfflineReplica(t *topic) bool {
	for p := range t.each() {
		for i := range p.replicas {
			if !r.m.reachable(&p.replicas[i]) {
				return true
			}
		}
	}
	return false
}

// onTopicDeletion takes up new requests for deletion.
func (r *reign) onTopicDeletion() error {
	names, err := zkcoord.TopicDeletions(r.s)
	if err != nil {
		return fmt.Errorf("read %s: %w", zkcoord.DeleteTopicsPath, err)
	}
	n, err := r.queueDeletions(names)
	if err != nil || n == 0 {
		return err
	}
	return r.resumeDeletions()
}

// queueDeletions marks topics for deletion, and removes requests for topics that do not exist, or all while deletion is disabled.
// It returns how many topics are newly marked.
func (r *reign) queueDeletions(names []string) (int, error) {
	enabled := config.DeleteTopicEnable.Of(r.config())
	var reject []string
	n := 0
	for _, name := range names {
		t := r.m.topics[name]
		switch {
		case t == nil, !enabled:
			reject = append(reject, zkcoord.DeleteTopicPath(name))
		case t.deletion == nil:
			t.deletion = &deletion{}
			if t.reassigning() {
				t.deletion.ineligible = "topic reassignment in progress"
			}
			n++
		}
	}
	if len(reject) > 0 {
		r.log.Info().Int("topics", len(reject)).Bool("enabled", enabled).Msg("dropped requests to delete topics")
	}
	return n, r.deletePaths(reject)
}

// resumeDeletionsOn lets topics that waited for one of the brokers try again.
func (r *reign) resumeDeletionsOn(back func(cluster.BrokerID) bool) error {
	found := false
	for _, t := range r.m.topics {
		if !t.deleting() {
			continue
		}
		for p := range t.each() {
			if hasReplica(p, func(_ *partition, rep *replica) bool { return back(rep.broker) }) {
				found = true
				t.retryDeletion()
				break
			}
		}
	}
	if !found {
		return nil
	}
	return r.resumeDeletions()
}

// retryDeletion makes a topic eligible again, unless a reassignment still runs.
func (t *topic) retryDeletion() {
	t.deletion.ineligible = ""
	if t.reassigning() {
		t.deletion.ineligible = "topic reassignment in progress"
	}
}

// resumeDeletions takes every topic that is to be deleted as far as it goes.
func (r *reign) resumeDeletions() error {
	var complete, start []*topic
	for _, t := range r.m.topics {
		switch t.deletionStep() {
		case stepComplete:
			complete = append(complete, t)
		case stepStart:
			start = append(start, t)
		}
	}
	byName := func(a, b *topic) int { return strings.Compare(a.name, b.name) }
	slices.SortFunc(complete, byName)
	slices.SortFunc(start, byName)
	r.startDeletions(start)
	return r.completeDeletions(complete)
}

// startDeletions hides topics from clients and has their replicas deleted.
func (r *reign) startDeletions(topics []*topic) {
	var complete []*topic
	for _, t := range topics {
		t.deletion.started = true
		for p := range t.each() {
			r.out.addUpdate(p)
			for i := range p.replicas {
				rep := &p.replicas[i]
				switch {
				case rep.deletion == deletionSuccessful:
				case r.m.reachable(rep):
					rep.deletion = deletionStarted
					r.out.addStop(p, rep.broker, true)
				default:
					rep.deletion = deletionIneligible
					t.deletion.ineligible = "replica offline"
				}
			}
		}
		if t.deletionStep() == stepComplete {
			complete = append(complete, t)
		}
		r.log.Info().Str("topic", t.name).Str("waits_for", t.deletion.ineligible).Msg("deleting topic")
	}
	if len(complete) > 0 { // topics without partitions
		r.post("topicDeletion", "resumeDeletions", r.resumeDeletions)
	}
}

// failDeletion marks the replicas of a partition that cannot be deleted now.
func failDeletion(p *partition, lost func(*partition, *replica) bool, why string) {
	for i := range p.replicas {
		rep := &p.replicas[i]
		if lost(p, rep) && rep.deletion != deletionSuccessful {
			if rep.deletion == deletionStarted {
				rep.deletion = deletionIneligible
			}
			p.topic.deletion.ineligible = why
		}
	}
}

// onStopReplicaAnswer learns which replicas of topics under deletion are gone.
func (r *reign) onStopReplicaAnswer(from cluster.Broker, req *kmsg.StopReplicaRequest, resp *kmsg.StopReplicaResponse) error {
	if b := r.m.brokers[from.ID]; b == nil || b.Epoch != from.Epoch {
		return nil
	}
	refused := map[cluster.TopicPartition]int16{}
	for _, p := range resp.Partitions {
		if p.ErrorCode != 0 {
			refused[cluster.TopicPartition{Topic: p.Topic, Partition: p.Partition}] = p.ErrorCode
		}
	}
	progress := false
	for i := range req.Topics {
		for _, ask := range req.Topics[i].PartitionStates {
			tp := cluster.TopicPartition{Topic: req.Topics[i].Topic, Partition: ask.Partition}
			p := r.m.partition(tp)
			if p == nil || !p.topic.deleting() || !ask.Delete {
				continue
			}
			rep := p.replica(from.ID)
			if rep == nil || rep.deletion != deletionStarted {
				continue
			}
			progress = true
			if code := refused[tp]; code != 0 || resp.ErrorCode != 0 {
				rep.deletion = deletionIneligible
				p.topic.deletion.ineligible = "broker refused"
				r.log.Warn().Int32("broker", int32(from.ID)).Str("topic", tp.Topic).Int32("partition", tp.Partition).
					Int16("code", max(code, resp.ErrorCode)).Msg("broker refused to delete a replica; tried again when it restarts")
				continue
			}
			rep.deletion = deletionSuccessful
		}
	}
	if !progress {
		return nil
	}
	return r.resumeDeletions()
}

// completeDeletions removes topics whose replicas are gone from ZooKeeper and from the model: states first, the request last.
func (r *reign) completeDeletions(topics []*topic) error {
	for _, t := range topics {
		if err := r.deleteTopic(t); err != nil {
			return err
		}
		r.m.forgetTopic(t)
		r.log.Info().Str("topic", t.name).Int("partitions", t.count()).Msg("topic deleted")
	}
	return nil
}

func (r *reign) deleteTopic(t *topic) error {
	if done, err := r.deleteKnownTree(t); done || err != nil {
		return err
	}
	// Something is not as the model has it: partitions of an earlier attempt are gone, or there is more than we know of.
	paths, err := r.treePaths(zkcoord.TopicPath(t.name))
	if err != nil {
		return err
	}
	for _, path := range append(paths, zkcoord.TopicConfigPath(t.name), zkcoord.DeleteTopicPath(t.name)) {
		if _, err := zkcoord.Fenced(r.s, r.epochVersion, zkcoord.DeleteOp(path, zkcoord.AnyVersion)); err != nil &&
			!errors.Is(err, zkcoord.ErrNoNode) {
			return fmt.Errorf("delete topic %s: %w", t.name, err)
		}
	}
	return nil
}

// deleteKnownTree deletes what a topic normally consists of, in few multis. It reports false when that did not match what is there.
func (r *reign) deleteKnownTree(t *topic) (bool, error) {
	var units [][]zkcoord.Op
	for p := range t.each() {
		if p.known {
			units = append(units, []zkcoord.Op{
				zkcoord.DeleteOp(zkcoord.StatePath(p.tp()), zkcoord.AnyVersion),
				zkcoord.DeleteOp(zkcoord.PartitionPath(p.tp()), zkcoord.AnyVersion),
			})
		}
	}
	results, err := zkcoord.WriteFenced(r.s, r.epochVersion, units)
	if err != nil {
		return false, fmt.Errorf("delete partitions of topic %s: %w", t.name, err)
	}
	for _, res := range results {
		if res.Err != nil {
			return false, nil
		}
	}
	var ops []zkcoord.Op
	if len(units) > 0 {
		ops = append(ops, zkcoord.DeleteOp(zkcoord.PartitionsPath(t.name), zkcoord.AnyVersion))
	}
	ops = append(ops,
		zkcoord.DeleteOp(zkcoord.TopicPath(t.name), zkcoord.AnyVersion),
		zkcoord.DeleteOp(zkcoord.TopicConfigPath(t.name), zkcoord.AnyVersion),
		zkcoord.DeleteOp(zkcoord.DeleteTopicPath(t.name), zkcoord.AnyVersion))
	_, err = zkcoord.Fenced(r.s, r.epochVersion, ops...)
	if err != nil && over(err) {
		return false, fmt.Errorf("delete topic %s: %w", t.name, err)
	}
	return err == nil, nil
}

// treePaths lists a znode and everything below it, children before parents.
func (r *reign) treePaths(path string) ([]string, error) {
	children, _, err := r.s.Children(path)
	if errors.Is(err, zkcoord.ErrNoNode) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", path, err)
	}
	var paths []string
	for _, child := range children {
		below, err := r.treePaths(path + "/" + child)
		if err != nil {
			return nil, err
		}
		paths = append(paths, below...)
	}
	return append(paths, path), nil
}
