package partition

import (
	"time"

	"ottla/broker/replication"
	"ottla/internal/cluster"
)

// propose sends an ISR change to the controller. Before the ISR shrinks to this replica alone its log is flushed: from then
// on no other copy may be elected.
func (p *Partition) propose(proposal replication.Proposal) {
	v := p.view.Load()
	p.set.log.Debug().Stringer("partition", p.id).Int32("leader_epoch", int32(proposal.LeaderEpoch)).
		Int32("partition_epoch", int32(proposal.PartitionEpoch)).Int("members", len(proposal.ISR)).Msg("propose in-sync replicas")
	send := func() {
		p.set.options.Alter.Propose(
			AlterProposal{TopicPartition: p.id, TopicID: v.topicID, Proposal: proposal},
			func(r AlterResult) { p.answered(proposal, r) },
		)
	}
	if !proposal.LastMember || v.log == nil {
		send()
		return
	}
	p.set.background(func() {
		if err := v.log.Flush(v.log.LogEndOffset()); err != nil {
			p.set.log.Error().Err(err).Stringer("partition", p.id).Msg("flush before becoming the last in-sync replica failed")
			return // the log is parked; another replica must lead
		}
		send()
	})
}

// answered takes the controller's answer to a proposal.
func (p *Partition) answered(proposal replication.Proposal, r AlterResult) {
	now := p.set.now()
	p.mu.Lock()
	env := p.envLocked(now)
	before := p.mu.state.ISR()
	outcome, moved := p.mu.state.Answered(proposal, r.answer(), env)
	first := p.firstRefusalLocked(outcome, r.Err)
	a := p.afterISRLocked(outcome, moved, env)
	isr := p.mu.state.ISR()
	p.mu.Unlock()
	p.deliver(a)
	p.logOutcome(outcome, before, isr, r.Err, first)
	if outcome == replication.Resend {
		p.propose(proposal)
	}
}

func (r AlterResult) answer() replication.Answer {
	return replication.Answer{
		Err: r.Err, LeaderEpoch: r.LeaderEpoch, ISR: r.ISR, PartitionEpoch: r.PartitionEpoch,
		Controller: r.Controller, Retried: r.Retried,
	}
}

// afterISRLocked follows an answer. A committed ISR can end waits without the high watermark moving.
func (p *Partition) afterISRLocked(outcome replication.Outcome, moved replication.Moved, env replication.Env) after {
	if outcome == replication.Ignored {
		return after{}
	}
	a := p.settledLocked(moved, env)
	p.publishLocked()
	if a.appends == nil {
		a.appends = p.mu.appends.takeReady(p.mu.state, env)
	}
	if a.deletes == nil {
		a.deletes = p.takeDeletesLocked(env)
	}
	return a
}

// firstRefusalLocked reports whether a change that was not made is news: the same refusal is said once, until some change is
// made or another leader epoch begins.
func (p *Partition) firstRefusalLocked(outcome replication.Outcome, err error) bool {
	now := isrRefusal{outcome: outcome, epoch: p.mu.state.LeaderEpoch(), err: err}
	switch outcome {
	case replication.Committed:
		p.mu.refused = isrRefusal{}
	case replication.RolledBack, replication.Unsettled:
		first := p.mu.refused != now
		p.mu.refused = now
		return first
	}
	return false
}

// isrRefusal is why an ISR change was not made.
type isrRefusal struct {
	outcome replication.Outcome
	epoch   cluster.LeaderEpoch
	err     error // nil or a *kerr.Error
}

// logOutcome counts and tells what became of a proposal; a refusal that is not the first of its kind is for debugging.
func (p *Partition) logOutcome(outcome replication.Outcome, before, isr []cluster.BrokerID, err error, first bool) {
	p.set.changes.count(outcome, len(before), len(isr))
	switch outcome {
	case replication.Committed:
		e := p.set.log.Info()
		if len(isr) < len(before) {
			e = p.set.log.Warn()
		}
		e.Str("topic", p.id.Topic).Int32("partition", p.id.Partition).Ints32("isr", ids(isr)).
			Ints32("isr_before", ids(before)).Msg("in-sync replicas changed")
	case replication.RolledBack, replication.Unsettled:
		e := p.set.log.Debug()
		if first {
			e = p.set.log.Warn()
		}
		e.Str("topic", p.id.Topic).Int32("partition", p.id.Partition).AnErr("err", err).
			Bool("unsettled", outcome == replication.Unsettled).Msg("in-sync replicas not changed")
	}
}

func ids(list []cluster.BrokerID) []int32 {
	out := make([]int32, len(list))
	for i, id := range list {
		out[i] = int32(id)
	}
	return out
}

// check is the periodic look. It reports whether the partition may leave the list of those that are looked at.
func (p *Partition) check(now time.Time) (quiet bool) {
	p.mu.Lock()
	if p.mu.log == nil || p.mu.state.Role() != replication.Leader {
		p.mu.active = false
		p.mu.Unlock()
		return true
	}
	env := p.envLocked(now)
	ends := p.syncEndsLocked(env)
	moved, quiet := p.mu.state.Check(env)
	moved.HighWatermark = moved.HighWatermark || ends.HighWatermark
	a := p.settledLocked(moved, env)
	a.deletes = append(a.deletes, p.takeDeletesLocked(env)...) // a replica that died holds nothing back
	quiet = quiet && len(p.mu.deletes) == 0
	p.mu.active = !quiet
	unsettled := p.mu.state.Unsettled(env.Now)
	p.mu.Unlock()
	p.deliver(a)
	if unsettled && p.set.options.ReadState != nil {
		p.set.background(p.settleByZnode)
	}
	return quiet
}

// settleByZnode reads the state znode when the controller has left an ISR change open.
func (p *Partition) settleByZnode() {
	r, err := p.set.options.ReadState(p.id)
	if err != nil {
		p.set.log.Warn().Err(err).Stringer("partition", p.id).Msg("reading the partition state failed; the ISR change stays open")
		return
	}
	now := p.set.now()
	p.mu.Lock()
	env := p.envLocked(now)
	before := p.mu.state.ISR()
	outcome, moved := p.mu.state.Adopt(r.Leader, r.answer(), env)
	first := p.firstRefusalLocked(outcome, nil)
	a := p.afterISRLocked(outcome, moved, env)
	isr := p.mu.state.ISR()
	p.mu.Unlock()
	p.deliver(a)
	p.logOutcome(outcome, before, isr, nil, first)
}
