package config

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func snapshot(t *testing.T, set ...string) *Snapshot {
	t.Helper()
	s, err := FromMap(minimal(set...))
	require.NoError(t, err)
	return s
}

func TestDynamicSettingsThatDoNotFitAreLeftOut(t *testing.T) {
	s := snapshot(t)
	d, warnings, err := s.WithDynamic(
		map[string]string{"log.cleaner.threads": "1000", "num.replica.fetchers": "3", "max.connections.per.ip": "0", "broker.rack": "x"},
		map[string]string{"log.retention.ms": "0", "log.segment.bytes": " 100 ", "ssl.key.password": "x"})
	require.NoError(t, err)
	require.Equal(t, 1, LogCleanerThreads.Of(d), "the dedupe buffer is too small for 1000")
	require.Equal(t, 3, NumReplicaFetchers.Of(d))
	require.Equal(t, 100, LogSegmentBytes.Of(d))
	require.EqualValues(t, 168*3600_000, LogRetentionMs.Of(d))
	var left []string
	for _, w := range warnings {
		left = append(left, w.Key)
	}
	require.ElementsMatch(t, []string{"log.cleaner.threads", "max.connections.per.ip", "broker.rack", "log.retention.ms", "ssl.key.password"}, left)
}

func TestClusterDefaultLiesBelowTheBrokersOwn(t *testing.T) {
	s := snapshot(t, "log.segment.bytes", "100", "min.insync.replicas", "3")
	d, _, err := s.WithDynamic(map[string]string{"log.segment.bytes": "200", "min.insync.replicas": "2"}, map[string]string{"log.segment.bytes": "300"})
	require.NoError(t, err)
	for name, want := range map[string]value{"log.segment.bytes": {"300", DynamicBroker}, "min.insync.replicas": {"2", DynamicDefaultBroker},
		"zookeeper.connect": {"localhost:2181", StaticFile}, "num.partitions": {"1", Default}} {
		text, source, ok := d.Value(name)
		require.True(t, ok)
		require.Equal(t, want, value{text, source}, name)
	}
	_, _, ok := d.Value("broker.rack")
	require.False(t, ok)
	topic, err := ResolveTopic(d, nil)
	require.NoError(t, err)
	require.Equal(t, 300, TopicSegmentBytes.Of(topic), "topics follow the broker")
}

func TestSettingsOfOneListenerAndMechanism(t *testing.T) {
	s := snapshot(t, "listeners", "INT://:1,EXT://:2", "listener.security.protocol.map", "INT:PLAINTEXT,EXT:SASL_SSL",
		"inter.broker.listener.name", "INT", "max.connections", "5", "listener.name.ext.max.connections", "7",
		"sasl.jaas.config", "a", "listener.name.ext.sasl.jaas.config", "b", "listener.name.ext.scram-sha-256.sasl.jaas.config", "c")
	require.Equal(t, 5, MaxConnections.For(s, "INT"))
	require.Equal(t, 7, MaxConnections.For(s, "EXT"))
	require.Equal(t, Password("a"), SASLJAASConfig.ForMechanism(s, "INT", "PLAIN"))
	require.Equal(t, Password("b"), SASLJAASConfig.ForMechanism(s, "EXT", "PLAIN"))
	require.Equal(t, Password("c"), SASLJAASConfig.ForMechanism(s, "EXT", "SCRAM-SHA-256"))
	for _, e := range DescribeBroker(s) {
		if e.Name == "listener.name.ext.scram-sha-256.sasl.jaas.config" {
			require.Nil(t, e.Value, "a secret, under any prefix")
			require.True(t, e.Sensitive)
		}
	}
	_, err := FromMap(minimal("listener.name.ext.max.connections", "many"))
	require.EqualError(t, err, "listener.name.ext.max.connections=many is not allowed: want a whole number, at least 0")
	_, err = FromMap(minimal("listener.name.ext.sasl.login.refresh.buffer.seconds", "hunter2"))
	require.Error(t, err)
}

