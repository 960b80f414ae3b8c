package logstore

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"ottla/internal/cluster"
)

// What tools read of a partition's files, without opening its log: nothing here writes, creates or removes anything.

// IndexEntry is one entry of a .index: the last offset of the batch at Position.
type IndexEntry struct{ Offset, Position int64 }

// TimeEntry is one entry of a .timeindex: no batch up to the one that holds Offset has a larger timestamp.
type TimeEntry struct{ Timestamp, Offset int64 }

// FileOffset splits the name of a file in a partition's directory into the offset and what follows, from the first dot on.
func FileOffset(name string) (offset int64, suffix string, ok bool) { return parseFileName(name) }

// DirState is what the suffix of a partition's directory says.
type DirState string

// The states of a partition's directory.
const (
	DirLive    DirState = ""       // a replica
	DirFuture  DirState = "future" // being copied into this log directory
	DirDeleted DirState = "delete" // waits for its removal
	DirStray   DirState = "stray"  // not assigned to the broker
)

// PartitionDir reads the name of a partition's directory.
func PartitionDir(name string) (tp cluster.TopicPartition, state DirState, ok bool) {
	for _, s := range []DirState{DirFuture, DirDeleted, DirStray} {
		head, found := strings.CutSuffix(name, "-"+string(s))
		if !found {
			continue
		}
		dot := strings.LastIndexByte(head, '.')
		if dot < 0 {
			return tp, s, false
		}
		name, state = head[:dot], s
		break
	}
	tp, ok = parsePartitionDir(name)
	return tp, state, ok
}

// ReadOffsetIndex reads the .index of the segment that begins at base. torn is how many bytes follow the last whole entry.
func ReadOffsetIndex(fsys FS, path string, base int64) (entries []IndexEntry, torn int, err error) {
	data, err := readFile(fsys, path)
	if err != nil {
		return nil, 0, err
	}
	for ; len(data) >= indexEntrySize; data = data[indexEntrySize:] {
		e := parseIndexEntry(data)
		entries = append(entries, IndexEntry{Offset: base + int64(e.rel), Position: int64(e.pos)})
	}
	return entries, len(data), nil
}

// ReadTimeIndex reads the .timeindex of the segment that begins at base. torn is how many bytes follow the last whole entry.
func ReadTimeIndex(fsys FS, path string, base int64) (entries []TimeEntry, torn int, err error) {
	data, err := readFile(fsys, path)
	if err != nil {
		return nil, 0, err
	}
	for ; len(data) >= timeEntrySize; data = data[timeEntrySize:] {
		e := parseTimeEntry(data)
		entries = append(entries, TimeEntry{Timestamp: e.timestamp, Offset: base + int64(e.rel)})
	}
	return entries, len(data), nil
}

// ReadTxnIndex reads a .txnindex. Errors about its content match ErrCorrupt.
func ReadTxnIndex(fsys FS, path string) ([]AbortedTxn, error) {
	data, err := readFile(fsys, path)
	if err != nil {
		return nil, err
	}
	return parseTxnEntries(data)
}

// ReadProducerSnapshot reads a .snapshot, in the order of the file. Errors about its content match ErrCorrupt.
func ReadProducerSnapshot(fsys FS, path string) ([]ProducerInfo, error) {
	data, err := readFile(fsys, path)
	if err != nil {
		return nil, err
	}
	if err := checkSnapshot(data); err != nil {
		return nil, err
	}
	var list []ProducerInfo
	for rest := data[snapshotPosEntries:]; len(rest) > 0; rest = rest[snapshotEntryBytes:] {
		id, e := parseSnapshotEntry(rest)
		list = append(list, e.info(id))
	}
	return list, nil
}

// ReadEpochs reads leader-epoch-checkpoint as it stands, also when its entries do not ascend. ok is false when there is none.
func ReadEpochs(fsys FS, path string) (entries []EpochEntry, ok bool, err error) {
	data, err := readFile(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	entries, err = parseEpochCheckpoint(path, data)
	return entries, err == nil, err
}

// ReadBatches hands the batches of a .log to fn, one after another; their checksums are not verified. end is where the last whole
// batch ends; cause says why it is not the end of the file. err is a fault of reading, or fn's error.
func ReadBatches(fsys FS, path string, fn func(pos int64, b Batch) error) (end int64, cause, err error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return 0, nil, err
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return 0, nil, err
	}
	var own error // fn's, which may match ErrCorrupt too
	end, cause, err = readBatches(f, 0, info.Size(), func(pos int64, b Batch) error {
		own = fn(pos, b)
		return own
	})
	if own != nil {
		return end, nil, own
	}
	return end, cause, err
}
