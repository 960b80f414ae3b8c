package zkcoord

import (
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// bootClock tells CLOCK_BOOTTIME, the time since boot with sleep. Reading it is a system call, half a microsecond and more, and
// every append and fetch asks twice; the wall clock and the monotonic one are read without.
//
// While the machine sleeps, the kernel moves the wall clock and CLOCK_BOOTTIME on by the same amount and lets the monotonic clock
// stand; adjustments of their rate reach all three. So as long as wall and monotonic clock have moved alike since a true
// reading, there was no sleep, and the reading plus the monotonic time since is exact. Anything else (a sleep, a step of the wall
// clock) asks the kernel, and so does the end of trusted, so that even a step that undoes a sleep to the millisecond hides
// nothing for long.
type bootClock struct {
	kernel func() time.Duration
	clocks func() (wall, monotonic time.Duration)
	last   atomic.Pointer[bootReading]
}

// bootReading is what the clocks said at one moment. The other two were read first, so the boot time is, if anything, ahead.
type bootReading struct{ boot, wall, monotonic time.Duration }

const (
	trusted   = 50 * time.Millisecond
	agreement = time.Millisecond // wall and monotonic clock are read one after the other
)

func newBootClock() *bootClock {
	start := time.Now()
	return &bootClock{kernel: bootTime, clocks: func() (wall, monotonic time.Duration) {
		now := time.Now()
		return time.Duration(now.UnixNano()), now.Sub(start)
	}}
}

func (c *bootClock) now() time.Duration {
	wall, monotonic := c.clocks()
	if r := c.last.Load(); r != nil {
		passed := monotonic - r.monotonic
		if passed >= 0 && passed < trusted && (wall-r.wall-passed).Abs() < agreement {
			return r.boot + passed
		}
	}
	boot := c.kernel()
	if _, after := c.clocks(); after-monotonic < agreement { // else this goroutine was held up in between
		c.last.Store(&bootReading{boot, wall, monotonic})
	}
	return boot
}

// bootTime asks the kernel.
func bootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // cannot fail on Linux; a clock that stands still at 0 would end no lease, so leases end where now is 0
	}
	return time.Duration(ts.Nano())
}
