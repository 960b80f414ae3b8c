package zkcoord

import (
	"sync/atomic"
	"time"
)

// A lease says how long the session lives at least, without asking the ensemble. The ensemble's leader counts a session's silence
// from when it last heard of it; a server that is cut off from the leader goes on answering for up to syncLimit ticks, and
// expiry is rounded to a tick. So after an answered probe the session lives until
//
//	send time of the probe + session timeout − syncLimit·tickTime − tickTime
//
// The clock runs while the machine sleeps (CLOCK_BOOTTIME; Go's monotonic clock does not), and the lease is checked at the moment
// of use, so that a process that was stopped finds it expired.
type lease struct {
	length time.Duration
	now    func() time.Duration
	end    atomic.Int64 // on that clock; 0 = none
}

// weakLeaseShare is the share of the session timeout that is used when the bound above is not positive, because the session
// timeout is too small for the ensemble's ticks: not proven any more, but still bounded.
const weakLeaseShare = 3

func leaseLength(sessionTimeout, tick time.Duration, syncLimit int) (length time.Duration, proven bool) {
	length = sessionTimeout - time.Duration(syncLimit)*tick - tick
	if length <= 0 {
		return sessionTimeout / weakLeaseShare, false
	}
	return length, true
}

// renew notes that a probe sent at this time was answered.
func (l *lease) renew(sent time.Duration) {
	end := int64(sent + l.length)
	for old := l.end.Load(); end > old; old = l.end.Load() {
		if l.end.CompareAndSwap(old, end) {
			return
		}
	}
}

func (l *lease) remaining() time.Duration {
	end := l.end.Load()
	if end == 0 {
		return 0
	}
	return max(0, time.Duration(end)-l.now())
}
