package integration

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// Write silence: for how long a producer gets no acknowledgement for a partition whose leader stops or dies. The tests hold only
// that every partition goes on and that no write fails; they print the figures, which say something on a machine that does
// nothing else. The producer is idempotent, with acks=all and the client's defaults.

// TestWritesGoOnWhenALeaderIsStopped measures the silence around a controlled shutdown.
func TestWritesGoOnWhenALeaderIsStopped(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), Properties: map[string]string{"min.insync.replicas": "2"}})
	const partitions = 12
	createTopic(t, c, "orders", partitions, 3, nil)
	p := startPulse(t, c, "orders", partitions, 10*time.Millisecond)
	var all []time.Duration
	for range harness.Pick(2, 15) {
		led, b := p.leaderAndLed(t, c)
		p.mark()
		began := time.Now()
		b.Terminate()
		ended := time.Since(began)
		p.waitAckedSince(t, led, time.Now())
		silence := p.silences(led)
		t.Logf("broker %d stopped within %v: %d partitions, silence p50 %v, max %v", b.ID, ended.Round(time.Millisecond), len(led), quantile(silence, 0.5), quantile(silence, 1))
		all = append(all, silence...)
		c.Restart(b)
		c.WaitLed("orders", partitions, 3)
	}
	t.Logf("controlled shutdown: silence %s; failed writes %d, broken requests %d", spread(all), p.failed.Load(), p.broken.Load())
	p.mustNotFail(t)
}

// TestWritesGoOnWhenALeaderIsKilled measures the silence after kill -9 beyond the end of the dead broker's registration, with 1,000
// partitions in the long form. With a parent that reaps the broker, the client's first question who leads finds the answer (unless the
// client asked for something else within the last five seconds: then it waits until those are over). Left to
// the session's expiry, a client that asks every five seconds, as franz-go does by default, is silent for up to that long again; so
// it is one that asks after a quarter of a second, which is rarer than the Java client does.
func TestWritesGoOnWhenALeaderIsKilled(t *testing.T) {
	partitions := harness.Pick(20, 1000)
	c := harness.Start(t, harness.Options{
		Brokers: harness.Same(harness.Default(), 3), Properties: map[string]string{"min.insync.replicas": "2"},
		Prepare: func(b *harness.Broker) { b.Supervised = harness.Default() == harness.Ottla },
	})
	createTopic(t, c, "orders", partitions, 3, nil)
	for _, kind := range []struct {
		name    string
		kill    func(*harness.Broker)
		before  time.Duration // the client asked for metadata at least so long ago
		options []kgo.Opt
	}{
		{"reaped by its parent", (*harness.Broker).Kill, harness.Pick(0, 11*time.Second), nil},
		{"killed with its parent", (*harness.Broker).KillWithParent, 0, []kgo.Opt{kgo.MetadataMinAge(250 * time.Millisecond)}},
	} {
		if kind.options != nil && harness.Default() != harness.Ottla {
			continue // has no parent
		}
		p := startPulse(t, c, "orders", partitions, harness.Pick(20*time.Millisecond, 500*time.Millisecond), kind.options...)
		var all, whole []time.Duration
		for range harness.Pick(1, 5) {
			time.Sleep(kind.before)
			led, b := p.leaderAndLed(t, c)
			p.mark()
			began := time.Now()
			kind.kill(b)
			c.WaitGone(b)
			gone := time.Now()
			p.waitAckedSince(t, led, gone)
			beyond, silence := p.firstAckAfter(led, gone), p.silences(led)
			t.Logf("broker %d %s: registration gone after %v, %d partitions, silence beyond that %s, in all %s", b.ID, kind.name,
				gone.Sub(began).Round(time.Millisecond), len(led), spread(beyond), spread(silence))
			all, whole = append(all, beyond...), append(whole, silence...)
			began = time.Now()
			c.Restart(b)
			registered := time.Since(began)
			c.WaitLed("orders", partitions, 3)
			t.Logf("broker %d restarted: registered after %v, all in sync after %v", b.ID, registered.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
		}
		t.Logf("%s: silence beyond the registration %s, in all %s; failed writes %d, broken requests %d", kind.name, spread(all), spread(whole),
			p.failed.Load(), p.broken.Load())
		p.stop()
		p.mustNotFail(t)
	}
}

// pulse writes to every partition of a topic at a steady pace and remembers when each was acknowledged last. A partition that is
// silent gets no more than some records ahead.
type pulse struct {
	client *kgo.Client
	parts  []pulsePart
	failed atomic.Int64 // writes that the application saw fail
	broken atomic.Int64 // produce requests that got no answer
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu struct {
		sync.Mutex
		errors map[string]int
	}
}

type pulsePart struct {
	open atomic.Int32
	mu   struct {
		sync.Mutex
		last    time.Time
		longest time.Duration // between two acknowledgements, since the mark
		acks    []time.Time   // since the mark
	}
}

const pulseAhead = 20

func startPulse(t testing.TB, c *harness.Cluster, topic string, partitions int, every time.Duration, opts ...kgo.Opt) *pulse {
	t.Helper()
	p := &pulse{parts: make([]pulsePart, partitions)}
	p.mu.errors = map[string]int{}
	p.client = franz(t, c, append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.WithHooks(p)}, opts...)...)
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel = cancel
	p.done.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for ctx.Err() == nil {
			for i := range p.parts {
				p.write(topic, i)
			}
			<-tick.C
		}
	})
	t.Cleanup(p.stop)
	p.waitAckedSince(t, numbers(partitions), time.Now())
	return p
}

