package controller

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/internal/parallel"
	"ottla/zkcoord"
)

// rebalanceDelay is the time from a failover to the first look at leaders that are not the preferred ones.
const rebalanceDelay = 5 * time.Second

// failover builds the model from ZooKeeper and brings the cluster in line with it. Partitions without a leader come first: the rest
// only repeats what brokers know already, unless they missed it.
func (r *reign) failover() error {
	if err := zkcoord.EnsureFeatures(r.s); err != nil {
		return fmt.Errorf("write %s: %w", zkcoord.FeaturePath, err)
	}
	if err := r.watchContainers(); err != nil {
		return err
	}
	if err := r.dropNotifications(); err != nil {
		return err
	}
	if err := r.load(); err != nil {
		return err
	}
	deletions, err := r.loadDeletions()
	if err != nil {
		return err
	}
	for _, id := range r.m.registeredIDs() {
		r.addSender(r.m.brokers[id].Broker)
	}
	r.out.updateAll = true
	r.flush()

	if err := r.dropBounced(); err != nil {
		return err
	}
	if err := r.electLeaderless(); err != nil {
		return err
	}
	r.flush()
	if err := r.shrinkUnreachable(r.m.selectPartitions(func(p *partition) bool { return p.known && !p.topic.doomed() })); err != nil {
		return err
	}
	r.announceEverything()
	r.flush()

	if err := r.onZKReassignment(); err != nil {
		return err
	}
	if err := r.resumeReassignments(func(*partition) bool { return true }); err != nil {
		return err
	}
	if deletions > 0 {
		if err := r.resumeDeletions(); err != nil {
			return err
		}
	}
	return r.onZKPreferredElection()
}

// watchContainers sets the watches that do not depend on what is there.
func (r *reign) watchContainers() error {
	children := []struct {
		path, name string
		run        func() error
	}{
		{zkcoord.BrokerIDsPath, "brokerChange", r.onBrokerChange},
		{zkcoord.BrokerTopicsPath, "topicChange", r.onTopicChange},
		{zkcoord.DeleteTopicsPath, "topicDeletion", r.onTopicDeletion},
		{zkcoord.ISRChangesPath, "isrChangeNotification", r.onISRChanges},
		{zkcoord.LogDirEventsPath, "logDirEventNotification", r.onLogDirEvents},
	}
	for _, w := range children {
		cancel, err := r.s.WatchChildren(w.path, func() { r.post(w.name, w.name, w.run) })
		if err != nil {
			return fmt.Errorf("watch %s: %w", w.path, err)
		}
		r.m.cancels = append(r.m.cancels, cancel)
	}
	nodes := []struct {
		path, name string
		run        func() error
	}{
		{zkcoord.ReassignPartitionsPath, "zkPartitionReassignment", r.onZKReassignment},
		{zkcoord.PreferredElectionPath, "zkPreferredElection", r.onZKPreferredElection},
		{zkcoord.FullDisksPath, "fullDisks", r.onFullDisks},
	}
	for _, w := range nodes {
		cancel, err := r.s.WatchData(w.path, func() { r.post(w.name, w.name, w.run) })
		if err != nil {
			return fmt.Errorf("watch %s: %w", w.path, err)
		}
		r.m.cancels = append(r.m.cancels, cancel)
	}
	return nil
}

// dropNotifications deletes notifications that came before this reign: the full read that follows covers them.
func (r *reign) dropNotifications() error {
	isr, err := zkcoord.ISRChanges(r.s)
	if err = r.tolerateBadNodes(err); err != nil {
		return fmt.Errorf("read %s: %w", zkcoord.ISRChangesPath, err)
	}
	logDirs, err := zkcoord.LogDirEvents(r.s)
	if err = r.tolerateBadNodes(err); err != nil {
		return fmt.Errorf("read %s: %w", zkcoord.LogDirEventsPath, err)
	}
	var paths []string
	for _, n := range isr {
		paths = append(paths, n.Path)
	}
	for _, n := range logDirs {
		paths = append(paths, n.Path)
	}
	return r.deletePaths(paths)
}

