package broker

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// volumeSize is the size and the free space of the volume that holds dir; -1 when it cannot be told.
func volumeSize(dir string) (total, usable int64) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return -1, -1
	}
	return int64(fs.Blocks) * fs.Bsize, int64(fs.Bavail) * fs.Bsize
}

// inDir reports whether path is an entry of dir.
func inDir(path, dir string) bool { return filepath.Dir(path) == filepath.Clean(dir) }
