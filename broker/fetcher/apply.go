package fetcher

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/broker/replication"
	"ottla/internal/cluster"
	"ottla/internal/parallel"
	"ottla/logstore"
)

// throttlePause is how long a partition that is held back leaves the fetches.
const throttlePause = 100 * time.Millisecond

// applyWorkers bounds how many partitions of one answer are written at the same time.
var applyWorkers = max(2, runtime.GOMAXPROCS(0))

// result is what one partition's part of an answer led to.
type result struct {
	it   *item
	part *kmsg.FetchResponseTopicPartition
	err  error // from the partition, or the leader's verdict
}

// apply hands an answer to the partitions, in parallel, and then decides for each when to ask again.
func (f *fetcher) apply(resp *kmsg.FetchResponse) {
	results := f.match(resp)
	parallel.For(len(results), workersFor(results), func(i int) {
		r := &results[i]
		if r.err == nil {
			r.err = r.it.write(r.part)
		}
	})
	var outOfRange []*item
	for i := range results {
		if f.settle(&results[i]) {
			outOfRange = append(outOfRange, results[i].it)
		}
	}
	if len(outOfRange) > 0 {
		f.findRange(outOfRange)
	}
}

// match pairs the answer's parts with the partitions. What is not ours any more is left out.
func (f *fetcher) match(resp *kmsg.FetchResponse) []result {
	var out []result
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for j := range t.Partitions {
			part := &t.Partitions[j]
			k := memberKey{topic: t.Topic, partition: part.Partition}
			if f.session.byIDs {
				k = memberKey{topicID: cluster.TopicID(t.TopicID), partition: part.Partition}
			}
			if it := f.session.members[k]; it != nil && it.state == fetching {
				out = append(out, result{it: it, part: part, err: kerr.ErrorForCode(part.ErrorCode)})
			}
		}
	}
	return out
}

// write gives the partition what came for it.
func (it *item) write(part *kmsg.FetchResponseTopicPartition) error {
	if d := part.DivergingEpoch; d.Epoch >= 0 || d.EndOffset >= 0 {
		_, err := it.p.TruncateTo(it.sent.LeaderEpoch, it.sent.Offset, partition.EpochEnd{
			Epoch: cluster.LeaderEpoch(d.Epoch), EndOffset: d.EndOffset,
		}, part.LogStartOffset)
		return err
	}
	return it.p.Apply(partition.Fetched{
		LeaderEpoch: it.sent.LeaderEpoch, Offset: it.sent.Offset, Records: part.RecordBatches,
		HighWatermark: part.HighWatermark, LogStartOffset: part.LogStartOffset,
	})
}

// settle decides what follows for a partition. It reports whether the leader's range must be asked for.
func (f *fetcher) settle(r *result) (outOfRange bool) {
	it := r.it
	switch {
	case r.err == nil:
		it.pause.reset()
		it.lag = r.part.HighWatermark - it.sent.Offset
		it.p.Traffic().ReplicationBytesIn.Add(int64(len(r.part.RecordBatches)))
		it.p.NoteLag(r.part.HighWatermark)
		if t := f.m.options.Throttle; t != nil {
			t.Record(it.tp, len(r.part.RecordBatches))
		}
		f.markDue(it)
	case errors.Is(r.err, partition.ErrStale):
		f.markDue(it)
	case errors.Is(r.err, kerr.OffsetOutOfRange) && r.part.ErrorCode != 0:
		return true
	case errors.Is(r.err, kerr.FencedLeaderEpoch):
		if pos, ok := it.p.FollowPosition(); ok && pos.LeaderEpoch == it.sent.LeaderEpoch {
			f.fail(it, r.err) // the leader knows of a newer epoch; our decision is on the way
			return false
		}
		f.markDue(it)
	case errors.Is(r.err, partition.ErrCommittedCut), storageFault(r.err) && r.part.ErrorCode == 0:
		f.fail(it, r.err)
	default:
		f.log.Debug().Err(r.err).Stringer("partition", it.tp).Msg("fetch of the partition failed, will be repeated")
		f.pauseItem(it)
	}
	return false
}

// storageFault reports an error of the own log after which only the controller's next decision helps. A full disk is none: what did
// not fit was taken back, and the next try may find room.
func storageFault(err error) bool {
	var fault *logstore.StorageError
	if errors.As(err, &fault) {
		return !fault.Full
	}
	return errors.Is(err, kerr.KafkaStorageError) || errors.Is(err, logstore.ErrClosed)
}

