package coordlog

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
	"ottla/logstore"
)

// Partition is a partition of the coordinator's topic that this broker leads.
type Partition interface {
	// Append appends batches with acks=all, in this leader epoch only. done is called once, inline or later, and must not block.
	// The batches are the caller's again when Append has returned.
	Append(batches []byte, a Append, done func(baseOffset int64, err error))
	// Read returns whole batches from the one that holds offset on, up to the log's end, at most maxBytes of them but at least one;
	// empty at the end. OFFSET_OUT_OF_RANGE below the log's start. The bytes are valid until the next Read with the same buf.
	Read(offset int64, maxBytes int, buf []byte) ([]byte, error)
	// Bounds are the log's start and exclusive end; negative when the log cannot be read.
	Bounds() (start, end int64)
	// Committed is the exclusive end of what all in-sync replicas have.
	Committed() int64
}

// Append says how a batch is to be appended.
type Append struct {
	Epoch   cluster.LeaderEpoch
	Timeout time.Duration // how long to wait for the replicas
	Guard   logstore.Guard
}

// Writer appends one shard's records in the order in which they were queued. Whoever finds work writes for all that is
// queued, as one batch; under load many writes share one append and one replication.
type Writer struct {
	led     atomic.Pointer[led]
	timeout time.Duration
	now     func() time.Time

	appending sync.Mutex // held while one batch is built and appended; taken before mu, never with a caller's lock
	builder   *logstore.Builder
	mu        struct {
		sync.Mutex // a leaf: may be taken with a caller's lock held
		queue      []*Write
	}
}

// led is a partition as it is led now.
type led struct {
	Partition
	epoch cluster.LeaderEpoch
}

// Epoch is the leader epoch in which records are appended.
func (w *Writer) Epoch() cluster.LeaderEpoch { return w.led.Load().epoch }

// Record is one record to append. A nil value is a tombstone.
type Record struct{ Key, Value []byte }

// Producer makes a write part of a producer's transaction.
type Producer struct {
	ID    int64
	Epoch int16
	Guard logstore.Guard // that the transaction was verified
}

// Write is what one decision wants written. Done gets the offset of its first record.
type Write struct {
	Records  []Record
	Producer *Producer // nil: no transaction
	Done     func(at int64, err error)
}

func (w *Write) size() (n int) {
	for _, r := range w.Records {
		n += len(r.Key) + len(r.Value) + 16
	}
	return n
}

// batchBytesMax bounds a batch of several writes. A larger single one goes alone.
const batchBytesMax = 128 << 10

// NewWriter makes the writer of a partition in a leader epoch.
func NewWriter(p Partition, epoch cluster.LeaderEpoch, timeout time.Duration, now func() time.Time) *Writer {
	w := &Writer{timeout: timeout, now: now, builder: logstore.NewBuilder(logstore.PlainBatch())}
	w.led.Store(&led{p, epoch})
	return w
}

// Enqueue takes a place in the order; the caller calls Flush once it has released its lock.
func (w *Writer) Enqueue(wr *Write) {
	w.mu.Lock()
	w.mu.queue = append(w.mu.queue, wr)
	w.mu.Unlock()
}

// Flush returns when everything that was queued before has been appended, by whomever.
func (w *Writer) Flush() {
	for {
		w.appending.Lock()
		batch := w.take()
		if len(batch) == 0 {
			w.appending.Unlock()
			return
		}
		held := w.append(batch)
		w.appending.Unlock()
		held.release()
	}
}

// take removes the writes of the next batch from the queue. One of a transaction has a batch of its own.
func (w *Writer) take() []*Write {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.mu.queue
	n, size := 0, 0
	for n < len(q) {
		size += q[n].size()
		if n > 0 && (size > batchBytesMax || q[n].Producer != nil) {
			break
		}
		n++
		if q[n-1].Producer != nil {
			break
		}
	}
	batch := q[:n:n]
	if w.mu.queue = q[n:]; len(w.mu.queue) == 0 {
		w.mu.queue = nil
	}
	return batch
}

// append writes one batch. Called with appending held.
func (w *Writer) append(batch []*Write) *heldResult {
	h := &heldResult{deliver: func(base int64, err error) { w.appended(batch, base, err) }}
	on := w.led.Load()
	a := Append{Epoch: on.epoch, Timeout: w.timeout}
	o := logstore.PlainBatch()
	if p := batch[0].Producer; p != nil {
		o.ProducerID, o.ProducerEpoch, o.Transactional = p.ID, p.Epoch, true
		a.Guard = p.Guard
	}
	b, err := w.build(batch, o)
	if err != nil {
		h.set(-1, err)
		return h
	}
	on.Append(b, a, h.set)
	return h
}

func (w *Writer) build(batch []*Write, o logstore.BatchOptions) (logstore.Batch, error) {
	w.builder.Reset(o)
	now := w.now().UnixMilli()
	for _, wr := range batch {
		for _, r := range wr.Records {
			if err := w.builder.AppendNext(now, r.Key, r.Value); err != nil {
				return nil, err
			}
		}
	}
	return w.builder.Finish()
}

// appended tells each write of a batch. A batch that is too large together may fit one by one.
func (w *Writer) appended(batch []*Write, base int64, err error) {
	if len(batch) > 1 && (errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)) {
		for _, wr := range batch {
			w.appending.Lock()
			held := w.append([]*Write{wr})
			w.appending.Unlock()
			held.release()
		}
		return
	}
	for _, wr := range batch {
		if err != nil {
			wr.Done(-1, err)
			continue
		}
		wr.Done(base, nil)
		base += int64(len(wr.Records))
	}
}

// heldResult keeps the result of an append until the appender's lock is released: what follows may want to append again.
type heldResult struct {
	deliver  func(base int64, err error)
	mu       sync.Mutex
	released bool
	known    bool
	base     int64
	err      error
}

func (h *heldResult) set(base int64, err error) {
	h.mu.Lock()
	h.known, h.base, h.err = true, base, err
	now := h.released
	h.mu.Unlock()
	if now {
		h.deliver(base, err)
	}
}

func (h *heldResult) release() {
	h.mu.Lock()
	h.released = true
	now := h.known
	h.mu.Unlock()
	if now {
		h.deliver(h.base, h.err)
	}
}
