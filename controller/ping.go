package controller

import "context"

// Ping returns once the loop has come round, or with ctx's error when it has not by then.
func (c *Controller) Ping(ctx context.Context) error {
	done := make(chan struct{})
	answer := func() { close(done) }
	c.queue.put(event{name: "ping", run: answer, drop: answer})
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
