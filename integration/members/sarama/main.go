// Command sarama is a member of a consumer group, made of sarama; see package members. It is a module of its own, so that nothing
// else needs sarama.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/IBM/sarama"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

var assignors = map[string]func() sarama.BalanceStrategy{
	"range": sarama.NewBalanceStrategyRange, "round-robin": sarama.NewBalanceStrategyRoundRobin, "sticky": sarama.NewBalanceStrategySticky,
}

func run(args []string) error {
	if len(args) != 6 || assignors[args[4]] == nil {
		return fmt.Errorf("arguments %q", args)
	}
	sessionMs, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	session := time.Duration(sessionMs) * time.Millisecond
	c := sarama.NewConfig()
	c.Version = sarama.V3_6_0_0
	c.Consumer.Group.Session.Timeout, c.Consumer.Group.Heartbeat.Interval = session, session/10
	c.Consumer.Group.Rebalance.GroupStrategies = []sarama.BalanceStrategy{assignors[args[4]]()}
	c.Consumer.Offsets.Initial, c.Consumer.Offsets.AutoCommit.Enable = sarama.OffsetOldest, false
	c.Consumer.Return.Errors = true
	if args[5] != "-" {
		c.Consumer.Group.InstanceId = args[5]
	}
	group, err := sarama.NewConsumerGroup(strings.Split(args[0], ","), args[1], c)
	if err != nil {
		return err
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	go func() {
		for err := range group.Errors() {
			fmt.Println("error", err)
		}
	}()
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{args[2]}, member{args[2]}); err != nil && !errors.Is(err, sarama.ErrClosedConsumerGroup) {
			fmt.Println("error", err)
			time.Sleep(200 * time.Millisecond)
		}
	}
	return group.Close()
}

type member struct{ topic string }

func (m member) Setup(s sarama.ConsumerGroupSession) error { return m.say("assigned", s) }

func (m member) Cleanup(s sarama.ConsumerGroupSession) error { return m.say("revoked", s) }

func (m member) say(what string, s sarama.ConsumerGroupSession) error {
	fmt.Println(what, strings.Trim(fmt.Sprint(s.Claims()[m.topic]), "[]"))
	return nil
}

// ConsumeClaim handles one partition. Commit does not tell whether it went well, so it is tried again: what is committed already is
// not sent twice.
func (m member) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	again := time.NewTicker(time.Second)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			s.Commit()
		case msg, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			fmt.Printf("handled %d %d %s\n", msg.Partition, msg.Offset, msg.Value)
			s.MarkMessage(msg, "")
			if len(claim.Messages()) == 0 {
				s.Commit()
			}
		case <-s.Context().Done():
			return nil
		}
	}
}
