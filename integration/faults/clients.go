package faults

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// patient are the settings of a client that goes on through every fault.
func patient(seeds []string, more ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.RetryTimeout(3 * time.Minute), kgo.RequestTimeoutOverhead(2 * time.Second),
		kgo.RetryBackoffFn(func(int) time.Duration { return 100 * time.Millisecond }),
		kgo.MetadataMinAge(100 * time.Millisecond), kgo.UnknownTopicRetries(-1), kgo.DialTimeout(2 * time.Second),
	}, more...)...)
}

// writer is an idempotent acks=all producer to every partition of a topic.
type writer struct {
	rec        *recorder
	producer   int32
	partitions int32
	perSecond  int
	client     *kgo.Client
}

func newWriter(rec *recorder, seeds []string, producer, partitions int32, perSecond int) (*writer, error) {
	codec := []kgo.CompressionCodec{kgo.NoCompression(), kgo.SnappyCompression(), kgo.ZstdCompression(), kgo.Lz4Compression()}[producer%4]
	client, err := patient(seeds, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(5*time.Millisecond),
		kgo.MaxBufferedRecords(2*bufferedMax), kgo.ProduceRequestTimeout(4*time.Second), kgo.ProducerBatchCompression(codec), kgo.ProducerBatchMaxBytes(64<<10))
	if err != nil {
		return nil, err
	}
	rec.setOrdered(producer)
	return &writer{rec: rec, producer: producer, partitions: partitions, perSecond: perSecond, client: client}, nil
}

func (w *writer) loop(ctx context.Context) {
	chance := rand.New(rand.NewPCG(w.rec.run, uint64(w.producer)))
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for range max(1, w.perSecond/50) {
			partition := chance.Int32N(w.partitions)
			padding := chance.IntN(300)
			if chance.IntN(400) == 0 {
				padding = 30_000
			}
			if w.client.BufferedProduceRecords() < bufferedMax {
				w.write(partition, padding)
			}
		}
	}
}

// bufferedMax keeps Produce from blocking while nobody leads.
const bufferedMax = 2000

func (w *writer) write(partition int32, padding int) {
	index, id := w.rec.begin(w.producer, partition)
	r := &kgo.Record{Topic: w.rec.topic, Partition: partition, Value: encodeValue(w.rec.run, partition, id, padding)}
	w.client.Produce(context.Background(), r, func(r *kgo.Record, err error) { w.rec.settle(index, r.Offset, err) })
}

// finish waits for what is buffered.
func (w *writer) finish(patience time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	defer w.client.Close()
	if err := w.client.Flush(ctx); err != nil {
		return fmt.Errorf("producer %d still waits for acknowledgements %v after the last fault: %w", w.producer, patience, err)
	}
	return nil
}

// tail reads every partition of a topic from its start, on and on. It never resets a position by itself.
type tail struct {
	rec      *recorder
	client   *kgo.Client
	sessions map[int32]int
	errors   atomic.Int64
}

func newTail(rec *recorder, seeds []string, partitions int32, rack string) (*tail, error) {
	starts := map[int32]kgo.Offset{}
	t := &tail{rec: rec, sessions: map[int32]int{}}
	for p := range partitions {
		starts[p] = kgo.NewOffset().At(0)
		t.sessions[p] = rec.openTail(p)
	}
	var err error
	t.client, err = patient(seeds, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{rec.topic: starts}), kgo.Rack(rack),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchMaxWait(500*time.Millisecond), kgo.KeepRetryableFetchErrors())
	return t, err
}

func (t *tail) loop(ctx context.Context) {
	defer t.client.Close()
	for ctx.Err() == nil {
		fetches := t.client.PollFetches(ctx)
		fetches.EachError(func(string, int32, error) { t.errors.Add(1) })
		fetches.EachRecord(func(r *kgo.Record) { t.rec.saw(r.Partition, t.sessions[r.Partition], r.Offset, r.Value) })
	}
}

// drained reports whether the reader has come to these ends.
func (t *tail) drained(ends map[int32]int64) error {
	for p, session := range t.sessions {
		if at := t.rec.position(p, session); at < ends[p] {
			return fmt.Errorf("a reader of %s is at offset %d of partition %d, which ends at %d", t.rec.topic, at, p, ends[p])
		}
	}
	return nil
}

// endOffsets are the ends of a topic's partitions as consumers see them.
func endOffsets(ctx context.Context, seeds []string, topic string) (map[int32]int64, error) {
	client, err := patient(seeds)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	listed, err := kadm.NewClient(client).ListEndOffsets(ctx, topic)
	// A broker that has just started knows no topic yet, while ZooKeeper still names it as the leader of its life before.
	for err = errors.Join(err, listed.Error()); err != nil && ctx.Err() == nil; err = errors.Join(err, listed.Error()) {
		time.Sleep(200 * time.Millisecond)
		listed, err = kadm.NewClient(client).ListEndOffsets(ctx, topic)
	}
	if err != nil {
		return nil, err
	}
	ends := map[int32]int64{}
	listed.Each(func(o kadm.ListedOffset) { ends[o.Partition] = o.Offset })
	return ends, nil
}

// readAll reads a topic from its start to these ends with a fresh client.
func readAll(ctx context.Context, rec *recorder, seeds []string, ends map[int32]int64) (map[int32][]read, error) {
	starts := map[int32]kgo.Offset{}
	missing := 0
	for p, end := range ends {
		starts[p] = kgo.NewOffset().At(0)
		if end > 0 {
			missing++
		}
	}
	client, err := patient(seeds, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{rec.topic: starts}), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	out := map[int32][]read{}
	for missing > 0 {
		fetches := client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return out, fmt.Errorf("read %s: %d partitions not to their end: %w", rec.topic, missing, err)
		}
		var failure error
		fetches.EachError(func(_ string, p int32, err error) { failure = fmt.Errorf("read %s/%d: %w", rec.topic, p, err) })
		if failure != nil {
			return out, failure
		}
		fetches.EachRecord(func(r *kgo.Record) {
			id, whole := decodeValue(rec.run, r.Partition, r.Value)
			out[r.Partition] = append(out[r.Partition], read{r.Offset, id, whole})
			if r.Offset == ends[r.Partition]-1 {
				missing--
			}
		})
	}
	return out, nil
}
