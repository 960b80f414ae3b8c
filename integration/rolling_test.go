package integration

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
)

// TestRollingRestartIsNotNoticed restarts every broker in turn while a producer waits for every in-sync copy and a group of two
// consumes and commits: no write fails, no consumer sees an error that it has to handle, and every acknowledged record is consumed.
func TestRollingRestartIsNotNoticed(t *testing.T) {
	c := harness.Start(t, harness.Options{
		Brokers:    harness.Same(harness.Default(), 3),
		Properties: map[string]string{"min.insync.replicas": "2", "offsets.topic.replication.factor": "3"},
	})
	createTopic(t, c, "orders", 6, 3, nil)
	load := startLoad(t, c, "orders")
	group := startQuietGroup(t, c, "orders", 2)
	load.waitAcked(t, 200)
	for range harness.Pick(1, 5) {
		for _, b := range c.Brokers {
			if code := b.Terminate(); code != 0 {
				t.Errorf("broker %d: exit code %d", b.ID, code)
			}
			load.waitAcked(t, load.acked()+200)
			c.Restart(b)
			c.WaitLed("orders", 6, 3)
			if harness.Default() == harness.Ottla {
				c.WaitLed("__consumer_offsets", 4, 3)
			}
		}
	}
	load.stop()
	load.check(t, c)
	if n := load.failed(); n > 0 {
		t.Errorf("%d writes failed", n)
	}
	group.waitSeen(t, load)
}

// failed counts writes that were answered with an error.
func (l *load) failed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.unknown
}

// quietGroup is consumers that fail the test when they are told an error.
type quietGroup struct {
	mu struct {
		sync.Mutex
		seen map[place]bool
	}
}

func startQuietGroup(t *testing.T, c *harness.Cluster, topic string, members int) *quietGroup {
	g := &quietGroup{}
	g.mu.seen = map[place]bool{}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	for range members {
		client := franz(t, c, kgo.ConsumerGroup("quiet"), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
			kgo.AutoCommitInterval(500*time.Millisecond), kgo.AutoCommitCallback(func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, _ *kmsg.OffsetCommitResponse, err error) {
				if err != nil && !errors.Is(err, context.Canceled) {
					t.Errorf("commit: %v", err)
				}
			}))
		done.Go(func() {
			for ctx.Err() == nil {
				fetches := client.PollFetches(ctx)
				for _, e := range fetches.Errors() {
					if !errors.Is(e.Err, context.Canceled) && !errors.Is(e.Err, kgo.ErrClientClosed) {
						t.Errorf("consume %s/%d: %v", e.Topic, e.Partition, e.Err)
					}
				}
				g.mu.Lock()
				for _, r := range fetches.Records() {
					g.mu.seen[place{r.Partition, r.Offset}] = true
				}
				g.mu.Unlock()
			}
		})
	}
	t.Cleanup(func() { // before the clients are closed
		cancel()
		done.Wait()
	})
	return g
}

// waitSeen waits until every acknowledged record has been consumed.
func (g *quietGroup) waitSeen(t *testing.T, l *load) {
	t.Helper()
	harness.Eventually(t, time.Minute, "everything acknowledged is consumed", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		g.mu.Lock()
		defer g.mu.Unlock()
		for where := range l.mu.acked {
			if !g.mu.seen[where] {
				return errors.New("something is missing")
			}
		}
		return nil
	})
}
