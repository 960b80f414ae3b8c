package broker

import (
	"context"
	"fmt"
	"path/filepath"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/security"
	"ottla/zkcoord"
)

func (b *Broker) openSession(ctx context.Context) error {
	s := b.config.Load()
	if err := b.openSecurity(); err != nil {
		return err
	}
	b.sessions = newSessions(b)
	connect := config.ZookeeperConnect.Of(s)
	b.log.Info().Str("connect", connect).Msg("connecting to zookeeper")
	o, err := security.ZooKeeper(s, zkcoord.Options{
		Connect:           connect,
		SessionTimeout:    config.ZookeeperSessionTimeoutMs.Of(s),
		ConnectionTimeout: config.ZookeeperConnectionTimeoutMs.Of(s),
		TickTime:          config.OttlaZookeeperTickTimeMs.Of(s),
		SyncLimit:         config.OttlaZookeeperSyncLimit.Of(s),
		MaxInFlight:       max(64, config.ZookeeperMaxInFlightRequests.Of(s)), // the default of 10 dates from another client
		Logger:            b.log.With().Str("component", "zookeeper").Logger(),
		Listener:          b.sessions,
		Observe:           b.metrics.zookeeper.Observe,
	})
	if err != nil {
		return err
	}
	zk, err := b.connect(ctx, o)
	if err != nil {
		return err
	}
	b.zk = zk
	if err := zkcoord.EnsurePaths(zk.Session()); err != nil {
		zk.Close()
		return err
	}
	return nil
}

// findIdentity settles cluster id and broker id: the settings, ZooKeeper and meta.properties of every directory must agree.
func (b *Broker) findIdentity(context.Context) error {
	s := b.config.Load()
	clusterID, err := zkcoord.ClusterID(b.zk.Session())
	if err != nil {
		return err
	}
	b.clusterID = clusterID
	configured := int32(config.BrokerID.Of(s))
	stored := int32(-1)
	for _, dir := range config.LogDirs.Of(s) {
		meta, ok, err := logstore.ReadMeta(logstore.OSFS, dir)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		file := filepath.Join(dir, "meta.properties")
		if meta.ClusterID != "" && meta.ClusterID != clusterID {
			return fmt.Errorf("this ZooKeeper holds cluster %s, but %s belongs to cluster %s (InconsistentClusterId): "+
				"correct zookeeper.connect or log.dirs, or delete the directory if its data is not wanted", clusterID, file, meta.ClusterID)
		}
		if stored >= 0 && int32(meta.BrokerID) != stored {
			return fmt.Errorf("log.dirs belong to different brokers: %s says broker %d, another directory says %d", file, meta.BrokerID, stored)
		}
		stored = int32(meta.BrokerID)
		if configured >= 0 && stored != configured {
			return fmt.Errorf("broker.id is %d, but %s belongs to broker %d: correct broker.id or log.dirs", configured, file, stored)
		}
	}
	switch {
	case configured >= 0:
		b.id = cluster.BrokerID(configured)
	case stored >= 0:
		b.id = cluster.BrokerID(stored)
	default:
		reserved := int32(config.ReservedBrokerMaxID.Of(s))
		if b.id, err = zkcoord.NextBrokerID(b.zk.Session(), reserved); err != nil {
			return err
		}
	}
	b.log = b.log.With().Int("broker", int(b.id)).Logger()
	b.controllerLink.self = b.id
	b.controllerLink.listener = b.controlListener
	b.log.Info().Str("cluster", clusterID).Msg("identity settled")
	return nil
}
