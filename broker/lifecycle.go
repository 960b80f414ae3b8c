package broker

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/fetcher"
	"ottla/broker/partition"
	"ottla/broker/wire"
	"ottla/config"
	"ottla/controller"
	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/security"
	"ottla/zkcoord"
)

// The steps of broker.go, in their order.

// checkSupported refuses settings that promise a protection which is not there: starting without it would be worse.
func checkSupported(s *config.Snapshot) error {
	if config.ZookeeperSetACL.Of(s) {
		return errors.New("zookeeper.set.acl=true: protecting znodes is not available yet; remove the setting to run without")
	}
	return nil
}

func (b *Broker) openSession(ctx context.Context) error {
	s := b.config.Load()
	if err := checkSupported(s); err != nil {
		return err
	}
	if err := b.openSecurity(); err != nil {
		return err
	}
	b.sessions = newSessions(b)
	connect := config.ZookeeperConnect.Of(s)
	b.log.Info().Str("connect", connect).Msg("connecting to zookeeper")
	zk, err := b.connect(ctx, zkcoord.Options{
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

func (b *Broker) openLogs(context.Context) error {
	s := b.config.Load()
	if err := b.topicConfigs.loadAll(b.zk.Session()); err != nil {
		return err
	}
	logs, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs:            config.LogDirs.Of(s),
		BrokerID:        b.id,
		ClusterID:       b.clusterID,
		Defaults:        func(topic string) *logstore.Config { return logConfig(b.topicConfigs.orDefault(topic)) },
		RecoveryThreads: config.NumRecoveryThreadsPerDataDir.Of(s),
		ReserveShare:    config.OttlaDiskReservePercent.Of(s) / 100,
		Logger:          b.log.With().Str("component", "logstore").Logger(),
		OnDirFailure:    b.dirFailed,
	})
	if err != nil {
		return err
	}
	b.logs = logs
	return nil
}

func (b *Broker) closeLogs() {
	if err := b.logs.Close(true); err != nil {
		b.log.Error().Err(err).Msg("logs were not closed cleanly, the next start recovers them")
	}
}

// dirFailed is told of a log directory that cannot be used any more: its partitions go offline, the controller moves leaders.
// While the broker starts or stops it has no partitions that could.
func (b *Broker) dirFailed(dir string, cause error) {
	if !b.reached("partitions") {
		return
	}
	b.tasks.run(func() {
		b.partitions.DirFailed(dir, cause)
		if err := zkcoord.NotifyLogDirFailure(b.zk.Session(), b.id); err != nil {
			b.log.Error().Err(err).Str("dir", dir).Msg("the controller could not be told of the failed log directory")
		}
	})
}

func (b *Broker) openPartitions(context.Context) error {
	b.alterer = partition.NewAlterer(b.id, b.epoch, alterChannel{b.controllerLink}, b.log)
	b.partitions = partition.NewSet(partition.Options{
		BrokerID: b.id,
		Logs:     b.logs,
		LagMax:   func() time.Duration { return config.ReplicaLagTimeMaxMs.Of(b.config.Load()) },
		Topic: func(topic string) partition.TopicSettings {
			return partitionSettings(b.topicConfigs.orDefault(topic))
		},
		Logger:        b.log,
		Alter:         b.alterer,
		Alive:         func(id cluster.BrokerID) bool { return b.metadata.load().alive(id) },
		Lease:         b.zk.LeaseValid,
		StrictLease:   func() bool { return config.OttlaStrictAcks.Of(b.config.Load()) },
		SelectReplica: b.nearestReplica,
		ReadState:     b.readState,
	})
	b.fetchers = fetcher.New(fetcher.Options{
		BrokerID:    b.id,
		BrokerEpoch: b.epoch,
		Dial: func(ctx context.Context, id cluster.BrokerID) (fetcher.Conn, error) {
			to, ok := b.metadata.load().brokers[id]
			if !ok {
				return nil, fmt.Errorf("broker %d is not registered", id)
			}
			return b.dial(ctx, to)
		},
		Settings: b.fetcherSettings,
		Throttle: followerSide{b.followerThrottle},
		Logger:   b.log,
	})
	b.partitions.SetFetchers(b.fetchers)
	b.partitions.OnLeadershipChange(func(became, _ []*partition.Partition) { b.leadershipGained(len(became)) })
	b.loops.start(b.partitions.Run, b.alterer.Run)
	return nil
}

// leadershipGained answers the replicas' fetches that wait here: their brokers may now have more to fetch from this one, and a
// partition can only join the next fetch. For a moment replicas' fetches wait only briefly, since their brokers hear of the
// change a little earlier or later than this one.
func (b *Broker) leadershipGained(partitions int) {
	if partitions == 0 {
		return
	}
	b.gainedAt.Store(time.Now().UnixNano())
	b.fetchSessions.answerReplicas()
}

func (b *Broker) closePartitions() {
	b.fetchers.Close()
	b.loops.stop()
	b.controllerLink.close()
}

func (b *Broker) fetcherSettings() fetcher.Settings {
	s := b.config.Load()
	return fetcher.Settings{
		Fetchers:         config.NumReplicaFetchers.Of(s),
		MaxWait:          config.ReplicaFetchWaitMaxMs.Of(s),
		MinBytes:         config.ReplicaFetchMinBytes.Of(s),
		MaxBytes:         config.ReplicaFetchMaxBytes.Of(s),
		ResponseMaxBytes: config.ReplicaFetchResponseMaxBytes.Of(s),
		Backoff:          config.ReplicaFetchBackoffMs.Of(s),
		RequestTimeout:   config.ReplicaSocketTimeoutMs.Of(s),
	}
}

// rackAwareSelector is the one replica selector that Kafka ships.
const rackAwareSelector = "RackAwareReplicaSelector"

// nearestReplica lets a consumer read from a replica in its own rack. candidates hold the offset, the leader first; a leader in
// the rack is left where it is. Source: KIP-392.
func (b *Broker) nearestReplica(rack string, candidates []cluster.BrokerID) cluster.BrokerID {
	if rack == "" || !strings.HasSuffix(config.ReplicaSelectorClass.Of(b.config.Load()), rackAwareSelector) {
		return cluster.NoBroker
	}
	m := b.metadata.load()
	for _, id := range candidates {
		if m.brokers[id].Rack == rack {
			return id
		}
	}
	return cluster.NoBroker
}

// readState asks ZooKeeper what became of an ISR change.
func (b *Broker) readState(tp cluster.TopicPartition) (partition.AlterResult, error) {
	found, ok, err := zkcoord.ReadState(b.zk.Session(), tp)
	if err != nil {
		return partition.AlterResult{}, err
	}
	if !ok {
		return partition.AlterResult{}, kerr.UnknownTopicOrPartition
	}
	return partition.AlterResult{
		Leader:         found.State.Leader,
		LeaderEpoch:    found.State.LeaderEpoch,
		ISR:            found.State.ISR,
		PartitionEpoch: found.Version,
	}, nil
}

func (b *Broker) startJobs(context.Context) error {
	of := func(key interface {
		Of(*config.Snapshot) time.Duration
	}) func() time.Duration {
		return func() time.Duration { return key.Of(b.config.Load()) }
	}
	every := func(d time.Duration) func() time.Duration { return func() time.Duration { return d } }
	plain := func(run func(time.Time)) func(context.Context, time.Time) {
		return func(_ context.Context, now time.Time) { run(now) }
	}
	logged := func(what string, run func() error) func(context.Context, time.Time) {
		return func(context.Context, time.Time) {
			if err := run(); err != nil {
				b.log.Error().Err(err).Msg(what + " failed")
			}
		}
	}
	s := b.config.Load()
	firstRun := config.LogInitialTaskDelayMs.Of(s)
	jobs := []job{
		{"retention", firstRun, of(config.LogRetentionCheckIntervalMs), plain(func(now time.Time) { b.logs.RetentionPass(now) })},
		{"delete-files", firstRun, every(time.Second), plain(b.logs.DeletePass)},
		{"flush", firstRun, every(time.Second), logged("flush", func() error { return b.logs.FlushPass(time.Now()) })},
		{"checkpoint-recovery-points", firstRun, of(config.LogFlushOffsetCheckpointIntervalMs), logged("checkpoint of recovery points", b.logs.CheckpointRecoveryPoints)},
		{"checkpoint-log-starts", firstRun, of(config.LogFlushStartOffsetCheckpointIntervalMs), logged("checkpoint of log start offsets", b.logs.CheckpointLogStarts)},
		{"checkpoint-high-watermarks", 0, of(config.ReplicaHighWatermarkCheckpointIntervalMs), logged("checkpoint of high watermarks", b.logs.CheckpointHighWatermarks)},
		{"expire-offsets", 0, of(config.OffsetsRetentionCheckIntervalMs), func(_ context.Context, now time.Time) { b.groups.Expire(now) }},
		{"expire-producers", 0, of(config.ProducerIDExpirationCheckIntervalMs), plain(b.logs.ExpireProducers)},
		{"read-certificates", 0, every(certificatePeriod), plain(func(time.Time) { b.tls.Poll() })},
		{"close-idle-files", 0, every(time.Minute), plain(func(time.Time) { b.logs.CloseIdleFiles() })},
	}
	if config.LogCleanerEnable.Of(s) {
		b.cleaner = logstore.NewCleaner(b.cleanerOptions(s))
		jobs = append(jobs, job{"compaction", firstRun, of(config.LogCleanerBackoffMs), b.cleaner.Pass})
	}
	b.jobs = startJobs(jobs, b.log)
	return nil
}

// cleanerOptions gives the whole map of keys to one cleaner: it compacts one log after another.
func (b *Broker) cleanerOptions(s *config.Snapshot) logstore.CleanerOptions {
	o := logstore.CleanerOptions{
		Logs:        b.logs.Logs,
		DedupeBytes: config.LogCleanerDedupeBufferSize.Of(s),
		LoadFactor:  config.LogCleanerIOBufferLoadFactor.Of(s),
		Logger:      b.log.With().Str("component", "cleaner").Logger(),
	}
	if rate := config.LogCleanerIOMaxBytesPerSecond.Of(s); rate < math.MaxFloat64 {
		o.BytesPerSecond = rate
	}
	return o
}

func (b *Broker) openController(context.Context) error {
	b.controller = controller.New(controller.Options{
		BrokerID:      b.id,
		Config:        b.config.Load,
		Logger:        b.log,
		Eligible:      config.OttlaControllerEligible.Of(b.config.Load()),
		Dial:          func(ctx context.Context, to cluster.Broker) (controller.Conn, error) { return b.dialControl(ctx, to) },
		Metrics:       controller.NewMetrics(b.registry),
		AwaitMetadata: b.awaitMetadata,
	})
	b.controller.Start()
	return nil
}

func (b *Broker) closeController(ctx context.Context) {
	if !b.zk.Connected() { // it may be inside a read that only the end of the session ends
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, controllerCloseTimeout)
		defer cancel()
	}
	if err := b.controller.Close(ctx); err != nil {
		b.log.Warn().Err(err).Msg("the controller did not end in time")
	}
}

