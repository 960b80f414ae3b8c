package scrape

import (
	"runtime"
	"sync"
	"syscall"
	"time"
)

// Idle tells the share of the processors' time that this process leaves unused. The zero value is ready.
type Idle struct {
	mu    sync.Mutex
	at    time.Time
	spent time.Duration
	share float64
}

// idleSpan is over how long the share is taken at least: two who scrape shortly after one another see the same.
const idleSpan = 5 * time.Second

// Share is 1 for a process that does nothing, 0 for one that uses all of GOMAXPROCS.
func (i *Idle) Share(now time.Time) float64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !i.at.IsZero() && now.Sub(i.at) < idleSpan {
		return i.share
	}
	spent := processorTime()
	i.share = 1
	if wall := now.Sub(i.at); !i.at.IsZero() && wall > 0 {
		used := float64(spent-i.spent) / float64(wall) / float64(runtime.GOMAXPROCS(0))
		i.share = min(max(1-used, 0), 1)
	}
	i.at, i.spent = now, spent
	return i.share
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
