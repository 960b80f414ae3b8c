package controller

import (
	"fmt"
	"time"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// onTick does what is due.
func (r *reign) onTick() error {
	if len(r.m.fullDisks) > 0 { // a member with room may have come back, or a broker gone that lacked it
		if err := r.onFullDisks(); err != nil {
			return err
		}
	}
	if err := r.retryAwaited(); err != nil {
		return err
	}
	now := time.Now()
	if now.Before(r.nextRebalance) {
		return nil
	}
	r.nextRebalance = now.Add(config.LeaderImbalanceCheckIntervalSeconds.Of(r.config()))
	if !config.AutoLeaderRebalanceEnable.Of(r.config()) {
		return nil
	}
	ps := r.m.decideRebalance(config.LeaderImbalancePerBrokerPercentage.Of(r.config()))
	if len(ps) == 0 {
		return nil
	}
	r.log.Info().Int("partitions", len(ps)).Msg("moving leaders back to preferred replicas")
	_, err := r.elect(ps, electPreferred)
	return err
}

// retryAwaited elects leaders for partitions whose members were waited for long enough.
func (r *reign) retryAwaited() error {
	var ps []*partition
	for p := range r.m.recovering.since {
		switch {
		case r.m.partition(p.tp()) != p || p.topic.doomed() || r.m.phase(p) != phaseOffline:
			delete(r.m.recovering.since, p)
		case time.Since(r.m.recovering.since[p]) >= r.m.recovering.wait:
			ps = append(ps, p)
		}
	}
	sortPartitions(ps)
	_, err := r.elect(ps, electOffline)
	return err
}

// onZKPreferredElection takes up /admin/preferred_replica_election, the way of the tools before 2.4, and deletes it in any case.
func (r *reign) onZKPreferredElection() error {
	tps, found, err := zkcoord.ReadPreferredElection(r.s)
	switch {
	case err != nil && !found:
		return fmt.Errorf("read %s: %w", zkcoord.PreferredElectionPath, err)
	case !found:
		return nil
	case err != nil:
		r.log.Error().Err(err).Str("znode", zkcoord.PreferredElectionPath).Msg("unreadable znode, deleting it")
	}
	var ps []*partition
	for _, tp := range tps {
		p := r.m.partition(tp)
		if p != nil && !p.topic.deleting() && p.known && p.state.Leader != p.preferred() {
			ps = append(ps, p)
		}
	}
	if _, err := r.elect(ps, electPreferred); err != nil {
		return err
	}
	return r.deletePaths([]string{zkcoord.PreferredElectionPath})
}

// onUncleanElectionEnabled elects leaders where only an unclean election helps, after it was allowed for a topic, or ("") for all.
func (r *reign) onUncleanElectionEnabled(topic string) error {
	ps := r.m.selectPartitions(func(p *partition) bool {
		return (topic == "" || p.topic.name == topic) && !p.topic.doomed() && r.m.phase(p) == phaseOffline
	})
	_, err := r.elect(ps, electOffline)
	return err
}

// controlledShutdown moves everything away from a broker that is about to leave, and returns what it still leads.
func (r *reign) controlledShutdown(id cluster.BrokerID) ([]cluster.TopicPartition, error) {
	b := r.m.brokers[id]
	b.shuttingDown = true
	r.log.Info().Int32("broker", int32(id)).Msg("broker is shutting down, moving its leaders")

	concerns := func(p *partition) bool {
		return p.known && len(p.replicas) > 1 && !p.topic.doomed() && p.replica(id) != nil
	}
	var led, followed []*partition
	for _, p := range r.m.selectPartitions(concerns) {
		if p.state.Leader == id {
			led = append(led, p)
		} else {
			followed = append(followed, p)
		}
	}
	if _, err := r.elect(led, electShutdown); err != nil {
		return nil, err
	}
	r.flush()
	for _, p := range followed {
		r.out.addStop(p, id, false)
		r.out.addUpdate(p)
	}
	if err := r.shrink(followed, func(_ *partition, member cluster.BrokerID) bool { return member == id }); err != nil {
		return nil, err
	}
	var remaining []cluster.TopicPartition
	for _, p := range r.m.selectPartitions(concerns) {
		if p.state.Leader == id {
			remaining = append(remaining, p.tp())
		}
	}
	return remaining, nil
}
