package broker

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// After an unclean stop a broker may have lost records that it had acknowledged as a follower. A controller that never saw it
// gone would still count it in sync, and could elect it. So it registers only once it is out of every in-sync set in ZooKeeper,
// except those in which nobody else is alive: there it is the best that is left. It joins the sets again by fetching.
// Kafka detects such a bounce in the controller's memory only, and misses it when the controller fails over meanwhile.

// isrPoll is how often the sets are looked at.
const isrPoll = 100 * time.Millisecond

// awaitOutOfISRs waits until no controller counts this broker in sync any more. It gives up after a while, loudly: a cluster
// without a controller would otherwise keep the broker out for ever.
func (b *Broker) awaitOutOfISRs(ctx context.Context, session zkcoord.Session) error {
	limit := 2*config.ZookeeperSessionTimeoutMs.Of(b.config.Load()) + 10*time.Second
	deadline := time.Now().Add(limit)
	for told := false; ; {
		held, err := b.heldInISRs(session)
		switch {
		case err != nil && errors.Is(err, zkcoord.ErrSessionLost):
			return err
		case err != nil:
			b.log.Warn().Err(err).Msg("the in-sync sets cannot be read yet")
		case len(held) == 0:
			return nil
		case time.Now().After(deadline):
			b.log.Error().Int("partitions", len(held)).Stringer("first", held[0]).
				Msg("the last stop was unclean and no controller has taken this broker out of the in-sync sets; registering all the same")
			return nil
		case !told:
			told = true
			b.log.Warn().Int("partitions", len(held)).Dur("at_most", limit).
				Msg("the last stop was unclean: waiting until the controller has taken this broker out of the in-sync sets")
		}
		if err := sleep(ctx, isrPoll); err != nil {
			return err
		}
	}
}

// heldInISRs lists the partitions whose in-sync set names this broker beside another one that is alive and did not itself come back
// after an unclean stop.
func (b *Broker) heldInISRs(session zkcoord.Session) ([]cluster.TopicPartition, error) {
	brokers, err := zkcoord.Brokers(session)
	if err != nil {
		return nil, err
	}
	alive := map[cluster.BrokerID]bool{}
	for _, other := range brokers {
		alive[other.ID] = other.ID != b.id
	}
	others := slices.Collect(maps.Keys(alive))
	recovered, err := zkcoord.Recovered(session, others)
	if err != nil {
		return nil, err
	}
	states, err := b.assignedStates(session)
	if err != nil {
		return nil, err
	}
	var held []cluster.TopicPartition
	for tp, st := range states {
		vouches := func(id cluster.BrokerID) bool {
			end, unclean := recovered[id][tp] // then it waits to be compared with this one
			return alive[id] && !(unclean && end.Stands(st.State))
		}
		if slices.Contains(st.State.ISR, b.id) && slices.ContainsFunc(st.State.ISR, vouches) {
			held = append(held, tp)
		}
	}
	return held, nil
}

// assignedStates reads the states of the partitions that are assigned to this broker.
func (b *Broker) assignedStates(session zkcoord.Session) (map[cluster.TopicPartition]zkcoord.StateAndVersion, error) {
	topics, err := zkcoord.Topics(session)
	if err != nil {
		return nil, err
	}
	var assigned []cluster.TopicPartition
	for topic, node := range topics {
		for number, replicas := range node.Partitions {
			if slices.Contains(replicas, b.id) {
				assigned = append(assigned, cluster.TopicPartition{Topic: topic, Partition: number})
			}
		}
	}
	return zkcoord.States(session, assigned)
}

// awaitRegistrationGone waits out the registration that a killed process of this broker has left behind.
func (s *sessions) awaitRegistrationGone(ctx context.Context, session zkcoord.Session, r zkcoord.Registration) error {
	w := s.patience(r)
	for {
		data, stat, err := session.Get(zkcoord.BrokerPath(s.b.id))
		switch {
		case errors.Is(err, zkcoord.ErrNoNode):
			return nil
		case err != nil:
			return err
		}
		there, err := zkcoord.DecodeRegistration(data)
		if err != nil {
			return err
		}
		if err := w.judge(&zkcoord.ErrBrokerIDTaken{ID: s.b.id, Owner: stat.EphemeralOwner, Registration: there}); err != nil {
			return err
		}
		if err := sleep(ctx, isrPoll); err != nil {
			return err
		}
	}
}
