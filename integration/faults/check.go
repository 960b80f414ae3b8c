package faults

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// outcome is what a producer may conclude from an answer.
type outcome uint8

const (
	unknown outcome = iota // written or not: no answer, or one that does not tell
	acked                  // written, at a known offset
	failed                 // certainly not written, now or later
)

// attempt is one record handed to a producer.
type attempt struct {
	Partition int32
	Ident     ident
	Outcome   outcome
	Offset    int64         // if acked
	Start     time.Duration // since the run's start; before the first byte left
	End       time.Duration // when the answer's first byte was read; 0 without answer
}

// read is one record that a consumer was given.
type read struct {
	Offset int64
	Ident  ident
	Whole  bool // the value is one of this run and undamaged
}

// history is all that clients saw of one topic.
type history struct {
	Attempts []attempt
	// Ordered producers promise that their sequences rise with the offsets (idempotent, or one record in flight).
	Ordered map[int32]bool
	Final   map[int32][]read   // per partition: everything, by a fresh client after all faults
	Tails   map[int32][][]read // per partition: what each session of a reader saw during the run, from some offset on
}

// verdict counts what must not happen. Each is 0 in a sound run.
type verdict struct {
	Lost       int // acknowledged, and not in the final read at all
	Moved      int // an offset has shown two records, or an acknowledged record lies elsewhere
	Duplicated int // one record at two offsets
	Reordered  int // an ordered producer's records against their order, or an offset older than what was known before the send
	Phantom    int // read but never sent, damaged, or sent with a definite failure
	Skipped    int // a reader jumped over a record or went back
	Examples   []string

	UnknownWritten int // unknown outcomes that turned out to be written
}

func (v *verdict) bad() int {
	return v.Lost + v.Moved + v.Duplicated + v.Reordered + v.Phantom + v.Skipped
}

func (v *verdict) String() string {
	return fmt.Sprintf("lost=%d moved=%d duplicated=%d reordered=%d phantom=%d skipped=%d", v.Lost, v.Moved, v.Duplicated, v.Reordered, v.Phantom, v.Skipped)
}

func (v *verdict) note(counter *int, format string, args ...any) {
	if *counter++; len(v.Examples) < 40 {
		v.Examples = append(v.Examples, fmt.Sprintf(format, args...))
	}
}

func (v *verdict) add(o verdict) {
	v.Lost += o.Lost
	v.Moved += o.Moved
	v.Duplicated += o.Duplicated
	v.Reordered += o.Reordered
	v.Phantom += o.Phantom
	v.Skipped += o.Skipped
	v.UnknownWritten += o.UnknownWritten
	v.Examples = append(v.Examples, o.Examples...)
}

// judge checks a history, partition by partition, in O(n log n) for n attempts and reads.
func judge(h history) verdict {
	var v verdict
	byPartition := map[int32][]attempt{}
	for _, a := range h.Attempts {
		byPartition[a.Partition] = append(byPartition[a.Partition], a)
	}
	for p := range h.Final {
		if _, ok := byPartition[p]; !ok {
			byPartition[p] = nil
		}
	}
	partitions := make([]int32, 0, len(byPartition))
	for p := range byPartition {
		partitions = append(partitions, p)
	}
	slices.Sort(partitions)
	for _, p := range partitions {
		judgePartition(&v, p, byPartition[p], h.Final[p], h.Tails[p], h.Ordered)
	}
	return v
}

func judgePartition(v *verdict, p int32, attempts []attempt, final []read, tails [][]read, ordered map[int32]bool) {
	sent := make(map[ident]outcome, len(attempts))
	for _, a := range attempts {
		sent[a.Ident] = a.Outcome
	}
	at := checkFinal(v, p, final, sent)
	checkAcks(v, p, attempts, final, at)
	checkOrder(v, p, final, ordered)
	checkRealTime(v, p, attempts)
	for _, session := range tails {
		checkTail(v, p, session, final, sent)
	}
	for _, a := range attempts {
		if _, written := at[a.Ident]; written && a.Outcome == unknown {
			v.UnknownWritten++
		}
	}
}

// checkFinal finds phantoms and duplicates, and returns each record's first offset.
func checkFinal(v *verdict, p int32, final []read, sent map[ident]outcome) map[ident]int64 {
	at := make(map[ident]int64, len(final))
	last := int64(-1)
	for _, r := range final {
		if r.Offset <= last {
			v.note(&v.Moved, "partition %d: the final read goes from offset %d to %d", p, last, r.Offset)
		}
		last = r.Offset
		if isPhantom(v, p, r, sent) {
			continue
		}
		if first, twice := at[r.Ident]; twice {
			v.note(&v.Duplicated, "partition %d: %+v at offsets %d and %d", p, r.Ident, first, r.Offset)
			continue
		}
		at[r.Ident] = r.Offset
	}
	return at
}

func isPhantom(v *verdict, p int32, r read, sent map[ident]outcome) bool {
	if !r.Whole {
		v.note(&v.Phantom, "partition %d: damaged or foreign record at offset %d", p, r.Offset)
		return true
	}
	how, known := sent[r.Ident]
	switch {
	case !known:
		v.note(&v.Phantom, "partition %d: %+v at offset %d was never sent", p, r.Ident, r.Offset)
		return true
	case how == failed:
		v.note(&v.Phantom, "partition %d: %+v at offset %d was answered as a definite failure", p, r.Ident, r.Offset)
	}
	return false
}

