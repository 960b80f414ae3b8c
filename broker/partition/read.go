package partition

import (
	"errors"
	"math"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/broker/replication"
	"ottla/internal/cluster"
	"ottla/logstore"
)

// Read reads for a consumer or, with a replica id, for a follower, whose position it records.
//
// Consumers: no lock. They see what is below the high watermark, or the last stable offset; an offset between that and the
// log end gives an empty result, beyond it OFFSET_OUT_OF_RANGE.
//
// Followers: the leader epoch is checked and the position recorded in one critical section. A divergence is told instead of
// data, and is not recorded.
//
// On an error the result still holds the leader hints.
func (p *Partition) Read(r ReadRequest) (ReadResult, error) {
	if r.Now.IsZero() {
		r.Now = p.set.now()
	}
	for {
		log := p.Log()
		out, err := p.readOnce(&r)
		// The log may have been moved to another directory, and closed here, in between.
		if !errors.Is(err, kerr.KafkaStorageError) || log == nil || p.Log() == log {
			return out, err
		}
	}
}

func (p *Partition) readOnce(r *ReadRequest) (ReadResult, error) {
	if r.Replica >= 0 {
		return p.readForFollower(r)
	}
	return p.readForConsumer(r)
}

func (p *Partition) readForConsumer(r *ReadRequest) (ReadResult, error) {
	v := p.view.Load()
	out := v.emptyRead()
	if err := v.consumerCheck(r); err != nil {
		return out, err
	}
	leads := v.role == replication.Leader
	if leads && !p.set.leaseValid() {
		return out, kerr.NotLeaderForPartition
	}
	if r.LastFetchedEpoch != cluster.NoLeaderEpoch {
		diverging, err := replication.Divergence(v.log, r.Offset, r.LastFetchedEpoch)
		if err != nil || diverging != nil {
			out.Diverging = diverging
			out.offsets(v.log)
			return out, err
		}
	}
	out.offsets(v.log)
	if leads && r.ClientRack != "" && p.set.options.SelectReplica != nil {
		if id := p.preferred(r); id != cluster.NoBroker && id != p.set.options.BrokerID {
			out.PreferredReplica = id
			return out, nil
		}
	}
	limit := out.HighWatermark
	if r.Isolation == ReadCommitted {
		limit = out.LastStableOffset
	}
	if err := p.slice(&out, v, r, limit); err != nil {
		return out, err
	}
	if r.Isolation == ReadCommitted {
		if err := out.abortedIn(v.log, r.Offset); err != nil {
			out.Slice.Release()
			return out, err
		}
	}
	if leads && !p.set.leaseValid() {
		out.Slice.Release()
		return v.emptyRead(), kerr.NotLeaderForPartition
	}
	return out, nil
}

func (v *view) emptyRead() ReadResult {
	return ReadResult{
		HighWatermark: -1, LastStableOffset: -1, LogStartOffset: -1, LogEndOffset: -1,
		PreferredReplica: cluster.NoBroker, CurrentLeader: v.leader, CurrentEpoch: v.leaderEpoch,
	}
}

func (v *view) consumerCheck(r *ReadRequest) error {
	if v.offline != nil {
		return kerr.KafkaStorageError
	}
	if err := v.epochCheck(r.CurrentLeaderEpoch); err != nil {
		return err
	}
	if v.log == nil || v.role == replication.NoRole || r.LeaderOnly && v.role != replication.Leader {
		return kerr.NotLeaderForPartition
	}
	return nil
}

// offsets fills in the log's offsets, in an order in which concurrent movement keeps start <= stable <= high <= end.
func (out *ReadResult) offsets(log *logstore.Log) {
	out.LogStartOffset = log.LogStartOffset()
	out.LastStableOffset = log.LastStableOffset()
	out.HighWatermark = log.HighWatermark()
	out.LogEndOffset = log.LogEndOffset()
}

