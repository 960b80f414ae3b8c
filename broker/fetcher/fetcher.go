package fetcher

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/internal/cluster"
)

// fetcher is one goroutine that fetches some partitions of one source broker. Everything but mu belongs to that goroutine.
type fetcher struct {
	id  fetcherID
	m   *Manager
	log zerolog.Logger

	conn    Conn
	session session
	items   map[*partition.Partition]*item
	due     []*item // to be looked at before the next fetch
	paused  []*item
	pause   backoff // of the connection

	signal chan struct{} // holds one token while mu has news
	mu     struct {
		sync.Mutex
		news   map[*partition.Partition]news
		status Status
	}
}

// news is what a change of role tells the goroutine about a partition: the last word counts.
type news struct {
	remove bool
	epoch  cluster.LeaderEpoch
}

// item is one partition in the care of a fetcher.
type item struct {
	p     *partition.Partition
	tp    cluster.TopicPartition
	epoch cluster.LeaderEpoch // of the decision that gave it to us
	state itemState
	due   bool // in fetcher.due
	pause backoff
	until time.Time // end of the pause
	lag   int64     // leader's high watermark less own log end, at the last answer

	inSession bool
	sent      partition.FollowPosition // what the leader's session believes
}

type itemState int8

const (
	fetching itemState = iota
	pausing            // after an error
	failed             // until the next decision
	removed
)

// backoff doubles from a few milliseconds to a limit.
type backoff struct{ last time.Duration }

const backoffMin = 10 * time.Millisecond

func (b *backoff) next(limit time.Duration) time.Duration {
	b.last = min(max(2*b.last, backoffMin), max(limit, backoffMin))
	return b.last
}

func (b *backoff) reset() { b.last = 0 }

func newFetcher(m *Manager, id fetcherID) *fetcher {
	f := &fetcher{
		id: id, m: m, items: map[*partition.Partition]*item{}, signal: make(chan struct{}, 1),
		log: m.log.With().Int32("source", int32(id.source)).Int("fetcher", id.index).Logger(),
	}
	f.session.reset()
	f.mu.news = map[*partition.Partition]news{}
	f.mu.status = Status{Source: id.source, Index: id.index}
	return f
}

func (f *fetcher) add(p *partition.Partition, epoch cluster.LeaderEpoch) {
	f.tell(p, news{epoch: epoch})
}

func (f *fetcher) remove(p *partition.Partition) { f.tell(p, news{remove: true}) }

func (f *fetcher) tell(p *partition.Partition, n news) {
	f.mu.Lock()
	f.mu.news[p] = n
	f.mu.Unlock()
	select {
	case f.signal <- struct{}{}:
	default:
	}
}

// idle reports whether there is neither work nor news. Called by the goroutine itself (retire).
func (f *fetcher) idle() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.items) == 0 && len(f.mu.news) == 0
}

func (f *fetcher) status() Status {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.status
}

func (f *fetcher) publish() {
	s := Status{Source: f.id.source, Index: f.id.index, Partitions: len(f.items), Paused: len(f.paused)}
	for _, it := range f.items {
		if it.state == failed {
			s.Failed++
		}
		s.MaxLag = max(s.MaxLag, it.lag)
	}
	f.mu.Lock()
	f.mu.status = s
	f.mu.Unlock()
}

func (f *fetcher) runLoop() {
	defer f.disconnect()
	f.log.Info().Msg("fetcher started")
	for f.m.ctx.Err() == nil {
		changed := f.takeNews()
		changed = f.endPauses(time.Now()) || changed
		if len(f.items) == 0 && f.m.retire(f) {
			break
		}
		if changed {
			f.publish()
		}
		if !f.round() {
			f.waitForWork()
		}
	}
	f.log.Info().Msg("fetcher ended")
}

// takeNews applies what changes of roles have told.
func (f *fetcher) takeNews() bool {
	f.mu.Lock()
	all := f.mu.news
	if len(all) == 0 {
		f.mu.Unlock()
		return false
	}
	f.mu.news = map[*partition.Partition]news{}
	f.mu.Unlock()
	for p, n := range all {
		if old := f.items[p]; old != nil {
			old.state = removed
			delete(f.items, p)
			f.session.forget(old)
		}
		if n.remove {
			continue
		}
		it := &item{p: p, tp: p.TopicPartition(), epoch: n.epoch}
		f.items[p] = it
		f.markDue(it)
	}
	return true
}

func (f *fetcher) markDue(it *item) {
	if it.due || it.state != fetching {
		return
	}
	it.due = true
	f.due = append(f.due, it)
}

