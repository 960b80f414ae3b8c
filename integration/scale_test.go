package integration

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"ottla/integration/harness"
)

// TestIdleConnectionsAndPartitionsAreCheap measures what 10,000 idle connections and 5,000 partitions cost one broker (in the
// short form fewer), and that it still serves.
func TestIdleConnectionsAndPartitionsAreCheap(t *testing.T) {
	connections, partitions := harness.Pick(500, 10_000), harness.Pick(200, 5000)
	raiseFileLimit(t, uint64(connections)+1000)
	c := harness.Start(t, harness.Options{Brokers: []harness.Kind{harness.Default()}})
	b := c.Broker(1)
	before := usage(t, b)

	for i := range connections {
		conn, err := net.DialTimeout("tcp", b.Address, 10*time.Second)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		t.Cleanup(func() { conn.Close() })
	}
	connected := usage(t, b)
	began := time.Now()
	const each = 100
	admin := kadm.NewClient(franz(t, c))
	for n := range partitions / each {
		topic := fmt.Sprintf("topic-%03d", n)
		if resp, err := admin.CreateTopic(t.Context(), each, 1, nil, topic); err != nil || resp.Err != nil {
			t.Fatalf("%s: %v %v", topic, err, resp.Err)
		}
	}
	for n := range partitions / each {
		c.WaitLed(fmt.Sprintf("topic-%03d", n), each, 1)
	}
	created := time.Since(began)
	with := usage(t, b)
	time.Sleep(harness.Pick(2*time.Second, 20*time.Second))
	idle := usage(t, b)

	produce(t, franz(t, c), "topic-000", numbered(1000))
	if got := len(readAll(t, c, "topic-000", 1000)); got != 1000 {
		t.Errorf("%d records, want 1000", got)
	}
	t.Logf("%d idle connections: %.1f KiB each", connections, float64(connected.memory-before.memory)/1024/float64(connections))
	t.Logf("%d partitions: created in %v, %.1f KiB each", partitions, created.Round(time.Millisecond), float64(with.memory-connected.memory)/1024/float64(partitions))
	t.Logf("idle: %.1f %% of one core", 100*(idle.cpu-with.cpu).Seconds()/harness.Pick(2.0, 20.0))
	began = time.Now()
	b.Kill()
	c.Restart(b)
	for n := range partitions / each {
		c.WaitLed(fmt.Sprintf("topic-%03d", n), each, 1)
	}
	t.Logf("restart after kill -9 until everything is led: %v", time.Since(began).Round(time.Millisecond))
}

type cost struct {
	memory int64 // resident bytes
	cpu    time.Duration
}

// usage reads what the process has used from /proc.
func usage(t testing.TB, b *harness.Broker) cost {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", b.PID()))
	if err != nil {
		t.Skip(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+2:]))
	number := func(i int) int64 {
		n, err := strconv.ParseInt(fields[i], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	const ticksPerSecond = 100 // USER_HZ on every Linux
	return cost{
		memory: number(21) * int64(os.Getpagesize()),
		cpu:    time.Duration(number(11)+number(12)) * time.Second / ticksPerSecond,
	}
}

func raiseFileLimit(t testing.TB, want uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < want {
		t.Skipf("open files are limited to %d, %d are needed", limit.Max, want)
	}
	limit.Cur = max(limit.Cur, want)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}
