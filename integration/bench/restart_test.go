package bench

import (
	"context"
	"fmt"
	"time"
)

// fillPartitions makes a topic of many partitions and gives each of them a batch, so that a start has something to recover.
func (r *runner) fillPartitions(s *brokers, w *workload, topic string) error {
	leaders, err := s.create(topic, w.partitions, w.replicas)
	if err != nil {
		return err
	}
	b, err := newBatch(w.batch, w.record, w.codec)
	if err != nil {
		return err
	}
	all := make([]int32, len(leaders))
	for p := range all {
		all[p] = int32(p)
	}
	p, err := newProducer(leaders[0], topic, all, w.acks, b)
	if err != nil {
		return err
	}
	running := startAll([]load{p})
	for p.done() < 2*int64(len(all)*len(b.bytes)) && !running.failed() {
		time.Sleep(time.Millisecond)
	}
	p.end()
	return running.all()
}

// restart kills a broker and starts it again once its registration is gone. The clock runs from the process' start until the end
// offset of every partition is answered.
func restart(s *brokers, topic string, partitions int) (time.Duration, error) {
	b := s.cluster.Brokers[0]
	b.Kill()
	s.cluster.WaitGone(b)
	began := time.Now()
	b.Start()
	ctx, cancel := context.WithTimeout(context.Background(), adminPatience)
	defer cancel()
	for {
		err := allAnswer(ctx, s, topic, partitions)
		if err == nil {
			return time.Since(began), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%s is not back: %w", topic, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// allAnswer asks over a connection of its own: the client's would wait out a pause after the last refusal.
func allAnswer(ctx context.Context, s *brokers, topic string, partitions int) error {
	return listEnds(ctx, s.cluster.Brokers[0].Address, topic, partitions)
}
