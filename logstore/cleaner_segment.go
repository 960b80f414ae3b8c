package logstore

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"slices"
	"time"
)

// cleanedBufferBytes is how much output is collected for one write.
const cleanedBufferBytes = 256 << 10

// cleanedSegment is the output for one group of segments, in files that end in .cleaned until they are complete.
type cleanedSegment struct {
	log     *Log
	config  *Config
	seg     *segment // what it will be
	tail    tail     // accounts for indexes and timestamps
	file    File
	buf     []byte
	written int64
	aborted []AbortedTxn
}

// createCleaned creates the output file.
func createCleaned(l *Log, c *Config, base int64) (*cleanedSegment, error) {
	o := &cleanedSegment{log: l, config: c, seg: &segment{log: l, base: base}}
	o.tail = newTail(o.seg, time.Time{}, 0)
	path := o.path(logSuffix)
	file, err := l.fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, storageError("create", path, err)
	}
	o.file = file
	return o, nil
}

func (o *cleanedSegment) path(suffix string) string { return o.seg.path(suffix) + cleanedSuffix }

// add appends one batch.
func (o *cleanedSegment) add(b Batch) error {
	o.buf = append(o.buf, b...)
	o.tail.noteBatch(o.config, b)
	if len(o.buf) < cleanedBufferBytes {
		return nil
	}
	return o.flush()
}

func (o *cleanedSegment) flush() error {
	if _, err := o.file.WriteAt(o.buf, o.written); err != nil {
		return storageError("write", o.path(logSuffix), err)
	}
	o.written += int64(len(o.buf))
	o.buf = o.buf[:0]
	return nil
}

// finish completes all files, durably. mtime is the last source's: retention of records without timestamps goes by it.
func (o *cleanedSegment) finish(mtime time.Time) error {
	if err := o.flush(); err != nil {
		return err
	}
	if err := o.file.Sync(); err != nil {
		return storageError("sync", o.path(logSuffix), err)
	}
	t := &o.tail
	t.addTime(math.MaxInt)
	index := make([]byte, len(t.index)*indexEntrySize)
	for i, e := range t.index {
		e.put(index[i*indexEntrySize:])
	}
	times := make([]byte, len(t.times)*timeEntrySize)
	for i, e := range t.times {
		e.put(times[i*timeEntrySize:])
	}
	var aborted []byte
	for _, a := range o.aborted {
		aborted = a.appendTo(aborted)
	}
	for _, file := range []struct {
		suffix string
		data   []byte
	}{{indexSuffix, index}, {timeIndexSuffix, times}, {txnIndexSuffix, aborted}} {
		if file.suffix == txnIndexSuffix && len(aborted) == 0 {
			continue
		}
		if err := writeFile(o.log.fs, o.path(file.suffix), file.data); err != nil {
			return storageError("write", o.path(file.suffix), err)
		}
	}
	o.seg.sealedSize = t.size
	o.seg.sealedTimes.Store(&segmentTimes{max: t.max.max, maxOffset: t.max.maxOffset})
	return o.setTimes(mtime)
}

func (o *cleanedSegment) setTimes(mtime time.Time) error {
	for _, suffix := range []string{logSuffix, indexSuffix, timeIndexSuffix} {
		if err := o.log.fs.Chtimes(o.path(suffix), mtime); err != nil {
			return storageError("set the time of", o.path(suffix), err)
		}
	}
	return nil
}

// close gives the descriptor back; the segment opens its file when somebody reads it.
func (o *cleanedSegment) close() { _ = o.file.Close() }

// discard removes what was written. What cannot be removed is removed by the next start.
func (o *cleanedSegment) discard() {
	o.close()
	for _, suffix := range segmentSuffixes {
		_ = removeIfThere(o.log.fs, o.path(suffix))
	}
}

