package logstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Suffixes of a segment's files; the name before them is the base offset, 20 digits.
const (
	logSuffix       = ".log"
	indexSuffix     = ".index"
	timeIndexSuffix = ".timeindex"
	txnIndexSuffix  = ".txnindex"
	snapshotSuffix  = ".snapshot"
	deletedSuffix   = ".deleted"
	cleanedSuffix   = ".cleaned"
	swapSuffix      = ".swap"
)

// segmentSuffixes are the files that belong to one segment, in the order in which they are removed: without its .log the
// others are leftovers to every loader.
var segmentSuffixes = []string{logSuffix, indexSuffix, timeIndexSuffix, txnIndexSuffix}

// errSegmentGone: the segment was removed or cut while it was looked at; the newest view has the truth.
var errSegmentGone = errors.New("segment is gone")

// fileName is the name of a segment's file.
func fileName(base int64, suffix string) string {
	digits := strconv.FormatInt(base, 10)
	if len(digits) < 20 {
		digits = "00000000000000000000"[:20-len(digits)] + digits
	}
	return digits + suffix
}

// parseFileName splits a file's name into offset and suffix (from the first dot on).
func parseFileName(name string) (offset int64, suffix string, ok bool) {
	dot := strings.IndexByte(name, '.')
	if dot < 1 {
		return 0, "", false
	}
	offset, err := strconv.ParseInt(name[:dot], 10, 64)
	if err != nil || offset < 0 {
		return 0, "", false
	}
	return offset, name[dot:], true
}

// sharedFile is an open descriptor with counted references; the last one closes it. The count starts at 1 for the lazyFile.
type sharedFile struct {
	file File
	refs atomic.Int32
	used atomic.Bool // since the last closeIdle
}

