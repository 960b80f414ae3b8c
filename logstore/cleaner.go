package logstore

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"ottla/internal/cluster"
	"ottla/internal/parallel"
)

// CleanerOptions are what a cleaner is made of.
type CleanerOptions struct {
	Logs     func() []*Log          // all logs; those with cleanup.policy=compact are cleaned
	Settings func() CleanerSettings // asked before each cleaning; nil: Kafka's defaults
	Logger   zerolog.Logger
}

// CleanerSettings are the settings log.cleaner.*.
type CleanerSettings struct {
	Threads        int     // logs that are cleaned at once; 0: none is
	DedupeBytes    int64   // dedupe.buffer.size, of all threads together
	LoadFactor     float64 // io.buffer.load.factor
	BytesPerSecond float64 // io.max.bytes.per.second, over reads and writes of all threads; 0: unlimited
}

// DefaultCleanerSettings are Kafka's defaults.
func DefaultCleanerSettings() CleanerSettings {
	return CleanerSettings{Threads: 1, DedupeBytes: 128 << 20, LoadFactor: 0.9}
}

// newMap makes the map of keys of one thread.
func (s CleanerSettings) newMap() *offsetMap {
	load := s.LoadFactor
	if load <= 0 || load > 1 {
		load = 0.9
	}
	return newOffsetMap(s.DedupeBytes/int64(max(s.Threads, 1)), load)
}

// Cleaner compacts logs: of each key only the newest record stays. A scheduler calls Pass every log.cleaner.backoff.ms. It guards
// itself.
//
// One cleaning of a log reads its dirty part into a map from key to last offset, then copies all segments below the end of
// what the map has seen, without the records that the map supersedes, and swaps the copies in. Appends and reads go on
// meanwhile. Memory is bounded by the map; what does not fit is left to the next cleaning.
type Cleaner struct {
	o        CleanerOptions
	throttle throttle

	mu struct {
		sync.Mutex
		busy   map[*Log]bool
		parked map[*Log]error // cannot be cleaned, until restart
	}
	totals cleanTotals
}

type cleanTotals struct {
	sync.Mutex
	cleanStats
	runs int64
	last time.Duration
}

// NewCleaner returns a cleaner.
func NewCleaner(o CleanerOptions) *Cleaner {
	if o.Settings == nil {
		o.Settings = DefaultCleanerSettings
	}
	c := &Cleaner{o: o}
	c.mu.busy, c.mu.parked = map[*Log]bool{}, map[*Log]error{}
	return c
}

// Pass cleans until no log is worth it, some at a time, then applies retention to the compacted logs. It stops early when ctx ends.
func (c *Cleaner) Pass(ctx context.Context, now time.Time) {
	threads := c.o.Settings().Threads
	parallel.For(threads, threads, func(int) {
		for ctx.Err() == nil && c.CleanOnce(ctx, now) {
		}
	})
	if ctx.Err() == nil {
		c.retain(now)
	}
}

// CleanOnce cleans the filthiest log that is worth it. It reports whether there was one.
func (c *Cleaner) CleanOnce(ctx context.Context, now time.Time) bool {
	plan, ok := c.choose(now)
	if !ok {
		return false
	}
	defer c.giveBack(plan.log)
	started := time.Now()
	stats, err := c.clean(ctx, plan, now)
	c.note(stats, time.Since(started))
	switch {
	case err == nil:
		plan.log.event(c.o.Logger.Info()).Int64("from", plan.firstDirty).Int64("bytes_read", stats.BytesRead).
			Int64("bytes_written", stats.BytesWritten).Int64("records", stats.Records).Int64("records_kept", stats.RecordsKept).
			Int64("dur_ms", time.Since(started).Milliseconds()).Msg("log cleaned")
	case errors.Is(err, errSegmentGone), errors.Is(err, ErrClosed), ctx.Err() != nil:
		return false // the log changed or goes away: another time
	default:
		return c.judge(plan.log, err)
	}
	return true
}

