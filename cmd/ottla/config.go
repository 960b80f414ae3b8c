package main

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"ottla/config"
)

func configCommand() *cli.Command {
	return command(&cli.Command{
		Name: "config", Usage: "check settings",
		Description: `  ottla config check server.properties
  ottla config check server.properties --json`,
		Subcommands: []*cli.Command{
			command(&cli.Command{
				Name: "check", Usage: "say what a properties file means here", ArgsUsage: "FILE …",
				Description: `Lists what differs from the defaults, what has no effect in Ottla, and what nobody knows. Exit code 1 when a
broker would not start with it.

  ottla config check server.properties`,
				Flags:  []cli.Flag{jsonFlag(), &cli.BoolFlag{Name: "environment", Usage: "take KAFKA_… variables into account"}},
				Action: checkConfig,
			}),
		},
	})
}

func checkConfig(c *cli.Context) error {
	if !c.Args().Present() {
		return usagef("which file? see 'ottla config check --help'")
	}
	var environ []string
	if c.Bool("environment") {
		environ = os.Environ()
	}
	report, err := config.Check(c.Args().Slice(), environ)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if err := printJSON(c.App.Writer, report); err != nil {
			return err
		}
	} else {
		printReport(c, report)
	}
	if report.Error != "" {
		return fmt.Errorf("a broker would not start: %s", report.Error)
	}
	return nil
}

func printReport(c *cli.Context, r config.Report) {
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	section := func(title string, list []config.Finding) {
		if len(list) == 0 {
			return
		}
		fmt.Fprintln(w, title)
		for _, f := range list {
			fmt.Fprintf(w, "  %s\t%s\t%s\n", f.Key, f.Value, f.Note)
		}
		fmt.Fprintln(w)
	}
	section("Settings that differ from their defaults:", r.Changed)
	section("Known, without effect yet:", r.Planned)
	section("Accepted without effect here:", r.Inert)
	section("Warnings:", r.Warnings)
	_ = w.Flush()
	if r.Error == "" {
		fmt.Fprintln(c.App.Writer, "A broker starts with these settings.")
	}
}