func TestObsoleteAddressesBecomeListeners(t *testing.T) {
	for _, c := range []struct {
		set                   []string
		listeners, advertised string
		warnings              int
	}{
		{[]string{"host.name", "h", "port", "1234"}, "PLAINTEXT://h:1234", "", 1},
		{[]string{"port", "1234"}, "PLAINTEXT://:1234", "", 1},
		{[]string{"advertised.host.name", "::1", "advertised.port", "5"}, "PLAINTEXT://:9092", "PLAINTEXT://[::1]:5", 1},
		{[]string{"advertised.host.name", "h", "listeners", "PLAINTEXT://:7"}, "PLAINTEXT://:7", "PLAINTEXT://h:9092", 1},
		{[]string{"advertised.host.name", "h", "listeners", "PLAINTEXT://:7,SSL://:8"}, "PLAINTEXT://:7,SSL://:8", "", 1},
		{[]string{"host.name", "h", "listeners", "PLAINTEXT://:7"}, "PLAINTEXT://:7", "", 1},
		{[]string{"zookeeper.sync.time.ms", "2000", "leader.replication.throttled.rate", "1"}, "PLAINTEXT://:9092", "", 2},
	} {
		s, warnings, err := Load(nil, nil, minimal(c.set...))
		require.NoError(t, err, c.set)
		require.Len(t, warnings, c.warnings, "%v", c.set)
		listeners, _, _ := s.Value("listeners")
		advertised, _, _ := s.Value("advertised.listeners")
		require.Equal(t, c.listeners, listeners, c.set)
		require.Equal(t, c.advertised, advertised, c.set)
	}
}

func TestListenerForms(t *testing.T) {
	for text, want := range map[string]Listener{
		"plaintext://localhost:9092":       {"PLAINTEXT", "PLAINTEXT", "localhost", 9092},
		"PLAINTEXT://:0":                   {"PLAINTEXT", "PLAINTEXT", "", 0},
		"PLAINTEXT://[::1]:9092":           {"PLAINTEXT", "PLAINTEXT", "::1", 9092},
		"PLAINTEXT://::1:9092":             {"PLAINTEXT", "PLAINTEXT", "::1", 9092},
		"PLAINTEXT://[fe80::1%eth0]:65535": {"PLAINTEXT", "PLAINTEXT", "fe80::1%eth0", 65535},
		" PLAINTEXT://my_host:1 ":          {"PLAINTEXT", "PLAINTEXT", "my_host", 1},
	} {
		got, err := Listeners(snapshot(t, "listeners", text))
		require.NoError(t, err, text)
		require.Equal(t, []Listener{want}, got, text)
	}
	for _, bad := range []string{"PLAINTEXT://[::1:1", "PLAINTEXT://[h]:1", "PLAINTEXT://a b:1", "PLAINTEXT://u@h:1", "://h:1", "PLAINTEXT://h:", "PLAINTEXT://:1,"} {
		_, err := FromMap(minimal("listeners", bad))
		require.Error(t, err, bad)
	}
}

func TestTopicsOverrideBrokers(t *testing.T) {
	s := snapshot(t, "log.roll.hours", "5", "log.retention.ms", "-9", "log.flush.scheduler.interval.ms", "77")
	plain, err := ResolveTopic(s, nil)
	require.NoError(t, err)
	require.Equal(t, 5*time.Hour, TopicSegmentMs.Of(plain))
	require.EqualValues(t, -1, TopicRetentionMs.Of(plain), "every negative value is unlimited")
	require.Equal(t, 77*time.Millisecond, TopicFlushMs.Of(plain))
	own, err := ResolveTopic(s, map[string]string{"segment.ms": " 4 ", "cleanup.policy": "compact, delete", "strange": "x"})
	require.NoError(t, err)
	require.Equal(t, 4*time.Millisecond, TopicSegmentMs.Of(own))
	require.Equal(t, []string{"compact", "delete"}, TopicCleanupPolicy.Of(own))
	require.Equal(t, "x", own.Overrides()["strange"])
	_, err = ResolveTopic(s, map[string]string{"segment.ms": "0"})
	require.EqualError(t, err, "segment.ms=0 is not allowed: want a whole number, at least 1")
}

