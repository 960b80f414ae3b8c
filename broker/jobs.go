package broker

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// job is one piece of background work. period is asked before each wait, so that a changed setting takes effect.
type job struct {
	name   string
	first  time.Duration // before the first run; 0: one period
	period func() time.Duration
	run    func(ctx context.Context, now time.Time) // ends early when ctx does: the broker stops
}

// scheduler starts, names, measures and stops the background work of a broker: the one place to look for it.
type scheduler struct {
	log    zerolog.Logger
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func startJobs(jobs []job, log zerolog.Logger) *scheduler {
	ctx, cancel := context.WithCancel(context.Background())
	s := &scheduler{log: log.With().Str("component", "scheduler").Logger(), cancel: cancel}
	for _, j := range jobs {
		s.wg.Go(func() { s.jobLoop(ctx, j) })
	}
	return s
}

func (s *scheduler) jobLoop(ctx context.Context, j job) {
	wait := j.first
	if wait == 0 {
		wait = j.period()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-timer.C:
			s.once(ctx, j, now)
			timer.Reset(j.period())
		}
	}
}

// once runs a job; a panic ends this run, not the broker.
func (s *scheduler) once(ctx context.Context, j job, now time.Time) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error().Str("job", j.name).Interface("panic", p).Bytes("stack", debug.Stack()).Msg("background job panicked")
		}
		if took := time.Since(now); took > j.period() {
			s.log.Warn().Str("job", j.name).Int64("dur_ms", took.Milliseconds()).Msg("background job takes longer than its period")
		}
	}()
	j.run(ctx, now)
}

// stop ends all jobs and waits for those that run.
func (s *scheduler) stop() {
	s.cancel()
	s.wg.Wait()
}

// tasks runs what a connection must not wait for (ZooKeeper, disks) on goroutines of its own, a bounded number at a time.
type tasks struct {
	wg    sync.WaitGroup
	slots chan struct{}
}

// tasksAtOnce bounds the goroutines that may wait for ZooKeeper or a disk on behalf of requests.
const tasksAtOnce = 64

func newTasks() *tasks { return &tasks{slots: make(chan struct{}, tasksAtOnce)} }

func (t *tasks) run(fn func()) {
	t.wg.Go(func() {
		t.slots <- struct{}{}
		defer func() { <-t.slots }()
		fn()
	})
}

func (t *tasks) wait() { t.wg.Wait() }
