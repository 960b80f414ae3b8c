package broker

import "github.com/prometheus/client_golang/prometheus"

// metrics are the broker's own; each room registers its own struct in the same registry, one per broker.
type metrics struct {
	unknownErrors prometheus.Counter
	bytesOut      prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		unknownErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ottla_unknown_errors_total", Help: "Errors that were answered as UNKNOWN_SERVER_ERROR.",
		}),
		bytesOut: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "kafka_server_brokertopicmetrics_bytesout_total", Help: "Bytes of records given to fetches.",
		}),
	}
	reg.MustRegister(m.unknownErrors, m.bytesOut)
	return m
}

func (m *metrics) fetched(items []fetchItem) {
	n := 0
	for i := range items {
		n += items[i].bytes()
	}
	if n > 0 {
		m.bytesOut.Add(float64(n))
	}
}
