package inspect

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"ottla/logstore"
)

// segmentReader compares one segment's batches with its index files, in one pass.
type segmentReader struct {
	*reader
	seg      Segment
	log      string // path
	index    []logstore.IndexEntry
	times    []logstore.TimeEntry
	aborted  []logstore.AbortedTxn
	wantTxns []logstore.AbortedTxn // by the markers
	atIndex  int                   // entries that were compared
	atTime   int
	maxTime  int64
	indexBad []func() // findings whose severity depends on where the segment ends
}

func (r *reader) segment(base int64, last bool) error {
	s := &segmentReader{reader: r, log: r.path(base, ".log"), maxTime: logstore.NoTimestamp}
	s.seg = Segment{Base: base, Bytes: r.files[fmt.Sprintf("%020d.log", base)], Codecs: map[string]int{}, MinTimestamp: -1, MaxTimestamp: -1, Snapshot: r.has(base, ".snapshot")}
	if r.o.Progress != nil {
		r.o.Progress(s.log, s.seg.Bytes)
	}
	if base < r.next {
		r.add(Fault, s.log, 0, base, "move one of the two segments away", "begins at %d, but the segment before ends at %d", base, r.next)
	}
	s.noteGap(base)
	r.next = max(r.next, base)
	s.readIndexes()
	s.compareSnapshot(base)
	end, cause, err := logstore.ReadBatches(r.o.fs(), s.log, s.batch)
	var bad *soundError
	switch {
	case errors.As(err, &bad):
		end, cause = bad.position, bad.cause
	case err != nil:
		return err
	}
	if cause != nil {
		s.torn(end, cause, last)
	}
	s.seg.End = r.next
	s.finishIndexes(last)
	r.Bytes += s.seg.Bytes
	r.Segments = append(r.Segments, s.seg)
	if last && r.next != base {
		s.compareSnapshot(r.next)
	}
	return nil
}

func (s *segmentReader) noteGap(offset int64) {
	if offset > s.next {
		s.gaps++
	}
}

// soundError ends the reading of a segment: what follows cannot be trusted.
type soundError struct {
	position int64
	cause    error
}

func (e *soundError) Error() string { return fmt.Sprintf("at %d: %v", e.position, e.cause) }

// torn tells of a segment whose end is not whole, sound batches.
func (s *segmentReader) torn(end int64, cause error, last bool) {
	rest := s.seg.Bytes - end
	what := cause.Error()
	if errors.Is(cause, io.ErrUnexpectedEOF) {
		what = "the last batch is not complete"
	}
	// Cutting here costs what follows, unless a start never promised it.
	severity, next := Fault, fmt.Sprintf("a recovery cuts %d bytes from here on, and all later segments; another replica has the records", rest)
	switch {
	case s.Context.Known && s.Context.Clean:
		next = "a start after a clean stop does not notice; readers of this offset get an error"
	case last && s.covered(s.next+1) && s.next >= s.Context.RecoveryPoint:
		severity, next = Repaired, fmt.Sprintf("the next start cuts the last %d bytes: an unclean stop left them", rest)
	}
	s.add(severity, s.log, end, s.next, next, "%d of %d bytes are no sound batches: %s", rest, s.seg.Bytes, what)
}

// batch checks one whole batch against all that is known.
func (s *segmentReader) batch(pos int64, b logstore.Batch) error {
	if err := s.sound(b); err != nil {
		return &soundError{pos, err}
	}
	first := b.BaseOffset()
	if b.Magic() < 2 {
		if offset, err := b.FirstOffset(); err == nil {
			first = offset
		}
	}
	s.noteGap(first)
	s.count(b)
	s.checkRecords(pos, b)
	s.checkEpoch(pos, b)
	s.replay(pos, b)
	s.checkIndexEntries(pos, b)
	s.maxTime = max(s.maxTime, b.MaxTimestamp())
	s.checkTimeEntries(b)
	s.next = b.NextOffset()
	return nil
}

