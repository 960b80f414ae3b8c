package integration

import (
	"encoding/binary"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// TestLogToolFindsWhatKafkasFinds damages copies of a partition's directory, each in one way, and has 'ottla log verify' and
// kafka-dump-log look at them: ours names every damage, at its file, and calls nothing a fault where there is none.
func TestLogToolFindsWhatKafkasFinds(t *testing.T) {
	program, err := harness.Binary()
	if err != nil {
		t.Skip(err)
	}
	c := harness.Start(t, harness.Options{Brokers: []harness.Kind{harness.Default()}})
	b := c.Broker(1)
	createTopic(t, c, "orders", 1, 1, map[string]string{"segment.bytes": "30000", "index.interval.bytes": "400"})
	client := franz(t, c, kgo.ProducerBatchMaxBytes(1000), kgo.ProducerBatchCompression(kgo.NoCompression()))
	var records []*kgo.Record
	for i, v := range numbered(3000) {
		records = append(records, &kgo.Record{Topic: "orders", Value: []byte(v), Timestamp: time.UnixMilli(1_700_000_000_000 + int64(i))})
	}
	if err := client.ProduceSync(t.Context(), records...).FirstErr(); err != nil {
		t.Fatal(err)
	}
	client.Close()
	b.Terminate()
	original := filepath.Join(b.DataDir, "orders-0")
	const first = "00000000000000000000"
	be := binary.BigEndian
	for _, d := range []struct {
		name, file string
		change     func(data []byte) []byte
		kafka      []string // arguments of kafka-dump-log that look at it, beside --files
	}{
		{"nothing", ".log", func(data []byte) []byte { return data }, []string{"--deep-iteration"}},
		{"a bit of a record", ".log", func(data []byte) []byte { data[150] ^= 1; return data }, []string{"--deep-iteration"}},
		{"a lost end", ".log", func(data []byte) []byte { return data[:len(data)-9] }, []string{"--deep-iteration"}},
		{"another offset in the index", ".index", func(data []byte) []byte { be.PutUint32(data, be.Uint32(data)-1); return data }, []string{"--verify-index-only"}},
		{"another position in the index", ".index", func(data []byte) []byte { be.PutUint32(data[4:], be.Uint32(data[12:])); return data }, []string{"--verify-index-only"}},
		{"another time in the time index", ".timeindex", func(data []byte) []byte { be.PutUint64(data, 5); return data }, []string{"--verify-index-only"}},
		{"times out of order", ".timeindex", func(data []byte) []byte { be.PutUint64(data[12:], 5); return data }, []string{"--verify-index-only"}},
	} {
		t.Run(d.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "orders-0")
			copyDir(t, original, dir)
			file := filepath.Join(dir, first+d.file)
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, d.change(data), 0o644); err != nil {
				t.Fatal(err)
			}
			out, _ := exec.Command(program, "log", "verify", "--json", dir).Output()
			var told []struct {
				Findings []struct{ Severity, Path, What string }
			}
			if err := json.Unmarshal(out, &told); err != nil || len(told) != 1 {
				t.Fatalf("%v: %.500s", err, out)
			}
			ours := ""
			for _, f := range told[0].Findings {
				if f.Severity == "fault" && f.Path == file {
					ours = f.What
				}
			}
			if damaged := d.name != "nothing"; damaged != (ours != "") {
				t.Errorf("ottla log verify: %+v", told[0].Findings)
			}
			if !harness.Long() {
				return // a Java process for each takes its time
			}
			theirs := faults(kafkaDumpLog(t, append(d.kafka, "--files", file)...))
			if theirs != "" && ours == "" {
				t.Errorf("kafka-dump-log: %s", theirs)
			}
			t.Logf("ottla: %q; kafka: %q", ours, strings.ReplaceAll(theirs, "\n", "; "))
		})
	}
}
