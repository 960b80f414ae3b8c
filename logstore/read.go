package logstore

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

// scanner reads batch headers of a .log up to a limit, in blocks.
type scanner struct {
	file  File
	limit int64 // exclusive end of what may be read
	block *[searchBlock]byte
	start int64 // position of the block's bytes
	n     int
}

func newScanner(f File, limit int64) scanner {
	return scanner{file: f, limit: limit, block: blocks.Get().(*[searchBlock]byte)}
}

func (s *scanner) done() { blocks.Put(s.block) }

// at returns the header of the batch at pos (BatchOverhead bytes, or fewer for short messages of old formats); it is valid
// until the next call. io.EOF: pos is the limit. io.ErrUnexpectedEOF: the batch is not there completely. ErrCorrupt: none starts there.
func (s *scanner) at(pos int64) (Batch, error) {
	if pos >= s.limit {
		return nil, io.EOF
	}
	need := min(int64(BatchOverhead), s.limit-pos)
	if pos < s.start || pos+need > s.start+int64(s.n) {
		want := min(int64(len(s.block)), s.limit-pos)
		s.start, s.n = pos, int(want)
		if err := readFull(s.file, s.block[:want], pos); err != nil {
			s.n = 0
			return nil, err
		}
	}
	head := s.block[pos-s.start : s.n]
	size, err := BatchSize(head)
	if err != nil {
		return nil, err
	}
	if int64(size) > s.limit-pos {
		return nil, io.ErrUnexpectedEOF
	}
	return Batch(head[:min(size, BatchOverhead)]), nil
}

// batchPlace is where a batch lies.
type batchPlace struct {
	base int64 // first offset
	pos  int64
	size int
}

// locate finds the first batch of segment i whose last offset is at least offset. ok is false when there is none.
func (v *view) locate(i int, f File, offset int64) (p batchPlace, ok bool, err error) {
	if v.isActive(i) && offset == v.last.base {
		return batchPlace{base: offset, pos: v.last.pos, size: v.last.size}, true, nil
	}
	s := v.segments[i]
	pos, err := v.offsetIndex(i).floorPos(offset - s.base)
	if err != nil {
		return p, false, err
	}
	scan := newScanner(f, v.segmentSize(i))
	defer scan.done()
	for {
		b, err := scan.at(pos)
		if errors.Is(err, io.EOF) {
			return p, false, nil
		}
		if err != nil {
			return p, false, s.readFault(logSuffix, fmt.Errorf("position %d: %w", pos, err))
		}
		if b.LastOffset() >= offset {
			return batchPlace{base: b.BaseOffset(), pos: pos, size: b.Size()}, true, nil
		}
		pos += int64(b.Size())
	}
}

// viewTries is how often a reader looks again after it met a segment that was removed or cut: each time somebody changed the
// segments in between, or is about to show the view without it.
const viewTries = 100

// awaitView lets whoever changes the segments come to its end: at once at first, then for some 50 ms in all.
func awaitView(try int) {
	if try > viewTries/10 {
		time.Sleep(time.Duration(try) * 10 * time.Microsecond)
	}
}

