package faults

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// recorder is the history of one topic while it grows. All times are of one monotonic clock.
type recorder struct {
	start time.Time
	run   uint64
	topic string

	mu struct {
		sync.Mutex
		attempts []attempt
		tails    map[int32][][]read
		ordered  map[int32]bool
		next     map[[2]int32]int64        // producer, partition → next sequence
		known    map[int32]map[int64]ident // what acknowledgements and readers said of an offset; two words for one are a violation
		alarm    string                    // the first violation that was seen during the run
		errors   map[string]int            // answers by their error
	}
}

func newRecorder(start time.Time, run uint64, topic string) *recorder {
	r := &recorder{start: start, run: run, topic: topic}
	r.mu.tails, r.mu.ordered, r.mu.next = map[int32][][]read{}, map[int32]bool{}, map[[2]int32]int64{}
	r.mu.known, r.mu.errors = map[int32]map[int64]ident{}, map[string]int{}
	return r
}

func (r *recorder) now() time.Duration { return time.Since(r.start) }

// begin notes a record that is about to be handed to a producer. The result names the attempt.
func (r *recorder) begin(producer, partition int32) (index int, id ident) {
	r.mu.Lock()
	defer r.mu.Unlock()
	key := [2]int32{producer, partition}
	id = ident{producer, r.mu.next[key]}
	r.mu.next[key]++
	r.mu.attempts = append(r.mu.attempts, attempt{Partition: partition, Ident: id, Start: r.now()})
	return len(r.mu.attempts) - 1, id
}

// settle notes the answer to an attempt; err is nil for an acknowledgement. An offset below 0 is one that the client was not told.
func (r *recorder) settle(index int, offset int64, err error) {
	now := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	a := &r.mu.attempts[index]
	a.Outcome, a.Offset, a.End = outcomeOf(err), offset, now
	if err != nil {
		r.mu.errors[err.Error()]++
		return
	}
	r.knownLocked(a.Partition, offset, a.Ident)
}

func (r *recorder) knownLocked(partition int32, offset int64, id ident) {
	if offset < 0 {
		return
	}
	known := r.mu.known[partition]
	if known == nil {
		known = map[int64]ident{}
		r.mu.known[partition] = known
	}
	if other, ok := known[offset]; ok && other != id && r.mu.alarm == "" {
		r.mu.alarm = "an offset has shown two records"
	}
	known[offset] = id
}

// openTail starts a reader's session on a partition.
func (r *recorder) openTail(partition int32) (session int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.tails[partition] = append(r.mu.tails[partition], nil)
	return len(r.mu.tails[partition]) - 1
}

func (r *recorder) saw(partition int32, session int, offset int64, value []byte) {
	id, whole := decodeValue(r.run, partition, value)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.tails[partition][session] = append(r.mu.tails[partition][session], read{offset, id, whole})
	if !whole && r.mu.alarm == "" {
		r.mu.alarm = "a damaged record"
	}
	r.knownLocked(partition, offset, id)
}

// position is the offset after the last one that the session was given.
func (r *recorder) position(partition int32, session int) int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.mu.tails[partition][session]
	if len(s) == 0 {
		return 0
	}
	return s[len(s)-1].Offset + 1
}

func (r *recorder) setOrdered(producer int32) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.mu.ordered[producer] = true
}

// alarm is what has gone wrong already, "" if nothing.
func (r *recorder) alarm() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mu.alarm
}

// history is everything so far, with the final read.
func (r *recorder) history(final map[int32][]read) history {
	r.mu.Lock()
	defer r.mu.Unlock()
	return history{Attempts: slices.Clone(r.mu.attempts), Ordered: r.mu.ordered, Final: final, Tails: r.mu.tails}
}

// tally counts the attempts by outcome.
func (r *recorder) tally() (byOutcome [3]int, errors map[string]int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.mu.attempts {
		byOutcome[a.Outcome]++
	}
	return byOutcome, r.mu.errors
}

// ackTimes are the times at which acknowledgements of a partition arrived, sorted.
func (r *recorder) ackTimes(partition int32) []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []time.Duration
	for _, a := range r.mu.attempts {
		if a.Partition == partition && a.Outcome == acked {
			out = append(out, a.End)
		}
	}
	slices.Sort(out)
	return out
}

// errNotSent is an attempt whose request was never written.
var errNotSent = errors.New("not sent: no connection to a leader")

// definite are the answers after which the record will never appear. Errors that Kafka also answers after the append are not among
// them.
var definite = []error{
	errNotSent, kerr.NotEnoughReplicas, kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.CorruptMessage, kerr.InvalidTopicException,
	kerr.InvalidRequiredAcks, kerr.InvalidTimestamp, kerr.InvalidRecord, kerr.TopicAuthorizationFailed, kerr.OutOfOrderSequenceNumber,
	kerr.InvalidProducerEpoch, kerr.UnsupportedForMessageFormat,
}

func outcomeOf(err error) outcome {
	if err == nil {
		return acked
	}
	if slices.ContainsFunc(definite, func(d error) bool { return errors.Is(err, d) }) {
		return failed
	}
	return unknown
}
