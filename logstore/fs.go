package logstore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// FS is the file-system seam: as small as the store needs. Errors match io/fs's (fs.ErrNotExist and so on).
// The package crashfs has one in memory that loses what was not synced.
type FS interface {
	OpenFile(name string, flag int, perm fs.FileMode) (File, error)
	Rename(from, to string) error
	Remove(name string) error // a file, or an empty directory
	MkdirAll(name string, perm fs.FileMode) error
	ReadDir(name string) ([]fs.DirEntry, error) // sorted by name
	Stat(name string) (fs.FileInfo, error)
	Chtimes(name string, mtime time.Time) error
	SyncDir(name string) error // makes creations, renames and removals in the directory durable
	Lock(name string) (io.Closer, error)
	Space(dir string) (Space, error) // of the volume that holds dir
}

// File is one open file. Positions are explicit: a descriptor is shared by readers and the writer.
type File interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	Sync() error // content and length are durable afterwards (fdatasync); after an error nothing is known
	Close() error
	Stat() (fs.FileInfo, error)
	// Reserve takes space for the file's first size bytes, without changing its length; Truncate gives back what is behind the
	// length. Where a file system cannot do that it does nothing.
	Reserve(size int64) error
	Fd() uintptr // ^0 when there is no descriptor
}

// OSFS is the operating system's file system.
var OSFS FS = osFS{}

type osFS struct{}

type osFile struct{ *os.File }

// Sync of the content is enough everywhere here: nothing relies on times of files surviving.
func (f osFile) Sync() error { return datasync(f.File) }

func (f osFile) Reserve(size int64) error { return reserveSpace(f.File, size) }

func (osFS) OpenFile(name string, flag int, perm fs.FileMode) (File, error) {
	f, err := os.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(from, to string) error                 { return os.Rename(from, to) }
func (osFS) Remove(name string) error                     { return os.Remove(name) }
func (osFS) MkdirAll(name string, perm fs.FileMode) error { return os.MkdirAll(name, perm) }
func (osFS) ReadDir(name string) ([]fs.DirEntry, error)   { return os.ReadDir(name) }
func (osFS) Stat(name string) (fs.FileInfo, error)        { return os.Stat(name) }

func (osFS) Chtimes(name string, mtime time.Time) error { return os.Chtimes(name, mtime, mtime) }

func (osFS) Space(dir string) (Space, error) { return volumeSpace(dir) }

func (osFS) SyncDir(name string) error {
	d, err := os.Open(name)
	if err != nil {
		return err
	}
	err = d.Sync()
	return errors.Join(err, d.Close())
}

// Lock takes an exclusive record lock on the file, which it creates. The JVM uses the same kind of lock, so that a Kafka
// process and this one see each other; flock(2) would not do. The kernel drops the lock when this process closes *any*
// descriptor of the file: nothing else may open it.
func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	whole := syscall.Flock_t{Type: syscall.F_WRLCK, Whence: io.SeekStart}
	if err := syscall.FcntlFlock(f.Fd(), syscall.F_SETLK, &whole); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
			return nil, fmt.Errorf("%s: %w", name, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return f, nil
}

// putFile creates or replaces a file's content without any promise of durability.
func putFile(fsys FS, name string, data []byte) error {
	f, err := fsys.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if len(data) > 0 {
		_, err = f.WriteAt(data, 0)
	}
	return errors.Join(err, f.Close())
}

// syncFile makes a closed file's content durable; a missing file is no error.
func syncFile(fsys FS, name string) error {
	f, err := fsys.OpenFile(name, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// mkdirDurably creates a directory and its parents; each new name is durable.
func mkdirDurably(fsys FS, dir string) error {
	if _, err := fsys.Stat(dir); err == nil {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := mkdirDurably(fsys, parent); err != nil {
			return err
		}
	}
	if err := fsys.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return fsys.SyncDir(parent)
}

// removeIfThere removes a file or empty directory; a missing one is no error.
func removeIfThere(fsys FS, name string) error {
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeAll removes a directory and the plain files and directories in it.
func removeAll(fsys FS, dir string) error {
	entries, err := fsys.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		if e.IsDir() {
			err = removeAll(fsys, name)
		} else {
			err = removeIfThere(fsys, name)
		}
		if err != nil {
			return err
		}
	}
	return removeIfThere(fsys, dir)
}
