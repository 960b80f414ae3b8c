package integration

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
)

// TestBadFramesCostOnlyTheirConnection says to a broker what no client would say. The connection ends; the broker does not.
func TestBadFramesCostOnlyTheirConnection(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	b := c.Broker(1)
	metadata := harness.Frame(kmsg.NewPtrMetadataRequest(), 1)
	size := func(n int32, body []byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(n)), body...)
	}
	for name, frame := range map[string][]byte{
		"negative length":             size(-5, nil),
		"longer than allowed":         size(1<<30, make([]byte, 64)),
		"shorter than a header":       size(3, []byte{0, 3, 0}),
		"body cut short":              size(int32(len(metadata)-4-3), metadata[4:len(metadata)-3]),
		"unknown API":                 size(14, []byte{3, 232, 0, 0, 0, 0, 0, 1, 0, 2, 'i', 'd', 0, 0}),
		"unknown version of Metadata": size(14, []byte{0, 3, 0, 99, 0, 0, 0, 1, 0, 2, 'i', 'd', 0, 0}),
		"array of two billion":        size(14, []byte{0, 3, 0, 1, 0, 0, 0, 1, 255, 255, 127, 255, 255, 255}),
		"HTTP":                        []byte("GET / HTTP/1.1\r\nHost: kafka\r\n\r\n"),
		"a TLS hello":                 append([]byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}, make([]byte, 500)...),
	} {
		t.Run(name, func(t *testing.T) {
			conn := harness.Dial(t, b.Address)
			if _, err := conn.Write(frame); err != nil {
				t.Fatal(err)
			}
			if closed, sent := conn.Closed(5 * time.Second); !closed || sent > 0 {
				t.Errorf("closed %v, answered with %d bytes; want a closed connection and no answer", closed, sent)
			}
		})
	}
	t.Run("frame that never ends", func(t *testing.T) {
		conn := harness.Dial(t, b.Address)
		if _, err := conn.Write(metadata[:len(metadata)-1]); err != nil {
			t.Fatal(err)
		}
		conn.Close()
	})
	t.Run("unknown version of ApiVersions", func(t *testing.T) { // is answered in version 0, so that clients can step down
		conn := harness.Dial(t, b.Address)
		if _, err := conn.Write(size(14, []byte{0, 18, 0, 99, 0, 0, 0, 7, 0, 2, 'i', 'd', 0, 0})); err != nil {
			t.Fatal(err)
		}
		answer := make([]byte, 10)
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Read(answer); err != nil {
			t.Fatal(err)
		}
		if code := int16(binary.BigEndian.Uint16(answer[8:])); code != kerr.UnsupportedVersion.Code {
			t.Errorf("error %d, want UNSUPPORTED_VERSION", code)
		}
	})
	if !b.Running() {
		t.Fatalf("the broker ended\n%s", b.LogTail())
	}
	createTopic(t, c, "alive", 1, 1, nil)
	produce(t, franz(t, c), "alive", numbered(10))
	if strings.Contains(b.Log(), "panic") {
		t.Errorf("panicked:\n%s", b.LogTail())
	}
}

