package partition

import (
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/broker/replication"
	"ottla/internal/cluster"
	"ottla/logstore"
)

// FollowPosition is what a fetcher asks for next.
type FollowPosition struct {
	Leader           cluster.BrokerID
	LeaderEpoch      cluster.LeaderEpoch // the current one; goes into the request and back into Apply
	TopicID          cluster.TopicID
	Offset           int64 // the log end
	LogStartOffset   int64
	LastFetchedEpoch cluster.LeaderEpoch // of the last record, NoLeaderEpoch when the log knows none
}

// ErrCommittedCut means that the leader's log contradicts records that are committed here, and no unclean election explains
// it. The partition is not replicated until the next decision; its bytes are kept.
var ErrCommittedCut = errors.New("the leader asks to cut committed records, and no unclean election explains it")

// ErrStale means that the answer belongs to an earlier role or epoch of the partition, or to an earlier log end.
var ErrStale = errors.New("the answer does not belong to the partition's current epoch and position")

// errNothingUsable: the answer's first batch is of a newer epoch than the request's, or cut off.
var errNothingUsable = errors.New("no whole batch of the request's epoch in the answer")

// FollowPosition returns where replication goes on. ok is false unless the partition follows a leader and its log is usable.
//
// With flush.messages=1 the position is a promise that what is below it survives a loss of power. Apply has flushed what came since
// it asked last, but not what this replica wrote as a leader, or what it found written at its start.
func (p *Partition) FollowPosition() (pos FollowPosition, ok bool) {
	v := p.view.Load()
	if v.role != replication.Follower || v.log == nil || v.offline != nil || v.leader == cluster.NoBroker {
		return FollowPosition{}, false
	}
	epoch, known := v.log.LatestEpoch()
	if !known {
		epoch = cluster.NoLeaderEpoch
	}
	end := v.log.LogEndOffset()
	if end > v.log.FlushedOffset() && flushCounts(v.log) && v.log.Flush(end) != nil {
		return FollowPosition{}, false // the log is parked
	}
	return FollowPosition{
		Leader: v.leader, LeaderEpoch: v.leaderEpoch, TopicID: v.topicID, Offset: end,
		LogStartOffset: v.log.LogStartOffset(), LastFetchedEpoch: epoch,
	}, true
}

// Fetched is a leader's answer for one partition, with what was asked.
type Fetched struct {
	LeaderEpoch    cluster.LeaderEpoch // of the request
	Offset         int64               // of the request
	Records        []byte              // may end in a part of a batch
	HighWatermark  int64
	LogStartOffset int64
}

// Apply writes what a leader sent: records, then the high watermark, then the log start. ErrStale when the role, epoch or
// position has changed since the request. Batches of a newer epoch than the request's are refused (KAFKA-18723).
//
// With flush.messages=1 it returns only once the records are flushed: the next fetch will be their acknowledgement.
func (p *Partition) Apply(f Fetched) error {
	log, err := p.apply(f)
	if err == nil && len(f.Records) > 0 && flushCounts(log) {
		err = log.Flush(log.LogEndOffset())
	}
	return err
}

func (p *Partition) apply(f Fetched) (*logstore.Log, error) {
	p.gate.RLock()
	defer p.gate.RUnlock()
	p.mu.Lock()
	if err := p.mayApplyLocked(f.LeaderEpoch, f.Offset); err != nil {
		p.mu.Unlock()
		return nil, err
	}
	log := p.mu.log
	if len(f.Records) > 0 {
		info, err := log.AppendAsFollower(f.Records, f.LeaderEpoch)
		if err == nil && info.FirstOffset < 0 {
			err = errNothingUsable
		}
		if err != nil {
			p.mu.Unlock()
			return nil, fmt.Errorf("append to %s: %w", p.id, err)
		}
	}
	env := p.envLocked(p.set.now())
	p.mu.state.SetEnds(log.LogEndOffset(), countedEnd(log), env)
	var a after
	if p.mu.state.FollowHighWatermark(f.HighWatermark) {
		log.SetHighWatermark(p.mu.state.HighWatermark())
		a.wake = WakeOnHighWatermark
	}
	err := p.raiseLogStartLocked(f.LogStartOffset)
	p.mu.Unlock()
	p.deliver(a)
	return log, err
}

func (p *Partition) mayApplyLocked(epoch cluster.LeaderEpoch, offset int64) error {
	if p.mu.offline != nil {
		return kerr.KafkaStorageError
	}
	if p.mu.log == nil || p.mu.cutParked || p.mu.state.MayAppendFetched(epoch, offset) != nil {
		return ErrStale
	}
	return nil
}

func (p *Partition) raiseLogStartLocked(leaders int64) error {
	start := min(leaders, p.mu.state.HighWatermark())
	if start <= p.mu.log.LogStartOffset() {
		return nil
	}
	return p.mu.log.IncrementLogStart(start)
}

