package controller

import (
	"errors"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// request enqueues a request for the current reign. refuse answers it NOT_CONTROLLER: at once when this broker is not the
// controller, or later when the reign ends before or while it is handled. handle answers unless it returns an error that ends the
// reign; either way one answer is given.
func (c *Controller) request(name string, handle func(r *reign, answered func()) error, refuse func()) {
	r := c.currentReign()
	if r == nil || !c.Active() {
		refuse()
		return
	}
	var once sync.Once
	answered := func() { once.Do(func() {}) }
	drop := func() { once.Do(refuse) }
	c.queue.put(event{name: name, reign: r, drop: drop, run: func() {
		r.run(name, func() error {
			err := handle(r, answered)
			if err != nil {
				drop()
			}
			return err
		})
	}})
}

// knownBroker checks who asks: the broker must be registered, in the registration that it says.
func (r *reign) knownBroker(id int32, epoch int64, unknown error) error {
	b := r.m.brokers[cluster.BrokerID(id)]
	switch {
	case b == nil:
		return unknown
	case int64(b.Epoch) != epoch:
		return kerr.StaleBrokerEpoch
	}
	return nil
}

// code is the protocol's code of an error; UNKNOWN_SERVER_ERROR for what is no verdict of the protocol.
func code(err error) int16 {
	var verdict *kerr.Error
	switch {
	case err == nil:
		return 0
	case errors.As(err, &verdict):
		return verdict.Code
	}
	return kerr.UnknownServerError.Code
}

// AlterPartition changes ISRs as the leaders ask. done is called once.
func (c *Controller) AlterPartition(req *kmsg.AlterPartitionRequest, done func(*kmsg.AlterPartitionResponse)) {
	refused := func(err error) *kmsg.AlterPartitionResponse {
		resp := req.ResponseKind().(*kmsg.AlterPartitionResponse)
		resp.ErrorCode = code(err)
		return resp
	}
	c.request("alterPartition", func(r *reign, answered func()) error {
		if err := r.knownBroker(req.BrokerID, req.BrokerEpoch, kerr.StaleBrokerEpoch); err != nil {
			answered()
			done(refused(err))
			return nil
		}
		resp, changed, err := r.alterPartitions(req)
		if err != nil {
			return err
		}
		answered()
		done(resp)
		return r.completeReassignments(changed)
	}, func() { done(refused(kerr.NotController)) })
}

// AllocateProducerIDs gives a broker the next block of producer ids. done is called once.
func (c *Controller) AllocateProducerIDs(req *kmsg.AllocateProducerIDsRequest, done func(*kmsg.AllocateProducerIDsResponse)) {
	answer := func(first, count int64, err error) {
		resp := req.ResponseKind().(*kmsg.AllocateProducerIDsResponse)
		resp.ErrorCode, resp.ProducerIDStart, resp.ProducerIDLen = code(err), first, int32(count)
		done(resp)
	}
	c.request("allocateProducerIDs", func(r *reign, answered func()) error {
		if err := r.knownBroker(req.BrokerID, req.BrokerEpoch, kerr.BrokerIDNotRegistered); err != nil {
			answered()
			answer(0, 0, err)
			return nil
		}
		first, count, err := zkcoord.AllocateProducerIDs(r.s, cluster.BrokerID(req.BrokerID))
		if err != nil && over(err) {
			return err
		}
		answered()
		if err != nil {
			r.log.Error().Err(err).Str("znode", zkcoord.ProducerIDBlockPath).Msg("could not allocate producer ids")
			answer(0, 0, err)
			return nil
		}
		answer(first, count, nil)
		return nil
	}, func() { answer(0, 0, kerr.NotController) })
}

// ControlledShutdown moves leaders and ISR places away from a broker that is about to leave. done is called once.
func (c *Controller) ControlledShutdown(req *kmsg.ControlledShutdownRequest, done func(*kmsg.ControlledShutdownResponse)) {
	refused := func(err error) *kmsg.ControlledShutdownResponse {
		resp := req.ResponseKind().(*kmsg.ControlledShutdownResponse)
		resp.ErrorCode = code(err)
		return resp
	}
	c.request("controlledShutdown", func(r *reign, answered func()) error {
		b := r.m.brokers[cluster.BrokerID(req.BrokerID)]
		if b == nil || req.BrokerEpoch >= 0 && req.BrokerEpoch < int64(b.Epoch) {
			err := error(kerr.StaleBrokerEpoch)
			if b == nil {
				err = kerr.BrokerNotAvailable
			}
			answered()
			done(refused(err))
			return nil
		}
		remaining, err := r.controlledShutdown(b.ID)
		if err != nil {
			return err
		}
		resp := refused(nil)
		for _, tp := range remaining {
			left := kmsg.NewControlledShutdownResponsePartitionsRemaining()
			left.Topic, left.Partition = tp.Topic, tp.Partition
			resp.PartitionsRemaining = append(resp.PartitionsRemaining, left)
		}
		r.flush()
		answered()
		done(resp)
		return nil
	}, func() { done(refused(kerr.NotController)) })
}

// UncleanElectionEnabled tells that unclean elections were allowed for a topic, or, with "", in the broker's default. Partitions
// that only such an election helps get a leader, if this broker is the controller.
func (c *Controller) UncleanElectionEnabled(topic string) {
	c.request("uncleanElectionEnabled", func(r *reign, answered func()) error {
		answered()
		return r.onUncleanElectionEnabled(topic)
	}, func() {})
}

// UpdateFeatures answers as a ZooKeeper-mode cluster without features does: none can be changed. done is called once.
func (c *Controller) UpdateFeatures(req *kmsg.UpdateFeaturesRequest, done func(*kmsg.UpdateFeaturesResponse)) {
	resp := req.ResponseKind().(*kmsg.UpdateFeaturesResponse)
	if !c.Active() {
		resp.ErrorCode = kerr.NotController.Code
		resp.ErrorMessage = message(kerr.NotController)
		done(resp)
		return
	}
	for _, u := range req.FeatureUpdates {
		res := kmsg.NewUpdateFeaturesResponseResult()
		res.Feature, res.ErrorCode = u.Feature, kerr.InvalidRequest.Code
		text := "Could not apply finalized feature update because the provided feature is not supported."
		res.ErrorMessage = &text
		resp.Results = append(resp.Results, res)
	}
	done(resp)
}

// alterPartitions judges and writes all proposals of a request, and tells all brokers. It returns the answer and the partitions
// whose state is now as proposed.
func (r *reign) alterPartitions(req *kmsg.AlterPartitionRequest) (*kmsg.AlterPartitionResponse, []*partition, error) {
	resp := req.ResponseKind().(*kmsg.AlterPartitionResponse)
	ineligible := error(kerr.IneligibleReplica)
	if req.Version < 2 {
		ineligible = kerr.OperationNotAttempted
	}
	type judged struct {
		p       *partition // nil: unknown
		topic   int        // in resp
		answer  int        // in the topic
		want    zkcoord.PartitionState
		verdict error
	}
	var all []judged
	var writes []*judged
	for i := range req.Topics {
		t := &req.Topics[i]
		rt := kmsg.NewAlterPartitionResponseTopic()
		rt.Topic, rt.TopidID = t.Topic, t.TopicID
		known, unknown := r.m.topics[t.Topic], error(kerr.UnknownTopicOrPartition)
		if req.Version >= 2 {
			known, unknown = r.m.topics[r.m.names[t.TopicID]], kerr.UnknownTopicID
		}
		for k := range t.Partitions {
			ask := &t.Partitions[k]
			j := judged{topic: i, answer: k, verdict: unknown}
			if known != nil {
				j.p, j.verdict = known.partition(ask.Partition), kerr.UnknownTopicOrPartition
			}
			if j.p != nil {
				j.want, j.verdict = r.m.decideAlter(j.p, proposalOf(req.Version, ask), ineligible)
			}
			all = append(all, j)
			rp := kmsg.NewAlterPartitionResponseTopicPartition()
			rp.Partition = ask.Partition
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	taken := map[*partition]bool{}
	for i := range all {
		if j := &all[i]; j.verdict == nil {
			if taken[j.p] { // twice in one request
				j.verdict = kerr.InvalidRequest
				continue
			}
			taken[j.p] = true
			writes = append(writes, j)
		}
	}
	var added []cluster.BrokerID
	for _, j := range writes {
		added = append(added, without(j.want.ISR, j.p.state.ISR)...)
	}
	stale, err := r.staleIncarnations(added)
	if err != nil {
		return nil, nil, err
	}
	writes = slices.DeleteFunc(writes, func(j *judged) bool {
		joins := without(j.want.ISR, j.p.state.ISR)
		if subset(joins, without(joins, stale)) {
			return false
		}
		j.verdict = ineligible
		return true
	})
	ps, wants := make([]*partition, len(writes)), make([]zkcoord.PartitionState, len(writes))
	for i, j := range writes {
		ps[i], wants[i] = j.p, j.want
	}
	verdicts, err := r.writeProposals(ps, wants)
	if err != nil {
		return nil, nil, err
	}
	for i, j := range writes {
		j.verdict = verdicts[i]
	}
	var changed []*partition
	for i := range all {
		j := &all[i]
		rp := &resp.Topics[j.topic].Partitions[j.answer]
		if j.verdict != nil && !errors.Is(j.verdict, errUnchanged) {
			rp.ErrorCode = code(j.verdict)
			r.log.Debug().Err(j.verdict).Str("topic", req.Topics[j.topic].Topic).Int32("partition", rp.Partition).
				Int32("broker", req.BrokerID).Msg("in-sync set not changed")
			continue
		}
		fillAlterAnswer(rp, j.p)
		changed = append(changed, j.p)
	}
	return resp, changed, nil
}

// staleIncarnations returns those brokers that are not registered any more as the model knows them. The model may lag: a controller
// that was paused judges a request before it has heard that a follower died and came back, perhaps without its records.
func (r *reign) staleIncarnations(ids []cluster.BrokerID) ([]cluster.BrokerID, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	paths := make([]string, len(ids))
	for i, id := range ids {
		paths[i] = zkcoord.BrokerPath(id)
	}
	var stale []cluster.BrokerID
	for i, got := range r.s.GetMany(paths) {
		if errors.Is(got.Err, zkcoord.ErrSessionLost) {
			return nil, got.Err
		}
		if b := r.m.brokers[ids[i]]; got.Err != nil || b == nil || cluster.BrokerEpoch(got.Stat.Czxid) != b.Epoch {
			stale = append(stale, ids[i])
		}
	}
	return stale, nil
}

func proposalOf(version int16, ask *kmsg.AlterPartitionRequestTopicPartition) proposal {
	p := proposal{
		leaderEpoch:    cluster.LeaderEpoch(ask.LeaderEpoch),
		partitionEpoch: cluster.PartitionEpoch(ask.PartitionEpoch),
		isr:            brokerIDs(ask.NewISR),
		recovery:       cluster.LeaderRecoveryState(ask.LeaderRecoveryState),
	}
	if version < 3 {
		return p
	}
	p.isr = p.isr[:0]
	for _, member := range ask.NewEpochISR {
		p.isr = append(p.isr, cluster.BrokerID(member.BrokerID))
		p.brokerEpochs = append(p.brokerEpochs, cluster.BrokerEpoch(member.BrokerEpoch))
	}
	return p
}

func fillAlterAnswer(rp *kmsg.AlterPartitionResponseTopicPartition, p *partition) {
	rp.LeaderID, rp.LeaderEpoch = int32(p.state.Leader), int32(p.state.LeaderEpoch)
	rp.ISR, rp.LeaderRecoveryState = int32s(p.state.ISR), int8(p.state.Recovery)
	rp.PartitionEpoch = int32(p.version)
}

// writeProposals writes proposed states, each conditional on the partition epoch that it was judged against. A write that fails, or
// whose answer is lost, is followed by a read: the model must not stay behind the znode, or every later proposal would fail too,
// and the leader must learn when it did succeed. Source: KAFKA-2729 and what is left of it in 3.9.
func (r *reign) writeProposals(ps []*partition, wants []zkcoord.PartitionState) ([]error, error) {
	verdicts := make([]error, len(ps))
	if len(ps) == 0 {
		return verdicts, nil
	}
	units := make([][]zkcoord.Op, len(ps))
	for i, p := range ps {
		units[i] = []zkcoord.Op{zkcoord.SetOp(zkcoord.StatePath(p.tp()), zkcoord.EncodeState(wants[i]), int32(p.version))}
	}
	results, err := zkcoord.WriteFenced(r.s, r.epochVersion, units)
	if err != nil {
		return nil, err
	}
	var stale []*partition
	var at []int
	for i, p := range ps {
		r.out.addUpdate(p)
		if results[i].Err == nil {
			p.state, p.version = wants[i], p.version+1
			continue
		}
		stale, at = append(stale, p), append(at, i)
	}
	if len(stale) == 0 {
		return verdicts, nil
	}
	changes, err := r.updateStates(stale, func(*partition) (decision, error) { return decision{}, errUnchanged })
	if err != nil {
		return nil, err
	}
	for n, p := range stale {
		i := at[n]
		switch {
		case errors.Is(changes[n].err, errNoState):
			verdicts[i] = kerr.UnknownTopicOrPartition
		case sameState(p.state, wants[i]):
			// It was ours.
		default:
			verdicts[i] = kerr.InvalidUpdateVersion
		}
	}
	return verdicts, nil
}

// message is the text of a verdict, as Kafka words it.
func message(err *kerr.Error) *string {
	text := err.Description
	return &text
}
