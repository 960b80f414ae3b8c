package config

import "time"

// Ottla's own settings, and those of Kafka that stand in no table of Kafka's.
var (
	OttlaAdminListener       = textKey("ottla.admin.listener", "", anything[string](), ReadOnly, "Address host:port where HTTP serves /metrics, /livez and /readyz, without login: keep it on the loopback or on a private network. Off when empty.")
	OttlaControllerEligible  = boolKey("ottla.controller.eligible", "true", ReadOnly, "Whether this broker may become controller; false keeps it a follower of other controllers, for mixed clusters.")
	OttlaDiskReservePercent  = doubleKey("ottla.disk.reserve.percent", "0", between[float64](0, 50), ReadOnly, "Share of a log directory's disk that clients' writes leave free: below it they are refused with KAFKA_STORAGE_ERROR, which producers retry, and reads, replication and deletion go on.")
	OttlaLeadShortenedLog    = later(boolKey("ottla.lead.shortened.log", "false", ClusterWide, "Allow a replica to lead although its log is missing or ends before what was known to be committed. An operator's decision to accept the loss; set it back afterwards."))
	OttlaMetricsLagSeries    = intKey("ottla.metrics.lag.series", "10000", atLeast(0), ClusterWide, "How many partitions of consumer groups a broker tells /metrics one by one; sums by topic are told in any case.")
	OttlaMetricsPartitions   = boolKey("ottla.metrics.partitions", "true", ClusterWide, "Whether /metrics tells of partitions one by one; what alerts need is told in sums too.")
	OttlaRecoveryWaitMs      = timeKey("ottla.recovery.wait.ms", Int, "30000", time.Millisecond, atLeast[int64](0), ClusterWide, "When all members of an in-sync set stopped uncleanly, how long the controller waits for the last of them before it elects the one that lost least among those that are back.")
	OttlaStrictAcks          = boolKey("ottla.strict.acks", "false", ClusterWide, "Refuse acks=all writes too while the session with ZooKeeper is not proven to live. The high watermark alone already keeps a replaced leader from acknowledging.")
	OttlaZookeeperDigest     = passwordKey("ottla.zookeeper.digest", unset, ReadOnly, "USER:PASSWORD that this broker shows the ensemble by ZooKeeper's digest scheme; with zookeeper.set.acl the same on every broker.")
	OttlaZookeeperSyncLimit  = intKey("ottla.zookeeper.sync.limit", "5", atLeast(1), ReadOnly, "The ensemble's syncLimit in ticks; the session lease is computed from it.")
	OttlaZookeeperTickTimeMs = timeKey("ottla.zookeeper.tick.time.ms", Int, "2000", time.Millisecond, atLeast[int64](1), ReadOnly, "The ensemble's tickTime; the session lease is computed from it.")

	// The authorizer's own keys. Kafka's table lacks them, so DescribeConfigs tells them as unknown, when they are set.
	AllowEveryoneIfNoACLFound = foreign(boolKey("allow.everyone.if.no.acl.found", "false", ReadOnly, "Allow everything on resources without ACLs."))
	SuperUsers                = foreign(textKey("super.users", "", anything[string](), ReadOnly, "Principals that may do everything, as User:name with semicolons between."))

	// Throttles, set with kafka-configs or kafka-reassign-partitions.
	LeaderReplicationThrottledRate         = dynamicOnly(longKey("leader.replication.throttled.rate", "9223372036854775807", atLeast[int64](0), ClusterWide, "Bytes a second that leaders send to throttled replicas."))
	FollowerReplicationThrottledRate       = dynamicOnly(longKey("follower.replication.throttled.rate", "9223372036854775807", atLeast[int64](0), ClusterWide, "Bytes a second that throttled replicas fetch."))
	ReplicaAlterLogDirsIOMaxBytesPerSecond = dynamicOnly(longKey("replica.alter.log.dirs.io.max.bytes.per.second", "9223372036854775807", atLeast[int64](0), ClusterWide, "Bytes a second that moves between log directories copy."))
)
