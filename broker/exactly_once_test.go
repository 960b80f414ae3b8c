package broker

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/zkcoord/zktest"
)

// TestExactlyOnceInOneProcess copies a topic to another in transactions, with the group's offsets, between two brokers of which each
// loses its session once. Every value arrives once.
func TestExactlyOnceInOneProcess(t *testing.T) {
	tree := zktest.NewTree()
	both := merged(small, map[string]string{
		"transaction.state.log.replication.factor": "2", "offsets.topic.replication.factor": "2", "default.replication.factor": "2",
		"group.initial.rebalance.delay.ms": "0",
	})
	one := start(t, tree, settings(t, both))
	two := start(t, tree, settings(t, merged(both, map[string]string{"broker.id": "2"})))
	one.eventually("the second broker is known", func() bool { return one.metadata.load().alive(2) })
	for _, topic := range []string{"in", "out"} {
		one.createOnBoth(topic)
	}
	seeds := kgo.SeedBrokers(one.Addr("PLAINTEXT"), two.Addr("PLAINTEXT"))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	const values = 600
	client, err := kgo.NewClient(seeds, kgo.RecordPartitioner(kgo.RoundRobinPartitioner()))
	require.NoError(t, err)
	defer client.Close()
	var records []*kgo.Record
	for n := range values {
		records = append(records, &kgo.Record{Topic: "in", Value: fmt.Append(nil, n)})
	}
	require.NoError(t, client.ProduceSync(ctx, records...).FirstErr())

	copying, stop := context.WithCancel(ctx)
	var copiers sync.WaitGroup
	for n := range 2 {
		copiers.Go(func() { copyAll(copying, t, seeds, fmt.Sprint("copier-", n)) })
	}
	reader, err := kgo.NewClient(seeds, kgo.ConsumeTopics("out"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	require.NoError(t, err)
	defer reader.Close()
	seen := map[string]int{}
	lost := 0
	for len(seen) < values {
		fetches := reader.PollFetches(ctx)
		require.NoError(t, ctx.Err(), "%d of %d values were copied", len(seen), values)
		fetches.EachRecord(func(r *kgo.Record) { seen[string(r.Value)]++ })
		if len(seen) > values*(lost+1)/3 && lost < 2 {
			[]*house{two, one}[lost].zk.Expire()
			lost++
		}
	}
	stop()
	copiers.Wait()
	for v, n := range seen {
		require.Equal(t, 1, n, v)
	}
}

func copyAll(ctx context.Context, t *testing.T, seeds kgo.Opt, id string) {
	s, err := kgo.NewGroupTransactSession(seeds, kgo.TransactionalID(id), kgo.DefaultProduceTopic("out"), kgo.ConsumerGroup("copiers"),
		kgo.ConsumeTopics("in"), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.TransactionTimeout(10*time.Second), kgo.SessionTimeout(10*time.Second))
	if err != nil {
		t.Error(err)
		return
	}
	defer s.Close()
	for ctx.Err() == nil {
		fetches := s.PollRecords(ctx, 20)
		if fetches.NumRecords() == 0 {
			continue
		}
		if err := s.Begin(); err != nil {
			t.Errorf("%s: %v", id, err)
			return
		}
		failed := kgo.AbortingFirstErrPromise(s.Client())
		fetches.EachRecord(func(r *kgo.Record) { s.Produce(context.Background(), &kgo.Record{Value: r.Value}, failed.Promise()) })
		if _, err := s.End(context.Background(), failed.Err() == nil); err != nil {
			t.Logf("%s: %v", id, err)
		}
	}
}

// createOnBoth makes a topic of two partitions, with a replica on each of two brokers.
func (h *house) createOnBoth(topic string) {
	h.t.Helper()
	r := kmsg.NewPtrCreateTopicsRequest()
	r.TimeoutMillis = 10_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, -1, -1
	for n, replicas := range [][]int32{{1, 2}, {2, 1}} {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(n), replicas
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
	}
	r.Topics = append(r.Topics, t)
	require.NoError(h.t, kerr.ErrorForCode(ask[*kmsg.CreateTopicsResponse](h.client(), 5, r).Topics[0].ErrorCode))
}
