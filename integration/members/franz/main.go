// Command franz is a member of a consumer group, made of franz-go; see package members.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/members"
)

func main() {
	m := members.Arguments()
	opts := []kgo.Opt{
		kgo.SeedBrokers(strings.Split(m.Bootstrap, ",")...), kgo.ConsumerGroup(m.Group), kgo.ConsumeTopics(m.Topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.SessionTimeout(m.Session), kgo.HeartbeatInterval(m.Session / 10),
		kgo.DisableAutoCommit(), kgo.BlockRebalanceOnPoll(), kgo.FetchMaxWait(200 * time.Millisecond),
		kgo.OnPartitionsAssigned(func(_ context.Context, _ *kgo.Client, got map[string][]int32) { members.Say("assigned", got[m.Topic]) }),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { members.Say("revoked", lost[m.Topic]) }),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, lost map[string][]int32) { members.Say("lost", lost[m.Topic]) }),
	}
	switch m.Assignor {
	case "range":
		opts = append(opts, kgo.Balancers(kgo.RangeBalancer()))
	case "sticky":
		opts = append(opts, kgo.Balancers(kgo.StickyBalancer()))
	case "cooperative-sticky": // its default
	default:
		members.Fail(fmt.Errorf("no assignor %s", m.Assignor))
	}
	if m.Instance != "" {
		opts = append(opts, kgo.InstanceID(m.Instance))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		members.Fail(err)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	for ctx.Err() == nil {
		fetches := client.PollRecords(ctx, 100)
		fetches.EachRecord(func(r *kgo.Record) { members.Handled(r.Partition, r.Offset, r.Value) })
		if err := commit(client, fetches.Records()); err != nil {
			fmt.Println("error commit:", err)
		}
		client.AllowRebalance()
	}
	client.CloseAllowingRebalance() // leaves, unless it is static
}

func commit(client *kgo.Client, records []*kgo.Record) error {
	if len(records) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := client.CommitRecords(ctx, records...); err != nil {
		return err
	}
	last := map[int32]int64{}
	for _, r := range records {
		last[r.Partition] = r.Offset + 1
	}
	members.Committed(last)
	return nil
}
