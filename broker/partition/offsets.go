package partition

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/broker/replication"
	"ottla/internal/cluster"
	"ottla/logstore"
)

// Special timestamps of ListOffsets.
const (
	LatestTimestamp        int64 = -1
	EarliestTimestamp      int64 = -2
	MaxTimestamp           int64 = -3
	EarliestLocalTimestamp int64 = -4
	LatestTieredTimestamp  int64 = -5
)

var noOffset = OffsetResult{Offset: -1, Timestamp: -1, Epoch: cluster.NoLeaderEpoch}

// ListOffset answers ListOffsets for one partition. ts is a time in ms since 1970 or one of the special timestamps; others
// are UNSUPPORTED_VERSION. Clients (Consumer) are limited by the isolation level and must ask the leader; replicas see the
// log end; Debugging may ask anybody.
//
// Right after an election the committed end is not known yet: OFFSET_NOT_AVAILABLE to clients, for the latest offset and
// for timestamps that find nothing (KIP-207).
func (p *Partition) ListOffset(ts int64, isolation int8, currentEpoch cluster.LeaderEpoch, replica cluster.BrokerID) (OffsetResult, error) {
	v := p.view.Load()
	if err := v.offsetsCheck(currentEpoch, replica); err != nil {
		return noOffset, err
	}
	client := replica == Consumer
	if client && !p.set.leaseValid() {
		return noOffset, kerr.NotLeaderForPartition
	}
	limit := v.log.LogEndOffset()
	endKnown := true
	if client {
		limit = v.log.HighWatermark()
		endKnown = limit >= v.epochStart
		if isolation == ReadCommitted {
			limit = v.log.LastStableOffset()
		}
	}
	out, err := v.listOffset(ts, limit, endKnown)
	if err == nil && client && !p.set.leaseValid() {
		return noOffset, kerr.NotLeaderForPartition
	}
	return out, err
}

func (v *view) offsetsCheck(epoch cluster.LeaderEpoch, replica cluster.BrokerID) error {
	if replica != Debugging {
		return v.leaderCheck(epoch)
	}
	if err := v.available(); err != nil {
		return err
	}
	return v.epochCheck(epoch)
}

func (v *view) listOffset(ts, limit int64, endKnown bool) (OffsetResult, error) {
	switch {
	case ts == LatestTimestamp:
		if !endKnown {
			return noOffset, kerr.OffsetNotAvailable
		}
		return OffsetResult{Offset: limit, Timestamp: -1, Epoch: v.leaderEpoch}, nil
	case ts == EarliestTimestamp, ts == EarliestLocalTimestamp:
		start := v.log.LogStartOffset()
		epoch, ok := v.log.EpochAt(start)
		if !ok {
			epoch = cluster.NoLeaderEpoch
		}
		return OffsetResult{Offset: start, Timestamp: -1, Epoch: epoch}, nil
	case ts == LatestTieredTimestamp:
		return noOffset, nil
	case ts == MaxTimestamp:
		return below(limit, endKnown)(v.log.MaxTimestamp())
	case ts >= 0:
		return below(limit, endKnown)(v.log.OffsetForTimestamp(ts))
	default:
		return noOffset, kerr.UnsupportedVersion
	}
}

// below hides what a look-up found at or beyond limit.
func below(limit int64, endKnown bool) func(offset, ts int64, epoch cluster.LeaderEpoch, found bool, err error) (OffsetResult, error) {
	return func(offset, ts int64, epoch cluster.LeaderEpoch, found bool, err error) (OffsetResult, error) {
		switch {
		case err != nil:
			return noOffset, err
		case found && offset < limit:
			return OffsetResult{Offset: offset, Timestamp: ts, Epoch: epoch}, nil
		case !endKnown:
			return noOffset, kerr.OffsetNotAvailable
		default:
			return noOffset, nil
		}
	}
}

// OffsetForLeaderEpoch answers OffsetForLeaderEpoch: the largest epoch <= epoch in the log's history and its exclusive end;
// (-1, -1) when the history does not tell. Only the leader answers, except to Debugging. Source: KIP-101, KIP-320.
func (p *Partition) OffsetForLeaderEpoch(currentEpoch, epoch cluster.LeaderEpoch, replica cluster.BrokerID) (EpochEnd, error) {
	v := p.view.Load()
	if err := v.offsetsCheck(currentEpoch, replica); err != nil {
		return replication.Undefined, err
	}
	e, end := v.log.EndOffsetForEpoch(epoch)
	return EpochEnd{Epoch: e, EndOffset: end}, nil
}

