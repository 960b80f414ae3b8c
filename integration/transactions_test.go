package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
)

// Transactions: consume, transform, produce, exactly once, while coordinators and leaders are killed.

// transactional are the settings of clusters for transactions, with three brokers.
var transactional = map[string]string{
	"transaction.state.log.replication.factor": "3", "transaction.state.log.min.isr": "2", "transaction.state.log.num.partitions": "6",
	"offsets.topic.replication.factor": "3", "min.insync.replicas": "2",
	"transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
}

func TestTransactionsExactlyOnce(t *testing.T) {
	exactlyOnce(t, harness.Pick(1, 5), harness.Same(harness.Default(), 3)...)
}

func TestTransactionsExactlyOnceBesideKafka(t *testing.T) {
	if !harness.Long() {
		t.Skip("in the long form only")
	}
	t.Run("two of ours", func(t *testing.T) { exactlyOnce(t, 1, harness.Ottla, harness.Kafka, harness.Ottla) })
	t.Run("one of ours", func(t *testing.T) { exactlyOnce(t, 1, harness.Kafka, harness.Ottla, harness.Kafka) })
}

// exactlyOnce writes numbered values in transactions, some of which are aborted, copies what was committed to another topic with
// two members of a group, and kills the brokers that coordinate and lead meanwhile. In the end every committed value is there once.
func exactlyOnce(t *testing.T, rounds int, kinds ...harness.Kind) {
	c := harness.Start(t, harness.Options{Brokers: kinds, Properties: transactional})
	const partitions = 4
	createTopic(t, c, "in", partitions, 3, nil)
	createTopic(t, c, "out", partitions, 3, nil)

	w := &txnWriter{c: c, topic: "in", id: "writer"}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writing, copying sync.WaitGroup
	writing.Go(func() { w.loop(ctx, t) })
	copyCtx, stopCopying := context.WithCancel(t.Context())
	defer stopCopying()
	var copied atomic.Int64
	for n := range 2 {
		copying.Go(func() { copyLoop(copyCtx, t, c, fmt.Sprint("copier-", n), &copied) })
	}
	progress := func(what string) {
		writes, copies := w.committed(), copied.Load()
		harness.Eventually(t, time.Minute, "progress after "+what, func() error {
			if now := w.committed() - writes; now < 30 {
				return fmt.Errorf("%d more values were committed", now)
			}
			if now := copied.Load() - copies; now < 30 {
				return fmt.Errorf("%d more values were copied", now)
			}
			return nil
		})
	}
	progress("the start")
	for range rounds {
		for _, victim := range []struct {
			what string
			of   func() *harness.Broker
		}{
			{"the writer's coordinator", func() *harness.Broker { return coordinatorOf(t, c, 1, "writer") }},
			{"a copier's coordinator", func() *harness.Broker { return coordinatorOf(t, c, 1, "copier-0") }},
			{"the group's coordinator", func() *harness.Broker { return coordinatorOf(t, c, 0, "copiers") }},
			{"a leader", func() *harness.Broker { return leaderOf(t, c, "out", 0) }},
		}[:harness.Pick(1, 4)] {
			b := victim.of()
			t.Logf("kill %s, %s %d; %d values committed", victim.what, b.Kind, b.ID, w.committed())
			b.Kill()
			progress("a kill of " + victim.what)
			c.Restart(b)
			c.WaitLed("in", partitions, 3)
			c.WaitLed("out", partitions, 3)
			c.WaitLed("__transaction_state", 6, 3)
		}
	}
	stop()
	writing.Wait()
	want := w.values()
	harness.Eventually(t, time.Minute, "everything is copied", func() error {
		if n := int(copied.Load()); n < len(want) {
			return fmt.Errorf("%d of %d", n, len(want))
		}
		return nil
	})
	stopCopying()
	copying.Wait()
	for _, topic := range []string{"in", "out"} {
		got := slices.DeleteFunc(readCommitted(t, c, topic), func(v string) bool { return w.doubtful[v] })
		compareCommitted(t, topic, want, got)
	}
	t.Logf("%d values committed, %d transactions aborted", len(want), w.aborted.Load())
}

// txnWriter writes values in transactions of a few records; every fifth is aborted.
type txnWriter struct {
	c         *harness.Cluster
	topic, id string
	aborted   atomic.Int64
	mu        sync.Mutex
	list      []string
	doubtful  map[string]bool // of transactions whose end was asked for, and not answered
}

func (w *txnWriter) committed() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.list)
}

func (w *txnWriter) values() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.list)
}

