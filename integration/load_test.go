package integration

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// load is an idempotent acks=all producer that writes numbered records and remembers where each acknowledged one lies.
type load struct {
	topic  string
	client *kgo.Client
	cancel context.CancelFunc
	done   sync.WaitGroup
	count  atomic.Int64 // acknowledged

	mu struct {
		sync.Mutex
		acked   map[place]string
		unknown int // answered with an error: written or not
		errors  map[string]int
	}
}

type place struct {
	partition int32
	offset    int64
}

// startLoad writes until stop, at most a few hundred records ahead of the acknowledgements.
func startLoad(t testing.TB, c *harness.Cluster, topic string) *load {
	t.Helper()
	l := &load{topic: topic}
	l.mu.acked, l.mu.errors = map[place]string{}, map[string]int{}
	l.client = franz(t, c,
		kgo.MaxBufferedRecords(500), kgo.ProducerBatchMaxBytes(8<<10), kgo.RecordDeliveryTimeout(2*time.Minute),
		kgo.RequestTimeoutOverhead(2*time.Second), kgo.ProduceRequestTimeout(5*time.Second), kgo.RetryTimeout(2*time.Minute),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }), kgo.MetadataMinAge(50*time.Millisecond),
		kgo.UnknownTopicRetries(-1))
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	l.done.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			value := fmt.Sprintf("%08d", i)
			l.client.Produce(context.Background(), &kgo.Record{Topic: topic, Key: []byte(value), Value: []byte(value)}, l.answered)
			if i%20 == 0 {
				time.Sleep(5 * time.Millisecond)
			}
		}
	})
	t.Cleanup(l.stop)
	return l
}

func (l *load) answered(r *kgo.Record, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.mu.unknown++
		l.mu.errors[err.Error()]++
		return
	}
	l.mu.acked[place{r.Partition, r.Offset}] = string(r.Value)
	l.count.Add(1)
}

func (l *load) acked() int64 { return l.count.Load() }

func (l *load) waitAcked(t testing.TB, n int64) {
	t.Helper()
	harness.Eventually(t, time.Minute, fmt.Sprintf("%d records are acknowledged", n), func() error {
		if got := l.acked(); got < n {
			return fmt.Errorf("%d so far", got)
		}
		return nil
	})
}

// stop ends the writing and waits for the answers that are due. Calling it again does nothing.
func (l *load) stop() {
	l.cancel()
	l.done.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_ = l.client.Flush(ctx)
}

// check reads everything back: each acknowledged record must lie where it was acknowledged, offsets must be dense, and no
// value may appear twice.
func (l *load) check(t testing.TB, c *harness.Cluster) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	total, ends := endOffsets(t, c, l.topic)
	read := readAll(t, c, l.topic, int(total))
	at := map[place]string{}
	seen := map[string]place{}
	next := map[int32]int64{}
	doubled := 0
	for _, r := range read {
		if r.Offset != next[r.Partition] {
			t.Errorf("%s/%d: offset %d follows %d", l.topic, r.Partition, r.Offset, next[r.Partition]-1)
		}
		next[r.Partition] = r.Offset + 1
		at[place{r.Partition, r.Offset}] = string(r.Value)
		if first, twice := seen[string(r.Value)]; twice {
			doubled++
			t.Errorf("%s is at %v and at %v", r.Value, first, place{r.Partition, r.Offset})
		}
		seen[string(r.Value)] = place{r.Partition, r.Offset}
	}
	lost := 0
	for where, value := range l.mu.acked {
		if at[where] != value {
			if lost++; lost <= 10 {
				t.Errorf("acknowledged %s at %v; there is %q, and the value is at %v", value, where, at[where], seen[value])
			}
		}
	}
	if lost > 0 || doubled > 0 {
		t.Errorf("end offsets: %v", ends)
	}
	t.Logf("acknowledged %d, unknown %d %v, read %d, lost %d, duplicated %d", len(l.mu.acked), l.mu.unknown, l.mu.errors, len(read), lost, doubled)
}
