package groupcoord

import "github.com/prometheus/client_golang/prometheus"

// Metrics count what the coordinator does; what it has is counted when it is asked (see Collect).
type Metrics struct {
	rebalances     prometheus.Counter
	completed      prometheus.Counter
	expiredMembers prometheus.Counter
	commits        prometheus.Counter
	expiredOffsets prometheus.Counter
	loadSeconds    prometheus.Histogram
}

// NewMetrics makes the metrics and registers them; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	const group = "kafka_coordinator_group_"
	m := &Metrics{
		rebalances:     counter("ottla_group_rebalances_total", "Rebalances that began."),
		completed:      counter(group+"groupcoordinatormetrics_group_completed_rebalance_total", "Rebalances that ended with an assignment."),
		expiredMembers: counter("ottla_group_members_expired_total", "Members whose session ended without a heartbeat."),
		commits:        counter(group+"groupcoordinatormetrics_offset_commit_total", "Committed offsets."),
		expiredOffsets: counter(group+"groupcoordinatormetrics_offset_expiration_total", "Offsets that expired."),
		loadSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: group + "groupcoordinatormetrics_partition_load_seconds", Help: "Time to load the groups of a partition.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
	}
	if reg != nil {
		reg.MustRegister(m.rebalances, m.completed, m.expiredMembers, m.commits, m.expiredOffsets, m.loadSeconds)
	}
	return m
}
