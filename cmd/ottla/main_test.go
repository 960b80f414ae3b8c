package main

import (
	"bytes"
	"context"
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
