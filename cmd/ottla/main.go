// Command ottla is a Kafka broker that ZooKeeper coordinates, and the tools around it.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage. Errors are one line on standard error: what happened, to what, what to do.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

// version is set by the linker.
var version = "dev"

const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program without its process: the exit code is its result.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if name, script, rest, ok := scriptIn(args); ok {
		return runScript(ctx, name, script, rest, stdin, stdout, stderr)
	}
	app := newApp(stdin, stdout, stderr)
	err := app.RunContext(ctx, flagsFirst(app, args))
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(stderr, "ottla: %s\n", oneLine(err))
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitFailed
}

func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	return &cli.App{
		Name:                   "ottla",
		Usage:                  "a Kafka broker that ZooKeeper coordinates, and the tools around it",
		Version:                version,
		Reader:                 stdin,
		Writer:                 stdout,
		ErrWriter:              stderr,
		UseShortOptionHandling: false,
		HideHelpCommand:        true,
		// A comma belongs to the value: cleanup.policy=compact,delete and TOPIC:0,3 are one.
		DisableSliceFlagSeparator: true,
		EnableBashCompletion:      true,
		Description: `A whole cluster on this machine, in two commands:
  ottla up            three ZooKeeper servers and three brokers, as processes of their own
  ottla demo          sends the Go source tree through it and compares it byte for byte
Then: ottla status, ottla topics list, ottla consume TOPIC, ottla down.

One broker, as a service manager starts it:
  ottla broker /etc/ottla/server.properties`,
		Commands: []*cli.Command{
			brokerCommand(), superviseCommand(),
			upCommand(), statusCommand(), downCommand(),
			topicsCommand(), groupsCommand(), produceCommand(), consumeCommand(),
			healthCommand(), zkCommand(), configCommand(), logCommand(),
			demoCommand(),
		},
		ExitErrHandler: func(*cli.Context, error) {}, // run decides
		OnUsageError:   onUsageError,
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usagef("there is no command %q; 'ottla --help' lists them", c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
}

// usageError is a mistake in how the command was called: exit code 2.
type usageError struct{ message string }

func (e usageError) Error() string { return e.message }

func usagef(format string, args ...any) error {
	return usageError{fmt.Sprintf(format, args...)}
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	name := "ottla"
	if c.Command != nil && c.Command.HelpName != "" {
		name = c.Command.HelpName
	}
	return usagef("%v; see '%s --help'", err, name)
}

// oneLine keeps an error on one line: tools read standard error by lines.
func oneLine(err error) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", " ")), " ")
}

// command fills in what every command shares.
func command(c *cli.Command) *cli.Command {
	c.OnUsageError = onUsageError
	c.HideHelpCommand = true
	if len(c.Subcommands) > 0 && c.Action == nil {
		c.Action = func(ctx *cli.Context) error {
			if ctx.Args().Present() {
				return usagef("there is no command '%s %s'; see '%s --help'", c.HelpName, ctx.Args().First(), c.HelpName)
			}
			return cli.ShowSubcommandHelp(ctx)
		}
	}
	return c
}

// flagsFirst moves a command's flags before its other arguments, since the flag parser stops at the first
// argument that is no flag, and people write 'ottla topics create orders --partitions 6'.
// Everything after "--" stays as it is.
func flagsFirst(app *cli.App, args []string) []string {
	if len(args) == 0 {
		return args
	}
	out := []string{args[0]}
	flags, commands := app.Flags, app.Commands
	i := 1
	for ; i < len(args); i++ {
		arg := args[i]
		if strings.HasPrefix(arg, "-") && arg != "-" {
			out = append(out, arg)
			if takesValue(flags, arg) && i+1 < len(args) {
				i++
				out = append(out, args[i])
			}
			continue
		}
		next := findCommand(commands, arg)
		if next == nil {
			break
		}
		out = append(out, arg)
		flags, commands = next.Flags, next.Subcommands
	}
	var rest []string
	for ; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			rest = append(rest, args[i:]...)
			break
		}
		if !strings.HasPrefix(arg, "-") || arg == "-" {
			rest = append(rest, arg)
			continue
		}
		out = append(out, arg)
		if takesValue(flags, arg) && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	return append(out, rest...)
}

func findCommand(commands []*cli.Command, name string) *cli.Command {
	for _, c := range commands {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// takesValue tells whether the flag's value is the next argument.
func takesValue(flags []cli.Flag, arg string) bool {
	if strings.Contains(arg, "=") {
		return false
	}
	name := strings.TrimLeft(arg, "-")
	for _, f := range flags {
		for _, n := range f.Names() {
			if n == name {
				doc, ok := f.(cli.DocGenerationFlag)
				return ok && doc.TakesValue()
			}
		}
	}
	return false
}
