package controller

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"ottla/internal/cluster"
	"ottla/zkcoord"
	"ottla/zkcoord/zktest"
)

// checkWrites reports writes that no controller may make: a state that breaks the invariants, or a write that is not fenced.
// It is the hook of a session's writes.
func checkWrites(report func(format string, args ...any)) func(zktest.Call) zktest.Fault {
	return func(call zktest.Call) zktest.Fault {
		for _, op := range call.Ops {
			if !strings.HasPrefix(op.Path, zkcoord.BrokerTopicsPath) {
				continue
			}
			if first := call.Ops[0]; first.Kind != zkcoord.OpCheck || first.Path != zkcoord.ControllerEpochPath || first.Version < 0 {
				report("write to %s is not fenced", op.Path)
			}
			if !strings.HasSuffix(op.Path, "/state") || op.Kind != zkcoord.OpSet && op.Kind != zkcoord.OpCreate {
				continue
			}
			st, err := zkcoord.DecodeState(op.Data)
			switch {
			case err != nil:
				report("write of %s: %v", op.Path, err)
			case len(st.ISR) == 0:
				report("write of %s: the in-sync set is empty", op.Path)
			case hasDuplicates(st.ISR):
				report("write of %s: in-sync set %v", op.Path, st.ISR)
			case st.Leader != cluster.NoBroker && !slices.Contains(st.ISR, st.Leader):
				report("write of %s: leader %d is not in %v", op.Path, st.Leader, st.ISR)
			case op.Kind == zkcoord.OpSet && op.Version < 0:
				report("write of %s is not conditional", op.Path)
			}
		}
		return zktest.NoFault
	}
}

// mayDelete says what is wrong with a request to delete a replica; "" when its topic goes, or when the assignment lets go of the
// broker and its copy is not counted on any more. A broker that is being added again may hear of an earlier removal.
func (w *world) mayDelete(tp cluster.TopicPartition, id cluster.BrokerID) string {
	if going, _, err := w.admin.Exists(zkcoord.DeleteTopicPath(tp.Topic)); err != nil || going {
		return ""
	}
	nodes, err := zkcoord.ReadTopics(w.admin, []string{tp.Topic})
	node, found := nodes[tp.Topic]
	if err != nil || !found {
		return ""
	}
	states, err := zkcoord.States(w.admin, []cluster.TopicPartition{tp})
	if err != nil {
		return ""
	}
	named := slices.Contains(node.Partitions[tp.Partition], id) && !slices.Contains(node.Removing[tp.Partition], id) &&
		!slices.Contains(node.Adding[tp.Partition], id)
	if st := states[tp].State; named || st.Leader == id || slices.Contains(st.ISR, id) {
		return fmt.Sprintf("broker %d is to delete %s: assignment %v, state %+v", id, tp, node, st)
	}
	return ""
}

// watcher remembers the states that it saw, to check that they only move forward.
type watcher struct {
	seen map[cluster.TopicID]map[int32]zkcoord.StateAndVersion
}

// step compares what is in ZooKeeper with what was there before.
func (o *watcher) step(w *world) error {
	states, topics := w.states()
	if o.seen == nil {
		o.seen = map[cluster.TopicID]map[int32]zkcoord.StateAndVersion{}
	}
	for tp, now := range states {
		id := topics[tp.Topic].ID
		if o.seen[id] == nil {
			o.seen[id] = map[int32]zkcoord.StateAndVersion{}
		}
		before, known := o.seen[id][tp.Partition]
		o.seen[id][tp.Partition] = now
		if !known {
			continue
		}
		switch {
		case now.State.LeaderEpoch < before.State.LeaderEpoch, now.Version < before.Version, now.State.ControllerEpoch < before.State.ControllerEpoch:
			return fmt.Errorf("%s: an epoch fell: %+v after %+v", tp, now, before)
		case now.State.Leader != before.State.Leader && now.State.LeaderEpoch == before.State.LeaderEpoch:
			return fmt.Errorf("%s: two leaders of one epoch: %+v after %+v", tp, now, before)
		case now.Version == before.Version+1 && now.State.Recovery != cluster.Recovering && now.State.Leader != cluster.NoBroker &&
			!slices.Contains(before.State.ISR, now.State.Leader):
			return fmt.Errorf("%s: the leader was not in sync: %+v after %+v", tp, now, before)
		}
	}
	return nil
}

