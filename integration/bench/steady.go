package bench

import (
	"encoding/binary"
	"fmt"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// steady sends batches on one connection at a fixed rate and notes how late each answer is, from the moment at which its batch should
// have been sent.
type steady struct {
	p        *producer
	interval time.Duration
	began    time.Time
	offset   time.Duration // of this connection's beat

	due      [steadyWindow]atomic.Int64 // ns after began
	answered atomic.Uint32
	minutes  []*spread // by the minute of the answer
}

// steadyWindow bounds what a connection has in flight. A broker that falls behind by more stops the clock of its producer, which the
// latencies show.
const steadyWindow = 1 << 14

func newSteady(p *producer, perSecond float64, offset time.Duration, minutes int) *steady {
	s := &steady{p: p, interval: time.Duration(float64(time.Second) / perSecond), offset: offset}
	for range minutes + 1 {
		s.minutes = append(s.minutes, new(spread))
	}
	return s
}

// send returns at the end, or when stop is set.
func (s *steady) send(stop *atomic.Bool) error {
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	for next := uint32(0); !stop.Load(); {
		due := s.offset + time.Duration(next)*s.interval
		if wait := due - time.Since(s.began); wait > 0 {
			ts := unix.NsecToTimespec(wait.Nanoseconds())
			_ = unix.Nanosleep(&ts, nil)
			continue
		}
		if next-s.answered.Load() >= steadyWindow {
			time.Sleep(time.Millisecond)
			continue
		}
		s.due[next%steadyWindow].Store(due.Nanoseconds())
		binary.BigEndian.PutUint32(s.p.frames[correlationAt:], next)
		next++
		if err := s.p.s.write(s.p.frames[:s.p.frame]); err != nil {
			return err
		}
	}
	return nil
}

func (s *steady) read() error {
	for {
		err := s.p.s.frames(func(answer []byte) error {
			n := s.answered.Load()
			if err := checkProduced(answer, n, s.p.errorAt); err != nil {
				return err
			}
			now := time.Since(s.began)
			s.minutes[min(int(now.Minutes()), len(s.minutes)-1)].add(now.Nanoseconds() - s.due[n%steadyWindow].Load())
			s.answered.Add(1)
			s.p.stored.Add(s.p.payload)
			return nil
		})
		if err != nil {
			return err
		}
	}
}

// spread counts latencies in buckets that grow by 4 %.
type spread [600]atomic.Int64

const spreadStep = 1.04

func (s *spread) add(ns int64) {
	bucket := 0
	if us := float64(ns) / 1e3; us > 1 {
		bucket = int(math.Log(us) / math.Log(spreadStep))
	}
	s[min(bucket, len(s)-1)].Add(1)
}

func (s *spread) merge(other *spread) {
	for i := range other {
		s[i].Add(other[i].Load())
	}
}

func (s *spread) count() (n int64) {
	for i := range s {
		n += s[i].Load()
	}
	return n
}

// quantile is in milliseconds, NaN when nothing was counted.
func (s *spread) quantile(q float64) float64 {
	rest := int64(math.Ceil(q * float64(s.count())))
	if rest == 0 {
		return math.NaN()
	}
	for i := range s {
		if rest -= s[i].Load(); rest <= 0 {
			return math.Pow(spreadStep, float64(i)+0.5) / 1e3
		}
	}
	return math.NaN()
}

// minuteOf is the spread of one minute over all connections, or of several.
func minutesOf(all []*steady, from, to int) *spread {
	sum := new(spread)
	for _, s := range all {
		for m := from; m < to; m++ {
			sum.merge(s.minutes[m])
		}
	}
	return sum
}

// state is what could grow in a broker.
type state struct {
	resident, anonymous, goroutines, files, mappings float64
}

func (s *state) String() string {
	return fmt.Sprintf("%.1f MB resident, %.1f anonymous, %.0f goroutines, %.0f files, %.0f mappings",
		s.resident/1e6, s.anonymous/1e6, s.goroutines, s.files, s.mappings)
}

func (s *state) raise(other state) {
	s.resident, s.anonymous = max(s.resident, other.resident), max(s.anonymous, other.anonymous)
	s.goroutines, s.files, s.mappings = max(s.goroutines, other.goroutines), max(s.files, other.files), max(s.mappings, other.mappings)
}

// grew says what is clearly more than before.
func (s *state) grew(before state) (complaints []string) {
	for _, v := range []struct {
		name          string
		before, after float64
		slack         float64
	}{
		{"resident memory", before.resident, s.resident, 16e6},
		{"anonymous memory", before.anonymous, s.anonymous, 16e6},
		{"goroutines", before.goroutines, s.goroutines, 20},
		{"open files", before.files, s.files, 40},
		{"mappings", before.mappings, s.mappings, 40},
	} {
		if v.after > 1.1*v.before+v.slack {
			complaints = append(complaints, fmt.Sprintf("%s grew from %.0f to %.0f", v.name, v.before, v.after))
		}
	}
	return complaints
}
