package scrape

import (
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
)

// Requests counts and times what a server does: it is the server's Hooks. What an API needs is made at its first request. The zero value is
// ready.
type Requests struct {
	apis    [apiSlots]atomic.Pointer[apiStats]
	opened  atomic.Int64
	closed  atomic.Int64
	refused atomic.Int64
}

var _ wire.Hooks = (*Requests)(nil)

const (
	maxKey = 92 // of any request that a table can name
	// Kafka tells fetches a second time, by who fetches.
	fetchConsumer, fetchFollower = maxKey, maxKey + 1
	apiSlots                     = maxKey + 2
	maxVersions                  = 24
	keyFetch                     = 1
)

// apiStats is what is kept for one API.
type apiStats struct {
	name     string
	tell     func(code int16) // countError as a value, made once
	versions [maxVersions]atomic.Int64
	errors   [errorSlots]atomic.Int64 // by code, see errorSlot
	total    Histogram
	local    Histogram
	remote   Histogram
	send     Histogram
	inBytes  atomic.Int64
	outBytes atomic.Int64
}

// errorSlots has room for codes -1 … 254; what is beyond is told as UNKNOWN_SERVER_ERROR.
const errorSlots = 256

func errorSlot(code int16) int {
	if code < -1 || int(code) >= errorSlots-1 {
		return 0
	}
	return int(code) + 1
}

func (s *apiStats) countError(code int16) { s.errors[errorSlot(code)].Add(1) }

// of returns the place of an API, made when it is the first request.
func (q *Requests) of(slot int) *apiStats {
	if slot < 0 || slot >= apiSlots {
		slot = 0
	}
	if s := q.apis[slot].Load(); s != nil {
		return s
	}
	s := &apiStats{name: slotName(slot)}
	s.tell = s.countError
	q.apis[slot].CompareAndSwap(nil, s)
	return q.apis[slot].Load()
}

func slotName(slot int) string {
	switch slot {
	case fetchConsumer:
		return "FetchConsumer"
	case fetchFollower:
		return "FetchFollower"
	}
	return kafkaName.Replace(kmsg.NameForKey(int16(slot)))
}

// kafkaName writes a request's name as Kafka does.
var kafkaName = strings.NewReplacer("AlterPartitionAssignments", "AlterPartitionReassignments", "ISR", "Isr", "IDs", "Ids", "ID", "Id", "ACL", "Acl", "SASL", "Sasl", "SCRAM", "Scram")

// fetchSlot is the second place in which a fetch counts.
func fetchSlot(r *wire.Request) (slot int, ok bool) {
	req, ok := r.Body.(*kmsg.FetchRequest)
	switch {
	case !ok:
		return 0, false
	case r.Version >= 15 && req.ReplicaState.ID >= 0, r.Version < 15 && req.ReplicaID >= 0:
		return fetchFollower, true
	}
	return fetchConsumer, true
}

// ConnOpened implements wire.Hooks.
func (q *Requests) ConnOpened(*wire.Conn) { q.opened.Add(1) }

// ConnClosed implements wire.Hooks.
func (q *Requests) ConnClosed(*wire.Conn) { q.closed.Add(1) }

// RequestRefused implements wire.Hooks.
func (q *Requests) RequestRefused(*wire.Conn, int16, int16, error) { q.refused.Add(1) }

// Answering implements wire.Hooks: it counts the answer's error codes.
func (q *Requests) Answering(r *wire.Request, enc wire.Encoder) {
	eachError(enc, q.of(int(r.Key)).tell)
}

// RequestDone implements wire.Hooks.
func (q *Requests) RequestDone(r *wire.Request, t wire.RequestTimes) {
	s := q.of(int(r.Key))
	s.done(r.Version, t)
	if r.Key == keyFetch {
		if slot, ok := fetchSlot(r); ok {
			q.of(slot).done(r.Version, t)
		}
	}
}

func (s *apiStats) done(version int16, t wire.RequestTimes) {
	s.versions[min(max(version, 0), maxVersions-1)].Add(1)
	s.inBytes.Add(int64(t.RequestBytes))
	s.outBytes.Add(int64(t.ResponseBytes))
	s.total.Observe(t.Total)
	s.local.Observe(t.Local)
	s.remote.Observe(t.Total - t.Local)
}

// AnswerSent implements wire.Hooks.
func (q *Requests) AnswerSent(r *wire.Request, took time.Duration) {
	q.of(int(r.Key)).send.Observe(took)
}

// APIPicture is what is known of one API.
type APIPicture struct {
	Name                       string
	Versions                   map[int]int64
	Errors                     map[string]int64
	Total, Local, Remote, Send Summary
	InBytes, OutBytes          int64
}

// Connections are totals since the start.
func (q *Requests) Connections() (opened, closed, refusedFrames int64) {
	return q.opened.Load(), q.closed.Load(), q.refused.Load()
}

// Picture describes the APIs that were asked for.
func (q *Requests) Picture(now time.Time) []APIPicture {
	var out []APIPicture
	for slot := range q.apis {
		s := q.apis[slot].Load()
		if s == nil {
			continue
		}
		p := APIPicture{
			Name: s.name, Versions: map[int]int64{}, Errors: map[string]int64{}, InBytes: s.inBytes.Load(), OutBytes: s.outBytes.Load(),
			Total: s.total.Summary(now), Local: s.local.Summary(now), Remote: s.remote.Summary(now), Send: s.send.Summary(now),
		}
		for v := range s.versions {
			if n := s.versions[v].Load(); n > 0 {
				p.Versions[v] = n
			}
		}
		for i := range s.errors {
			if n := s.errors[i].Load(); n > 0 {
				p.Errors[errorName(i-1)] += n
			}
		}
		out = append(out, p)
	}
	return out
}

// errorName names a code as Kafka does.
func errorName(code int) string {
	switch int16(code) {
	case 0:
		return "NONE"
	case kerr.NotLeaderForPartition.Code: // the library keeps its old name
		return "NOT_LEADER_OR_FOLLOWER"
	}
	if err := kerr.TypedErrorForCode(int16(code)); err != nil && int(err.Code) == code {
		return err.Message
	}
	return strconv.Itoa(code)
}

// eachErrorer is an answer with a layout of its own.
type eachErrorer interface{ EachError(tell func(code int16)) }

// errorPlans caches by type how its error codes are reached; it holds no state of any broker.
var errorPlans sync.Map // reflect.Type → *errorPlan
