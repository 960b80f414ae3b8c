package broker

import (
	"errors"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/broker/partition"
	"ottla/broker/scrape"
)

// metrics are the broker's own; each room registers its own struct in the same registry, one per broker. What can be read off the
// broker's state is gathered at a scrape instead, see picture.go.
type metrics struct {
	unknownErrors prometheus.Counter

	scrapes   chan struct{}   // as many scrapes at a time, so that they do not disturb the broker
	requests  scrape.Requests // the server's hooks
	zookeeper scrape.Histogram
	idle      scrape.Idle
	logins    scrape.Logins
	session   struct{ disconnects, syncConnects, expires atomic.Int64 }
}

const scrapesAtOnce = 2

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		scrapes: make(chan struct{}, scrapesAtOnce),
		unknownErrors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "ottla_unknown_errors_total", Help: "Errors that were answered as UNKNOWN_SERVER_ERROR.",
		}),
	}
	reg.MustRegister(m.unknownErrors, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// appended counts what became of one partition's records.
func appended(t *partition.Traffic, bytes int, res *partition.AppendResult) {
	switch {
	case res.Err == nil && !res.Duplicate:
		t.BytesIn.Add(int64(bytes))
		t.MessagesIn.Add(res.LastOffset - res.BaseOffset + 1)
	case res.Err == nil:
	case errors.Is(res.Err, kerr.MessageTooLarge), errors.Is(res.Err, kerr.RecordListTooLarge):
		t.BytesRejected.Add(int64(bytes))
	case !settledByClients(res.Err):
		t.FailedProduces.Add(1)
	}
}

// fetched counts what the answer to a fetch gives of one partition.
func (f *fetch) fetched(it *fetchItem) {
	t := it.traffic
	if t == nil {
		return // not resolved
	}
	t.FetchRequests.Add(1)
	switch n := int64(it.bytes()); {
	case it.err != nil && !settledByClients(it.err):
		t.FailedFetches.Add(1)
	case n > 0 && f.replica >= 0:
		t.ReplicationBytesOut.Add(n)
	case n > 0:
		t.BytesOut.Add(n)
	}
}

// settledByClients reports whether an error is part of ordinary life: Kafka does not count it as a failed request.
func settledByClients(err error) bool {
	for _, ordinary := range []error{
		kerr.NotLeaderForPartition, kerr.UnknownTopicOrPartition, kerr.UnknownLeaderEpoch, kerr.FencedLeaderEpoch,
		kerr.OffsetOutOfRange, kerr.ReplicaNotAvailable, kerr.KafkaStorageError, kerr.InconsistentTopicID, kerr.CorruptMessage,
	} {
		if errors.Is(err, ordinary) {
			return true
		}
	}
	return false
}
