package parallel

import (
	"sync/atomic"
	"testing"
)

func TestForCallsEachOnceWithinTheBound(t *testing.T) {
	for _, n := range []int{0, 1, 2, 7, 100} {
		calls := make([]atomic.Int32, n)
		var running, most atomic.Int32
		For(n, 3, func(i int) {
			if r := running.Add(1); r > most.Load() {
				most.Store(r)
			}
			calls[i].Add(1)
			running.Add(-1)
		})
		for i := range calls {
			if got := calls[i].Load(); got != 1 {
				t.Errorf("n=%d: %d was called %d times", n, i, got)
			}
		}
		if most.Load() > 3 {
			t.Errorf("n=%d: %d at once", n, most.Load())
		}
	}
}