// replaceSegments puts the finished output in the place of its sources, so that a crash at any moment leaves either all of the
// sources or the output, complete:
//
//  1. .cleaned → .swap. A loader that finds a .cleaned discards the attempt; one that finds only .swap completes it.
//  2. Sources → .deleted, removed after file.delete.delay.ms.
//  3. .swap → final names.
//
// Each step is durable before the next, which costs two syncs of the directory under the log's lock, once for a cleaned group.
// Readers and flushes take no lock: the sources' files are held open, so that nobody opens them by a name that is on its way
// to another file. errSegmentGone: the sources are not what the log has any more (truncation, retention, deletion); the
// output was discarded.
func (l *Log) replaceSegments(sources []*segment, o *cleanedSegment) error {
	release, err := holdFiles(sources)
	defer release()
	if err == nil {
		err = l.lock()
	}
	if err != nil {
		o.discard()
		return err
	}
	defer l.unlock()
	old := l.view.Load().segments
	at := slices.Index(old, sources[0])
	if at < 0 || at+len(sources) >= len(old) || !slices.Equal(old[at:at+len(sources)], sources) {
		o.discard()
		return errSegmentGone
	}
	o.close()
	if err := l.swapFiles(sources, o); err != nil {
		return l.parkLocked(err)
	}
	if len(o.aborted) > 0 {
		x, err := OpenTxnIndex(l.fs, o.seg.path(txnIndexSuffix))
		if err != nil {
			return l.parkLocked(storageError("open", o.seg.path(txnIndexSuffix), err))
		}
		o.seg.txn.Store(x)
	}
	segments := slices.Concat(old[:at], []*segment{o.seg}, old[at+len(sources):])
	l.publish(func(v *view) { v.segments = segments })
	for _, s := range sources {
		s.retire()
	}
	l.dirDirty.Store(true) // the next flush makes the final names durable; a loader completes .swap as well
	l.owner.touchAll()
	return nil
}

// holdFiles opens all files of the segments and keeps them open until release.
func holdFiles(segments []*segment) (release func(), err error) {
	var held []*sharedFile
	pin := func(on bool) {
		for _, s := range segments {
			s.file.pin(on)
			s.idx.pin(on)
			s.tidx.pin(on)
		}
	}
	release = func() {
		pin(false)
		for _, f := range held {
			f.release()
		}
	}
	pin(true)
	for _, s := range segments {
		for _, acquire := range []func() (*sharedFile, error){s.acquireLog, s.acquireIndex, s.acquireTimeIndex} {
			f, err := acquire()
			if err != nil {
				return release, err
			}
			held = append(held, f)
		}
		if x := s.txn.Load(); x != nil && x.Len() > 0 {
			if _, err := x.open(false); err != nil {
				return release, err
			}
		}
	}
	return release, nil
}

func (l *Log) swapFiles(sources []*segment, o *cleanedSegment) error {
	if err := o.rename(cleanedSuffix, swapSuffix); err != nil {
		return err
	}
	if err := l.fs.SyncDir(l.Dir()); err != nil {
		return storageError("sync", l.Dir(), err)
	}
	for _, s := range sources {
		if err := l.retireFiles(s, s.base != o.seg.base); err != nil {
			return err
		}
	}
	if err := l.fs.SyncDir(l.Dir()); err != nil {
		return storageError("sync", l.Dir(), err)
	}
	return o.rename(swapSuffix, "")
}

// rename moves all of the output's files from one suffix to another, the .log first.
func (o *cleanedSegment) rename(from, to string) error {
	for _, suffix := range segmentSuffixes {
		path := o.seg.path(suffix)
		err := o.log.fs.Rename(path+from, path+to)
		if suffix == txnIndexSuffix && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return storageError("rename", path+from, err)
		}
	}
	return nil
}

// retireFiles renames a source's files to .deleted. Its snapshot goes too, unless the output has the same base.
func (l *Log) retireFiles(s *segment, withSnapshot bool) error {
	suffixes := segmentSuffixes
	if withSnapshot {
		suffixes = append(slices.Clone(segmentSuffixes), snapshotSuffix)
	}
	var names []string
	for _, suffix := range suffixes {
		from := s.path(suffix)
		err := l.fs.Rename(from, from+deletedSuffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return storageError("rename", from, err)
		}
		names = append(names, from+deletedSuffix)
	}
	l.owner.trash.add(l.owner.now().Add(l.Config().FileDeleteDelay), names...)
	return nil
}
