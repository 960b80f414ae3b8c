package txncoord

import "github.com/prometheus/client_golang/prometheus"

// Metrics count what the coordinator does.
type Metrics struct {
	committed, aborted, timedOut prometheus.Counter
	markerRetries                prometheus.Counter
	loadSeconds                  prometheus.Histogram
}

// NewMetrics makes the metrics and registers them; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	m := &Metrics{
		committed:     counter("ottla_transactions_committed_total", "Transactions that were committed, all markers written."),
		aborted:       counter("ottla_transactions_aborted_total", "Transactions that were aborted, all markers written."),
		timedOut:      counter("ottla_transactions_timed_out_total", "Transactions that were aborted because their time was over."),
		markerRetries: counter("ottla_transaction_marker_retries_total", "Markers that were not accepted and are sent again."),
		loadSeconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "kafka_server_transaction_coordinator_metrics_partition_load_seconds", Help: "Time to load the transactions of a partition.",
			Buckets: prometheus.ExponentialBuckets(0.001, 4, 8),
		}),
	}
	if reg != nil {
		reg.MustRegister(m.committed, m.aborted, m.timedOut, m.markerRetries, m.loadSeconds)
	}
	return m
}
