// Package harness runs whole clusters for tests: real ZooKeeper ensembles, and brokers as processes (the program under test,
// Kafka 3.9, or both in one cluster) on free loopback ports. Each process can be killed, paused, stopped and started again.
//
// A test that must hold for Kafka too asks for Default() brokers: OTTLA_TEST_CLUSTER=kafka then runs it against Kafka 3.9, which
// tells whether the test itself is right.
package harness

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"ottla/integration/kafka39"
	"ottla/internal/freeport"
	"ottla/internal/testzk"
)

// Default is the kind of broker that a test runs against: OTTLA_TEST_CLUSTER, else Ottla.
func Default() Kind {
	if Kind(os.Getenv("OTTLA_TEST_CLUSTER")) == Kafka {
		return Kafka
	}
	return Ottla
}

// Long reports whether tests run in their long form (OTTLA_LONG=1).
func Long() bool { return os.Getenv("OTTLA_LONG") != "" }

// Pick is short in the short form of a test and long in its long one.
func Pick[T any](short, long T) T {
	if Long() {
		return long
	}
	return short
}

// Options describe a cluster. The zero value is one Default broker on one ZooKeeper server.
type Options struct {
	Brokers    []Kind            // in the order of their ids, from 1
	ZooKeepers int               // 1
	Ensemble   *testzk.Ensemble  // of another cluster, to be shared; nil = one of its own
	Chroot     string            // "" or "/some/path"
	Properties map[string]string // over those of properties(), for every broker
	Network    Network           // nil = the loopback
	Prepare    func(*Broker)     // called before a broker's first start, when its folder is there
	Program    string            // path of the program under test; "" = Binary()
	Production bool              // Kafka runs with the heap and collector of its own scripts, not with those of small tests
}

// Cluster is a running cluster. Its methods fail the test on error.
type Cluster struct {
	ZooKeeper *testzk.Ensemble
	Connect   string // value of zookeeper.connect
	Brokers   []*Broker

	t          testing.TB
	properties map[string]string
	network    Network
	prepare    func(*Broker)
	production bool
	program    string
	view       *View
}

// SessionTimeout is the ZooKeeper session timeout of the brokers, unless a test sets another one.
const SessionTimeout = 4 * time.Second

// Start runs a cluster and waits until every broker is registered and there is a controller. It skips the test where
// ZooKeeper or, if asked for, Kafka is missing. When the test fails, the processes' logs are kept.
func Start(t testing.TB, o Options) *Cluster {
	t.Helper()
	if testing.Short() {
		t.Skip("starts processes: not in the short form")
	}
	if len(o.Brokers) == 0 {
		o.Brokers = []Kind{Default()}
	}
	for _, kind := range o.Brokers {
		NeedKind(t, kind)
	}
	if o.Ensemble == nil {
		o.Ensemble = testzk.StartOn(t, max(1, o.ZooKeepers), o.Network)
	}
	c := &Cluster{t: t, ZooKeeper: o.Ensemble, properties: o.Properties, network: o.Network, prepare: o.Prepare, production: o.Production, program: o.Program}
	c.Connect = c.ZooKeeper.Connect + o.Chroot
	for _, kind := range o.Brokers {
		c.Add(kind, nil)
	}
	for _, b := range c.Brokers {
		b.start()
	}
	for _, b := range c.Brokers {
		c.WaitRegistered(b)
	}
	c.WaitController()
	return c
}

// Same is n kinds of one sort.
func Same(kind Kind, n int) []Kind {
	out := make([]Kind, n)
	for i := range out {
		out[i] = kind
	}
	return out
}

// NeedKind skips the test if such a broker cannot run here.
func NeedKind(t testing.TB, kind Kind) {
	t.Helper()
	if kind == Kafka {
		NeedKafka(t)
		return
	}
	if _, err := Binary(); err != nil {
		t.Fatal(err)
	}
}

// NeedKafka skips the test if Kafka 3.9 cannot run here.
func NeedKafka(t testing.TB) *kafka39.Kafka {
	t.Helper()
	k, err := kafka39.Find()
	if err != nil {
		t.Skip(err)
	}
	return k
}

