package broker

import "golang.org/x/sys/unix"

// volumeSize is the size and the free space of the volume that holds dir; -1 when it cannot be told.
func volumeSize(dir string) (total, usable int64) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return -1, -1
	}
	return int64(fs.Blocks) * fs.Bsize, int64(fs.Bavail) * fs.Bsize
}
