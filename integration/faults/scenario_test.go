package faults

import (
	"testing"
	"time"
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
