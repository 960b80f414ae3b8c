package faults

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"golang.org/x/sys/unix"

	"ottla/integration/harness"
	"ottla/internal/testzk"
)

const (
	brokers    = 3
	zookeepers = 3
	partitions = 3
	diskBytes  = 768 << 20

	ledgerTopic = "ledger" // of the idempotent producers
	probeTopic  = "probe"  // of the probes

	firstProbe = 100 // producer ids of the probes
	probeEvery = 20 * time.Millisecond
)

// rig is a cluster under load and under fire.
type rig struct {
	t       testing.TB
	seed    uint64
	cluster *harness.Cluster
	network *network // nil = no links to cut
	disks   bool     // each broker has a small file system of its own
	leftOut []string // what this machine cannot do, with the reason

	ledger, probes *recorder
	stopLoad       context.CancelFunc
	load           sync.WaitGroup
	stopReaders    context.CancelFunc
	readers        sync.WaitGroup
	writers        []*writer
	tails          []*tail

	done     []happened
	revived  int
	steps    int      // of the schedule
	problems []string // what has gone wrong beside the records
}

// happened is one fault that was injected.
type happened struct {
	planned
	group     string
	target    int // broker, 0 = none
	alone     bool
	led       map[int32]bool // probe partitions that the target led
	effective bool
	from, to  time.Duration // injection, heal
	window    time.Duration // the next injection, or the end
}

// newRig starts everything and waits until it moves.
func newRig(t testing.TB, seed uint64) *rig {
	r := &rig{t: t, seed: seed}
	var machines []string
	for i := range brokers {
		machines = append(machines, fmt.Sprint("broker-", i+1))
	}
	for i := range zookeepers {
		machines = append(machines, testzk.Machine(i+1))
	}
	options := harness.Options{
		Brokers: harness.Same(harness.Default(), brokers), ZooKeepers: zookeepers, Prepare: r.prepare,
		Properties: map[string]string{
			"min.insync.replicas": "2", "default.replication.factor": "3", "replica.lag.time.max.ms": "4000",
			"replica.socket.timeout.ms": "3000", "controller.socket.timeout.ms": "3000", "log.segment.bytes": "1048576",
			"log.retention.ms": "-1", "unclean.leader.election.enable": "false", "controlled.shutdown.retry.backoff.ms": "500",
			"auto.create.topics.enable": "false", "zookeeper.connection.timeout.ms": "20000", "leader.imbalance.check.interval.seconds": "20",
		},
	}
	network, err := newNetwork(t, machines)
	if err != nil {
		r.leftOut = append(r.leftOut, fmt.Sprintf("cuts of links: %v", err))
	} else {
		r.network, options.Network = network, network
	}
	r.cluster = harness.Start(t, options)
	for _, topic := range []string{ledgerTopic, probeTopic} {
		r.create(topic)
	}
	start := time.Now()
	r.ledger, r.probes = newRecorder(start, seed, ledgerTopic), newRecorder(start, seed, probeTopic)
	r.startLoad()
	return r
}

// prepare gives the broker a small disk and a supervisor.
func (r *rig) prepare(b *harness.Broker) {
	b.Supervised = true
	if err := os.MkdirAll(b.DataDir, 0o755); err != nil {
		r.t.Fatal(err)
	}
	err := unix.Mount("tmpfs", b.DataDir, "tmpfs", 0, fmt.Sprintf("size=%d", diskBytes))
	if err != nil {
		if b.ID == 1 {
			r.leftOut = append(r.leftOut, fmt.Sprintf("full disks: mount a file system: %v", err))
		}
		return
	}
	r.disks = true
	r.t.Cleanup(func() { _ = unix.Unmount(b.DataDir, unix.MNT_DETACH) })
}

// able are the kinds that this machine can do.
func (r *rig) able() []kind {
	return slices.DeleteFunc(slices.Clone(kinds), func(k kind) bool {
		return k.needs == ownNetwork && r.network == nil || k.needs == ownDisk && !r.disks
	})
}

