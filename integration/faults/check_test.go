package faults

import (
	"slices"
	"testing"
	"time"

	"ottla/integration/harness"
)

// sound is a history without a fault: one ordered producer 1, one plain producer 2, two readers.
func sound() history {
	one, two := func(n int64) ident { return ident{1, n} }, func(n int64) ident { return ident{2, n} }
	final := []read{{0, one(0), true}, {1, two(0), true}, {2, one(1), true}, {3, two(2), true}, {4, one(2), true}}
	return history{
		Attempts: []attempt{
			{Ident: one(0), Outcome: acked, Offset: 0, Start: 1, End: 2},
			{Ident: two(0), Outcome: acked, Offset: 1, Start: 3, End: 4},
			{Ident: two(1), Outcome: failed, Start: 4, End: 5},
			{Ident: one(1), Outcome: acked, Offset: 2, Start: 5, End: 8},
			{Ident: two(2), Outcome: unknown, Start: 6},
			{Ident: two(3), Outcome: unknown, Start: 7},
			{Ident: one(2), Outcome: acked, Offset: 4, Start: 9, End: 10},
		},
		Ordered: map[int32]bool{1: true},
		Final:   map[int32][]read{0: final},
		Tails:   map[int32][][]read{0: {slices.Clone(final[:4]), slices.Clone(final[2:])}},
	}
}

func TestJudgeAcceptsSoundHistory(t *testing.T) {
	v := judge(sound())
	if v.bad() != 0 || v.UnknownWritten != 1 {
		t.Errorf("%v, %d unknown ones written, want 1: %v", &v, v.UnknownWritten, v.Examples)
	}
}

// TestJudgeFindsWhatIsWrong spoils the sound history in one place at a time.
func TestJudgeFindsWhatIsWrong(t *testing.T) {
	cases := []struct {
		name  string
		spoil func(h *history)
		want  verdict
	}{
		{"an acknowledged record is missing at the end", func(h *history) { h.Final[0] = h.Final[0][:4]; h.Tails[0][1] = h.Tails[0][1][:2] }, verdict{Lost: 1}},
		{"an acknowledged record was replaced", func(h *history) { h.Final[0][2].Ident = ident{2, 3}; h.Tails = nil }, verdict{Lost: 1}},
		{"an acknowledged record lies elsewhere", func(h *history) {
			h.Attempts[6].Offset = 5
		}, verdict{Moved: 1}},
		{"one offset was acknowledged twice", func(h *history) {
			h.Attempts[5].Outcome, h.Attempts[5].Offset, h.Attempts[5].End = acked, 4, 11
		}, verdict{Moved: 1, Lost: 1}},
		{"a record is there twice", func(h *history) { h.Final[0] = append(h.Final[0], read{5, ident{1, 2}, true}) }, verdict{Duplicated: 1}},
		{"an ordered producer's records are swapped", func(h *history) {
			h.Tails = nil
			h.Final[0][2].Ident, h.Final[0][4].Ident = h.Final[0][4].Ident, h.Final[0][2].Ident
			h.Attempts[3].Outcome, h.Attempts[6].Outcome = unknown, unknown
		}, verdict{Reordered: 1}},
		{"a later send has an older offset", func(h *history) {
			h.Tails = nil
			h.Attempts = append(h.Attempts, attempt{Ident: ident{2, 4}, Outcome: acked, Offset: 3, Start: 20, End: 21})
			h.Final[0][3].Ident = ident{2, 4}
		}, verdict{Reordered: 1}},
		{"a record was never sent", func(h *history) { h.Final[0] = append(h.Final[0], read{5, ident{7, 0}, true}) }, verdict{Phantom: 1}},
		{"a definite failure was written", func(h *history) { h.Final[0] = append(h.Final[0], read{5, ident{2, 1}, true}) }, verdict{Phantom: 1}},
		{"a damaged record", func(h *history) { h.Final[0] = append(h.Final[0], read{5, ident{}, false}) }, verdict{Phantom: 1}},
		{"a reader jumped over a record", func(h *history) { h.Tails[0][0] = slices.Delete(h.Tails[0][0], 1, 2) }, verdict{Skipped: 1}},
		{"a reader went back", func(h *history) { h.Tails[0][0][2] = h.Tails[0][0][1] }, verdict{Skipped: 2}}, // and then jumped
		{"a reader saw what is not there any more", func(h *history) {
			h.Tails[0][1] = append(h.Tails[0][1], read{5, ident{2, 3}, true})
		}, verdict{Lost: 1}},
		{"a reader saw another record at the offset", func(h *history) { h.Tails[0][0][3].Ident = ident{2, 3} }, verdict{Moved: 1}},
		{"an acknowledgement without an offset, and no record", func(h *history) {
			h.Attempts[5].Outcome, h.Attempts[5].Offset, h.Attempts[5].End = acked, -1, 11
		}, verdict{Lost: 1}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			h := sound()
			c.spoil(&h)
			got := judge(h)
			examples := got.Examples
			got.Examples, got.UnknownWritten = nil, 0
			if got.String() != c.want.String() {
				t.Errorf("%v, want %v: %q", &got, &c.want, examples)
			}
			if len(examples) == 0 {
				t.Error("no example")
			}
		})
	}
}