// checkAcks wants every acknowledged record where it was acknowledged.
func checkAcks(v *verdict, p int32, attempts []attempt, final []read, at map[ident]int64) {
	there := make(map[int64]ident, len(final))
	for _, r := range final {
		there[r.Offset] = r.Ident
	}
	promised := map[int64]ident{}
	for _, a := range attempts {
		if a.Outcome != acked {
			continue
		}
		if _, written := at[a.Ident]; a.Offset < 0 { // the client was told that it is written, but not where
			if !written {
				v.note(&v.Lost, "partition %d: %+v was acknowledged without an offset and is not there", p, a.Ident)
			}
			continue
		}
		if other, twice := promised[a.Offset]; twice {
			v.note(&v.Moved, "partition %d: offset %d was acknowledged for %+v and %+v", p, a.Offset, other, a.Ident)
		}
		promised[a.Offset] = a.Ident
		if there[a.Offset] == a.Ident {
			if _, ok := at[a.Ident]; ok {
				continue
			}
		}
		if where, ok := at[a.Ident]; ok {
			v.note(&v.Moved, "partition %d: %+v was acknowledged at offset %d and lies at %d", p, a.Ident, a.Offset, where)
			continue
		}
		v.note(&v.Lost, "partition %d: %+v was acknowledged at offset %d at %v; there is %+v", p, a.Ident, a.Offset, a.End, there[a.Offset])
	}
}

// checkOrder wants the sequences of ordered producers to rise with the offsets.
func checkOrder(v *verdict, p int32, final []read, ordered map[int32]bool) {
	last := map[int32]int64{}
	for _, r := range final {
		if !r.Whole || !ordered[r.Ident.Producer] {
			continue
		}
		if before, ok := last[r.Ident.Producer]; ok && r.Ident.Sequence < before {
			v.note(&v.Reordered, "partition %d: producer %d: sequence %d after %d, at offset %d", p, r.Ident.Producer, r.Ident.Sequence, before, r.Offset)
		}
		last[r.Ident.Producer] = max(last[r.Ident.Producer], r.Ident.Sequence)
	}
}

// checkRealTime wants the offset of an acknowledged send to be above every offset that was acknowledged before the send began.
func checkRealTime(v *verdict, p int32, attempts []attempt) {
	var byStart, byEnd []attempt
	for _, a := range attempts {
		if a.Outcome == acked && a.Offset >= 0 {
			byStart, byEnd = append(byStart, a), append(byEnd, a)
		}
	}
	slices.SortFunc(byStart, func(a, b attempt) int { return cmp.Compare(a.Start, b.Start) })
	slices.SortFunc(byEnd, func(a, b attempt) int { return cmp.Compare(a.End, b.End) })
	known, next := int64(-1), 0
	for _, a := range byStart {
		for ; next < len(byEnd) && byEnd[next].End < a.Start; next++ {
			known = max(known, byEnd[next].Offset)
		}
		if a.Offset <= known {
			v.note(&v.Reordered, "partition %d: %+v was sent at %v, when offset %d was acknowledged, and got offset %d", p, a.Ident, a.Start, known, a.Offset)
		}
	}
}

// checkTail compares what one reader session saw with the final log: the same records at the same offsets, none left out.
func checkTail(v *verdict, p int32, session, final []read, sent map[ident]outcome) {
	if len(session) == 0 {
		return
	}
	// The final read is sorted by offset; where it was not, checkFinal has said so.
	i, _ := slices.BinarySearchFunc(final, session[0].Offset, func(r read, offset int64) int { return cmp.Compare(r.Offset, offset) })
	last := int64(-1)
	for _, r := range session {
		if r.Offset <= last {
			v.note(&v.Skipped, "partition %d: a reader was at offset %d and was given %d", p, last, r.Offset)
			continue
		}
		last = r.Offset
		for ; i < len(final) && final[i].Offset < r.Offset; i++ {
			v.note(&v.Skipped, "partition %d: a reader was not given offset %d, but %d", p, final[i].Offset, r.Offset)
		}
		switch {
		case i == len(final) || final[i].Offset != r.Offset:
			v.note(&v.Lost, "partition %d: %+v was read at offset %d during the run, and nothing is there", p, r.Ident, r.Offset)
		case final[i].Ident != r.Ident || final[i].Whole != r.Whole:
			isPhantom(v, p, r, sent)
			v.note(&v.Moved, "partition %d: offset %d has shown %+v and %+v", p, r.Offset, r.Ident, final[i].Ident)
			i++
		default:
			i++
		}
	}
}

// silences are the longest waits of partitions for their next acknowledgement.
type silences []time.Duration

// silence is the longest interval between two consecutive acknowledgements that overlaps [from, to]; acks is sorted. Without any
// acknowledgement after from, it is the time until to.
func silence(acks []time.Duration, from, to time.Duration) time.Duration {
	i, _ := slices.BinarySearch(acks, from)
	before := from
	if i > 0 {
		before = acks[i-1]
	}
	var longest time.Duration
	for ; before < to; i++ {
		if i == len(acks) {
			return max(longest, to-before)
		}
		longest = max(longest, acks[i]-before)
		before = acks[i]
	}
	return longest
}

// String is p50/p99/max in ms; below 100 samples p99 is the maximum and is left out.
func (s silences) String() string {
	if len(s) == 0 {
		return "-"
	}
	slices.Sort(s)
	ms := func(d time.Duration) string { return fmt.Sprint(d.Milliseconds()) }
	parts := []string{ms(s[len(s)/2]), "-", ms(s[len(s)-1])}
	if len(s) >= 100 {
		parts[1] = ms(s[len(s)*99/100])
	}
	return strings.Join(parts, "/")
}
