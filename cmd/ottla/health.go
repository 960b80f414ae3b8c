package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/urfave/cli/v2"
)

func healthCommand() *cli.Command {
	return command(&cli.Command{
		Name: "health", Usage: "tell by the exit code whether a broker serves and is part of its cluster",
		Description: `Exit code 0: the broker answers, and its cluster lists it. For a container's HEALTHCHECK.
With --admin the broker is asked whether it is ready: session, registration, recovery, listeners; with --isr also replicas.

  ottla health
  ottla health --address 127.0.0.1:9092
  ottla health --admin 127.0.0.1:9644 --isr`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "admin", EnvVars: []string{"KAFKA_OTTLA_ADMIN_LISTENER"}, Usage: "`HOST:PORT` of the broker's admin port (ottla.admin.listener)"},
			&cli.BoolFlag{Name: "isr", Usage: "with --admin: every replica must be in sync too"},
			&cli.StringFlag{Name: "address", Value: "127.0.0.1:9092", Usage: "`HOST:PORT` of the broker"},
			&cli.DurationFlag{Name: "timeout", Value: 5 * time.Second, Usage: "how long an answer may take"},
		},
		Action: health,
	})
}

func health(c *cli.Context) error {
	if admin := c.String("admin"); admin != "" {
		return adminHealth(c, admin)
	}
	if c.Bool("isr") {
		return usagef("--isr needs --admin")
	}
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

// adminHealth asks the admin port, which knows better.
func adminHealth(c *cli.Context, address string) error {
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	url := "http://" + address + "/readyz"
	if c.Bool("isr") {
		url += "?isr=full"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return usagef("--admin %s: %v", address, err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("the admin port at %s does not answer: %s", address, cause(err))
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err != nil {
		return fmt.Errorf("the admin port at %s does not answer: %s", address, cause(err))
	}
	if resp.StatusCode == http.StatusOK {
		fmt.Fprintln(c.App.Writer, "ready")
		return nil
	}
	var missing []string
	for line := range strings.SplitSeq(string(text), "\n") {
		if what, bad := strings.CutPrefix(line, "FAIL "); bad {
			missing = append(missing, what)
		}
	}
	return fmt.Errorf("the broker is not ready: %s", strings.Join(missing, "; "))
}