func (r *rig) create(topic string) {
	client, err := patient(r.cluster.Bootstrap())
	if err != nil {
		r.t.Fatal(err)
	}
	defer client.Close()
	resp, err := kadm.NewClient(client).CreateTopic(r.t.Context(), partitions, brokers, nil, topic)
	if err := errors.Join(err, resp.Err); err != nil {
		r.t.Fatalf("create %s: %v", topic, err)
	}
	r.cluster.WaitLed(topic, partitions, brokers)
}

func (r *rig) startLoad() {
	load, stopLoad := context.WithCancel(context.Background())
	reading, stopReaders := context.WithCancel(context.Background())
	r.stopLoad, r.stopReaders = stopLoad, stopReaders
	r.t.Cleanup(func() {
		stopLoad()
		stopReaders()
		r.load.Wait()
		r.readers.Wait()
	})
	word := &leaders{topic: probeTopic, addresses: map[int32]string{}}
	word.mu.of = map[int32]leaderWord{}
	for _, b := range r.cluster.Brokers {
		word.addresses[int32(b.ID)] = b.Address
	}
	for _, address := range word.addresses {
		r.load.Go(func() { word.watchLoop(load, address) })
	}
	for p := range int32(partitions) {
		probe := &probe{rec: r.probes, leaders: word, producer: firstProbe + p, partition: p, every: probeEvery}
		r.load.Go(func() { probe.loop(load) })
	}
	seeds := r.cluster.Bootstrap()
	for producer := range int32(2) {
		w, err := newWriter(r.ledger, seeds, producer, partitions, 100)
		if err != nil {
			r.t.Fatal(err)
		}
		r.writers = append(r.writers, w)
		r.load.Go(func() { w.loop(load) })
	}
	for _, rec := range []*recorder{r.ledger, r.probes} {
		t, err := newTail(rec, seeds, partitions, "")
		if err != nil {
			r.t.Fatal(err)
		}
		r.tails = append(r.tails, t)
		r.readers.Go(func() { t.loop(reading) })
	}
}

// problem notes what has gone wrong; the run ends soon.
func (r *rig) problem(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	r.logf("VIOLATION: %s", text)
	r.problems = append(r.problems, text)
}

// play carries one step out.
func (r *rig) play(s step) {
	r.settle(s)
	var active []*activeFault
	for _, p := range s.Faults {
		if a := r.inject(p, active); a != nil {
			a.alone = len(s.Faults) == 1
			active = append(active, a)
		}
	}
	slices.SortFunc(active, func(a, b *activeFault) int { return cmp.Compare(a.healsAt(), b.healsAt()) })
	for _, a := range active {
		time.Sleep(a.from + a.Hold - r.ledger.now())
		effective, err := a.heal()
		if err != nil {
			r.problem("heal %v: %v", a.planned, err)
		}
		a.effective, a.to = effective, r.ledger.now()
		r.done = append(r.done, a.happened)
	}
	r.revive()
}

// activeFault is a fault that is not healed yet.
type activeFault struct {
	happened
	heal heal
}

// healsAt is when a fault ends. A stop is waited for last: it may wait itself for links that another fault has cut.
func (a *activeFault) healsAt() time.Duration {
	if a.group == "stop" {
		return a.from + a.Hold + time.Hour
	}
	return a.from + a.Hold
}

// ofProcess are the groups of faults that end or hold a broker's process.
var ofProcess = []string{"kill", "stop", "pause"}

// inject starts a fault; nil if there is nothing that plays the role now, or if its process is under another fault already: what is
// paused can neither stop nor be seen to.
func (r *rig) inject(p planned, active []*activeFault) *activeFault {
	k := kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == p.Kind })]
	a := &activeFault{happened: happened{planned: p, group: k.group, led: map[int32]bool{}}}
	var b *harness.Broker
	if p.Role != ensemble {
		if b = r.target(p); b == nil {
			r.logf("%v: nobody is it", p)
			return nil
		}
		a.target, a.led = b.ID, r.ledBy(b.ID)
	}
	held := func(o *activeFault) bool { return o.target == a.target && slices.Contains(ofProcess, o.group) }
	if b != nil && slices.Contains(ofProcess, k.group) && slices.ContainsFunc(active, held) {
		r.logf("%v: broker %d is under another fault", p, b.ID)
		return nil
	}
	a.from = r.ledger.now()
	r.logf("%v: broker %d, which leads %d probed partitions", p, a.target, len(a.led))
	var err error
	if a.heal, err = k.inject(r, p, b); err != nil {
		r.problem("%v: %v", p, err)
	}
	if a.heal == nil {
		return nil
	}
	return a
}