func TestOlderTimestampLimitCountsWhereTheNewerOnesAreNotSet(t *testing.T) {
	s := snapshot(t, "log.message.timestamp.difference.max.ms", "5")
	for _, c := range []struct {
		overrides     map[string]string
		before, after time.Duration
	}{
		{nil, 5, 5},
		{map[string]string{"message.timestamp.before.max.ms": "7"}, 7, 5},
		{map[string]string{"message.timestamp.difference.max.ms": "9"}, 9, 9},
	} {
		topic, err := ResolveTopic(s, c.overrides)
		require.NoError(t, err)
		require.Equal(t, c.before*time.Millisecond, TopicMessageTimestampBeforeMaxMs.Of(topic))
		require.Equal(t, c.after*time.Millisecond, TopicMessageTimestampAfterMaxMs.Of(topic))
	}
}

func TestTopicsThatDoNotFitAreRefused(t *testing.T) {
	s := snapshot(t)
	require.EqualError(t, ValidateTopic(s, map[string]string{"min.compaction.lag.ms": "5", "max.compaction.lag.ms": "4"}),
		"conflict topic config setting min.compaction.lag.ms (5) > max.compaction.lag.ms (4)")
	require.EqualError(t, ValidateTopic(s, map[string]string{"segment.bytes": "1", "zzz": "1"}), "Unknown topic config name: zzz")
	require.EqualError(t, ValidateTopic(s, map[string]string{"segment.bytes": "1", "retention.ms": "-9"}),
		"Invalid value 1 for configuration segment.bytes: Value must be at least 14")
}

func TestBrokerValuesThatNoTopicCanHaveNameTheBrokersKey(t *testing.T) {
	_, err := FromMap(minimal("log.flush.scheduler.interval.ms", "-1"))
	require.EqualError(t, err, "log.flush.scheduler.interval.ms=-1 is not allowed: want a whole number, at least 0")
}

func TestBrokerIDAndNodeIDStandForEachOther(t *testing.T) {
	require.Equal(t, 7, BrokerID.Of(snapshot(t, "node.id", "7")))
	require.Equal(t, 7, NodeID.Of(snapshot(t, "broker.id", "7")))
	_, err := FromMap(minimal("node.id", "7", "broker.id", "8"))
	require.ErrorContains(t, err, "node.id=7 is not allowed: want the same as broker.id (8)")
}

func TestCheckReportsAllThatDeservesALook(t *testing.T) {
	r, err := Check(nil, []string{"KAFKA_ZOOKEEPER_CONNECT=z", "KAFKA_NUM_PARTITIONS=0", "KAFKA_LOG_SEGMENT_BYTES=x", "KAFKA_NUM_IO_THREADS=9",
		"KAFKA_PASSWORD_ENCODER_SECRET=hunter2", "KAFKA_LOG_CLEANER_IO_BUFFER_SIZE=600000", "KAFKA_LOG_RETENTION_HOUR=1", "KAFKA_MIN_INSYNC_REPLICAS=2", "KAFKA_DEFAULT_REPLICATION_FACTOR=1"})
	require.NoError(t, err)
	keys := func(list []Finding) []string {
		var out []string
		for _, f := range list {
			out = append(out, f.Key)
			require.NotContains(t, f.Value+f.Note, "hunter2")
		}
		return out
	}
	require.ElementsMatch(t, []string{"num.partitions", "log.segment.bytes"}, keys(r.Errors))
	require.Equal(t, r.Error, r.Errors[0].Key+"="+r.Errors[0].Value+" is not allowed: "+r.Errors[0].Note)
	require.Equal(t, []string{"num.io.threads"}, keys(r.Inert))
	require.Equal(t, []string{"log.cleaner.io.buffer.size"}, keys(r.Planned))
	require.Contains(t, keys(r.Changed), "min.insync.replicas")
	require.NotContains(t, keys(r.Changed), "default.replication.factor", "it is the default")
	require.Equal(t, []string{"log.retention.hour"}, keys(r.Warnings))
}
