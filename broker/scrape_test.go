package broker

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/config"
	"ottla/internal/testzk"
)

// running is a broker of a test.
type running struct {
	*Broker
	stop func()
}

// runBroker starts a broker over an ensemble and waits until it serves. It stops with the test.
func runBroker(t *testing.T, connect string, id int, settings map[string]string) *running {
	t.Helper()
	values := map[string]string{
		"broker.id": strconv.Itoa(id), "listeners": "PLAINTEXT://127.0.0.1:0", "zookeeper.connect": connect, "log.dirs": t.TempDir(),
		"zookeeper.session.timeout.ms": "6000", "ottla.zookeeper.tick.time.ms": strconv.FormatInt(testzk.TickTime.Milliseconds(), 10),
		"ottla.zookeeper.sync.limit": strconv.Itoa(testzk.SyncLimit), "ottla.admin.listener": "127.0.0.1:0",
		"offsets.topic.num.partitions": "2", "offsets.topic.replication.factor": "1", "group.initial.rebalance.delay.ms": "0",
		"log.cleaner.dedupe.buffer.size": "2000000",
	}
	for k, v := range settings {
		values[k] = v
	}
	snapshot, err := config.FromMap(values)
	require.NoError(t, err)
	b := New(snapshot, zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel))
	b.SetVersion("test")
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	select {
	case <-b.Ready():
	case err := <-ended:
		t.Fatalf("the broker has not started: %v", err)
	case <-time.After(30 * time.Second):
		t.Fatal("the broker is not ready")
	}
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-ended:
			require.NoError(t, err)
		case <-time.After(60 * time.Second):
			t.Error("the broker does not stop")
		}
	}
	t.Cleanup(stop)
	return &running{b, stop}
}

func (r *running) get(t *testing.T, path string) (status int, body string) {
	t.Helper()
	resp, err := http.Get("http://" + r.AdminAddr() + path)
	require.NoError(t, err)
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(b)
}

// series are the samples of a scrape, by name and labels as written; declared the names that have a type.
func parseScrape(t *testing.T, text string) (series map[string]float64, declared map[string]bool) {
	t.Helper()
	series, declared = map[string]float64{}, map[string]bool{}
	last := ""
	for line := range strings.SplitSeq(strings.TrimSpace(text), "\n") {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ = strings.Cut(name, " ")
			require.False(t, declared[name], "%s is declared twice", name)
			declared[name], last = true, name
			continue
		}
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[at+1:], 64)
		require.NoError(t, err, line)
		_, twice := series[line[:at]]
		require.False(t, twice, "%s is told twice", line[:at])
		series[line[:at]] = v
		name, _, _ := strings.Cut(line[:at], "{")
		require.Contains(t, []string{last, last + "_bucket", last + "_sum", last + "_count"}, name, "below another metric's heading")
	}
	return series, declared
}

func (r *running) scrape(t *testing.T) (map[string]float64, map[string]bool) {
	t.Helper()
	status, text := r.get(t, "/metrics")
	require.Equal(t, http.StatusOK, status)
	return parseScrape(t, text)
}

func (r *running) client(t *testing.T, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(r.Addr("PLAINTEXT"))}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

// knownNames reads testdata/metrics.txt: true for those that need a series.
func knownNames(t *testing.T) map[string]bool {
	t.Helper()
	f, err := os.Open("testdata/metrics.txt")
	require.NoError(t, err)
	defer f.Close()
	out := map[string]bool{}
	for s := bufio.NewScanner(f); s.Scan(); {
		name, mark, _ := strings.Cut(strings.TrimSpace(s.Text()), " ")
		if name != "" && !strings.HasPrefix(name, "#") {
			out[name] = mark != "*"
		}
	}
	return out
}

