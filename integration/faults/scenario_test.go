package faults

import (
	"testing"
	"time"

	"ottla/integration/harness"
)

// scenario plays the same few faults on a fresh cluster and judges as TestFaults does.
func scenario(t *testing.T, steps ...step) {
	t.Helper()
	r := newRig(t, 1)
	able := map[string]bool{}
	for _, k := range r.able() {
		able[k.name] = true
	}
	for _, s := range steps {
		for _, f := range s.Faults {
			if !able[f.Kind] {
				t.Skipf("%s cannot be done here: %v", f.Kind, r.leftOut)
			}
		}
	}
	for _, s := range steps {
		if len(r.problems) == 0 {
			r.play(s)
		}
	}
	r.finish()
}

// TestBrokerStopsThoughZooKeeperIsSilent asks the controller to stop while nothing that ZooKeeper sends arrives.
func TestBrokerStopsThoughZooKeeperIsSilent(t *testing.T) {
	scenario(t, step{Quiet: time.Second, Faults: []planned{
		{Kind: "cut-zk-in", Role: controller, Hold: 18 * time.Second},
		{Kind: "stop", Role: controller, Hold: time.Second},
	}})
}

// TestControllerStopsThoughZooKeeperFallsSilent: the ensemble falls silent while the controller, asked to stop, moves its own leaders
// away, so that its answer to itself does not come.
func TestControllerStopsThoughZooKeeperFallsSilent(t *testing.T) {
	if !harness.Long() {
		t.Skip("long form only (OTTLA_LONG=1)")
	}
	scenario(t, step{Quiet: time.Second, Settled: true, Faults: []planned{
		{Kind: "stop", Role: controller, Hold: time.Second},
		{Kind: "cut-zk-in", Role: controller, Hold: 12 * time.Second},
	}})
}
