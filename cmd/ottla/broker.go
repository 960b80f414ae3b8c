package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"ottla/broker"
	"ottla/config"
)

func brokerCommand() *cli.Command {
	return command(&cli.Command{
		Name:      "broker",
		Usage:     "run one broker in the foreground, as a service manager starts it",
		ArgsUsage: "[server.properties …]",
		Description: `Settings come from Kafka's own properties file, then from KAFKA_… variables, then from --override.
SIGTERM and SIGINT stop the broker cleanly: leaders move away, logs are flushed, the session is closed.

  ottla broker /etc/ottla/server.properties
  ottla broker server.properties --override broker.id=2 --override listeners=PLAINTEXT://:9093
  KAFKA_ZOOKEEPER_CONNECT=localhost:2181 ottla broker`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "override", Aliases: []string{"o"}, Usage: "`KEY=VALUE` that wins over file and environment"},
			&cli.StringFlag{Name: "log-format", Value: "auto", Usage: "console, json, kafka (as log4j writes), or auto: console on a terminal, else json"},
			&cli.StringFlag{Name: "log-level", Value: "info", Usage: "debug, info, warn or error"},
		},
		Action: runBroker,
	})
}

func runBroker(c *cli.Context) error {
	overrides, err := overridesOf(c.StringSlice("override"))
	if err != nil {
		return err
	}
	environ := os.Environ()
	if !c.Args().Present() && len(overrides) == 0 && len(config.FromEnvironment(environ)) == 0 {
		return usagef("no settings: name a properties file, or set KAFKA_ZOOKEEPER_CONNECT; see 'ottla broker --help'")
	}
	log, err := newLogger(c.App.Writer, c.String("log-format"), c.String("log-level"))
	if err != nil {
		return err
	}
	snapshot, warnings, err := config.Load(c.Args().Slice(), environ, overrides)
	if err != nil {
		return err
	}
	for _, w := range warnings {
		log.Warn().Str("key", w.Key).Msg(w.Message)
	}
	if err := makeImageUsers(c.Context, snapshot, environ, log); err != nil {
		return err
	}
	b := broker.New(snapshot, log)
	b.SetVersion(version)
	return b.Run(c.Context)
}

func overridesOf(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return nil, usagef("--override %s: want KEY=VALUE", kv)
		}
		out[k] = v
	}
	return out, nil
}

func newLogger(out io.Writer, format, level string) (zerolog.Logger, error) {
	lvl, err := zerolog.ParseLevel(level)
	if err != nil {
		return zerolog.Logger{}, usagef("--log-level %s: want debug, info, warn or error", level)
	}
	zerolog.TimeFieldFormat = zerolog.TimeFormatUnixMs
	if format == "auto" {
		format = "json"
		if isTerminal(out) {
			format = "console"
		}
	}
	switch format {
	case "json":
		zerolog.TimeFieldFormat = "2006-01-02T15:04:05.000Z07:00"
	case "console":
		zerolog.TimeFieldFormat = time.RFC3339Nano
		out = zerolog.ConsoleWriter{Out: out, TimeFormat: "15:04:05.000", NoColor: !isTerminal(out)}
	case "kafka":
		out = kafkaWriter{out}
	default:
		return zerolog.Logger{}, usagef("--log-format %s: want console, json, kafka or auto", format)
	}
	return zerolog.New(out).Level(lvl).With().Timestamp().Logger(), nil
}

// isTerminal reports whether a person reads out.
func isTerminal(out io.Writer) bool {
	f, ok := out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func oneOrMore(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
