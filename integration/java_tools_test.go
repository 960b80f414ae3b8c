package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ottla/integration/harness"
	"ottla/internal/freeport"
)

// TestKafkaToolsMeasure runs Kafka's performance tools, of 3.9 and of 4.x.
func TestKafkaToolsMeasure(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3)})
	for _, release := range javaReleases {
		t.Run(release.name, func(t *testing.T) {
			k, err := release.find()
			if err != nil {
				t.Skip(err)
			}
			topic := "measured-" + release.name
			createTopic(t, c, topic, 3, 3, nil)
			const records = "20000"
			out := java(t, k.Tool("kafka-producer-perf-test", "--topic", topic, "--num-records", records, "--record-size", "200", "--throughput", "-1",
				"--producer-props", "bootstrap.servers="+c.BootstrapText()), "")
			if !strings.Contains(out, records+" records sent") {
				t.Errorf("producer: %s", out)
			}
			t.Log(lastLine(out))
			out = java(t, k.Tool("kafka-consumer-perf-test", "--bootstrap-server", c.BootstrapText(), "--topic", topic, "--messages", records, "--timeout", "30000"), "")
			if !strings.Contains(out, ", "+records+", ") {
				t.Errorf("consumer: %s", out)
			}
			t.Log(lastLine(out))
		})
	}
}

// TestConnectCopiesAFile has Connect's file source and sink copy a file through a topic.
func TestConnectCopiesAFile(t *testing.T) {
	k := harness.NeedKafka(t)
	c := harness.Start(t, harness.Options{})
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return file
	}
	want := lines(numbered(500))
	write("from", want)
	worker := write("worker.properties", fmt.Sprintf(`bootstrap.servers=%s
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
offset.storage.file.filename=%s
offset.flush.interval.ms=500
plugin.discovery=service_load
plugin.path=%s
listeners=http://127.0.0.1:%d
`, c.BootstrapText(), filepath.Join(dir, "offsets"), k.Plugins(), freeport.Find(t, 1)[0]))
	source := write("source.properties", "name=source\nconnector.class=org.apache.kafka.connect.file.FileStreamSourceConnector\ntasks.max=1\nfile="+from+"\ntopic=copied\n")
	sink := write("sink.properties", "name=sink\nconnector.class=org.apache.kafka.connect.file.FileStreamSinkConnector\ntasks.max=1\nfile="+to+"\ntopics=copied\n")
	connect := startVerifiable(t, k.Tool("connect-standalone", worker, source, sink))
	harness.Eventually(t, 90*time.Second, "the copy is whole", func() error {
		got, err := os.ReadFile(to)
		if err == nil && string(got) != want {
			err = fmt.Errorf("%d of %d bytes", len(got), len(want))
		}
		return err
	})
	connect.stop()
	connect.wait(t, time.Minute)
}

func lastLine(text string) string {
	text = strings.TrimSpace(text)
	return text[strings.LastIndexByte(text, '\n')+1:]
}
