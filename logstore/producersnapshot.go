package logstore

import (
	"encoding/binary"
	"hash/crc32"
	"maps"
	"slices"
	"time"
)

// A .snapshot file, big-endian: int16 version 1; uint32 CRC-32C of all that follows; int32 count; then entries of 46 bytes:
//
//	 0  int64  producer id            26  int64  last timestamp
//	 8  int16  epoch                  34  int32  coordinator epoch, -1 none
//	10  int32  last sequence, -1      38  int64  first offset of the open transaction, -1 none
//	14  int64  last data offset, -1
//	22  int32  offset delta of the last batch
//
// Only the newest batch of each producer is kept.
const (
	snapshotVersion    = 1
	snapshotPosCRC     = 2
	snapshotPosCount   = 6
	snapshotPosEntries = 10
	snapshotEntryBytes = 46
)

// Snapshot encodes the state as the content of a .snapshot file, ordered by producer id.
func (s *ProducerState) Snapshot() []byte {
	be := binary.BigEndian
	out := make([]byte, snapshotPosEntries, snapshotPosEntries+snapshotEntryBytes*len(s.producers))
	be.PutUint16(out, snapshotVersion)
	be.PutUint32(out[snapshotPosCount:], uint32(len(s.producers)))
	for _, id := range slices.Sorted(maps.Keys(s.producers)) {
		e := s.producers[id]
		last, _ := e.last()
		out = be.AppendUint64(out, uint64(id))
		out = be.AppendUint16(out, uint16(e.epoch))
		out = be.AppendUint32(out, uint32(last.lastSequence))
		out = be.AppendUint64(out, uint64(last.lastOffset))
		out = be.AppendUint32(out, uint32(last.offsetDelta))
		out = be.AppendUint64(out, uint64(e.lastTimestamp))
		out = be.AppendUint32(out, uint32(e.coordinatorEpoch))
		out = be.AppendUint64(out, uint64(e.txnFirstOffset))
	}
	be.PutUint32(out[snapshotPosCRC:], crc32.Checksum(out[snapshotPosCount:], castagnoli))
	return out
}

// LoadSnapshot replaces the state by a snapshot's; mapEnd is the offset in the file's name. Expired producers are left out.
// Errors match ErrCorrupt: delete the file and try the next older; the state is then unchanged.
func (s *ProducerState) LoadSnapshot(data []byte, mapEnd int64, now time.Time, retention time.Duration) error {
	if err := checkSnapshot(data); err != nil {
		return err
	}
	loaded := NewProducerState()
	loaded.mapEnd = mapEnd
	for rest := data[snapshotPosEntries:]; len(rest) > 0; rest = rest[snapshotEntryBytes:] {
		id, e := parseSnapshotEntry(rest)
		if e.expired(now, retention) {
			continue
		}
		loaded.producers[id] = &e
		if e.txnFirstOffset >= 0 {
			loaded.ongoing = insertTxn(loaded.ongoing, txn{producerID: id, firstOffset: e.txnFirstOffset, lastOffset: -1})
		}
	}
	*s = *loaded
	return nil
}

func checkSnapshot(data []byte) error {
	be := binary.BigEndian
	if len(data) < snapshotPosEntries {
		return corrupt("snapshot size", int64(len(data)), snapshotPosEntries)
	}
	if version := be.Uint16(data); version != snapshotVersion {
		return corrupt("snapshot version", int64(version), snapshotVersion)
	}
	if crc, want := crc32.Checksum(data[snapshotPosCount:], castagnoli), be.Uint32(data[snapshotPosCRC:]); crc != want {
		return corrupt("snapshot crc", int64(crc), int64(want))
	}
	count := int64(int32(be.Uint32(data[snapshotPosCount:])))
	if want := count*snapshotEntryBytes + snapshotPosEntries; count < 0 || int64(len(data)) != want {
		return corrupt("snapshot size", int64(len(data)), want)
	}
	return nil
}

func parseSnapshotEntry(b []byte) (id int64, e producerEntry) {
	be := binary.BigEndian
	e = newProducerEntry()
	id = int64(be.Uint64(b))
	e.epoch = int16(be.Uint16(b[8:]))
	e.lastTimestamp = int64(be.Uint64(b[26:]))
	e.coordinatorEpoch = int32(be.Uint32(b[34:]))
	e.txnFirstOffset = max(int64(be.Uint64(b[38:])), -1)
	m := batchMeta{
		lastSequence: int32(be.Uint32(b[10:])),
		lastOffset:   int64(be.Uint64(b[14:])),
		offsetDelta:  int32(be.Uint32(b[22:])),
		timestamp:    e.lastTimestamp,
	}
	if m.lastOffset >= 0 {
		e.batches[0], e.count = m, 1
	}
	return id, e
}
