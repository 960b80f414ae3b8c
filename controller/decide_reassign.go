package controller

import (
	"fmt"
	"slices"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// assignment is the replicas of a partition, and how they are changing. While a reassignment runs, replicas is the union of the
// target and the original ones, target first. Source: KIP-455.
type assignment struct {
	replicas, adding, removing []cluster.BrokerID
}

func assignmentOf(node zkcoord.TopicNode, number int32) assignment {
	return assignment{replicas: node.Partitions[number], adding: node.Adding[number], removing: node.Removing[number]}
}

// origin is what the replicas were before the reassignment.
func (a assignment) origin() []cluster.BrokerID { return without(a.replicas, a.adding) }

// target is what the replicas will be.
func (a assignment) target() []cluster.BrokerID { return without(a.replicas, a.removing) }

func (p *partition) targets() []cluster.BrokerID { return p.assignment().target() }

func (a assignment) reassigning() bool { return len(a.adding) > 0 || len(a.removing) > 0 }

// reassignTo starts a reassignment, or replaces the one that runs: the origin stays the same.
func (a assignment) reassignTo(target []cluster.BrokerID) assignment {
	origin := a.origin()
	return assignment{
		replicas: slices.Concat(target, without(origin, target)),
		adding:   without(target, origin),
		removing: without(origin, target),
	}
}

// completed is the assignment at the end of the reassignment.
func (a assignment) completed() assignment { return assignment{replicas: a.target()} }

func (a assignment) equal(b assignment) bool {
	return slices.Equal(a.replicas, b.replicas) && slices.Equal(a.adding, b.adding) && slices.Equal(a.removing, b.removing)
}

// caughtUp reports whether the reassignment can be completed: every target replica is in the ISR.
func (a assignment) caughtUp(isr []cluster.BrokerID) bool {
	return !a.reassigning() || subset(a.target(), isr)
}

// checkTarget says what is wrong with a replica list that a request asks for; "" when nothing is. Words as in Kafka 3.9.
func (m *model) checkTarget(current assignment, target []cluster.BrokerID) string {
	switch {
	case len(target) == 0:
		return "Empty replica list specified in partition reassignment."
	case hasDuplicates(target):
		return fmt.Sprintf("Duplicate replica ids in partition reassignment replica list: %s", scalaSeq(target))
	case slices.ContainsFunc(target, func(id cluster.BrokerID) bool { return id < 0 }):
		return fmt.Sprintf("Invalid broker id in replica list: %s", scalaSeq(target))
	}
	adding := current.reassignTo(target).adding
	if slices.ContainsFunc(adding, func(id cluster.BrokerID) bool { return !m.live(id) }) {
		return fmt.Sprintf("Replica assignment has brokers that are not alive. Replica list: %s, live broker list: %s",
			scalaSeq(adding), scalaSet(m.liveIDs()))
	}
	return ""
}

func hasDuplicates(ids []cluster.BrokerID) bool {
	for i, id := range ids {
		if slices.Contains(ids[:i], id) {
			return true
		}
	}
	return false
}
