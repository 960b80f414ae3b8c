package config

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestImagesVariablesFillGaps(t *testing.T) {
	files := map[string]string{"/etc/kafka/secrets/store.cred": "store-secret\n"}
	read := func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, errors.New("no such file")
	}
	from := func(given map[string]string, environ ...string) map[string]string {
		t.Helper()
		out, err := fromImages(environ, given, read)
		require.NoError(t, err)
		return out
	}
	require.Empty(t, from(nil, "KAFKA_BROKER_ID=1", "PATH=/bin"))
	require.Equal(t, map[string]string{"listeners": "IN://0.0.0.0:19092,OUT://0.0.0.0:29092"},
		from(nil, "KAFKA_ADVERTISED_LISTENERS=IN://broker:19092,OUT://localhost:29092"))
	require.Equal(t, "1", from(nil, "KAFKA_CFG_BROKER_ID=1")["offsets.topic.replication.factor"])
	require.Empty(t, from(map[string]string{"listeners": "IN://:1"}, "KAFKA_ADVERTISED_LISTENERS=IN://broker:19092"))
	require.Equal(t, map[string]string{"ssl.keystore.location": "/etc/kafka/secrets/broker.jks", "ssl.keystore.password": "store-secret"},
		from(nil, "KAFKA_SSL_KEYSTORE_FILENAME=broker.jks", "KAFKA_SSL_KEYSTORE_CREDENTIALS=store.cred"))
	require.Equal(t, "/opt/bitnami/kafka/config/certs/kafka.keystore.jks", from(nil, "KAFKA_TLS_TYPE=JKS")["ssl.keystore.location"])
	require.Equal(t, "true", from(nil, "KAFKA_ZOOKEEPER_PROTOCOL=SSL")["zookeeper.ssl.client.enable"])
	require.Equal(t, `org.apache.kafka.common.security.plain.PlainLoginModule required username="b" password="q\"" user_a="1" user_b="q\""; `+
		`org.apache.kafka.common.security.scram.ScramLoginModule required username="b" password="q\"";`,
		from(nil, "KAFKA_CLIENT_USERS=a", "KAFKA_CLIENT_PASSWORDS=1", "KAFKA_INTER_BROKER_USER=b", `KAFKA_INTER_BROKER_PASSWORD=q"`)["sasl.jaas.config"])

	for _, bad := range [][]string{
		{"KAFKA_SSL_KEY_CREDENTIALS=missing"}, {"KAFKA_ZOOKEEPER_PROTOCOL=SASL"}, {"KAFKA_CLIENT_USERS=a,b", "KAFKA_CLIENT_PASSWORDS=1"},
	} {
		_, err := fromImages(bad, nil, read)
		require.Error(t, err, bad)
	}
}
