package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/urfave/cli/v2"

	"ottla/internal/localcluster"
)

// clientFlags are those of every command that talks to a cluster.
func clientFlags(more ...cli.Flag) []cli.Flag {
	return append([]cli.Flag{
		&cli.StringFlag{Name: "bootstrap", Aliases: []string{"b"}, EnvVars: []string{"OTTLA_BOOTSTRAP"}, Usage: "`HOST:PORT,…` of some brokers (default: the cluster of --dir, else localhost:9092)"},
		&cli.StringFlag{Name: "dir", EnvVars: []string{"OTTLA_DIR"}, Value: defaultDir, Usage: "`FOLDER` of a local cluster"},
		&cli.DurationFlag{Name: "timeout", Value: 15 * time.Second, Usage: "give up after this long without an answer"},
	}, more...)
}

func jsonFlag() cli.Flag { return &cli.BoolFlag{Name: "json", Usage: "print JSON for machines"} }

const defaultDir = ".ottla"

// bootstrap is where the cluster is.
func bootstrap(c *cli.Context) []string {
	if b := c.String("bootstrap"); b != "" {
		return strings.Split(b, ",")
	}
	if local, err := localcluster.Open(c.String("dir")); err == nil {
		return strings.Split(local.Bootstrap(), ",")
	}
	return []string{"localhost:9092"}
}

// client connects to the cluster and makes sure that it answers.
func client(c *cli.Context, options ...kgo.Opt) (*kgo.Client, error) {
	seeds := bootstrap(c)
	timeout := c.Duration("timeout")
	cl, err := kgo.NewClient(append([]kgo.Opt{
		kgo.SeedBrokers(seeds...), kgo.ClientID("ottla-cli"), kgo.RetryTimeout(timeout), kgo.DialTimeout(min(timeout, 5*time.Second)),
	}, options...)...)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.Context, timeout)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		cl.Close()
		return nil, fmt.Errorf("no broker answers at %s (%s): is the cluster up? 'ottla up' starts one, --bootstrap names another",
			strings.Join(seeds, ","), cause(err))
	}
	return cl, nil
}

// admin is client for administration; close it.
func admin(c *cli.Context) (*kadm.Client, error) {
	cl, err := client(c)
	if err != nil {
		return nil, err
	}
	adm := kadm.NewClient(cl)
	adm.SetTimeoutMillis(int32(c.Duration("timeout").Milliseconds()))
	return adm, nil
}

// cause is the last, most telling part of a client library's error.
func cause(err error) string {
	var verdict *kerr.Error
	if errors.As(err, &verdict) {
		return verdict.Message + ": " + verdict.Description
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	text := err.Error()
	if i := strings.LastIndex(text, ": "); i >= 0 && len(text)-i > 4 {
		return text[i+2:]
	}
	return text
}

func printJSON(out io.Writer, v any) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// progress shows how long work goes: on one line for a person, on a line every few seconds for a log.
type progress struct {
	out      io.Writer
	terminal bool
	last     time.Time
}

func newProgress(out io.Writer) *progress {
	return &progress{out: out, terminal: isTerminal(out), last: time.Now()}
}

func (p *progress) show(format string, args ...any) {
	every := 2 * time.Second
	if p.terminal {
		every = 100 * time.Millisecond
	}
	if time.Since(p.last) < every {
		return
	}
	p.last = time.Now()
	if p.terminal {
		fmt.Fprintf(p.out, "\r\033[K"+format, args...)
		return
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}

func (p *progress) done(format string, args ...any) {
	if p.terminal {
		fmt.Fprint(p.out, "\r\033[K")
	}
	fmt.Fprintf(p.out, format+"\n", args...)
}

func executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("cannot find this program's own file: %w", err)
	}
	return path, nil
}
