package logstore

import (
	"os"
	"sync/atomic"
)

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

// ReadAt reads from the slice; off is relative to its start. io.EOF at the end of the slice; io.ErrUnexpectedEOF when the
// file became shorter, after which the announced length cannot be kept.
func (s *Slice) ReadAt(p []byte, off int64) (int, error) { panic("todo") }

// File returns the descriptor for sendfile(2) with an explicit offset, nil when the file is not one of the operating system.
// It is valid until Release.
func (s *Slice) File() *os.File { panic("todo") }

// Release gives the reference back.
func (s *Slice) Release() { panic("todo") }

type sharedFile struct {
	file File
	refs atomic.Int32
}