func (w *txnWriter) loop(ctx context.Context, t *testing.T) {
	var client *kgo.Client
	renew := func() {
		if client != nil {
			client.Close()
		}
		client = franz(t, w.c, kgo.TransactionalID(w.id), kgo.DefaultProduceTopic(w.topic), kgo.TransactionTimeout(20*time.Second), kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	}
	renew()
	for n := 0; ctx.Err() == nil; n++ {
		if err := client.BeginTransaction(); err != nil {
			t.Logf("begin: %v", err)
			renew()
			continue
		}
		var values []string
		var records []*kgo.Record
		commit := n%5 != 3
		for i := range 1 + n%7 {
			v := fmt.Sprintf("%06d-%d", n, i)
			if !commit {
				v = "aborted " + v
			}
			values = append(values, v)
			records = append(records, kgo.StringRecord(v))
		}
		err := client.ProduceSync(t.Context(), records...).FirstErr()
		if err != nil {
			t.Logf("write: %v", err)
			commit = false
		}
		if err := client.EndTransaction(t.Context(), kgo.TransactionEndTry(commit)); err != nil {
			t.Logf("end of transaction %d (commit: %v): %v", n, commit, err)
			if commit {
				w.doubt(values)
			}
			renew()
			continue
		}
		if !commit {
			w.aborted.Add(1)
			continue
		}
		w.mu.Lock()
		w.list = append(w.list, values...)
		w.mu.Unlock()
	}
}

// doubt notes values of which nobody knows whether they are committed.
func (w *txnWriter) doubt(values []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.doubtful == nil {
		w.doubtful = map[string]bool{}
	}
	for _, v := range values {
		w.doubtful[v] = true
	}
}

// copyLoop copies what is committed from in to out, values and offsets in one transaction.
func copyLoop(ctx context.Context, t *testing.T, c *harness.Cluster, id string, copied *atomic.Int64) {
	s, err := kgo.NewGroupTransactSession(kgo.SeedBrokers(c.Bootstrap()...), kgo.TransactionalID(id), kgo.DefaultProduceTopic("out"),
		kgo.ConsumerGroup("copiers"), kgo.ConsumeTopics("in"), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(10*time.Second), kgo.TransactionTimeout(20*time.Second))
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	for ctx.Err() == nil {
		fetches := s.PollRecords(ctx, 50)
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := s.Begin(); err != nil {
			t.Errorf("%s: begin: %v", id, err)
			return
		}
		failed := kgo.AbortingFirstErrPromise(s.Client())
		n := 0
		fetches.EachRecord(func(r *kgo.Record) {
			n++
			s.Produce(t.Context(), &kgo.Record{Key: r.Key, Value: r.Value}, failed.Promise())
		})
		ok, err := s.End(t.Context(), failed.Err() == nil)
		switch {
		case err != nil:
			t.Logf("%s: end: %v", id, err)
			if errors.Is(err, kerr.InvalidProducerEpoch) || errors.Is(err, kerr.ProducerFenced) || errors.Is(err, kerr.InvalidProducerIDMapping) {
				t.Errorf("%s: fenced, but there is no other", id)
				return
			}
		case ok:
			copied.Add(int64(n))
		}
	}
}

// readCommitted reads a topic up to its last stable offsets, in the order of each partition.
func readCommitted(t testing.TB, c *harness.Cluster, topic string) []string {
	t.Helper()
	client := franz(t, c, kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.KeepControlRecords()) // a marker is the last that the log may have
	ends := stableEnds(t, c, topic)
	next := map[int32]int64{}
	var out []string
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		left := maps.Clone(ends)
		maps.DeleteFunc(left, func(p int32, end int64) bool { return next[p] >= end })
		if len(left) == 0 {
			return out
		}
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			t.Fatalf("%s: read up to %v of %v", topic, next, ends)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				out = append(out, string(r.Value))
			}
			next[r.Partition] = r.Offset + 1
		})
	}
}

// stableEnds are the last stable offsets, once no transaction is open.
func stableEnds(t testing.TB, c *harness.Cluster, topic string) map[int32]int64 {
	t.Helper()
	ends := map[int32]int64{}
	harness.Eventually(t, time.Minute, "no transaction is open in "+topic, func() error {
		for p, high := range listEnds(t, c, topic, 0) {
			ends[p] = high
		}
		for p, stable := range listEnds(t, c, topic, 1) {
			if stable != ends[p] {
				return fmt.Errorf("partition %d: last stable offset %d, high watermark %d", p, stable, ends[p])
			}
		}
		return nil
	})
	return ends
}

// listEnds asks for the end offsets of an isolation level.
func listEnds(t testing.TB, c *harness.Cluster, topic string, isolation int8) map[int32]int64 {
	t.Helper()
	client := franz(t, c)
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.IsolationLevel = -1, isolation
	rt := kmsg.NewListOffsetsRequestTopic()
	rt.Topic = topic
	ends := map[int32]int64{}
	meta, err := clientPartitions(t, client, topic)
	if err != nil {
		t.Fatal(err)
	}
	for p := range meta {
		rp := kmsg.NewListOffsetsRequestTopicPartition()
		rp.Partition, rp.Timestamp = p, -1
		rt.Partitions = append(rt.Partitions, rp)
	}
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(t.Context(), client)
	if err != nil {
		t.Logf("end offsets of %s: %v", topic, err)
		return nil
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 {
				ends[p.Partition] = p.Offset
			}
		}
	}
	return ends
}

