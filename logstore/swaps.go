package logstore

import (
	"os"
	"path/filepath"
	"strings"
)

// finishSwaps completes or discards what the cleaner was doing: .cleaned files are output that is not yet valid, .swap files
// are valid and replace the segments in their range.
func (ld *loader) finishSwaps() error {
	smallestCleaned := int64(-1)
	var swaps []string
	for name := range ld.files {
		offset, _, ok := parseFileName(name)
		switch {
		case !ok:
		case strings.HasSuffix(name, cleanedSuffix):
			if smallestCleaned < 0 || offset < smallestCleaned {
				smallestCleaned = offset
			}
		case strings.HasSuffix(name, swapSuffix):
			swaps = append(swaps, name)
		}
	}
	var valid []string
	for _, name := range swaps {
		offset, _, _ := parseFileName(name)
		if smallestCleaned >= 0 && offset >= smallestCleaned { // not all outputs of that cleaning were renamed
			if err := ld.remove(name); err != nil {
				return err
			}
			continue
		}
		valid = append(valid, name)
	}
	for name := range ld.files {
		if strings.HasSuffix(name, cleanedSuffix) {
			if err := ld.remove(name); err != nil {
				return err
			}
		}
	}
	return ld.swapIn(valid)
}

func (ld *loader) swapIn(swaps []string) error {
	if len(swaps) == 0 {
		return nil
	}
	for _, name := range swaps {
		base, suffix, _ := parseFileName(name)
		if suffix != logSuffix+swapSuffix {
			continue
		}
		end, err := ld.endOfFile(name, base)
		if err != nil {
			return err
		}
		if err := ld.removeRange(base, end); err != nil {
			return err
		}
	}
	for _, name := range swaps {
		final := strings.TrimSuffix(name, swapSuffix)
		if err := ld.fs.Rename(filepath.Join(ld.Dir(), name), filepath.Join(ld.Dir(), final)); err != nil {
			return storageError("rename", filepath.Join(ld.Dir(), name), err)
		}
		delete(ld.files, name)
	}
	ld.dirDirty.Store(true)
	if err := ld.syncDir(); err != nil {
		return err
	}
	return ld.list()
}

// endOfFile is the exclusive end of the offsets in a .log.
func (ld *loader) endOfFile(name string, base int64) (int64, error) {
	path := filepath.Join(ld.Dir(), name)
	f, err := ld.fs.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return 0, storageError("open", path, err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return 0, storageError("stat", path, err)
	}
	scan := newScanner(f, info.Size())
	defer scan.done()
	end := base
	for pos := int64(0); ; {
		b, err := scan.at(pos)
		if err != nil {
			return end, nil // its recovery will say what is wrong
		}
		end = b.NextOffset()
		pos += int64(b.Size())
	}
}

func (ld *loader) removeRange(from, to int64) error {
	for name := range ld.files {
		offset, _, ok := parseFileName(name)
		if !ok || strings.HasSuffix(name, swapSuffix) || offset < from || offset >= to {
			continue
		}
		if err := ld.remove(name); err != nil {
			return err
		}
	}
	return nil
}
