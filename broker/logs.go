package broker

import (
	"context"
	"math"
	"time"

	"ottla/config"
	"ottla/logstore"
	"ottla/zkcoord"
)

func (b *Broker) openLogs(context.Context) error {
	s := b.config.Load()
	if err := b.topicConfigs.loadAll(b.zk.Session()); err != nil {
		return err
	}
	logs, err := logstore.OpenManager(logstore.ManagerOptions{
		Dirs:      config.LogDirs.Of(s),
		BrokerID:  b.id,
		ClusterID: b.clusterID,
		Defaults: func(topic string) *logstore.Config {
			return logConfig(b.config.Load(), b.topicConfigs.orDefault(topic))
		},
		RecoveryThreads: config.NumRecoveryThreadsPerDataDir.Of(s),
		ReserveShare:    config.OttlaDiskReservePercent.Of(s) / 100,
		Logger:          b.log.With().Str("component", "logstore").Logger(),
		OnDirFailure:    b.dirFailed,
	})
	if err != nil {
		return err
	}
	b.logs = logs
	b.logs.SetDeleteDelay(config.LogSegmentDeleteDelayMs.Of(s))
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
		b.tellOfLogDirs()
	})
}

// tellOfLogDirs has the controller ask after all replicas here: which of them can serve has changed.
func (b *Broker) tellOfLogDirs() {
	if err := zkcoord.NotifyLogDirFailure(b.zk.Session(), b.id); err != nil {
		b.log.Error().Err(err).Msg("the controller could not be told that the state of a log directory has changed")
	}
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
		{"abort-timed-out-transactions", 0, of(config.TransactionAbortTimedOutTransactionCleanupIntervalMs), plain(b.transactions.AbortTimedOut)},
		{"expire-transactional-ids", 0, of(config.TransactionRemoveExpiredTransactionCleanupIntervalMs), plain(b.transactions.Expire)},
		{"expire-producers", 0, of(config.ProducerIDExpirationCheckIntervalMs), plain(b.logs.ExpireProducers)},
		{"read-certificates", 0, every(certificatePeriod), plain(func(time.Time) { b.tls.Poll() })},
		{"forget-quiet-clients", 0, every(time.Minute), plain(b.quotas.Forget)},
		{"tell-full-disk", 0, every(time.Second), plain(b.fullDisk.tell)},
		{"forget-recovered", 0, every(time.Second), func(_ context.Context, now time.Time) {
			if b.registered.isOpen() {
				b.recovered.forget(now)
			}
		}},
		{"close-idle-files", 0, every(time.Minute), plain(func(time.Time) { b.logs.CloseIdleFiles() })},
	}
	if config.LogCleanerEnable.Of(s) {
		b.cleaner = logstore.NewCleaner(logstore.CleanerOptions{
			Logs: b.logs.Logs, Settings: b.cleanerSettings, Logger: b.log.With().Str("component", "cleaner").Logger(),
		})
		jobs = append(jobs, job{"compaction", 0, of(config.LogCleanerBackoffMs), b.cleaner.Pass})
	}
	b.jobs = startJobs(jobs, b.log)
	return nil
}

// cleanerSettings are the cleaner's, as of now.
func (b *Broker) cleanerSettings() logstore.CleanerSettings {
	s := b.config.Load()
	c := logstore.CleanerSettings{
		Threads:     config.LogCleanerThreads.Of(s),
		DedupeBytes: config.LogCleanerDedupeBufferSize.Of(s),
		LoadFactor:  config.LogCleanerIOBufferLoadFactor.Of(s),
	}
	if rate := config.LogCleanerIOMaxBytesPerSecond.Of(s); rate < math.MaxFloat64 {
		c.BytesPerSecond = rate
	}
	return c
}
