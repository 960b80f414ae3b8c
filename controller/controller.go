package controller

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// Conn is a connection to one broker, as the senders need it. Requests are sent one at a time.
type Conn interface {
	RoundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, error)
	Close() error
}

// Metadata is this broker's own view of the cluster, as the last UpdateMetadata left it.
type Metadata interface {
	// Leader returns the leader of a partition; NoBroker when it has none, and false when the partition is unknown.
	Leader(topic string, partition int32) (leader cluster.BrokerID, known bool)
	// HasTopic reports whether any partition of the topic is known.
	HasTopic(topic string) bool
}

// Options is what a controller needs from the broker around it.
type Options struct {
	BrokerID cluster.BrokerID
	Config   func() *config.Snapshot // never nil
	Logger   zerolog.Logger
	Eligible bool // false: never stand for election (ottla.controller.eligible)
	// Dial connects to the broker's control plane or inter-broker listener.
	Dial    func(ctx context.Context, b cluster.Broker) (Conn, error)
	Rand    *rand.Rand // where assignments start; nil: seeded by the system. Used by the loop only.
	Metrics *Metrics   // nil: not kept
	// AwaitMetadata calls done once: with true as soon as ready answers true (asked at once and after every change of the broker's
	// metadata), with false at the deadline. It must not block. nil: requests do not wait until their effect is visible.
	AwaitMetadata func(deadline time.Time, ready func(Metadata) bool, done func(visible bool))
}

// Controller is one broker's candidate for controller. Methods may be called from any goroutine.
type Controller struct {
	options Options
	log     zerolog.Logger
	metrics *Metrics
	queue   *queue
	random  *rand.Rand // the loop's
	stop    context.CancelFunc
	ctx     context.Context
	wg      sync.WaitGroup

	active atomic.Bool
	mu     struct {
		sync.Mutex
		session     zkcoord.Session // nil while there is none
		brokerEpoch cluster.BrokerEpoch
		reign       *reign // the current one; set by the loop, ended by whoever doubts it
	}

	// Only the loop touches these.
	cancelWatch  func() // of /controller, in the session that the loop last saw
	nextWatchdog time.Time
	closing      bool // stands for no election any more
}

// Intervals of the loop's own clock.
const (
	tickInterval     = time.Second
	watchdogInterval = 3 * time.Second
)

// New makes a controller. It does nothing before Start and SessionEstablished.
func New(o Options) *Controller {
	c := &Controller{
		options: o,
		log:     o.Logger.With().Str("component", "controller").Logger(),
		metrics: o.Metrics,
		queue:   newQueue(),
		random:  o.Rand,
	}
	if c.metrics == nil {
		c.metrics = NewMetrics(nil)
	}
	if c.random == nil {
		c.random = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	c.ctx, c.stop = context.WithCancel(context.Background())
	return c
}

// Start starts the loop.
func (c *Controller) Start() {
	c.wg.Go(c.loop)
	c.wg.Go(c.tickLoop)
}

// Close resigns, if this broker is the controller and its session lives, and returns when everything has stopped. A controller
// that cannot resign before ctx ends leaves /controller to the end of its session.
func (c *Controller) Close(ctx context.Context) error {
	done := make(chan struct{})
	c.queue.put(event{name: "close", run: func() {
		c.closing = true
		c.endReign("closing", true)
		close(done)
	}, drop: func() { close(done) }})
	select {
	case <-done:
	case <-ctx.Done():
	}
	c.stop()
	c.queue.close()
	stopped := make(chan struct{})
	go func() { // ends with the loop
		c.wg.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the controller: %w", ctx.Err())
	}
}

// Active reports whether this broker is the controller and has finished taking over.
func (c *Controller) Active() bool { return c.active.Load() }

// SessionEstablished tells of a session in which this broker is registered with the given epoch: it watches /controller and
// stands for election.
func (c *Controller) SessionEstablished(s zkcoord.Session, own cluster.BrokerEpoch) {
	c.mu.Lock()
	c.mu.session, c.mu.brokerEpoch = s, own
	c.mu.Unlock()
	if !c.options.Eligible {
		return
	}
	c.queue.put(event{name: "sessionEstablished", run: func() { c.onSession(s) }})
}

// SessionLost ends the reign without ZooKeeper, and answers what waits NOT_CONTROLLER. Nothing planned in the lost session can
// run in a later one: every reign holds the session it began in.
func (c *Controller) SessionLost() {
	c.mu.Lock()
	c.mu.session = nil
	r := c.mu.reign
	c.mu.Unlock()
	if r != nil {
		c.retire(r, "session lost")
	}
}

func (c *Controller) session() zkcoord.Session {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.session
}

func (c *Controller) currentReign() *reign {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.mu.reign
}

// loop takes events one by one. It is the only goroutine that touches a reign's model.
func (c *Controller) loop() {
	for {
		e, ok := c.queue.take()
		if !ok {
			c.endReign("closing", false)
			return
		}
		c.handle(e)
	}
}

func (c *Controller) handle(e event) {
	defer func() {
		if p := recover(); p != nil {
			c.log.Error().Str("event", e.name).Interface("panic", p).Bytes("stack", debug.Stack()).
				Msg("controller event failed, resigning")
			if e.drop != nil {
				e.drop()
			}
			c.endReign("panic", true)
		}
	}()
	if e.reign != nil && e.reign != c.currentReign() {
		e.dropped()
		return
	}
	start := time.Now()
	c.metrics.queueTime(start.Sub(e.queuedAt))
	e.run()
	c.metrics.eventTime(e.name, time.Since(start))
}

func (c *Controller) tickLoop() {
	t := time.NewTicker(tickInterval)
	defer t.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-t.C:
			c.queue.put(event{name: "tick", key: "tick", run: c.onTick})
		}
	}
}
