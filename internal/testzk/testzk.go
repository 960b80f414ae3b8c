// Package testzk runs real ZooKeeper ensembles for tests, on free ports of the loopback, in the test's temporary folder.
package testzk

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"ottla/internal/freeport"
	"ottla/internal/zkserver"
)

// TickTime is the tick of the ensembles started here; a session lasts at least two of them and at most 120.
const TickTime = 500 * time.Millisecond

// SyncLimit is the syncLimit, in ticks, of the ensembles started here.
const SyncLimit = 4

// Ensemble is a running ensemble. Servers are numbered from 1. Its methods fail the test on error.
type Ensemble struct {
	Connect string // host:port,… of all servers
	t       testing.TB
	install zkserver.Installation
	network Network // nil = the loopback
	servers []*server
}

type server struct {
	address string
	dir     string
	config  zkserver.Config
	zooCfg  string
	process *exec.Cmd // nil while it is down
}

// Start runs an ensemble and waits until it serves. It skips the test where ZooKeeper is not installed, and stops the ensemble
// when the test ends.
func Start(t testing.TB, servers int) *Ensemble {
	t.Helper()
	return StartOn(t, servers, nil)
}

// StartWith is Start with further lines for the servers' zoo.cfg.
func StartWith(t testing.TB, servers int, extra map[string]string) *Ensemble {
	t.Helper()
	return begin(t, servers, nil, extra)
}

// Network gives each server a machine of its own, called zookeeper-N.
type Network interface {
	Address(machine string) string
	Start(machine string, cmd *exec.Cmd) error
}

// StartOn is Start on the machines of a network; nil is the loopback.
func StartOn(t testing.TB, servers int, network Network) *Ensemble {
	t.Helper()
	return begin(t, servers, network, nil)
}

func begin(t testing.TB, servers int, network Network, extra map[string]string) *Ensemble {
	t.Helper()
	install, err := zkserver.Find()
	if err != nil {
		t.Skip(err)
	}
	e := &Ensemble{t: t, install: install, network: network}
	dir := t.TempDir()
	ports := freeport.Find(t, 3*servers)
	var members []zkserver.Member
	for i := range servers {
		if servers > 1 {
			members = append(members, zkserver.Member{ID: i + 1, Host: e.host(i + 1), PeerPort: ports[3*i+1], ElectionPort: ports[3*i+2]})
		}
	}
	var addresses []string
	for i := range servers {
		address := net.JoinHostPort(e.host(i+1), strconv.Itoa(ports[3*i]))
		addresses = append(addresses, address)
		e.servers = append(e.servers, &server{
			address: address,
			dir:     filepath.Join(dir, fmt.Sprint("zk-", i+1)),
			config: zkserver.Config{
				ID: i + 1, ClientHost: e.host(i + 1), ClientPort: ports[3*i], Members: members, TickMs: int(TickTime / time.Millisecond), SyncLimit: SyncLimit,
				MaxSessionMs: 60000, HeapMB: 128, Extra: map[string]string{"forceSync": "no", "extendedTypesEnabled": "true"},
			},
		})
		maps.Copy(e.servers[i].config.Extra, extra)
	}
	e.Connect = strings.Join(addresses, ",")
	t.Cleanup(e.Stop)
	for i := range servers {
		e.start(i + 1)
	}
	e.WaitServing()
	return e
}

// Machine is the name of server n in the ensemble's Network.
func Machine(n int) string { return fmt.Sprint("zookeeper-", n) }

func (e *Ensemble) host(n int) string {
	if e.network == nil {
		return "127.0.0.1"
	}
	return e.network.Address(Machine(n))
}

func (e *Ensemble) launch(n int, cmd *exec.Cmd) error {
	if e.network == nil {
		return cmd.Start()
	}
	return e.network.Start(Machine(n), cmd)
}

// Servers returns the number of servers, running or not.
func (e *Ensemble) Servers() int { return len(e.servers) }

// Address is the client address of server n.
func (e *Ensemble) Address(n int) string { return e.servers[n-1].address }

// WaitServing waits until every server that was started takes part in a quorum.
func (e *Ensemble) WaitServing() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i, s := range e.servers {
		if s.process == nil {
			continue
		}
		if err := zkserver.WaitServing(ctx, s.address); err != nil {
			e.t.Fatalf("ZooKeeper %d does not serve: %v\n%s", i+1, err, e.Log(i+1))
		}
	}
}

// Leader returns the number of the server that leads, or of the only one; 0 if none does.
func (e *Ensemble) Leader() int {
	for i, s := range e.servers {
		if mode, err := zkserver.Mode(s.address); err == nil && (mode == "leader" || mode == "standalone") {
			return i + 1
		}
	}
	return 0
}

// Log returns the end of what server n printed.
func (e *Ensemble) Log(n int) string {
	text, _ := os.ReadFile(filepath.Join(e.servers[n-1].dir, "log"))
	return string(text[max(0, len(text)-4000):])
}

// Kill ends server n at once, as kill -9 does.
func (e *Ensemble) Kill(n int) {
	e.t.Helper()
	s := e.servers[n-1]
	if s.process == nil {
		return
	}
	e.signal(n, syscall.SIGKILL)
	_ = s.process.Wait()
	s.process = nil
}

// Pause stops server n from running; its connections stay open.
func (e *Ensemble) Pause(n int) { e.t.Helper(); e.signal(n, syscall.SIGSTOP) }

// Resume lets a paused server go on.
func (e *Ensemble) Resume(n int) { e.t.Helper(); e.signal(n, syscall.SIGCONT) }

// PauseAll pauses every server.
func (e *Ensemble) PauseAll() {
	for n := range e.servers {
		e.Pause(n + 1)
	}
}

// ResumeAll resumes every server.
func (e *Ensemble) ResumeAll() {
	for n := range e.servers {
		e.Resume(n + 1)
	}
}

// Restart kills server n if it runs, starts it with its old data and waits for it.
func (e *Ensemble) Restart(n int) {
	e.t.Helper()
	e.Kill(n)
	e.start(n)
	e.WaitServing()
}

// Launch starts server n with its old data and does not wait until it serves.
func (e *Ensemble) Launch(n int) {
	e.t.Helper()
	if e.servers[n-1].process == nil {
		e.start(n)
	}
}

// Stop ends all servers. Start arranges for it; calling it again does nothing.
func (e *Ensemble) Stop() {
	for n := range e.servers {
		e.Kill(n + 1)
	}
}

func (e *Ensemble) signal(n int, sig syscall.Signal) {
	e.t.Helper()
	s := e.servers[n-1]
	if s.process == nil {
		return
	}
	if err := s.process.Process.Signal(sig); err != nil {
		e.t.Fatalf("signal %v to ZooKeeper %d: %v", sig, n, err)
	}
}

func (e *Ensemble) start(n int) {
	e.t.Helper()
	s := e.servers[n-1]
	var err error
	if s.zooCfg, err = s.config.Write(s.dir); err != nil {
		e.t.Fatal(err)
	}
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		e.t.Fatal(err)
	}
	defer log.Close()
	cmd := s.config.Command(e.install, s.zooCfg)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // no server outlives a test that was killed
	if err := e.launch(n, cmd); err != nil {
		e.t.Fatal(err)
	}
	s.process = cmd
}
