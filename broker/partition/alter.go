package partition

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
)

// ControllerChannel carries one request to the controller. RoundTrip makes a single attempt: whether an attempt whose answer
// was lost may still be carried out matters here, so the Alterer repeats by itself. It says who was asked: NoBroker when
// nothing was sent.
type ControllerChannel interface {
	RoundTrip(ctx context.Context, req kmsg.Request) (kmsg.Response, Asked, error)
}

// Asked is the controller that a request went to, as the sender knew it.
type Asked struct {
	Broker cluster.BrokerID
	Epoch  cluster.ControllerEpoch
}

// replaced reports whether a request that was lost on its way to a cannot be carried out any more once now has answered: each
// write of the earlier controller fails its check of the controller epoch, and what it wrote before, the later one has read.
// The same broker in a later epoch may still have the request in its queue.
func (a Asked) replaced(now Asked) bool { return a.Broker != now.Broker && a.Epoch < now.Epoch }

const (
	alterRetry   = 50 * time.Millisecond // after a failure that concerns the whole request, or an undecided one
	alterTimeout = 30 * time.Second      // controller.socket.timeout.ms
)

// Alterer sends ISR changes to the controller with AlterPartition: all that are queued in one request, one request in
// flight, repeated until there is a verdict. Source: KIP-497, KIP-841, KIP-903.
type Alterer struct {
	self    cluster.BrokerID
	epoch   func() cluster.BrokerEpoch
	channel ControllerChannel
	log     zerolog.Logger
	signal  chan struct{} // holds one token while something is queued
	mu      struct {
		sync.Mutex
		queue   map[cluster.TopicPartition]*alteration
		dropped []*alteration // replaced before they were sent; Run tells them
	}
}

type alteration struct {
	AlterProposal
	done func(AlterResult)
	lost []Asked // who was sent attempts of unknown outcome
}

// doubtful reports whether an attempt may still be carried out, now that this controller has answered.
func (c *alteration) doubtful(answered Asked) bool {
	return slices.ContainsFunc(c.lost, func(a Asked) bool { return !a.replaced(answered) })
}

var _ AlterPartitionSender = (*Alterer)(nil)

// NewAlterer returns an Alterer; Run must be started. epoch gives this broker's current registration.
func NewAlterer(self cluster.BrokerID, epoch func() cluster.BrokerEpoch, channel ControllerChannel, log zerolog.Logger) *Alterer {
	a := &Alterer{
		self: self, epoch: epoch, channel: channel,
		log: log.With().Str("component", "alter-partition").Logger(), signal: make(chan struct{}, 1),
	}
	a.mu.queue = map[cluster.TopicPartition]*alteration{}
	return a
}

// Propose queues a change. A change of the same partition that is still queued is of an earlier epoch and is dropped.
func (a *Alterer) Propose(p AlterProposal, done func(AlterResult)) {
	a.enqueue(&alteration{AlterProposal: p, done: done})
}

func (a *Alterer) enqueue(c *alteration) {
	a.mu.Lock()
	if old := a.mu.queue[c.TopicPartition]; old != nil {
		a.mu.dropped = append(a.mu.dropped, old)
	}
	a.mu.queue[c.TopicPartition] = c
	a.mu.Unlock()
	select {
	case a.signal <- struct{}{}:
	default:
	}
}

// requeue puts a change back, unless a newer one has come.
func (a *Alterer) requeue(c *alteration) {
	a.mu.Lock()
	_, newer := a.mu.queue[c.TopicPartition]
	if !newer {
		a.mu.queue[c.TopicPartition] = c
	}
	a.mu.Unlock()
	if newer {
		c.done(AlterResult{Err: kerr.FencedLeaderEpoch})
	}
}

func (a *Alterer) take() (changes, dropped []*alteration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := make([]*alteration, 0, len(a.mu.queue))
	for _, c := range a.mu.queue {
		out = append(out, c)
	}
	clear(a.mu.queue)
	dropped, a.mu.dropped = a.mu.dropped, nil
	return out, dropped
}

