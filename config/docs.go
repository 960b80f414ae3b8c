package config

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
)

// WriteDocs writes docs/configuration.md: every key of the tables.
func WriteDocs(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprint(out, docsHead)
	sorted := slices.SortedFunc(slices.Values(table), func(a, b *Info) int { return cmp.Compare(a.Name, b.Name) })
	for _, chapter := range []struct {
		title, text string
		holds       func(*Info) bool
	}{
		{"Ottla's own settings", "", func(i *Info) bool { return own(i) }},
		{"Kafka's settings", "", func(i *Info) bool { return !own(i) && i.Effect == Effective }},
		{"Kafka's settings that have no effect yet", "They are accepted and checked; what they steer is not built.\n\n",
			func(i *Info) bool { return !own(i) && i.Effect == Planned }},
		{"Kafka's settings without effect", "They are accepted and checked, so that a file for Kafka works unchanged.\n\n",
			func(i *Info) bool { return !own(i) && i.Effect == None }},
	} {
		fmt.Fprintf(out, "\n## %s\n\n%s| Key | Type | Default | Changes | Meaning |\n|---|---|---|---|---|\n", chapter.title, chapter.text)
		for _, i := range sorted {
			if chapter.holds(i) && !i.Internal {
				fmt.Fprintf(out, "| `%s` | %s | %s | %s | %s |\n", i.Name, cell(typeText(i)), code(i), changes(i), cell(meaning(i)))
			}
		}
	}
	fmt.Fprint(out, docsTopics)
	for _, i := range slices.SortedFunc(slices.Values(topicTable), func(a, b *Info) int { return cmp.Compare(a.Name, b.Name) }) {
		fmt.Fprintf(out, "| `%s` | %s | %s | %s | %s |\n", i.Name, cell(typeText(i)), code(i), names(i.Synonyms), cell(meaning(i)))
	}
	return out.Flush()
}

// own reports whether a key is Ottla's.
func own(i *Info) bool {
	return strings.HasPrefix(i.Name, "ottla.") || i == OffsetsStorage.Info || i == DualCommitEnabled.Info
}

func typeText(i *Info) string {
	if i.Allowed == "" || i.Type == String {
		return i.Type.String() + strings.TrimSuffix(" ("+i.Allowed+")", " ()")
	}
	return i.Type.String() + ", " + i.Allowed
}

func meaning(i *Info) string {
	if i.Effect == Planned && own(i) {
		return i.Doc + " No effect yet."
	}
	return i.Doc
}

func code(i *Info) string {
	switch {
	case i.Unset:
		return "–"
	case i.Default == "":
		return "(empty)"
	}
	return "`" + i.Default + "`"
}

func changes(i *Info) string {
	switch {
	case i.Dynamic:
		return "at run time only"
	case i.Mode == ReadOnly:
		return "restart"
	case i.Mode == PerBroker:
		return "at run time, for one broker"
	}
	return "at run time"
}

func names(list []string) string {
	if len(list) == 0 {
		return "–"
	}
	return "`" + strings.Join(list, "`, `") + "`"
}

func cell(s string) string { return strings.ReplaceAll(s, "|", `\|`) }

const docsHead = `<!-- Written by 'go test ./config -run Docs -update' from the tables in config/keys_*.go. -->
# Settings

A broker reads Kafka's ` + "`server.properties`" + `, with Kafka's names and defaults:

    ottla broker server.properties

` + "`ottla config check server.properties`" + ` says what a file means here: what differs from the defaults, what has no effect, what nobody
knows and what was probably meant. A value that is not allowed stops the start with one line that names the key, the value and what
is allowed. An unknown key is warned about.

Where a value comes from, the strongest first:

1. ` + "`/config/brokers/N`" + ` in ZooKeeper (` + "`kafka-configs --entity-type brokers --entity-name N`" + `)
2. ` + "`/config/brokers/<default>`" + ` in ZooKeeper (` + "`--entity-default`" + `)
3. the command line (` + "`--override KEY=VALUE`" + `)
4. the environment: ` + "`KAFKA_LOG_RETENTION_HOURS`" + ` is ` + "`log.retention.hours`" + `; two underscores stand for one, three for a dash.
   ` + "`KAFKA_CFG_…`" + ` means the same and wins. Variables that configure Kafka's images or the JVM, such as ` + "`KAFKA_HEAP_OPTS`" + `, name no key.
5. the file; of several files the last one

A key may be set for one listener: ` + "`listener.name.NAME.KEY`" + `; for one SASL mechanism of it: ` + "`listener.name.NAME.MECHANISM.KEY`" + `.
Topics have settings of their own; they are listed at the end.

The file is a Java properties file in UTF-8 (or else ISO-8859-1). Values may name secrets that stand elsewhere, by Kafka's configuration
providers: ` + "`${file:/path/of.properties:key}`" + `, ` + "`${directory:/path:file}`" + `, ` + "`${env:VARIABLE}`" + ` with FileConfigProvider,
DirectoryConfigProvider and EnvVarConfigProvider in ` + "`config.providers`" + `.
`

const docsTopics = `
## Settings of topics

They are set with the topic (` + "`kafka-topics --create --config`" + `) or later (` + "`kafka-configs --entity-type topics`" + `). What a topic does not set comes from
the first of the broker's keys that is set.

| Key | Type | Default | Broker's keys | Meaning |
|---|---|---|---|---|
`
