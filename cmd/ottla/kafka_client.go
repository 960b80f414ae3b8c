package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"ottla/config"
	"ottla/security"
)

// scriptTimeout is how long a script waits for the cluster.
const scriptTimeout = 30 * time.Second

// settings are a client's: of the files and the single properties that options name.
func (c *kafkaCall) settings(files []string, properties ...string) (map[string]string, error) {
	all := map[string]string{}
	for _, option := range files {
		for _, name := range c.values[option] {
			read, err := config.ReadFile(name)
			if err != nil {
				return nil, err
			}
			maps.Copy(all, read)
		}
	}
	for _, option := range properties {
		given, err := pairs(c.values[option])
		if err != nil {
			return nil, fmt.Errorf("--%s: %w", option, err)
		}
		maps.Copy(all, given)
	}
	return all, nil
}

// client connects to the cluster that --bootstrap-server names.
func (c *kafkaCall) client(settings map[string]string, options ...kgo.Opt) (*kgo.Client, error) {
	seeds := c.value("bootstrap-server")
	if seeds == "" {
		seeds = c.value("broker-list")
	}
	if seeds == "" {
		return nil, errors.New("missing required argument: --bootstrap-server")
	}
	secured, err := secure(settings)
	if err != nil {
		return nil, err
	}
	options = append(options, secured...)
	id := settings["client.id"]
	if id == "" {
		id = c.name
	}
	cl, err := kgo.NewClient(append(options, kgo.SeedBrokers(strings.Split(seeds, ",")...), kgo.ClientID(id), kgo.RetryTimeout(scriptTimeout),
		kgo.AlwaysRetryEOF())...) // a proxy before a broker that is down accepts, and closes
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(c.ctx, scriptTimeout)
	defer cancel()
	if err := cl.Ping(ctx); err != nil {
		cl.Close()
		return nil, fmt.Errorf("no broker answers at %s: %s", seeds, cause(err))
	}
	return cl, nil
}

// admin is client for administration, secured as --command-config says; close it.
func (c *kafkaCall) admin() (*kadm.Client, error) {
	settings, err := c.settings([]string{"command-config"})
	if err != nil {
		return nil, err
	}
	cl, err := c.client(settings)
	if err != nil {
		return nil, err
	}
	c.cl = cl
	adm := kadm.NewClient(cl)
	adm.SetTimeoutMillis(int32(scriptTimeout.Milliseconds()))
	return adm, nil
}

// secure turns the settings of Java's clients into options of ours.
func secure(settings map[string]string) ([]kgo.Opt, error) {
	out, err := security.NewOutgoing(settings)
	if err != nil {
		return nil, err
	}
	options := []kgo.Opt{kgo.Dialer(func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		host, _, _ := net.SplitHostPort(address)
		wrapped, err := out.Wrap(ctx, host, nc)
		if err != nil {
			_ = nc.Close()
		}
		return wrapped, err
	})}
	switch out.Mechanism {
	case security.Plain:
		options = append(options, kgo.SASL(plain.Auth{User: out.User, Pass: string(out.Password)}.AsMechanism()))
	case security.ScramSHA256:
		options = append(options, kgo.SASL(scram.Auth{User: out.User, Pass: string(out.Password)}.AsSha256Mechanism()))
	case security.ScramSHA512:
		options = append(options, kgo.SASL(scram.Auth{User: out.User, Pass: string(out.Password)}.AsSha512Mechanism()))
	}
	return options, nil
}
