package faults

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// network is a switch with a machine per process: network namespaces, each with a virtual cable into one bridge. Packets between
// two machines are dropped by filters in the receiving machine, so a link can be cut in one direction.
type network struct {
	t        testing.TB
	prefix   string // of the names of everything that the kernel holds for us
	subnet   string // the first three bytes of each address
	machines map[string]machine
}

type machine struct {
	namespace string
	address   string
}

// newNetwork builds a switch with these machines; the test process itself sits on the switch and reaches all of them. The error
// says why it cannot be built here.
func newNetwork(t testing.TB, machines []string) (*network, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("network namespaces need root")
	}
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			return nil, fmt.Errorf("no %s here (on Debian: apt install iproute2 iptables)", tool)
		}
	}
	sweep()
	pid, nth := os.Getpid(), int(networks.Add(1)) // what the kernel held for an earlier one may take a while to go
	n := &network{
		t: t, prefix: fmt.Sprintf("ot%xx%d", pid, nth), subnet: fmt.Sprintf("10.%d.%d", 128+pid>>8&127, (pid+nth)&255),
		machines: map[string]machine{},
	}
	t.Cleanup(n.remove)
	bridge := n.prefix + "b"
	if err := run("ip", "link", "add", bridge, "type", "bridge"); err != nil {
		return nil, err
	}
	if err := errors.Join(
		run("ip", "addr", "add", n.subnet+".254/24", "dev", bridge),
		run("ip", "link", "set", bridge, "up"),
		letThrough("-I", bridge),
	); err != nil {
		return nil, err
	}
	for i, name := range machines {
		m := machine{namespace: fmt.Sprint(n.prefix, "n", i+1), address: fmt.Sprint(n.subnet, ".", i+1)}
		if err := n.plug(m, i+1, bridge); err != nil {
			return nil, err
		}
		n.machines[name] = m
	}
	return n, nil
}

var networks atomic.Int32 // of this process

// sweep removes what test processes that were killed have left behind. Names carry the process id.
func sweep() {
	spaces, _ := filepath.Glob("/run/netns/ot*n*")
	for _, path := range spaces {
		name := filepath.Base(path)
		id, _, _ := strings.Cut(strings.TrimPrefix(name, "ot"), "n")
		owner, _, _ := strings.Cut(id, "x")
		pid, err := strconv.ParseInt(owner, 16, 64)
		if err == nil && !errors.Is(unix.Kill(int(pid), 0), unix.ESRCH) {
			continue
		}
		_ = run("ip", "netns", "del", name)
		_ = letThrough("-D", "ot"+id+"b")
		_ = run("ip", "link", "del", "ot"+id+"b")
	}
}

// letThrough adds (-I) or deletes (-D) a rule for what stays on the switch: where container software has told the kernel to filter
// bridges too, it forbids whatever it does not know.
func letThrough(action, bridge string) error {
	return run("iptables", "-w", action, "FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT")
}

func (n *network) plug(m machine, port int, bridge string) error {
	outer, inner := fmt.Sprint(n.prefix, "o", port), fmt.Sprint(n.prefix, "i", port)
	return errors.Join(
		run("ip", "netns", "add", m.namespace),
		run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner, "netns", m.namespace),
		run("ip", "link", "set", outer, "master", bridge, "up"),
		run("ip", "-n", m.namespace, "addr", "add", m.address+"/24", "dev", inner),
		run("ip", "-n", m.namespace, "link", "set", inner, "up"),
		run("ip", "-n", m.namespace, "link", "set", "lo", "up"),
	)
}

func (n *network) remove() {
	for _, m := range n.machines {
		_ = run("ip", "netns", "del", m.namespace)
	}
	_ = letThrough("-D", n.prefix+"b")
	_ = run("ip", "link", "del", n.prefix+"b")
}

// Address implements harness.Network.
func (n *network) Address(name string) string { return n.machines[name].address }

// Start implements harness.Network: a child inherits the namespace of the thread that forks it.
func (n *network) Start(name string, cmd *exec.Cmd) error {
	m, ok := n.machines[name]
	if !ok {
		return fmt.Errorf("no machine %s", name)
	}
	target, err := os.Open("/run/netns/" + m.namespace)
	if err != nil {
		return err
	}
	defer target.Close()
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := unix.Setns(int(target.Fd()), unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter %s: %w", m.namespace, err)
	}
	startErr := cmd.Start()
	if err := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); err != nil {
		return errors.Join(startErr, fmt.Errorf("leave %s: %w", m.namespace, err)) // the thread stays locked and dies with its goroutine
	}
	runtime.UnlockOSThread()
	return startErr
}

// link is a direction between two machines.
type link struct{ from, to string }

func (l link) String() string { return l.from + "→" + l.to }

// cut drops every packet from one machine to another, silently.
func (n *network) cut(l link) error { return n.filter("-I", l) }

// heal lets packets pass again; dropped says how many did not.
func (n *network) heal(l link) (dropped int, err error) {
	out, err := exec.Command("ip", "netns", "exec", n.machines[l.to].namespace, "iptables", "-w", "-nvxL", "INPUT").Output()
	if err != nil {
		return 0, fmt.Errorf("count what %v dropped: %w", l, err)
	}
	for line := range strings.Lines(string(out)) {
		fields := strings.Fields(line)
		if len(fields) > 7 && fields[2] == "DROP" && fields[7] == n.Address(l.from) {
			dropped, _ = strconv.Atoi(fields[0])
		}
	}
	return dropped, n.filter("-D", l)
}

func (n *network) filter(verb string, l link) error {
	return run("ip", "netns", "exec", n.machines[l.to].namespace, "iptables", "-w", verb, "INPUT", "-s", n.Address(l.from), "-j", "DROP")
}

func run(name string, args ...string) error {
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}
