package txncoord

import (
	"math"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"pgregory.net/rapid"

	"ottla/internal/cluster"
)

// TestATransactionKeepsItsPromisesUnderAnySchedule drives the core with random requests of several producers, with the time, and with
// appends that fail. After every step: an epoch of a producer id never falls; no two producers are told the same id and epoch, except
// one that asks again; what was decided is never decided otherwise; partitions change only while a transaction is open.
func TestATransactionKeepsItsPromisesUnderAnySchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := &hand{t: newTransaction("id"), now: time.Unix(1_700_000_000, 0), nextID: 10}
		if rapid.Bool().Draw(t, "old") {
			h.store(t, h.t.init(nil, 1000, 9, h.now).next, nil)
			h.t.now.Epoch = int16(rapid.IntRange(math.MaxInt16-4, math.MaxInt16-1).Draw(t, "epoch"))
			h.known = append(h.known, h.t.now.Producer)
		}
		t.Repeat(map[string]func(*rapid.T){
			"init": h.init, "add": h.add, "end": h.end, "time": h.pass, "stored": h.stored, "markers": h.markers, "expire": h.expire, "": h.check,
		})
	})
}

// hand plays the producers and the log.
type hand struct {
	t       *transaction
	now     time.Time
	nextID  int64
	known   []Producer // that were told to somebody
	asked   *Producer  // what the image on its way will tell
	retry   bool
	before  image
	decided *image // the end that is stored
}

func (h *hand) pick(t *rapid.T) Producer {
	p := Producer{ID: 9, Epoch: 0}
	if len(h.known) > 0 {
		p = rapid.SampledFrom(h.known).Draw(t, "producer")
	}
	switch rapid.IntRange(0, 9).Draw(t, "odd") {
	case 0:
		p.Epoch--
	case 1:
		p.ID++
	case 2:
		p.Epoch = max(0, p.Epoch) + 1
	}
	return p
}

func (h *hand) init(t *rapid.T) {
	var expected *Producer
	if rapid.Bool().Draw(t, "goes on") {
		p := h.pick(t)
		p.ID, p.Epoch = max(0, p.ID), max(0, p.Epoch)
		expected = &p
	}
	old := h.t.now
	v := h.t.init(expected, 1000, noProducerID, h.now)
	if v.needsID {
		h.nextID++
		v = h.t.init(expected, 1000, h.nextID, h.now)
	}
	if v.err != nil {
		return
	}
	if v.next == nil {
		t.Fatal("init decided nothing")
	}
	if v.fenced {
		if v.next.state != PrepareAbort || old.state != Ongoing {
			t.Fatalf("fenced from %v to %v", old.state, v.next.state)
		}
		h.asked = nil
		return
	}
	p := v.next.Producer
	h.asked, h.retry = &p, p == old.Producer
	if h.retry && expected == nil {
		t.Fatalf("a new producer was given %v, which another one has", p)
	}
}

func (h *hand) add(t *rapid.T) {
	p := h.pick(t)
	tps := []cluster.TopicPartition{{Topic: "t", Partition: int32(rapid.IntRange(0, 3).Draw(t, "partition"))}}
	next, err := h.t.add(p, tps, h.now)
	if err == nil && p != h.t.now.Producer {
		t.Fatalf("%v added a partition to the transaction of %v", p, h.t.now.Producer)
	}
	if next != nil && !next.holds(tps) {
		t.Fatal("the partition is not in the image")
	}
}

func (h *hand) end(t *rapid.T) {
	p := h.pick(t)
	commit := rapid.Bool().Draw(t, "commit")
	old := h.t.now.state
	next, err := h.t.end(p, commit, h.now)
	switch {
	case err == nil && p != h.t.now.Producer:
		t.Fatalf("%v ended the transaction of %v", p, h.t.now.Producer)
	case err == nil && next == nil && old != prepared(commit).completed():
		t.Fatalf("an end (commit: %v) was taken for repeated in %v", commit, old)
	case next != nil && (old != Ongoing || next.state != prepared(commit)):
		t.Fatalf("from %v to %v", old, next.state)
	}
}

func (h *hand) pass(t *rapid.T) {
	h.now = h.now.Add(time.Duration(rapid.IntRange(0, 2000).Draw(t, "ms")) * time.Millisecond)
	if h.t.timedOut(h.now) {
		epoch := h.t.now.Epoch
		next := h.t.fence(h.now)
		if next.state != PrepareAbort || next.Epoch < epoch || int(next.Epoch) > int(epoch)+1 {
			t.Fatalf("timed out from epoch %d to %d, %v", epoch, next.Epoch, next.state)
		}
		h.asked = nil
	}
}

func (h *hand) stored(t *rapid.T) {
	if h.t.next == nil {
		return
	}
	var err error
	if rapid.IntRange(0, 4).Draw(t, "fails") == 0 {
		err = kerr.CoordinatorNotAvailable
	}
	h.store(t, h.t.next, err)
}

