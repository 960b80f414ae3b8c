package controller

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// BenchmarkFailover times how long a new controller takes until it is active and every broker has its roles, over a ZooKeeper in
// memory: what is measured is the controller's own work.
func BenchmarkFailover(b *testing.B) {
	for _, partitions := range []int{5_000, 50_000} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			w := newWorld(b, nil)
			w.quiet = true
			for id := range 3 {
				w.start(cluster.BrokerID(id+1), "")
			}
			const perTopic = 50
			for n := range partitions / perTopic {
				spec := TopicSpec{Name: fmt.Sprintf("topic-%05d", n), Partitions: perTopic, ReplicationFactor: 3}
				_, err := CreateTopic(w.admin, w.snapshot, mustBrokers(w), spec)
				require.NoError(b, err)
			}
			waitFor(b, func() bool { return w.roles() == 3*partitions })
			for b.Loop() {
				old := w.controller()
				reign := old.ctrl.currentReign()
				start := time.Now()
				w.expire(old.id)
				waitFor(b, func() bool { c := w.controller(); return c != nil && c.ctrl.currentReign() != reign && w.settled() })
				b.ReportMetric(float64(time.Since(start).Milliseconds()), "ms/failover")
			}
			b.StopTimer()
			w.close()
		})
	}
}

func mustBrokers(w *world) []cluster.Broker {
	brokers, err := zkcoord.Brokers(w.admin)
	if err != nil {
		panic(err)
	}
	return brokers
}

func waitFor(b *testing.B, holds func() bool) {
	end := time.Now().Add(time.Minute)
	for !holds() {
		if time.Now().After(end) {
			b.Fatal("waited for a minute")
		}
		time.Sleep(time.Millisecond)
	}
}

// roles counts the replicas that know their role.
func (w *world) roles() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, b := range w.brokers {
		n += len(b.hosted)
	}
	return n
}

// settled reports whether no broker has anything left to hear.
func (w *world) settled() bool {
	c := w.controller()
	if c == nil {
		return false
	}
	r := c.ctrl.currentReign()
	if r == nil || !c.ctrl.Active() {
		return false
	}
	ok := make(chan bool, 1)
	c.ctrl.queue.put(event{name: "settled", reign: r, run: func() {
		for _, s := range r.senders {
			s.mu.Lock()
			waiting := len(s.mu.queue)
			s.mu.Unlock()
			if waiting > 0 {
				ok <- false
				return
			}
		}
		ok <- true
	}, drop: func() { ok <- false }})
	return <-ok
}