func TestRecorderRaisesAlarmAtOnce(t *testing.T) {
	r := newRecorder(time.Now(), 9, "ledger")
	i, first := r.begin(1, 0)
	r.settle(i, 5, nil)
	session := r.openTail(0)
	r.saw(0, session, 5, encodeValue(9, 0, first, 3))
	if a := r.alarm(); a != "" {
		t.Fatal(a)
	}
	r.saw(0, session, 5, encodeValue(9, 0, ident{1, 77}, 3))
	if r.alarm() == "" {
		t.Error("two records at one offset: no alarm")
	}
}

func TestValueTellsDamage(t *testing.T) {
	value := encodeValue(9, 2, ident{1, 7}, 20)
	if id, ok := decodeValue(9, 2, value); !ok || id != (ident{1, 7}) {
		t.Errorf("%+v, %v", id, ok)
	}
	for i := range value {
		value[i] ^= 1
		if _, ok := decodeValue(9, 2, value); ok {
			t.Errorf("damage at byte %d was not seen", i)
		}
		value[i] ^= 1
	}
	for name, ok := range map[string]bool{
		"cut short": second(decodeValue(9, 2, value[:40])), "of another run": second(decodeValue(8, 2, value)), "of another partition": second(decodeValue(9, 1, value)),
	} {
		if ok {
			t.Errorf("a value %s is accepted", name)
		}
	}
}

func second(_ ident, ok bool) bool { return ok }

func TestSilenceIsTheLongestWait(t *testing.T) {
	acks := []time.Duration{10, 20, 100, 110, 150}
	for _, c := range []struct{ from, to, want time.Duration }{
		{15, 50, 80}, // overlaps the interval from 20 to 100
		{20, 21, 80},
		{101, 105, 10},
		{111, 200, 50}, // nothing after 150
		{160, 200, 50}, // nothing at all: the last one was at 150
		{10, 150, 80},
	} {
		if got := silence(acks, c.from, c.to); got != c.want {
			t.Errorf("silence in [%d, %d] = %d, want %d", c.from, c.to, got, c.want)
		}
	}
}

func TestSameSeedSameSchedule(t *testing.T) {
	a, b := newPlanner(7, kinds, partitions, harness.SessionTimeout), newPlanner(7, kinds, partitions, harness.SessionTimeout)
	other := newPlanner(8, kinds, partitions, harness.SessionTimeout)
	seen, differ := map[string]bool{}, false
	for range 60 {
		x := a.next()
		if x.String() != b.next().String() {
			t.Fatal("two schedules of one seed")
		}
		differ = differ || x.String() != other.next().String()
		for _, f := range x.Faults {
			seen[f.Kind] = true
		}
	}
	if !differ {
		t.Error("two seeds, one schedule")
	}
	if len(seen) != len(kinds) {
		t.Errorf("60 steps show %d of %d kinds", len(seen), len(kinds))
	}
}
