package logstore

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"sync/atomic"

	"ottla/internal/cluster"
)

// EpochEntry says that a leader epoch's first offset is StartOffset.
type EpochEntry struct {
	Epoch       cluster.LeaderEpoch
	StartOffset int64
}

// EpochCache is a partition's history of leader epochs, mirrored in leader-epoch-checkpoint. Source: KIP-101, KIP-279.
//
// Thread safety: Assign, the truncations and Clear need the log's lock. Reads take no lock: they see an immutable history.
// Flush may run beside all of them.
//
// Invariant: epochs and start offsets both strictly increase.
type EpochCache struct {
	fs      FS
	path    string
	entries atomic.Pointer[[]EpochEntry] // immutable once stored

	file struct {
		sync.Mutex
		written *[]EpochEntry // what the file holds; nil before the first read or write, and after a failed write
		broken  error         // a failed write: the directory's state is unknown, nothing more is written
	}
}

// OpenEpochCache reads the checkpoint in dir; a missing file is an empty history. Entries that do not ascend are repaired
// as Kafka does: the later one wins. A malformed file is an error that matches ErrCheckpoint.
func OpenEpochCache(fsys FS, dir string) (*EpochCache, error) {
	c := &EpochCache{fs: fsys, path: filepath.Join(dir, EpochCheckpointFile)}
	c.entries.Store(&[]EpochEntry{})
	data, err := readFile(fsys, c.path)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return nil, err
	}
	read, err := parseEpochCheckpoint(c.path, data)
	if err != nil {
		return nil, err
	}
	var entries []EpochEntry
	for _, e := range read {
		entries = assignEpoch(entries, e)
	}
	c.entries.Store(&entries)
	if slices.Equal(entries, read) {
		c.file.written = &entries
	}
	return c, nil
}

// assignEpoch returns the history after e was noted: entries that are not below it in both epoch and offset go first.
// The given slice is not changed.
func assignEpoch(entries []EpochEntry, e EpochEntry) []EpochEntry {
	keep := len(entries)
	for keep > 0 && (entries[keep-1].Epoch >= e.Epoch || entries[keep-1].StartOffset >= e.StartOffset) {
		keep--
	}
	return append(entries[:keep:keep], e)
}

// isNews reports whether e changes the history: another epoch than the newest, or the newest with a smaller start.
func isNews(entries []EpochEntry, e EpochEntry) bool {
	if len(entries) == 0 {
		return true
	}
	last := entries[len(entries)-1]
	return e.Epoch != last.Epoch || e.StartOffset < last.StartOffset
}

// Assign notes that epoch starts at offset: in memory at once, in the file with the next Flush. It reports whether that is news. The
// usual call, for a batch of the newest epoch, costs two comparisons.
func (c *EpochCache) Assign(epoch cluster.LeaderEpoch, offset int64) (news bool) {
	e := EpochEntry{epoch, offset}
	entries := c.Entries()
	if epoch < 0 || offset < 0 || !isNews(entries, e) {
		return false
	}
	c.publish(assignEpoch(entries, e))
	return true
}

func (c *EpochCache) publish(entries []EpochEntry) { c.entries.Store(&entries) }

// Entries returns the history in ascending order. The slice must not be changed.
func (c *EpochCache) Entries() []EpochEntry { return *c.entries.Load() }

// Latest returns the newest epoch.
func (c *EpochCache) Latest() (EpochEntry, bool) {
	entries := c.Entries()
	if len(entries) == 0 {
		return EpochEntry{Epoch: cluster.NoLeaderEpoch, StartOffset: -1}, false
	}
	return entries[len(entries)-1], true
}

// EndOffset answers OffsetForLeaderEpoch: the largest known epoch <= e, and its exclusive end. The newest epoch ends at
// logEnd. (-1, -1): e is larger than every known epoch, or there is none. An epoch below the first known one ends where that
// begins, and is returned itself. Source: KIP-279, KIP-320.
func (c *EpochCache) EndOffset(e cluster.LeaderEpoch, logEnd int64) (cluster.LeaderEpoch, int64) {
	return endOffset(c.Entries(), e, logEnd)
}

func endOffset(entries []EpochEntry, e cluster.LeaderEpoch, logEnd int64) (cluster.LeaderEpoch, int64) {
	if e == cluster.NoLeaderEpoch || len(entries) == 0 {
		return cluster.NoLeaderEpoch, -1
	}
	if last := entries[len(entries)-1]; e == last.Epoch {
		return e, logEnd
	}
	higher := sort.Search(len(entries), func(i int) bool { return entries[i].Epoch > e })
	if higher == len(entries) {
		return cluster.NoLeaderEpoch, -1
	}
	if higher == 0 {
		return e, entries[0].StartOffset
	}
	return entries[higher-1].Epoch, entries[higher].StartOffset
}

// EpochAt returns the epoch of the record at offset; false when the history does not reach back so far.
func (c *EpochCache) EpochAt(offset int64) (cluster.LeaderEpoch, bool) {
	entries := c.Entries()
	above := sort.Search(len(entries), func(i int) bool { return entries[i].StartOffset > offset })
	if above == 0 {
		return cluster.NoLeaderEpoch, false
	}
	return entries[above-1].Epoch, true
}

// TruncateFromEnd drops the entries that start at or above offset: in memory at once, in the file with the next Flush.
func (c *EpochCache) TruncateFromEnd(offset int64) {
	entries := c.Entries()
	keep := sort.Search(len(entries), func(i int) bool { return entries[i].StartOffset >= offset })
	if keep < len(entries) {
		c.publish(entries[:keep:keep])
	}
}

// TruncateFromStart drops what lies wholly below offset; the epoch that holds offset then starts there. In memory at once,
// in the file with the next Flush.
func (c *EpochCache) TruncateFromStart(offset int64) {
	entries := c.Entries()
	above := sort.Search(len(entries), func(i int) bool { return entries[i].StartOffset > offset })
	if above == 0 || above == 1 && entries[0].StartOffset == offset {
		return
	}
	kept := make([]EpochEntry, 0, len(entries)-above+1)
	kept = append(kept, EpochEntry{entries[above-1].Epoch, offset})
	c.publish(append(kept, entries[above:]...))
}

// Replace takes another history: in memory at once, in the file with the next Flush. entries is not changed afterwards.
func (c *EpochCache) Replace(entries []EpochEntry) { c.publish(entries) }

// Clear forgets everything: in memory at once, in the file with the next Flush.
func (c *EpochCache) Clear() {
	if len(c.Entries()) > 0 {
		c.publish(nil)
	}
}

// Flush writes the file if it is stale. After a failed write the cache writes no more and keeps returning that error, unless
// only space was missing.
func (c *EpochCache) Flush() error {
	c.file.Lock()
	defer c.file.Unlock()
	if c.file.broken != nil {
		return c.file.broken
	}
	now := c.entries.Load()
	if c.file.written == now || c.file.written != nil && slices.Equal(*c.file.written, *now) {
		return nil
	}
	if err := replaceFile(c.fs, c.path, formatEpochCheckpoint(*now)); err != nil {
		if !isFull(err) { // without space only the temporary file is torn
			c.file.broken = err
		}
		return err
	}
	c.file.written = now
	return nil
}

// SetDir tells the cache that the partition's directory was renamed.
func (c *EpochCache) SetDir(dir string) {
	c.file.Lock()
	defer c.file.Unlock()
	c.path = filepath.Join(dir, EpochCheckpointFile)
}
