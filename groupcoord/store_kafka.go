package groupcoord

import (
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
	"ottla/logstore"
)

// Partition is a partition of __consumer_offsets that this broker leads.
type Partition interface {
	// Append appends batches with acks=all, in this leader epoch only. done is called once, inline or later, and must not block.
	// The batches are the caller's again when Append has returned.
	Append(batches []byte, epoch cluster.LeaderEpoch, timeout time.Duration, done func(baseOffset int64, err error))
	// Read returns whole batches from the one that holds offset on, up to the log's end, at most maxBytes of them but at least one;
	// empty at the end. OFFSET_OUT_OF_RANGE below the log's start. The bytes are valid until the next Read with the same buf.
	Read(offset int64, maxBytes int, buf []byte) ([]byte, error)
	// Bounds are the log's start and exclusive end; negative when the log cannot be read.
	Bounds() (start, end int64)
	// Committed is the exclusive end of what all in-sync replicas have.
	Committed() int64
}

// writer appends one shard's records in the order in which they were queued. Whoever finds work writes for all that is
// queued, as one batch; under load many commits share one append and one replication.
type writer struct {
	partition Partition
	epoch     cluster.LeaderEpoch
	timeout   time.Duration // offsets.commit.timeout.ms
	now       func() time.Time

	appending sync.Mutex // held while one batch is built and appended; taken before mu, never with a group's lock
	builder   *logstore.Builder
	mu        struct {
		sync.Mutex // a leaf: taken with a group's lock held
		queue      []*write
	}
}

// write is what one decision wants written. done gets the offset of its first record.
type write struct {
	records []record
	done    func(at int64, err error)
}

func (w *write) size() (n int) {
	for _, r := range w.records {
		n += len(r.key) + len(r.value) + 16
	}
	return n
}

// batchBytesMax bounds a batch of several writes. A larger single one goes alone.
const batchBytesMax = 128 << 10

func newWriter(p Partition, epoch cluster.LeaderEpoch, timeout time.Duration, now func() time.Time) *writer {
	return &writer{partition: p, epoch: epoch, timeout: timeout, now: now, builder: logstore.NewBuilder(logstore.PlainBatch())}
}

// enqueue takes a place in the order; the caller calls flush once it has released its lock.
func (w *writer) enqueue(wr *write) {
	w.mu.Lock()
	w.mu.queue = append(w.mu.queue, wr)
	w.mu.Unlock()
}

// flush returns when everything that was queued before has been appended, by whomever.
func (w *writer) flush() {
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

// take removes the writes of the next batch from the queue.
func (w *writer) take() []*write {
	w.mu.Lock()
	defer w.mu.Unlock()
	q := w.mu.queue
	n, size := 0, 0
	for n < len(q) {
		size += q[n].size()
		if n > 0 && size > batchBytesMax {
			break
		}
		n++
	}
	batch := q[:n:n]
	if w.mu.queue = q[n:]; len(w.mu.queue) == 0 {
		w.mu.queue = nil
	}
	return batch
}

// append writes one batch. Called with appending held.
func (w *writer) append(batch []*write) *heldResult {
	h := &heldResult{deliver: func(base int64, err error) { w.appended(batch, base, err) }}
	if err := w.build(batch); err != nil {
		h.set(-1, err)
		return h
	}
	b, err := w.builder.Finish()
	if err != nil {
		h.set(-1, err)
		return h
	}
	w.partition.Append(b, w.epoch, w.timeout, h.set)
	return h
}

func (w *writer) build(batch []*write) error {
	w.builder.Reset(logstore.PlainBatch())
	now := w.now().UnixMilli()
	for _, wr := range batch {
		for _, r := range wr.records {
			if err := w.builder.AppendNext(now, r.key, r.value); err != nil {
				return err
			}
		}
	}
	return nil
}

// appended tells each write of a batch. A batch that is too large together may fit one by one.
func (w *writer) appended(batch []*write, base int64, err error) {
	if len(batch) > 1 && (errors.Is(err, kerr.MessageTooLarge) || errors.Is(err, kerr.RecordListTooLarge)) {
		for _, wr := range batch {
			w.appending.Lock()
			held := w.append([]*write{wr})
			w.appending.Unlock()
			held.release()
		}
		return
	}
	for _, wr := range batch {
		if err != nil {
			wr.done(-1, err)
			continue
		}
		wr.done(base, nil)
		base += int64(len(wr.records))
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

// commitVerdict turns a failed append of commits into what the client is told.
func commitVerdict(err error) error {
	switch err {
	case nil:
		return nil
	case kerr.UnknownTopicOrPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend:
		return kerr.CoordinatorNotAvailable
	case kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch:
		return kerr.NotCoordinator
	case kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidFetchSize:
		return kerr.InvalidCommitOffsetSize
	}
	return err
}
