package partition

import (
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/broker/replication"
	"ottla/internal/cluster"
	"ottla/logstore"
)

// decision is one entry of a LeaderAndIsr request on its way through a partition.
type decision struct {
	id      cluster.TopicPartition
	topicID cluster.TopicID
	replication.Change

	p        *Partition
	log      *logstore.Log
	refusal  string // why this log must not lead
	admitted bool
	changed  bool // the role was taken
	led      bool // led before
	err      error
}

// admit judges the decision before anything is done about it, in Kafka's order: failed directory, topic id, epochs.
func (p *Partition) admit(d *decision) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.p, d.log = p, p.mu.log
	switch {
	case p.mu.offline != nil:
		d.err = kerr.KafkaStorageError
	case !d.topicID.IsZero() && !p.mu.topicID.IsZero() && d.topicID != p.mu.topicID:
		d.err = kerr.InconsistentTopicID
	case d.LeaderEpoch == p.mu.state.LeaderEpoch() && !p.mu.state.Resumable() && p.adoptTopicIDLocked(d):
		// An equal epoch only to tell the topic's id.
	default:
		var skip bool
		skip, d.err = p.mu.state.Admit(d.Change)
		d.admitted = d.err == nil && !skip
	}
}

func (p *Partition) adoptTopicIDLocked(d *decision) bool {
	if d.topicID.IsZero() || !p.mu.topicID.IsZero() || p.mu.log == nil {
		return false
	}
	if d.err = p.mu.log.SetTopicID(d.topicID); d.err == nil {
		p.mu.topicID = d.topicID
		p.publishLocked()
	}
	return true
}

// closeGate ends leadership at once when another is to lead: nothing that may fail or take time comes before it, not even
// opening a log, and it does not depend on knowing the new leader.
func (p *Partition) closeGate(d *decision) {
	p.gate.Lock()
	p.mu.Lock()
	d.led = p.mu.state.Role() == replication.Leader
	p.mu.state.BecomeFollower(d.Change)
	p.mu.cutParked = false
	p.publishLocked()
	a := p.abandonLocked()
	p.mu.Unlock()
	p.gate.Unlock()
	p.deliver(a)
}

// abandonLocked collects every wait that only a leader could have fulfilled. The records were appended, so the verdict
// leaves open whether they survive.
func (p *Partition) abandonLocked() after {
	v := p.view.Load()
	err := error(kerr.NotLeaderForPartition)
	if v.offline != nil {
		err = kerr.KafkaStorageError
	}
	return after{wake: wakeOnAll, appends: p.mu.appends.takeAll(refusal(err, v)), deletes: p.takeAllDeletesLocked(err)}
}

// openLog opens or creates the partition's log and gives it to the state. It needs only local files.
func (p *Partition) openLog(d *decision) error {
	p.mu.Lock()
	known := p.mu.log
	p.mu.Unlock()
	if known != nil {
		d.log = known
		p.set.resumeMove(p)
		return p.recordTopicID(d)
	}
	logs := p.set.options.Logs
	log, existed := logs.Get(p.id)
	if !existed && p.mustNotCreate(d) {
		d.refusal = "there is no log here, though the partition has had leaders"
		return kerr.KafkaStorageError
	}
	if !existed {
		var err error
		if log, err = logs.GetOrCreate(p.id, d.topicID, d.IsNew); err != nil {
			return err
		}
	}
	if id, ok := log.TopicID(); ok && !d.topicID.IsZero() && id != d.topicID {
		return kerr.InconsistentTopicID
	}
	d.log = log
	p.adoptLog(log, logs.CheckpointedHighWatermark(p.id))
	if err := p.recordTopicID(d); err != nil {
		return err
	}
	p.set.resumeMove(p)
	return nil
}

// mustNotCreate reports whether an empty log would lead although acknowledged records may exist elsewhere: then everybody
// would truncate to nothing. With a single replica there is nobody to protect, and Kafka's way is kept.
func (p *Partition) mustNotCreate(d *decision) bool {
	return d.Leader == p.set.options.BrokerID && !d.IsNew && d.LeaderEpoch > 0 && len(d.Replicas) > 1 &&
		!p.set.mayLeadShortened()
}

func (p *Partition) adoptLog(log *logstore.Log, checkpoint int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.log = log
	p.mu.mustReach = checkpoint
	p.mu.state.Adopted(log.LogStartOffset(), log.LogEndOffset(), checkpoint)
	log.SetHighWatermark(p.mu.state.HighWatermark())
	if id, ok := log.TopicID(); ok {
		p.mu.topicID = id
	}
	log.OnFlushed(p.flushed)
	p.publishLocked()
}

func (p *Partition) recordTopicID(d *decision) error {
	if d.topicID.IsZero() || p.TopicID() == d.topicID {
		return nil
	}
	if err := d.log.SetTopicID(d.topicID); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.topicID = d.topicID
	p.publishLocked()
	return nil
}

