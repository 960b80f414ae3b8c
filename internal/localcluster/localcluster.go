// Package localcluster runs a whole cluster on this machine: ZooKeeper servers and brokers as processes of their own, which
// outlive the command that started them. A folder holds all of it:
//
//	cluster.json                 what the cluster is made of
//	zookeeper-N/, broker-N/      configuration, data, log (output) and pid of one process
package localcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ottla/internal/zkserver"
)

// Spec is what a cluster is made of.
type Spec struct {
	Brokers       int    `json:"brokers"`
	ZooKeepers    int    `json:"zookeepers"`    // servers started here; 0 with ZooKeeper set
	Port          int    `json:"port"`          // of the first broker; the others follow
	ZooKeeperPort int    `json:"zookeeperPort"` // of the first ZooKeeper server
	ZooKeeper     string `json:"zookeeper"`     // an ensemble that is there already
}

// Cluster is a cluster in a folder.
type Cluster struct {
	Dir  string
	Spec Spec
}

// ErrNone means that there is no cluster in the folder.
var ErrNone = errors.New("there is no cluster here")

const tickMs = 500 // small, so that a killed broker is noticed in seconds

// Open finds the cluster of a folder.
func Open(dir string) (*Cluster, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: %s holds none; start one with 'ottla up'", ErrNone, dir)
	}
	if err != nil {
		return nil, err
	}
	c := &Cluster{Dir: dir}
	if err := json.Unmarshal(text, &c.Spec); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, "cluster.json"), err)
	}
	return c, nil
}

// Create writes the cluster of a folder down. What runs there already must have the same shape.
func Create(dir string, spec Spec) (*Cluster, error) {
	old, err := Open(dir)
	switch {
	case err == nil && old.Spec != spec && old.running():
		return nil, fmt.Errorf("a cluster of another shape runs in %s; end it with 'ottla down --dir %s' first", old.Dir, dir)
	case err != nil && !errors.Is(err, ErrNone):
		return nil, err
	}
	dir, err = filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	text, _ := json.MarshalIndent(spec, "", "  ")
	if err := os.WriteFile(filepath.Join(dir, "cluster.json"), append(text, '\n'), 0o644); err != nil {
		return nil, err
	}
	return &Cluster{dir, spec}, nil
}

// Process is one process of a cluster.
type Process struct {
	Name    string // broker-1, zookeeper-1, …
	Address string // host:port
	Dir     string
}

// ZooKeepers lists the ZooKeeper servers that belong to the cluster.
func (c *Cluster) ZooKeepers() []Process {
	var out []Process
	for n := 1; n <= c.Spec.ZooKeepers; n++ {
		out = append(out, c.process("zookeeper", n, c.Spec.ZooKeeperPort))
	}
	return out
}

// Brokers lists the brokers.
func (c *Cluster) Brokers() []Process {
	var out []Process
	for n := 1; n <= c.Spec.Brokers; n++ {
		out = append(out, c.process("broker", n, c.Spec.Port))
	}
	return out
}

func (c *Cluster) process(kind string, n, firstPort int) Process {
	name := fmt.Sprintf("%s-%d", kind, n)
	return Process{Name: name, Address: "127.0.0.1:" + strconv.Itoa(firstPort+n-1), Dir: filepath.Join(c.Dir, name)}
}

// Bootstrap is the brokers' addresses, for clients.
func (c *Cluster) Bootstrap() string { return addresses(c.Brokers()) }

// Connect is the value of zookeeper.connect.
func (c *Cluster) Connect() string {
	if c.Spec.ZooKeeper != "" {
		return c.Spec.ZooKeeper
	}
	return addresses(c.ZooKeepers())
}

func addresses(ps []Process) string {
	list := make([]string, len(ps))
	for i, p := range ps {
		list[i] = p.Address
	}
	return strings.Join(list, ",")
}

func (c *Cluster) running() bool {
	for _, p := range append(c.ZooKeepers(), c.Brokers()...) {
		if _, ok := p.PID(); ok {
			return true
		}
	}
	return false
}

// StartZooKeepers starts the ZooKeeper servers that do not run, and waits until they serve.
func (c *Cluster) StartZooKeepers(ctx context.Context, in zkserver.Installation) error {
	servers := c.ZooKeepers()
	var members []zkserver.Member
	if len(servers) > 1 {
		for n := range servers {
			members = append(members, zkserver.Member{
				ID: n + 1, Host: "127.0.0.1", PeerPort: c.Spec.ZooKeeperPort + 700 + n, ElectionPort: c.Spec.ZooKeeperPort + 1700 + n,
			})
		}
	}
	for n, p := range servers {
		if _, ok := p.PID(); ok {
			continue
		}
		if err := portFree(p.Address); err != nil {
			return err
		}
		config := zkserver.Config{
			ID: n + 1, ClientPort: c.Spec.ZooKeeperPort + n, Members: members, TickMs: tickMs, SyncLimit: 5, MaxSessionMs: 60_000, HeapMB: 192,
		}
		path, err := config.Write(p.Dir)
		if err != nil {
			return err
		}
		if err := p.start(config.Command(in, path)); err != nil {
			return err
		}
	}
	for _, p := range servers {
		if err := zkserver.WaitServing(ctx, p.Address); err != nil {
			return fmt.Errorf("%s does not serve: %w; its output is in %s", p.Name, err, p.Log())
		}
	}
	return nil
}

