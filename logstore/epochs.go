package logstore

import "ottla/internal/cluster"

// EpochEntry says that a leader epoch's first offset is StartOffset.
type EpochEntry struct {
	Epoch       cluster.LeaderEpoch
	StartOffset int64
}

// EpochCache is a partition's history of leader epochs, mirrored in leader-epoch-checkpoint.
// Changes need the log's lock; reads take none.
type EpochCache struct{}

// OpenEpochCache reads the checkpoint in dir; a missing file is an empty history.
func OpenEpochCache(fs FS, dir string) (*EpochCache, error) { panic("todo") }

// Assign notes that epoch starts at offset, durably when it is news.
func (c *EpochCache) Assign(epoch cluster.LeaderEpoch, offset int64) error { panic("todo") }

// Latest returns the newest epoch.
func (c *EpochCache) Latest() (EpochEntry, bool) { panic("todo") }

// Entries returns the history in ascending order. The slice must not be changed.
func (c *EpochCache) Entries() []EpochEntry { panic("todo") }

// EndOffset answers OffsetForLeaderEpoch: the largest known epoch <= e and where it ends; (-1, -1) undefined.
func (c *EpochCache) EndOffset(e cluster.LeaderEpoch, logEnd int64) (cluster.LeaderEpoch, int64) {
	panic("todo")
}

// EpochAt returns the epoch of the record at offset.
func (c *EpochCache) EpochAt(offset int64) (cluster.LeaderEpoch, bool) { panic("todo") }

// TruncateFromEnd drops the entries that start at or above offset; in memory at once, the file with the next Flush.
func (c *EpochCache) TruncateFromEnd(offset int64) { panic("todo") }

// TruncateFromStart drops what lies below offset; in memory at once, the file with the next Flush.
func (c *EpochCache) TruncateFromStart(offset int64) { panic("todo") }

// Clear forgets everything; in memory at once, the file with the next Flush.
func (c *EpochCache) Clear() { panic("todo") }

// Flush writes the file if it is stale.
func (c *EpochCache) Flush() error { panic("todo") }