// becomeLeader carries out an admitted decision that names this broker. The epoch's start is in the log's history before the
// first request is served. When anything fails, the epoch is not taken, so that the same decision may be sent again; the
// leadership of an earlier epoch ends all the same.
func (p *Partition) becomeLeader(d *decision, now time.Time) {
	if err := p.openLog(d); err != nil {
		p.failLeader(d, err)
		return
	}
	p.gate.Lock()
	p.mu.Lock()
	log, mustReach := p.mu.log, p.mu.mustReach
	p.mu.Unlock()
	if end := log.LogEndOffset(); end < mustReach && len(d.Replicas) > 1 && !p.set.mayLeadShortened() {
		p.gate.Unlock()
		d.refusal = fmt.Sprintf("the log ends at %d, but %d was known to be committed", end, mustReach)
		p.failLeader(d, kerr.KafkaStorageError)
		return
	}
	// The gate is closed: nobody appends, and followers' fetches are refused as the role is not taken or of the old epoch.
	if err := log.AssignEpochStart(d.LeaderEpoch); err != nil {
		p.gate.Unlock()
		p.failLeader(d, err)
		return
	}
	p.mu.Lock()
	env := p.envLocked(now)
	d.led = p.mu.state.Role() == replication.Leader
	moved := p.mu.state.BecomeLeader(d.Change, log.LogEndOffset(), countedEnd(log), env)
	p.mu.cutParked = false
	p.publishLocked()
	a := p.settledLocked(moved, env)
	a.wake |= wakeOnAll
	p.mu.Unlock()
	p.gate.Unlock()
	d.changed = true
	p.deliver(a)
	if flushCounts(log) && log.FlushedOffset() < log.LogEndOffset() {
		log.FlushSoon() // what an earlier role or process wrote does not count yet, and nothing need be appended any more
	}
	if len(d.ISR) == 1 && len(d.Replicas) > 1 {
		p.set.background(func() { p.flushAsLastMember(log) })
	}
}

// flushAsLastMember is for a leader that has become the only in-sync replica: no other copy may be elected, so what it has
// must survive a loss of power.
func (p *Partition) flushAsLastMember(log *logstore.Log) {
	if err := log.Flush(log.LogEndOffset()); err != nil && !errors.Is(err, logstore.ErrClosed) {
		p.set.log.Error().Err(err).Stringer("partition", p.id).Msg("flush as the last in-sync replica failed")
	}
}

// failLeader ends what leadership there was, without taking the decision's epoch.
func (p *Partition) failLeader(d *decision, err error) {
	d.err = err
	d.led = p.standDown()
	if d.refusal != "" || full(err) {
		p.set.refused.add(p)
	}
	e := p.set.log.Error().Str("topic", p.id.Topic).Int32("partition", p.id.Partition).
		Int32("leader_epoch", int32(d.LeaderEpoch)).Err(err)
	if d.refusal != "" {
		e.Str("reason", d.refusal).Msg("refuse to lead with a log that may lack acknowledged records; " +
			"let another in-sync replica lead, or set ottla.lead.shortened.log=true to accept the loss")
		return
	}
	e.Msg("becoming leader failed")
}

// standDown stops leading without a decision; the epoch is kept. It reports whether the partition led.
func (p *Partition) standDown() bool {
	p.gate.Lock()
	p.mu.Lock()
	led := p.mu.state.StandDown()
	p.publishLocked()
	var a after
	if led {
		a = p.abandonLocked()
	}
	p.mu.Unlock()
	p.gate.Unlock()
	p.deliver(a)
	return led
}

// becomeFollower carries out an admitted decision that names another leader, or none.
// closeGate has run.
func (p *Partition) becomeFollower(d *decision) {
	d.changed = true
	if err := p.openLog(d); err != nil {
		d.err = err
		p.mu.Lock()
		p.mu.state.StandDown()
		p.mu.state.Forget() // so that the same decision is admitted again: a half-done change must not look done
		p.publishLocked()
		p.mu.Unlock()
		p.set.log.Error().Err(err).Str("topic", p.id.Topic).Int32("partition", p.id.Partition).Msg("becoming follower failed")
		return
	}
	if d.Leader == cluster.NoBroker {
		p.set.unfollow(p)
		return
	}
	p.set.follow(p, d.Leader, d.LeaderEpoch)
}

// stop ends every role. It reports whether the partition led.
func (p *Partition) stop(epoch cluster.LeaderEpoch) (led bool) {
	p.set.unfollow(p)
	p.gate.Lock()
	p.mu.Lock()
	led = p.mu.state.Role() == replication.Leader
	p.mu.state.Stop(epoch)
	p.publishLocked()
	a := p.abandonLocked()
	p.mu.Unlock()
	p.gate.Unlock()
	p.deliver(a)
	return led
}

// goOffline is for a failed log directory.
func (p *Partition) goOffline(cause error) (led bool) {
	p.set.unfollow(p)
	p.gate.Lock()
	p.mu.Lock()
	p.mu.offline = cause
	led = p.mu.state.StandDown()
	p.publishLocked()
	a := p.abandonLocked()
	p.mu.Unlock()
	p.gate.Unlock()
	p.deliver(a)
	return led
}
