//go:build !linux

package logstore

import (
	"errors"
	"os"
)

func volumeSpace(string) (Space, error) { return Space{}, errors.ErrUnsupported }

func reserveSpace(*os.File, int64) error { return nil }

func datasync(f *os.File) error { return f.Sync() }
