// Package faults runs clusters under load and under fire: real processes, real signals, real cuts of links. What clients saw is
// judged afterwards, and the replicas' files are compared.
package faults

import (
	"flag"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"ottla/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestFaults plays the schedule of a seed (OTTLA_FAULT_SEED, else 1) for some minutes (OTTLA_FAULT_MINUTES, else one short round)
// and ends with one line of figures. The same seed gives the same schedule; who is hit, and what is lost on the way, is up to the
// cluster. OTTLA_FAULT_SKIP leaves out so many steps at the schedule's beginning: to go on where an earlier run ended.
func TestFaults(t *testing.T) {
	seed := uint64(1)
	if text := os.Getenv("OTTLA_FAULT_SEED"); text != "" {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("OTTLA_FAULT_SEED: %v", err)
		}
		seed = n
	}
	minutes := 1.0
	if text := os.Getenv("OTTLA_FAULT_MINUTES"); text != "" {
		n, err := strconv.ParseFloat(text, 64)
		if err != nil {
			t.Fatalf("OTTLA_FAULT_MINUTES: %v", err)
		}
		minutes = n
	}
	r := newRig(t, seed)
	plan := newPlanner(seed, r.able(), partitions, harness.SessionTimeout)
	skip, _ := strconv.Atoi(os.Getenv("OTTLA_FAULT_SKIP"))
	for range skip {
		plan.next()
	}
	end := time.Now().Add(time.Duration(minutes * float64(time.Minute)))
	for time.Now().Before(end) && len(r.problems) == 0 {
		s := plan.next()
		r.play(s)
		r.steps++
		for _, rec := range []*recorder{r.ledger, r.probes} {
			if alarm := rec.alarm(); alarm != "" {
				r.problem("%s: %s", rec.topic, alarm)
			}
		}
	}
	t.Logf("played steps %d to %d of seed %d", skip, skip+r.steps, seed)
	r.finish()
}

// wantedByName reports whether tests were chosen with -run: then those that are long run as well.
func wantedByName() bool {
	f := flag.Lookup("test.run")
	return f != nil && strings.Contains(f.Value.String(), "TestS")
}
