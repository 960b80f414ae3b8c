package broker

import (
	"context"
	"time"

	"ottla/config"
	"ottla/controller"
	"ottla/internal/cluster"
)

func (b *Broker) openController(context.Context) error {
	b.controller = controller.New(controller.Options{
		BrokerID:      b.id,
		Config:        b.config.Load,
		Logger:        b.log,
		Eligible:      config.OttlaControllerEligible.Of(b.config.Load()),
		Dial:          func(ctx context.Context, to cluster.Broker) (controller.Conn, error) { return b.dialControl(ctx, to) },
		Metrics:       controller.NewMetrics(b.registry),
		AwaitMetadata: b.awaitMetadata,
	})
	b.controller.Start()
	return nil
}

func (b *Broker) closeController(ctx context.Context) {
	patience := controllerCloseTimeout
	if !b.zk.Connected() { // it may be inside a read that only the end of the session ends
		patience = unreachedCloseTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := b.controller.Close(ctx); err != nil {
		b.log.Warn().Err(err).Msg("the controller did not end in time")
	}
}

// How long the end of a controller is waited for. ZooKeeper may fall silent unnoticed: what waits for it then ends with the session.
const (
	controllerCloseTimeout = 5 * time.Second
	unreachedCloseTimeout  = 2 * time.Second
)

// awaitMetadata tells the controller when the effect of a request can be seen by this broker's clients.
func (b *Broker) awaitMetadata(deadline time.Time, ready func(controller.Metadata) bool, done func(visible bool)) {
	b.metadata.await(deadline, func(m *metadata) bool { return ready(metadataView{m}) }, done)
}

// metadataView is the part of a snapshot that the controller looks at.
type metadataView struct{ m *metadata }

func (v metadataView) Leader(topic string, number int32) (cluster.BrokerID, bool) {
	p := v.m.partition(topic, number)
	if p == nil {
		return cluster.NoBroker, false
	}
	return p.leader, true
}

func (v metadataView) HasTopic(topic string) bool { return v.m.topics[topic] != nil }
