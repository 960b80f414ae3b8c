package broker

import (
	"context"
	"net"
	"time"

	"ottla/broker/wire"
	"ottla/config"
	"ottla/security"
)

func (b *Broker) openListeners(context.Context) error {
	s := b.config.Load()
	listeners, err := config.Listeners(s)
	if err != nil {
		return err
	}
	if err := b.readConnectionLimits(); err != nil {
		return err
	}
	between, err := config.InterBrokerListener(s)
	if err != nil {
		return err
	}
	o := wire.Options{
		Table:                 b.table(),
		MaxRequestBytes:       config.SocketRequestMaxBytes.Of(s),
		LoginMaxBytes:         config.SASLServerMaxReceiveSize.Of(s),
		QueuedMaxRequestBytes: config.QueuedMaxRequestBytes.Of(s),
		MaxIdle:               config.ConnectionsMaxIdleMs.Of(s),
		Limits:                func() wire.Limits { return *b.connectionLimits.Load() },
		SendBufferBytes:       config.SocketSendBufferBytes.Of(s),
		ReceiveBufferBytes:    config.SocketReceiveBufferBytes.Of(s),
		Features:              func() wire.Features { return wire.Features{FinalizedEpoch: 0} }, // as Kafka 3.9 tells in ZooKeeper mode
		Hooks:                 hooks{&b.metrics.requests, b},
		Admit:                 func(host string) time.Duration { return b.quotas.TakeConnection(host, time.Now()) },
		Logger:                b.log,
	}
	for _, l := range listeners {
		on := wire.Listener{Name: l.Name, Protocol: l.Protocol, Addr: hostPort(l.Host, int32(l.Port)), Login: security.UsesSASL(l.Protocol)}
		on.Protected = len(listeners) > 1 && (l.Name == between || l.Name == b.controlListener())
		if security.UsesTLS(l.Protocol) {
			on.Wrap = func(nc net.Conn) (net.Conn, error) { return b.acceptTLS(l, nc) }
		}
		o.Listeners = append(o.Listeners, on)
	}
	if b.server, err = wire.NewServer(o); err != nil {
		return err
	}
	b.server.Serve()
	return nil
}

func (b *Broker) closeListeners(ctx context.Context) {
	b.endServing()
	b.registered.end()
	if !b.zk.Connected() { // the controller here may be inside a read that only the end of the session ends, and its answers are awaited
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, controllerCloseTimeout)
		defer cancel()
	}
	if err := b.server.Close(ctx); err != nil {
		b.log.Warn().Err(err).Msg("some requests were cut off")
	}
}

// acceptTLS does a handshake and counts it, unless a login is still to come.
func (b *Broker) acceptTLS(l config.Listener, nc net.Conn) (net.Conn, error) {
	c, err := b.tls.Accept(l.Name, l.Protocol, nc)
	if err != nil || !security.UsesSASL(l.Protocol) {
		b.metrics.logins.Count(l.Name, false, err != nil)
	}
	return c, err
}
