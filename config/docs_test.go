package config

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

// TestDocsListEveryKey keeps docs/configuration.md equal to the tables: go test ./config -run Docs -update
func TestDocsListEveryKey(t *testing.T) {
	const file = "../docs/configuration.md"
	want := documentation()
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want), 0o644))
	}
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, want, string(have), "run: go test ./config -run Docs -update")
}

func documentation() string {
	var b strings.Builder
	b.WriteString(`# Configuration

Kafka's own keys and defaults. Precedence: properties files, then environment variables, then ` + "`--override`" + `; over these the
settings in ZooKeeper for all brokers, then those for one broker. *changes*: whether a setting takes effect at run time, for
single brokers (per-broker) or for all (cluster-wide). Keys without effect are accepted; ` + "`ottla config check FILE`" + ` lists them.
This page is generated from the tables in ` + "`config/`" + `.

## Settings with effect

| key | type | default | allowed | changes | meaning |
|---|---|---|---|---|---|
`)
	for _, i := range All() {
		if !i.Inert {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", i.Name, i.Type, documentedDefault(i), cell(i.Allowed), i.Mode, cell(i.Doc))
		}
	}
	b.WriteString("\n## Topic settings\n\nThe default is the broker's setting named behind it.\n\n| key | type | allowed | broker's setting |\n|---|---|---|---|\n")
	for _, i := range TopicAll() {
		if !i.Inert {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", i.Name, i.Type, cell(i.Allowed), strings.Join(i.Synonyms, ", "))
		}
	}
	b.WriteString("\n## Accepted without effect\n\n")
	for _, i := range All() {
		if i.Inert {
			fmt.Fprintf(&b, "`%s` ", i.Name)
		}
	}
	return strings.TrimSpace(b.String()) + "\n"
}

func documentedDefault(i *Info) string {
	switch {
	case i.Unset:
		return ""
	case strings.Contains(i.Default, os.TempDir()):
		return "the system's temporary folder"
	}
	return cell(i.Default)
}

func cell(s string) string { return strings.ReplaceAll(s, "|", "\\|") }
