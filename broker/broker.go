// Package broker is a running broker: it assembles the rooms of the house, serves the wire's requests from one table, and
// owns the order in which things start and stop.
package broker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/fetcher"
	"ottla/broker/partition"
	"ottla/broker/quota"
	"ottla/broker/wire"
	"ottla/config"
	"ottla/controller"
	"ottla/groupcoord"
	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/security"
	"ottla/security/acl"
	"ottla/txncoord"
	"ottla/zkcoord"
)

// requestTimeout bounds what this broker asks of others on its own account: request.timeout.ms.
func (b *Broker) requestTimeout() time.Duration {
	return max(config.RequestTimeoutMs.Of(b.config.Load()), time.Second) // Kafka takes any number
}

// Broker is one broker of the cluster. New makes it, Run runs it once.
type Broker struct {
	id        cluster.BrokerID // constant once Run has passed identity
	clusterID string
	log       zerolog.Logger
	registry  *prometheus.Registry
	metrics   *metrics

	config           atomic.Pointer[config.Snapshot]
	connectionLimits atomic.Pointer[wire.Limits]
	brokerEpoch      atomic.Int64
	ready            chan struct{} // closed when the broker serves and is registered
	registered       *gate         // open while this broker is registered and knows its epoch
	shuttingDown     atomic.Bool
	stage            atomic.Int32 // how many of the steps stand, for those who look at the broker while it starts and stops
	version          string
	gainedAt         atomic.Int64 // when leaderships last came here, ns since 1970

	metadata       *metadataCache
	topicConfigs   *topicConfigs
	fetchSessions  *fetchSessions
	producerIDs    *producerIDs
	controllerLink *controllerLink
	tasks          *tasks
	acls           *acl.Store // nil: everything is allowed
	sasl           *security.SASL
	tls            *security.TLS
	credentials    security.Credentials

	leaderThrottle, followerThrottle *quota.Throttle
	quotas                           *quota.Clients

	zk         zooKeeper
	connect    func(context.Context, zkcoord.Options) (zooKeeper, error) // tests put another ZooKeeper here
	sessions   *sessions
	logs       *logstore.Manager
	cleaner    *logstore.Cleaner // nil with log.cleaner.enable=false
	partitions *partition.Set
	alterer    *partition.Alterer
	fetchers   *fetcher.Manager
	controller *controller.Controller
	groups     *groupcoord.Coordinator

	transactions             *txncoord.Coordinator
	markerLinks, verifyLinks *peers
	verifier                 *verifier

	server    *wire.Server
	jobs      *scheduler
	admin     *admin // nil without ottla.admin.listener
	lags      lagReader
	loops     loops
	drain     drain
	suspects  suspects
	fullDisk  fullDisk
	recovered recovered

	serving    context.Context // ends when the listeners close: what clients wait for then is of no use any more
	endServing context.CancelFunc
}

// New makes a broker of its settings. Nothing is opened yet.
func New(snapshot *config.Snapshot, log zerolog.Logger) *Broker {
	b := &Broker{
		log:        log,
		version:    "unknown",
		registry:   prometheus.NewRegistry(),
		ready:      make(chan struct{}),
		registered: newGate(),
		metadata:   newMetadataCache(),
		tasks:      newTasks(),
	}
	b.connect = connectZooKeeper
	b.serving, b.endServing = context.WithCancel(context.Background())
	b.metrics = newMetrics(b.registry)
	b.config.Store(snapshot)
	b.brokerEpoch.Store(int64(cluster.NoBrokerEpoch))
	b.fullDisk.b, b.recovered.b = b, b
	b.fetchSessions = newFetchSessions(func() int { return config.MaxIncrementalFetchSessionCacheSlots.Of(b.config.Load()) })
	b.producerIDs = &producerIDs{serving: b.serving, allocate: b.allocateFromController, run: b.tasks.run, log: log}

	b.leaderThrottle, b.followerThrottle = b.throttleOf(leaderThrottledRate), b.throttleOf(followerThrottledRate)
	b.quotas = newClientQuotas(snapshot)
	b.topicConfigs = newTopicConfigs()
	b.topicConfigs.broker = b.config.Load
	b.topicConfigs.session = func() zkcoord.Session { return b.zk.Session() }
	b.topicConfigs.run = b.tasks.run
	b.topicConfigs.changed = b.topicConfigChanged
	b.topicConfigs.log = log

	b.controllerLink = newControllerLink()
	b.controllerLink.metadata = b.metadata
	b.controllerLink.local = b.askLocalController
	b.controllerLink.dial = b.dialControl
	b.controllerLink.log = log

	b.markerLinks = newPeers(b, func(req kmsg.Request, done func(kmsg.Response)) {
		b.writeMarkers(req.(*kmsg.WriteTxnMarkersRequest), done)
	})
	b.verifyLinks = newPeers(b, nil) // this broker's own transactions are looked up, see verifier.ask
	b.verifier = newVerifier(b)
	return b
}

// SetVersion says what metrics tell as the program's version. To be called before Run.
func (b *Broker) SetVersion(version string) { b.version = version }

// Ready is closed when the broker is registered and serves.
func (b *Broker) Ready() <-chan struct{} { return b.ready }

// Addr is the address that a listener is bound to, for port 0; valid once Ready.
func (b *Broker) Addr(listener string) string { return b.server.Addr(listener).String() }

func (b *Broker) epoch() cluster.BrokerEpoch { return cluster.BrokerEpoch(b.brokerEpoch.Load()) }

// step is one component of a broker's life.
type step struct {
	name  string
	start func(ctx context.Context) error
	stop  func(ctx context.Context)
}