// TestMetricsOfARunningCluster holds what two brokers tell against what was done with them, and against the list of names.
func TestMetricsOfARunningCluster(t *testing.T) {
	zk := testzk.Start(t, 1)
	one := runBroker(t, zk.Connect, 1, nil)
	two := runBroker(t, zk.Connect, 2, nil)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	cl := one.client(t, kgo.ConsumerGroup("readers"), kgo.ConsumeTopics("orders"), kgo.FetchMaxWait(100*time.Millisecond), kgo.DisableAutoCommit(), kgo.ProducerBatchCompression(kgo.NoCompression()))
	adm := kadm.NewClient(cl)
	_, err := adm.CreateTopic(ctx, 4, 2, nil, "orders")
	require.NoError(t, err)
	const records, size = 100, 1000
	for i := range records {
		r := &kgo.Record{Topic: "orders", Key: []byte(strconv.Itoa(i)), Value: make([]byte, size)}
		require.NoError(t, cl.ProduceSync(ctx, r).FirstErr())
	}
	got := 0
	for got < records {
		fetches := cl.PollFetches(ctx)
		require.NoError(t, fetches.Err())
		got += fetches.NumRecords()
	}
	require.NoError(t, cl.CommitUncommittedOffsets(ctx))
	for range 10 {
		require.NoError(t, cl.ProduceSync(ctx, &kgo.Record{Topic: "orders", Value: []byte("more")}).FirstErr())
	}
	time.Sleep(lagSpan / 50)

	sum := func(name, labels string) float64 {
		total := 0.0
		for _, b := range []*running{one, two} {
			series, _ := b.scrape(t)
			for s, v := range series {
				n, l, _ := strings.Cut(s, "{")
				if n == name && strings.Contains(l, labels) {
					total += v
				}
			}
		}
		return total
	}
	of := `topic="orders"`
	require.EqualValues(t, records+10, sum("kafka_server_brokertopicmetrics_messagesin_total", of))
	require.EqualValues(t, records+10, sum("kafka_topic_partition_current_offset", of))
	require.GreaterOrEqual(t, sum("kafka_server_brokertopicmetrics_bytesin_total", of), float64(records*size))
	require.GreaterOrEqual(t, sum("kafka_server_brokertopicmetrics_bytesout_total", of), float64(records*size))
	require.GreaterOrEqual(t, sum("kafka_server_brokertopicmetrics_replicationbytesout_total", of), float64(records*size))
	require.Equal(t, sum("kafka_server_brokertopicmetrics_replicationbytesout_total", of), sum("kafka_server_brokertopicmetrics_replicationbytesin_total", of))
	require.EqualValues(t, records+10, sum("kafka_server_brokertopicmetrics_totalproducerequests_total", of))
	require.EqualValues(t, records, sum("kafka_consumergroup_current_offset_sum", `consumergroup="readers"`))
	require.EqualValues(t, 1, sum("kafka_consumergroup_members", `consumergroup="readers"`))
	require.Eventually(t, func() bool { return sum("kafka_consumergroup_lag_sum", `consumergroup="readers"`) == 10 }, 2*lagSpan, lagSpan/5)
	require.EqualValues(t, 1, sum("kafka_controller_kafkacontroller_activecontrollercount", ""))
	require.EqualValues(t, 2, sum("kafka_brokers", ""))
	require.EqualValues(t, 4, sum("kafka_topic_partitions", of))
	require.EqualValues(t, 8, sum("kafka_topic_partition_in_sync_replica", of))
	require.EqualValues(t, 8, sum("kafka_cluster_partition_replicascount", of))
	require.EqualValues(t, records+10, sum("kafka_network_requestmetrics_requests_total", `request="Produce"`))
	require.EqualValues(t, records+10, sum("kafka_network_requestmetrics_errors_total", `request="Produce",error="NONE"`))
	require.EqualValues(t, 6, sum("ottla_zookeeper_session_state", ""))
	require.Positive(t, sum("kafka_network_requestmetrics_totaltimems", `request="FetchFollower",quantile="0.99"`))
	require.Positive(t, sum("kafka_network_requestmetrics_remotetimems", `request="Produce",quantile="0.50"`))

	declared, told := map[string]bool{}, map[string]bool{}
	for _, b := range []*running{one, two} {
		series, names := b.scrape(t)
		for n := range names {
			declared[n] = true
		}
		for s := range series {
			n, _, _ := strings.Cut(s, "{")
			told[n] = true
		}
	}
	for name, needed := range knownNames(t) {
		require.True(t, declared[name], "%s is not served", name)
		require.True(t, !needed || told[name], "%s has no series", name)
	}
	require.True(t, told["kafka_server_fetcherlagmetrics_consumerlag"])
	_, textOne := one.get(t, "/metrics")
	_, textTwo := two.get(t, "/metrics")
	documented(t, textOne, textTwo)

	// Health.
	for _, path := range []string{"/livez", "/readyz", "/readyz?isr=full"} {
		status, text := one.get(t, path)
		require.Equal(t, http.StatusOK, status, text)
	}
	status, text := one.get(t, "/v1/broker-state")
	require.Equal(t, http.StatusOK, status)
	var state struct{ BrokerState int }
	require.NoError(t, json.Unmarshal([]byte(text), &state))
	require.Equal(t, stateRunning, state.BrokerState)
	status, _ = one.get(t, "/v1/ready")
	require.Equal(t, http.StatusNoContent, status)

	two.stop()
	require.Eventually(t, func() bool {
		series, _ := one.scrape(t)
		return series["kafka_server_replicamanager_underreplicatedpartitions"] == 4
	}, 10*time.Second, 50*time.Millisecond)
	status, text = one.get(t, "/readyz?isr=full")
	require.Equal(t, http.StatusServiceUnavailable, status, text)
	require.Contains(t, text, "FAIL in-sync replicas: 4 of")
	status, _ = one.get(t, "/readyz")
	require.Equal(t, http.StatusOK, status)
}

