package main

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ottla runs the program in this process.
func ottla(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), append([]string{"ottla"}, args...), strings.NewReader(stdin), &out, &errs)
	return out.String(), errs.String(), code
}

func TestFlagsMayFollowArguments(t *testing.T) {
	app := newApp(nil, nil, nil)
	for _, row := range []struct{ given, want string }{
		{"ottla topics create orders --partitions 6", "ottla topics create --partitions 6 orders"},
		{"ottla topics create orders --partitions=6 --if-not-exists", "ottla topics create --partitions=6 --if-not-exists orders"},
		{"ottla topics create --if-not-exists orders", "ottla topics create --if-not-exists orders"},
		{"ottla broker server.properties --override broker.id=3 --log-format json", "ottla broker --override broker.id=3 --log-format json server.properties"},
		{"ottla produce orders -- --not-a-flag", "ottla produce orders -- --not-a-flag"},
		{"ottla consume orders - --json", "ottla consume --json orders -"},
		{"ottla --version", "ottla --version"},
	} {
		got := strings.Join(flagsFirst(app, strings.Fields(row.given)), " ")
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s\n%s", row.given, diff)
		}
	}
}

func TestWrongUsageExitsWithTwoAndOneLine(t *testing.T) {
	for _, args := range []string{
		"nonsense",
		"topics nonsense",
		"topics create",
		"topics create orders --partitions many",
		"topics create orders --nonsense",
		"broker",
		"produce",
		"consume",
		"config check",
		"log check",
		"log dump",
		"log explain a b",
	} {
		stdout, stderr, code := ottla(t, "", strings.Fields(args)...)
		if code != exitUsage {
			t.Errorf("ottla %s: exit code %d, want %d (%s)", args, code, exitUsage, stderr)
		}
		if strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "ottla: ") {
			t.Errorf("ottla %s: standard error is not one line: %q", args, stderr)
		}
		if stdout != "" {
			t.Errorf("ottla %s: wrote to standard output: %q", args, stdout)
		}
	}
}

func TestEveryCommandHasHelpWithAnExample(t *testing.T) {
	for _, c := range newApp(nil, nil, nil).Commands {
		if c.Hidden {
			continue
		}
		stdout, stderr, code := ottla(t, "", c.Name, "--help")
		if code != exitDone || stderr != "" {
			t.Errorf("ottla %s --help: exit code %d, %s", c.Name, code, stderr)
		}
		if !strings.Contains(stdout, "ottla "+c.Name) {
			t.Errorf("ottla %s --help shows no example", c.Name)
		}
	}
}

func TestRunEndsWhenItsContextIsOver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := run(ctx, []string{"ottla", "topics", "list", "--bootstrap", "127.0.0.1:1"}, nil, &out, &errs)
	if code != exitFailed {
		t.Errorf("exit code %d, want %d", code, exitFailed)
	}
}

var mentioned = regexp.MustCompile("(?m)^(?:.*\\| )?bin/ottla ([a-z]+)(?: ([a-z]+))?|`ottla ([a-z]+)(?: ([a-z]+))?")

// TestReadmeAndCommandsAgree looks for every command in README.md, and for every command that README.md names.
func TestReadmeAndCommandsAgree(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	app := newApp(nil, nil, nil)
	found := 0
	for _, m := range mentioned.FindAllStringSubmatch(string(readme), -1) {
		found++
		c := findCommand(app.Commands, m[1]+m[3])
		if c == nil {
			t.Errorf("README.md names %q, which is no command", m[0])
			continue
		}
		if sub := m[2] + m[4]; sub != "" && len(c.Subcommands) > 0 && findCommand(c.Subcommands, sub) == nil {
			t.Errorf("README.md names %q, which is no command", m[0])
		}
	}
	if found < 5 {
		t.Errorf("found %d commands in README.md: is the pattern still right?", found)
	}
	for _, c := range app.Commands {
		if !c.Hidden && !regexp.MustCompile("`[a-z, `]*\\b"+c.Name+"\\b|bin/ottla "+c.Name).Match(readme) {
			t.Errorf("README.md does not name 'ottla %s'", c.Name)
		}
	}
}
