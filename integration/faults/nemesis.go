package faults

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ottla/integration/harness"
	"ottla/internal/testzk"
)

// kind is one sort of fault.
type kind struct {
	name   string
	group  string // as the line of figures counts it: kill, pause, stop, cut, zk, disk
	roles  []role
	hold   [2]float64 // shortest and longest time from injection to heal, in sessions
	needs  need
	inject func(r *rig, p planned, b *harness.Broker) (heal, error)
}

// heal undoes a fault and reports whether it had hit: evidence, not intention.
type heal func() (effective bool, err error)

// need is what a kind cannot do without.
type need int

const (
	nothing    need = iota
	ownNetwork      // machines with links between them
	ownDisk         // a small file system per broker
)

var everyRole = []role{leader, follower, controller}

// kinds is the whole catalogue.
var kinds = []kind{
	{"kill", "kill", everyRole, [2]float64{0.05, 1.2}, nothing, kill},
	{"kill-orphan", "kill", everyRole, [2]float64{0.05, 1.5}, nothing, killOrphan},
	{"kill-torn", "kill", []role{leader, follower}, [2]float64{0.05, 1.2}, nothing, killTorn},
	{"stop", "stop", everyRole, [2]float64{0.1, 1}, nothing, stop},
	{"pause-short", "pause", []role{leader, follower}, [2]float64{0.2, 0.7}, nothing, pause},
	{"pause-long", "pause", everyRole, [2]float64{1.3, 1.9}, nothing, pause},
	{"cut-pair", "cut", []role{leader, follower}, [2]float64{0.5, 1.6}, ownNetwork, cutPair},
	{"cut-pair-out", "cut", []role{leader, follower}, [2]float64{0.5, 1.6}, ownNetwork, cutPairOut},
	{"cut-peers", "cut", []role{leader}, [2]float64{0.5, 1.6}, ownNetwork, cutPeers},
	{"cut-zk", "cut", everyRole, [2]float64{0.5, 1.8}, ownNetwork, cutZooKeeper},
	{"cut-zk-out", "cut", []role{leader, controller}, [2]float64{1, 1.8}, ownNetwork, cutZooKeeperOut},
	{"cut-zk-in", "cut", []role{leader, controller}, [2]float64{1, 1.8}, ownNetwork, cutZooKeeperIn},
	{"zk-kill", "zk", []role{ensemble}, [2]float64{0.3, 1.2}, nothing, zkKill},
	{"zk-pause", "zk", []role{ensemble}, [2]float64{0.3, 1.2}, nothing, zkPause},
	{"zk-split", "zk", []role{ensemble}, [2]float64{0.5, 1.5}, ownNetwork, zkSplit},
	{"disk-full", "disk", []role{leader, follower}, [2]float64{0.3, 1.5}, ownDisk, diskFull},
}

// kill ends the broker; its supervisor removes the registration.
func kill(_ *rig, _ planned, b *harness.Broker) (heal, error) {
	b.Kill()
	return restart(b), nil
}

// killOrphan ends broker and supervisor: the registration lives until the session expires.
func killOrphan(_ *rig, _ planned, b *harness.Broker) (heal, error) {
	b.KillWithParent()
	return restart(b), nil
}

// killTorn ends both and leaves half a batch at the end of some logs, as a write that was cut short does.
func killTorn(_ *rig, p planned, b *harness.Broker) (heal, error) {
	b.KillWithParent()
	torn, err := tearTails(b.DataDir, p.Draw)
	return func() (bool, error) {
		startAgain(b)
		return torn > 0, nil
	}, err
}

// stopPatience bounds a clean stop, also when ZooKeeper does not answer.
const stopPatience = 40 * time.Second

// stop asks the broker to leave.
func stop(r *rig, _ planned, b *harness.Broker) (heal, error) {
	asked := time.Now()
	b.Stop()
	return func() (bool, error) {
		code, ended := b.Ended(stopPatience)
		if !ended {
			return false, fmt.Errorf("broker %d has not stopped %v after it was asked to", b.ID, time.Since(asked))
		}
		if code != 0 {
			r.logf("broker %d stopped with exit code %d", b.ID, code)
		}
		startAgain(b)
		return code == 0, nil
	}, nil
}

func restart(b *harness.Broker) heal {
	return func() (bool, error) {
		startAgain(b)
		return true, nil
	}
}

// startAgain starts a broker unless another fault that hit it as well has done so.
func startAgain(b *harness.Broker) {
	if !b.Running() {
		b.Start()
	}
}

// tearTails appends part of a log's own bytes to some logs.
func tearTails(dir string, draw uint64) (torn int, err error) {
	logs, err := filepath.Glob(filepath.Join(dir, "*-*", "*.log"))
	if err != nil {
		return 0, err
	}
	newest := map[string]string{}
	for _, name := range logs { // sorted
		newest[filepath.Dir(name)] = name
	}
	for i, name := range logs {
		if newest[filepath.Dir(name)] != name || draw>>(i%64)&1 == 0 {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil || len(text) < 100 {
			continue
		}
		f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			return torn, err
		}
		_, err = f.Write(text[:1+draw>>8%99])
		f.Close()
		if err != nil {
			return torn, err
		}
		torn++
	}
	return torn, nil
}