// judge decides what a failed cleaning means, and whether it makes sense to go on with other logs now.
func (c *Cleaner) judge(l *Log, err error) (goOn bool) {
	var fault *StorageError
	if !errors.As(err, &fault) || errors.Is(err, ErrCorrupt) {
		l.event(c.o.Logger.Error()).Err(err).Msg("log cannot be cleaned until the broker restarts: check its files with a dump tool, or make the dedupe buffer larger")
		c.mu.Lock()
		defer c.mu.Unlock()
		c.mu.parked[l] = err
		return true
	}
	l.event(c.o.Logger.Warn()).Err(err).Msg("log was not cleaned")
	if !fault.Full {
		l.owner.fail(err)
	}
	return false
}

// Parked lists the logs that cannot be cleaned, with the reason.
func (c *Cleaner) Parked() map[cluster.TopicPartition]error {
	c.mu.Lock()
	defer c.mu.Unlock()
	parked := make(map[cluster.TopicPartition]error, len(c.mu.parked))
	for l, err := range c.mu.parked {
		parked[l.tp] = err
	}
	return parked
}

// CleanerStats are totals since the start.
type CleanerStats struct {
	Runs                    int64
	BytesRead, BytesWritten int64
	Records, RecordsKept    int64
	WithoutKey              int64 // records that were dropped for want of a key
	LastRun                 time.Duration
}

// Stats returns the totals.
func (c *Cleaner) Stats() CleanerStats {
	c.totals.Lock()
	defer c.totals.Unlock()
	t := &c.totals
	return CleanerStats{
		Runs: t.runs, BytesRead: t.BytesRead, BytesWritten: t.BytesWritten, Records: t.Records,
		RecordsKept: t.RecordsKept, WithoutKey: t.WithoutKey, LastRun: t.last,
	}
}

func (c *Cleaner) note(s cleanStats, took time.Duration) {
	c.totals.Lock()
	defer c.totals.Unlock()
	t := &c.totals
	t.BytesRead += s.BytesRead
	t.BytesWritten += s.BytesWritten
	t.Records += s.Records
	t.RecordsKept += s.RecordsKept
	t.WithoutKey += s.WithoutKey
	t.runs++
	t.last = took
}

// ---- which log

// cleanPlan is what is to be cleaned of one log: [firstDirty, firstUncleanable) into the map, everything below copied.
type cleanPlan struct {
	log              *Log
	config           *Config
	view             *view
	firstDirty       int64
	firstUncleanable int64 // the base of a segment
	cleanBytes       int64
	dirtyBytes       int64 // cleanable ones
	overdue          bool  // max.compaction.lag.ms
}

func (p *cleanPlan) ratio() float64 {
	if p.dirtyBytes == 0 {
		return 0
	}
	return float64(p.dirtyBytes) / float64(p.cleanBytes+p.dirtyBytes)
}

func (p *cleanPlan) worthIt() bool {
	return p.dirtyBytes > 0 && (p.overdue || p.ratio() > p.config.MinCleanableRatio)
}

// choose takes the filthiest log that nobody else cleans; giveBack returns it.
func (c *Cleaner) choose(now time.Time) (best cleanPlan, ok bool) {
	logs := c.o.Logs()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgetGone(logs)
	for _, l := range logs {
		if !l.Config().Compact || c.mu.busy[l] || c.mu.parked[l] != nil || l.owner.fault() != nil {
			continue
		}
		plan, err := l.planCleaning(now)
		if err != nil || !plan.worthIt() { // a fault of reading shows where it matters; here it only means: not now
			continue
		}
		if !ok || plan.ratio() > best.ratio() {
			best, ok = plan, true
		}
	}
	if ok {
		c.mu.busy[best.log] = true
	}
	return best, ok
}

// forgetGone drops verdicts on logs that are no more. The holder of mu calls it.
func (c *Cleaner) forgetGone(logs []*Log) {
	if len(c.mu.parked) == 0 {
		return
	}
	there := make(map[*Log]bool, len(logs))
	for _, l := range logs {
		there[l] = true
	}
	for l := range c.mu.parked {
		if !there[l] {
			delete(c.mu.parked, l)
		}
	}
}

