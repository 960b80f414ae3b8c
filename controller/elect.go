package controller

import (
	"errors"
	"time"

	"ottla/zkcoord"
)

// onSession starts over in a new session: watch /controller, then stand for election.
func (c *Controller) onSession(s zkcoord.Session) {
	c.endReign("new session", false)
	if c.cancelWatch != nil {
		c.cancelWatch()
		c.cancelWatch = nil
	}
	if c.session() != s {
		return // already over; the next one has its own event
	}
	cancel, err := s.WatchData(zkcoord.ControllerPath, func() {
		c.queue.put(event{name: "controllerChange", key: "controllerChange", run: c.onControllerChange})
	})
	if err != nil {
		c.log.Warn().Err(err).Str("znode", zkcoord.ControllerPath).Msg("could not watch, the watchdog stands in")
	} else {
		c.cancelWatch = cancel
	}
	c.onControllerChange()
}

// onControllerChange compares /controller with what this broker is, and acts on the difference: stand for election when there is
// no controller, resign when there is another one, give up or take over a znode that names this broker without its acting.
func (c *Controller) onControllerChange() {
	s := c.session()
	if s == nil || !c.options.Eligible || c.closing {
		return
	}
	node, found, err := zkcoord.ReadController(s)
	if err != nil {
		if !errors.Is(err, zkcoord.ErrSessionLost) {
			c.log.Warn().Err(err).Str("znode", zkcoord.ControllerPath).Msg("could not read, the watchdog tries again")
		}
		return
	}
	ours := found && node.BrokerID == c.options.BrokerID && node.EphemeralOwner == s.ID()
	r := c.currentReign()
	switch {
	case r != nil && ours:
		return
	case r != nil:
		c.endReign("another controller", false)
		c.onControllerChange()
	case !found || ours:
		c.stand(s)
	case node.BrokerID == c.options.BrokerID:
		c.removeStale(s, node)
	}
}

// stand stands for election, and takes over when it is won. The election is also won when /controller belongs to this session
// already: somebody must act for it (KAFKA-13407).
func (c *Controller) stand(s zkcoord.Session) {
	e, err := zkcoord.Elect(s, c.options.BrokerID)
	if err != nil {
		if !errors.Is(err, zkcoord.ErrSessionLost) {
			c.log.Warn().Err(err).Msg("election failed, the watchdog tries again")
		}
		return
	}
	if !e.Won {
		c.log.Info().Int32("broker", int32(e.Current.BrokerID)).Msg("another broker is the controller")
		return
	}
	c.takeOver(c.newReign(s, e))
}

func (c *Controller) takeOver(r *reign) {
	c.mu.Lock()
	if c.mu.session != r.s {
		c.mu.Unlock()
		r.cancel()
		return
	}
	c.mu.reign = r
	c.mu.Unlock()

	r.log.Info().Msg("elected controller, taking over")
	start := time.Now()
	if err := r.failover(); err != nil {
		if over(err) {
			r.log.Info().Err(err).Msg("not the controller any more")
			c.endReign("fenced", false)
			return
		}
		r.log.Error().Err(err).Msg("taking over failed, resigning; check the znode that the error names")
		c.endReign("failover failed", true)
		return
	}
	c.mu.Lock()
	current := c.mu.reign == r
	if current {
		c.active.Store(true)
	}
	c.mu.Unlock()
	if !current {
		return
	}
	c.metrics.activeControllerCount.Set(1)
	r.nextRebalance = time.Now().Add(rebalanceDelay)
	r.refreshGauges()
	r.log.Info().Int("brokers", len(r.m.brokers)).Int("topics", len(r.m.topics)).
		Dur("dur_ms", time.Since(start)).Msg("controller is active")
}

// removeStale deletes a /controller that an earlier session of this broker left behind: this broker is registered in the session
// at hand, so nobody acts for that znode.
func (c *Controller) removeStale(s zkcoord.Session, node zkcoord.ControllerNode) {
	if node.EphemeralOwner == 0 {
		return // a KRaft controller's
	}
	if err := zkcoord.RemoveController(s, node); err != nil {
		c.log.Warn().Err(err).Msg("could not remove the controller node of this broker's last session; it goes with that session")
		return
	}
	c.log.Info().Int64("session", node.EphemeralOwner).Msg("removed the controller node of this broker's last session")
}

// onTick is the loop's clock.
func (c *Controller) onTick() {
	now := time.Now()
	if now.After(c.nextWatchdog) {
		c.nextWatchdog = now.Add(watchdogInterval)
		c.onControllerChange()
	}
	r := c.currentReign()
	if r == nil || !c.Active() {
		return
	}
	r.run("tick", r.onTick)
}
