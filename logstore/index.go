package logstore

import (
	"encoding/binary"
	"sort"
	"sync"
)

// The offset index of a segment: 8-byte entries, ascending,
//
//	0  int32  offset of the last record of a batch, relative to the segment's base
//	4  int32  position of that batch in the .log
//
// one for every index.interval.bytes of log or fewer. Kafka gives the entry of a follower's append the last batch's offset and
// the first batch's position; here both are of one batch, which every reader accepts and kafka-dump-log does not complain of.
//
// The newest entries of an active segment are only in memory (in the view); older ones are in the file. After a kill the
// file is incomplete, which is why an unclean start rebuilds it.
const indexEntrySize = 8

// indexEntry is one entry of the offset index.
type indexEntry struct {
	rel uint32 // last offset of the batch, relative to the base
	pos uint32 // of the batch in the .log
}

func (e indexEntry) put(b []byte) {
	binary.BigEndian.PutUint32(b, e.rel)
	binary.BigEndian.PutUint32(b[4:], e.pos)
}

func parseIndexEntry(b []byte) indexEntry {
	return indexEntry{rel: binary.BigEndian.Uint32(b), pos: binary.BigEndian.Uint32(b[4:])}
}

// entriesIn is how many whole entries a file holds.
func entriesIn(f File, entrySize int) (int, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return int(info.Size() / int64(entrySize)), nil
}

// searchBlock is how many bytes the last step of a search in an index file reads at once.
const searchBlock = 4096

var blocks = sync.Pool{New: func() any { return new([searchBlock]byte) }}

// searchFile returns the first of n entries (of entrySize bytes) for which after holds, n when there is none, and the entry
// before it when there is one. Entries ascend, so after is false, …, false, true, …, true.
func searchFile(f File, n, entrySize int, after func(entry []byte) bool, before []byte) (int, error) {
	block := blocks.Get().(*[searchBlock]byte)
	defer blocks.Put(block)
	lo, hi := 0, n
	perBlock := searchBlock / entrySize
	for hi-lo > perBlock-1 {
		mid := int(uint(lo+hi) >> 1)
		if err := readFull(f, block[:entrySize], int64(mid)*int64(entrySize)); err != nil {
			return 0, err
		}
		if after(block[:entrySize]) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	from := max(lo-1, 0)
	buf := block[:(hi-from)*entrySize]
	if err := readFull(f, buf, int64(from)*int64(entrySize)); err != nil {
		return 0, err
	}
	found := lo + sort.Search(hi-lo, func(i int) bool {
		at := (lo + i - from) * entrySize
		return after(buf[at : at+entrySize])
	})
	if found > 0 {
		copy(before, buf[(found-1-from)*entrySize:][:entrySize])
	}
	return found, nil
}

// readFull reads exactly len(p) bytes; less is io.ErrUnexpectedEOF.
func readFull(f File, p []byte, pos int64) error {
	if len(p) == 0 {
		return nil
	}
	n, err := f.ReadAt(p, pos)
	if n == len(p) {
		return nil
	}
	return shortRead(err)
}

// offsetIndex is a readable offset index: entries in the file, then entries in memory.
type offsetIndex struct {
	seg    *segment
	onDisk int          // -1: as many as the file has
	memory []indexEntry // later than those on disk; not changed in place
}

// floorPos returns the position from which a scan finds the batch that holds rel: that of the last entry at or below it, 0
// when there is none.
func (x offsetIndex) floorPos(rel int64) (int64, error) {
	if len(x.memory) > 0 && int64(x.memory[0].rel) <= rel {
		i := sort.Search(len(x.memory), func(i int) bool { return int64(x.memory[i].rel) > rel })
		return int64(x.memory[i-1].pos), nil
	}
	if x.onDisk == 0 {
		return 0, nil
	}
	var e [indexEntrySize]byte
	n, err := x.searchDisk(func(b []byte) bool { return int64(parseIndexEntry(b).rel) > rel }, e[:])
	if n == 0 || err != nil {
		return 0, err
	}
	return int64(parseIndexEntry(e[:]).pos), nil
}

// ceilingByPos returns the relative offset of the first entry whose position is at least pos; ok is false when there is none.
func (x offsetIndex) ceilingByPos(pos int64) (rel int64, ok bool, err error) {
	if x.onDisk != 0 {
		var at [indexEntrySize]byte
		n, err := x.searchDisk(func(b []byte) bool { return int64(parseIndexEntry(b).pos) >= pos }, at[:])
		if err != nil {
			return 0, false, err
		}
		if total, err := x.diskEntries(); err != nil || n < total {
			if err == nil {
				err = x.readDisk(n, at[:])
			}
			return int64(parseIndexEntry(at[:]).rel), err == nil, err
		}
	}
	i := sort.Search(len(x.memory), func(i int) bool { return int64(x.memory[i].pos) >= pos })
	if i == len(x.memory) {
		return 0, false, nil
	}
	return int64(x.memory[i].rel), true, nil
}

func (x offsetIndex) diskEntries() (int, error) {
	if x.onDisk >= 0 {
		return x.onDisk, nil
	}
	f, err := x.seg.acquireIndex()
	if err != nil {
		return 0, err
	}
	defer f.release()
	n, err := entriesIn(f.file, indexEntrySize)
	if err != nil {
		return 0, storageError("stat", x.seg.path(indexSuffix), err)
	}
	return n, nil
}

func (x offsetIndex) searchDisk(after func([]byte) bool, before []byte) (int, error) {
	n, err := x.diskEntries()
	if n == 0 || err != nil {
		return 0, err
	}
	f, err := x.seg.acquireIndex()
	if err != nil {
		return 0, err
	}
	defer f.release()
	found, err := searchFile(f.file, n, indexEntrySize, after, before)
	if err != nil {
		return 0, x.seg.readFault(indexSuffix, err)
	}
	return found, nil
}

func (x offsetIndex) readDisk(i int, entry []byte) error {
	f, err := x.seg.acquireIndex()
	if err != nil {
		return err
	}
	defer f.release()
	if err := readFull(f.file, entry, int64(i)*indexEntrySize); err != nil {
		return x.seg.readFault(indexSuffix, err)
	}
	return nil
}