// TestLagOfOffsetsInZooKeeper: what old consumers and offsets.storage=zookeeper keep below /consumers is told under its own name.
func TestLagOfOffsetsInZooKeeper(t *testing.T) {
	zk := testzk.Start(t, 1)
	b := runBroker(t, zk.Connect, 1, map[string]string{"offsets.storage": "zookeeper"})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	cl := b.client(t)
	adm := kadm.NewClient(cl)
	_, err := adm.CreateTopic(ctx, 1, 1, nil, "orders")
	require.NoError(t, err)
	for range 10 {
		require.NoError(t, cl.ProduceSync(ctx, &kgo.Record{Topic: "orders", Value: []byte("v")}).FirstErr())
	}
	offsets := kadm.Offsets{}
	offsets.AddOffset("orders", 0, 4, -1)
	require.NoError(t, adm.CommitAllOffsets(ctx, "readers", offsets))
	const labels = `{consumergroup="readers",topic="orders",partition="0"}`
	require.Eventually(t, func() bool {
		series, _ := b.scrape(t)
		return series["kafka_consumergroupzookeeper_lag_zookeeper"+labels] == 6 && series["kafka_consumergroup_current_offset"+labels] == 4
	}, 3*lagSpan, lagSpan/10)
}

// TestScrapeOfThousandsOfPartitions measures a whole scrape of a broker that leads 5,000 partitions; the budget is 200 ms.
func TestScrapeOfThousandsOfPartitions(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 5,000 partitions")
	}
	const topics, each = 50, 100
	zk := testzk.Start(t, 1)
	b := runBroker(t, zk.Connect, 1, map[string]string{"log.cleaner.enable": "false"})
	adm := kadm.NewClient(b.client(t))
	adm.SetTimeoutMillis(60_000)
	var names []string
	for i := range topics {
		names = append(names, fmt.Sprintf("a-topic-with-a-name-%d", i))
	}
	_, err := adm.CreateTopics(t.Context(), each, 1, nil, names...)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		series, _ := b.scrape(t)
		return series["kafka_server_replicamanager_leadercount"] == topics*each
	}, time.Minute, 200*time.Millisecond)
	for range 3 {
		began := time.Now()
		_, text := b.get(t, "/metrics") // compressed on the way, as for Prometheus
		t.Logf("%d series, %.1f MB in %v", strings.Count(text, "\n"), float64(len(text))/1e6, time.Since(began).Round(time.Millisecond))
	}
}

