package logstore

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
)

var (
	// ErrClosed is returned by a log that was closed or deleted.
	ErrClosed = errors.New("log is closed")
	// ErrLocked is returned by OpenManager when another process (Kafka or Ottla) holds a log directory's .lock.
	ErrLocked = errors.New("log directory is locked by another process")
)

// StorageError is a fault of the machine while a log's files were read or written. It matches kerr.KafkaStorageError, which
// is the answer to a client, and its cause.
//
// Full is set when only space is missing: what was written was cut back, the log is whole and takes appends again as soon as
// there is space. Otherwise the log is parked: the state of its files is unknown and nothing is written any more.
type StorageError struct {
	Op   string
	Path string
	Full bool
	Err  error
}

func (e *StorageError) Error() string { return fmt.Sprintf("%s %s: %v", e.Op, e.Path, e.Err) }

// Unwrap gives the cause and the protocol's verdict.
func (e *StorageError) Unwrap() []error { return []error{e.Err, kerr.KafkaStorageError} }

func storageError(op, path string, err error) *StorageError {
	var known *StorageError
	if errors.As(err, &known) {
		return known
	}
	return &StorageError{Op: op, Path: path, Full: isFull(err), Err: err}
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
