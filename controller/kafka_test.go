//go:build kafka

package controller

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/zkcoord"
)

// TestKafka runs the stories testdata/kafka_*.txt against a real Kafka 3.9 and prints where it differs from what is written there.
// The cluster's brokers 1, 2, … must be up and without topics. Some of them may be ours: with one of ours as controller over brokers
// of Kafka the answers and states must be the same, too (states then carry that controller's epoch). Environment: KAFKA39 (the tool that kills and starts processes),
// KAFKA39_DIR (its directory), KAFKA39_BOOTSTRAP, KAFKA39_ZOOKEEPER.
func TestKafka(t *testing.T) {
	files, err := filepath.Glob("testdata/kafka_*.txt")
	require.NoError(t, err)
	client, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(os.Getenv("KAFKA39_BOOTSTRAP"), ",")...))
	require.NoError(t, err)
	defer client.Close()
	zk, err := zkcoord.Connect(t.Context(), zkcoord.Options{
		Connect: os.Getenv("KAFKA39_ZOOKEEPER"), SessionTimeout: 10 * time.Second, ConnectionTimeout: 10 * time.Second,
		Logger: zerolog.Nop(), Listener: deaf{},
	})
	require.NoError(t, err)
	defer zk.Close()
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			script, err := os.ReadFile(file)
			require.NoError(t, err)
			k := &kafka{t: t, client: client, w: &world{t: t}, zk: zk.Session(), firstEpoch: 0}
			got := k.script(script)
			require.NoError(t, os.WriteFile(filepath.Join(t.TempDir(), "got"), got, 0o644))
			t.Logf("\n%s", got)
			require.Equal(t, string(script), string(got))
		})
	}
}

type deaf struct{}

func (deaf) SessionLost(int64, error)           {}
func (deaf) SessionEstablished(zkcoord.Session) {}
func (deaf) ConnectionChanged(bool)             {}

type kafka struct {
	t          *testing.T
	client     *kgo.Client
	w          *world
	zk         zkcoord.Session
	firstEpoch int
}

func (k *kafka) script(script []byte) []byte {
	var out bytes.Buffer
	expected := false
	for sc := bufio.NewScanner(bytes.NewReader(script)); sc.Scan(); {
		line := sc.Text()
		switch {
		case strings.HasPrefix(line, "#"), line == "":
			expected = false
			out.WriteString(line + "\n")
		case line == "----":
			expected = true
		case expected:
		default:
			out.WriteString(line + "\n----\n" + k.do(strings.Fields(line)))
		}
	}
	return out.Bytes()
}

func (k *kafka) tool(args ...string) {
	out, err := exec.Command(os.Getenv("KAFKA39"), args...).CombinedOutput()
	require.NoError(k.t, err, "%s", out)
}

func (k *kafka) do(f []string) string {
	dir := os.Getenv("KAFKA39_DIR")
	switch f[0] {
	case "start":
		if len(f) > 2 {
			return "" // they are up
		}
		k.tool("start", dir, "broker-"+f[1])
		require.Eventually(k.t, func() bool {
			found, _, err := k.zk.Exists(zkcoord.BrokerIDsPath + "/" + f[1])
			return err == nil && found
		}, time.Minute, 50*time.Millisecond)
		time.Sleep(3 * time.Second)
		return ""
	case "kill":
		k.tool("kill", dir, "broker-"+f[1])
		require.Eventually(k.t, func() bool {
			found, _, err := k.zk.Exists(zkcoord.BrokerIDsPath + "/" + f[1])
			return err == nil && !found
		}, time.Minute, 50*time.Millisecond)
		time.Sleep(2 * time.Second)
		return ""
	case "stop":
		k.tool("term", dir, "broker-"+f[1])
		time.Sleep(time.Second)
		return "ok\n"
	case "wait":
		d, _ := time.ParseDuration(f[1])
		time.Sleep(d)
		return ""
	case "catch-up":
		time.Sleep(4 * time.Second)
		return ""
	case "state":
		time.Sleep(time.Second)
		return k.dump()
	case "config":
		return ""
	}
	return k.request(f)
}

func (k *kafka) dump() string { return dumpTree(k.t, k.zk) }

func (k *kafka) request(f []string) string {
	req := buildRequest(f)
	if req == nil {
		k.t.Fatalf("unknown command %q", f[0])
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	resp, err := k.client.Request(ctx, req)
	if err != nil {
		return fmt.Sprintf("error %v\n", err)
	}
	return answerText(resp)
}
