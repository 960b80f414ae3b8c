package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// reign is one term of this broker as the controller: from a won election to the first doubt. Only the loop uses it, except for
// what is marked. Once it is over nothing of it acts: its session handle, its epoch's znode version and its senders are its own.
type reign struct {
	c            *Controller
	s            zkcoord.Session
	epochVersion int32 // data version of /controller_epoch, the fence of every write
	m            *model
	out          *batch
	senders      map[cluster.BrokerID]*sender
	log          zerolog.Logger
	ctx          context.Context // ends with the reign; any goroutine
	cancel       context.CancelFunc

	nextRebalance time.Time
	nextGauges    time.Time

	mu struct { // what watches collect for the next event
		sync.Mutex
		modified map[string]struct{} // topics whose znode changed
	}
}

func (c *Controller) newReign(s zkcoord.Session, e zkcoord.Election) *reign {
	r := &reign{
		c:            c,
		s:            s,
		epochVersion: e.EpochVersion,
		m:            newModel(e.Epoch),
		out:          newBatch(),
		senders:      map[cluster.BrokerID]*sender{},
		log:          c.log.With().Int32("controller_epoch", int32(e.Epoch)).Logger(),
	}
	r.mu.modified = map[string]struct{}{}
	r.ctx, r.cancel = context.WithCancel(c.ctx)
	return r
}

// over reports whether an error means that this broker is not, or may not be, the controller any more.
func over(err error) bool {
	return errors.Is(err, zkcoord.ErrFenced) || errors.Is(err, zkcoord.ErrSessionLost)
}

// post enqueues an event of this reign. Any goroutine.
func (r *reign) post(name, key string, run func() error) {
	r.c.queue.put(event{name: name, key: key, reign: r, run: func() { r.run(name, run) }})
}

// run does one event's work, sends what it decided, and ends the reign when the outcome casts doubt on it. An error of another
// kind is logged and the rest of its event is lost, as in Kafka: the next event or reign sees what is left to do.
func (r *reign) run(name string, f func() error) {
	err := f()
	if err != nil && over(err) {
		r.log.Info().Err(err).Str("event", name).Msg("not the controller any more")
		r.c.endReign("fenced", false)
		r.c.queue.put(event{name: "controllerChange", key: "controllerChange", run: r.c.onControllerChange})
		return
	}
	if err != nil {
		r.log.Error().Err(err).Str("event", name).Msg("controller event failed")
	}
	r.flush()
	r.refreshGauges()
}

func (r *reign) refreshGauges() {
	now := time.Now()
	if now.Before(r.nextGauges) {
		return
	}
	r.nextGauges = now.Add(tickInterval)
	r.c.metrics.refresh(r.m)
	r.c.metrics.eventQueueSize.Set(float64(r.c.queue.length()))
}

func (r *reign) config() *config.Snapshot { return r.c.options.Config() }

// self is this broker.
func (r *reign) self() cluster.BrokerID { return r.c.options.BrokerID }

// interBrokerListener names the listener whose end points travel in LeaderAndIsr.
func (r *reign) interBrokerListener() string {
	name, err := config.InterBrokerListener(r.config())
	if err != nil {
		return ""
	}
	return name
}

// flush sends what the batch has collected.
func (r *reign) flush() {
	if r.out.empty() {
		return
	}
	out := r.out
	r.out = newBatch()
	for _, o := range out.requests(r.m, r.self(), r.interBrokerListener()) {
		if s := r.senders[o.to]; s != nil {
			s.enqueue(o.req)
		}
	}
}

// addSender starts the sender to a broker's current registration.
func (r *reign) addSender(b cluster.Broker) {
	r.removeSender(b.ID)
	s := &sender{
		dial:    r.c.options.Dial,
		timeout: config.ControllerSocketTimeoutMs.Of(r.config()),
		answer:  r.onAnswer,
		metrics: r.c.metrics,
		log:     r.log,
		wake:    make(chan struct{}, 1),
	}
	s.mu.to = b
	s.ctx, s.cancel = context.WithCancel(r.ctx)
	r.senders[b.ID] = s
	r.c.wg.Go(s.runLoop)
}

func (r *reign) removeSender(id cluster.BrokerID) {
	if s := r.senders[id]; s != nil {
		s.stop()
		delete(r.senders, id)
	}
}

// onAnswer hears every answer, on the sender's goroutine.
func (r *reign) onAnswer(from cluster.Broker, req kmsg.Request, resp kmsg.Response) {
	switch resp := resp.(type) {
	case *kmsg.LeaderAndISRResponse:
		r.post("leaderAndISRAnswer", "", func() error { return r.onLeaderAndISRAnswer(from, resp) })
	case *kmsg.StopReplicaResponse:
		if sr, ok := req.(*kmsg.StopReplicaRequest); ok {
			r.post("stopReplicaAnswer", "", func() error { return r.onStopReplicaAnswer(from, sr, resp) })
		}
	case *kmsg.UpdateMetadataResponse:
		if resp.ErrorCode != 0 {
			r.log.Warn().Int32("broker", int32(from.ID)).Int16("code", resp.ErrorCode).Msg("broker refused metadata")
		}
	}
}

// retire makes a reign stop acting, from any goroutine: no event of it runs any more, its senders stop. The loop tidies up.
func (c *Controller) retire(r *reign, why string) {
	c.mu.Lock()
	if c.mu.reign != r {
		c.mu.Unlock()
		return
	}
	c.mu.reign = nil
	c.active.Store(false)
	c.mu.Unlock()

	r.cancel()
	c.metrics.resignations.Inc()
	c.metrics.reset()
	c.log.Info().Int32("controller_epoch", int32(r.m.epoch)).Str("reason", why).Msg("resigned as controller")
	c.queue.dropReign(r)
}

// endReign ends the current reign, if there is one. With deleteNode /controller is given up, so that another broker takes over at
// once; that is conditional on the reign's epoch, so it cannot hit a successor.
func (c *Controller) endReign(why string, deleteNode bool) {
	r := c.currentReign()
	if r == nil {
		return
	}
	c.retire(r, why)
	r.tidy()
	if !deleteNode {
		return
	}
	if err := zkcoord.Resign(r.s, r.epochVersion); err != nil {
		c.log.Warn().Err(err).Msg("could not give up /controller; it goes with the session")
	}
}

// tidy cancels the watches of an ended reign.
func (r *reign) tidy() {
	for _, t := range r.m.topics {
		if t.cancelWatch != nil {
			t.cancelWatch()
		}
	}
	for _, b := range r.m.brokers {
		if b.cancelWatch != nil {
			b.cancelWatch()
		}
	}
	for _, cancel := range r.m.cancels {
		cancel()
	}
}