func clientPartitions(t testing.TB, client *kgo.Client, topic string) (map[int32]bool, error) {
	req := kmsg.NewPtrMetadataRequest()
	mt := kmsg.NewMetadataRequestTopic()
	mt.Topic = &topic
	req.Topics = append(req.Topics, mt)
	resp, err := req.RequestWith(t.Context(), client)
	if err != nil {
		return nil, err
	}
	out := map[int32]bool{}
	for _, p := range resp.Topics[0].Partitions {
		out[p.Partition] = true
	}
	return out, nil
}

// compareCommitted tells which values are missing, doubled or should not be seen.
func compareCommitted(t *testing.T, topic string, want, got []string) {
	t.Helper()
	count := map[string]int{}
	for _, v := range got {
		count[v]++
	}
	var missing, doubled, aborted []string
	for _, v := range want {
		if count[v] == 0 {
			missing = append(missing, v)
		}
		if count[v] > 1 {
			doubled = append(doubled, v)
		}
		delete(count, v)
	}
	for v := range count {
		if strings.HasPrefix(v, "aborted") {
			aborted = append(aborted, v)
		}
	}
	if len(missing)+len(doubled)+len(count) > 0 {
		t.Errorf("%s: %d of %d missing %.10q, %d doubled %.10q, %d aborted %.10q, %d unknown %.10q", topic, len(missing), len(want), missing,
			len(doubled), doubled, len(aborted), aborted, len(count), slices.Collect(maps.Keys(count)))
	}
}

// coordinatorOf is the broker that coordinates a group (kind 0) or a transactional id (1).
func coordinatorOf(t *testing.T, c *harness.Cluster, kind int8, key string) *harness.Broker {
	t.Helper()
	var found *harness.Broker
	harness.Eventually(t, 30*time.Second, "a coordinator of "+key, func() error {
		r := kmsg.NewPtrFindCoordinatorRequest()
		r.CoordinatorType, r.CoordinatorKey, r.CoordinatorKeys = kind, key, []string{key}
		resp, err := r.RequestWith(t.Context(), franz(t, c))
		if err != nil {
			return err
		}
		code, node := resp.ErrorCode, resp.NodeID
		if len(resp.Coordinators) > 0 {
			code, node = resp.Coordinators[0].ErrorCode, resp.Coordinators[0].NodeID
		}
		if code == 0 {
			found = c.Broker(int(node))
		}
		return kerr.ErrorForCode(code)
	})
	return found
}

func leaderOf(t *testing.T, c *harness.Cluster, topic string, partition int) *harness.Broker {
	t.Helper()
	state, err := c.View().State(topic, partition)
	if err != nil {
		t.Fatal(err)
	}
	return c.Broker(state.Leader)
}

// TestZombiesAreFenced has a second producer take over a transactional id: what the first has begun is aborted, and it cannot end it
// any more. A transaction whose time is over is aborted, too.
func TestZombiesAreFenced(t *testing.T) {
	c := harness.Start(t, harness.Options{Properties: map[string]string{"transaction.abort.timed.out.transaction.cleanup.interval.ms": "200"}})
	createTopic(t, c, "t", 1, 1, nil)
	producer := func(timeout time.Duration) *kgo.Client {
		return franz(t, c, kgo.TransactionalID("one"), kgo.DefaultProduceTopic("t"), kgo.TransactionTimeout(timeout))
	}
	write := func(client *kgo.Client, value string) error {
		return client.ProduceSync(t.Context(), kgo.StringRecord(value)).FirstErr()
	}
	begin := func(client *kgo.Client, value string) {
		t.Helper()
		if err := errors.Join(client.BeginTransaction(), write(client, value)); err != nil {
			t.Fatal(err)
		}
	}
	first := producer(time.Minute)
	begin(first, "of the zombie")
	if ends := listEnds(t, c, "t", 1); ends[0] != 0 {
		t.Errorf("the last stable offset is %d while a transaction is open from offset 0 on", ends[0])
	}
	second := producer(time.Minute)
	begin(second, "of its successor")
	if err := first.EndTransaction(t.Context(), kgo.TryCommit); !errors.Is(err, kerr.ProducerFenced) && !errors.Is(err, kerr.InvalidProducerEpoch) {
		t.Errorf("the zombie committed: %v", err)
	}
	if err := second.EndTransaction(t.Context(), kgo.TryCommit); err != nil {
		t.Error(err)
	}
	slow := producer(2 * time.Second)
	begin(slow, "too slow")
	harness.Eventually(t, 30*time.Second, "the slow transaction is aborted", func() error {
		if stable, high := listEnds(t, c, "t", 1), listEnds(t, c, "t", 0); stable[0] != high[0] {
			return fmt.Errorf("last stable offset %d, high watermark %d", stable[0], high[0])
		}
		return nil
	})
	if err := slow.EndTransaction(t.Context(), kgo.TryCommit); err == nil {
		t.Error("the slow producer could commit")
	}
	compareCommitted(t, "t", []string{"of its successor"}, readCommitted(t, c, "t"))
}