func (c *Cleaner) giveBack(l *Log) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.mu.busy, l)
}

// retain applies retention to compacted logs that nobody cleans: the log's start, and for compact,delete size and time.
func (c *Cleaner) retain(now time.Time) {
	for _, l := range c.o.Logs() {
		if !l.Config().Compact || !c.take(l) {
			continue
		}
		if _, err := l.Retain(now); err != nil && !errors.Is(err, ErrClosed) {
			l.event(c.o.Logger.Warn()).Err(err).Msg("retention failed")
		}
		c.giveBack(l)
	}
}

func (c *Cleaner) take(l *Log) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.busy[l] {
		return false
	}
	c.mu.busy[l] = true
	return true
}

// planCleaning looks at headers only.
func (l *Log) planCleaning(now time.Time) (cleanPlan, error) {
	p := cleanPlan{log: l, config: l.Config(), view: l.view.Load()}
	v := p.view
	p.firstDirty = l.cleanedTo()
	if p.firstDirty < v.logStart || p.firstDirty > v.logEnd {
		p.firstDirty = v.logStart
	}
	limit, err := v.uncleanableFrom(p.config, p.firstDirty, now)
	if err != nil {
		return p, err
	}
	p.firstUncleanable = v.segments[v.find(limit)].base
	for i, s := range v.segments {
		switch {
		case s.base >= p.firstUncleanable:
		case i+1 < len(v.segments) && v.segments[i+1].base <= p.firstDirty:
			p.cleanBytes += v.segmentSize(i)
		default: // the segment that holds firstDirty counts as dirty from there on, as a whole
			p.dirtyBytes += v.segmentSize(i)
		}
	}
	if p.dirtyBytes > 0 && p.config.MaxCompactionLag < math.MaxInt64 {
		p.overdue, err = l.isOverdue(&p, now)
	}
	return p, err
}

// uncleanableFrom is the first offset that must not be cleaned: open transactions, the active segment, records too young.
func (v *view) uncleanableFrom(c *Config, firstDirty int64, now time.Time) (int64, error) {
	limit := min(v.lastStable, v.active().base)
	if c.MinCompactionLag <= 0 {
		return limit, nil
	}
	youngest := now.Add(-c.MinCompactionLag).UnixMilli()
	for i := v.find(firstDirty); !v.isActive(i) && v.segments[i].base < limit; i++ {
		largest, err := v.largestTimestamp(i)
		if err != nil {
			return 0, err
		}
		if largest > youngest {
			return v.segments[i].base, nil
		}
	}
	return limit, nil
}

// isOverdue: the oldest dirty segment began more than max.compaction.lag.ms ago. Source: KIP-354.
func (l *Log) isOverdue(p *cleanPlan, now time.Time) (bool, error) {
	oldest := now.Add(-p.config.MaxCompactionLag).UnixMilli()
	v := p.view
	for i := v.find(p.firstDirty); !v.isActive(i); i++ {
		if v.segmentSize(i) == 0 {
			continue
		}
		first, err := l.firstTimestamp(v.segments[i], v.segmentSize(i))
		if err != nil {
			return false, err
		}
		if first > 0 && first < oldest {
			return true, nil
		}
	}
	return false, nil
}

// throttle spreads bytes over time. It guards itself.
type throttle struct {
	mu   sync.Mutex
	rate float64   // bytes a second, 0 unlimited
	free time.Time // when the next byte may pass
}

func (t *throttle) set(rate float64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rate = rate
}

// pass returns when n more bytes may pass.
func (t *throttle) pass(ctx context.Context, n int) error {
	t.mu.Lock()
	if t.rate <= 0 || n == 0 {
		t.mu.Unlock()
		return ctx.Err()
	}
	now := time.Now()
	if t.free.Before(now) {
		t.free = now
	}
	wait := t.free.Sub(now)
	t.free = t.free.Add(time.Duration(float64(n) / t.rate * float64(time.Second)))
	t.mu.Unlock()
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
