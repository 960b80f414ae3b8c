package groupcoord

import (
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"
)

// Join takes a JoinGroup. The reply comes at once or when the rebalance ends.
func (c *Coordinator) Join(r *Join, reply JoinReply) {
	s, err := c.usableNamed(r.Group)
	if err != nil {
		reply(joinFailed(r.MemberID, err))
		return
	}
	if r.SessionTimeout < c.o.Limits.SessionTimeoutMin || r.SessionTimeout > c.o.Limits.SessionTimeoutMax {
		reply(joinFailed(r.MemberID, kerr.InvalidSessionTimeout))
		return
	}
	e := s.get(r.Group)
	if e == nil && r.MemberID != "" {
		reply(joinFailed(r.MemberID, kerr.UnknownMemberID))
		return
	}
	if e == nil {
		e = s.getOrAdd(r.Group)
	}
	if e == nil {
		reply(joinFailed(r.MemberID, kerr.NotCoordinator))
		return
	}
	e.decide(func(d *decision, g *group) { g.join(d, r, reply) })
}

// Sync takes a SyncGroup. The reply comes when the leader's assignment is committed to the log.
func (c *Coordinator) Sync(r *Sync, reply SyncReply) {
	s, err := c.usableNamed(r.Group)
	switch {
	case errors.Is(err, kerr.CoordinatorLoadInProgress):
		// The rebalance did not survive the change of coordinator: begin again, here.
		reply(syncFailed(kerr.RebalanceInProgress))
		return
	case err != nil:
		reply(syncFailed(err))
		return
	}
	e := s.get(r.Group)
	if e == nil {
		reply(syncFailed(kerr.UnknownMemberID))
		return
	}
	e.decide(func(d *decision, g *group) { g.sync(d, r, reply) })
}

// Heartbeat takes a member's sign of life.
func (c *Coordinator) Heartbeat(id, memberID string, instance *string, generation int32) error {
	s, err := c.usableNamed(id)
	if errors.Is(err, kerr.CoordinatorLoadInProgress) {
		return nil // nobody's session expires while groups are loaded
	}
	if err != nil {
		return err
	}
	e := s.get(id)
	if e == nil {
		return kerr.UnknownMemberID
	}
	// The usual case of all: no answers, no records, and the deadline only moves back.
	d := decision{now: c.now()}
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.mu.group.heartbeat(&d, memberID, instance, generation)
}

// Leaving names a member that leaves. An empty MemberID with an Instance is an operator's removal.
type Leaving struct {
	MemberID string
	Instance *string
}

// Leave removes members. It returns one error for all, or one for each.
func (c *Coordinator) Leave(id string, leaving []Leaving) ([]error, error) {
	s, err := c.usableNamed(id)
	if err != nil {
		return nil, err
	}
	each := make([]error, len(leaving))
	e := s.get(id)
	if e == nil {
		for i := range each {
			each[i] = kerr.UnknownMemberID
		}
		return each, nil
	}
	e.decide(func(d *decision, g *group) {
		if g.state == Dead {
			err = kerr.CoordinatorNotAvailable
			return
		}
		for i, l := range leaving {
			each[i] = g.leave(d, l.MemberID, l.Instance)
		}
	})
	return each, err
}
