package logstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// A full disk hurts more than the clients that filled it: retention's own small files, committed offsets and the replicas of other
// brokers need room too. So clients' appends to a log directory are refused while its volume has less free space than the reserve
// (ottla.disk.reserve.percent), before anything is written; all else goes on, and so do they as soon as there is space again.
//
// An append costs two atomic loads and one addition. The volume is asked (statfs) when a second has passed or half of the space
// above the reserve was written since the last answer, whichever is first, by one append at a time.

const (
	reserveCheckInterval = time.Second
	reserveCheckBytesMin = 1 << 20 // near the reserve the volume is not asked more often than after this many bytes
)

// ErrReserve says that an append was refused to keep the reserve of free disk space.
var ErrReserve = errors.New("the free space of its disk is below ottla.disk.reserve.percent")

// Space is the size of a volume and what of it this process may still write, in bytes.
type Space struct{ Total, Free int64 }

// reserve guards the free space of one log directory's volume. It guards itself; the zero value guards nothing.
type reserve struct {
	dir    string
	fs     FS
	share  float64 // of the volume, 0 to 1; 0: no reserve
	logger zerolog.Logger

	short     atomic.Bool  // at the last check
	checkedAt atomic.Int64 // Unix ns, 0 never
	budget    atomic.Int64 // bytes that may be written before the next check
	checking  atomic.Bool  // an append is at it
}

// admit judges an append of n bytes by a client. The error is a *StorageError that is Full.
func (r *reserve) admit(n int, now time.Time) error {
	if r.share <= 0 {
		return nil
	}
	age := now.UnixNano() - r.checkedAt.Load() // of either sign: clocks jump
	spent := r.budget.Add(-int64(n)) < 0
	if r.short.Load() {
		spent = false // nothing is written, time alone decides
	}
	if (spent || age < 0 || age >= int64(reserveCheckInterval)) && r.checking.CompareAndSwap(false, true) {
		r.check(now)
		r.checking.Store(false)
	}
	if r.short.Load() {
		return &StorageError{Op: "append to", Path: r.dir, Full: true, Err: ErrReserve}
	}
	return nil
}

// look says whether the reserve is in use, for who looks on: it asks the volume when the last answer is old.
func (r *reserve) look(now time.Time) bool {
	if r.share <= 0 {
		return false
	}
	age := now.UnixNano() - r.checkedAt.Load()
	if (age < 0 || age >= int64(reserveCheckInterval)) && r.checking.CompareAndSwap(false, true) {
		r.check(now)
		r.checking.Store(false)
	}
	return r.short.Load()
}

// check asks the volume. One that does not answer is taken as having space: the write itself will tell.
func (r *reserve) check(now time.Time) {
	r.checkedAt.Store(now.UnixNano())
	space, err := r.fs.Space(r.dir)
	if err != nil {
		r.budget.Store(reserveCheckBytesMin)
		r.turn(false, space)
		return
	}
	above := space.Free - int64(r.share*float64(space.Total))
	r.budget.Store(max(above/2, reserveCheckBytesMin))
	r.turn(above <= 0, space)
}

// turn notes a change, once.
func (r *reserve) turn(short bool, space Space) {
	if r.short.Swap(short) == short {
		return
	}
	event, message := r.logger.Warn(), "disk is nearly full: clients' writes are refused until there is space again; reads, replication and deletion go on"
	if !short {
		event, message = r.logger.Info(), "disk has space again: clients' writes are taken"
	}
	event.Str("dir", filepath.Clean(r.dir)).Int64("free_bytes", space.Free).Int64("total_bytes", space.Total).
		Str("reserve", fmt.Sprintf("%g%%", r.share*100)).Msg(message)
}
