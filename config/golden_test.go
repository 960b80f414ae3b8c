package config

import (
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// rows reads a recording; lines that begin with # are comments.
func rows(t *testing.T, name string) [][]string {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	var out [][]string
	for line := range strings.SplitSeq(strings.TrimSuffix(string(text), "\n"), "\n") {
		if !strings.HasPrefix(line, "#") {
			out = append(out, strings.Split(line, "\t"))
		}
	}
	require.NotEmpty(t, out)
	return out
}

func TestEveryKafkaKeyIsKnownAsKafkaKnowsIt(t *testing.T) {
	brokerKeys, topicKeys := 0, 0
	for _, f := range rows(t, "kafka39_keys.tsv") {
		kind, name, typ, def, mode, visibility, limits := f[0], f[1], f[2], f[3], f[4], f[5], f[6]
		find := Lookup
		if kind == "topic" {
			find = LookupTopic
			topicKeys++
		} else {
			brokerKeys++
		}
		i, ok := find(name)
		require.True(t, ok, "%s key %s is not known", kind, name)
		require.Equal(t, strings.ToLower(typ), i.Type.String(), name)
		require.Equal(t, def == "<null>" || def == "<none>", i.Unset, name)
		if !i.Unset {
			require.Equal(t, def, i.Default, name)
		}
		require.Equal(t, mode, i.Mode.String(), name)
		require.Equal(t, visibility == "internal", i.Internal, name)
		require.Equal(t, typ == "PASSWORD", i.Sensitive(), name)
		checkRange(t, i, limits)
	}
	known := 0
	for _, i := range All() {
		if !own(i) && !i.Foreign && !i.Dynamic {
			known++
		}
	}
	require.Equal(t, brokerKeys, known, "no key is invented")
	require.Len(t, TopicAll(), topicKeys)
}

var interval = regexp.MustCompile(`^\[(-?[\d.]+),\.\.\.(?:,(-?[\d.]+))?\]( or -1)?$`)

// checkRange tries the values at and beyond both ends of Kafka's range.
func checkRange(t *testing.T, i *Info, limits string) {
	t.Helper()
	accepts := func(v float64) bool {
		text := strconv.FormatFloat(v, 'f', -1, 64)
		_, err := i.check(text)
		return err == nil
	}
	step := 1.0
	if i.Type == Double {
		step = 0.001
	}
	m := interval.FindStringSubmatch(limits)
	switch {
	case m != nil:
		low, err := strconv.ParseFloat(m[1], 64)
		require.NoError(t, err)
		require.True(t, accepts(low), "%s accepts %v", i.Name, low)
		require.False(t, accepts(low-step), "%s refuses %v", i.Name, low-step)
		if m[2] == "" {
			require.True(t, accepts(low+1000), "%s has no upper end", i.Name)
			return
		}
		high, err := strconv.ParseFloat(m[2], 64)
		require.NoError(t, err)
		require.True(t, accepts(high), "%s accepts %v", i.Name, high)
		require.False(t, accepts(high+step), "%s refuses %v", i.Name, high+step)
	case limits == "-" && (i.Type == Int || i.Type == Short || i.Type == Long):
		require.True(t, accepts(-7) && accepts(0), "%s has no range", i.Name)
		require.False(t, accepts(math.MaxInt32+1) && i.Type == Int, "%s has 32 bits", i.Name)
	case strings.HasPrefix(limits, "[") && (i.Type == String || i.Type == List):
		for _, name := range strings.Split(strings.Trim(limits, "[]"), ", ") {
			_, err := i.check(name)
			if !strings.Contains(name, ":") {
				require.NoError(t, err, i.Name)
			}
		}
		_, err := i.check("no-such-value")
		require.Error(t, err, i.Name)
	case limits == "non-empty string":
		_, err := i.check("")
		require.Error(t, err, i.Name)
	}
}

// stricter are settings that Kafka's start lets pass and Ottla's does not, with the reason.
var stricter = map[string]string{
	"listeners=PLAINTEXT://localhost:99999":                                "Kafka fails when it binds the port",
	"listeners=PLAINTEXT://localhost:-1":                                   "Kafka fails when it binds the port",
	"zookeeper.connect=":                                                   "Kafka fails when it connects",
	"zookeeper.connect= ":                                                  "Kafka fails when it connects",
	"log.flush.interval.ms=-1":                                             "Kafka fails when it makes the topics' defaults of it",
	"log.flush.scheduler.interval.ms=-1":                                   "Kafka fails when it makes the topics' defaults of it",
	"num.replica.fetchers=-1":                                              "Kafka fails when it assigns the first partition to a fetcher",
	"listener.name.plaintext.max.connections=x":                            "Kafka fails when it opens the listener",
	"num.network.threads=3; listener.name.plaintext.num.network.threads=0": "Kafka fails when it opens the listener",
	"process.roles=broker,controller":                                      "",
}

// laxer are settings that Kafka's start refuses and Ottla's does not.
var laxer = map[string]string{
	"group.consumer.max.session.timeout.ms=5":     "without effect here",
	"group.consumer.heartbeat.interval.ms=100000": "without effect here",
	"principal.builder.class=":                    "no class is loaded here",
}

func TestStartIsRefusedWhereKafkaRefusesIt(t *testing.T) {
	for _, f := range rows(t, "kafka39_start.tsv") {
		settings, err := Parse([]byte(strings.ReplaceAll(f[0], "; ", "\n")))
		require.NoError(t, err)
		if _, without := settings["nozk"]; without {
			settings = map[string]string{}
		} else if _, set := settings["zookeeper.connect"]; !set {
			settings["zookeeper.connect"] = "z:1"
		}
		want := f[1]
		if _, ok := stricter[f[0]]; ok {
			want = "refused"
		}
		if _, ok := laxer[f[0]]; ok {
			want = "ok"
		}
		_, err = FromMap(settings)
		got := "ok"
		if err != nil {
			got = "refused"
			require.NotContains(t, err.Error(), "\n", "one line")
		}
		require.Equal(t, want, got, "%s: %v", f[0], err)
	}
}

// otherVerdicts are settings that are judged otherwise here, with the reason.
var otherVerdicts = map[string]string{
	"num.io.threads":                             "the steps in which Kafka's thread counts may change concern no one here",
	"background.threads":                         "as above",
	"log.cleaner.threads":                        "as above",
	"num.replica.fetchers":                       "as above",
	"principal.builder.class":                    "no class is loaded here",
	"metric.reporters":                           "no class is loaded here",
	"min.cleanable.dirty.ratio=NaN":              "NaN compares with nothing",
	"log.retention.ms=0":                         "the sentence is Ottla's",
	"max.connections.per.ip.overrides=1.2.3.4:x": "the sentence is Ottla's",
}

func TestVerdictsAreKafkas(t *testing.T) {
	s, err := FromMap(minimal("listeners", "PLAINTEXT://127.0.0.1:1"))
	require.NoError(t, err)
	for _, f := range rows(t, "kafka39_verdicts.tsv") {
		kind, name, text, want := f[0], f[1], f[2], f[3]
		if name == "min.cleanable.dirty.ratio" && text == "NaN" {
			continue
		}
		if reason := otherVerdicts[name] + otherVerdicts[name+"="+text]; reason != "" {
			continue
		}
		set := map[string]string{name: text}
		switch kind {
		case "topic":
			err = ValidateTopic(s, set)
		default:
			err = ValidateDynamic(s, set, kind == "cluster")
		}
		got := "OK"
		if err != nil {
			got = err.Error()
		}
		want = strings.ReplaceAll(want, "HashSet(", "Set(") // Scala's name of a set is no part of the message
		require.Equal(t, want, got, "%s %s=%s", kind, name, text)
	}
}

func TestDescribeTellsWhatKafkaTells(t *testing.T) {
	static, err := FromMap(map[string]string{
		"broker.id": "1", "listeners": "PLAINTEXT://127.0.0.1:20101", "zookeeper.connect": "127.0.0.1:19601", "log.dirs": "/tmp/data",
		"offsets.topic.replication.factor": "1", "transaction.state.log.replication.factor": "1", "transaction.state.log.min.isr": "1",
		"group.initial.rebalance.delay.ms": "0", "log.retention.hours": "5", "log.roll.ms": "777777777", "ssl.key.password": "hunter2",
		"my.own.key": "abc", "min.insync.replicas": "1", "listener.name.plaintext.max.connections": "77",
	})
	require.NoError(t, err)
	dynamic, warnings, err := static.WithDynamic(
		map[string]string{"log.retention.ms": "70000", "nope.key": "1", "log.flush.interval.ms": "8"},
		map[string]string{"log.retention.ms": "60000", "nope.key2": "1", "leader.replication.throttled.rate": "5", "listener.name.plaintext.max.connections": "9"})
	require.NoError(t, err)
	require.Empty(t, warnings)

	got := map[string]string{}
	for scene, s := range map[string]*Snapshot{"static": static, "dynamic": dynamic} {
		topic, err := ResolveTopic(s, map[string]string{"segment.bytes": "2000", "flush.ms": "9"})
		require.NoError(t, err)
		for resource, entries := range map[string][]Entry{"BROKER:1": DescribeBroker(s), "BROKER:": DescribeClusterDefault(s), "TOPIC:t": DescribeTopic(topic)} {
			for _, e := range entries {
				got[scene+" "+resource+" "+e.Name] = entryLine(e)
			}
		}
	}
	recorded := rows(t, "kafka39_describe.tsv")
	seen := map[string]bool{}
	for _, f := range recorded {
		key := f[0] + " " + f[1] + " " + f[2]
		seen[key] = true
		if key == "dynamic BROKER:1 log.retention.hours" {
			continue // Kafka tells the default here, though the file says otherwise: a slip
		}
		require.Equal(t, strings.Join(f[3:], " | "), got[key], key)
	}
	for key := range got {
		_, name, _ := strings.Cut(key, ":")
		_, name, _ = strings.Cut(name, " ")
		if i := infoOf(name); strings.HasPrefix(key, "static") && (i == nil || !own(i)) && !strings.Contains("log.dirs listeners zookeeper.connect", name) {
			require.True(t, seen[key], "%s is not told by Kafka", key)
		}
	}
}

func entryLine(e Entry) string {
	text := func(p *string) string {
		if p == nil {
			return "null"
		}
		return *p
	}
	var synonyms []string
	for _, y := range e.Synonyms {
		synonyms = append(synonyms, y.Name+"="+text(y.Value)+"@"+y.Source.String())
	}
	access, secret := "rw", "-"
	if e.ReadOnly {
		access = "ro"
	}
	if e.Sensitive {
		secret = "sens"
	}
	return strings.Join([]string{text(e.Value), e.Source.String(), strings.ToUpper(e.Type.String()), access, secret, strings.Join(synonyms, "; ")}, " | ")
}