// sound is what recovery checks too.
func (s *segmentReader) sound(b logstore.Batch) error {
	if b.Magic() == 2 && (b.LastOffsetDelta() < 0 || b.BaseOffset() < s.next) {
		return fmt.Errorf("batch begins at offset %d, below %d", b.BaseOffset(), s.next)
	}
	if last := b.LastOffset(); last < s.next || last-s.seg.Base > math.MaxInt32 {
		return fmt.Errorf("batch ends at offset %d, outside of [%d, %d]", last, s.next, s.seg.Base+math.MaxInt32)
	}
	return b.VerifyCRC()
}

func (s *segmentReader) count(b logstore.Batch) {
	s.seg.Batches++
	s.seg.Codecs[b.Codec().String()]++
	if b.IsControl() {
		s.seg.Control++
	}
	s.seg.MaxTimestamp = max(s.seg.MaxTimestamp, b.MaxTimestamp())
	if t := b.BaseTimestamp(); t >= 0 && (s.seg.MinTimestamp < 0 || t < s.seg.MinTimestamp) {
		s.seg.MinTimestamp = t
	}
}

const rewriteHint = "consumers fail here: skip the offset, or copy the topic without it"

func (s *segmentReader) checkRecords(pos int64, b logstore.Batch) {
	n, last, latest := int32(0), b.BaseOffset()-1, logstore.NoTimestamp
	for r, err := range b.Records() {
		if err != nil {
			s.add(Fault, s.log, pos, b.BaseOffset(), rewriteHint, "the checksum is right, but the records cannot be read: %v", err)
			return
		}
		n++
		if b.Magic() == 2 && (r.Offset <= last || r.Offset > b.LastOffset()) {
			s.add(Fault, s.log, pos, r.Offset, rewriteHint, "record %d of a batch [%d, %d] has an offset that does not follow", n, b.BaseOffset(), b.LastOffset())
			return
		}
		last, latest = r.Offset, max(latest, r.Timestamp)
		s.decode(pos, b, r)
	}
	s.seg.Records += int64(n)
	if b.Magic() == 2 && n != b.Count() {
		s.add(Fault, s.log, pos, b.BaseOffset(), rewriteHint, "the header counts %d records, there are %d", b.Count(), n)
	}
	if b.Magic() == 2 && n > 0 && !b.HasDeleteHorizon() && b.TimestampType() == logstore.CreateTime && latest > b.MaxTimestamp() {
		s.add(Note, s.log, pos, b.BaseOffset(), "", "a record is younger (%d) than the header's largest timestamp (%d)", latest, b.MaxTimestamp())
	}
}

func (s *segmentReader) decode(pos int64, b logstore.Batch, r logstore.Record) {
	if s.o.Decode == nil || b.IsControl() {
		return
	}
	if _, _, err := s.o.Decode(s.Topic, r); err != nil {
		s.add(Fault, s.log, pos, r.Offset, "the coordinator skips it", "%v", err)
	}
}

func (s *segmentReader) checkEpoch(pos int64, b logstore.Batch) {
	if b.Magic() < 2 {
		return
	}
	if b.LeaderEpoch() < s.lastEpoch {
		s.add(Fault, s.log, pos, b.BaseOffset(), "replicas may not agree here: compare them", "leader epoch %d follows %d", b.LeaderEpoch(), s.lastEpoch)
	}
	s.lastEpoch = max(s.lastEpoch, b.LeaderEpoch())
	known, ok := s.epochAt(b.BaseOffset())
	if ok && known != int32(b.LeaderEpoch()) || !ok && len(s.Epochs) > 0 && b.BaseOffset() >= s.LogStart {
		severity, next := s.grade(b.NextOffset())
		s.add(severity, s.log, pos, b.BaseOffset(), next, "the batch is of leader epoch %d, %s says %d", b.LeaderEpoch(), logstore.EpochCheckpointFile, known)
	}
}

// replay brings the producers up to the batch and collects what the transaction index should hold.
func (s *segmentReader) replay(pos int64, b logstore.Batch) {
	s.producers.SetMapEnd(b.NextOffset())
	if !b.HasProducerID() {
		return
	}
	if err := s.producers.Prepare(&s.update, b, logstore.OriginReplication); err != nil {
		s.add(Fault, s.log, pos, b.BaseOffset(), "", "%v", err)
		return
	}
	s.wantTxns = append(s.wantTxns, s.producers.Commit(&s.update)...)
	if b.IsControl() {
		s.producers.OnHighWatermark(math.MaxInt64) // ended ones need not be remembered
	}
}

