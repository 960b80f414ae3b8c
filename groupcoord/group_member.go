package groupcoord

import (
	"github.com/twmb/franz-go/pkg/kerr"
)

// heartbeat takes a sign of life; the error tells the member to join again, or that it is no member.
func (g *group) heartbeat(d *decision, memberID string, instance *string, generation int32) error {
	if g.state == Dead {
		return kerr.CoordinatorNotAvailable
	}
	if err := g.checkGeneration(memberID, instance, generation); err != nil {
		return err
	}
	switch g.state {
	case Empty:
		return kerr.UnknownMemberID
	case PreparingRebalance:
		g.members[memberID].heard(d.now)
		return kerr.RebalanceInProgress
	}
	g.members[memberID].heard(d.now)
	return nil
}

// leave removes one member. An empty member id with an instance is an operator's removal of a static member.
func (g *group) leave(d *decision, memberID string, instance *string) error {
	if memberID == "" {
		if instance == nil {
			return kerr.UnknownMemberID
		}
		current, ok := g.statics[*instance]
		if !ok {
			return kerr.UnknownMemberID
		}
		d.note("static member was removed", current)
		g.expel(d, g.members[current])
		return nil
	}
	if _, ok := g.pending[memberID]; ok {
		d.note("pending member left", memberID)
		g.removePending(d, memberID)
		return nil
	}
	if err := g.check(memberID, instance); err != nil {
		return err
	}
	d.note("member left", memberID)
	g.expel(d, g.members[memberID])
	return nil
}

// commit judges an OffsetCommit; it counts as a heartbeat. Transactional ones of older clients name no member.
func (g *group) commit(d *decision, memberID string, instance *string, generation int32, transactional bool) error {
	switch {
	case g.state == Dead:
		return kerr.CoordinatorNotAvailable
	case generation < 0 && g.state == Empty:
		return nil // an administrator, or a consumer that uses the group only for its offsets
	case generation >= 0 || memberID != "" || instance != nil:
		if err := g.checkGeneration(memberID, instance, generation); err != nil {
			return err
		}
	case !transactional:
		return kerr.UnknownMemberID
	default:
		return nil
	}
	switch {
	case transactional: // in any state, and no sign of life: the producer commits, not the member
	case g.state == CompletingRebalance:
		return kerr.RebalanceInProgress
	case g.state == Stable, g.state == PreparingRebalance:
		g.members[memberID].heard(d.now)
	}
	return nil
}