// pauseItem takes a partition out of the fetches for a while, longer each time.
func (f *fetcher) pauseItem(it *item) {
	f.pauseItemFor(it, it.pause.next(f.m.options.Settings().Backoff))
}

func (f *fetcher) pauseItemFor(it *item, d time.Duration) {
	if it.state != fetching {
		return
	}
	it.state = pausing
	it.until = time.Now().Add(d)
	f.paused = append(f.paused, it)
	f.session.forget(it)
}

func (f *fetcher) fail(it *item, err error) {
	if it.state != fetching {
		return
	}
	it.state = failed
	f.session.forget(it)
	e := f.log.Error()
	if errors.Is(err, kerr.FencedLeaderEpoch) { // the leader has heard of an election before us
		e = f.log.Info()
	}
	e.Err(err).Stringer("partition", it.tp).Int32("leader_epoch", int32(it.epoch)).
		Msg("replication of the partition stopped until the controller's next decision on it")
}

func (f *fetcher) endPauses(now time.Time) bool {
	kept := f.paused[:0]
	ended := false
	for _, it := range f.paused {
		switch {
		case it.state != pausing: // removed meanwhile
		case it.until.After(now):
			kept = append(kept, it)
		default:
			it.state = fetching
			f.markDue(it)
			ended = true
		}
	}
	clear(f.paused[len(kept):])
	f.paused = kept
	return ended
}

// waitForWork waits until a pause ends or there is news.
func (f *fetcher) waitForWork() {
	wait := time.Minute
	now := time.Now()
	for _, it := range f.paused {
		wait = min(wait, it.until.Sub(now))
	}
	f.sleep(max(wait, time.Millisecond), true)
}

// sleep ends early when the manager closes, and with news also for those.
func (f *fetcher) sleep(d time.Duration, forNews bool) {
	news := f.signal
	if !forNews {
		news = nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-f.m.ctx.Done():
	case <-t.C:
	case <-news:
	}
}

// round makes one fetch and applies it. It reports false when there is nothing to ask for.
func (f *fetcher) round() bool {
	settings := f.m.options.Settings()
	req := f.build(&settings)
	if req == nil {
		return false
	}
	resp, release, err := f.send(req, &settings)
	if err != nil {
		f.lost(err, &settings)
		return true
	}
	defer release()
	f.pause.reset()
	if resp.ErrorCode != 0 {
		f.refused(kerr.ErrorForCode(resp.ErrorCode), &settings)
		return true
	}
	f.session.answered(resp)
	f.apply(resp)
	return true
}

func (f *fetcher) send(req *kmsg.FetchRequest, settings *Settings) (*kmsg.FetchResponse, func(), error) {
	ctx, cancel := context.WithTimeout(f.m.ctx, settings.RequestTimeout)
	defer cancel()
	if err := f.connect(ctx); err != nil {
		return nil, nil, err
	}
	resp, release, err := f.conn.Borrow(ctx, req)
	if err != nil {
		return nil, nil, err
	}
	fetched, ok := resp.(*kmsg.FetchResponse)
	if !ok {
		release()
		return nil, nil, errUnexpected
	}
	return fetched, release, nil
}

func (f *fetcher) connect(ctx context.Context) error {
	if f.conn != nil {
		return nil
	}
	conn, err := f.m.options.Dial(ctx, f.id.source)
	if err != nil {
		return err
	}
	f.conn = conn
	f.m.options.Connected(f.id.source, nil)
	return nil
}

func (f *fetcher) disconnect() {
	if f.conn != nil {
		_ = f.conn.Close()
		f.conn = nil
	}
}

// lost is for a connection that broke: everything waits a little, and starts with a new session.
func (f *fetcher) lost(err error, settings *Settings) {
	f.disconnect()
	if f.m.ctx.Err() == nil {
		f.m.options.Connected(f.id.source, err)
	}
	f.restart()
	d := f.pause.next(settings.Backoff)
	if f.m.ctx.Err() == nil {
		f.log.Warn().Err(err).Dur("pause", d).Int("partitions", len(f.items)).Msg("fetching from the leader failed")
	}
	f.sleep(d, false)
}

// refused is for an answer that concerns the whole request: the session is unknown or out of step.
func (f *fetcher) refused(err error, settings *Settings) {
	f.log.Debug().Err(err).Msg("fetch session ended, open a new one")
	f.restart()
	if !sessionError(err) {
		f.sleep(f.pause.next(settings.Backoff), false)
	}
}

// restart opens a new session with the next fetch, which then names everything.
func (f *fetcher) restart() {
	f.session.restart()
	for _, it := range f.items {
		it.inSession = false
		f.markDue(it)
	}
}