// ---- index files

func (s *segmentReader) readIndexes() {
	var torn int
	var err error
	if s.has(s.seg.Base, ".index") {
		path := s.path(s.seg.Base, ".index")
		s.index, torn, err = logstore.ReadOffsetIndex(s.o.fs(), path, s.seg.Base)
		s.later(path, torn, err)
	}
	if s.has(s.seg.Base, ".timeindex") {
		path := s.path(s.seg.Base, ".timeindex")
		s.times, torn, err = logstore.ReadTimeIndex(s.o.fs(), path, s.seg.Base)
		s.later(path, torn, err)
	}
	if s.has(s.seg.Base, ".txnindex") {
		path := s.path(s.seg.Base, ".txnindex")
		s.aborted, err = logstore.ReadTxnIndex(s.o.fs(), path)
		s.later(path, 0, err)
	}
	s.index, s.times = trimIndex(s.index), trimTimes(s.times)
}

// Kafka maps an index at its full size and trims it when it is closed: after a kill the rest is zeros.
func trimIndex(list []logstore.IndexEntry) []logstore.IndexEntry {
	if len(list) == 0 {
		return list
	}
	base := list[len(list)-1].Offset
	n := len(list)
	for n > 1 && list[n-1].Position == 0 && list[n-1].Offset == base {
		n--
	}
	if n < len(list) && list[n-1].Position == 0 && n == 1 {
		n = 0
	}
	return list[:n]
}

func trimTimes(list []logstore.TimeEntry) []logstore.TimeEntry {
	n := len(list)
	for n > 0 && list[n-1].Timestamp == 0 {
		n--
	}
	return list[:n]
}

func (s *segmentReader) later(path string, torn int, err error) {
	if err != nil {
		s.indexFinding(path, -1, -1, "%v", err)
	}
	if torn > 0 {
		s.indexFinding(path, -1, -1, "%d bytes follow the last whole entry", torn)
	}
}

// indexFinding is graded once the segment's end is known.
func (s *segmentReader) indexFinding(path string, position, offset int64, format string, args ...any) {
	s.indexBad = append(s.indexBad, func() {
		severity, next := s.grade(s.seg.End)
		s.add(severity, path, position, offset, next, format, args...)
	})
}

// checkIndexEntries compares the entries that point to this batch, or should have pointed to one before it.
func (s *segmentReader) checkIndexEntries(pos int64, b logstore.Batch) {
	path := s.path(s.seg.Base, ".index")
	for ; s.atIndex < len(s.index) && s.index[s.atIndex].Position <= pos; s.atIndex++ {
		e := s.index[s.atIndex]
		at := int64(s.atIndex * 8)
		switch {
		case e.Position < pos:
			s.indexFinding(path, at, e.Offset, "points to %d, where no batch begins", e.Position)
		case e.Offset < b.LastOffset(): // Kafka's followers note the last of several batches with the position of the first
			s.indexFinding(path, at, e.Offset, "points to %d, where the batch [%d, %d] is", e.Position, b.BaseOffset(), b.LastOffset())
		case s.atIndex > 0 && e.Offset <= s.index[s.atIndex-1].Offset:
			s.indexFinding(path, at, e.Offset, "is not above the entry before")
		}
	}
}

// checkTimeEntries compares the entries whose offset lies in this batch or before: none of the batches so far may be younger.
func (s *segmentReader) checkTimeEntries(b logstore.Batch) {
	path := s.path(s.seg.Base, ".timeindex")
	for ; s.atTime < len(s.times) && s.times[s.atTime].Offset <= b.LastOffset(); s.atTime++ {
		e := s.times[s.atTime]
		at := int64(s.atTime * 12)
		if e.Timestamp < s.maxTime {
			s.indexFinding(path, at, e.Offset, "says that nothing up to this offset is younger than %d, but a batch of %d is", e.Timestamp, s.maxTime)
		}
		if s.atTime > 0 && (e.Timestamp <= s.times[s.atTime-1].Timestamp || e.Offset < s.times[s.atTime-1].Offset) {
			s.indexFinding(path, at, e.Offset, "is not above the entry before")
		}
	}
}

