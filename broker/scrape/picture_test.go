package scrape

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"

	"ottla/broker/partition"
)

// large is a broker with many partitions, a third of which it leads.
func large(partitions int) *Picture {
	p := healthy()
	p.Partitions = nil
	p.Cluster = &ClusterPicture{Topics: map[string]int{}}
	for i := range partitions {
		topic := fmt.Sprintf("a-topic-with-a-name-%d", i/10)
		q := PictureOf(topic, int32(i%10), partition.Look{Replicas: 3, ISR: 3, MinISR: 2, Size: 1 << 30, LogEnd: 1234567890, HighWatermark: 1234567890})
		q.Leads, q.Follows = i%3 == 0, i%3 != 0
		p.Partitions = append(p.Partitions, q)
		if i%10 == 0 {
			p.Topics = append(p.Topics, partition.TrafficCounts{Topic: topic, BytesIn: 1 << 40})
			p.Cluster.Topics[topic] = 10
		}
	}
	for i := range 10 {
		g := GroupPicture{Name: fmt.Sprintf(`a "group" \ %d`, i), State: "Stable", Members: 3}
		for j := range 100 {
			g.Offsets = append(g.Offsets, OffsetPicture{Topic: "a-topic", Number: int32(j), Offset: 17, Lag: int64(j - 1)})
		}
		p.Groups = append(p.Groups, g)
	}
	p.LagSeries = 500
	return p
}

// TestPicturesAreProperText reads a picture with the parser of Prometheus' own library.
func TestPicturesAreProperText(t *testing.T) {
	for name, p := range map[string]*Picture{"a new broker": {}, "a large one": large(100)} {
		t.Run(name, func(t *testing.T) {
			var text bytes.Buffer
			require.NoError(t, p.Write(&text))
			parser := expfmt.NewTextParser(model.UTF8Validation)
			_, err := parser.TextToMetricFamilies(bytes.NewReader(text.Bytes()))
			require.NoError(t, err)
			require.NotContains(t, text.String(), "NaN")
		})
	}
}

func TestFamiliesAreNamedAsPrometheusAdvises(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Families() {
		require.Regexp(t, regexp.MustCompile("^(kafka|ottla)_[a-z0-9_]+$"), f.Name)
		require.False(t, seen[f.Name], f.Name)
		seen[f.Name] = true
		require.Regexp(t, `^[^\\\n|]+\.?$`, f.Help, f.Name)
		if f.Kind == counter {
			require.Regexp(t, "(_total|_count|_sum)$", f.Name)
		} else {
			require.False(t, strings.HasSuffix(f.Name, "_total"), f.Name)
		}
	}
}

func TestSeriesCanBeHeldBack(t *testing.T) {
	write := func(p *Picture) string {
		var text bytes.Buffer
		require.NoError(t, p.Write(&text))
		return text.String()
	}
	p := large(100)
	text := write(p)
	require.Equal(t, 500, strings.Count(text, "\nkafka_consumergroup_current_offset{"))
	require.Contains(t, text, "\nottla_lag_series_left_out 500\n")
	require.Equal(t, 10, strings.Count(text, "\nkafka_consumergroup_lag_sum{"), "sums are told in any case")
	require.Contains(t, text, `kafka_consumergroup_lag_sum{consumergroup="a \"group\" \\ 9",topic="a-topic"} 4851`)
	require.Equal(t, 100, strings.Count(text, "\nkafka_log_log_size{"))

	p.PerPartition = false
	text = write(p)
	require.NotContains(t, text, "\nkafka_log_log_size{")
	require.NotContains(t, text, "\nkafka_topic_partition_current_offset{")
	require.Contains(t, text, "\nkafka_server_replicamanager_partitioncount 100\n")
	require.Contains(t, text, "\nkafka_server_replicamanager_leadercount 34\n")
}

// TestScrapeOfThousandsOfPartitions measures what the text of 5,000 partitions costs; the budget of a whole scrape is 200 ms.
func TestScrapeOfThousandsOfPartitions(t *testing.T) {
	p := large(5000)
	var text bytes.Buffer
	require.NoError(t, p.Write(&text))
	text.Reset()
	began := time.Now()
	require.NoError(t, p.Write(&text))
	t.Logf("%d series, %.1f MB, %v", bytes.Count(text.Bytes(), []byte("\n"))-2*len(Families()), float64(text.Len())/1e6, time.Since(began).Round(time.Millisecond))
}
