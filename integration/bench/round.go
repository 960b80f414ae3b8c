package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// figures are what a round has measured, by name.
type figures map[string]float64

// A round's bounds. More bytes than that would measure the disk's write-back, which starts at a tenth of the memory.
const (
	roundBytes   = 2_000 * mb
	touchedBytes = 500 * mb               // of page cache, before a round, for each replica
	settling     = 400 * time.Millisecond // at the head of a round, unmeasured
)

var topics atomic.Int32

func freshTopic(w *workload) string { return fmt.Sprintf("%s-%03d", w.name, topics.Add(1)) }

// load is what runs during a round.
type load interface {
	run() error
	done() int64 // payload bytes
	end()        // ask to stop
	close()
}

func (p *producer) done() int64 { return p.stored.Load() }
func (p *producer) end()        { p.stop.Store(true) }
func (p *producer) close()      { p.s.close() }
func (c *consumer) done() int64 { return c.fetched.Load() }
func (c *consumer) end()        { c.stop.Store(true) }
func (c *consumer) close()      { c.s.close() }

// produceRound sends to a fresh topic for a while.
func produceRound(s side, w *workload, span time.Duration) (figures, error) {
	b, err := newBatch(w.batch, w.record, w.codec)
	if err != nil {
		return nil, err
	}
	topic := freshTopic(w)
	leaders, err := s.create(topic, w.partitionCount(), w.replicas)
	if err != nil {
		return nil, err
	}
	defer s.remove(topic)
	loads, err := producersOf(leaders, topic, w, b)
	if err != nil {
		return nil, err
	}
	return measure(s, loads, span)
}

// producersOf makes the connections: one a partition, or so many in all, each to one broker and in turn to its partitions.
func producersOf(leaders []string, topic string, w *workload, b batch) ([]load, error) {
	var loads []load
	add := func(address string, partitions []int32) error {
		p, err := newProducer(address, topic, partitions, w.acks, b)
		if err == nil {
			loads = append(loads, p)
		}
		return err
	}
	if w.connections == 0 {
		for p, address := range leaders {
			if err := add(address, []int32{int32(p)}); err != nil {
				return loads, err
			}
		}
		return loads, nil
	}
	addresses := slices.Compact(slices.Sorted(slices.Values(leaders)))
	for i := range w.connections {
		address := addresses[i%len(addresses)]
		var mine []int32
		for p := range leaders {
			if leaders[p] == address {
				mine = append(mine, int32(p))
			}
		}
		share := max(1, len(mine)*len(addresses)/w.connections)
		from := i / len(addresses) * share % len(mine)
		if err := add(address, mine[from:min(from+share, len(mine))]); err != nil {
			return loads, err
		}
	}
	return loads, nil
}

// cached is a topic that consume rounds read over and over.
type cached struct {
	topic   string
	leaders []string
	batch   batch
	each    int64 // records a partition
}

// cachedBytes is how much is read over and over: far more than any cache of the processor, far less than the memory.
const cachedBytes = 600 * mb

// fillCache writes what consume rounds read.
func fillCache(s side, w *workload) (*cached, error) {
	b, err := newBatch(w.batch, w.record, w.codec)
	if err != nil {
		return nil, err
	}
	c := &cached{topic: freshTopic(w), batch: b}
	if c.leaders, err = s.create(c.topic, w.partitionCount(), w.replicas); err != nil {
		return nil, err
	}
	loads, err := producersOf(c.leaders, c.topic, w, b)
	if err != nil {
		return nil, err
	}
	each := int64(cachedBytes / len(c.leaders) / len(b.bytes))
	wait := startAll(loads)
	for _, l := range loads {
		for l.done() < each*int64(len(b.bytes)) && !wait.failed() {
			time.Sleep(time.Millisecond)
		}
		l.end()
	}
	c.each = each * int64(b.records)
	return c, wait.all()
}

func consumeRound(s side, c *cached, span time.Duration) (figures, error) {
	var loads []load
	for p, address := range c.leaders {
		l, err := newConsumer(address, c.topic, int32(p), c.batch)
		if err != nil {
			return nil, err
		}
		l.turn = c.each
		loads = append(loads, l)
	}
	return measure(s, loads, span)
}

