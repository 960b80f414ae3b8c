package logstore

import (
	"math"
	"sort"
)

// noUnstable is view.firstUnstable when no transaction is open or unreplicated.
const noUnstable = math.MaxInt64

// view is what readers see of a log, as of one moment. It is immutable once stored: whoever changes something stores a
// changed copy by compare-and-swap (see Log.publish). What concerns segments, indexes and the log's end is only changed by
// the holder of the log's lock; the high watermark can move without it.
//
// Invariant: logStart <= lastStable <= highWatermark <= logEnd; segments has at least one element and ascends.
type view struct {
	segments []*segment

	// The active segment, which is the last one.
	index       []indexEntry // the entries that are not in the file
	indexOnDisk int
	times       []timeEntry
	timesOnDisk int
	size        int64 // of the .log
	max         segmentTimes
	last        lastAppend

	logStart      int64
	logEnd        int64
	highWatermark int64
	lastStable    int64
	firstUnstable int64 // noUnstable when there is none
}

// lastAppend is where the newest append begins: caught-up readers ask for exactly that, and need no index then.
type lastAppend struct {
	base int64 // offset, -1 unknown
	pos  int64
	size int // of its first batch
}

// settle makes the offsets agree after a change: the log's start and end are facts, the rest follows.
func (v *view) settle() {
	v.highWatermark = min(max(v.highWatermark, v.logStart), v.logEnd)
	v.lastStable = v.highWatermark
	if v.firstUnstable != noUnstable {
		v.lastStable = min(v.lastStable, max(v.firstUnstable, v.logStart))
	}
}

func (v *view) active() *segment { return v.segments[len(v.segments)-1] }

// find returns the index of the segment that may hold offset: the last one whose base is not above it.
func (v *view) find(offset int64) int {
	above := sort.Search(len(v.segments), func(i int) bool { return v.segments[i].base > offset })
	return max(above-1, 0)
}

func (v *view) isActive(i int) bool { return i == len(v.segments)-1 }

// segmentSize is the number of bytes of segment i that are in this view.
func (v *view) segmentSize(i int) int64 {
	if v.isActive(i) {
		return v.size
	}
	return v.segments[i].sealedSize
}

// segmentEnd is the exclusive end of the offsets that segment i may hold.
func (v *view) segmentEnd(i int) int64 {
	if v.isActive(i) {
		return v.logEnd
	}
	return v.segments[i+1].base
}

func (v *view) offsetIndex(i int) offsetIndex {
	if v.isActive(i) {
		return offsetIndex{seg: v.segments[i], onDisk: v.indexOnDisk, memory: v.index}
	}
	return offsetIndex{seg: v.segments[i], onDisk: -1}
}

func (v *view) timeIndex(i int) timeIndex {
	if v.isActive(i) {
		return timeIndex{seg: v.segments[i], onDisk: v.timesOnDisk, memory: v.times}
	}
	return timeIndex{seg: v.segments[i], onDisk: -1}
}

// timesOf is the largest timestamp of segment i.
func (v *view) timesOf(i int) (segmentTimes, error) {
	if v.isActive(i) {
		return v.max, nil
	}
	return v.segments[i].times()
}

// largestTimestamp is timesOf with the file's modification time for segments whose records have no timestamps.
func (v *view) largestTimestamp(i int) (int64, error) {
	t, err := v.timesOf(i)
	if err != nil || t.max >= 0 {
		return t.max, err
	}
	mtime, err := v.segments[i].modTime()
	if err != nil {
		return 0, err
	}
	return mtime.UnixMilli(), nil
}

func (v *view) totalSize() int64 {
	var total int64
	for i := range v.segments {
		total += v.segmentSize(i)
	}
	return total
}
