package replication

import (
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

// EpochEnd is a leader epoch with its exclusive end offset. Epoch -1 and EndOffset -1 stand for "undefined".
type EpochEnd struct {
	Epoch     cluster.LeaderEpoch
	EndOffset int64
}

// Undefined is the answer of a look-up that knows nothing.
var Undefined = EpochEnd{Epoch: cluster.NoLeaderEpoch, EndOffset: -1}

// EpochLookup is a log's memory of its leader epochs. EndOffsetForEpoch returns the largest epoch <= e that the log knows,
// with its end (the start of the next epoch, or the log end for the newest); (e, start of the oldest) for an e older than
// all; (-1, -1) for an e newer than all. Source: KIP-101, KIP-279.
type EpochLookup interface {
	EndOffsetForEpoch(e cluster.LeaderEpoch) (cluster.LeaderEpoch, int64)
}

// Divergence is the leader's side of truncation on fetch: it compares the epoch of the follower's last record with its own
// history. Nil means that the logs agree up to offset. OFFSET_OUT_OF_RANGE when the history does not tell.
func Divergence(log EpochLookup, offset int64, lastFetched cluster.LeaderEpoch) (*EpochEnd, error) {
	if lastFetched == cluster.NoLeaderEpoch {
		return nil, nil
	}
	epoch, end := log.EndOffsetForEpoch(lastFetched)
	if epoch == cluster.NoLeaderEpoch || end < 0 {
		return nil, kerr.OffsetOutOfRange
	}
	if epoch < lastFetched || end < offset {
		return &EpochEnd{Epoch: epoch, EndOffset: end}, nil
	}
	return nil, nil
}

// Cut is a decision to truncate.
type Cut struct {
	Offset int64 // the log keeps what is below
	// Again: the leader lacks an epoch that we have, so the next fetch may find a divergence once more (KIP-279).
	Again bool
	// Committed: the cut goes below our own high watermark. Only an unclean election explains that.
	Committed bool
}

// TruncateOnDivergence is the follower's side: where to cut its log, given what the leader knows of the epoch asked about.
func TruncateOnDivergence(log EpochLookup, logEnd, highWatermark int64, leaders EpochEnd) Cut {
	cut := Cut{Offset: min(leaders.EndOffset, logEnd)}
	if leaders == Undefined || leaders.EndOffset < 0 {
		// The leader knows no epoch at all: only what is committed is surely common (the rule of before KIP-101).
		return Cut{Offset: min(highWatermark, logEnd)}
	}
	own, ownEnd := log.EndOffsetForEpoch(leaders.Epoch)
	switch {
	case own == leaders.Epoch && ownEnd >= 0:
		cut.Offset = min(ownEnd, leaders.EndOffset, logEnd)
	case own != cluster.NoLeaderEpoch && ownEnd >= 0 && own < leaders.Epoch:
		cut.Offset, cut.Again = min(ownEnd, logEnd), true
	}
	cut.Committed = cut.Offset < highWatermark
	return cut
}

// RangeAction is what a follower does after OFFSET_OUT_OF_RANGE.
type RangeAction int8

// The actions.
const (
	FetchOn      RangeAction = iota // fetch again from the own log end
	TruncateTail                    // the leader's log ends before ours
	StartOver                       // the leader's log starts after ours ends: drop everything, start there
)

// OutOfRange decides what to do when the leader has no such offset, knowing where its log starts and ends. TruncateTail
// gives no epochs to compare, so the caller first asks for the end of its last epoch and truncates by that where the leader
// knows it.
func OutOfRange(logEnd, highWatermark, leaderStart, leaderEnd int64) (RangeAction, Cut) {
	switch {
	case leaderEnd < logEnd:
		return TruncateTail, Cut{Offset: leaderEnd, Committed: leaderEnd < highWatermark}
	case leaderStart > logEnd:
		return StartOver, Cut{Offset: leaderStart}
	default:
		return FetchOn, Cut{Offset: logEnd}
	}
}

// ExplainsCommittedCut reports whether an unclean election, announced in a decision of this leadership, explains that
// committed records are to be cut.
func (s *State) ExplainsCommittedCut() bool {
	return s.uncleanEpoch != cluster.NoLeaderEpoch && s.uncleanEpoch == s.leaderEpoch
}

// Truncated records that a follower's log now ends at offset.
func (s *State) Truncated(offset int64) {
	s.logEnd = offset
	s.countedEnd = min(s.countedEnd, offset)
	s.highWatermark = min(s.highWatermark, offset)
}

// MayAppendFetched judges fetched bytes before they are written: the epoch in which they were asked for must still be the
// current one, and they must continue the log at the offset asked for.
func (s *State) MayAppendFetched(requestEpoch cluster.LeaderEpoch, fetchOffset int64) error {
	if s.role != Follower || requestEpoch != s.leaderEpoch {
		return kerr.FencedLeaderEpoch
	}
	if fetchOffset != s.logEnd {
		return kerr.OffsetOutOfRange
	}
	return nil
}
