//go:build !linux

package logstore

import (
	"errors"
	"os"
)

func volumeSpace(string) (Space, error) { return Space{}, errors.ErrUnsupported }

func datasync(f *os.File) error { return f.Sync() }