// TestReadinessFollowsTheSession cuts the broker off its ensemble.
func TestReadinessFollowsTheSession(t *testing.T) {
	zk := testzk.Start(t, 1)
	b := runBroker(t, zk.Connect, 1, nil)
	zk.Kill(1)
	require.Eventually(t, func() bool {
		status, text := b.get(t, "/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(text, "FAIL zookeeper session")
	}, 20*time.Second, 100*time.Millisecond)
	status, text := b.get(t, "/livez")
	require.Equal(t, http.StatusOK, status, "a broker without ZooKeeper lives: %s", text)
	series, _ := b.scrape(t)
	require.LessOrEqual(t, series["ottla_zookeeper_session_state"], 1.0)
	require.Zero(t, series["ottla_zookeeper_lease_remaining_seconds"])
	require.Positive(t, series["kafka_server_sessionexpirelistener_zookeeperdisconnects_total"])
	zk.Restart(1)
	require.Eventually(t, func() bool {
		status, _ := b.get(t, "/readyz")
		return status == http.StatusOK
	}, 30*time.Second, 100*time.Millisecond)
}

var update = flag.Bool("update", false, "write docs/metrics.md anew")

// helpLine and typeLine tell what a scrape says of a metric.
var (
	helpLine = regexp.MustCompile("(?m)^# HELP ([a-z0-9_]+) (.*)$")
	typeLine = regexp.MustCompile("(?m)^# TYPE ([a-z0-9_]+) (.*)$")
)

// documented holds docs/metrics.md against what was served: it has a line for every metric, as the metric explains itself.
func documented(t *testing.T, scrapes ...string) {
	t.Helper()
	help, kind := map[string]string{}, map[string]string{}
	for _, text := range scrapes {
		for _, m := range helpLine.FindAllStringSubmatch(text, -1) {
			help[m[1]] = m[2]
		}
		for _, m := range typeLine.FindAllStringSubmatch(text, -1) {
			kind[m[1]] = m[2]
		}
	}
	var want strings.Builder
	rest := slices.Sorted(maps.Keys(kind))
	for _, c := range []struct {
		title string
		of    *regexp.Regexp
	}{
		{"Replication, partitions and logs", regexp.MustCompile("^kafka_(server_replica|server_fetcherlag|cluster_partition|log_)")},
		{"Topics", regexp.MustCompile("^kafka_server_brokertopicmetrics_")},
		{"Requests and connections", regexp.MustCompile("^kafka_(network_|server_kafkarequest|server_socket|server_fetchsession)")},
		{"Controller", regexp.MustCompile("^(kafka|ottla)_controller_")},
		{"Transactions", regexp.MustCompile("^(kafka_(coordinator_transaction|server_transaction)|ottla_transaction)")},
		{"Consumer groups", regexp.MustCompile("^(kafka_(coordinator|consumergroup)|ottla_(group|lag))")},
		{"The cluster, as kafka_exporter tells it", regexp.MustCompile("^kafka_(brokers|broker_info|topic_partition)")},
		{"ZooKeeper and the broker itself", regexp.MustCompile("^kafka_server_")},
		{"Ottla's own", regexp.MustCompile("^ottla_")},
	} {
		fmt.Fprintf(&want, "\n## %s\n\n| Metric | Type | Meaning |\n|---|---|---|\n", c.title)
		rest = slices.DeleteFunc(rest, func(name string) bool {
			if !c.of.MatchString(name) {
				return false
			}
			require.NotEmpty(t, help[name], name)
			fmt.Fprintf(&want, "| `%s` | %s | %s |\n", name, kind[name], help[name])
			return true
		})
	}
	for _, name := range rest {
		require.Regexp(t, "^(go|process)_", name, "a metric without a chapter")
	}
	const file, mark = "../docs/metrics.md", "<!-- The rest is written by 'go test ./broker -run Metrics -update'. -->\n"
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	before, after, found := strings.Cut(string(have), mark)
	require.True(t, found, "docs/metrics.md has lost the line %s", mark)
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(before+mark+want.String()), 0o644))
		return
	}
	require.Equal(t, want.String(), after, "docs/metrics.md does not say what the broker serves; run: go test ./broker -run Metrics -update")
}
