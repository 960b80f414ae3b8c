package wire

import (
	"encoding/binary"
	"errors"
	"math"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/invariant"
)

// Request is one request on its way. Exactly one of Respond, RespondWith, NoResponse and Close must be called, once, from any
// goroutine, inside the handler or later; none of them blocks on the network. Afterwards nothing of Body may be used.
type Request struct {
	Key           int16
	Version       int16
	CorrelationID int32
	ClientID      string // "" when the client sent none
	Body          kmsg.Request
	Conn          *Conn
	ReceivedAt    time.Time // when the frame was complete
	Size          int       // bytes of the frame, without its length field

	api   *api
	frame *frame // until the answer is built
	mute  time.Duration
	holds bool        // see HoldUp
	once  atomic.Bool // set by the first answer

	handled atomic.Int64 // with hooks: ns from ReceivedAt until the handler returned with the answer pending, else 0
	builtAt time.Time    // with hooks: when the answer was built
	joined  *Request     // its answer goes out with this one's

	// The rest belongs to the connection's queue of answers and is guarded by its lock, once finish has been called.
	next   *Request
	done   bool
	answer answer
}

// answer is what remains to be written for a request.
type answer struct {
	mem    *frame         // nil: no bytes
	ranges *FetchResponse // owns file ranges that go out between the bytes of mem; nil: none
	bytes  int            // all of it
	close  error          // close the connection instead
}

// release gives back what the answer holds.
func (a *answer) release() {
	if a.mem != nil {
		a.mem.recycle()
	}
	if a.ranges != nil {
		a.ranges.recycle()
	}
	a.mem, a.ranges = nil, nil
}

// Encoder is the body of a response. Every kmsg.Response is one.
type Encoder interface {
	// AppendTo appends the body, without the response header.
	AppendTo(dst []byte) []byte
}

var (
	errAnswerTooLarge = errors.New("answer of more than 2 GiB")
	errAnsweredTwice  = errors.New("request answered twice")
)

// Respond answers with a kmsg response, in the request's version.
func (r *Request) Respond(resp kmsg.Response) {
	resp.SetVersion(r.Version)
	r.RespondWith(resp)
}

// RespondWith answers with a hand-written layout: FetchResponse, ProduceResponse, or anything that can append itself.
// It takes the encoder over.
func (r *Request) RespondWith(enc Encoder) {
	if h := r.Conn.server.o.Hooks; h != nil {
		h.Answering(r, enc)
	}
	mem := newFrame(r.answerRoom())
	b := append(mem.b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(r.CorrelationID))
	if hasResponseTags(r.Key, r.Version) {
		b = append(b, 0)
	}
	a := answer{mem: mem}
	var fileBytes int64
	switch e := enc.(type) {
	case *FetchResponse:
		b, fileBytes, a.close = e.encode(b)
		a.ranges = e
	case *ProduceResponse:
		b = e.AppendTo(b)
		e.recycle()
	default:
		b = enc.AppendTo(b)
	}
	mem.b = b
	size := int64(len(b)) - 4 + fileBytes
	if size > math.MaxInt32 {
		a.close = errAnswerTooLarge
	}
	binary.BigEndian.PutUint32(b, uint32(size))
	a.bytes = int(size) + 4
	if a.close != nil {
		a.release()
		a.bytes = 0
	}
	r.api.answerBytes.Store(int32(min(len(b), 1<<maxFrameClass)))
	r.finish(a)
}

// RespondToken answers a frame of TakeTokens with a token of its own.
func (r *Request) RespondToken(token []byte) {
	mem := newFrame(4 + len(token))
	mem.b = append(binary.BigEndian.AppendUint32(mem.b, uint32(len(token))), token...)
	r.finish(answer{mem: mem, bytes: len(mem.b)})
}

// answerRoom is how much room the answer's bytes in memory are likely to need.
func (r *Request) answerRoom() int { return int(r.api.answerBytes.Load()) }

// NoResponse ends the request without a frame: Produce with acks=0 that went well.
func (r *Request) NoResponse() { r.finish(answer{}) }

// Close ends the request by closing the connection, after the answers to earlier requests have been written. It is the only
// signal for a failed Produce with acks=0. The reason is logged.
func (r *Request) Close(reason error) { r.finish(answer{close: reason}) }

// Throttle mutes the connection: after this request's answer nothing is read from it for d; the longest time counts. Call it before
// answering.
// The throttle time in the response's body is the handler's business. Source: KIP-219.
func (r *Request) Throttle(d time.Duration) { r.mute = max(r.mute, d) }

// Throttled is for how long the connection will be muted.
func (r *Request) Throttled() time.Duration { return r.mute }

// LocalTime is how long the request has been worked on: until its handler returned, or until now.
func (r *Request) LocalTime(now time.Time) time.Duration {
	if handled := time.Duration(r.handled.Load()); handled > 0 {
		return handled
	}
	return now.Sub(r.ReceivedAt)
}

// HoldUp makes the requests behind this one wait for its answer though its API is pipelined. It is for the handler, while it runs.
func (r *Request) HoldUp() { r.holds = true }

// abandon closes the connection in the place of a request whose handler has panicked. The frame is left to the collector: who knows
// who still uses it.
func (r *Request) abandon(reason error) {
	if r.once.CompareAndSwap(false, true) {
		r.Conn.server.memory.release(r.Size)
		r.Conn.answered(r, answer{close: reason})
	}
}

// times is what the request has cost, now that its answer of so many bytes has been built.
func (r *Request) times(bytes int) RequestTimes {
	r.builtAt = time.Now()
	t := RequestTimes{RequestBytes: r.Size, ResponseBytes: max(bytes-4, 0), Total: r.builtAt.Sub(r.ReceivedAt)}
	t.Local = t.Total
	if handled := time.Duration(r.handled.Load()); handled > 0 {
		t.Local = min(handled, t.Total)
	}
	return t
}

// finish hands the answer to the connection. The frame's life ends here: the answer has been built.
func (r *Request) finish(a answer) {
	c := r.Conn
	if !r.once.CompareAndSwap(false, true) {
		a.release()
		if c.out.isClosed() {
			return // its handler has panicked
		}
		_ = invariant.Check(false, "%s: %v", r.api.name, errAnsweredTwice)
		return
	}
	if h := c.server.o.Hooks; h != nil {
		h.RequestDone(r, r.times(a.bytes))
	}
	r.Body = nil
	f := r.frame
	r.frame = nil
	c.server.memory.release(r.Size)
	if f != nil {
		f.recycle()
	}
	c.answered(r, a)
}
