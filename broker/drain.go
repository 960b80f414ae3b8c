package broker

import (
	"context"
	"sync/atomic"
	"time"

	"ottla/broker/wire"
)

// drain keeps the connections of a broker that leaves open until its clients have heard that others lead now. Who is told goes to
// the new leader at once; who finds the connection closed has to ask around, and some clients ask only every few seconds.
type drain struct {
	last atomic.Int64 // when a client last came to write or read, ns since 1970; kept while the broker leaves
}

const (
	drainQuiet = 200 * time.Millisecond // without writers and readers all have been told, or come so rarely that they do not mind
	drainMax   = 2 * time.Second
)

// noteClient takes note of a client that writes or reads.
func (b *Broker) noteClient(r *wire.Request) {
	if b.shuttingDown.Load() {
		b.drain.last.Store(r.ReceivedAt.UnixNano())
	}
}

// wait returns when no client has come for a while.
func (d *drain) wait(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, drainMax)
	defer cancel()
	began := time.Now()
	for {
		quiet := min(time.Since(began), time.Since(time.Unix(0, d.last.Load())))
		if quiet >= drainQuiet || sleep(ctx, drainQuiet-max(quiet, 0)) != nil {
			return
		}
	}
}
