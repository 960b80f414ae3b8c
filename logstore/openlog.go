package logstore

import (
	"errors"
	"fmt"
	"io"
)

// openTail takes over the last segment: its indexes stay in their files.
func (ld *loader) openTail(s *segment) (tail, int64, error) {
	t := newTail(s, ld.owner.now(), ld.owner.jitter(ld.config))
	t.size = s.sealedSize
	if t.size == 0 {
		return t, s.base, nil
	}
	t.indexFiles = true
	index, err := s.acquireIndex()
	if err != nil {
		return t, 0, err
	}
	defer index.release()
	if t.indexOnDisk, err = entriesIn(index.file, indexEntrySize); err != nil {
		return t, 0, storageError("stat", s.path(indexSuffix), err)
	}
	times, err := s.acquireTimeIndex()
	if err != nil {
		return t, 0, err
	}
	defer times.release()
	if t.timesOnDisk, err = entriesIn(times.file, timeEntrySize); err != nil {
		return t, 0, storageError("stat", s.path(timeIndexSuffix), err)
	}
	end, err := ld.scanTail(&t)
	s.closeFiles() // an idle partition needs no descriptor
	return t, end, err
}

// scanTail reads the batch headers from the last index entry on, and completes what the tail knows: its largest timestamp,
// and how far the last entry is. It returns the log's end: the offset after the last batch.
func (l *Log) scanTail(t *tail) (end int64, err error) {
	s := t.seg
	pos, err := t.lastIndexed()
	if err != nil {
		return 0, err
	}
	if err := t.readLastTime(); err != nil {
		return 0, err
	}
	t.sinceIndex = int(t.size - pos)
	end = s.base
	if pos >= t.size {
		if t.size == 0 {
			return end, nil
		}
		return 0, corrupt("index position", pos, t.size)
	}
	f, err := s.acquireLog()
	if err != nil {
		return 0, err
	}
	defer f.release()
	scan := newScanner(f.file, t.size)
	defer scan.done()
	for {
		b, err := scan.at(pos)
		if errors.Is(err, io.EOF) {
			return end, nil
		}
		if err != nil {
			return 0, fmt.Errorf("%s at %d: %w", s.path(logSuffix), pos, err)
		}
		t.updateMax(b)
		end = b.NextOffset()
		pos += int64(b.Size())
	}
}

// lastIndexed is the position of the last index entry, 0 when there is none.
func (t *tail) lastIndexed() (int64, error) {
	if n := len(t.index); n > 0 {
		return int64(t.index[n-1].pos), nil
	}
	if t.indexOnDisk == 0 {
		return 0, nil
	}
	var e [indexEntrySize]byte
	x := offsetIndex{seg: t.seg}
	if err := x.readDisk(t.indexOnDisk-1, e[:]); err != nil {
		return 0, err
	}
	return int64(parseIndexEntry(e[:]).pos), nil
}

func (t *tail) readLastTime() error {
	var e timeEntry
	switch n := len(t.times); {
	case n > 0:
		e = t.times[n-1]
	case t.timesOnDisk == 0:
		return nil
	default:
		f, err := t.seg.acquireTimeIndex()
		if err != nil {
			return err
		}
		defer f.release()
		if e, err = readTimeEntry(f.file, t.timesOnDisk-1); err != nil {
			return t.seg.readFault(timeIndexSuffix, err)
		}
	}
	t.lastTime = e.timestamp
	t.max = segmentTimes{max: e.timestamp, maxOffset: t.seg.base + int64(e.rel)}
	return nil
}