func (s *segmentReader) finishIndexes(last bool) {
	base := s.seg.Base
	s.seg.IndexEntries, s.seg.TimeEntries, s.seg.Aborted = len(s.index), len(s.times), len(s.aborted)
	if s.seg.Bytes > 0 && !s.has(base, ".index") {
		s.add(Repaired, s.path(base, ".index"), -1, -1, "the next start rebuilds it", "the segment has no index")
	}
	if n := len(s.index); s.atIndex < n {
		e := s.index[s.atIndex]
		s.indexFinding(s.path(base, ".index"), int64(s.atIndex*8), e.Offset, "%d entries point behind the last sound batch, the first of them to %d", n-s.atIndex, e.Position)
	}
	if n := len(s.times); s.atTime < n {
		e := s.times[s.atTime]
		s.indexFinding(s.path(base, ".timeindex"), int64(s.atTime*12), e.Offset, "%d entries are above the last sound batch", n-s.atTime)
	}
	// Time retention goes by the last entry of a sealed segment.
	if sealed := !last || s.Context.Clean; sealed && s.maxTime >= 0 && s.has(base, ".timeindex") {
		if n := len(s.times); n == 0 || s.times[n-1].Timestamp != s.maxTime {
			s.indexFinding(s.path(base, ".timeindex"), -1, -1, "does not end with the segment's largest timestamp %d", s.maxTime)
		}
	}
	s.compareTxns()
	for _, tell := range s.indexBad {
		tell()
	}
}

// compareTxns compares the transaction index with the markers. A transaction that began below the log's start, or whose data was
// compacted away, has no trace but its entry.
func (s *segmentReader) compareTxns() {
	path := s.path(s.seg.Base, ".txnindex")
	for _, want := range s.wantTxns {
		found := slices.ContainsFunc(s.aborted, func(a logstore.AbortedTxn) bool {
			return a.ProducerID == want.ProducerID && a.LastOffset == want.LastOffset && a.FirstOffset <= want.FirstOffset
		})
		if !found {
			s.indexFinding(path, -1, want.LastOffset, "lacks the aborted transaction [%d, %d] of producer %d", want.FirstOffset, want.LastOffset, want.ProducerID)
		}
	}
	for i, a := range s.aborted {
		if a.LastOffset < s.seg.Base || a.LastOffset >= s.seg.End {
			s.indexFinding(path, int64(i*34), a.LastOffset, "has a transaction that ends outside of the segment [%d, %d)", s.seg.Base, s.seg.End)
		}
	}
}

// compareSnapshot compares the snapshot at offset, where there is one, with the batches up to there.
func (s *segmentReader) compareSnapshot(offset int64) {
	if !s.has(offset, ".snapshot") {
		return
	}
	path := s.path(offset, ".snapshot")
	list, err := logstore.ReadProducerSnapshot(s.o.fs(), path)
	if err != nil {
		severity, next := s.grade(offset + 1)
		s.add(severity, path, -1, offset, next, "%v", err)
		return
	}
	in := map[int64]logstore.ProducerInfo{}
	for _, p := range list {
		in[p.ProducerID] = p
	}
	newest := int64(0)
	for _, p := range s.producers.Producers() {
		newest = max(newest, p.LastTimestamp)
	}
	for _, want := range s.producers.Producers() {
		got, ok := in[want.ProducerID]
		switch {
		case !ok && newest-want.LastTimestamp > snapshotAgeMax.Milliseconds():
		case !ok:
			s.add(Note, path, -1, offset, "", "does not know producer %d, whose last batch ends at %d", want.ProducerID, want.LastOffset)
		case got.ProducerEpoch != want.ProducerEpoch && got.LastOffset <= want.LastOffset, got.LastOffset != want.LastOffset && want.LastOffset >= 0:
			severity, next := s.grade(offset + 1)
			s.add(severity, path, -1, offset, next, "says of producer %d: epoch %d, last offset %d; the batches say epoch %d, last offset %d",
				want.ProducerID, got.ProducerEpoch, got.LastOffset, want.ProducerEpoch, want.LastOffset)
		}
	}
}
