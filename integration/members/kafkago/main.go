// Command kafkago is a member of a consumer group, made of kafka-go's Reader; see package members. A Reader does not tell what is
// assigned to it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	kafka "github.com/segmentio/kafka-go"

	"ottla/integration/members"
)

func main() {
	m := members.Arguments()
	balancer, ok := map[string]kafka.GroupBalancer{"range": kafka.RangeGroupBalancer{}, "round-robin": kafka.RoundRobinGroupBalancer{}}[m.Assignor]
	if !ok || m.Instance != "" {
		members.Fail(fmt.Errorf("assignor %s, instance %q", m.Assignor, m.Instance))
	}
	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: strings.Split(m.Bootstrap, ","), GroupID: m.Group, Topic: m.Topic, StartOffset: kafka.FirstOffset,
		MaxWait: 200 * time.Millisecond, SessionTimeout: m.Session, HeartbeatInterval: m.Session / 10, RebalanceTimeout: m.Session,
		JoinGroupBackoff: 500 * time.Millisecond, GroupBalancers: []kafka.GroupBalancer{balancer},
		Dialer: &kafka.Dialer{Timeout: 3 * time.Second},
	})
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	for ctx.Err() == nil {
		batch := fetch(ctx, reader)
		if len(batch) == 0 {
			continue
		}
		if err := reader.CommitMessages(context.Background(), batch...); err != nil {
			fmt.Println("error commit:", err)
			continue
		}
		last := map[int32]int64{}
		for _, msg := range batch {
			last[int32(msg.Partition)] = msg.Offset + 1
		}
		members.Committed(last)
	}
	if err := reader.Close(); err != nil {
		members.Fail(err)
	}
}

// fetch waits for a message and takes those that come soon after it.
func fetch(ctx context.Context, reader *kafka.Reader) (batch []kafka.Message) {
	for len(batch) < 100 {
		msg, err := reader.FetchMessage(ctx)
		if err != nil {
			break
		}
		members.Handled(int32(msg.Partition), msg.Offset, msg.Value)
		batch = append(batch, msg)
		if len(batch) == 1 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
			defer cancel()
		}
	}
	return batch
}
