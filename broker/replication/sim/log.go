package sim

import (
	"fmt"

	"ottla/broker/replication"
	"ottla/internal/cluster"
)

// record is one record: who it is, and the epoch that wrote it.
type record struct {
	id    uint64
	epoch cluster.LeaderEpoch
}

// epochEntry says where an epoch starts.
type epochEntry struct {
	epoch cluster.LeaderEpoch
	start int64
}

// disk is a partition's log as it is on disk, with its checkpoint of the high watermark.
type disk struct {
	records    []record
	synced     int64
	epochs     []epochEntry // those with records are as durable as these, as in the real one
	checkpoint int64
	// mustReach is the high watermark known before the last start (L19).
	mustReach int64
}

func (d *disk) end() int64 { return int64(len(d.records)) }

func (d *disk) lastEpoch() cluster.LeaderEpoch {
	if len(d.epochs) == 0 {
		return cluster.NoLeaderEpoch
	}
	return d.epochs[len(d.epochs)-1].epoch
}

// EndOffsetForEpoch implements replication.EpochLookup.
func (d *disk) EndOffsetForEpoch(e cluster.LeaderEpoch) (cluster.LeaderEpoch, int64) {
	n := len(d.epochs)
	if n == 0 || e > d.epochs[n-1].epoch || e == cluster.NoLeaderEpoch {
		return cluster.NoLeaderEpoch, -1
	}
	if e == d.epochs[n-1].epoch {
		return e, d.end()
	}
	if e < d.epochs[0].epoch {
		return e, d.epochs[0].start
	}
	for i := n - 2; i >= 0; i-- {
		if d.epochs[i].epoch <= e {
			return d.epochs[i].epoch, d.epochs[i+1].start
		}
	}
	return cluster.NoLeaderEpoch, -1
}

// assign notes an epoch's start, removing what contradicts it.
func (d *disk) assign(e cluster.LeaderEpoch, start int64) error {
	if n := len(d.epochs); n > 0 && d.epochs[n-1].epoch == e {
		return nil
	}
	for n := len(d.epochs); n > 0 && (d.epochs[n-1].epoch >= e || d.epochs[n-1].start > start); n = len(d.epochs) {
		d.epochs = d.epochs[:n-1]
	}
	if n := len(d.epochs); n > 0 && d.epochs[n-1].start == start {
		d.epochs = d.epochs[:n-1] // an epoch without records
	}
	d.epochs = append(d.epochs, epochEntry{epoch: e, start: start})
	for i := 1; i < len(d.epochs); i++ {
		if d.epochs[i-1].epoch >= d.epochs[i].epoch || d.epochs[i-1].start >= d.epochs[i].start {
			return fmt.Errorf("I8: epoch cache %v", d.epochs)
		}
	}
	return nil
}

func (d *disk) append(rs ...record) error {
	for _, r := range rs {
		if r.epoch != d.lastEpoch() {
			if err := d.assign(r.epoch, d.end()); err != nil {
				return err
			}
		}
		d.records = append(d.records, r)
	}
	return nil
}

func (d *disk) truncate(to int64) {
	d.records = d.records[:min(to, d.end())]
	d.synced = min(d.synced, to)
	for n := len(d.epochs); n > 0 && d.epochs[n-1].start >= to; n = len(d.epochs) {
		d.epochs = d.epochs[:n-1]
	}
}

// losePower keeps what was synced and some of the rest.
func (d *disk) losePower(w *world) (lost int64) {
	unsynced := d.end() - d.synced
	if unsynced <= 0 {
		return 0
	}
	keep := d.synced + w.rng.Int63n(unsynced+1)
	lost = d.end() - keep
	d.truncate(keep)
	return lost
}

// truth is what the whole world knows of a partition: the records that some leader has called committed.
type truth struct {
	committed []record
	leaders   map[cluster.LeaderEpoch]cluster.BrokerID
}

// agree checks that the first n records of d are what was committed, and extends what is committed when leader says so.
func (t *truth) agree(d *disk, n int64, extend bool) error {
	common := min(n, int64(len(t.committed)))
	for i := range common {
		if d.records[i] != t.committed[i] {
			return fmt.Errorf("offset %d holds %v, committed was %v", i, d.records[i], t.committed[i])
		}
	}
	if n > common {
		if !extend {
			return fmt.Errorf("%d records count as committed, in truth %d", n, len(t.committed))
		}
		t.committed = append(t.committed, d.records[common:n]...)
	}
	return nil
}

// holds reports whether d has every committed record.
func (t *truth) holds(d *disk) error {
	if int64(len(t.committed)) > d.end() {
		return fmt.Errorf("log ends at %d, committed are %d", d.end(), len(t.committed))
	}
	return t.agree(d, int64(len(t.committed)), false)
}

var _ replication.EpochLookup = (*disk)(nil)
