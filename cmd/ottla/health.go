package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/urfave/cli/v2"
)

func healthCommand() *cli.Command {
	return command(&cli.Command{
		Name: "health", Usage: "tell by the exit code whether a broker serves and is part of its cluster",
		Description: `Exit code 0: the broker answers, and its cluster lists it. For a container's HEALTHCHECK.

  ottla health
  ottla health --address 127.0.0.1:9092`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "address", Value: "127.0.0.1:9092", Usage: "`HOST:PORT` of the broker"},
			&cli.DurationFlag{Name: "timeout", Value: 5 * time.Second, Usage: "how long an answer may take"},
		},
		Action: health,
	})
}

func health(c *cli.Context) error {
	address := c.String("address")
	cl, err := kgo.NewClient(kgo.SeedBrokers(address), kgo.RequestRetries(0), kgo.DialTimeout(c.Duration("timeout")))
	if err != nil {
		return usagef("--address %s: %v", address, err)
	}
	defer cl.Close()
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	resp, err := req.RequestWith(ctx, cl.SeedBrokers()[0])
	if err != nil {
		return fmt.Errorf("the broker at %s does not answer: %s", address, cause(err))
	}
	listed := slices.ContainsFunc(resp.Brokers, func(b kmsg.MetadataResponseBroker) bool { return true })
	if !listed {
		return fmt.Errorf("the broker at %s is not part of a cluster yet", address)
	}
	fmt.Fprintf(c.App.Writer, "healthy: %d brokers, controller %d\n", len(resp.Brokers), resp.ControllerID)
	return nil
}
