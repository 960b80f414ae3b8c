package sim

import (
	"flag"
	"os"
	"strings"
	"testing"
)

var (
	flagSeed  = flag.Int64("sim.seed", 0, "run this seed only")
	flagRuns  = flag.Int("sim.runs", 0, "runs to make; 0: as many as fit into the short form")
	flagTrace = flag.Bool("sim.trace", false, "print the trace of a failing run from its beginning")
)

// states that a set of runs must have reached; otherwise the simulator has drifted into testing the happy path.
var wanted = []string{
	"became leader", "leader again without having followed", "demotion", "demotion with the new leader unknown",
	"diverging fetch", "divergence over several epochs", "truncation", "answer of a past epoch", "fetch refused",
	"ISR changed by its leader", "election or removal by the controller", "ISR change left open", "ISR change refused",
	"answer for a change of the past", "AlterPartition whose answer was lost", "open ISR change settled by the znode",
	"ineligible replica", "preferred election", "bounced broker", "session lost", "controller elected",
	"stale controller request", "power loss with lost records",
	"registration held back after an unclean stop", "kill", "pause", "partition without leader",
}

func TestSeedsKeepInvariants(t *testing.T) {
	cover := map[string]int{}
	events, acked, runs := 0, 0, 0
	first := int64(1)
	if *flagSeed != 0 {
		first, *flagRuns = *flagSeed, 1
	}
	// The short form ends once every named state was reached, and not before so many runs: how fast the machine is must not decide.
	const runsMin, runsMax = 150, 2000
	more := func() bool {
		if *flagRuns > 0 {
			return runs < *flagRuns
		}
		return runs < runsMin || runs < runsMax && missing(cover) != ""
	}
	for seed := first; more(); seed++ {
		r := Run(Config{Seed: seed, Trace: *flagTrace})
		runs++
		events += r.Events
		acked += r.Acked
		for k, n := range r.Coverage {
			cover[k] += n
		}
		if r.Err != nil {
			trace := r.Trace
			if !*flagTrace && len(trace) > 120 {
				trace = trace[len(trace)-120:]
			}
			t.Fatalf("%v\n%s", r.Err, strings.Join(trace, "\n"))
		}
	}
	t.Logf("%d runs, %d events, %d acknowledged", runs, events, acked)
	if testing.Verbose() {
		for k, n := range cover {
			t.Logf("%7d %s", n, k)
		}
	}
	if state := missing(cover); state != "" && *flagRuns == 0 {
		t.Errorf("no run reached: %s", state)
	}
}

// missing is a state that should be reached and was not, or "".
func missing(cover map[string]int) string {
	for _, state := range wanted {
		if cover[state] == 0 {
			return state
		}
	}
	return ""
}

func TestRunReplaysExactly(t *testing.T) {
	a, b := Run(Config{Seed: 42, Trace: true}), Run(Config{Seed: 42, Trace: true})
	if len(a.Trace) != len(b.Trace) || a.Events != b.Events {
		t.Fatalf("%d and %d lines, %d and %d events", len(a.Trace), len(b.Trace), a.Events, b.Events)
	}
	for i := range a.Trace {
		if a.Trace[i] != b.Trace[i] {
			t.Fatalf("line %d differs:\n%s\n%s", i, a.Trace[i], b.Trace[i])
		}
	}
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}
