package controller

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the controller's figures, under the names that the usual dashboards of Kafka scrape.
type Metrics struct {
	activeControllerCount           prometheus.Gauge
	globalTopicCount                prometheus.Gauge
	globalPartitionCount            prometheus.Gauge
	offlinePartitionsCount          prometheus.Gauge
	preferredReplicaImbalanceCount  prometheus.Gauge
	topicsToDeleteCount             prometheus.Gauge
	topicsIneligibleToDeleteCount   prometheus.Gauge
	replicasToDeleteCount           prometheus.Gauge
	replicasIneligibleToDeleteCount prometheus.Gauge
	activeBrokerCount               prometheus.Gauge
	eventQueueSize                  prometheus.Gauge
	eventQueueTime                  prometheus.Histogram
	eventTimeByName                 *prometheus.HistogramVec
	uncleanLeaderElections          prometheus.Counter
	leaderElections                 prometheus.Counter
	resignations                    prometheus.Counter
	requestsSent                    *prometheus.CounterVec
	requestRetries                  prometheus.Counter
}

// NewMetrics makes the metrics and registers them with reg, unless that is nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	}
	const c = "kafka_controller_kafkacontroller_"
	buckets := prometheus.ExponentialBuckets(0.0005, 4, 10) // 0.5 ms … 131 s
	m := &Metrics{
		activeControllerCount:           gauge(c+"activecontrollercount", "1 while this broker is the controller."),
		globalTopicCount:                gauge(c+"globaltopiccount", "Topics in the cluster."),
		globalPartitionCount:            gauge(c+"globalpartitioncount", "Partitions in the cluster."),
		offlinePartitionsCount:          gauge(c+"offlinepartitionscount", "Partitions without a working leader."),
		preferredReplicaImbalanceCount:  gauge(c+"preferredreplicaimbalancecount", "Partitions not led by their first replica."),
		topicsToDeleteCount:             gauge(c+"topicstodeletecount", "Topics that wait for their deletion."),
		topicsIneligibleToDeleteCount:   gauge(c+"topicsineligibletodeletecount", "Topics whose deletion is held up."),
		replicasToDeleteCount:           gauge(c+"replicastodeletecount", "Replicas that wait for their deletion."),
		replicasIneligibleToDeleteCount: gauge(c+"replicasineligibletodeletecount", "Replicas whose deletion is held up."),
		activeBrokerCount:               gauge(c+"activebrokercount", "Registered brokers that are not shutting down."),
		eventQueueSize:                  gauge("kafka_controller_controllereventmanager_eventqueuesize", "Events that wait for the controller's loop."),
		eventQueueTime: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "ottla_controller_event_queue_time_seconds",
			Help: "Time that an event waits for the controller's loop.", Buckets: buckets}),
		eventTimeByName: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "ottla_controller_event_time_seconds",
			Help: "Time that the controller's loop spends on an event.", Buckets: buckets}, []string{"event"}),
		uncleanLeaderElections: counter("kafka_controller_controllerstats_uncleanleaderelections_total", "Unclean leader elections."),
		leaderElections:        counter("ottla_controller_leader_elections_total", "Leaders elected, of all kinds."),
		resignations:           counter("ottla_controller_resignations_total", "Ended reigns of this broker as controller."),
		requestsSent: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "ottla_controller_requests_sent_total",
			Help: "Requests to brokers that were answered, by request."}, []string{"request"}),
		requestRetries: counter("ottla_controller_request_retries_total", "Requests to brokers that were sent again after a connection error."),
	}
	if reg != nil {
		reg.MustRegister(m.activeControllerCount, m.globalTopicCount, m.globalPartitionCount, m.offlinePartitionsCount,
			m.preferredReplicaImbalanceCount, m.topicsToDeleteCount, m.topicsIneligibleToDeleteCount, m.replicasToDeleteCount,
			m.replicasIneligibleToDeleteCount, m.activeBrokerCount, m.eventQueueSize, m.eventQueueTime, m.eventTimeByName,
			m.uncleanLeaderElections, m.leaderElections, m.resignations, m.requestsSent, m.requestRetries)
	}
	return m
}

func (m *Metrics) queueTime(d time.Duration) { m.eventQueueTime.Observe(d.Seconds()) }

func (m *Metrics) eventTime(name string, d time.Duration) {
	m.eventTimeByName.WithLabelValues(name).Observe(d.Seconds())
}

// refresh sets the gauges from the model. It visits every partition: about a millisecond for 100,000 of them.
func (m *Metrics) refresh(md *model) {
	var partitions, offline, imbalanced, toDelete, ineligible, replicas, ineligibleReplicas int
	for _, t := range md.topics {
		if t.deletion != nil {
			toDelete++
			if t.deletion.ineligible != "" {
				ineligible++
			}
		}
		for p := range t.each() {
			partitions++
			if t.deletion != nil {
				replicas += len(p.replicas)
				ineligibleReplicas += p.replicasInDeletion(deletionIneligible)
				continue
			}
			if md.phase(p) != phaseOnline {
				offline++
			}
			if p.known && p.state.Leader != p.preferred() {
				imbalanced++
			}
		}
	}
	m.globalTopicCount.Set(float64(len(md.topics)))
	m.globalPartitionCount.Set(float64(partitions))
	m.offlinePartitionsCount.Set(float64(offline))
	m.preferredReplicaImbalanceCount.Set(float64(imbalanced))
	m.topicsToDeleteCount.Set(float64(toDelete))
	m.topicsIneligibleToDeleteCount.Set(float64(ineligible))
	m.replicasToDeleteCount.Set(float64(replicas))
	m.replicasIneligibleToDeleteCount.Set(float64(ineligibleReplicas))
	m.activeBrokerCount.Set(float64(md.liveCount()))
}

func (m *Metrics) reset() {
	for _, g := range []prometheus.Gauge{m.activeControllerCount, m.globalTopicCount, m.globalPartitionCount, m.offlinePartitionsCount,
		m.preferredReplicaImbalanceCount, m.topicsToDeleteCount, m.topicsIneligibleToDeleteCount, m.replicasToDeleteCount,
		m.replicasIneligibleToDeleteCount, m.activeBrokerCount} {
		g.Set(0)
	}
}
