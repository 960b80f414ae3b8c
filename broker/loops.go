package broker

import (
	"context"
	"sync"
	"time"
)

// loops are the broker's own long-running goroutines.
type loops struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

func (l *loops) start(runs ...func(context.Context)) {
	ctx, cancel := context.WithCancel(context.Background())
	l.cancel = cancel
	for _, run := range runs {
		l.wg.Go(func() { run(ctx) })
	}
}

func (l *loops) stop() {
	l.cancel()
	l.wg.Wait()
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
