package integration

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
	"ottla/internal/freeport"
)

// TestScrapesDoNotDisturb scrapes a broker with 5,000 partitions every second, as Prometheus would, beside a producer; and tells the time
// of scrapes, and that of the producer's records without and with them.
func TestScrapesDoNotDisturb(t *testing.T) {
	if !harness.Long() {
		t.Skip("measures")
	}
	const topics, each = 50, 100
	admin := fmt.Sprintf("127.0.0.1:%d", freeport.Find(t, 1)[0])
	c := harness.Start(t, harness.Options{Properties: map[string]string{"ottla.admin.listener": admin, "log.cleaner.enable": "false"}})
	createTopic(t, c, "busy", 1, 1, nil)
	var names []string
	for i := range topics {
		names = append(names, fmt.Sprintf("a-topic-with-a-name-%d", i))
	}
	adm := kadm.NewClient(franz(t, c))
	adm.SetTimeoutMillis(60_000)
	if _, err := adm.CreateTopics(t.Context(), each, 1, nil, names...); err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 2*time.Minute, "all partitions are led", func() error {
		_, text, err := scrape(admin)
		if err == nil && !strings.Contains(text, fmt.Sprintf("kafka_server_replicamanager_leadercount %d\n", topics*each+1)) {
			err = fmt.Errorf("not yet")
		}
		return err
	})

	producer := franz(t, c, kgo.DefaultProduceTopic("busy"), kgo.ProducerLinger(0))
	latencies := func(d time.Duration) (all []time.Duration) {
		for end := time.Now().Add(d); time.Now().Before(end); {
			began := time.Now()
			if err := producer.ProduceSync(t.Context(), &kgo.Record{Value: make([]byte, 1000)}).FirstErr(); err != nil {
				t.Fatal(err)
			}
			all = append(all, time.Since(began))
			time.Sleep(time.Millisecond)
		}
		slices.Sort(all)
		return all
	}
	const span = 10 * time.Second
	latencies(2 * time.Second)
	without := latencies(span)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan []time.Duration)
	go func() {
		var took []time.Duration
		for ctx.Err() == nil {
			if d, _, err := scrape(admin); err == nil {
				took = append(took, d)
			}
			time.Sleep(time.Second)
		}
		done <- took
	}()
	with := latencies(span)
	cancel()
	scrapes := <-done
	slices.Sort(scrapes)
	_, text, err := scrape(admin)
	if err != nil {
		t.Fatal(err)
	}
	at := func(list []time.Duration, share float64) time.Duration {
		return list[min(len(list)-1, int(share*float64(len(list))))].Round(10 * time.Microsecond)
	}
	t.Logf("%d scrapes of %d series, %.1f MB: median %v, longest %v", len(scrapes), strings.Count(text, "\n"), float64(len(text))/1e6, at(scrapes, 0.5), at(scrapes, 1))
	t.Logf("a record to its acknowledgement: without scrapes median %v, p99 %v; with one a second median %v, p99 %v",
		at(without, 0.5), at(without, 0.99), at(with, 0.5), at(with, 0.99))
	if at(scrapes, 0.5) > 200*time.Millisecond {
		t.Errorf("a scrape takes %v", at(scrapes, 0.5))
	}
}

// scrape reads the metrics as Prometheus does, compressed.
func scrape(address string) (took time.Duration, text string, err error) {
	began := time.Now()
	req, err := http.NewRequest(http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Accept-Encoding", "gzip")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body := io.Reader(resp.Body)
	if resp.Header.Get("Content-Encoding") == "gzip" {
		if body, err = gzip.NewReader(body); err != nil {
			return 0, "", err
		}
	}
	b, err := io.ReadAll(body)
	return time.Since(began), string(b), err
}