// Run sends until ctx ends.
func (a *Alterer) Run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.signal:
		}
		for again := true; again && ctx.Err() == nil; {
			if again = a.sendQueued(ctx); again {
				sleep(ctx, alterRetry)
			}
		}
	}
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// sendQueued makes one attempt for everything that is queued, and reports whether something is to be tried again.
func (a *Alterer) sendQueued(ctx context.Context) (again bool) {
	changes, dropped := a.take()
	for _, c := range dropped {
		c.done(AlterResult{Err: kerr.FencedLeaderEpoch})
	}
	if len(changes) == 0 {
		return false
	}
	req := a.request(changes)
	attempt, cancel := context.WithTimeout(ctx, alterTimeout)
	resp, asked, err := a.channel.RoundTrip(attempt, req)
	cancel()
	answer, ok := resp.(*kmsg.AlterPartitionResponse)
	if err == nil && ok && answer.ErrorCode == 0 {
		return a.answer(changes, answer, asked)
	}
	if err == nil && ok {
		err = kerr.ErrorForCode(answer.ErrorCode)
	}
	a.log.Debug().Err(err).Int("changes", len(changes)).Msg("AlterPartition failed, will be sent again")
	for _, c := range changes {
		if !ok && asked.Broker != cluster.NoBroker && !slices.Contains(c.lost, asked) {
			c.lost = append(c.lost, asked)
		}
		a.requeue(c)
	}
	return true
}

// request uses version 3, or version 1 when a topic has no id.
func (a *Alterer) request(changes []*alteration) *kmsg.AlterPartitionRequest {
	req := kmsg.NewPtrAlterPartitionRequest()
	req.Version = 3
	for _, c := range changes {
		if c.TopicID.IsZero() {
			req.Version = 1
		}
	}
	req.BrokerID, req.BrokerEpoch = int32(a.self), int64(a.epoch())
	topics := map[string]int{}
	for _, c := range changes {
		name := c.TopicPartition.Topic
		i, ok := topics[name]
		if !ok {
			i = len(req.Topics)
			topics[name] = i
			t := kmsg.NewAlterPartitionRequestTopic()
			t.Topic, t.TopicID = name, c.TopicID
			req.Topics = append(req.Topics, t)
		}
		req.Topics[i].Partitions = append(req.Topics[i].Partitions, c.requestPartition())
	}
	return req
}

func (c *alteration) requestPartition() kmsg.AlterPartitionRequestTopicPartition {
	p := kmsg.NewAlterPartitionRequestTopicPartition()
	p.Partition = c.TopicPartition.Partition
	p.LeaderEpoch, p.PartitionEpoch = int32(c.LeaderEpoch), int32(c.PartitionEpoch)
	for _, m := range c.ISR {
		p.NewISR = append(p.NewISR, int32(m.Broker))
		e := kmsg.NewAlterPartitionRequestTopicPartitionNewEpochISR()
		e.BrokerID, e.BrokerEpoch = int32(m.Broker), int64(m.Epoch)
		p.NewEpochISR = append(p.NewEpochISR, e)
	}
	return p
}

// answerKey names a partition as the version of the answer does: by topic name in version 1, else by topic id. A controller on this
// very broker hands over its answer undecoded, with both.
type answerKey struct {
	topic     string
	id        cluster.TopicID
	partition int32
}

func keyFor(version int16, topic string, id cluster.TopicID, partition int32) answerKey {
	if version >= 2 {
		return answerKey{id: id, partition: partition}
	}
	return answerKey{topic: topic, partition: partition}
}

// answer hands out the verdicts. A partition that was not answered, or not decided, is sent again.
func (a *Alterer) answer(changes []*alteration, resp *kmsg.AlterPartitionResponse, asked Asked) (again bool) {
	byKey := map[answerKey]*kmsg.AlterPartitionResponseTopicPartition{}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		for j := range t.Partitions {
			byKey[keyFor(resp.Version, t.Topic, cluster.TopicID(t.TopidID), t.Partitions[j].Partition)] = &t.Partitions[j]
		}
	}
	for _, c := range changes {
		p := byKey[keyFor(resp.Version, c.TopicPartition.Topic, c.TopicID, c.TopicPartition.Partition)]
		if p == nil || !decided(kerr.ErrorForCode(p.ErrorCode)) {
			a.requeue(c)
			again = true
			continue
		}
		c.done(AlterResult{
			Err: kerr.ErrorForCode(p.ErrorCode), Leader: cluster.BrokerID(p.LeaderID),
			LeaderEpoch: cluster.LeaderEpoch(p.LeaderEpoch), ISR: brokers(p.ISR),
			PartitionEpoch: cluster.PartitionEpoch(p.PartitionEpoch), Controller: asked.Epoch, Retried: c.doubtful(asked),
		})
	}
	return again
}

// decided reports whether an answer says something about the change; others are sent again.
func decided(err error) bool {
	if err == nil {
		return true
	}
	for _, verdict := range []error{
		kerr.IneligibleReplica, kerr.OperationNotAttempted, kerr.UnknownTopicOrPartition, kerr.UnknownTopicID,
		kerr.FencedLeaderEpoch, kerr.InvalidUpdateVersion, kerr.InvalidRequest,
	} {
		if errors.Is(err, verdict) {
			return true
		}
	}
	return false
}
