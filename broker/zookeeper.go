package broker

import (
	"context"
	"time"

	"ottla/zkcoord"
)

// zooKeeper is what the broker needs of its ZooKeeper client.
type zooKeeper interface {
	Session() zkcoord.Session // the current one; it may be over
	Connected() bool
	LeaseValid() bool
	LeaseRemaining() time.Duration
	LeaseLength() (length time.Duration, proven bool)
	Close()
}

func connectZooKeeper(ctx context.Context, o zkcoord.Options) (zooKeeper, error) {
	c, err := zkcoord.Connect(ctx, o)
	if err != nil {
		return nil, err
	}
	return c, nil
}
