package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Called by the name of one of Kafka's scripts (kafka-topics.sh, or kafka-topics), by a link or as its first argument, this program
// behaves as that script: the same options, and what is printed looks the same where programs read it.

// kafkaScript is one of Kafka's scripts.
type kafkaScript struct {
	about   string
	values  string // options that take a value, without their dashes
	flags   string // options that take none
	run     func(*kafkaCall) error
	noNames bool // its arguments are not options: they go on as they are
}

func kafkaScripts() map[string]kafkaScript {
	return map[string]kafkaScript{
		"kafka-topics":              kafkaTopics,
		"kafka-configs":             kafkaConfigs,
		"kafka-console-producer":    kafkaConsoleProducer,
		"kafka-console-consumer":    kafkaConsoleConsumer,
		"kafka-consumer-groups":     kafkaConsumerGroups,
		"kafka-acls":                kafkaACLs,
		"kafka-get-offsets":         kafkaGetOffsets,
		"kafka-broker-api-versions": kafkaBrokerAPIVersions,
		"kafka-server-start":        kafkaServerStart(),
	}
}

// kafkaCall is one call of a script.
type kafkaCall struct {
	name   string
	ctx    context.Context
	in     io.Reader
	out    io.Writer
	err    io.Writer
	values map[string][]string
	flags  map[string]bool
	cl     *kgo.Client // of admin
	args   []string    // as they came, for scripts without option names
}

// scriptIn finds the script that a command line names, and its arguments.
func scriptIn(args []string) (name string, s kafkaScript, rest []string, ok bool) {
	for i, arg := range args[:min(len(args), 2)] {
		name = strings.TrimSuffix(filepath.Base(arg), ".sh")
		if s, ok = kafkaScripts()[name]; ok {
			return name, s, args[i+1:], true
		}
	}
	return "", s, nil, false
}

func runScript(ctx context.Context, name string, s kafkaScript, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	c := &kafkaCall{name: name, ctx: ctx, in: stdin, out: stdout, err: stderr, args: args}
	err := c.parse(s)
	if err == nil && c.flags["help"] {
		s.usage(name, stdout)
		return exitDone
	}
	if err == nil && c.flags["version"] {
		fmt.Fprintln(stdout, version)
		return exitDone
	}
	if err == nil {
		err = s.run(c)
	}
	if err == nil || errors.Is(err, context.Canceled) {
		return exitDone
	}
	fmt.Fprintf(stderr, "%s: %s\n", name, oneLine(err))
	return exitFailed // Kafka's scripts know no other
}

func (s *kafkaScript) usage(name string, out io.Writer) {
	fmt.Fprintf(out, "%s: %s\n\nOptions with a value: --%s\n", name, s.about, strings.Join(strings.Fields(s.values), " --"))
	fmt.Fprintf(out, "Options without: --%s\n", strings.Join(append(strings.Fields(s.flags), "help", "version"), " --"))
}

func (c *kafkaCall) parse(s kafkaScript) error {
	c.values, c.flags = map[string][]string{}, map[string]bool{}
	if s.noNames {
		return nil
	}
	taking, plain := setOf(s.values), setOf(s.flags+" help version")
	for i := 0; i < len(c.args); i++ {
		name, value, given := strings.Cut(strings.TrimLeft(c.args[i], "-"), "=")
		dashed := strings.HasPrefix(c.args[i], "-")
		switch {
		case dashed && plain[name] && !given:
			c.flags[name] = true
			if taking[name] && i+1 < len(c.args) && !strings.HasPrefix(c.args[i+1], "--") { // the value may be left out
				i++
				c.values[name] = append(c.values[name], c.args[i])
			}
		case !dashed || !taking[name]:
			return fmt.Errorf("%s is not a recognized option; see '%s --help'", c.args[i], c.name)
		case given:
			c.values[name] = append(c.values[name], value)
		case i+1 == len(c.args):
			return fmt.Errorf("option --%s requires an argument", name)
		default:
			i++
			c.values[name] = append(c.values[name], c.args[i])
		}
	}
	return nil
}

func setOf(words string) map[string]bool {
	set := map[string]bool{}
	for w := range strings.FieldsSeq(words) {
		set[w] = true
	}
	return set
}

// value is the last one given to an option, "" without.
func (c *kafkaCall) value(option string) string {
	if list := c.values[option]; len(list) > 0 {
		return list[len(list)-1]
	}
	return ""
}

func (c *kafkaCall) has(option string) bool { return c.flags[option] || len(c.values[option]) > 0 }

// action is the one of several options that is given.
func (c *kafkaCall) action(options ...string) (string, error) {
	given := slices.DeleteFunc(slices.Clone(options), func(o string) bool { return !c.has(o) })
	if len(given) != 1 {
		return "", fmt.Errorf("command must include exactly one action: --%s", strings.Join(options, ", --"))
	}
	return given[0], nil
}

// pairs reads key=value options.
func pairs(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, kv := range list {
		k, v, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("%q: want key=value", kv)
		}
		out[strings.TrimSpace(k)] = v
	}
	return out, nil
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