func (s *sharedFile) retain() bool {
	for {
		n := s.refs.Load()
		if n <= 0 {
			return false
		}
		if s.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (s *sharedFile) release() {
	if s.refs.Add(-1) == 0 {
		_ = s.file.Close() // what must be durable was synced before, with its own error
	}
}

// lazyFile is a file that is opened when it is needed, shared while it is open, and closed when nobody used it for a while.
type lazyFile struct {
	cur    atomic.Pointer[sharedFile]
	mu     sync.Mutex // held while opening, so that one descriptor is opened
	pinned bool       // guarded by mu: the name is about to be another file's, closeIdle must not make anybody open it
}

// acquire returns the open file with a reference; release gives it back.
func (f *lazyFile) acquire(s *segment, suffix string, flag int) (*sharedFile, error) {
	if cur := f.cur.Load(); cur != nil && cur.retain() {
		if !cur.used.Load() {
			cur.used.Store(true)
		}
		return cur, nil
	}
	return f.open(s, suffix, flag)
}

func (f *lazyFile) open(s *segment, suffix string, flag int) (*sharedFile, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if cur := f.cur.Load(); cur != nil && cur.retain() {
		return cur, nil
	}
	path := s.path(suffix)
	file, err := s.log.fs.OpenFile(path, os.O_RDWR|flag, 0o644)
	if errors.Is(err, fs.ErrNotExist) && path != s.path(suffix) { // the directory was renamed in between
		path = s.path(suffix)
		file, err = s.log.fs.OpenFile(path, os.O_RDWR|flag, 0o644)
	}
	// The name may by now be another segment's: a removed or cut segment must not open it.
	if s.gone.Load() {
		if err == nil {
			_ = file.Close()
		}
		return nil, errSegmentGone
	}
	if err != nil {
		return nil, storageError("open", path, err)
	}
	return f.adopt(file), nil
}

// adopt makes an open file the shared one and returns it with a reference for the caller.
func (f *lazyFile) adopt(file File) *sharedFile {
	opened := &sharedFile{file: file}
	opened.refs.Store(2)
	opened.used.Store(true)
	f.cur.Store(opened)
	return opened
}

// close drops the lazyFile's own reference.
func (f *lazyFile) close() {
	if cur := f.cur.Swap(nil); cur != nil {
		cur.release()
	}
}

// closeIdle closes the descriptor when it was not used since the last call.
func (f *lazyFile) closeIdle() {
	if f.cur.Load() == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.pinned {
		return
	}
	if cur := f.cur.Load(); cur != nil && !cur.used.Swap(false) && f.cur.CompareAndSwap(cur, nil) {
		cur.release()
	}
}

// pin keeps the descriptor open, once it is, until it is unpinned or the segment is retired.
func (f *lazyFile) pin(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pinned = on
}

// segment is one segment of a log. The last one of a view is the active one: its size and index are in the view, and it
// grows. Cutting a segment replaces its object.
//
// Thread safety: the fields above "sealed" are constant or guard themselves. The sealed ones are written before the first
// view in which the segment is not the last one, and constant afterwards.
type segment struct {
	log  *Log
	base int64
	file lazyFile                 // .log
	idx  lazyFile                 // .index, for entries that are not in memory
	tidx lazyFile                 // .timeindex
	txn  atomic.Pointer[TxnIndex] // nil while the segment has no aborted transaction
	gone atomic.Bool              // removed or replaced: its names must not be opened any more

	sealedSize  int64
	sealedTimes atomic.Pointer[segmentTimes] // nil: not yet looked up
}

// segmentTimes is what retention and time lookups want to know of a sealed segment.
type segmentTimes struct {
	max       int64 // largest timestamp, -1 when no record has one
	maxOffset int64 // last offset of the first batch that has it
}

func (s *segment) path(suffix string) string {
	return filepath.Join(s.log.Dir(), fileName(s.base, suffix))
}

func (s *segment) acquireLog() (*sharedFile, error) { return s.file.acquire(s, logSuffix, 0) }

// acquireIndex and acquireTimeIndex create a missing file: an index may be empty.
func (s *segment) acquireIndex() (*sharedFile, error) {
	return s.idx.acquire(s, indexSuffix, os.O_CREATE)
}

func (s *segment) acquireTimeIndex() (*sharedFile, error) {
	return s.tidx.acquire(s, timeIndexSuffix, os.O_CREATE)
}

func (s *segment) closeFiles() {
	s.file.close()
	s.idx.close()
	s.tidx.close()
	if x := s.txn.Load(); x != nil {
		_ = x.Close()
	}
}

func (s *segment) closeIdle() {
	s.file.closeIdle()
	s.idx.closeIdle()
	s.tidx.closeIdle()
}

// retire makes the object useless for whoever still holds an old view; descriptors in use live on until they are released.
func (s *segment) retire() {
	s.gone.Store(true)
	s.closeFiles()
}

// times returns a sealed segment's largest timestamp: the last entry of its time index.
func (s *segment) times() (segmentTimes, error) {
	if t := s.sealedTimes.Load(); t != nil {
		return *t, nil
	}
	t := segmentTimes{max: NoTimestamp, maxOffset: s.base}
	f, err := s.acquireTimeIndex()
	if err != nil {
		return t, err
	}
	defer f.release()
	n, err := entriesIn(f.file, timeEntrySize)
	if err != nil {
		return t, storageError("stat", s.path(timeIndexSuffix), err)
	}
	if n > 0 {
		e, err := readTimeEntry(f.file, n-1)
		if err != nil {
			return t, storageError("read", s.path(timeIndexSuffix), err)
		}
		t = segmentTimes{max: e.timestamp, maxOffset: s.base + int64(e.rel)}
	}
	s.sealedTimes.Store(&t)
	return t, nil
}

// modTime is the time of the last write to the .log, for segments whose records have no timestamps.
func (s *segment) modTime() (time.Time, error) {
	info, err := s.log.fs.Stat(s.path(logSuffix))
	if err != nil {
		return time.Time{}, storageError("stat", s.path(logSuffix), err)
	}
	return info.ModTime(), nil
}

// markDeleted renames the segment's files to .deleted and returns their new names. Missing ones are skipped.
func (s *segment) markDeleted() ([]string, error) {
	var names []string
	for _, suffix := range append(segmentSuffixes, snapshotSuffix) {
		from := s.path(suffix)
		err := s.log.fs.Rename(from, from+deletedSuffix)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return names, storageError("rename", from, err)
		}
		names = append(names, from+deletedSuffix)
	}
	return names, nil
}

// Slice is a byte range of one segment's file: whole batches, the last one may be cut. It holds a reference on the file, so
// that removing the segment does not disturb whoever still sends it; Release gives it back, exactly once.
// The zero Slice is empty and needs no Release (it may get one).
type Slice struct {
	Pos         int64 // in the file
	Len         int64
	FirstOffset int64 // base offset of the first batch; it can be below the offset that was asked for
	SegmentBase int64 // base offset of the segment
	file        *sharedFile
}

// Empty reports whether there is nothing in the slice.
func (s *Slice) Empty() bool { return s.Len == 0 }

// Range is where the bytes are in File.
func (s *Slice) Range() (pos, length int64) { return s.Pos, s.Len }

// ReadAt reads from the slice; off is relative to its start. io.EOF at the end of the slice; io.ErrUnexpectedEOF when the
// file became shorter, after which the announced length cannot be kept.
func (s *Slice) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("read slice at %d: %w", off, fs.ErrInvalid)
	}
	if off >= s.Len {
		return 0, io.EOF
	}
	short := int64(len(p)) > s.Len-off
	if short {
		p = p[:s.Len-off]
	}
	n, err := s.file.file.ReadAt(p, s.Pos+off)
	switch {
	case n == len(p) && short:
		return n, io.EOF
	case n == len(p):
		return n, nil
	case errors.Is(err, io.EOF):
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// File returns the descriptor for sendfile(2) with an explicit offset, nil when the file is not one of the operating system.
// It is valid until Release.
func (s *Slice) File() *os.File {
	if s.file == nil {
		return nil
	}
	if f, ok := s.file.file.(osFile); ok {
		return f.File
	}
	return nil
}

// Release gives the reference back.
func (s *Slice) Release() {
	if s.file != nil {
		s.file.release()
		s.file = nil
	}
}
