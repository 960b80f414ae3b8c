package controller

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// reassigned is one partition and the assignment that it is to get.
type reassigned struct {
	p  *partition
	to assignment
}

// startReassignments writes assignments with their targets, and takes each as far as it goes. A partition whose assignment is
// already as asked for is only taken further.
func (r *reign) startReassignments(moves []reassigned) error {
	if len(moves) == 0 {
		return nil
	}
	var changed []reassigned
	dropped := map[*partition][]replica{} // added by a reassignment that is now replaced, and not needed any more
	for _, mv := range moves {
		if mv.p.assignment().equal(mv.to) {
			continue
		}
		changed = append(changed, mv)
		for i := range mv.p.replicas {
			if rep := mv.p.replicas[i]; !slices.Contains(mv.to.replicas, rep.broker) {
				dropped[mv.p] = append(dropped[mv.p], rep)
			}
		}
	}
	if err := r.writeAssignments(changed); err != nil {
		return err
	}
	for _, mv := range changed {
		mv.p.setAssignment(mv.to)
		if t := mv.p.topic; t.deleting() && t.reassigning() {
			t.deletion.ineligible = "topic reassignment in progress"
		}
	}
	if err := r.stopRemoved(dropped); err != nil {
		return err
	}
	ps := make([]*partition, len(moves))
	for i, mv := range moves {
		ps[i] = mv.p
	}
	return r.advanceReassignments(ps)
}

// writeAssignments writes the topic znodes with new assignments for some partitions: one write a topic.
func (r *reign) writeAssignments(moves []reassigned) error {
	var topics []*topic
	var nodes []zkcoord.TopicNode
	at := map[*topic]int{}
	for _, mv := range moves {
		i, seen := at[mv.p.topic]
		if !seen {
			i = len(topics)
			at[mv.p.topic] = i
			topics = append(topics, mv.p.topic)
			nodes = append(nodes, mv.p.topic.node())
		}
		setNodeAssignment(&nodes[i], mv.p.number, mv.to)
	}
	return r.writeTopicNodes(topics, nodes)
}

func setNodeAssignment(node *zkcoord.TopicNode, number int32, a assignment) {
	node.Partitions[number] = a.replicas
	delete(node.Adding, number)
	delete(node.Removing, number)
	if len(a.adding) > 0 {
		node.Adding[number] = a.adding
	}
	if len(a.removing) > 0 {
		node.Removing[number] = a.removing
	}
}

// resumeReassignments takes running reassignments further, of the partitions that pass.
func (r *reign) resumeReassignments(pass func(*partition) bool) error {
	return r.advanceReassignments(r.m.selectPartitions(func(p *partition) bool { return p.reassigning() && pass(p) }))
}

// completeReassignments ends those reassignments among partitions whose target is in the ISR by now.
func (r *reign) completeReassignments(ps []*partition) error {
	var ready []*partition
	for _, p := range ps {
		if p.reassigning() && p.assignment().caughtUp(p.state.ISR) {
			ready = append(ready, p)
		}
	}
	if len(ready) == 0 {
		return nil
	}
	return r.finishReassignments(ready)
}

// advanceReassignments ends the reassignments whose target has caught up, and has the added replicas of the others start.
func (r *reign) advanceReassignments(ps []*partition) error {
	var ready, wait []*partition
	if err := r.startPartitions(keepPartitions(ps, func(p *partition) bool { return !p.known })); err != nil {
		return err
	}
	if err := r.refresh(keepPartitions(ps, func(p *partition) bool { return p.known })); err != nil {
		return err
	}
	for _, p := range ps {
		switch {
		case p.assignment().caughtUp(p.state.ISR):
			ready = append(ready, p)
		case p.known:
			wait = append(wait, p)
		}
	}
	if err := r.startAdded(wait); err != nil {
		return err
	}
	return r.finishReassignments(ready)
}

func keepPartitions(ps []*partition, pass func(*partition) bool) []*partition {
	var out []*partition
	for _, p := range ps {
		if pass(p) {
			out = append(out, p)
		}
	}
	return out
}

// startAdded raises the leader epochs, so that every replica takes the wider assignment, and starts the added replicas as new ones:
// they may choose any directory even while one has failed (KAFKA-10314).
func (r *reign) startAdded(ps []*partition) error {
	changes, err := r.bump(ps)
	started := 0
	for i := range changes {
		if !changes[i].written {
			continue
		}
		p := changes[i].p
		started++
		r.out.addLeaderAndISR(p, without(p.ids(), p.adding), false)
		r.out.addLeaderAndISR(p, p.adding, true)
	}
	if started > 0 {
		r.log.Info().Int("partitions", started).Msg("reassignment: replicas are being added")
	}
	return err
}

func (r *reign) bump(ps []*partition) ([]change, error) {
	if len(ps) == 0 {
		return nil, nil
	}
	changes, err := r.updateStates(ps, r.m.decideBump)
	for i := range changes {
		if c := &changes[i]; c.err != nil {
			r.log.Error().Err(c.err).Str("topic", c.p.topic.name).Int32("partition", c.p.number).Msg("could not raise the leader epoch")
		}
	}
	return changes, err
}