// slice finds the records below limit.
func (p *Partition) slice(out *ReadResult, v *view, r *ReadRequest, limit int64) error {
	if r.Offset < out.LogStartOffset || r.Offset > out.LogEndOffset {
		return kerr.OffsetOutOfRange
	}
	if r.Offset >= limit || r.MaxBytes <= 0 && !r.MinOneBatch {
		return nil
	}
	s, err := v.log.Read(r.Offset, r.MaxBytes, limit, r.MinOneBatch)
	if err != nil {
		return err
	}
	out.Slice = s
	return nil
}

func (out *ReadResult) abortedIn(log *logstore.Log, from int64) error {
	out.Aborted = []logstore.AbortedTxn{}
	if out.Slice.Empty() {
		return nil
	}
	aborted, err := log.AbortedTransactions(from, log.SliceEnd(&out.Slice))
	if err != nil {
		return err
	}
	if aborted != nil {
		out.Aborted = aborted
	}
	return nil
}

// preferred asks the selector where a consumer should read (KIP-392).
func (p *Partition) preferred(r *ReadRequest) cluster.BrokerID {
	p.mu.Lock()
	var candidates []cluster.BrokerID
	if p.mu.state.Role() == replication.Leader {
		candidates = p.mu.state.PreferredReplicas(r.Offset)
	}
	p.mu.Unlock()
	if len(candidates) < 2 {
		return cluster.NoBroker
	}
	return p.set.options.SelectReplica(r.ClientRack, candidates)
}

func (p *Partition) readForFollower(r *ReadRequest) (ReadResult, error) {
	v := p.view.Load()
	if r.Parked {
		out := v.emptyRead()
		if err := v.leaderCheck(r.CurrentLeaderEpoch); err != nil {
			return out, err
		}
		out.offsets(v.log)
		return p.sliceForFollower(out, v, r)
	}
	out, err := p.recordFetch(r)
	if err != nil || out.Diverging != nil {
		return out, err
	}
	return p.sliceForFollower(out, v, r)
}

// recordFetch checks a follower's fetch and takes note of it.
func (p *Partition) recordFetch(r *ReadRequest) (ReadResult, error) {
	p.mu.Lock()
	v := p.view.Load()
	out := v.emptyRead()
	if err := v.available(); err != nil {
		p.mu.Unlock()
		return out, err
	}
	env := p.envLocked(r.Now)
	f := replication.Fetch{
		Replica: r.Replica, Incarnation: r.ReplicaEpoch, Epoch: r.CurrentLeaderEpoch, Offset: r.Offset,
		LogStart: r.ReplicaLogStart, Session: r.Session,
	}
	if err := p.mu.state.CheckFetch(f); err != nil {
		p.mu.Unlock()
		return out, err
	}
	moved := p.syncEndsLocked(env)
	diverging, err := replication.Divergence(p.mu.log, r.Offset, r.LastFetchedEpoch)
	if err == nil && diverging == nil {
		err = p.inRangeLocked(r.Offset)
	}
	if err == nil && diverging == nil {
		var more replication.Moved
		more, err = p.mu.state.RecordFetch(f, env)
		more.HighWatermark = more.HighWatermark || moved.HighWatermark
		moved = more
	}
	a := p.settledLocked(moved, env)
	out.offsets(p.mu.log)
	p.mu.Unlock()
	p.deliver(a)
	out.Diverging = diverging
	return out, err
}

func (p *Partition) inRangeLocked(offset int64) error {
	if offset < p.mu.log.LogStartOffset() || offset > p.mu.log.LogEndOffset() {
		return kerr.OffsetOutOfRange
	}
	return nil
}

// sliceForFollower reads up to the log end. The bytes are found without a lock, so it looks once more whether the epoch is
// still the one of the request: truncation by a later epoch begins only after that epoch was published.
func (p *Partition) sliceForFollower(out ReadResult, v *view, r *ReadRequest) (ReadResult, error) {
	err := p.slice(&out, v, r, math.MaxInt64)
	if err != nil {
		return out, err
	}
	now := p.view.Load()
	if err := now.leaderCheck(r.CurrentLeaderEpoch); err != nil || now.leaderEpoch != v.leaderEpoch {
		out.Slice.Release()
		if err == nil {
			err = kerr.FencedLeaderEpoch
		}
		return now.emptyRead(), err
	}
	return out, nil
}