func (r *rig) logf(format string, args ...any) {
	r.t.Helper()
	r.t.Logf("%7.3fs %s", r.ledger.now().Seconds(), fmt.Sprintf(format, args...))
}

// settle waits as the step says. A cluster that does not come to rest is a violation.
func (r *rig) settle(s step) {
	time.Sleep(s.Quiet)
	if s.Settled {
		if err := r.waitInSync(40 * time.Second); err != nil {
			r.problem("not in sync 40 s after the last fault: %v", err)
		}
	}
	for i := range r.done {
		if r.done[i].window == 0 {
			r.done[i].window = r.ledger.now()
		}
	}
}

// revive starts brokers that have ended by themselves, as a watchdog would. A broker may end when ZooKeeper is away while it starts.
func (r *rig) revive() {
	for _, b := range r.cluster.Brokers {
		if !b.Running() {
			r.logf("broker %d has ended by itself", b.ID)
			r.revived++
			b.Start()
		}
	}
}

// target is the broker that plays the role now; nil if there is none that runs.
func (r *rig) target(p planned) *harness.Broker {
	id := 0
	switch p.Role {
	case controller:
		id, _, _ = r.cluster.View().Controller()
	case leader, follower:
		s, err := r.cluster.View().State(ledgerTopic, int(p.Partition))
		if err != nil {
			return nil
		}
		id = s.Leader
		if p.Role == follower {
			followers := slices.DeleteFunc(slices.Clone(s.ISR), func(b int) bool { return b == s.Leader })
			if len(followers) == 0 {
				return nil
			}
			id = followers[p.Draw%uint64(len(followers))]
		}
	}
	if id < 1 || id > brokers {
		return nil
	}
	if b := r.cluster.Broker(id); b.Running() && processState(b.PID()) != 'T' {
		return b
	}
	return nil
}

// ledBy are the probed partitions that a broker leads.
func (r *rig) ledBy(id int) map[int32]bool {
	out := map[int32]bool{}
	for p := range int32(partitions) {
		if s, err := r.cluster.View().State(probeTopic, int(p)); err == nil && s.Leader == id {
			out[p] = true
		}
	}
	return out
}

// waitInSync waits until every replica of every partition is in sync.
func (r *rig) waitInSync(patience time.Duration) error {
	deadline := time.Now().Add(patience)
	for {
		err := r.inSync()
		if err == nil || time.Now().After(deadline) {
			return err
		}
		r.revive()
		time.Sleep(50 * time.Millisecond)
	}
}

func (r *rig) inSync() error {
	for _, topic := range []string{ledgerTopic, probeTopic} {
		for p := range partitions {
			s, err := r.cluster.View().State(topic, p)
			if err != nil {
				return err
			}
			if s.Leader < 0 || len(s.ISR) < brokers {
				return fmt.Errorf("%s/%d: leader %d, in sync %v", topic, p, s.Leader, s.ISR)
			}
		}
	}
	return nil
}

// elections is the number of leaders that were elected so far.
func (r *rig) elections() (n int) {
	for _, topic := range []string{ledgerTopic, probeTopic} {
		for p := range partitions {
			if s, err := r.cluster.View().State(topic, p); err == nil {
				n += s.LeaderEpoch
			}
		}
	}
	return n
}

// patience is how long a cluster may take to come to rest when all faults are healed. Once something has gone wrong already there
// is nothing to wait for.
func (r *rig) patience() time.Duration {
	if len(r.problems) > 0 {
		return 0
	}
	return time.Minute
}
