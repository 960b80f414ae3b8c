package partition

import (
	"fmt"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
	"ottla/internal/invariant"
	"ottla/logstore"
)

// diskBench is a bench over real files.
func diskBench(b testing.TB, isr []int32) *Partition {
	b.Helper()
	logs, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{b.TempDir()}, BrokerID: self, ClusterID: "test", RecoveryThreads: 1, Logger: zerolog.Nop(),
		Defaults: func(string) *logstore.Config { return logstore.DefaultConfig() },
	})
	require.NoError(b, err)
	t := &bench{t: b, logs: logs}
	t.set = NewSet(Options{BrokerID: self, Logs: logs, Logger: zerolog.Nop(), Alter: &fakeAlter{}})
	b.Cleanup(t.close)
	return t.lead(0, isr, isr)
}

func payload(b testing.TB, size int) []byte {
	bd := logstore.NewBuilder(logstore.PlainBatch())
	const each = 100
	for i := range max(1, size/each) {
		require.NoError(b, bd.Append(logstore.Record{Offset: int64(i), Timestamp: 1000, Value: make([]byte, each-10)}))
	}
	out, err := bd.Finish()
	require.NoError(b, err)
	return append([]byte(nil), out...)
}

func BenchmarkAppend(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10} {
		b.Run(fmt.Sprintf("acks=1/batch=%dKiB", size>>10), func(b *testing.B) {
			p := diskBench(b, []int32{1})
			raw := payload(b, size)
			buf := make([]byte, len(raw))
			done := func(AppendResult) {}
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				copy(buf, raw)
				p.Append(AppendRequest{Records: buf, Acks: 1, ProduceVersion: 9, Now: time.Now()}, done)
			}
		})
		b.Run(fmt.Sprintf("acks=all+follower/batch=%dKiB", size>>10), func(b *testing.B) {
			p := diskBench(b, []int32{1, 2})
			raw := payload(b, size)
			buf := make([]byte, len(raw))
			acked := 0
			done := func(AppendResult) { acked++ }
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				copy(buf, raw)
				now := time.Now()
				p.Append(AppendRequest{Records: buf, Acks: -1, Timeout: time.Minute, ProduceVersion: 9, Now: now}, done)
				r := fetchAs(2, 0, p.Log().LogEndOffset())
				r.Now = now
				if _, err := p.Read(r); err != nil {
					b.Fatal(err)
				}
				n++
			}
			if acked != n {
				b.Fatalf("%d of %d acknowledged", acked, n)
			}
		})
	}
}

func BenchmarkReadForConsumer(b *testing.B) {
	p := diskBench(b, []int32{1})
	raw := payload(b, 16<<10)
	for range 1000 {
		p.Append(AppendRequest{Records: append([]byte(nil), raw...), Acks: 1, ProduceVersion: 9}, func(AppendResult) {})
	}
	end := p.Log().LogEndOffset()
	r := consume(0)
	r.Now = time.Now()
	b.ReportAllocs()
	for b.Loop() {
		r.Offset = (r.Offset + 97) % end
		out, err := p.Read(r)
		if err != nil || out.Slice.Empty() {
			b.Fatal(err)
		}
		out.Slice.Release()
	}
}

func BenchmarkRoleChange(b *testing.B) {
	const n = 5000
	logs, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs: []string{b.TempDir()}, BrokerID: self, ClusterID: "test", RecoveryThreads: 1, Logger: zerolog.Nop(),
		Defaults: func(string) *logstore.Config { return logstore.DefaultConfig() },
	})
	require.NoError(b, err)
	t := &bench{t: b, logs: logs}
	t.set = NewSet(Options{BrokerID: self, Logs: logs, Logger: zerolog.Nop(), Alter: &fakeAlter{}})
	b.Cleanup(t.close)
	decide := func(leader, epoch int32) {
		req := kmsg.NewPtrLeaderAndISRRequest()
		req.Version, req.BrokerEpoch = 7, -1
		s := kmsg.NewLeaderAndISRRequestTopicState()
		s.Topic, s.TopicID = "many", topicID
		for i := range int32(n) {
			p := kmsg.NewLeaderAndISRRequestTopicPartition()
			p.Partition, p.Leader, p.LeaderEpoch, p.ZKVersion, p.IsNew = i, leader, epoch, epoch, epoch == 0
			p.ISR, p.Replicas = []int32{1, 2}, []int32{1, 2}
			s.PartitionStates = append(s.PartitionStates, p)
		}
		req.TopicStates = append(req.TopicStates, s)
		resp := t.set.LeaderAndISR(req, 10)
		for _, p := range resp.Topics[0].Partitions {
			require.Zero(b, p.ErrorCode)
		}
	}
	start := time.Now()
	decide(2, 0)
	b.ReportMetric(time.Since(start).Seconds()*1000, "ms-to-create")
	epoch := int32(0)
	for b.Loop() {
		epoch++
		decide(1+epoch%2, epoch) // leader, follower, leader, …
	}
}

// TestHotPathAllocations keeps the budgets: what an append and a read may allocate here and in the log.
func TestHotPathAllocations(t *testing.T) {
	if invariant.Checked {
		t.Skip("checked builds allocate more")
	}
	p := diskBench(t, []int32{1})
	raw := payload(t, 1<<10)
	buf := make([]byte, len(raw))
	done := func(AppendResult) {}
	now := time.Now()
	perAppend := testing.AllocsPerRun(200, func() {
		copy(buf, raw)
		p.Append(AppendRequest{Records: buf, Acks: 1, ProduceVersion: 9, Now: now}, done)
	})
	require.LessOrEqual(t, perAppend, 2.0) // the log's published offsets, twice
	r := consume(0)
	r.Now = now
	perRead := testing.AllocsPerRun(200, func() {
		out, err := p.Read(r)
		if err != nil {
			t.Fatal(err)
		}
		out.Slice.Release()
	})
	require.LessOrEqual(t, perRead, 0.0)

	p = diskBench(t, []int32{1, 2})
	perAll := testing.AllocsPerRun(200, func() {
		copy(buf, raw)
		p.Append(AppendRequest{Records: buf, Acks: -1, Timeout: time.Minute, ProduceVersion: 9, Now: now}, done)
		f := fetchAs(cluster.BrokerID(2), 0, p.Log().LogEndOffset())
		f.Now = now
		if _, err := p.Read(f); err != nil {
			t.Fatal(err)
		}
	})
	require.LessOrEqual(t, perAll, 4.0)
}
