package config

import (
	"encoding/hex"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseReadsWhatJavaReads(t *testing.T) {
	for _, f := range rows(t, "java17_properties.tsv") {
		text, err := hex.DecodeString(f[0])
		require.NoError(t, err)
		got := "ERR"
		if m, err := Parse(text); err == nil {
			var pairs []string
			for _, k := range slices.Sorted(maps.Keys(m)) {
				pairs = append(pairs, hex.EncodeToString([]byte(k))+"="+hex.EncodeToString([]byte(m[k])))
			}
			got = "{" + strings.Join(pairs, ", ") + "}"
		}
		require.Equal(t, f[1], got, "%q", text)
	}
}

func TestParseStory(t *testing.T) {
	got, err := Parse([]byte("\uFEFF# a file\n! with two kinds of comments\n\nbroker.id=3\n" +
		"log.dirs = /a,\\\n           /b\n" +
		"listeners:PLAINTEXT://:9092\n  num.partitions 7\r\n" +
		"zookeeper.connect=a:1,b:2/chroot # no comment\rempty\n" +
		`ssl.key.password=p\u00e4ss\\word\=` + "\nwindows=C\\:\\\\kafka\nlast=${file:/x:y}"))
	require.NoError(t, err)
	require.Equal(t, map[string]string{
		"broker.id": "3", "log.dirs": "/a,/b", "listeners": "PLAINTEXT://:9092", "num.partitions": "7",
		"zookeeper.connect": "a:1,b:2/chroot # no comment", "empty": "", "ssl.key.password": `päss\word=`,
		"windows": `C:\kafka`, "last": "${file:/x:y}",
	}, got)
}

func TestParseTakesWhatIsNotUTF8ForLatin1(t *testing.T) {
	got, err := Parse([]byte("rack=M\xfcnchen"))
	require.NoError(t, err)
	require.Equal(t, "München", got["rack"])
}

func TestParseErrorNamesTheLine(t *testing.T) {
	_, err := Parse([]byte("a=1\\\n2\n\nb=\\u12"))
	require.EqualError(t, err, `line 4: \u needs four hexadecimal digits, not "12"`)
}

func TestLoadWarnsAboutAKeyThatComesTwice(t *testing.T) {
	name := filepath.Join(t.TempDir(), "server.properties")
	require.NoError(t, os.WriteFile(name, []byte("zookeeper.connect=z\nnum.partitions=1\n\nnum.partitions=2\n"), 0o600))
	s, warnings, err := Load([]string{name}, []string{"KAFKA_LOG_RETENTION_HOURS=9"}, map[string]string{"broker.id": "4"})
	require.NoError(t, err)
	require.Equal(t, 2, NumPartitions.Of(s))
	require.Equal(t, 9, LogRetentionHours.Of(s))
	require.Equal(t, 4, BrokerID.Of(s))
	require.Len(t, warnings, 1)
	require.Contains(t, warnings[0].Message, "line 4 wins over line 2")
	_, _, err = Load([]string{name + ".missing"}, nil, nil)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestSourcesWinInTheirOrder(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	first := file("1", "zookeeper.connect=z\nnum.partitions=1\nmin.insync.replicas=1\nlog.segment.bytes=100\nmessage.max.bytes=1\n")
	second := file("2", "num.partitions=2\nmin.insync.replicas=2\nlog.segment.bytes=200\n")
	environ := []string{"KAFKA_MIN_INSYNC_REPLICAS=3", "KAFKA_CFG_LOG_SEGMENT_BYTES=300"}
	s, _, err := Load([]string{first, second}, environ, map[string]string{"log.segment.bytes": "400"})
	require.NoError(t, err)
	require.Equal(t, []int{2, 3, 400, 1}, []int{NumPartitions.Of(s), MinInsyncReplicas.Of(s), LogSegmentBytes.Of(s), MessageMaxBytes.Of(s)})
}

func TestVariablesOfKubernetesLinksNameNoKey(t *testing.T) {
	require.Empty(t, FromEnvironment([]string{"KAFKA_PORT=tcp://10.0.0.1:9092", "KAFKA_SERVICE_HOST=10.0.0.1", "KAFKA_SERVICE_PORT=9092",
		"KAFKA_PORT_9092_TCP_ADDR=10.0.0.1", "KAFKA_=x", "KAFKA_CFG_=x", "NOEQUALS"}))
	require.Equal(t, map[string]string{"zookeeper.clientCnxnSocket": "x", "port": "9092"},
		FromEnvironment([]string{"KAFKA_ZOOKEEPER_CLIENTCNXNSOCKET=x", "KAFKA_PORT=9092"}))
}

// FuzzParse looks for texts that break the parser or the settings made of them, and for values that do not survive being written.
func FuzzParse(f *testing.F) {
	f.Add([]byte("a=b\n#c\nd : e\\\n f\n\\u0041=1\n"))
	f.Add([]byte("zookeeper.connect=z\nlog.dirs=/x,/y\r\nlisteners=PLAINTEXT://:9092,SSL://[::1]:0\nlog.retention.ms=-1"))
	f.Add([]byte("zookeeper.connect=z\nlistener.name.a.ssl.key.password=x\nadvertised.host.name=::1\nport=1\nnode.id=3"))
	f.Add([]byte("\\\n#\xff\\uD83D\\uDE00=\\uD83D"))
	f.Add([]byte("zookeeper.connect=z\nmax.connections.per.ip.overrides=[::1]:3,h:x\nlistener.security.protocol.map=A:SSL,:,B"))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := Parse(text)
		if err != nil {
			return
		}
		again, err := Parse([]byte(write(m)))
		require.NoError(t, err)
		require.Equal(t, m, again)
		s, _, err := Load(nil, nil, m)
		if err != nil {
			require.NotContains(t, strings.TrimSpace(err.Error()), "\n\n")
			return
		}
		for _, e := range DescribeBroker(s) {
			require.False(t, e.Sensitive && e.Value != nil, e.Name)
		}
		_, _, err = s.WithDynamic(m, m)
		require.NoError(t, err)
	})
}

// write is the opposite of Parse.
func write(m map[string]string) string {
	escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\r", `\r`, "\t", `\t`, "\f", `\f`, " ", `\ `, "=", `\=`, ":", `\:`, "#", `\#`, "!", `\!`, "\uFEFF", `\uFEFF`)
	var b strings.Builder
	for k, v := range m {
		b.WriteString(escape.Replace(k) + "=" + escape.Replace(v) + "\n")
	}
	return b.String()
}