// StartBrokers starts the brokers that do not run, with the program given.
func (c *Cluster) StartBrokers(program string) error {
	for n, p := range c.Brokers() {
		if _, ok := p.PID(); ok {
			continue
		}
		if err := portFree(p.Address); err != nil {
			return err
		}
		if err := os.MkdirAll(p.Dir, 0o755); err != nil {
			return err
		}
		file := filepath.Join(p.Dir, "server.properties")
		if err := os.WriteFile(file, []byte(c.properties(n+1, p)), 0o644); err != nil {
			return err
		}
		// The parent that 'supervise' is removes the registration of a broker that was killed. It writes the broker's pid.
		_ = os.Remove(p.pidFile())
		if err := p.launch(exec.Command(program, "supervise", "--pid-file", p.pidFile(), file)); err != nil {
			return err
		}
	}
	return nil
}

// Replicas is how many copies topics of this cluster get.
func (c *Cluster) Replicas() int { return min(3, c.Spec.Brokers) }

// properties are a broker's settings: what differs from Kafka's defaults is what makes a small local cluster pleasant.
func (c *Cluster) properties(id int, p Process) string {
	replicas := c.Replicas()
	lines := []string{
		"broker.id=" + strconv.Itoa(id),
		"listeners=PLAINTEXT://" + p.Address,
		"zookeeper.connect=" + c.Connect(),
		"log.dirs=" + filepath.Join(p.Dir, "data"),
		"num.partitions=3",
		"default.replication.factor=" + strconv.Itoa(replicas),
		"min.insync.replicas=" + strconv.Itoa(max(1, replicas-1)),
		"offsets.topic.replication.factor=" + strconv.Itoa(replicas),
		"transaction.state.log.replication.factor=" + strconv.Itoa(replicas),
		"transaction.state.log.min.isr=" + strconv.Itoa(max(1, replicas-1)),
		"group.initial.rebalance.delay.ms=0",
	}
	if c.Spec.ZooKeeper == "" { // these servers' own ticks
		lines = append(lines, "zookeeper.session.timeout.ms=6000", "ottla.zookeeper.tick.time.ms="+strconv.Itoa(tickMs), "ottla.zookeeper.sync.limit=5")
	}
	if admin := adminAddress(p); portFree(admin) == nil {
		lines = append(lines, "ottla.admin.listener="+admin)
	}
	return strings.Join(lines, "\n") + "\n"
}

// adminAddress is where a broker serves metrics and health: 9644 for the broker at 9092, and as far from any other. Where that port
// is taken there is none.
func adminAddress(p Process) string {
	host, port, _ := net.SplitHostPort(p.Address)
	n, _ := strconv.Atoi(port)
	return net.JoinHostPort(host, strconv.Itoa(n+9644-9092))
}

// Admin is the address of a broker's admin port, as its settings say; "" without one.
func (p Process) Admin() string {
	text, _ := os.ReadFile(filepath.Join(p.Dir, "server.properties"))
	for line := range strings.Lines(string(text)) {
		if address, ok := strings.CutPrefix(strings.TrimSpace(line), "ottla.admin.listener="); ok {
			return address
		}
	}
	return ""
}

// Stop ends all processes, brokers first, each by SIGTERM and, after patience, by SIGKILL. It returns the names of those it ended.
func (c *Cluster) Stop(ctx context.Context, patience time.Duration) ([]string, error) {
	var ended []string
	for _, kind := range [][]Process{c.Brokers(), c.ZooKeepers()} {
		names, err := stopAll(ctx, kind, patience)
		ended = append(ended, names...)
		if err != nil {
			return ended, err
		}
	}
	return ended, nil
}

func stopAll(ctx context.Context, ps []Process, patience time.Duration) ([]string, error) {
	var ended []string
	for _, p := range ps {
		if pid, ok := p.PID(); ok {
			ended = append(ended, p.Name)
			_ = syscall.Kill(pid, syscall.SIGCONT) // a paused process does not hear SIGTERM
			_ = syscall.Kill(pid, syscall.SIGTERM)
		}
	}
	deadline := time.Now().Add(patience)
	for _, p := range ps {
		for {
			pid, ok := p.PID()
			if !ok {
				_ = os.Remove(p.pidFile())
				break
			}
			if time.Now().After(deadline) {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			select {
			case <-ctx.Done():
				return ended, ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	}
	return ended, nil
}

// Log is where a process' output goes.
func (p Process) Log() string { return filepath.Join(p.Dir, "log") }

func (p Process) pidFile() string { return filepath.Join(p.Dir, "pid") }

// start runs cmd detached from this process and notes its pid.
func (p Process) start(cmd *exec.Cmd) error {
	if err := p.launch(cmd); err != nil {
		return err
	}
	return os.WriteFile(p.pidFile(), []byte(strconv.Itoa(cmd.Process.Pid)), 0o644)
}

// launch runs cmd detached from this process.
func (p Process) launch(cmd *exec.Cmd) error {
	out, err := os.OpenFile(p.Log(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd.Stdout, cmd.Stderr, cmd.Dir = out, out, p.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	go func() { _ = cmd.Wait() }() // reaped while this process lives, by init afterwards
	return nil
}

// PID returns the process' id if it runs. A number that another program has got since is not mistaken for it.
func (p Process) PID() (int, bool) {
	text, err := os.ReadFile(p.pidFile())
	if err != nil {
		return 0, false
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return 0, false
	}
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || !strings.Contains(string(line), p.Dir) {
		return 0, false
	}
	return pid, true
}

func portFree(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%s is in use by another program: end it, or choose other ports with --port and --zookeeper-port", address)
	}
	return l.Close()
}
