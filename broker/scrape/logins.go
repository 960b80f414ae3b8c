package scrape

import (
	"maps"
	"slices"
	"sync"
)

// Logins counts logins and TLS handshakes by listener. The zero value is ready; it guards itself.
type Logins struct {
	mu sync.Mutex
	of map[string]LoginCounts
}

// LoginCounts are those of one listener. Again are logins on a connection that was logged in before.
type LoginCounts struct {
	Done, Failed           int64
	AgainDone, AgainFailed int64
}

// Count counts one.
func (l *Logins) Count(listener string, again, failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.of == nil {
		l.of = map[string]LoginCounts{}
	}
	c := l.of[listener]
	switch {
	case again && failed:
		c.AgainFailed++
	case again:
		c.AgainDone++
	case failed:
		c.Failed++
	default:
		c.Done++
	}
	l.of[listener] = c
}

// Picture is what has been counted until now.
func (l *Logins) Picture() map[string]LoginCounts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return maps.Clone(l.of)
}

// byListener tells a count of every listener.
func byListener(of func(LoginCounts) int64) func(*Text, *Picture) {
	return func(t *Text, p *Picture) {
		for _, name := range slices.Sorted(maps.Keys(p.ConnectionsByListener)) {
			t.Sample(Labels("listener", name), float64(of(p.Logins[name])))
		}
	}
}
