package sim

import (
	"testing"

	"ottla/broker/replication"
)

// TestDump prints the world at the end of the run of -sim.seed.
func TestDump(t *testing.T) {
	if *flagSeed == 0 {
		t.Skip()
	}
	w := newWorld(Config{Seed: *flagSeed})
	w.start()
	w.scheduleFaults()
	w.runUntil(w.now + replication.Instant(w.cfg.Faults))
	w.heal()
	w.converge()
	for _, b := range w.brokers {
		t.Logf("%v up %v paused %v epoch %v session %v ctl %v meta.ctl %v live %v unclean %v registered %v queue %d busy %v", b.id, b.up, b.paused, b.brokerEpoch, b.session, b.controller != nil, b.metadata.controller, b.metadata.live, b.unclean, w.zk.brokers[b.id].epoch, len(b.alterQueue), b.alterBusy)
		for p, r := range b.replicas {
			t.Logf("   p%d %v leader %v epoch %d pe %d hw %d end %d disk %d waits %d isr %v pend %v", p, r.state.Role(), r.state.Leader(), r.state.LeaderEpoch(), r.state.PartitionEpoch(), r.state.HighWatermark(), r.state.LogEnd(), b.disks[p].end(), len(r.waits), r.state.ISR(), r.state.PendingISR())
			for _, f := range r.state.Followers(b.time()) {
				t.Logf("      %+v", f)
			}
		}
		if b.controller != nil {
			t.Logf("   controller busy %v tasks %d live %v", b.controller.busy, len(b.controller.tasks), b.controller.live)
			for id, s := range b.controller.senders {
				t.Logf("      sender %v busy %v queue %d", id, s.busy, len(s.queue))
			}
		}
	}
}
