package bench

import (
	"encoding/binary"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// openLoop sends single records at a fixed rate, however long the answers take, and times each from the moment at which it should
// have been sent.
type openLoop struct {
	lanes []*lane
	rate  int
	n     int // records in all

	began time.Time
	due   []int64 // ns after began
	acked []int64 // ns after began; 0: not yet. Each is written by its lane's reader alone
	seen  []int64 // by the consumers, where there are any
}

// lane is one connection, to one partition.
type lane struct {
	p    *producer
	c    *consumer
	mine []int32      // records of this lane, by their order, which is their offset
	have atomic.Int64 // so many of mine are set
}

func newOpenLoop(rate, n int) *openLoop {
	return &openLoop{rate: rate, n: n, due: make([]int64, n), acked: make([]int64, n), seen: make([]int64, n)}
}

func (o *openLoop) add(p *producer, c *consumer) {
	l := &lane{p: p, c: c, mine: make([]int32, o.n)}
	if c != nil {
		c.arrived = func(from, to int64, at time.Time) {
			for i := from; i < to && i < l.have.Load(); i++ {
				o.seen[l.mine[i]] = at.Sub(o.began).Nanoseconds()
			}
		}
	}
	o.lanes = append(o.lanes, l)
}

// drain is how long answers are waited for after the last record. What has not come by then counts as that late.
const drain = 10 * time.Second

// run returns when all has been answered, or drain is over.
func (o *openLoop) run() error {
	var wg sync.WaitGroup
	fault := make(chan error, 2*len(o.lanes)+1)
	o.began = time.Now()
	var ending atomic.Bool
	note := func(err error) {
		if err != nil && !ending.Load() {
			fault <- err
		}
	}
	for _, l := range o.lanes {
		wg.Go(func() { note(onThread(func() error { return o.read(l) })) })
		if l.c != nil {
			wg.Go(func() { note(onThread(l.c.run)) })
		}
	}
	err := o.send()
	for end := time.Now().Add(drain); err == nil && !o.complete() && time.Now().Before(end); {
		select {
		case err = <-fault:
		case <-time.After(5 * time.Millisecond):
		}
	}
	ending.Store(true)
	for _, l := range o.lanes {
		l.p.s.shutdown()
		if l.c != nil {
			l.c.stop.Store(true)
			l.c.s.shutdown()
		}
	}
	wg.Wait()
	return err
}

// onThread runs f on a thread of its own, which lives on: with it would end the processes that were started from it (Pdeathsig).
func onThread(f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return f()
}

func (o *openLoop) complete() bool {
	for _, l := range o.lanes {
		want := l.have.Load()
		if l.p.stored.Load() < want || l.c != nil && l.c.fetched.Load() < want*int64(len(l.c.batch.bytes)) {
			return false
		}
	}
	return true
}

// send wakes at each record's time. The thread sleeps in the kernel with the least slack that it offers.
func (o *openLoop) send() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	for i := range o.n {
		due := time.Duration(i) * time.Second / time.Duration(o.rate)
		o.due[i] = due.Nanoseconds()
		if wait := due - time.Since(o.began); wait > 0 {
			ts := unix.NsecToTimespec(wait.Nanoseconds())
			_ = unix.Nanosleep(&ts, nil)
		}
		l := o.lanes[i%len(o.lanes)]
		l.mine[l.have.Load()] = int32(i)
		l.have.Add(1)
		binary.BigEndian.PutUint32(l.p.frames[correlationAt:], uint32(i))
		if err := l.p.s.write(l.p.frames[:l.p.frame]); err != nil {
			return err
		}
	}
	return nil
}

func (o *openLoop) read(l *lane) error {
	for {
		err := l.p.s.frames(func(answer []byte) error {
			i := binary.BigEndian.Uint32(answer[4:])
			if int(i) >= o.n {
				return fmt.Errorf("answer %d came", i)
			}
			if err := checkProduced(answer, i, l.p.errorAt); err != nil {
				return err
			}
			o.acked[i] = time.Since(o.began).Nanoseconds()
			l.p.stored.Add(1)
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// latencies are the milliseconds from each record's time to stamps, without the first skip records, sorted.
func (o *openLoop) latencies(stamps []int64, skip int) []float64 {
	late := float64((time.Duration(o.n)*time.Second/time.Duration(o.rate) + drain).Milliseconds())
	var out []float64
	for i := skip; i < o.n; i++ {
		ms := float64(stamps[i]-o.due[i]) / 1e6
		if stamps[i] == 0 {
			ms = late - float64(o.due[i])/1e6
		}
		out = append(out, ms)
	}
	return sorted(out)
}

// percentile is the smallest value that at least the share q of sorted values does not exceed.
func percentile(sorted []float64, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return sorted[max(0, int(math.Ceil(q*float64(len(sorted))))-1)]
}