// steps is the order in which a broker starts; it stops in the reverse one. Everything that can fail comes before anything
// that announces the broker.
func (b *Broker) steps() []step {
	return []step{
		{"admin port", b.openAdmin, b.closeAdmin}, // tells how the start goes
		{"zookeeper", b.openSession, func(context.Context) { b.zk.Close() }},
		{"identity", b.findIdentity, nil},
		{"settings", b.loadDynamicSettings, nil},
		{"credentials", func(context.Context) error { return b.loadCredentials(b.zk.Session()) }, nil},
		{"quotas", func(context.Context) error { return b.loadQuotas(b.zk.Session()) }, nil},
		{"acls", func(context.Context) error { return b.loadACLs(b.zk.Session()) }, nil},
		{"logs", b.openLogs, func(context.Context) { b.closeLogs() }},
		{"tasks", nil, func(context.Context) { b.tasks.wait() }},
		{"partitions", b.openPartitions, func(context.Context) { b.closePartitions() }},
		{"groups", b.openGroups, b.closeGroups},
		{"transactions", b.openTransactions, b.closeTransactions},
		{"jobs", b.startJobs, func(context.Context) { b.jobs.stop() }},
		{"controller", b.openController, func(ctx context.Context) { b.closeController(ctx) }},
		{"listeners", b.openListeners, func(ctx context.Context) { b.closeListeners(ctx) }},
		{"waiting members", nil, b.closeGroups}, // before the listeners wait for pending answers
		{"registration", b.register, func(ctx context.Context) { b.leaveCluster(ctx) }},
	}
}

// Run starts the broker, serves until ctx is cancelled, and stops it: leaders move away, what is pending is finished, logs
// are flushed and marked clean, the session is closed. The error says why the start failed.
func (b *Broker) Run(ctx context.Context) error {
	defer b.endServing()
	began := time.Now()
	steps := b.steps()
	for i, s := range steps {
		if s.start != nil {
			if err := s.start(ctx); err != nil {
				b.stop(steps[:i])
				if ctx.Err() != nil && errors.Is(err, context.Canceled) {
					return nil // asked to stop while starting
				}
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
		b.stage.Store(int32(i + 1))
	}
	close(b.ready)
	b.announce(time.Since(began))
	<-ctx.Done()
	b.log.Info().Msg("stopping")
	b.stop(steps)
	b.log.Info().Int("broker", int(b.id)).Msg("stopped")
	return nil
}

// stopTimeout bounds a clean stop; what has not ended by then is left to the operating system.
const stopTimeout = 60 * time.Second

func (b *Broker) stop(steps []step) {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	for i := len(steps) - 1; i >= 0; i-- {
		b.stage.Store(int32(i))
		if steps[i].stop != nil {
			steps[i].stop(ctx)
		}
	}
}

// askLocalController serves this broker's own requests to the controller when it is the controller itself.
func (b *Broker) askLocalController(req kmsg.Request, done func(kmsg.Response)) {
	switch req := req.(type) {
	case *kmsg.AlterPartitionRequest:
		b.controller.AlterPartition(req, func(r *kmsg.AlterPartitionResponse) { done(r) })
	case *kmsg.AllocateProducerIDsRequest:
		b.controller.AllocateProducerIDs(req, func(r *kmsg.AllocateProducerIDsResponse) { done(r) })
	case *kmsg.ControlledShutdownRequest:
		b.controller.ControlledShutdown(req, func(r *kmsg.ControlledShutdownResponse) { done(r) })
	default:
		panic(fmt.Sprintf("broker: %T is no request to a controller", req))
	}
}

// dial connects to another broker on the inter-broker listener.
func (b *Broker) dial(ctx context.Context, to cluster.Broker) (*wire.Client, error) {
	return b.dialOn(ctx, to, b.interBrokerListener())
}

// dialControl connects a controller to a broker, and a broker to its controller.
func (b *Broker) dialControl(ctx context.Context, to cluster.Broker) (*wire.Client, error) {
	return b.dialOn(ctx, to, b.controlListener())
}

func (b *Broker) dialOn(ctx context.Context, to cluster.Broker, listener string) (*wire.Client, error) {
	e, ok := to.Endpoint(listener)
	if !ok {
		return nil, fmt.Errorf("broker %d has no listener %s, on which this one talks to others", to.ID, listener)
	}
	o := wire.DialOptions{
		ClientID: itoa(int64(b.id)),
		Timeout:  b.requestTimeout(),
	}
	if security.UsesTLS(e.Protocol) {
		o.Wrap = func(ctx context.Context, nc net.Conn) (net.Conn, error) {
			return b.tls.Connect(ctx, listener, e.Protocol, e.Host, nc)
		}
	}
	if security.UsesSASL(e.Protocol) {
		o.Login = func(ctx context.Context, ask func(context.Context, kmsg.Request) (kmsg.Response, error)) (time.Duration, error) {
			return b.sasl.LogIn(ctx, listener, ask)
		}
	}
	return wire.Dial(ctx, hostPort(e.Host, e.Port), o)
}

func (b *Broker) interBrokerListener() string {
	name, err := config.InterBrokerListener(b.config.Load())
	if err != nil {
		return "" // refused at start
	}
	return name
}

// controlListener is control.plane.listener.name (KIP-291), by default the inter-broker listener.
func (b *Broker) controlListener() string {
	if name := strings.ToUpper(config.ControlPlaneListenerName.Of(b.config.Load())); name != "" {
		return name
	}
	return b.interBrokerListener()
}