// findRange asks the leader where its logs start and end, for partitions whose offset it does not have, and what it knows of
// the epoch of their last record; then it lets them truncate or start over.
func (f *fetcher) findRange(items []*item) {
	for _, it := range items {
		err := f.findRangeOf(it)
		switch {
		case err == nil, errors.Is(err, partition.ErrStale):
			f.markDue(it)
		case errors.Is(err, partition.ErrCommittedCut), storageFault(err):
			f.fail(it, err)
		default:
			f.log.Warn().Err(err).Stringer("partition", it.tp).Msg("finding the leader's log range failed, will be repeated")
			f.pauseItem(it)
		}
	}
}

func (f *fetcher) findRangeOf(it *item) error {
	settings := f.m.options.Settings()
	ctx, cancel := context.WithTimeout(f.m.ctx, settings.RequestTimeout)
	defer cancel()
	end, err := f.listOffset(ctx, it, partition.LatestTimestamp)
	if err != nil {
		return err
	}
	start, err := f.listOffset(ctx, it, partition.EarliestTimestamp)
	if err != nil {
		return err
	}
	last := replication.Undefined
	if it.sent.LastFetchedEpoch != cluster.NoLeaderEpoch && end < it.sent.Offset {
		if last, err = f.epochEnd(ctx, it); err != nil {
			return err
		}
	}
	return it.p.TruncateOutOfRange(it.sent.LeaderEpoch, it.sent.Offset, start, end, last)
}

func (f *fetcher) listOffset(ctx context.Context, it *item, ts int64) (int64, error) {
	req := kmsg.NewPtrListOffsetsRequest()
	req.Version = 9
	req.ReplicaID = int32(f.m.options.BrokerID)
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic = it.tp.Topic
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.CurrentLeaderEpoch, p.Timestamp = it.tp.Partition, int32(it.sent.LeaderEpoch), ts
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := f.roundTrip(ctx, req)
	if err != nil {
		return 0, err
	}
	offsets, ok := resp.(*kmsg.ListOffsetsResponse)
	if !ok || len(offsets.Topics) != 1 || len(offsets.Topics[0].Partitions) != 1 {
		return 0, fmt.Errorf("ListOffsets: %w", errUnexpected)
	}
	part := &offsets.Topics[0].Partitions[0]
	return part.Offset, kerr.ErrorForCode(part.ErrorCode)
}

func (f *fetcher) epochEnd(ctx context.Context, it *item) (partition.EpochEnd, error) {
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.Version = 4
	req.ReplicaID = int32(f.m.options.BrokerID)
	t := kmsg.NewOffsetForLeaderEpochRequestTopic()
	t.Topic = it.tp.Topic
	p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	p.Partition, p.CurrentLeaderEpoch = it.tp.Partition, int32(it.sent.LeaderEpoch)
	p.LeaderEpoch = int32(it.sent.LastFetchedEpoch)
	t.Partitions = append(t.Partitions, p)
	req.Topics = append(req.Topics, t)
	resp, err := f.roundTrip(ctx, req)
	if err != nil {
		return replication.Undefined, err
	}
	ends, ok := resp.(*kmsg.OffsetForLeaderEpochResponse)
	if !ok || len(ends.Topics) != 1 || len(ends.Topics[0].Partitions) != 1 {
		return replication.Undefined, fmt.Errorf("OffsetForLeaderEpoch: %w", errUnexpected)
	}
	part := &ends.Topics[0].Partitions[0]
	return partition.EpochEnd{Epoch: cluster.LeaderEpoch(part.LeaderEpoch), EndOffset: part.EndOffset},
		kerr.ErrorForCode(part.ErrorCode)
}

// roundTrip is for the small requests beside the fetch. A connection that fails is replaced at the next round.
func (f *fetcher) roundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	if err := f.connect(ctx); err != nil {
		return nil, err
	}
	resp, err := f.conn.RoundTrip(ctx, req)
	if err != nil {
		f.disconnect()
		f.restart()
	}
	return resp, err
}

// workerBytes is how much a goroutine must have to write to be worth its start and its wake-up, which cost as much as writing some
// tens of kilobytes.
const workerBytes = 128 << 10

// workersFor is how many goroutines share the writing of an answer.
func workersFor(results []result) int {
	bytes := 0
	for i := range results {
		bytes += len(results[i].part.RecordBatches)
	}
	return max(1, min(bytes/workerBytes, applyWorkers))
}
