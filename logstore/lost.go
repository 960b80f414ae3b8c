package logstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// lostSuffix marks a file of batches that were committed here and given up; nothing reads or removes it but people and their tools.
const lostSuffix = ".lost"

// lostReadBytes bounds what is copied at a time.
const lostReadBytes = 1 << 20

// KeepLost copies the batches from an offset on to a file beside the log, because they are about to be cut although they were
// committed: first and exclusive last offset are its name. It returns "" when there are none. The batches are whole, so the first
// one may begin below the offset.
func (l *Log) KeepLost(from int64) (path string, err error) {
	end := l.LogEndOffset()
	if from >= end {
		return "", nil
	}
	path = filepath.Join(l.Dir(), fmt.Sprintf("%020d-%020d%s", from, end, lostSuffix))
	file, err := l.fs.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return "", storageError("create", path, err)
	}
	err = l.copyTail(file, from, end)
	err = errors.Join(err, file.Sync(), file.Close(), l.fs.SyncDir(l.Dir()))
	if err != nil {
		return "", storageError("write", path, err)
	}
	return path, nil
}

func (l *Log) copyTail(to io.WriterAt, from, end int64) error {
	buf := make([]byte, lostReadBytes)
	at := int64(0)
	for from < end {
		s, err := l.Read(from, lostReadBytes, end, true)
		if err != nil {
			return err
		}
		n, next, err := copySlice(to, at, &s, buf)
		s.Release()
		if err != nil {
			return err
		}
		if next <= from {
			return nil // nothing more that can be read
		}
		at, from = at+n, next
	}
	return nil
}

// copySlice writes a slice's bytes at a position and returns how many they are, and the offset after its last batch.
func copySlice(to io.WriterAt, at int64, s *Slice, buf []byte) (n, next int64, err error) {
	if s.Len > int64(len(buf)) {
		buf = make([]byte, s.Len)
	}
	buf = buf[:s.Len]
	if _, err := s.ReadAt(buf, 0); err != nil && !errors.Is(err, io.EOF) {
		return 0, 0, err
	}
	whole := buf
	for len(buf) > 0 {
		b, rest, err := NextBatch(buf)
		if err != nil {
			if errors.Is(err, io.ErrUnexpectedEOF) {
				break
			}
			return 0, 0, err
		}
		next, buf = b.LastOffset()+1, rest
	}
	whole = whole[:len(whole)-len(buf)]
	_, err = to.WriteAt(whole, at)
	return int64(len(whole)), next, err
}