// deletePaths deletes znodes under the fence; those that are gone already do not matter.
func (r *reign) deletePaths(paths []string) error {
	for len(paths) > 0 {
		units := make([][]zkcoord.Op, len(paths))
		for i, path := range paths {
			units[i] = []zkcoord.Op{zkcoord.DeleteOp(path, zkcoord.AnyVersion)}
		}
		results, err := zkcoord.WriteFenced(r.s, r.epochVersion, units)
		if err != nil {
			return err
		}
		var again []string
		for i, res := range results {
			if errors.Is(res.Err, zkcoord.ErrConnectionLost) {
				again = append(again, paths[i])
			}
		}
		paths = again
	}
	return nil
}

// load reads brokers, topics and partition states.
func (r *reign) load() error {
	brokers, err := r.readBrokers()
	if err != nil {
		return err
	}
	for _, b := range brokers {
		r.m.brokers[b.ID] = &broker{Broker: b}
		r.watchBroker(b.ID)
	}
	if err := r.learnRecovered(brokers); err != nil {
		return err
	}
	if r.m.fullDisks, err = zkcoord.FullDisks(r.s); err != nil {
		return fmt.Errorf("read %s: %w", zkcoord.FullDisksPath, err)
	}
	names, err := zkcoord.TopicNames(r.s)
	if err != nil {
		return fmt.Errorf("list topics: %w", err)
	}
	topics, err := r.takeTopics(names)
	if err != nil {
		return err
	}
	var tps []cluster.TopicPartition
	for _, t := range topics {
		for p := range t.each() {
			tps = append(tps, p.tp())
		}
	}
	states, err := zkcoord.States(r.s, tps)
	if err = r.tolerateBadNodes(err); err != nil {
		return fmt.Errorf("read partition states: %w", err)
	}
	for tp, got := range states {
		p := r.m.partition(tp)
		p.known, p.state, p.version, p.written = true, got.State, got.Version, got.Zxid
	}
	return nil
}

// dropBounced takes brokers out of ISRs that registered anew while no controller was looking: one that sees a broker go and come
// does the same. A registration's epoch is the zxid of its making, so it tells whether the state is older.
func (r *reign) dropBounced() error {
	bounced := func(p *partition, id cluster.BrokerID) bool {
		b := r.m.brokers[id]
		return b != nil && int64(b.Epoch) > p.written
	}
	ps := r.m.selectPartitions(func(p *partition) bool {
		return p.known && !p.topic.doomed() && len(p.state.ISR) > 1 &&
			slices.ContainsFunc(p.state.ISR, func(id cluster.BrokerID) bool { return bounced(p, id) })
	})
	if len(ps) == 0 {
		return nil
	}
	changes, err := r.updateStates(ps, func(p *partition) (decision, error) {
		return r.m.decideBounced(p, p.state, func(id cluster.BrokerID) bool { return bounced(p, id) })
	})
	dropped := 0
	for i := range changes {
		if c := &changes[i]; c.written {
			dropped++
			r.out.addLeaderAndISR(c.p, c.decision.recipients, false)
		}
	}
	r.log.Warn().Int("partitions", len(ps)).Int("changed", dropped).
		Msg("members of in-sync sets registered anew while there was no controller; they have to catch up first")
	return err
}

func (r *reign) readBrokers() ([]cluster.Broker, error) {
	brokers, err := zkcoord.Brokers(r.s)
	if err = r.tolerateBadNodes(err); err != nil {
		return nil, fmt.Errorf("read brokers: %w", err)
	}
	return brokers, nil
}

// watchBroker watches a broker's registration for changed end points.
func (r *reign) watchBroker(id cluster.BrokerID) {
	path := zkcoord.BrokerPath(id)
	cancel, err := r.s.WatchData(path, func() { r.post("brokerChange", "brokerChange", r.onBrokerChange) })
	if err != nil {
		r.log.Warn().Err(err).Str("znode", path).Msg("could not watch")
		return
	}
	r.m.brokers[id].cancelWatch = cancel
}

// watchersInFlight is how many topic watches are armed at the same time: each is a round trip.
const watchersInFlight = 64

