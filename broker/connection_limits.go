package broker

import (
	"context"
	"net"
	"time"

	"ottla/broker/wire"
	"ottla/config"
)

// readConnectionLimits takes the bounds on clients' connections from the settings, at the start and when they change. Names in
// max.connections.per.ip.overrides are resolved here, never while a client waits.
func (b *Broker) readConnectionLimits() error {
	s := b.config.Load()
	named, err := config.ConnectionOverrides(s)
	if err != nil {
		return err
	}
	limits := &wire.Limits{
		Connections: config.MaxConnections.Of(s),
		PerIP:       config.MaxConnectionsPerIP.Of(s),
		Overrides:   map[string]int{},
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	for host, limit := range named {
		addresses, err := net.DefaultResolver.LookupHost(ctx, host)
		if err != nil {
			b.log.Warn().Err(err).Str("key", config.MaxConnectionsPerIPOverrides.Name).Str("host", host).
				Msg("name cannot be resolved: max.connections.per.ip bounds it")
		}
		for _, a := range addresses {
			limits.Overrides[a] = limit
		}
	}
	b.connectionLimits.Store(limits)
	return nil
}

const resolveTimeout = 5 * time.Second