// running is a set of loads at work.
type running struct {
	loads []load
	wg    sync.WaitGroup
	fault atomic.Pointer[error]
}

func startAll(loads []load) *running {
	r := &running{loads: loads}
	for _, l := range loads {
		r.wg.Go(func() {
			if err := onThread(l.run); err != nil {
				r.fault.CompareAndSwap(nil, &err)
			}
		})
	}
	return r
}

func (r *running) failed() bool { return r.fault.Load() != nil }

// all waits for the end of the loads.
func (r *running) all() error {
	r.wg.Wait()
	for _, l := range r.loads {
		l.close()
	}
	if err := r.fault.Load(); err != nil {
		return *err
	}
	return nil
}

func (r *running) done() (sum int64) {
	for _, l := range r.loads {
		sum += l.done()
	}
	return sum
}

// measure runs loads for a while and tells what they moved and what that cost.
func measure(s side, loads []load, span time.Duration) (figures, error) {
	r := startAll(loads)
	time.Sleep(settling)
	from, err := usageOf(s.pids())
	own, began, before := ownCPU(), time.Now(), r.done()
	for time.Since(began) < span && r.done()-before < roundBytes && !r.failed() {
		time.Sleep(2 * time.Millisecond)
	}
	moved, took, ownTo := r.done()-before, time.Since(began), ownCPU()
	to, err2 := usageOf(s.pids())
	for _, l := range loads {
		l.end()
	}
	if err := errors.Join(err, err2, r.all()); err != nil {
		return nil, err
	}
	gb := float64(moved) / 1e9
	return figures{
		throughput: gb * 1e3 / took.Seconds(),
		cpuPerGB:   (to.cpu - from.cpu).Seconds() / gb,
		clientCPU:  (ownTo - own).Seconds() / gb,
	}, nil
}

// openLoopRound sends single records at the workload's rate.
func openLoopRound(s side, w *workload, span time.Duration) (figures, error) {
	b, err := newBatch(w.batch, w.record, w.codec)
	if err != nil {
		return nil, err
	}
	topic := freshTopic(w)
	leaders, err := s.create(topic, w.partitionCount(), w.replicas)
	if err != nil {
		return nil, err
	}
	defer s.remove(topic)
	skip := w.rate // a second
	o := newOpenLoop(w.rate, skip+int(span.Seconds()*float64(w.rate)))
	for p, address := range leaders {
		producer, err := newProducer(address, topic, []int32{int32(p)}, w.acks, b)
		if err != nil {
			return nil, err
		}
		defer producer.close()
		var reader *consumer
		if w.kind == endToEnd {
			if reader, err = newConsumer(address, topic, int32(p), b); err != nil {
				return nil, err
			}
			defer reader.close()
		}
		o.add(producer, reader)
	}
	from, err := usageOf(s.pids())
	if err := errors.Join(err, o.run()); err != nil {
		return nil, err
	}
	to, err := usageOf(s.pids())
	if err != nil {
		return nil, err
	}
	acks := o.latencies(o.acked, skip)
	f := figures{
		p50: percentile(acks, 0.5), p99: percentile(acks, 0.99), p999: percentile(acks, 0.999),
		cpuPerGB: (to.cpu - from.cpu).Seconds() / (float64(o.n*len(b.bytes)) / 1e9),
	}
	if w.kind == endToEnd {
		seen := o.latencies(o.seen, skip)
		f[endToEndP50], f[endToEndP99], f[endToEndP999] = percentile(seen, 0.5), percentile(seen, 0.99), percentile(seen, 0.999)
	}
	return f, nil
}

// touchPages writes and drops as much page cache as a round will fill: a virtual machine's first touch of memory that it had given
// back to its host costs several times the second one.
func touchPages(dir string, bytes int64) error {
	f, err := os.Create(filepath.Join(dir, "touch"))
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	piece := make([]byte, 4<<20)
	for ; bytes > 0; bytes -= int64(len(piece)) {
		if _, err := f.Write(piece); err != nil {
			return err
		}
	}
	return nil
}
