package logstore

import (
	"encoding/binary"
	"errors"
	"io"
	"sort"
)

// The time index of a segment: 12-byte entries, timestamps strictly ascending,
//
//	0  int64  largest timestamp so far in the segment, ms since 1970
//	8  int32  last offset of the first batch that has it, relative to the segment's base
//
// An entry is tried whenever the offset index gets one, and once more when the segment is sealed or closed cleanly; the last
// entry of a sealed segment therefore is the segment's maximum, which time retention relies on.
const timeEntrySize = 12

// timeEntry is one entry of the time index.
type timeEntry struct {
	timestamp int64
	rel       uint32
}

func (e timeEntry) put(b []byte) {
	binary.BigEndian.PutUint64(b, uint64(e.timestamp))
	binary.BigEndian.PutUint32(b[8:], e.rel)
}

func parseTimeEntry(b []byte) timeEntry {
	return timeEntry{timestamp: int64(binary.BigEndian.Uint64(b)), rel: binary.BigEndian.Uint32(b[8:])}
}

func readTimeEntry(f File, i int) (timeEntry, error) {
	var b [timeEntrySize]byte
	if err := readFull(f, b[:], int64(i)*timeEntrySize); err != nil {
		return timeEntry{}, err
	}
	return parseTimeEntry(b[:]), nil
}

// timeIndex is a readable time index: entries in the file, then entries in memory.
type timeIndex struct {
	seg    *segment
	onDisk int // -1: as many as the file has
	memory []timeEntry
}

// floorRel returns the relative offset of the last entry whose timestamp is at most ts, 0 when there is none: no record
// before it has a larger timestamp.
func (x timeIndex) floorRel(ts int64) (int64, error) {
	if len(x.memory) > 0 && x.memory[0].timestamp <= ts {
		i := sort.Search(len(x.memory), func(i int) bool { return x.memory[i].timestamp > ts })
		return int64(x.memory[i-1].rel), nil
	}
	if x.onDisk == 0 {
		return 0, nil
	}
	f, err := x.seg.acquireTimeIndex()
	if err != nil {
		return 0, err
	}
	defer f.release()
	n := x.onDisk
	if n < 0 {
		if n, err = entriesIn(f.file, timeEntrySize); err != nil {
			return 0, storageError("stat", x.seg.path(timeIndexSuffix), err)
		}
	}
	var e [timeEntrySize]byte
	found, err := searchFile(f.file, n, timeEntrySize, func(b []byte) bool { return parseTimeEntry(b).timestamp > ts }, e[:])
	if err != nil {
		return 0, x.seg.readFault(timeIndexSuffix, err)
	}
	if found == 0 {
		return 0, nil
	}
	return int64(parseTimeEntry(e[:]).rel), nil
}

// readFault tells a segment that was cut or removed meanwhile from a fault of the machine.
func (s *segment) readFault(suffix string, err error) error {
	if s.gone.Load() {
		return errSegmentGone
	}
	return storageError("read", s.path(suffix), err)
}

func shortRead(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
