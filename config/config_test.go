package config

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/stretchr/testify/require"
)

func minimal(extra ...string) map[string]string {
	m := map[string]string{"zookeeper.connect": "localhost:2181"}
	for i := 0; i < len(extra); i += 2 {
		m[extra[i]] = extra[i+1]
	}
	return m
}

func TestRetentionPrecedence(t *testing.T) {
	for _, c := range []struct {
		set  []string
		want int64
	}{
		{nil, 168 * 3600_000},
		{[]string{"log.retention.hours", "2"}, 7200_000},
		{[]string{"log.retention.hours", "2", "log.retention.minutes", "3"}, 180_000},
		{[]string{"log.retention.hours", "2", "log.retention.minutes", "3", "log.retention.ms", "4"}, 4},
		{[]string{"log.retention.hours", "-1"}, -1},
		{[]string{"log.retention.minutes", "-7"}, -1},
	} {
		s, err := FromMap(minimal(c.set...))
		require.NoError(t, err)
		require.Equal(t, c.want, LogRetentionMs.Of(s), "%v", c.set)
		topic, err := ResolveTopic(s, nil)
		require.NoError(t, err)
		require.Equal(t, c.want, TopicRetentionMs.Of(topic), "%v", c.set)
		topic, err = ResolveTopic(s, map[string]string{"retention.ms": "77"})
		require.NoError(t, err)
		require.EqualValues(t, 77, TopicRetentionMs.Of(topic))
	}
}

func TestRollPrecedence(t *testing.T) {
	s, err := FromMap(minimal("log.roll.hours", "5"))
	require.NoError(t, err)
	require.Equal(t, 5*time.Hour, LogRollMs.Of(s))
	s, err = FromMap(minimal("log.roll.hours", "5", "log.roll.ms", "9"))
	require.NoError(t, err)
	require.Equal(t, 9*time.Millisecond, LogRollMs.Of(s))
}

func TestBadValueNamesKeyValueAndWhatIsAllowed(t *testing.T) {
	_, err := FromMap(minimal("num.partitions", "zero"))
	require.EqualError(t, err, "num.partitions=zero is not allowed: want a whole number, at least 1")
	_, err = FromMap(minimal("compression.type", "rar"))
	require.ErrorContains(t, err, "one of uncompressed, zstd, lz4, snappy, gzip, producer")
	_, err = FromMap(map[string]string{})
	require.ErrorContains(t, err, "zookeeper.connect is not set")
}

func TestUnknownKeySuggestsTheNearest(t *testing.T) {
	_, warnings, err := Load(nil, nil, minimal("log.retention.hour", "3"))
	require.NoError(t, err)
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0].Message, "did you mean log.retention.hours?")
}

func TestEnvironmentIsMappedAsTheImagesMapIt(t *testing.T) {
	got := FromEnvironment([]string{
		"KAFKA_BROKER_ID=3", "KAFKA_LISTENER_NAME_SASL__PLAIN_X=1", "KAFKA_A___B=c", "KAFKA_HEAP_OPTS=-Xmx1G",
		"KAFKA_CFG_NUM_PARTITIONS=7", "PATH=/bin", "KAFKA_OPTS=x",
	})
	require.Empty(t, cmp.Diff(map[string]string{
		"broker.id": "3", "listener.name.sasl_plain.x": "1", "a-b": "c", "num.partitions": "7",
	}, got))
}

func TestListeners(t *testing.T) {
	s, err := FromMap(minimal("listeners", "PLAINTEXT://:9092,int://[::1]:9093",
		"listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,INT:SASL_SSL", "inter.broker.listener.name", "INT"))
	require.NoError(t, err)
	got, err := Listeners(s)
	require.NoError(t, err)
	require.Equal(t, []Listener{{"PLAINTEXT", "PLAINTEXT", "", 9092}, {"INT", "SASL_SSL", "::1", 9093}}, got)
	name, err := InterBrokerListener(s)
	require.NoError(t, err)
	require.Equal(t, "INT", name)

	for _, bad := range []string{"PLAINTEXT:9092", "X://:1", "PLAINTEXT://:1,PLAINTEXT://:2", "PLAINTEXT://:70000"} {
		_, err := FromMap(minimal("listeners", bad))
		require.Error(t, err, bad)
	}
}

func TestDynamicSettingsLieOverStaticOnes(t *testing.T) {
	s, err := FromMap(minimal("log.retention.ms", "1"))
	require.NoError(t, err)
	d, warnings, err := s.WithDynamic(map[string]string{"log.retention.ms": "2", "broker.id": "9"}, map[string]string{"log.retention.ms": "3"})
	require.NoError(t, err)
	require.Len(t, warnings, 1, "broker.id cannot change")
	require.EqualValues(t, 3, LogRetentionMs.Of(d))
	require.EqualValues(t, 1, LogRetentionMs.Of(s))
	back, _, err := d.WithDynamic(nil, nil)
	require.NoError(t, err)
	require.EqualValues(t, 1, LogRetentionMs.Of(back))
}

func TestPasswordsAreNotShown(t *testing.T) {
	s, err := FromMap(minimal("ssl.key.password", "hunter2"))
	require.NoError(t, err)
	for _, e := range DescribeBroker(s) {
		if e.Name == "ssl.key.password" {
			require.Nil(t, e.Value)
			require.True(t, e.Sensitive)
			require.Equal(t, StaticFile, e.Source)
		}
	}
	require.Equal(t, "***", Password("hunter2").String())
}

func TestUnknownTopicKeyIsRefused(t *testing.T) {
	s, err := FromMap(minimal())
	require.NoError(t, err)
	require.EqualError(t, ValidateTopic(s, map[string]string{"nope": "1"}), "Unknown topic config name: nope")
	require.Error(t, ValidateTopic(s, map[string]string{"segment.bytes": "3"}))
	require.NoError(t, ValidateTopic(s, map[string]string{"cleanup.policy": "compact,delete"}))
}
