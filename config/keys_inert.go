package config

import (
	"time"
)

// Settings of what does not exist here: KRaft, tiered storage, share groups, Java plug-ins.
var (
	_            = inert(classKey("alter.config.policy.class.name", unset, ReadOnly, "Accepted without effect: a Java class."))
	_            = inert(boolKey("alter.config.policy.kraft.compatibility.enable", "false", ReadOnly, "Accepted without effect: a setting of the migration to KRaft."))
	_            = inert(boolKey("auto.include.jmx.reporter", "true", ReadOnly, javaMetrics))
	_            = inert(timeKey("broker.heartbeat.interval.ms", Int, "2000", time.Millisecond, anything[int64](), ReadOnly, kraft))
	_            = inert(timeKey("broker.session.timeout.ms", Int, "9000", time.Millisecond, anything[int64](), ReadOnly, kraft))
	_            = inert(classKey("client.quota.callback.class", unset, ReadOnly, "Accepted without effect: a setting of a Java plug-in."))
	_            = inert(textKey("controller.listener.names", unset, anything[string](), ReadOnly, kraft))
	_            = inert(timeKey("controller.quorum.append.linger.ms", Int, "25", time.Millisecond, anything[int64](), ReadOnly, kraft))
	_            = inert(listKey("controller.quorum.bootstrap.servers", "", anything[[]string](), ReadOnly, kraft))
	_            = inert(timeKey("controller.quorum.election.backoff.max.ms", Int, "1000", time.Millisecond, anything[int64](), ReadOnly, kraft))
	_            = inert(timeKey("controller.quorum.election.timeout.ms", Int, "1000", time.Millisecond, anything[int64](), ReadOnly, kraft))
	_            = inert(timeKey("controller.quorum.fetch.timeout.ms", Int, "2000", time.Millisecond, anything[int64](), ReadOnly, kraft))
	_            = inert(timeKey("controller.quorum.request.timeout.ms", Int, "2000", time.Millisecond, anything[int64](), ReadOnly, kraft))
	_            = inert(timeKey("controller.quorum.retry.backoff.ms", Int, "20", time.Millisecond, anything[int64](), ReadOnly, kraft))
	_            = inert(listKey("controller.quorum.voters", "", anything[[]string](), ReadOnly, kraft))
	_            = inert(classKey("create.topic.policy.class.name", unset, ReadOnly, "Accepted without effect: a Java class."))
	_            = inert(textKey("early.start.listeners", unset, anything[string](), ReadOnly, kraft))
	_            = inert(boolKey("eligible.leader.replicas.enable", "false", ReadOnly, kraft))
	_            = inert(timeKey("initial.broker.registration.timeout.ms", Int, "60000", time.Millisecond, anything[int64](), ReadOnly, kraft))
	_            = inert(timeKey("kafka.metrics.polling.interval.secs", Int, "10", time.Second, atLeast[int64](1), ReadOnly, javaMetrics))
	_            = inert(listKey("kafka.metrics.reporters", "", anything[[]string](), ReadOnly, javaMetrics))
	_            = inert(textKey("metadata.log.dir", unset, anything[string](), ReadOnly, kraft))
	_            = inert(longKey("metadata.log.max.record.bytes.between.snapshots", "20971520", atLeast[int64](1), ReadOnly, kraft))
	_            = inert(timeKey("metadata.log.max.snapshot.interval.ms", Long, "3600000", time.Millisecond, atLeast[int64](0), ReadOnly, kraft))
	_            = inert(intKey("metadata.log.segment.bytes", "1073741824", atLeast(12), ReadOnly, kraft))
	_            = inert(internal(intKey("metadata.log.segment.min.bytes", "8388608", atLeast(12), ReadOnly, kraft)))
	_            = inert(timeKey("metadata.log.segment.ms", Long, "604800000", time.Millisecond, anything[int64](), ReadOnly, kraft))
	_            = inert(timeKey("metadata.max.idle.interval.ms", Int, "500", time.Millisecond, atLeast[int64](0), ReadOnly, kraft))
	_            = inert(longKey("metadata.max.retention.bytes", "104857600", anything[int64](), ReadOnly, kraft))
	_            = inert(timeKey("metadata.max.retention.ms", Long, "604800000", time.Millisecond, anything[int64](), ReadOnly, kraft))
	_            = inert(listKey("metric.reporters", "", anything[[]string](), ClusterWide, javaMetrics))
	_            = inert(intKey("metrics.num.samples", "2", atLeast(1), ReadOnly, javaMetrics))
	_            = inert(textKey("metrics.recording.level", "INFO", anything[string](), ReadOnly, javaMetrics))
	_            = inert(timeKey("metrics.sample.window.ms", Long, "30000", time.Millisecond, atLeast[int64](1), ReadOnly, javaMetrics))
	ProcessRoles = inert(listKey("process.roles", "", eachOf("broker", "controller"), ReadOnly, "Must stay unset: Ottla is coordinated by ZooKeeper."))
	_            = inert(timeKey("remote.fetch.max.wait.ms", Int, "500", time.Millisecond, atLeast[int64](1), ClusterWide, tiered))
	_            = inert(longKey("remote.log.index.file.cache.total.size.bytes", "1073741824", atLeast[int64](1), ClusterWide, tiered))
	_            = inert(intKey("remote.log.manager.copier.thread.pool.size", "-1", anything[int](), ReadOnly, tiered))
	_            = inert(longKey("remote.log.manager.copy.max.bytes.per.second", "9223372036854775807", atLeast[int64](1), ClusterWide, tiered))
	_            = inert(intKey("remote.log.manager.copy.quota.window.num", "11", atLeast(1), ReadOnly, tiered))
	_            = inert(timeKey("remote.log.manager.copy.quota.window.size.seconds", Int, "1", time.Second, atLeast[int64](1), ReadOnly, tiered))
	_            = inert(intKey("remote.log.manager.expiration.thread.pool.size", "-1", anything[int](), ReadOnly, tiered))
	_            = inert(longKey("remote.log.manager.fetch.max.bytes.per.second", "9223372036854775807", atLeast[int64](1), ClusterWide, tiered))
	_            = inert(intKey("remote.log.manager.fetch.quota.window.num", "11", atLeast(1), ReadOnly, tiered))
	_            = inert(timeKey("remote.log.manager.fetch.quota.window.size.seconds", Int, "1", time.Second, atLeast[int64](1), ReadOnly, tiered))
	_            = inert(timeKey("remote.log.manager.task.interval.ms", Long, "30000", time.Millisecond, atLeast[int64](1), ReadOnly, tiered))
	_            = inert(internal(timeKey("remote.log.manager.task.retry.backoff.max.ms", Long, "30000", time.Millisecond, atLeast[int64](1), ReadOnly, tiered)))
	_            = inert(internal(timeKey("remote.log.manager.task.retry.backoff.ms", Long, "500", time.Millisecond, atLeast[int64](1), ReadOnly, tiered)))
	_            = inert(internal(doubleKey("remote.log.manager.task.retry.jitter", "0.2", between[float64](0, 0.5), ReadOnly, tiered)))
	_            = inert(intKey("remote.log.manager.thread.pool.size", "10", atLeast(1), ReadOnly, tiered))
	_            = inert(intKey("remote.log.metadata.custom.metadata.max.bytes", "128", atLeast(0), ReadOnly, tiered))
	_            = inert(textKey("remote.log.metadata.manager.class.name", "org.apache.kafka.server.log.remote.metadata.storage.TopicBasedRemoteLogMetadataManager", notEmpty(), ReadOnly, tiered))
	_            = inert(textKey("remote.log.metadata.manager.class.path", unset, anything[string](), ReadOnly, tiered))
	_            = inert(textKey("remote.log.metadata.manager.impl.prefix", "rlmm.config.", notEmpty(), ReadOnly, tiered))
	_            = inert(textKey("remote.log.metadata.manager.listener.name", unset, notEmpty(), ReadOnly, tiered))
	_            = inert(intKey("remote.log.reader.max.pending.tasks", "100", atLeast(1), ReadOnly, tiered))
	_            = inert(intKey("remote.log.reader.threads", "10", atLeast(1), ReadOnly, tiered))
	_            = inert(textKey("remote.log.storage.manager.class.name", unset, notEmpty(), ReadOnly, tiered))
	_            = inert(textKey("remote.log.storage.manager.class.path", unset, anything[string](), ReadOnly, tiered))
	_            = inert(textKey("remote.log.storage.manager.impl.prefix", "rsm.config.", notEmpty(), ReadOnly, tiered))
	_            = inert(boolKey("remote.log.storage.system.enable", "false", ReadOnly, tiered))
	_            = inert(internal(timeKey("server.max.startup.time.ms", Long, "9223372036854775807", time.Millisecond, atLeast[int64](0), ReadOnly, kraft)))
	_            = inert(intKey("telemetry.max.bytes", "1048576", atLeast(1), ReadOnly, "Accepted without effect: clients' telemetry is not taken."))
	_            = inert(internal(boolKey("unstable.api.versions.enable", "false", ReadOnly, kraft)))
	_            = inert(internal(boolKey("unstable.feature.versions.enable", "false", ReadOnly, kraft)))
	_            = inert(boolKey("zookeeper.metadata.migration.enable", "false", ReadOnly, "Accepted without effect: a setting of the migration to KRaft."))
	_            = inert(internal(intKey("zookeeper.metadata.migration.min.batch.size", "200", atLeast(1), ReadOnly, "Accepted without effect: a setting of the migration to KRaft.")))
)

// Why these have no effect.
const (
	tiered           = "Accepted without effect: a setting of tiered storage."
	kraft            = "Accepted without effect: a setting of Kafka's KRaft mode."
	shareGroups      = "Accepted without effect: a setting of share groups."
	newGroups        = "Accepted without effect: a setting of the consumer group protocol of KIP-848."
	newCoordinator   = "Accepted without effect: a setting of Kafka's newer group coordinator."
	javaMetrics      = "Accepted without effect: a setting of Java metrics."
	kerberos         = "Accepted without effect: a setting of Kerberos."
	tokenLogin       = "Accepted without effect: a setting of SASL logins by token."
	delegationTokens = "Accepted without effect: a setting of delegation tokens."
)