// controllerCloseTimeout bounds the wait for a controller that cannot reach ZooKeeper.
const controllerCloseTimeout = 2 * time.Second

// awaitMetadata tells the controller when the effect of a request can be seen by this broker's clients.
func (b *Broker) awaitMetadata(deadline time.Time, ready func(controller.Metadata) bool, done func(visible bool)) {
	var finished atomic.Bool
	finish := func(visible bool) {
		if finished.CompareAndSwap(false, true) {
			done(visible)
		}
	}
	timer := time.AfterFunc(time.Until(deadline), func() { finish(false) })
	b.metadata.wait(func(m *metadata) bool {
		if finished.Load() {
			return true // too late: asked no more
		}
		if !ready(metadataView{m}) {
			return false
		}
		timer.Stop()
		finish(true)
		return true
	})
}

// metadataView is the part of a snapshot that the controller looks at.
type metadataView struct{ m *metadata }

func (v metadataView) Leader(topic string, number int32) (cluster.BrokerID, bool) {
	p := v.m.partition(topic, number)
	if p == nil {
		return cluster.NoBroker, false
	}
	return p.leader, true
}

func (v metadataView) HasTopic(topic string) bool { return v.m.topics[topic] != nil }

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
		Hooks:                 &b.metrics.requests,
		Logger:                b.log,
	}
	for _, l := range listeners {
		on := wire.Listener{Name: l.Name, Protocol: l.Protocol, Addr: hostPort(l.Host, int32(l.Port)), Login: security.UsesSASL(l.Protocol)}
		on.Protected = len(listeners) > 1 && (l.Name == between || l.Name == b.controlListener())
		if security.UsesTLS(l.Protocol) {
			on.Wrap = func(nc net.Conn) (net.Conn, error) { return b.tls.Accept(l.Name, l.Protocol, nc) }
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
	if err := b.server.Close(ctx); err != nil {
		b.log.Warn().Err(err).Msg("some requests were cut off")
	}
}

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
		b.controlledShutdown(ctx)
	}
	b.server.StopAccepting()
}

// controlledShutdown asks the controller to move this broker's leaders, a bounded number of times. Source: KIP-380.
func (b *Broker) controlledShutdown(ctx context.Context) {
	s := b.config.Load()
	for try := range config.ControlledShutdownMaxRetries.Of(s) + 1 {
		if try > 0 {
			b.awaitSuccessor(ctx, config.ControlledShutdownRetryBackoffMs.Of(s))
		}
		left, err := b.askToLeave(ctx)
		switch {
		case err == nil && left == 0:
			b.log.Info().Msg("controlled shutdown: no leader is left here")
			return
		case err == nil && !b.othersAlive():
			b.log.Info().Int("partitions", left).Msg("controlled shutdown: no other broker is there to lead")
			return
		case err == nil:
			b.log.Warn().Int("partitions", left).Msg("controlled shutdown: some leaders could not be moved")
		default:
			b.log.Warn().Err(err).Msg("controlled shutdown was not answered")
		}
		if !b.zk.Connected() {
			b.log.Warn().Msg("controlled shutdown: zookeeper has become unreachable, nothing can be moved")
			return
		}
	}
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

func hostPort(host string, port int32) string { return net.JoinHostPort(host, strconv.Itoa(int(port))) }

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
