// Package parallel runs independent pieces of work side by side.
package parallel

import (
	"sync"
	"sync/atomic"
)

// For calls fn for 0 to n-1 from at most so many goroutines and returns when all are done. One piece runs in the caller's.
func For(n, workers int, fn func(i int)) {
	if n < 2 || workers < 2 {
		for i := range n {
			fn(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(n, workers) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				fn(i)
			}
		})
	}
	wg.Wait()
}
