package integration

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// TestTransactionsThroughKills kills coordinators and leaders with SIGKILL while four producers write transactions over two topics, and
// while readers follow. Nobody may ever read a record of a transaction that was aborted, or of one that its producer has not begun to
// commit; and in the end each transaction is there whole, once, or not at all: wholly where its commit was acknowledged.
func TestTransactionsThroughKills(t *testing.T) {
	if !harness.Long() {
		t.Skip("in the long form only")
	}
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), Properties: transactional})
	topics := []string{"debit", "credit"}
	const partitions = 3
	for _, topic := range topics {
		createTopic(t, c, topic, partitions, 3, nil)
	}
	l := &txnLedger{fate: map[string]fate{}}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var writers, readers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() { l.write(ctx, t, c, fmt.Sprint("w", w), topics, partitions) })
	}
	reading, stopReading := context.WithCancel(t.Context())
	defer stopReading()
	for range 2 {
		readers.Go(func() { l.follow(reading, t, c, topics) })
	}
	chance := rand.New(rand.NewPCG(1, 2))
	for kill := range 12 {
		before := l.committed()
		harness.Eventually(t, 2*time.Minute, "transactions go on", func() error {
			if n := l.committed() - before; n < 40 {
				return fmt.Errorf("%d more were committed", n)
			}
			return nil
		})
		b, what := coordinatorOf(t, c, 1, fmt.Sprint("w", chance.IntN(4))), "coordinator"
		if kill%2 == 1 {
			b, what = leaderOf(t, c, topics[chance.IntN(2)], chance.IntN(partitions)), "leader"
		}
		t.Logf("kill %d: broker %d, a %s; %d transactions committed", kill, b.ID, what, l.committed())
		b.Kill()
		time.Sleep(time.Duration(chance.IntN(3000)) * time.Millisecond)
		c.Restart(b)
		for _, topic := range topics {
			c.WaitLed(topic, partitions, 3)
		}
		c.WaitLed("__transaction_state", 6, 3)
	}
	stop()
	writers.Wait()
	seen := map[string]int{}
	for _, topic := range topics {
		for _, v := range readCommitted(t, c, topic) {
			seen[v]++
		}
	}
	stopReading()
	readers.Wait()
	l.judge(t, seen)
}

// fate is what the producer of a transaction knows of it.
type fate int

const (
	open     fate = iota
	ending        // its commit was asked for, and not answered
	acked         // its commit was acknowledged
	canceled      // aborted, or never to be committed
)

// txnLedger is what the producers know.
type txnLedger struct {
	mu    sync.Mutex
	fate  map[string]fate
	sizes map[string]int
	count int
}

func (l *txnLedger) set(id string, f fate, size int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sizes == nil {
		l.sizes = map[string]int{}
	}
	l.fate[id], l.sizes[id] = f, size
	if f == acked {
		l.count++
	}
}

func (l *txnLedger) of(id string) (fate, int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fate[id], l.sizes[id]
}

func (l *txnLedger) committed() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count
}

// write writes transactions of one transactional id. After an error that leaves a fate open a new client takes the id over.
func (l *txnLedger) write(ctx context.Context, t *testing.T, c *harness.Cluster, id string, topics []string, partitions int32) {
	chance := rand.New(rand.NewPCG(7, uint64(id[1])))
	var client *kgo.Client
	for n := 0; ctx.Err() == nil; n++ {
		if client == nil {
			var err error
			client, err = kgo.NewClient(kgo.SeedBrokers(c.Bootstrap()...), kgo.TransactionalID(id), kgo.TransactionTimeout(15*time.Second), kgo.RecordPartitioner(kgo.ManualPartitioner()))
			if err != nil {
				t.Error(err)
				return
			}
		}
		txn, size := fmt.Sprintf("%s-%d", id, n), 1+chance.IntN(6)
		l.set(txn, open, size)
		if err := client.BeginTransaction(); err != nil {
			t.Logf("%s: begin: %v", txn, err)
			l.set(txn, canceled, size)
			client.Close()
			client = nil
			continue
		}
		var records []*kgo.Record
		for i := range size {
			records = append(records, &kgo.Record{Topic: topics[chance.IntN(2)], Partition: chance.Int32N(partitions), Value: fmt.Appendf(nil, "%s/%d", txn, i)})
		}
		err := client.ProduceSync(t.Context(), records...).FirstErr()
		commit := err == nil && chance.IntN(4) > 0
		l.set(txn, map[bool]fate{true: ending, false: canceled}[commit], size)
		switch err := client.EndTransaction(t.Context(), kgo.TransactionEndTry(commit)); {
		case err != nil:
			t.Logf("%s: end (commit: %v): %v", txn, commit, err)
			client.Close()
			client = nil
		case commit:
			l.set(txn, acked, size)
		}
	}
	if client != nil {
		client.Close()
	}
}

// follow reads committed records as they come.
func (l *txnLedger) follow(ctx context.Context, t *testing.T, c *harness.Cluster, topics []string) {
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Bootstrap()...), kgo.ConsumeTopics(topics...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Error(err)
		return
	}
	defer client.Close()
	for ctx.Err() == nil {
		client.PollFetches(ctx).EachRecord(func(r *kgo.Record) {
			txn, _, _ := strings.Cut(string(r.Value), "/")
			if f, _ := l.of(txn); f == open || f == canceled {
				t.Errorf("%s/%d offset %d: %s was read, whose transaction is %d", r.Topic, r.Partition, r.Offset, r.Value, f)
			}
		})
	}
}

// judge holds what is committed against what the producers know.
func (l *txnLedger) judge(t *testing.T, seen map[string]int) {
	bad, inDoubt, inDoubtCommitted := 0, 0, 0
	for txn, f := range l.fate {
		have := 0
		for i := range l.sizes[txn] {
			n := seen[txn+"/"+strconv.Itoa(i)]
			have += n
			if n > 1 {
				bad++
				t.Errorf("%s/%d is there %d times", txn, i, n)
			}
		}
		if f == ending {
			inDoubt++
			if have > 0 {
				inDoubtCommitted++
			}
		}
		if have > 0 && have < l.sizes[txn] || f == acked && have == 0 || f == canceled && have > 0 {
			if bad++; bad < 20 {
				t.Errorf("%s: %d of %d records are there; fate %d", txn, have, l.sizes[txn], f)
			}
		}
	}
	t.Logf("%d transactions, %d acknowledged, %d in doubt (%d of them committed), %d wrong", len(l.fate), l.count, inDoubt, inDoubtCommitted, bad)
}