// stop ends the writing. Calling it again does nothing.
func (p *pulse) stop() {
	p.cancel()
	p.done.Wait()
}

func (p *pulse) write(topic string, i int) {
	part := &p.parts[i]
	if part.open.Load() >= pulseAhead {
		return
	}
	part.open.Add(1)
	p.client.Produce(context.Background(), &kgo.Record{Topic: topic, Partition: int32(i), Value: []byte("pulse")}, func(_ *kgo.Record, err error) {
		part.open.Add(-1)
		if err != nil {
			p.failed.Add(1)
			p.mu.Lock()
			p.mu.errors[err.Error()]++
			p.mu.Unlock()
			return
		}
		part.acked(time.Now())
	})
}

func (p *pulsePart) acked(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mu.last.IsZero() {
		p.mu.longest = max(p.mu.longest, now.Sub(p.mu.last))
	}
	p.mu.last = now
	p.mu.acks = append(p.mu.acks, now)
}

// OnBrokerE2E is the client's hook that counts requests whose answer never came.
func (p *pulse) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if key == 0 && e2e.Err() != nil {
		p.broken.Add(1)
	}
}

// mark begins a measurement.
func (p *pulse) mark() {
	for i := range p.parts {
		part := &p.parts[i]
		part.mu.Lock()
		part.mu.longest, part.mu.acks = 0, nil
		part.mu.Unlock()
	}
}

// silences are the longest gaps between acknowledgements since the mark.
func (p *pulse) silences(partitions []int) []time.Duration {
	var out []time.Duration
	for _, i := range partitions {
		part := &p.parts[i]
		part.mu.Lock()
		out = append(out, part.mu.longest)
		part.mu.Unlock()
	}
	return out
}

// firstAckAfter is how long after a moment each partition was acknowledged again.
func (p *pulse) firstAckAfter(partitions []int, moment time.Time) []time.Duration {
	var out []time.Duration
	for _, i := range partitions {
		part := &p.parts[i]
		part.mu.Lock()
		first := slices.IndexFunc(part.mu.acks, func(at time.Time) bool { return at.After(moment) })
		out = append(out, part.mu.acks[first].Sub(moment))
		part.mu.Unlock()
	}
	return out
}

// waitAckedSince waits until each of the partitions has been acknowledged after a moment.
func (p *pulse) waitAckedSince(t testing.TB, partitions []int, moment time.Time) {
	t.Helper()
	harness.Eventually(t, time.Minute, "every partition is written to", func() error {
		silent := 0
		for _, i := range partitions {
			part := &p.parts[i]
			part.mu.Lock()
			if !part.mu.last.After(moment) {
				silent++
			}
			part.mu.Unlock()
		}
		if silent > 0 {
			return fmt.Errorf("%d partitions of %d are silent", silent, len(partitions))
		}
		return nil
	})
}

// leaderAndLed picks the broker that leads most, and says what it leads.
func (p *pulse) leaderAndLed(t testing.TB, c *harness.Cluster) ([]int, *harness.Broker) {
	t.Helper()
	topics, err := kadm.NewClient(p.client).ListTopics(t.Context(), "orders")
	if err := errors.Join(err, topics.Error()); err != nil {
		t.Fatal(err)
	}
	led := map[int32][]int{}
	for _, part := range topics["orders"].Partitions {
		led[part.Leader] = append(led[part.Leader], int(part.Partition))
	}
	most := int32(1)
	for id := range led {
		if len(led[id]) > len(led[most]) {
			most = id
		}
	}
	return led[most], c.Broker(int(most))
}

func (p *pulse) mustNotFail(t testing.TB) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.mu.errors) > 0 {
		t.Errorf("writes failed: %v", p.mu.errors)
	}
}

func numbers(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Round(time.Millisecond)
}

func spread(list []time.Duration) string {
	return fmt.Sprintf("p50 %v, p99 %v, max %v", quantile(list, 0.5), quantile(list, 0.99), quantile(list, 1))
}
