package logstore

import "time"

// FirstBase is the base of the first segment, and how many there are.
func (l *Log) FirstBase() (int64, int) {
	v := l.view.Load()
	return v.segments[0].base, len(v.segments)
}

// SetProgressInterval shortens the time between two lines about loading.
func SetProgressInterval(d time.Duration) (restore func()) {
	was := progressInterval
	progressInterval = d
	return func() { progressInterval = was }
}

// Roll seals the active segment and begins another.
func (l *Log) Roll(now time.Time) error {
	if err := l.lock(); err != nil {
		return err
	}
	defer l.unlock()
	return l.rollLocked(l.Config(), l.view.Load().logEnd, now)
}