// TestBadBatchesAreRefused produces batches that are damaged in one place each. Nothing may be written.
func TestBadBatchesAreRefused(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	createTopic(t, c, "orders", 1, 1, map[string]string{"max.message.bytes": "20000"})
	conn := harness.Dial(t, c.Broker(1).Address)
	for _, row := range []struct {
		name   string
		damage func([]byte) []byte
		want   []*kerr.Error
	}{
		{"sound", func(b []byte) []byte { return b }, []*kerr.Error{nil}},
		{"wrong checksum", func(b []byte) []byte { b[17] ^= 1; return b }, []*kerr.Error{kerr.CorruptMessage}},
		{"byte of the records changed", func(b []byte) []byte { b[len(b)-1] ^= 1; return b }, []*kerr.Error{kerr.CorruptMessage}},
		{"unknown magic", func(b []byte) []byte { b[16] = 7; return b }, []*kerr.Error{kerr.CorruptMessage, kerr.InvalidRecord, kerr.UnsupportedForMessageFormat}},
		{"cut short", func(b []byte) []byte { return b[:len(b)-3] }, []*kerr.Error{kerr.CorruptMessage, kerr.InvalidRecord}},
		{"length beyond its end", func(b []byte) []byte { b[8]++; return b }, []*kerr.Error{kerr.CorruptMessage, kerr.InvalidRecord, kerr.RecordListTooLarge, kerr.MessageTooLarge}},
		{"more records than it holds", func(b []byte) []byte { b[60]++; b[26]++; return seal(b) }, []*kerr.Error{kerr.InvalidRecord, kerr.CorruptMessage}},
		{"nothing", func([]byte) []byte { return nil }, []*kerr.Error{kerr.CorruptMessage, kerr.InvalidRecord}},
		{"larger than the topic allows", func([]byte) []byte { return batch(make([]byte, 21000)) }, []*kerr.Error{kerr.MessageTooLarge}},
	} {
		got := kerr.TypedErrorForCode(produceRaw(conn, "orders", row.damage(batch([]byte("value")))))
		if !slices.Contains(row.want, got) {
			t.Errorf("%s: %v, want one of %v", row.name, got, row.want)
		}
	}
	if total, _ := endOffsets(t, c, "orders"); total != 1 {
		t.Errorf("%d records were written, want 1", total)
	}
	if got := values(readAll(t, c, "orders", 1)); got[0] != "value" {
		t.Errorf("got %q", got)
	}
}

// batch builds a batch of one record without key.
func batch(value []byte) []byte {
	record := []byte{0, 0, 0, 1} // attributes, timestamp delta, offset delta, null key (zigzag -1)
	record = binary.AppendVarint(record, int64(len(value)))
	record = append(record, value...)
	record = append(record, 0) // headers
	b := make([]byte, 61)
	b[16] = 2
	binary.BigEndian.PutUint64(b[27:], uint64(time.Now().UnixMilli()))
	binary.BigEndian.PutUint64(b[35:], uint64(time.Now().UnixMilli()))
	for i := 43; i < 57; i++ {
		b[i] = 255 // no producer
	}
	b[60] = 1
	b = binary.AppendVarint(b, int64(len(record)))
	b = append(b, record...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	return seal(b)
}

func seal(b []byte) []byte {
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func produceRaw(conn *harness.Conn, topic string, records []byte) int16 {
	p := kmsg.NewProduceRequestTopicPartition()
	p.Records = records
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.Partitions = topic, []kmsg.ProduceRequestTopicPartition{p}
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis, req.Topics = 9, -1, 5000, []kmsg.ProduceRequestTopic{rt}
	return harness.Ask[*kmsg.ProduceResponse](conn, req).Topics[0].Partitions[0].ErrorCode
}

// TestGarbageInASegmentLosesNothingBeforeIt damages the files of a stopped broker. It starts again, says what it found, and
// serves every record that lies before the damage.
func TestGarbageInASegmentLosesNothingBeforeIt(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	b := c.Broker(1)
	createTopic(t, c, "orders", 1, 1, map[string]string{"segment.bytes": "16384"})
	want := numbered(2000)
	produce(t, franz(t, c, kgo.ProducerBatchMaxBytes(4<<10), kgo.ProducerBatchCompression(kgo.NoCompression())), "orders", want)
	b.Kill() // so that the logs are checked at the start
	logs := glob(t, filepath.Join(b.DataDir, "orders-0", "*.log"))
	newest := logs[len(logs)-1]
	text, err := os.ReadFile(newest)
	if err != nil {
		t.Fatal(err)
	}
	copy(text[len(text)/2:], bytes.Repeat([]byte{0xa5}, 100))
	if err := os.WriteFile(newest, text, 0o644); err != nil {
		t.Fatal(err)
	}
	c.Restart(b)
	c.WaitLed("orders", 1, 1)
	total, _ := endOffsets(t, c, "orders")
	if total >= int64(len(want)) || total < int64(len(want))-500 {
		t.Fatalf("%d records of %d are left; the damage was in the last segment", total, len(want))
	}
	got := values(readAll(t, c, "orders", int(total)))
	if !slices.Equal(got, want[:total]) {
		t.Errorf("the records before the damage are not what was written")
	}
	produce(t, franz(t, c), "orders", numbered(10))
	log := b.Log()
	if !strings.Contains(log, "orders-0") || strings.Contains(log, "panic") {
		t.Errorf("the log does not say that orders-0 was repaired:\n%s", b.LogTail())
	}
}

// TestBrokerWithoutZooKeeperEndsWithOneLine starts a broker while the ensemble is down.
func TestBrokerWithoutZooKeeperEndsWithOneLine(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: []harness.Kind{harness.Ottla}, Properties: map[string]string{"zookeeper.connection.timeout.ms": "2000"}})
	b := c.Broker(1)
	createTopic(t, c, "orders", 1, 1, nil)
	produce(t, franz(t, c), "orders", numbered(10))
	b.Terminate()
	c.ZooKeeper.Kill(1)
	mark := len(b.Log())
	b.Start()
	if code := b.WaitEnd(20 * time.Second); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	said := b.Log()[mark:]
	if !strings.Contains(said, c.ZooKeeper.Connect) || !strings.Contains(strings.ToLower(said), "zookeeper") {
		t.Errorf("does not say which ZooKeeper it could not reach:\n%s", said)
	}
	c.ZooKeeper.Restart(1)
	c.Restart(b)
	c.WaitLed("orders", 1, 1)
	if got := len(readAll(t, c, "orders", 10)); got != 10 {
		t.Errorf("%d records", got)
	}
}

