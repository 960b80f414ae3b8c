package wire

import (
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
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
}

// Encoder is the body of a response. Every kmsg.Response is one.
type Encoder interface {
	// AppendTo appends the body, without the response header.
	AppendTo(dst []byte) []byte
}

// Respond answers with a kmsg response, which must have the request's version (Request.Body.ResponseKind gives such a one).
func (r *Request) Respond(resp kmsg.Response) { panic("todo") }

// RespondWith answers with a hand-written layout: FetchResponse, ProduceResponse, or anything that can append itself.
// It takes the encoder over.
func (r *Request) RespondWith(enc Encoder) { panic("todo") }

// NoResponse ends the request without a frame: Produce with acks=0 that went well.
func (r *Request) NoResponse() { panic("todo") }

// Close ends the request by closing the connection, after the answers to earlier requests have been written. It is the only
// signal for a failed Produce with acks=0. The reason is logged.
func (r *Request) Close(reason error) { panic("todo") }

// Throttle mutes the connection: after this request's answer nothing is read from it for d. Call it before answering.
// The throttle time in the response's body is the handler's business. Source: KIP-219.
func (r *Request) Throttle(d time.Duration) { panic("todo") }