// Add makes one more broker, with the next id; it is not started.
func (c *Cluster) Add(kind Kind, properties map[string]string) *Broker {
	c.t.Helper()
	id := len(c.Brokers) + 1
	dir := filepath.Join(c.t.TempDir(), fmt.Sprint("broker-", id))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	b := &Broker{ID: id, Kind: kind, Dir: dir, DataDir: filepath.Join(dir, "data"), t: c.t, network: c.network, production: c.production, program: c.program}
	if c.network != nil {
		b.Address = net.JoinHostPort(c.network.Address(b.Machine()), strconv.Itoa(brokerPort))
	} else {
		b.Address = loopback(freeport.Find(c.t, 1)[0])
	}
	all := c.base(b)
	maps.Copy(all, c.properties)
	maps.Copy(all, properties)
	b.SetProperties(all)
	c.Brokers = append(c.Brokers, b)
	if c.prepare != nil {
		c.prepare(b)
	}
	c.t.Cleanup(func() {
		b.end()
		c.keepLog(b)
	})
	return b
}

// base are the settings of a broker in tests: Kafka's defaults, except what makes small clusters quick.
func (c *Cluster) base(b *Broker) map[string]string {
	p := map[string]string{
		"broker.id":                                strconv.Itoa(b.ID),
		"listeners":                                "PLAINTEXT://" + b.Address,
		"zookeeper.connect":                        c.Connect,
		"zookeeper.session.timeout.ms":             strconv.FormatInt(SessionTimeout.Milliseconds(), 10),
		"log.dirs":                                 b.DataDir,
		"offsets.topic.replication.factor":         "1",
		"offsets.topic.num.partitions":             "4",
		"transaction.state.log.replication.factor": "1",
		"transaction.state.log.min.isr":            "1",
		"group.initial.rebalance.delay.ms":         "0",
	}
	if b.Kind == Ottla {
		p["ottla.zookeeper.tick.time.ms"] = strconv.FormatInt(testzk.TickTime.Milliseconds(), 10)
		p["ottla.zookeeper.sync.limit"] = strconv.Itoa(testzk.SyncLimit)
	}
	return p
}

// keepLog copies the log of a failed test to where a person finds it.
func (c *Cluster) keepLog(b *Broker) {
	if !c.t.Failed() {
		return
	}
	c.t.Logf("end of broker %d's log:\n%s", b.ID, b.LogTail())
	dir := filepath.Join("logs", strings.ReplaceAll(c.t.Name(), "/", "_"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return
	}
	text, _ := os.ReadFile(b.LogFile())
	_ = os.WriteFile(filepath.Join(dir, fmt.Sprintf("broker-%d.log", b.ID)), text, 0o644)
}

// Broker is the one with this id.
func (c *Cluster) Broker(id int) *Broker { return c.Brokers[id-1] }

// Bootstrap is the addresses of all brokers.
func (c *Cluster) Bootstrap() []string {
	var out []string
	for _, b := range c.Brokers {
		out = append(out, b.Address)
	}
	return out
}

// BootstrapText is Bootstrap as tools take it.
func (c *Cluster) BootstrapText() string { return strings.Join(c.Bootstrap(), ",") }

// Restart starts b again and waits until it is registered. A Kafka ends when it meets the registration of its earlier self, so
// that one is waited out first.
func (c *Cluster) Restart(b *Broker) {
	c.t.Helper()
	if b.Kind == Kafka {
		c.WaitGone(b)
	}
	b.start()
	c.WaitRegistered(b)
}

// Tool runs one of Kafka's tools and returns what it printed; the test fails if the tool does. It skips the test where Kafka
// is missing.
func (c *Cluster) Tool(t testing.TB, name string, args ...string) string {
	t.Helper()
	return c.ToolInput(t, "", name, args...)
}

// ToolInput is Tool with text on standard input.
func (c *Cluster) ToolInput(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	cmd := NeedKafka(t).Tool(name, args...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	timer := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s\n%s", name, strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// Eventually calls check until it returns nil. The test fails with its last error when patience is over.
func Eventually(t testing.TB, patience time.Duration, what string, check func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, patience, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}