// TestBrokerServesOnAfterZooKeeperWasAway restarts the servers of the ensemble in turn, and then holds all of them still for
// longer than the sessions live.
func TestBrokerServesOnAfterZooKeeperWasAway(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 2), ZooKeepers: 3})
	createTopic(t, c, "orders", 2, 2, nil)
	load := startLoad(t, c, "orders")
	load.waitAcked(t, 200)
	for n := range c.ZooKeeper.Servers() { // one after the other, so the leader too
		c.ZooKeeper.Restart(n + 1)
		load.waitAcked(t, load.acked()+200)
	}
	c.ZooKeeper.PauseAll()
	time.Sleep(harness.SessionTimeout + 2*time.Second)
	c.ZooKeeper.ResumeAll()
	c.WaitLed("orders", 2, 2)
	load.waitAcked(t, load.acked()+200)
	load.stop()
	load.check(t, c)
}

// TestBadSettingsStopTheStartWithOneLine names key, value and what is allowed.
func TestBadSettingsStopTheStartWithOneLine(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: []harness.Kind{harness.Ottla}})
	for properties, want := range map[string]string{
		"num.partitions=many":                  "num.partitions",
		"log.segment.bytes=3":                  "log.segment.bytes",
		"listeners=PLAINTEXT://127.0.0.1:none": "listeners",
	} {
		key, value, _ := strings.Cut(properties, "=")
		b := c.Add(harness.Ottla, map[string]string{key: value})
		b.Start()
		if code := b.WaitEnd(10 * time.Second); code != 1 {
			t.Errorf("%s: exit code %d, want 1", properties, code)
		}
		said := strings.TrimSpace(b.Log())
		if !strings.Contains(said, want) || strings.Contains(said, "\n") {
			t.Errorf("%s: %q", properties, said)
		}
	}
	twin := c.Add(harness.Ottla, map[string]string{"broker.id": "1"})
	twin.Start()
	if code := twin.WaitEnd(60 * time.Second); code != 1 || !strings.Contains(twin.Log(), "1") {
		t.Errorf("a second broker 1: exit code %d\n%s", code, twin.LogTail())
	}
	t.Logf("a second broker 1 says: %s", strings.TrimSpace(twin.LogTail()))
}
