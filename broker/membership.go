package broker

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
)

// register announces the broker: from here on it is part of the cluster.
func (b *Broker) register(ctx context.Context) error {
	return b.sessions.begin(ctx)
}

// leaveCluster moves the leaders away before anything is closed.
func (b *Broker) leaveCluster(ctx context.Context) {
	b.shuttingDown.Store(true)
	b.sessions.end()
	switch {
	case !b.zk.Connected():
		b.log.Warn().Msg("zookeeper is not reachable: stopping without moving leaders away")
	case !b.registered.isOpen():
		b.log.Warn().Msg("this broker is not registered, so it leads nothing that could be moved away")
	case config.ControlledShutdownEnable.Of(b.config.Load()):
		if b.controlledShutdown(ctx) {
			b.drain.wait(ctx)
		}
	}
	b.server.StopAccepting()
}

// controlledShutdown asks the controller to move this broker's leaders, a bounded number of times, and reports whether it has moved
// any. Source: KIP-380.
func (b *Broker) controlledShutdown(ctx context.Context) (moved bool) {
	s := b.config.Load()
	for try := range config.ControlledShutdownMaxRetries.Of(s) + 1 {
		if try > 0 {
			b.awaitSuccessor(ctx, config.ControlledShutdownRetryBackoffMs.Of(s))
		}
		left, err := b.askToLeave(ctx)
		switch {
		case err == nil && left == 0:
			b.log.Info().Msg("controlled shutdown: no leader is left here")
			return b.othersAlive()
		case err == nil && !b.othersAlive():
			b.log.Info().Int("partitions", left).Msg("controlled shutdown: no other broker is there to lead")
			return false
		case err == nil:
			b.log.Warn().Int("partitions", left).Msg("controlled shutdown: some leaders could not be moved")
		default:
			b.log.Warn().Err(err).Msg("controlled shutdown was not answered")
		}
		if !b.zk.Connected() {
			b.log.Warn().Msg("controlled shutdown: zookeeper has become unreachable, nothing can be moved")
			return false
		}
	}
	return true
}

// othersAlive reports whether any other broker is registered.
func (b *Broker) othersAlive() bool {
	m := b.metadata.load()
	return len(m.brokers) > 1 || len(m.brokers) == 1 && !m.alive(b.id)
}

// awaitSuccessor waits before the next attempt, not longer than until the last other broker has gone.
func (b *Broker) awaitSuccessor(ctx context.Context, pause time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	for b.othersAlive() {
		select {
		case <-b.controllerLink.changed():
		case <-ctx.Done():
			return
		}
	}
}

func (b *Broker) askToLeave(ctx context.Context) (left int, err error) {
	ctx, cancel := context.WithTimeout(ctx, controlledShutdownTimeout)
	defer cancel()
	req := kmsg.NewPtrControlledShutdownRequest()
	req.Version = 3
	req.BrokerID, req.BrokerEpoch = int32(b.id), int64(b.epoch())
	resp, err := b.controllerLink.RoundTrip(ctx, req)
	if err != nil {
		return 0, err
	}
	answer := resp.(*kmsg.ControlledShutdownResponse)
	return len(answer.PartitionsRemaining), kerr.ErrorForCode(answer.ErrorCode)
}

// controlledShutdownTimeout bounds one attempt: without a reachable controller a stop must not hang.
const controlledShutdownTimeout = 10 * time.Second
