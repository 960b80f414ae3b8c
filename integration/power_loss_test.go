package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"ottla/integration/harness"
)

// TestL27WholeClusterLosesPower kills all brokers at once and cuts the tails of all logs but one, as if their machines had lost
// power before those were on disk. The cut ones come back first; the one that lost least must lead, so nothing that it has is lost.
func TestL27WholeClusterLosesPower(t *testing.T) {
	if harness.Default() != harness.Ottla {
		t.Skip("Kafka elects whoever comes first")
	}
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Ottla, 3), Properties: map[string]string{
		"min.insync.replicas": "2", "ottla.recovery.wait.ms": "60000",
	}})
	const partitions, records = 3, 600
	createTopic(t, c, "orders", partitions, 3, nil)
	produce(t, franz(t, c), "orders", numbered(records))
	_, ends := endOffsets(t, c, "orders")
	for _, b := range c.Brokers {
		b.Pause() // nobody sees the others go
	}
	for _, b := range c.Brokers {
		b.Kill()
	}
	// Each partition's whole log is on another broker.
	for p := range partitions {
		for _, b := range c.Brokers {
			if b.ID != p%len(c.Brokers)+1 {
				cutTail(t, b, "orders", p)
			}
		}
	}
	for _, b := range c.Brokers {
		file := filepath.Join(b.DataDir, "ottla-session")
		if err := os.WriteFile(file, []byte("0x1\nan-earlier-boot\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, b := range c.Brokers {
		c.WaitGone(b) // as after a real power loss
	}
	for p := range partitions {
		setState(t, c, "orders", p, []int{1, 2, 3})
	}
	for i, b := range c.Brokers {
		c.Restart(b)
		if i < len(c.Brokers)-1 {
			time.Sleep(300 * time.Millisecond)
		}
	}
	c.WaitLed("orders", partitions, 3)
	_, after := endOffsets(t, c, "orders")
	ends.Each(func(o kadm.ListedOffset) {
		if now, _ := after.Lookup("orders", o.Partition); now.Offset != o.Offset {
			t.Errorf("partition %d ends at %d, want %d", o.Partition, now.Offset, o.Offset)
		}
	})
	if got := len(readAll(t, c, "orders", records)); got != records {
		t.Errorf("%d records, want %d", got, records)
	}
	for p := range partitions {
		s, err := c.View().State("orders", p)
		if want := p%len(c.Brokers) + 1; err != nil || s.Leader != want {
			t.Errorf("partition %d: leader %d (%v), want %d, which lost nothing", p, s.Leader, err, want)
		}
	}
}

// cutTail takes the last third of a replica's only segment away.
func cutTail(t *testing.T, b *harness.Broker, topic string, partition int) {
	t.Helper()
	file := filepath.Join(b.DataDir, fmt.Sprintf("%s-%d", topic, partition), fmt.Sprintf("%020d.log", 0))
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(file, info.Size()*2/3); err != nil {
		t.Fatal(err)
	}
}

// setState puts a partition's state back to what it was when all lost power together: the order in which sessions end in a test
// leaves one member in it.
func setState(t *testing.T, c *harness.Cluster, topic string, partition int, isr []int) {
	t.Helper()
	s, err := c.View().State(topic, partition)
	if err != nil {
		t.Fatal(err)
	}
	path := fmt.Sprintf("/brokers/topics/%s/partitions/%d/state", topic, partition)
	text := fmt.Sprintf(`{"controller_epoch":%d,"leader":%d,"version":1,"leader_epoch":%d,"isr":[%d,%d,%d]}`, s.ControllerEpoch, isr[0], s.LeaderEpoch, isr[0], isr[1], isr[2])
	if err := c.View().Set(path, []byte(text)); err != nil {
		t.Fatal(err)
	}
}