// cutMeanwhile reports an error that a look at segments ends with while they are removed or cut: a file is shorter before the view
// says so. From a file that is short for another reason it is returned in the end.
func cutMeanwhile(err error) bool {
	return errors.Is(err, errSegmentGone) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// withView runs fn on the current view, again when a segment of it was removed or cut meanwhile.
func (l *Log) withView(fn func(v *view) error) error {
	var err error
	for try := range viewTries {
		awaitView(try)
		if err = fn(l.view.Load()); !cutMeanwhile(err) {
			return err
		}
	}
	return storageError("read", l.Dir(), err)
}

// Read finds the batches from the one that holds offset on, in one segment, at most maxBytes of them; with minOneBatch the
// first batch is returned whole even when it is larger. end is the exclusive offset limit (log end, high watermark or last stable
// offset): no batch at or above it is returned. Nothing to read is an empty Slice. The caller releases the Slice.
//
// kerr.OffsetOutOfRange: offset is below the log start or above the log end. It takes no lock and parses nothing but headers.
func (l *Log) Read(offset int64, maxBytes int, end int64, minOneBatch bool) (Slice, error) {
	var last error
	for try := range viewTries {
		awaitView(try)
		s, err := l.view.Load().read(offset, maxBytes, end, minOneBatch)
		if err == nil {
			return s, nil
		}
		last = err
		if !cutMeanwhile(err) {
			l.judgeRead(err)
			return s, err
		}
	}
	return Slice{}, storageError("read", l.Dir(), last)
}

// judgeRead takes the directory offline when its disk fails. Damaged content is reported by its error alone.
func (l *Log) judgeRead(err error) {
	if errors.Is(err, syscall.EIO) {
		l.owner.fail(err)
	}
}

func (v *view) read(offset int64, maxBytes int, end int64, minOneBatch bool) (Slice, error) {
	if offset < v.logStart || offset > v.logEnd {
		return Slice{}, kerr.OffsetOutOfRange
	}
	end = min(end, v.logEnd)
	if offset >= end {
		return Slice{}, nil
	}
	// A compacted segment can end below its successor's base: then the next one has the batch.
	for i := v.find(offset); i < len(v.segments) && v.segments[i].base < end; i++ {
		s, found, err := v.readSegment(i, offset, maxBytes, end, minOneBatch)
		if found || err != nil {
			return s, err
		}
	}
	return Slice{}, nil
}

func (v *view) readSegment(i int, offset int64, maxBytes int, end int64, minOneBatch bool) (s Slice, found bool, err error) {
	seg := v.segments[i]
	f, err := seg.acquireLog()
	if err != nil {
		return s, false, err
	}
	first, ok, err := v.locate(i, f.file, offset)
	if err != nil || !ok {
		f.release()
		return s, false, err
	}
	n, err := v.sliceLen(i, f.file, first, maxBytes, end, minOneBatch)
	if err != nil || n == 0 {
		f.release()
		return s, true, err
	}
	return Slice{Pos: first.pos, Len: n, FirstOffset: first.base, SegmentBase: seg.base, file: f}, true, nil
}

// sliceLen is how many bytes may be read from the first batch on.
func (v *view) sliceLen(i int, f File, first batchPlace, maxBytes int, end int64, minOneBatch bool) (int64, error) {
	if first.base >= end { // a gap reaches beyond the limit
		return 0, nil
	}
	stop := v.segmentSize(i)
	if end < v.segmentEnd(i) {
		limit, ok, err := v.locate(i, f, end)
		if err != nil {
			return 0, err
		}
		if ok {
			stop = limit.pos
		}
	}
	n := min(stop-first.pos, int64(maxBytes))
	if n >= int64(first.size) {
		return n, nil
	}
	if !minOneBatch {
		return 0, nil
	}
	return max(min(int64(first.size), stop-first.pos), 0), nil
}

// SliceEnd is an exclusive upper bound of the offsets in a slice, for AbortedTransactions: the index entry after it, else the
// next segment's base, else the log's end.
func (l *Log) SliceEnd(s *Slice) int64 {
	end := s.FirstOffset
	err := l.withView(func(v *view) error {
		i := v.find(s.SegmentBase)
		end = v.segmentEnd(i)
		if v.segments[i].base != s.SegmentBase {
			return nil
		}
		rel, ok, err := v.offsetIndex(i).ceilingByPos(s.Pos + s.Len)
		if err == nil && ok {
			end = min(end, s.SegmentBase+rel)
		}
		return err
	})
	if err != nil {
		return l.LogEndOffset() // a superset is harmless
	}
	return end
}

// AbortedTransactions lists the aborted transactions that overlap [from, to), which read_committed consumers need with the
// batches of that range. It may list more than that; consumers do not mind.
func (l *Log) AbortedTransactions(from, to int64) ([]AbortedTxn, error) {
	var found []AbortedTxn
	err := l.withView(func(v *view) error {
		found = found[:0]
		for i := v.find(from); i < len(v.segments); i++ {
			x := v.segments[i].txn.Load()
			if x == nil {
				continue
			}
			var complete bool
			var err error
			found, complete, err = x.Collect(found, from, to)
			if err != nil && v.segments[i].gone.Load() {
				return errSegmentGone
			}
			if err != nil {
				return storageError("read", v.segments[i].path(txnIndexSuffix), err)
			}
			if complete {
				break
			}
		}
		return nil
	})
	return found, err
}

// timestampHit is the answer of a lookup by time.
type timestampHit struct {
	offset, timestamp int64
	epoch             cluster.LeaderEpoch
	found             bool
}

// OffsetForTimestamp finds the first record at or above the log start with a timestamp of at least ts (ms since 1970), in the
// first segment whose largest timestamp is at least ts. Source: KIP-79.
func (l *Log) OffsetForTimestamp(ts int64) (offset, timestamp int64, epoch cluster.LeaderEpoch, found bool, err error) {
	var hit timestampHit
	err = l.withView(func(v *view) error {
		hit = timestampHit{offset: -1, timestamp: -1, epoch: cluster.NoLeaderEpoch}
		for i := v.find(v.logStart); i < len(v.segments); i++ {
			largest, err := v.largestTimestamp(i)
			if err != nil {
				return err
			}
			if largest < ts {
				continue
			}
			hit, err = v.findTimestamp(i, ts)
			return err
		}
		return nil
	})
	return hit.offset, hit.timestamp, hit.epoch, hit.found, err
}

// MaxTimestamp finds the first record with the largest timestamp of the log. Source: KIP-734.
func (l *Log) MaxTimestamp() (offset, timestamp int64, epoch cluster.LeaderEpoch, found bool, err error) {
	var hit timestampHit
	err = l.withView(func(v *view) error {
		hit = timestampHit{offset: -1, timestamp: -1, epoch: cluster.NoLeaderEpoch}
		best, at := segmentTimes{max: NoTimestamp}, -1
		for i := range v.segments {
			t, err := v.timesOf(i)
			if err != nil {
				return err
			}
			if t.max > best.max {
				best, at = t, i
			}
		}
		if at < 0 {
			return nil
		}
		hit, err = v.findTimestamp(at, best.max)
		return err
	})
	return hit.offset, hit.timestamp, hit.epoch, hit.found, err
}

// findTimestamp finds the first record of segment i at or above the log start with a timestamp of at least ts.
func (v *view) findTimestamp(i int, ts int64) (timestampHit, error) {
	none := timestampHit{offset: -1, timestamp: -1, epoch: cluster.NoLeaderEpoch}
	s := v.segments[i]
	// Every record below the entry's batch is older than the entry's timestamp: start there.
	rel, err := v.timeIndex(i).floorRel(ts)
	if err != nil {
		return none, err
	}
	pos, err := v.offsetIndex(i).floorPos(max(rel, v.logStart-s.base))
	if err != nil {
		return none, err
	}
	f, err := s.acquireLog()
	if err != nil {
		return none, err
	}
	defer f.release()
	scan := newScanner(f.file, v.segmentSize(i))
	defer scan.done()
	for {
		b, err := scan.at(pos)
		if errors.Is(err, io.EOF) {
			return none, nil
		}
		if err != nil {
			return none, s.readFault(logSuffix, err)
		}
		size := b.Size()
		if b.MaxTimestamp() >= ts && b.LastOffset() >= v.logStart {
			hit, err := v.findInBatch(s, f.file, pos, size, ts)
			if hit.found || err != nil {
				return hit, err
			}
		}
		pos += int64(size)
	}
}

func (v *view) findInBatch(s *segment, f File, pos int64, size int, ts int64) (timestampHit, error) {
	buf := make([]byte, size)
	if err := readFull(f, buf, pos); err != nil {
		return timestampHit{}, s.readFault(logSuffix, err)
	}
	b := Batch(buf)
	for r, err := range b.Records() {
		if err != nil {
			return timestampHit{}, s.readFault(logSuffix, err)
		}
		if r.Timestamp >= ts && r.Offset >= v.logStart {
			return timestampHit{offset: r.Offset, timestamp: r.Timestamp, epoch: b.LeaderEpoch(), found: true}, nil
		}
	}
	return timestampHit{}, nil
}