func (h *hand) store(t *rapid.T, next *image, err error) {
	h.t.stored(err)
	asked := h.asked
	h.asked = nil
	if err != nil {
		return
	}
	if h.t.now.Producer != next.Producer || h.t.now.state != next.state {
		t.Fatal("what was stored does not count")
	}
	if h.t.now.state.ending() {
		decided := h.t.now
		h.decided = &decided
	}
	if asked == nil {
		return
	}
	for _, k := range h.known {
		if k == *asked && !h.retry {
			t.Fatalf("%v was given out twice", k)
		}
	}
	h.known = append(h.known, *asked)
}

func (h *hand) markers(t *rapid.T) {
	if h.t.next == nil && h.t.now.state.ending() {
		next := h.t.complete(h.now)
		if next.state != h.decided.state.completed() {
			t.Fatalf("decided %v, completed %v", h.decided.state, next.state)
		}
	}
}

func (h *hand) expire(t *rapid.T) {
	if next := h.t.expire(h.now, time.Minute); next != nil && !h.t.now.state.idle() {
		t.Fatalf("expired in %v", h.t.now.state)
	}
	if h.t.next != nil && h.t.next.state == Dead { // the id is forgotten: a new entry takes its place
		h.t.stored(nil)
		if _, err := h.t.add(h.t.now.Producer, nil, h.now); err != kerr.InvalidProducerIDMapping {
			t.Fatalf("a forgotten id took a partition: %v", err)
		}
		h.t, h.known, h.before = newTransaction("id"), nil, image{}
	}
}

func (h *hand) check(t *rapid.T) {
	now := h.t.now
	if now.ID == h.before.ID && now.Epoch < h.before.Epoch {
		t.Fatalf("epoch of %d went from %d to %d", now.ID, h.before.Epoch, now.Epoch)
	}
	if now.state.idle() && len(now.partitions) > 0 {
		t.Fatalf("%v with partitions", now.state)
	}
	if h.before.state.ending() && now.state != h.before.state && now.state != h.before.state.completed() {
		t.Fatalf("from %v to %v", h.before.state, now.state)
	}
	h.before = now
}

// TestImagesSurviveTheirRecords encodes and decodes.
func TestImagesSurviveTheirRecords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := image{
			Producer:   Producer{rapid.Int64Min(0).Draw(t, "id"), rapid.Int16Min(0).Draw(t, "epoch")},
			previousID: noProducerID, lastEpoch: noProducerEpoch, timeoutMs: rapid.Int32().Draw(t, "timeout"),
			state:     State(rapid.IntRange(int(Empty), int(CompleteAbort)).Draw(t, "state")),
			startedMs: rapid.Int64().Draw(t, "started"), updatedMs: rapid.Int64().Draw(t, "updated"),
		}
		for range rapid.IntRange(0, 5).Draw(t, "partitions") {
			if i.state == Ongoing {
				if i.partitions == nil {
					i.partitions = partitions{}
				}
				i.partitions[cluster.TopicPartition{Topic: rapid.SampledFrom([]string{"a", "b", "ünï"}).Draw(t, "topic"), Partition: rapid.Int32().Draw(t, "number")}] = struct{}{}
			}
		}
		got, err := decodeImage(encodeImage(&i))
		if err != nil {
			t.Fatal(err)
		}
		if len(got.partitions) != len(i.partitions) || !got.holds(i.partitions.sorted()) {
			t.Fatalf("partitions %v became %v", i.partitions, got.partitions)
		}
		got.partitions, i.partitions = nil, nil
		if got.Producer != i.Producer || got.state != i.state || got.startedMs != i.startedMs || got.updatedMs != i.updatedMs || got.timeoutMs != i.timeoutMs {
			t.Fatalf("%+v became %+v", i, got)
		}
	})
}

func FuzzRecords(f *testing.F) {
	i := image{Producer: Producer{7, 1}, timeoutMs: 1, state: Ongoing, partitions: partitions{{Topic: "t"}: {}}, startedMs: 1, updatedMs: 2}
	f.Add(encodeKey("id"), encodeImage(&i))
	f.Add([]byte{0, 0}, []byte{0, 1})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		id, known, err := decodeKey(key)
		if known && err == nil {
			if again, _, err := decodeKey(encodeKey(id)); err != nil || again != id {
				t.Fatalf("key %q became %q: %v", id, again, err)
			}
		}
		i, err := decodeImage(value)
		if err != nil {
			return
		}
		again, err := decodeImage(encodeImage(&i))
		if err != nil || again.Producer != i.Producer || again.state != i.state || len(again.partitions) != len(i.partitions) {
			t.Fatalf("%+v became %+v: %v", i, again, err)
		}
	})
}