func pause(_ *rig, _ planned, b *harness.Broker) (heal, error) {
	b.Pause()
	return func() (bool, error) {
		stopped := processState(b.PID()) == 'T'
		b.Resume()
		return stopped, nil
	}, nil
}

// processState is the letter that the kernel gives a process' state.
func processState(pid int) byte {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(text), ") ")
	if after == "" {
		return 0
	}
	return after[0]
}

// cutLinks cuts links; the fault has hit if a packet was dropped.
func cutLinks(r *rig, links []link) (heal, error) {
	for _, l := range links {
		if err := r.network.cut(l); err != nil {
			return nil, err
		}
	}
	return func() (bool, error) {
		total := 0
		for _, l := range links {
			dropped, err := r.network.heal(l)
			if err != nil {
				return false, err
			}
			total += dropped
		}
		return total > 0, nil
	}, nil
}

func both(a, b string) []link { return []link{{a, b}, {b, a}} }

// other is another broker, by the plan's draw.
func (r *rig) other(p planned, b *harness.Broker) *harness.Broker {
	others := slices.DeleteFunc(slices.Clone(r.cluster.Brokers), func(o *harness.Broker) bool { return o == b })
	return others[p.Draw%uint64(len(others))]
}

func cutPair(r *rig, p planned, b *harness.Broker) (heal, error) {
	return cutLinks(r, both(b.Machine(), r.other(p, b).Machine()))
}

func cutPairOut(r *rig, p planned, b *harness.Broker) (heal, error) {
	return cutLinks(r, []link{{b.Machine(), r.other(p, b).Machine()}})
}

// cutPeers takes the broker away from all other brokers; ZooKeeper still sees it.
func cutPeers(r *rig, _ planned, b *harness.Broker) (heal, error) {
	var links []link
	for _, o := range r.cluster.Brokers {
		if o != b {
			links = append(links, both(b.Machine(), o.Machine())...)
		}
	}
	return cutLinks(r, links)
}

func (r *rig) toZooKeeper(b *harness.Broker) (out, in []link) {
	for n := range r.cluster.ZooKeeper.Servers() {
		zk := testzk.Machine(n + 1)
		out, in = append(out, link{b.Machine(), zk}), append(in, link{zk, b.Machine()})
	}
	return out, in
}

func cutZooKeeper(r *rig, _ planned, b *harness.Broker) (heal, error) {
	out, in := r.toZooKeeper(b)
	return cutLinks(r, append(out, in...))
}

func cutZooKeeperOut(r *rig, _ planned, b *harness.Broker) (heal, error) {
	out, _ := r.toZooKeeper(b)
	return cutLinks(r, out)
}

func cutZooKeeperIn(r *rig, _ planned, b *harness.Broker) (heal, error) {
	_, in := r.toZooKeeper(b)
	return cutLinks(r, in)
}

// zkTarget is the leading server, or one by the draw while there is none.
func (r *rig) zkTarget(p planned) int {
	if n := r.cluster.ZooKeeper.Leader(); n > 0 {
		return n
	}
	return int(p.Draw%uint64(r.cluster.ZooKeeper.Servers())) + 1
}

func zkKill(r *rig, p planned, _ *harness.Broker) (heal, error) {
	n := r.zkTarget(p)
	r.cluster.ZooKeeper.Kill(n)
	return func() (bool, error) {
		moved := r.cluster.ZooKeeper.Leader()
		r.cluster.ZooKeeper.Launch(n)
		return moved > 0 && moved != n, nil
	}, nil
}

func zkPause(r *rig, p planned, _ *harness.Broker) (heal, error) {
	n := r.zkTarget(p)
	r.cluster.ZooKeeper.Pause(n)
	return func() (bool, error) {
		r.cluster.ZooKeeper.Resume(n)
		return true, nil
	}, nil
}

// zkSplit cuts the leading server from the other servers, not from the brokers.
func zkSplit(r *rig, p planned, _ *harness.Broker) (heal, error) {
	n := r.zkTarget(p)
	var links []link
	for o := range r.cluster.ZooKeeper.Servers() {
		if o+1 != n {
			links = append(links, both(testzk.Machine(n), testzk.Machine(o+1))...)
		}
	}
	return cutLinks(r, links)
}

// diskFull leaves no byte free on the broker's file system, and gives the room back later.
func diskFull(r *rig, _ planned, b *harness.Broker) (heal, error) {
	ballast := filepath.Join(b.DataDir, ".ballast")
	f, err := os.Create(ballast)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	for size, at := int64(64<<20), int64(0); size >= 4096; {
		if err := unix.Fallocate(int(f.Fd()), 0, at, size); err != nil {
			size /= 2
			continue
		}
		at += size
	}
	return func() (bool, error) {
		var now unix.Statfs_t
		err := unix.Statfs(b.DataDir, &now)
		full := err == nil && now.Bfree == 0
		if err := os.Remove(ballast); err != nil {
			return false, err
		}
		return full, nil
	}, nil
}