// converged says what is not as it should be once everything is up and has had time. Strays are replicas on disks that no assignment
// names, and deleted topics in the metadata of brokers that had no replica of them: what told them to forget is not repeated by a
// later controller, nor once their broker is back (as in Kafka).
func (w *world) converged(strays bool) error {
	states, topics := w.states()
	active := 0
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, b := range w.brokers {
		if b.up && b.ctrl.Active() {
			active++
		}
	}
	if active != 1 {
		return fmt.Errorf("%d controllers", active)
	}
	marks, _, _ := w.admin.Children(zkcoord.DeleteTopicsPath)
	if len(marks) > 0 {
		return fmt.Errorf("topics wait for deletion: %v", marks)
	}
	if data, _, err := w.admin.Get(zkcoord.ReassignPartitionsPath); err == nil {
		return fmt.Errorf("%s is left: %s", zkcoord.ReassignPartitionsPath, data)
	}
	for name, node := range topics {
		if len(node.Adding)+len(node.Removing) > 0 {
			return fmt.Errorf("%s is being reassigned: %+v", name, node)
		}
		if found, _, _ := w.admin.Exists(zkcoord.TopicConfigPath(name)); !found {
			return fmt.Errorf("%s has no configuration", name)
		}
		for number, replicas := range node.Partitions {
			tp := cluster.TopicPartition{Topic: name, Partition: number}
			st, found := states[tp]
			switch {
			case !found:
				return fmt.Errorf("%s has no state", tp)
			case !sameSet(st.State.ISR, replicas) || st.State.Leader == cluster.NoBroker:
				return fmt.Errorf("%s: %+v with replicas %v", tp, st.State, replicas)
			}
		}
	}
	for _, id := range slices.Sorted(maps.Keys(w.brokers)) {
		if err := w.brokers[id].agrees(states, topics, strays); err != nil {
			return fmt.Errorf("broker %d: %w", id, err)
		}
	}
	return nil
}

// agrees compares what a broker was told with ZooKeeper.
func (b *fakeBroker) agrees(states map[cluster.TopicPartition]zkcoord.StateAndVersion, topics map[string]zkcoord.TopicNode, strays bool) error {
	for tp, st := range states {
		replicas := topics[tp.Topic].Partitions[tp.Partition]
		md, told := b.metadata[tp]
		if !told || md.Leader != int32(st.State.Leader) || md.LeaderEpoch != int32(st.State.LeaderEpoch) || md.ZKVersion != int32(st.Version) ||
			!slices.Equal(md.Replicas, int32s(replicas)) || !slices.Equal(md.ISR, int32s(st.State.ISR)) || len(md.OfflineReplicas) > 0 {
			return fmt.Errorf("%s: told %+v, it is %+v with replicas %v", tp, md, st, replicas)
		}
		if !slices.Contains(replicas, b.id) {
			continue
		}
		rep := b.hosted[tp]
		if rep == nil || rep.leaderEpoch != int32(st.State.LeaderEpoch) || rep.leader != int32(st.State.Leader) {
			return fmt.Errorf("%s: has role %+v, it is %+v", tp, rep, st)
		}
	}
	for tp := range b.metadata {
		if _, there := states[tp]; !strays && !there {
			return fmt.Errorf("%s: still in the metadata", tp)
		}
	}
	for tp := range b.disk {
		if !strays && !slices.Contains(topics[tp.Topic].Partitions[tp.Partition], b.id) {
			return fmt.Errorf("%s: still on disk", tp)
		}
	}
	return nil
}