// HighWatermarkOffset stands for the high watermark in DeleteRecords.
const HighWatermarkOffset int64 = -1

type deleteWait struct {
	offset   int64
	deadline time.Time
	done     func(low int64, err error)
}

type deleteCompletion struct {
	done func(low int64, err error)
	low  int64
	err  error
}

// DeleteRecords raises the log start offset to offset, at most the high watermark (HighWatermarkOffset for all of it). done
// is called exactly once with the low watermark, when every live replica has followed, or with REQUEST_TIMED_OUT. Other
// errors: OFFSET_OUT_OF_RANGE, NOT_LEADER_OR_FOLLOWER, POLICY_VIOLATION for topics that are only compacted. Source: KIP-107.
func (p *Partition) DeleteRecords(offset int64, timeout time.Duration, done func(low int64, err error)) {
	now := p.set.now()
	low, waits, err := p.startDelete(offset, now, deleteWait{deadline: now.Add(timeout), done: done})
	if waits {
		return
	}
	done(low, err)
}

func (p *Partition) startDelete(offset int64, now time.Time, w deleteWait) (low int64, waits bool, err error) {
	if !p.set.leaseValid() {
		return -1, false, kerr.NotLeaderForPartition
	}
	p.gate.RLock()
	defer p.gate.RUnlock()
	v := p.view.Load()
	if err := v.leaderCheck(cluster.NoLeaderEpoch); err != nil {
		return -1, false, err
	}
	if !v.log.Config().Delete {
		return -1, false, kerr.PolicyViolation
	}
	high := v.log.HighWatermark()
	if offset == HighWatermarkOffset {
		offset = high
	}
	if offset < 0 || offset > high {
		return -1, false, kerr.OffsetOutOfRange
	}
	if err := v.log.IncrementLogStart(offset); err != nil {
		return -1, false, err
	}
	w.offset = offset
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.state.Role() != replication.Leader {
		return -1, false, kerr.NotLeaderForPartition
	}
	low = p.mu.state.LowWatermark(v.log.LogStartOffset(), p.envLocked(now))
	if low >= offset {
		return low, false, nil
	}
	p.mu.deletes = append(p.mu.deletes, w)
	p.markActiveLocked()
	p.mu.timer.atLatest(w.deadline, now, p.expire)
	return 0, true, nil
}

// takeDeletesLocked removes the waits that every live replica has satisfied.
func (p *Partition) takeDeletesLocked(env replication.Env) []deleteCompletion {
	if len(p.mu.deletes) == 0 || p.mu.state.Role() != replication.Leader {
		return nil
	}
	low := p.mu.state.LowWatermark(p.mu.log.LogStartOffset(), env)
	return p.removeDeletesLocked(func(d *deleteWait) (deleteCompletion, bool) {
		return deleteCompletion{done: d.done, low: low}, low >= d.offset
	})
}

func (p *Partition) takeAllDeletesLocked(err error) []deleteCompletion {
	return p.removeDeletesLocked(func(d *deleteWait) (deleteCompletion, bool) {
		return deleteCompletion{done: d.done, low: -1, err: err}, true
	})
}

func (p *Partition) takeExpiredDeletesLocked(now time.Time) (out []deleteCompletion, next time.Time) {
	out = p.removeDeletesLocked(func(d *deleteWait) (deleteCompletion, bool) {
		over := !d.deadline.After(now)
		if !over && (next.IsZero() || d.deadline.Before(next)) {
			next = d.deadline
		}
		return deleteCompletion{done: d.done, low: -1, err: kerr.RequestTimedOut}, over
	})
	return out, next
}

func (p *Partition) removeDeletesLocked(over func(*deleteWait) (deleteCompletion, bool)) []deleteCompletion {
	var out []deleteCompletion
	kept := p.mu.deletes[:0]
	for i := range p.mu.deletes {
		if c, ok := over(&p.mu.deletes[i]); ok {
			out = append(out, c)
		} else {
			kept = append(kept, p.mu.deletes[i])
		}
	}
	clear(p.mu.deletes[len(kept):])
	p.mu.deletes = kept
	return out
}

var _ replication.EpochLookup = (*logstore.Log)(nil)
