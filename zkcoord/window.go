package zkcoord

import (
	"sync"
	"sync/atomic"
)

// window does n pieces of work, at most width at a time, in no particular order, and returns when all are done.
func window(n, width int, work func(i int)) {
	if n == 0 {
		return
	}
	if n == 1 {
		work(0)
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, width) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n); i = next.Add(1) - 1 {
				work(int(i))
			}
		})
	}
	wg.Wait()
}