// takeTopics watches and reads topics and adds them to the model, with ids for those that have none. The result is ordered by name.
func (r *reign) takeTopics(names []string) ([]*topic, error) {
	cancels := r.watchTopics(names)
	nodes, err := zkcoord.ReadTopics(r.s, names)
	if err = r.tolerateBadNodes(err); err != nil {
		return nil, fmt.Errorf("read topics: %w", err)
	}
	var topics, unnamed []*topic
	for i, name := range names {
		node, found := nodes[name]
		if !found {
			if cancels[i] != nil {
				cancels[i]()
			}
			continue
		}
		t := r.m.addTopic(name, node)
		t.cancelWatch = cancels[i]
		topics = append(topics, t)
		if t.id.IsZero() {
			unnamed = append(unnamed, t)
		}
	}
	slices.SortFunc(topics, func(a, b *topic) int {
		if a.name < b.name {
			return -1
		}
		return 1
	})
	return topics, r.nameTopics(unnamed)
}

// nameTopics gives topics that were created without an id (by tools older than 2.8) one.
func (r *reign) nameTopics(topics []*topic) error {
	for _, t := range topics {
		t.id = cluster.NewTopicID()
		r.m.names[t.id] = t.name
	}
	return r.writeTopics(topics)
}

func (r *reign) watchTopics(names []string) []func() {
	cancels := make([]func(), len(names))
	parallel.For(len(names), watchersInFlight, func(i int) { cancels[i] = r.watchTopic(names[i]) })
	return cancels
}

func (r *reign) watchTopic(name string) func() {
	cancel, err := r.s.WatchData(zkcoord.TopicPath(name), func() {
		r.mu.Lock()
		r.mu.modified[name] = struct{}{}
		r.mu.Unlock()
		r.post("partitionModifications", "partitionModifications", r.onTopicsModified)
	})
	switch {
	case err == nil:
		return cancel
	case !over(err): // the read that follows fails, too
		r.log.Warn().Err(err).Str("topic", name).Msg("could not watch the topic")
	}
	return nil
}

// announceEverything tells every broker of all it hosts, and of all metadata.
func (r *reign) announceEverything() {
	for p := range r.m.eachPartition() {
		r.out.addUpdate(p)
		if !p.known || p.topic.doomed() {
			continue // new, or its replicas are about to be deleted, or are already
		}
		for i := range p.replicas {
			if rep := &p.replicas[i]; r.m.reachable(rep) {
				addSticky(r.out.leaderAndISR, rep.broker, p, false)
			}
		}
	}
}

// electLeaderless elects leaders for all partitions that have none that works, and gives new ones their first state.
func (r *reign) electLeaderless() error {
	fresh := r.m.selectPartitions(func(p *partition) bool { return !p.topic.doomed() && r.m.phase(p) == phaseNew })
	if err := r.startPartitions(fresh); err != nil {
		return err
	}
	offline := r.m.selectPartitions(func(p *partition) bool { return !p.topic.doomed() && r.m.phase(p) == phaseOffline })
	_, err := r.elect(offline, electOffline)
	return err
}

// startPartitions creates the states of new partitions and tells their replicas. Those without an online replica stay new.
func (r *reign) startPartitions(ps []*partition) error {
	if len(ps) == 0 {
		return nil
	}
	changes, err := r.createStates(ps)
	started, waiting := 0, 0
	for _, c := range changes {
		switch {
		case c.p.known:
			r.out.addLeaderAndISR(c.p, r.m.onlineIDs(c.p), true)
			started++
		case c.err != nil:
			waiting++
		}
	}
	r.log.Info().Int("partitions", started).Int("waiting", waiting).Msg("started new partitions")
	return err
}