// TruncateTo carries out a divergence that the leader, whose log starts at leaderStart, found for a fetch of the given epoch and
// offset. again: ask once more.
//
// Where the logs part at or below the leader's start, nothing here is in common with what the leader has, and what is below was
// deleted. The log begins anew then: those records would show again if the start was forgotten in a crash, and the leader's first
// batch may begin before its start, so that it would never continue a log that ends there.
func (p *Partition) TruncateTo(epoch cluster.LeaderEpoch, offset int64, diverging EpochEnd, leaderStart int64) (again bool, err error) {
	p.gate.RLock()
	defer p.gate.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.mayApplyLocked(epoch, offset); err != nil {
		return false, err
	}
	cut := replication.TruncateOnDivergence(p.mu.log, p.mu.state.LogEnd(), p.mu.state.HighWatermark(), diverging)
	if !cut.Committed && cut.Offset <= leaderStart && leaderStart > p.mu.log.LogStartOffset() {
		return false, p.startOverLocked(leaderStart)
	}
	return cut.Again, p.cutLocked(cut)
}

func (p *Partition) startOverLocked(at int64) error {
	p.set.log.Warn().Stringer("partition", p.id).Int64("log_end", p.mu.state.LogEnd()).Int64("leader_start", at).
		Msg("the leader's log starts after all that is in common; start over there")
	if err := p.mu.log.TruncateFullyAndStartAt(at); err != nil {
		return err
	}
	p.mu.state.Restart(at)
	p.mu.mustReach = 0
	p.mu.log.SetHighWatermark(at)
	return nil
}

// TruncateOutOfRange carries out what follows from OFFSET_OUT_OF_RANGE, given where the leader's log starts and ends, and
// what it knows of the epoch of our last record (Undefined when it was not asked).
func (p *Partition) TruncateOutOfRange(epoch cluster.LeaderEpoch, offset, leaderStart, leaderEnd int64, last EpochEnd) error {
	p.gate.RLock()
	defer p.gate.RUnlock()
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.mayApplyLocked(epoch, offset); err != nil {
		return err
	}
	action, cut := replication.OutOfRange(p.mu.state.LogEnd(), p.mu.state.HighWatermark(), leaderStart, leaderEnd)
	switch action {
	case replication.TruncateTail:
		if last != replication.Undefined {
			byEpoch := replication.TruncateOnDivergence(p.mu.log, p.mu.state.LogEnd(), p.mu.state.HighWatermark(), last)
			if byEpoch.Offset < cut.Offset {
				cut = byEpoch
			}
		}
		return p.cutLocked(cut)
	case replication.StartOver:
		return p.startOverLocked(leaderStart)
	default:
		return nil
	}
}

// keepLostLocked saves committed records that are about to be cut. The loss is allowed, so a copy that fails does not hold it up.
func (p *Partition) keepLostLocked(offset int64) {
	path, err := p.mu.log.KeepLost(offset)
	e := p.set.log.Warn()
	if err != nil {
		e = p.set.log.Error().Err(err)
	}
	e.Stringer("partition", p.id).Int64("offset", offset).Int64("log_end", p.mu.state.LogEnd()).Str("file", path).
		Msg("committed records are given up after an unclean election; they are kept in a file")
}

// cutLocked truncates. Committed records are cut only when an unclean election explains it.
func (p *Partition) cutLocked(cut replication.Cut) error {
	if cut.Committed && !p.mu.state.ExplainsCommittedCut() && !p.set.uncleanAllowed(p.id.Topic) {
		p.mu.cutParked = true
		p.set.log.Error().Stringer("partition", p.id).Int64("offset", cut.Offset).
			Int64("high_watermark", p.mu.state.HighWatermark()).Int32("leader_epoch", int32(p.mu.state.LeaderEpoch())).
			Msg("replication stopped, the log is kept: the leader lacks records that are committed here; compare the " +
				"replicas, then allow the loss with unclean.leader.election.enable=true on the topic")
		return ErrCommittedCut
	}
	if cut.Committed {
		p.keepLostLocked(cut.Offset)
	}
	// Also when no record is cut: an epoch that began here without records must go from the log's history, or the leader would
	// find the same divergence for ever.
	p.set.log.Info().Stringer("partition", p.id).Int64("offset", cut.Offset).Int64("log_end", p.mu.state.LogEnd()).
		Int64("high_watermark", p.mu.state.HighWatermark()).Msg("truncate to the leader's history")
	if err := p.mu.log.TruncateTo(cut.Offset); err != nil {
		return err
	}
	if cut.Committed {
		p.mu.mustReach = 0 // the loss is accepted
	}
	p.mu.state.Truncated(p.mu.log.LogEndOffset())
	p.mu.log.SetHighWatermark(p.mu.state.HighWatermark())
	return nil
}
