package integration

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"ottla/integration/harness"
)

const (
	smallDiskBytes   = 64 << 20
	diskReserveShare = 25 // percent
)

// smallDisk gives a broker a disk of its own. It skips the test where none can be mounted.
func smallDisk(t *testing.T) func(*harness.Broker) {
	return func(b *harness.Broker) {
		if err := os.MkdirAll(b.DataDir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := unix.Mount("tmpfs", b.DataDir, "tmpfs", 0, fmt.Sprintf("size=%d", smallDiskBytes)); err != nil {
			t.Skipf("mount a small disk: %v (needs root)", err)
		}
		t.Cleanup(func() { _ = unix.Unmount(b.DataDir, unix.MNT_DETACH) })
	}
}

func freeBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// fillTopic produces 100 kB records one by one until one is refused; it returns how many were acknowledged and why it ended.
func fillTopic(t *testing.T, client *kgo.Client, topic string) (acked int, err error) {
	t.Helper()
	value := []byte(strings.Repeat("ottla", 20_000))
	for acked < 2*smallDiskBytes/len(value) {
		if err := client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: value}).FirstErr(); err != nil {
			return acked, err
		}
		acked++
	}
	return acked, nil
}

// bluntProducer reports the first refusal instead of trying again.
func bluntProducer(t *testing.T, c *harness.Cluster) *kgo.Client {
	return franz(t, c, kgo.RecordRetries(0), kgo.DisableIdempotentWrite(), kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.RecordPartitioner(kgo.ManualPartitioner()))
}

func fullDiskCluster(t *testing.T, reserve int) *harness.Cluster {
	if harness.Default() != harness.Ottla {
		t.Skip("Kafka takes the directory offline")
	}
	return harness.Start(t, harness.Options{Prepare: smallDisk(t), Properties: map[string]string{
		"ottla.disk.reserve.percent": fmt.Sprint(reserve), "log.retention.check.interval.ms": "300", "log.initial.task.delay.ms": "300",
		"log.segment.delete.delay.ms": "100", "log.segment.bytes": "1048576", "log.index.size.max.bytes": "65536",
	}})
}

// TestReserveOfTheDiskIsKept fills a disk up to its reserve: producers are refused, consumers and commits are served, and
// deletion makes the producers go on, without anybody's help.
func TestReserveOfTheDiskIsKept(t *testing.T) {
	c := fullDiskCluster(t, diskReserveShare)
	createTopic(t, c, "big", 1, 1, nil)
	b := c.Broker(1)
	producer := bluntProducer(t, c)
	acked, err := fillTopic(t, producer, "big")
	if !errors.Is(err, kerr.KafkaStorageError) {
		t.Fatalf("after %d records: %v, want %v", acked, err, kerr.KafkaStorageError)
	}
	if free, reserve := freeBytes(t, b.DataDir), int64(smallDiskBytes*diskReserveShare/100); free > reserve || free < reserve-2<<20 {
		t.Errorf("%d bytes are free, want the reserve of %d", free, reserve)
	}
	if got := len(readAll(t, c, "big", acked)); got != acked {
		t.Errorf("%d records, want %d", got, acked)
	}
	admin := kadm.NewClient(franz(t, c))
	commit := kadm.Offsets{}
	commit.AddOffset("big", 0, 7, -1)
	if err := admin.CommitAllOffsets(t.Context(), "group", commit); err != nil {
		t.Errorf("commit: %v", err)
	}

	// A patient producer waits until there is space.
	waiting := make(chan error, 1)
	patient := franz(t, c)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		waiting <- patient.ProduceSync(ctx, &kgo.Record{Topic: "big", Value: []byte("at last")}).FirstErr()
	}()
	select {
	case err := <-waiting:
		t.Fatalf("produced although the disk is full: %v", err)
	case <-time.After(1500 * time.Millisecond):
	}
	delete := kadm.Offsets{}
	delete.AddOffset("big", 0, int64(acked/2), -1)
	if _, err := admin.DeleteRecords(t.Context(), delete); err != nil {
		t.Fatal(err)
	}
	if err := <-waiting; err != nil {
		t.Errorf("after records were deleted: %v", err)
	}
	if again, err := fillTopic(t, producer, "big"); again < acked/3 || !errors.Is(err, kerr.KafkaStorageError) {
		t.Errorf("%d more records, then %v", again, err)
	}
	if log := b.Log(); !strings.Contains(log, "disk is nearly full") || !strings.Contains(log, "disk has space again") || strings.Contains(log, "ERROR") {
		t.Errorf("the broker's log: %s", b.LogTail())
	}
}

