package logstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
)

// An entry of a .txnindex, big-endian, ascending by last offset:
//
//	 0  int16  version, 0        18  int64  last offset: that of the ABORT marker
//	 2  int64  producer id       26  int64  last stable offset right after the abort
//	10  int64  first offset
const txnEntryBytes = 34

// AbortedTxn is one aborted transaction that had data in the partition. It stands in the index of the segment with its marker.
type AbortedTxn struct {
	ProducerID       int64
	FirstOffset      int64
	LastOffset       int64 // offset of the ABORT marker
	LastStableOffset int64 // right after the abort
}

func (a AbortedTxn) appendTo(dst []byte) []byte {
	be := binary.BigEndian
	dst = be.AppendUint16(dst, 0)
	dst = be.AppendUint64(dst, uint64(a.ProducerID))
	dst = be.AppendUint64(dst, uint64(a.FirstOffset))
	dst = be.AppendUint64(dst, uint64(a.LastOffset))
	return be.AppendUint64(dst, uint64(a.LastStableOffset))
}

// parseTxnEntries decodes the content of an index. The error matches ErrCorrupt: torn tail, unknown version, order broken.
func parseTxnEntries(data []byte) ([]AbortedTxn, error) {
	if len(data)%txnEntryBytes != 0 {
		return nil, corrupt("transaction index size", int64(len(data)), int64(len(data)/txnEntryBytes*txnEntryBytes))
	}
	be := binary.BigEndian
	entries := make([]AbortedTxn, 0, len(data)/txnEntryBytes)
	last := int64(-1)
	for e := data; len(e) > 0; e = e[txnEntryBytes:] {
		if version := be.Uint16(e); version != 0 {
			return nil, corrupt("transaction index version", int64(version), 0)
		}
		a := AbortedTxn{
			ProducerID:       int64(be.Uint64(e[2:])),
			FirstOffset:      int64(be.Uint64(e[10:])),
			LastOffset:       int64(be.Uint64(e[18:])),
			LastStableOffset: int64(be.Uint64(e[26:])),
		}
		if a.FirstOffset < 0 || a.LastOffset < a.FirstOffset || a.LastOffset <= last {
			return nil, corrupt("transaction index offset", a.LastOffset, max(last+1, a.FirstOffset))
		}
		last = a.LastOffset
		entries = append(entries, a)
	}
	return entries, nil
}

// TxnIndex is a segment's list of aborted transactions. The file exists from the first entry on and is opened on first use.
//
// Thread safety: Append, TruncateTo, SetPath and Close need the log's lock; reads take none of it.
type TxnIndex struct {
	fs   FS
	size atomic.Int64 // bytes of whole entries that readers may see
	last int64        // LastOffset of the newest entry, -1 none; only changes read it

	file struct {
		sync.Mutex // held to open, never across a read or a write
		path       string
		f          File
	}
}

// OpenTxnIndex opens the index at path; a missing file is an empty index. Its entries are checked when they are read.
func OpenTxnIndex(fsys FS, path string) (*TxnIndex, error) {
	x := &TxnIndex{fs: fsys, last: -1}
	x.file.path = path
	info, err := fsys.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return x, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	x.size.Store(info.Size())
	if entries, err := x.Entries(); err == nil && len(entries) > 0 {
		x.last = entries[len(entries)-1].LastOffset
	}
	return x, nil
}

// open returns the file; it creates it only to write.
func (x *TxnIndex) open(create bool) (File, error) {
	x.file.Lock()
	defer x.file.Unlock()
	if x.file.f != nil {
		return x.file.f, nil
	}
	flag := os.O_RDWR
	if create {
		flag |= os.O_CREATE
	}
	f, err := x.fs.OpenFile(x.file.path, flag, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", x.file.path, err)
	}
	x.file.f = f
	return f, nil
}

