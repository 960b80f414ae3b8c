package broker

import (
	"errors"
	"time"

	"ottla/zkcoord"
)

// fullDisk tells the controller while this broker refuses what clients write for want of space, so that replicas with room lead
// instead. Only its job uses it.
type fullDisk struct {
	b    *Broker
	told int64     // the session in which it was told, 0: none
	last time.Time // when the disk was last seen full
}

// fullDiskCalm is how long there must be space before leaders may come back: near the edge they would go to and fro.
const fullDiskCalm = 10 * time.Second

func (d *fullDisk) tell(now time.Time) {
	b := d.b
	if b.logs.Short(now) {
		d.last = now
	}
	full := now.Sub(d.last) < fullDiskCalm && !d.last.IsZero()
	session := b.zk.Session()
	told := d.told == session.ID()
	if full == told || !full && d.told == 0 || !b.registered.isOpen() {
		return
	}
	err := zkcoord.TellFullDisk(session, b.id, full)
	switch {
	case err == nil && full:
		d.told = session.ID()
	case err == nil:
		d.told = 0
	case !errors.Is(err, zkcoord.ErrNodeExists): // else an earlier session says so, for a while
		b.log.Warn().Err(err).Bool("full", full).Msg("the controller could not be told of the full disk, trying on")
	}
}