// TestFullDiskLosesNothingAndHealsItself leaves no byte free, with no reserve, as another program would: the broker stays up,
// tears nothing and goes on when there is space. Killed meanwhile, it starts on the full disk and serves what was acknowledged.
func TestFullDiskLosesNothingAndHealsItself(t *testing.T) {
	c := fullDiskCluster(t, 0)
	createTopic(t, c, "big", 1, 1, nil)
	b := c.Broker(1)
	acked, err := fillTopic(t, bluntProducer(t, c), "big")
	if !errors.Is(err, kerr.KafkaStorageError) {
		t.Fatalf("after %d records: %v, want %v", acked, err, kerr.KafkaStorageError)
	}
	fillDisk(t, b.DataDir)
	served := func(when string) {
		t.Helper()
		for i, r := range readAll(t, c, "big", acked) {
			if r.Offset != int64(i) {
				t.Fatalf("%s: record %d has offset %d", when, i, r.Offset)
			}
		}
		if err := bluntProducer(t, c).ProduceSync(t.Context(), &kgo.Record{Topic: "big", Value: []byte(strings.Repeat("x", 8192))}).FirstErr(); !errors.Is(err, kerr.KafkaStorageError) {
			t.Errorf("%s: produce: %v, want %v", when, err, kerr.KafkaStorageError)
		}
	}
	served("full")
	b.Kill()
	c.Restart(b)
	c.WaitLed("big", 1, 1)
	served("started on the full disk")
	if err := os.Remove(filepath.Join(b.DataDir, ballastFile)); err != nil {
		t.Fatal(err)
	}
	if err := franz(t, c).ProduceSync(t.Context(), &kgo.Record{Topic: "big", Value: []byte("at last")}).FirstErr(); err != nil {
		t.Fatalf("with space again: %v", err)
	}
	if got := readAll(t, c, "big", acked+1); string(got[acked].Value) != "at last" {
		t.Errorf("record %d is %.20q", acked, got[acked].Value)
	}
	if log := b.Log(); strings.Contains(log, "taken offline") {
		t.Errorf("the broker's log: %s", b.LogTail())
	}
}

const ballastFile = ".ballast"

// fillDisk takes what room is left, to the last block.
func fillDisk(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, ballastFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size, at := int64(64<<20), int64(0); size >= 4096; {
		if err := unix.Fallocate(int(f.Fd()), 0, at, size); err != nil {
			size /= 2
			continue
		}
		at += size
	}
}

// TestLeaderWithAFullDiskHandsOver: where other members of the in-sync set have room, producers hardly notice a full disk.
func TestLeaderWithAFullDiskHandsOver(t *testing.T) {
	if harness.Default() != harness.Ottla {
		t.Skip("Kafka takes the directory offline")
	}
	small := smallDisk(t)
	c := harness.Start(t, harness.Options{
		Brokers: harness.Same(harness.Ottla, 3),
		Prepare: func(b *harness.Broker) {
			if b.ID == 1 {
				small(b)
				addProperty(t, b, "ottla.disk.reserve.percent", fmt.Sprint(diskReserveShare)) // the others' disk is the machine's
			}
		},
		Properties: map[string]string{"log.segment.bytes": "1048576", "log.index.size.max.bytes": "65536"},
	})
	createTopic(t, c, "big", 1, 3, map[string]string{"min.insync.replicas": "2"})
	becomeLeader(t, c, c.Broker(1), "big", 1)
	// Half the disk beyond the reserve, so that its broker can go on following.
	producer := franz(t, c, kgo.ProducerBatchCompression(kgo.NoCompression()))
	value := []byte(strings.Repeat("ottla", 20_000))
	for written := 0; written < smallDiskBytes*(100-diskReserveShare/2)/100; written += len(value) {
		if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: "big", Value: value}).FirstErr(); err != nil {
			t.Fatalf("after %d bytes: %v", written, err)
		}
	}
	s, err := c.View().State("big", 0)
	if err != nil || s.Leader == 1 || len(s.ISR) != 3 {
		t.Errorf("leader and in-sync set %+v (%v), want another leader than 1, and three members", s, err)
	}
}

// addProperty adds a line to a broker's file before it starts.
func addProperty(t *testing.T, b *harness.Broker, key, value string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(b.Dir, "server.properties"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := fmt.Fprintf(f, "%s=%s\n", key, value); err != nil {
		t.Fatal(err)
	}
}