// elect runs an election for partitions and tells their replicas. The outcome of each is in the changes.
func (r *reign) elect(ps []*partition, s strategy) ([]change, error) {
	if len(ps) == 0 {
		return nil, nil
	}
	waiting := len(r.m.recovering.since)
	r.m.recovering.now, r.m.recovering.wait = time.Now(), config.OttlaRecoveryWaitMs.Of(r.config())
	unclean := map[string]bool{}
	if s == electOffline {
		var err error
		if unclean, err = r.uncleanTopics(ps); err != nil {
			return nil, err
		}
	}
	changes, err := r.updateStates(ps, func(p *partition) (decision, error) {
		if unclean[p.topic.name] {
			return r.m.decideLeader(p, p.state, electUnclean)
		}
		return r.m.decideLeader(p, p.state, s)
	})
	elected, failed := 0, 0
	for i := range changes {
		c := &changes[i]
		if c.err != nil {
			failed++
			r.log.Debug().Err(c.err).Str("topic", c.p.topic.name).Int32("partition", c.p.number).Msg("no leader elected")
			continue
		}
		if !c.written {
			continue // the event ended before
		}
		elected++
		r.m.led(c.p)
		r.out.addLeaderAndISR(c.p, c.decision.recipients, false)
		if c.decision.unclean {
			r.c.metrics.uncleanLeaderElections.Inc()
			r.log.Warn().Str("topic", c.p.topic.name).Int32("partition", c.p.number).Int32("broker", int32(c.p.state.Leader)).
				Int32("leader_epoch", int32(c.p.state.LeaderEpoch)).Msg("unclean leader elected: records may be lost")
		}
	}
	if more := len(r.m.recovering.since); more > waiting {
		r.log.Warn().Int("partitions", more).Dur("at_most", r.m.recovering.wait).
			Msg("whole in-sync sets stopped uncleanly: waiting for all members, to elect the one that lost least")
	}
	r.c.metrics.leaderElections.Add(float64(elected))
	if elected > 0 || s != electOffline {
		r.log.Info().Str("strategy", s.String()).Int("elected", elected).Int("failed", failed).Msg("elected leaders")
	}
	return changes, err
}

// uncleanTopics are the topics of partitions without an online ISR member that allow unclean elections, by their own configuration
// or by default. The configuration is read at this moment: a change of it must not be raced by a notification.
func (r *reign) uncleanTopics(ps []*partition) (map[string]bool, error) {
	topics := map[string]struct{}{}
	var names []string
	for _, p := range ps {
		if slices.ContainsFunc(p.state.ISR, func(id cluster.BrokerID) bool { return r.m.idOnline(p, id) }) {
			continue
		}
		if _, seen := topics[p.topic.name]; !seen {
			topics[p.topic.name] = struct{}{}
			names = append(names, p.topic.name)
		}
	}
	unclean := map[string]bool{}
	if len(names) == 0 {
		return unclean, nil
	}
	configs, err := zkcoord.ReadConfigs(r.s, zkcoord.EntityTopics, names)
	if err = r.tolerateBadNodes(err); err != nil {
		return nil, fmt.Errorf("read topic configs: %w", err)
	}
	byDefault := config.UncleanLeaderElectionEnable.Of(r.config())
	for _, name := range names {
		unclean[name] = byDefault
		if v, set := configs[name]["unclean.leader.election.enable"]; set {
			unclean[name] = v == "true"
		}
	}
	return unclean, nil
}

// shrinkUnreachable takes replicas that cannot be reached out of the ISRs of partitions, and tells the others.
func (r *reign) shrinkUnreachable(ps []*partition) error {
	return r.shrink(ps, func(p *partition, id cluster.BrokerID) bool { return !r.m.idReachable(p, id) })
}

// shrink takes the replicas that pass gone out of ISRs. Partitions in whose ISR (as known) none is gone are not read.
func (r *reign) shrink(ps []*partition, gone func(p *partition, id cluster.BrokerID) bool) error {
	var affected []*partition
	for _, p := range ps {
		if slices.ContainsFunc(p.state.ISR, func(id cluster.BrokerID) bool { return gone(p, id) }) ||
			p.state.Leader != cluster.NoBroker && gone(p, p.state.Leader) {
			affected = append(affected, p)
		}
	}
	if len(affected) == 0 {
		return nil
	}
	changes, err := r.updateStates(affected, func(p *partition) (decision, error) {
		return r.m.decideShrink(p, p.state, func(id cluster.BrokerID) bool { return gone(p, id) })
	})
	shrunk := 0
	for i := range changes {
		if c := &changes[i]; c.written {
			shrunk++
			r.out.addLeaderAndISR(c.p, c.decision.recipients, false)
		}
	}
	if shrunk > 0 {
		r.log.Info().Int("partitions", shrunk).Msg("took replicas out of in-sync sets")
	}
	return err
}
