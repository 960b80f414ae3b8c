package controller

import (
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// onBrokerChange reads the registrations and acts on what changed: bounced brokers first leave, then come.
func (r *reign) onBrokerChange() error {
	read, err := r.readBrokers()
	if err != nil {
		return err
	}
	d := r.m.diffBrokers(read)
	if d.empty() {
		return nil
	}
	if len(d.gone) > 0 {
		if err := r.brokersGone(d.gone); err != nil {
			return err
		}
		r.flush()
	}
	for _, b := range d.modified {
		r.m.brokers[b.ID].Broker = b
		r.out.updateAll = true
		r.log.Info().Int32("broker", int32(b.ID)).Msg("broker changed its end points")
		r.senders[b.ID].move(b)
	}
	if len(d.come) > 0 {
		return r.brokersCome(d.come)
	}
	return nil
}

// brokersGone moves leaders away from brokers that are gone, and takes them out of the ISRs.
func (r *reign) brokersGone(ids []cluster.BrokerID) error {
	for _, id := range ids {
		r.removeSender(id)
		if cancel := r.m.brokers[id].cancelWatch; cancel != nil {
			cancel()
		}
		r.log.Info().Int32("broker", int32(id)).Int64("broker_epoch", int64(r.m.brokers[id].Epoch)).Msg("broker is gone")
		delete(r.m.brokers, id)
		delete(r.m.recovering.ends, id)
	}
	r.out.updateAll = true
	return r.replicasOffline(func(p *partition, rep *replica) bool { return slices.Contains(ids, rep.broker) })
}

// replicasOffline acts on replicas that went offline with their broker or their log directory: other leaders, smaller ISRs,
// metadata; deletions that need them have to wait.
func (r *reign) replicasOffline(lost func(*partition, *replica) bool) error {
	if err := r.electLeaderless(); err != nil {
		return err
	}
	r.flush() // new leaders can act before the ISRs of other partitions are written
	var stay []*partition
	for _, p := range r.m.selectPartitions(func(p *partition) bool { return hasReplica(p, lost) }) {
		if p.topic.deleting() {
			failDeletion(p, lost, "replica offline")
		}
		if p.known && !p.topic.doomed() {
			stay = append(stay, p)
			r.out.addUpdate(p) // its offline replicas changed
		}
	}
	return r.shrinkUnreachable(stay)
}

func hasReplica(p *partition, pass func(*partition, *replica) bool) bool {
	for i := range p.replicas {
		if pass(p, &p.replicas[i]) {
			return true
		}
	}
	return false
}

// brokersCome tells new brokers all they need, and takes up what waited for them.
func (r *reign) brokersCome(come []cluster.Broker) error {
	isNew := func(id cluster.BrokerID) bool {
		return slices.ContainsFunc(come, func(b cluster.Broker) bool { return b.ID == id })
	}
	for p := range r.m.eachPartition() {
		for i := range p.replicas {
			if isNew(p.replicas[i].broker) {
				p.replicas[i].dirFailed = false // nothing is known of this registration's directories
			}
		}
	}
	if err := r.learnRecovered(come); err != nil {
		return err
	}
	for _, b := range come {
		r.m.brokers[b.ID] = &broker{Broker: b}
		r.watchBroker(b.ID)
		r.addSender(b)
		r.log.Info().Int32("broker", int32(b.ID)).Int64("broker_epoch", int64(b.Epoch)).Msg("broker is new")
	}
	r.out.updateAll = true
	r.flush() // brokers know each other before they hear of partitions (KAFKA-4443)

	if err := r.electLeaderless(); err != nil {
		return err
	}
	r.announceTo(isNew)
	r.flush()
	returned := func(p *partition) bool {
		return slices.ContainsFunc(p.targets(), isNew)
	}
	if err := r.resumeReassignments(returned); err != nil {
		return err
	}
	return r.resumeDeletionsOn(isNew)
}

// learnRecovered reads what brokers that have just registered say of their logs.
func (r *reign) learnRecovered(come []cluster.Broker) error {
	ids := make([]cluster.BrokerID, len(come))
	for i, b := range come {
		ids[i] = b.ID
	}
	ends, err := zkcoord.Recovered(r.s, ids)
	if err = r.tolerateBadNodes(err); err != nil {
		return fmt.Errorf("read %s: %w", zkcoord.RecoveredPath, err)
	}
	maps.Copy(r.m.recovering.ends, ends)
	return nil
}

// announceTo tells brokers of all metadata, and of the partitions that they host.
func (r *reign) announceTo(isNew func(cluster.BrokerID) bool) {
	for p := range r.m.eachPartition() {
		if !p.known || p.topic.doomed() {
			continue
		}
		hosts := false
		for i := range p.replicas {
			if rep := &p.replicas[i]; isNew(rep.broker) {
				addSticky(r.out.leaderAndISR, rep.broker, p, false)
				hosts = true
			}
		}
		if hosts {
			r.out.addUpdate(p) // its offline replicas changed, for everybody
			continue
		}
		for id := range r.m.brokers {
			if isNew(id) {
				r.out.addUpdateTo(id, p)
			}
		}
	}
}

// onLogDirEvents asks brokers that reported a failed log directory for all their replicas: those on it are answered
// KAFKA_STORAGE_ERROR.
func (r *reign) onLogDirEvents() error {
	events, err := zkcoord.LogDirEvents(r.s)
	if err = r.tolerateBadNodes(err); err != nil || len(events) == 0 {
		return err
	}
	failed := map[cluster.BrokerID]struct{}{}
	var paths []string
	for _, e := range events {
		failed[e.Broker] = struct{}{}
		paths = append(paths, e.Path)
		r.log.Warn().Int32("broker", int32(e.Broker)).Msg("broker lost a log directory")
	}
	for p := range r.m.eachPartition() {
		if !p.known || p.topic.doomed() {
			continue
		}
		for i := range p.replicas {
			if _, asked := failed[p.replicas[i].broker]; asked {
				r.out.addLeaderAndISR(p, []cluster.BrokerID{p.replicas[i].broker}, false)
			}
		}
	}
	return r.deletePaths(paths)
}

// onLeaderAndISRAnswer learns which replicas are on failed log directories, and which are not any more.
func (r *reign) onLeaderAndISRAnswer(from cluster.Broker, resp *kmsg.LeaderAndISRResponse) error {
	b := r.m.brokers[from.ID]
	if b == nil || b.Epoch != from.Epoch {
		return nil // of an earlier registration
	}
	if resp.ErrorCode != 0 {
		r.log.Warn().Int32("broker", int32(from.ID)).Int16("code", resp.ErrorCode).Msg("broker refused LeaderAndIsr")
		return nil
	}
	failed, recovered := map[*partition]struct{}{}, false
	for i := range resp.Topics {
		t := r.m.topics[r.m.names[resp.Topics[i].TopicID]]
		if t == nil {
			continue
		}
		for _, answer := range resp.Topics[i].Partitions {
			p := t.partition(answer.Partition)
			if p == nil {
				continue
			}
			rep := p.replica(from.ID)
			switch {
			case rep == nil:
			case answer.ErrorCode == kerr.KafkaStorageError.Code && !rep.dirFailed:
				rep.dirFailed = true
				failed[p] = struct{}{}
			case answer.ErrorCode == 0 && rep.dirFailed:
				rep.dirFailed = false
				r.out.addUpdate(p)
				recovered = true
			}
		}
	}
	if recovered {
		if err := r.electLeaderless(); err != nil {
			return err
		}
	}
	if len(failed) == 0 {
		return nil
	}
	r.log.Warn().Int32("broker", int32(from.ID)).Int("partitions", len(failed)).Msg("replicas are offline: log directory failed")
	return r.replicasOffline(func(p *partition, rep *replica) bool {
		_, hit := failed[p]
		return hit && rep.broker == from.ID
	})
}

// onISRChanges reads partitions whose ISR brokers changed by themselves (inter.broker.protocol.version before 2.7) and passes the
// news on.
func (r *reign) onISRChanges() error {
	changes, err := zkcoord.ISRChanges(r.s)
	if err = r.tolerateBadNodes(err); err != nil || len(changes) == 0 {
		return err
	}
	var ps []*partition
	var paths []string
	for _, c := range changes {
		paths = append(paths, c.Path)
		for _, tp := range c.Partitions {
			if p := r.m.partition(tp); p != nil && p.known && !slices.Contains(ps, p) {
				ps = append(ps, p)
			}
		}
	}
	if err := r.refresh(ps); err != nil {
		return err
	}
	if err := r.completeReassignments(ps); err != nil {
		return err
	}
	return r.deletePaths(paths)
}

// refresh reads the states of partitions again and tells all brokers.
func (r *reign) refresh(ps []*partition) error {
	_, err := r.updateStates(ps, func(p *partition) (decision, error) {
		r.out.addUpdate(p)
		return decision{}, errUnchanged
	})
	return err
}