// finishReassignments makes the target the assignment: a leader from it, the others out of the ISR, then deleted, and only then the
// final assignment in the topic znode, so that a crash at any point can be resumed.
func (r *reign) finishReassignments(ps []*partition) error {
	if len(ps) == 0 {
		return nil
	}
	final := make([]reassigned, len(ps))
	removed := map[*partition][]replica{}
	for i, p := range ps {
		final[i] = reassigned{p, p.assignment().completed()}
		for _, id := range p.removing {
			if rep := p.replica(id); rep != nil {
				removed[p] = append(removed[p], *rep)
			}
		}
		p.setAssignment(final[i].to)
	}
	if err := r.leadFromTarget(ps); err != nil {
		return err
	}
	if err := r.stopRemoved(removed); err != nil {
		return err
	}
	r.flush() // the leavers are told before nothing names them any more; as in Kafka their answers are not waited for
	if err := r.writeAssignments(final); err != nil {
		return err
	}
	if err := r.trimZKReassignment(func(tp cluster.TopicPartition, replicas []cluster.BrokerID) bool {
		p := r.m.partition(tp)
		return p != nil && !p.reassigning() && slices.Equal(replicas, p.ids())
	}); err != nil {
		return err
	}
	resume := false
	for _, p := range ps {
		r.out.addUpdate(p)
		if t := p.topic; t.deleting() && !t.reassigning() {
			t.retryDeletion()
			resume = true
		}
	}
	r.log.Info().Int("partitions", len(ps)).Msg("reassignment completed")
	if resume {
		return r.resumeDeletions()
	}
	return nil
}

// leadFromTarget makes sure that partitions, whose assignment is now the target, are led by a replica of it, and that the replicas
// hear of the new assignment under a new leader epoch.
func (r *reign) leadFromTarget(ps []*partition) error {
	var move, stay []*partition
	for _, p := range ps {
		switch {
		case !p.known:
		case r.m.idOnline(p, p.state.Leader):
			stay = append(stay, p)
		default:
			move = append(move, p)
		}
	}
	if _, err := r.elect(move, electReassigned); err != nil {
		return err
	}
	changes, err := r.bump(stay)
	for i := range changes {
		if changes[i].written {
			r.out.addLeaderAndISR(changes[i].p, changes[i].p.ids(), false)
		}
	}
	return err
}

// stopRemoved takes replicas that left their partition's assignment out of the ISR, and has their brokers delete them.
func (r *reign) stopRemoved(removed map[*partition][]replica) error {
	if len(removed) == 0 {
		return nil
	}
	ps := sortedKeys(removed, func(p *partition) bool { return p.known })
	err := r.shrink(ps, func(p *partition, id cluster.BrokerID) bool {
		return slices.ContainsFunc(removed[p], func(rep replica) bool { return rep.broker == id })
	})
	if err != nil {
		return err
	}
	for p, reps := range removed {
		for i := range reps {
			r.out.addStop(p, reps[i].broker, true)
		}
	}
	return nil
}

// onZKReassignment takes up /admin/reassign_partitions, the way of the tools before 2.4. Partitions that are already on their way to
// what it says are left alone, so it does not matter how often it is looked at.
func (r *reign) onZKReassignment() error {
	asked, found, err := zkcoord.ReadReassignment(r.s)
	if err != nil && errors.Is(err, zkcoord.ErrInvalid) {
		r.log.Error().Err(err).Str("znode", zkcoord.ReassignPartitionsPath).Msg("unreadable znode, ignored; repair or delete it")
		return nil
	}
	if err != nil || !found {
		return err
	}
	var moves []reassigned
	refused := map[cluster.TopicPartition]string{}
	for tp, target := range asked.Partitions {
		p := r.m.partition(tp)
		switch {
		case p == nil || p.topic.deleting():
			refused[tp] = "the partition does not exist"
		case len(target) == 0 || hasDuplicates(target):
			refused[tp] = "empty replica list or duplicates"
		default:
			to := p.assignment().reassignTo(target)
			if to.equal(p.assignment()) && to.reassigning() {
				continue
			}
			moves = append(moves, reassigned{p, to})
		}
	}
	slices.SortFunc(moves, func(a, b reassigned) int {
		if c := strings.Compare(a.p.topic.name, b.p.topic.name); c != 0 {
			return c
		}
		return int(a.p.number) - int(b.p.number)
	})
	if len(refused) > 0 {
		for tp, why := range refused {
			r.log.Warn().Str("topic", tp.Topic).Int32("partition", tp.Partition).Str("reason", why).Msg("reassignment by znode refused")
		}
		if err := r.trimZKReassignment(func(tp cluster.TopicPartition, _ []cluster.BrokerID) bool { return refused[tp] != "" }); err != nil {
			return err
		}
	}
	return r.startReassignments(moves)
}

// trimZKReassignment removes the partitions that pass from /admin/reassign_partitions, and the znode with the last of them.
func (r *reign) trimZKReassignment(done func(tp cluster.TopicPartition, replicas []cluster.BrokerID) bool) error {
	for range roundsMax {
		asked, found, err := zkcoord.ReadReassignment(r.s)
		if errors.Is(err, zkcoord.ErrInvalid) {
			return nil
		}
		if err != nil || !found {
			return err
		}
		before := len(asked.Partitions)
		for tp, replicas := range asked.Partitions {
			if done(tp, replicas) {
				delete(asked.Partitions, tp)
			}
		}
		if len(asked.Partitions) == before && before > 0 {
			return nil
		}
		op := zkcoord.SetOp(zkcoord.ReassignPartitionsPath, zkcoord.EncodeReassignment(asked.Partitions), asked.Version)
		if len(asked.Partitions) == 0 {
			op = zkcoord.DeleteOp(zkcoord.ReassignPartitionsPath, asked.Version)
		}
		_, err = zkcoord.Fenced(r.s, r.epochVersion, op)
		switch {
		case err == nil, errors.Is(err, zkcoord.ErrNoNode):
			return nil
		case errors.Is(err, zkcoord.ErrBadVersion), errors.Is(err, zkcoord.ErrConnectionLost):
		default:
			return fmt.Errorf("write %s: %w", zkcoord.ReassignPartitionsPath, err)
		}
	}
	return fmt.Errorf("write %s: given up", zkcoord.ReassignPartitionsPath)
}
