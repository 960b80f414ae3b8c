package controller

import (
	"errors"
	"fmt"
	"slices"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// roundsMax bounds how often a change is decided again because somebody else wrote meanwhile. Only the leader of a partition could
// (through a broker older than inter.broker.protocol.version 2.7), so the bound is never near.
const roundsMax = 100

// change is the outcome for one partition of updateStates or createStates.
type change struct {
	p        *partition
	decision decision
	written  bool
	err      error
}

// updateStates reads the states of partitions, decides, and writes conditionally on what was read, again and again until every
// write has met the version that it was decided on. The model takes what was read and what was written. The error is one that ends
// the event; what became of single partitions is in the changes, in the order of ps.
func (r *reign) updateStates(ps []*partition, decide func(p *partition) (decision, error)) ([]change, error) {
	changes := make([]change, len(ps))
	todo := make([]*change, len(ps))
	for i, p := range ps {
		changes[i].p = p
		todo[i] = &changes[i]
	}
	unsure := map[*change]bool{} // written, but the answer was lost
	for round := 0; len(todo) > 0; round++ {
		if round == roundsMax {
			return changes, fmt.Errorf("write state of %s: %w after %d attempts", todo[0].p.tp(), zkcoord.ErrBadVersion, round)
		}
		if err := r.readStates(todo, unsure); err != nil {
			return changes, err
		}
		todo = r.decideStates(todo, unsure, decide)
		again, err := r.writeStates(todo, unsure)
		if err != nil {
			return changes, err
		}
		todo = again
	}
	return changes, nil
}

// readStates refreshes the model for the changes that are to be decided. A change whose write got no answer, and whose state now is
// what was to be written, is done.
func (r *reign) readStates(todo []*change, unsure map[*change]bool) error {
	tps := make([]cluster.TopicPartition, len(todo))
	for i, c := range todo {
		tps[i] = c.p.tp()
	}
	states, err := zkcoord.States(r.s, tps)
	if err = r.tolerateBadNodes(err); err != nil {
		return fmt.Errorf("read partition states: %w", err)
	}
	for i, c := range todo {
		got, found := states[tps[i]]
		if !found {
			c.err = errNoState
			continue
		}
		c.err = nil
		c.p.known, c.p.version = true, got.Version
		if unsure[c] && sameState(got.State, c.decision.state) {
			c.p.state, c.written = got.State, true
			continue
		}
		delete(unsure, c)
		c.p.state = got.State
	}
	return nil
}

// decideStates returns the changes that need a write.
func (r *reign) decideStates(todo []*change, unsure map[*change]bool, decide func(*partition) (decision, error)) []*change {
	var write []*change
	for _, c := range todo {
		if c.err != nil || unsure[c] {
			continue
		}
		if c.decision, c.err = decide(c.p); c.err == nil {
			write = append(write, c)
		}
	}
	return write
}

// writeStates writes decisions and returns those whose outcome must be looked at again.
func (r *reign) writeStates(todo []*change, unsure map[*change]bool) ([]*change, error) {
	if len(todo) == 0 {
		return nil, nil
	}
	units := make([][]zkcoord.Op, len(todo))
	for i, c := range todo {
		units[i] = []zkcoord.Op{zkcoord.SetOp(zkcoord.StatePath(c.p.tp()), zkcoord.EncodeState(c.decision.state), int32(c.p.version))}
	}
	results, err := zkcoord.WriteFenced(r.s, r.epochVersion, units)
	if err != nil {
		return nil, fmt.Errorf("write partition states: %w", err)
	}
	var again []*change
	for i, c := range todo {
		switch err := results[i].Err; {
		case err == nil:
			c.p.state, c.p.version, c.written = c.decision.state, c.p.version+1, true
		case errors.Is(err, zkcoord.ErrConnectionLost):
			unsure[c] = true
			again = append(again, c)
		case errors.Is(err, zkcoord.ErrBadVersion):
			again = append(again, c)
		case errors.Is(err, zkcoord.ErrNoNode):
			c.err = errNoState
		default:
			c.err = err
		}
	}
	return again, nil
}

// sameState reports whether two states are the same to the byte of their meaning, ISR order included.
func sameState(a, b zkcoord.PartitionState) bool {
	return a.Leader == b.Leader && a.LeaderEpoch == b.LeaderEpoch && a.ControllerEpoch == b.ControllerEpoch &&
		a.Recovery == b.Recovery && slices.Equal(a.ISR, b.ISR)
}

// createStates gives new partitions their first state. Partitions without an online replica stay new (errNoCandidate). A state that
// exists already, of an earlier attempt, is taken as it is.
func (r *reign) createStates(ps []*partition) ([]change, error) {
	changes := make([]change, 0, len(ps))
	var todo []*change
	for _, p := range ps {
		d, err := r.m.decideFirst(p)
		changes = append(changes, change{p: p, decision: d, err: err})
	}
	for i := range changes {
		if changes[i].err == nil {
			todo = append(todo, &changes[i])
		}
	}
	if err := r.createContainers(todo); err != nil {
		return changes, err
	}
	for round := 0; len(todo) > 0; round++ {
		if round == roundsMax {
			return changes, fmt.Errorf("create state of %s: given up after %d attempts", todo[0].p.tp(), round)
		}
		again, err := r.createRound(todo, round > 0)
		if err != nil {
			return changes, err
		}
		todo = again
	}
	return changes, nil
}

// createContainers creates the znodes "partitions" of the topics that get their first partition.
func (r *reign) createContainers(todo []*change) error {
	topics := map[*topic]struct{}{}
	var units [][]zkcoord.Op
	for _, c := range todo {
		t := c.p.topic
		if _, seen := topics[t]; seen || t.hasState() {
			continue
		}
		topics[t] = struct{}{}
		units = append(units, []zkcoord.Op{zkcoord.CreateOp(zkcoord.PartitionsPath(t.name), nil, zkcoord.Persistent)})
	}
	if len(units) == 0 {
		return nil
	}
	results, err := zkcoord.WriteFenced(r.s, r.epochVersion, units)
	if err != nil {
		return fmt.Errorf("create partition containers: %w", err)
	}
	for i, res := range results {
		// A lost answer shows in the next step: without the container nothing can be created below it.
		if res.Err != nil && !errors.Is(res.Err, zkcoord.ErrNodeExists) && !errors.Is(res.Err, zkcoord.ErrConnectionLost) {
			r.log.Error().Err(res.Err).Str("znode", units[i][0].Path).Msg("could not create")
		}
	}
	return nil
}

func (t *topic) hasState() bool {
	for p := range t.each() {
		if p.known {
			return true
		}
	}
	return false
}

// createRound creates the states, each together with its parent. In a repeated round the parent may be there already.
func (r *reign) createRound(todo []*change, repeated bool) ([]*change, error) {
	if repeated {
		left, err := r.adoptExisting(todo)
		if err != nil || len(left) == 0 {
			return nil, err
		}
		todo = left
	}
	var parents map[*change]bool
	if repeated {
		parents = r.existingParents(todo)
	}
	units := make([][]zkcoord.Op, len(todo))
	for i, c := range todo {
		tp := c.p.tp()
		if !parents[c] {
			units[i] = append(units[i], zkcoord.CreateOp(zkcoord.PartitionPath(tp), nil, zkcoord.Persistent))
		}
		units[i] = append(units[i], zkcoord.CreateOp(zkcoord.StatePath(tp), zkcoord.EncodeState(c.decision.state), zkcoord.Persistent))
	}
	results, err := zkcoord.WriteFenced(r.s, r.epochVersion, units)
	if err != nil {
		return nil, fmt.Errorf("create partition states: %w", err)
	}
	var again []*change
	for i, c := range todo {
		switch err := results[i].Err; {
		case err == nil:
			c.p.known, c.p.state, c.p.version = true, c.decision.state, 0
		case errors.Is(err, zkcoord.ErrNodeExists) && parents[c]:
			c.err = errUnreadable // it was not taken over a moment ago
		case errors.Is(err, zkcoord.ErrConnectionLost), errors.Is(err, zkcoord.ErrNodeExists):
			again = append(again, c)
		default:
			c.err = err
		}
	}
	return again, nil
}

// adoptExisting takes the states that exist into the model and returns the changes that are left.
func (r *reign) adoptExisting(todo []*change) ([]*change, error) {
	tps := make([]cluster.TopicPartition, len(todo))
	for i, c := range todo {
		tps[i] = c.p.tp()
	}
	states, err := zkcoord.States(r.s, tps)
	if err = r.tolerateBadNodes(err); err != nil {
		return nil, fmt.Errorf("read partition states: %w", err)
	}
	var left []*change
	for i, c := range todo {
		got, found := states[tps[i]]
		if !found {
			left = append(left, c)
			continue
		}
		c.p.known, c.p.state, c.p.version = true, got.State, got.Version
	}
	return left, nil
}

func (r *reign) existingParents(todo []*change) map[*change]bool {
	paths := make([]string, len(todo))
	for i, c := range todo {
		paths[i] = zkcoord.PartitionPath(c.p.tp())
	}
	parents := map[*change]bool{}
	for i, got := range r.s.GetMany(paths) {
		parents[todo[i]] = got.Err == nil
	}
	return parents
}

// tolerateBadNodes logs unreadable znodes and goes on without them: one of them must not stop the controller.
func (r *reign) tolerateBadNodes(err error) error {
	var bad *zkcoord.BadNodesError
	if !errors.As(err, &bad) {
		return err
	}
	for _, n := range bad.Nodes {
		r.log.Error().Err(n.Err).Str("znode", n.Path).Msg("unreadable znode, going on without it; repair or delete it")
	}
	return nil
}