// Append adds an entry; entries ascend by LastOffset. It reaches the disk with Sync.
func (x *TxnIndex) Append(a AbortedTxn) error {
	if a.LastOffset <= x.last {
		return corrupt("transaction index offset", a.LastOffset, x.last+1)
	}
	f, err := x.open(true)
	if err != nil {
		return err
	}
	size := x.size.Load()
	if _, err := f.WriteAt(a.appendTo(make([]byte, 0, txnEntryBytes)), size); err != nil {
		return fmt.Errorf("append to %s: %w", x.Path(), err)
	}
	x.last = a.LastOffset
	x.size.Store(size + txnEntryBytes)
	return nil
}

// Entries reads all entries. Errors about the content match ErrCorrupt.
func (x *TxnIndex) Entries() ([]AbortedTxn, error) {
	size := x.size.Load()
	if size == 0 {
		return nil, nil
	}
	if size > smallFileBytesMax {
		return nil, corrupt("transaction index size", size, smallFileBytesMax)
	}
	f, err := x.open(false)
	if err != nil {
		return nil, err
	}
	data := make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", x.Path(), err)
	}
	return parseTxnEntries(data[:n])
}

// Collect appends to dst the entries with LastOffset >= from and FirstOffset < to, for a read_committed fetch of that range.
// complete: an entry's last stable offset proves that no later segment needs to be asked. Source: KIP-98.
func (x *TxnIndex) Collect(dst []AbortedTxn, from, to int64) (out []AbortedTxn, complete bool, err error) {
	entries, err := x.Entries()
	if err != nil {
		return dst, false, err
	}
	for _, a := range entries {
		if a.LastOffset >= from && a.FirstOffset < to {
			dst = append(dst, a)
		}
		if a.LastStableOffset >= to {
			return dst, true, nil
		}
	}
	return dst, false, nil
}

// Check reads all entries and refuses an index with an entry below base, its segment's first offset.
func (x *TxnIndex) Check(base int64) error {
	entries, err := x.Entries()
	if err != nil {
		return err
	}
	if len(entries) > 0 && entries[0].LastOffset < base {
		return corrupt("transaction index offset", entries[0].LastOffset, base)
	}
	return nil
}

// TruncateTo drops the entries whose marker is at or above offset.
func (x *TxnIndex) TruncateTo(offset int64) error {
	if offset <= 0 {
		return x.cut(0, -1)
	}
	entries, err := x.Entries()
	if err != nil {
		return err
	}
	keep := len(entries)
	for keep > 0 && entries[keep-1].LastOffset >= offset {
		keep--
	}
	if keep == len(entries) {
		return nil
	}
	last := int64(-1)
	if keep > 0 {
		last = entries[keep-1].LastOffset
	}
	return x.cut(int64(keep)*txnEntryBytes, last)
}

// Reset drops all entries, readable or not: before a rebuild.
func (x *TxnIndex) Reset() error { return x.cut(0, -1) }

func (x *TxnIndex) cut(size, last int64) error {
	if x.size.Load() == 0 {
		return nil
	}
	f, err := x.open(false)
	if err != nil {
		return err
	}
	x.size.Store(size)
	x.last = last
	if err := f.Truncate(size); err != nil {
		return fmt.Errorf("truncate %s: %w", x.Path(), err)
	}
	return nil
}

// Len returns the number of entries.
func (x *TxnIndex) Len() int { return int(x.size.Load() / txnEntryBytes) }

// Path returns the file's path, whether or not the file exists.
func (x *TxnIndex) Path() string {
	x.file.Lock()
	defer x.file.Unlock()
	return x.file.path
}

// SetPath tells the index that its file was renamed.
func (x *TxnIndex) SetPath(path string) {
	x.file.Lock()
	defer x.file.Unlock()
	x.file.path = path
}

// Sync makes the entries durable; a file that is not open has nothing new.
func (x *TxnIndex) Sync() error {
	x.file.Lock()
	f := x.file.f
	x.file.Unlock()
	if f == nil {
		return nil
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", x.Path(), err)
	}
	return nil
}

// Close closes the file; the next use opens it again.
func (x *TxnIndex) Close() error {
	x.file.Lock()
	f := x.file.f
	x.file.f = nil
	x.file.Unlock()
	if f == nil {
		return nil
	}
	if err := f.Close(); err != nil {
		return fmt.Errorf("close %s: %w", x.Path(), err)
	}
	return nil
}
