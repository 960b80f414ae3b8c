package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// TestJavaTransactions has Kafka's own transactional clients and tools at work: the copier of its system tests, which aborts at random,
// a read_committed console consumer, kafka-transactions, and kafka-dump-log on what is left in the files.
func TestJavaTransactions(t *testing.T) {
	k := harness.NeedKafka(t)
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), harness.Pick(1, 3)), Properties: harness.Pick(nil, transactional)})
	createTopic(t, c, "in", 2, harness.Pick(1, 3), nil)
	createTopic(t, c, "out", 2, harness.Pick(1, 3), nil)
	want := numbered(harness.Pick(400, 5000))
	produce(t, franz(t, c), "in", want)

	var copiers sync.WaitGroup
	for p := range 2 {
		_, ends := endOffsets(t, c, "in")
		end, _ := ends.Lookup("in", int32(p))
		copiers.Go(func() {
			cmd := k.Tool("transactional-copier", "--broker-list", c.BootstrapText(), "--input-topic", "in", "--output-topic", "out",
				"--input-partition", strconv.Itoa(p), "--transactional-id", fmt.Sprint("copier-", p), "--consumer-group", fmt.Sprint("copiers-", p),
				"--max-messages", strconv.FormatInt(end.Offset, 10), "--transaction-size", "50", "--enable-random-aborts", "--use-group-metadata")
			out, err := cmd.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "ShutdownComplete") {
				t.Errorf("copier %d: %v\n%.3000s", p, err, out)
			}
		})
	}
	copiers.Wait()
	got := strings.Split(strings.TrimSuffix(java(t, k.Tool("kafka-console-consumer", "--bootstrap-server", c.BootstrapText(), "--topic", "out",
		"--isolation-level", "read_committed", "--from-beginning", "--max-messages", strconv.Itoa(len(want)), "--timeout-ms", "60000"), ""), "\n"), "\n")
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	if got := readCommitted(t, c, "out"); len(got) != len(want) {
		t.Errorf("%d values are committed, want %d", len(got), len(want))
	}
	t.Run("tools", func(t *testing.T) { transactionTools(t, c) })
	for _, b := range c.Brokers {
		b.Terminate()
	}
	dumped := 0
	for _, b := range c.Brokers {
		logs, err := filepath.Glob(filepath.Join(b.DataDir, "__transaction_state-*", "*.log"))
		if err != nil {
			t.Fatal(err)
		}
		logs = slices.DeleteFunc(logs, func(path string) bool { info, err := os.Stat(path); return err != nil || info.Size() == 0 })
		out := java(t, k.Tool("kafka-dump-log", "--files", strings.Join(logs, ","), "--transaction-log-decoder", "--print-data-log"), "")
		dumped += len(regexp.MustCompile(`transactionalId=copier-\d.*state=CompleteCommit`).FindAllString(out, -1))
	}
	if dumped == 0 {
		t.Error("kafka-dump-log finds no committed transaction in the files")
	}
}

// transactionTools has kafka-transactions look at a transaction that stays open, and abort it.
func transactionTools(t *testing.T, c *harness.Cluster) {
	stuck := franz(t, c, kgo.TransactionalID("stuck"), kgo.DefaultProduceTopic("out"), kgo.TransactionTimeout(10*time.Minute), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := stuck.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	r, err := stuck.ProduceSync(t.Context(), &kgo.Record{Value: []byte("stuck"), Partition: 1}).First()
	if err != nil {
		t.Fatal(err)
	}
	tool := func(args ...string) string {
		return c.Tool(t, "kafka-transactions", append([]string{"--bootstrap-server", c.BootstrapText()}, args...)...)
	}
	if out := tool("list"); !regexp.MustCompile(`stuck\s+\d+\s+\d+\s+Ongoing`).MatchString(out) || !strings.Contains(out, "CompleteCommit") && !strings.Contains(out, "CompleteAbort") {
		t.Errorf("list: %s", out)
	}
	if out := tool("describe", "--transactional-id", "stuck"); !strings.Contains(out, "Ongoing") || !strings.Contains(out, "out-1") {
		t.Errorf("describe: %s", out)
	}
	offset := strconv.FormatInt(r.Offset, 10)
	if out := tool("describe-producers", "--topic", "out", "--partition", "1"); !strings.Contains(out, offset) {
		t.Errorf("describe-producers: %s", out)
	}
	tool("abort", "--topic", "out", "--partition", "1", "--start-offset", offset)
	if stable, high := listEnds(t, c, "out", 1), listEnds(t, c, "out", 0); stable[1] != high[1] {
		t.Errorf("after the abort the last stable offset is %d, the high watermark %d", stable[1], high[1])
	}
}
