package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
	"ottla/internal/testzk"
)

// side is one of those who are compared.
type side interface {
	name() string
	// create makes a topic and returns the address of each partition's leader, ready to serve.
	create(topic string, partitions, replicas int, settings ...string) ([]string, error)
	remove(topic string)
	pids() []int
}

// brokers is a side of real brokers.
type brokers struct {
	called  string
	cluster *harness.Cluster
	client  *kgo.Client
	admin   *kadm.Client
}

// startBrokers runs a cluster in a chroot of its own. All sides get the same properties. With a program it is that, called kafka,
// that Ottla is measured against.
func startBrokers(t testing.TB, kind harness.Kind, n int, zk *testzk.Ensemble, chroot, program string, settings ...string) *brokers {
	t.Helper()
	called := string(kind)
	if program != "" {
		kind = harness.Ottla
	}
	properties := map[string]string{
		"zookeeper.session.timeout.ms": "18000", // Kafka's default: a machine at its limit must not lose sessions
		"auto.create.topics.enable":    "false",
	}
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		properties[key] = value
	}
	c := harness.Start(t, harness.Options{
		Brokers: harness.Same(kind, n), Ensemble: zk, Chroot: chroot, Production: true, Program: program, Properties: properties,
	})
	client, err := kgo.NewClient(kgo.SeedBrokers(c.Bootstrap()...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return &brokers{called: called, cluster: c, client: client, admin: kadm.NewClient(client)}
}

func (b *brokers) name() string { return b.called }

func (b *brokers) pids() []int {
	var out []int
	for _, broker := range b.cluster.Brokers {
		out = append(out, broker.PID())
	}
	return out
}

const adminPatience = 2 * time.Minute

func (b *brokers) create(topic string, partitions, replicas int, settings ...string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), adminPatience)
	defer cancel()
	soon := "100" // what a round has written leaves the page cache with its topic
	configs := map[string]*string{"file.delete.delay.ms": &soon}
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		configs[key] = &value
	}
	resp, err := b.admin.CreateTopic(ctx, int32(partitions), int16(replicas), configs, topic)
	if err := errors.Join(err, resp.Err); err != nil {
		return nil, fmt.Errorf("create %s: %w %s", topic, err, resp.ErrMessage)
	}
	for {
		leaders, err := b.leaders(ctx, topic, partitions, replicas)
		if err == nil {
			return leaders, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%s is not ready: %w", topic, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// leaders are the leaders' addresses once all partitions have all their replicas in sync and answer.
func (b *brokers) leaders(ctx context.Context, topic string, partitions, replicas int) ([]string, error) {
	meta, err := b.admin.Metadata(ctx, topic)
	if err != nil {
		return nil, err
	}
	addresses := map[int32]string{}
	for _, n := range meta.Brokers {
		addresses[n.NodeID] = fmt.Sprintf("%s:%d", n.Host, n.Port)
	}
	out := make([]string, partitions)
	for _, p := range meta.Topics[topic].Partitions {
		if p.Err != nil || len(p.ISR) != replicas {
			return nil, fmt.Errorf("partition %d: %d in sync, %w", p.Partition, len(p.ISR), p.Err)
		}
		out[p.Partition] = addresses[p.Leader]
	}
	for p, address := range out {
		if address == "" {
			return nil, fmt.Errorf("partition %d has no leader", p)
		}
	}
	for _, broker := range b.cluster.Brokers {
		if err := knows(ctx, broker.Address, topic, partitions); err != nil {
			return nil, err
		}
	}
	ends, err := b.admin.ListEndOffsets(ctx, topic)
	return out, errors.Join(err, ends.Error())
}

func (b *brokers) remove(topic string) {
	ctx, cancel := context.WithTimeout(context.Background(), adminPatience)
	defer cancel()
	_, _ = b.admin.DeleteTopics(ctx, topic) // it is the measurement's end; what stays is seen on the disk
}

// floor is a side of three processes of floorServer. They live for one round.
type floor struct {
	null      bool
	processes []*exec.Cmd
	addresses []string
	dir       string
}

// floorMode is the variable that makes this package's test program a floor server; its value is the folder for its files.
const (
	floorMode = "OTTLA_BENCH_FLOOR"
	floorNull = "OTTLA_BENCH_FLOOR_NULL"
)

// serveFloorIfAsked never returns in a process that is to be a floor server.
func serveFloorIfAsked() {
	dir := os.Getenv(floorMode)
	if dir == "" {
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		fmt.Println(l.Addr())
		err = serveFloor(l, dir, os.Getenv(floorNull) != "")
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func startFloor(null bool) (*floor, error) {
	dir, err := os.MkdirTemp("", "floor")
	if err != nil {
		return nil, err
	}
	f := &floor{null: null, dir: dir}
	for range 3 {
		if err := f.startOne(); err != nil {
			f.end()
			return nil, err
		}
	}
	return f, nil
}

func (f *floor) startOne() error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp(f.dir, "")
	if err != nil {
		return err
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), floorMode+"="+dir)
	if f.null {
		cmd.Env = append(cmd.Env, floorNull+"=1")
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	f.processes = append(f.processes, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	f.addresses = append(f.addresses, strings.TrimSpace(line))
	return err
}

func (f *floor) end() {
	for _, p := range f.processes {
		_ = p.Process.Kill()
		_ = p.Wait()
	}
	_ = os.RemoveAll(f.dir)
}

func (f *floor) name() string {
	if f.null {
		return "null"
	}
	return "floor"
}

func (f *floor) create(_ string, partitions, _ int, _ ...string) ([]string, error) {
	var out []string
	for p := range partitions {
		out = append(out, f.addresses[p%len(f.addresses)])
	}
	return out, nil
}

func (f *floor) remove(string) {}

func (f *floor) pids() []int {
	var out []int
	for _, p := range f.processes {
		out = append(out, p.Process.Pid)
	}
	return out
}
