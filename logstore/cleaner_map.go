package logstore

import (
	"hash/maphash"
)

// offsetMapSlotBytes is the memory of one key: the same 24 bytes as in Kafka, so that log.cleaner.dedupe.buffer.size buys the
// same number of keys.
const offsetMapSlotBytes = 24

// offsetMapSlotsFirst is the size at which a map begins to grow.
const offsetMapSlotsFirst = 1 << 10

// offsetMap tells the last offset of each key. Keys are not kept but 128 bits of their hash, and not compared: two keys of one
// hash would lose a record. The hash is keyed with random numbers, so that nobody can make such keys (Kafka uses MD5).
//
// Memory grows with the keys, by doubling, up to slotsMax. It is not safe for concurrent use.
type offsetMap struct {
	slots    []offsetSlot // length is a power of two, or slotsMax
	used     int
	keysMax  int
	slotsMax int
	seeds    [2]maphash.Seed
}

type offsetSlot struct {
	hash [2]uint64
	next int64 // offset + 1; 0: the slot is free
}

// newOffsetMap makes a map that takes at most bytes of memory and fills it up to load (log.cleaner.io.buffer.load.factor).
func newOffsetMap(bytes int64, load float64) *offsetMap {
	slotsMax := max(int(bytes/offsetMapSlotBytes), 1)
	return &offsetMap{
		slots:    make([]offsetSlot, min(offsetMapSlotsFirst, slotsMax)),
		slotsMax: slotsMax,
		keysMax:  max(min(int(float64(slotsMax)*load), slotsMax-1), 1),
		seeds:    [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()},
	}
}

// put notes a key's offset; the last one wins. False: the map is full and does not know the key.
func (m *offsetMap) put(key []byte, offset int64) bool {
	hash := m.hash(key)
	slot := m.find(hash)
	if slot.next != 0 {
		slot.next = offset + 1
		return true
	}
	if m.used >= m.keysMax {
		return false
	}
	if m.used >= len(m.slots)*3/4 && len(m.slots) < m.slotsMax {
		m.grow()
		slot = m.find(hash)
	}
	*slot = offsetSlot{hash: hash, next: offset + 1}
	m.used++
	return true
}

// get returns the last offset of a key.
func (m *offsetMap) get(key []byte) (int64, bool) {
	slot := m.find(m.hash(key))
	return slot.next - 1, slot.next != 0
}

func (m *offsetMap) hash(key []byte) [2]uint64 {
	return [2]uint64{maphash.Bytes(m.seeds[0], key), maphash.Bytes(m.seeds[1], key)}
}

// find returns the key's slot, or the free one where it belongs. One slot at least is always free.
func (m *offsetMap) find(hash [2]uint64) *offsetSlot {
	for i := hash[0] % uint64(len(m.slots)); ; {
		slot := &m.slots[i]
		if slot.next == 0 || slot.hash == hash {
			return slot
		}
		if i++; i == uint64(len(m.slots)) {
			i = 0
		}
	}
}

func (m *offsetMap) grow() {
	old := m.slots
	m.slots = make([]offsetSlot, min(2*len(old), m.slotsMax))
	for _, s := range old {
		if s.next != 0 {
			*m.find(s.hash) = s
		}
	}
}
