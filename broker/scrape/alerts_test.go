package scrape

import (
	"bytes"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ottla/broker/partition"
)

// rule is an alert of docs/alerts.yml. The expressions are of one kind: a metric or the sum of one, compared with a number.
type rule struct{ name, expr string }

func alertRules(t *testing.T) []rule {
	t.Helper()
	text, err := os.ReadFile("../../docs/alerts.yml")
	require.NoError(t, err)
	var rules []rule
	for line := range strings.SplitSeq(string(text), "\n") {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "- alert: "); ok {
			rules = append(rules, rule{name: name})
		}
		if expr, ok := strings.CutPrefix(line, "expr: "); ok {
			rules[len(rules)-1].expr = expr
		}
	}
	return rules
}

var expression = regexp.MustCompile(`^(sum\()?([a-z_]+)(\{job="kafka"\})?\)? (>|<|==|!=) ([0-9]+)$`)

// fires evaluates a rule over the scrapes of some brokers, as Prometheus would; nil stands for a broker that does not answer.
func (r rule) fires(t *testing.T, scrapes []map[string][]float64) bool {
	t.Helper()
	m := expression.FindStringSubmatch(r.expr)
	require.NotNil(t, m, "%s: the test does not understand %q", r.name, r.expr)
	limit, _ := strconv.ParseFloat(m[5], 64)
	var values []float64
	for _, s := range scrapes {
		if m[2] == "up" {
			values = append(values, number(s != nil))
		}
		values = append(values, s[m[2]]...)
	}
	if m[1] != "" && len(values) > 0 {
		total := 0.0
		for _, v := range values {
			total += v
		}
		values = []float64{total}
	}
	for _, v := range values {
		if compare(v, m[4], limit) {
			return true
		}
	}
	return false
}

func compare(v float64, op string, limit float64) bool {
	switch op {
	case ">":
		return v > limit
	case "<":
		return v < limit
	case "==":
		return v == limit
	}
	return v != limit
}

// scraped is what Prometheus takes from a picture: values by metric. controller and offline are the metrics of the controller's own
// registry.
func scraped(t *testing.T, p *Picture, controller, offline float64) map[string][]float64 {
	t.Helper()
	var text bytes.Buffer
	require.NoError(t, p.Write(&text))
	out := map[string][]float64{
		"kafka_controller_kafkacontroller_activecontrollercount":  {controller},
		"kafka_controller_kafkacontroller_offlinepartitionscount": {offline},
	}
	for line := range strings.SplitSeq(strings.TrimSpace(text.String()), "\n") {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(line[at+1:], 64)
		require.NoError(t, err, line)
		name, _, _ := strings.Cut(line[:at], "{")
		out[name] = append(out[name], v)
	}
	return out
}

func healthy() *Picture {
	led := PictureOf("orders", 0, partition.Look{Replicas: 3, ISR: 3, MinISR: 2})
	led.Leads = true
	return &Picture{
		BrokerState: 3, PerPartition: true, Partitions: []PartitionPicture{led},
		LogDirs: []LogDirPicture{{Path: "/data"}}, Session: SessionPicture{Open: true, Connected: true, Registered: true},
	}
}

// TestAlertsCanFire injects for each alert what it is for: it fires then, and only then.
func TestAlertsCanFire(t *testing.T) {
	type injected struct {
		controller, offline float64
		silent              bool
		*Picture
	}
	cases := map[string]func(*injected){
		"UnderReplicatedPartitions": func(i *injected) { i.Partitions[0].ISR, i.Partitions[0].UnderReplicated = 2, true },
		"AbnormalControllerState":   func(i *injected) { i.controller = 0 },
		"OfflinePartitions":         func(i *injected) { i.offline = 1 },
		"UnderMinIsrPartitionCount": func(i *injected) { i.Partitions[0].ISR = 1 },
		"OfflineLogDirectoryCount":  func(i *injected) { i.LogDirs[0].Offline = true },
		"ScrapeProblem":             func(i *injected) { i.silent = true },
		"ZooKeeperSessionProblem":   func(i *injected) { i.Session.Connected = false },
	}
	rules := alertRules(t)
	require.Len(t, rules, len(cases))
	fired := func(t *testing.T, i injected) (names []string) {
		first := scraped(t, i.Picture, i.controller, i.offline)
		if i.silent {
			first = nil
		}
		second := scraped(t, healthy(), number(i.silent), 0) // takes over when the first broker is away
		for _, r := range rules {
			if r.fires(t, []map[string][]float64{first, second}) {
				names = append(names, r.name)
			}
		}
		return names
	}
	require.Empty(t, fired(t, injected{controller: 1, Picture: healthy()}), "nothing fires on a healthy cluster")
	for name, inject := range cases {
		t.Run(name, func(t *testing.T) {
			i := injected{controller: 1, Picture: healthy()}
			inject(&i)
			require.Equal(t, []string{name}, fired(t, i))
		})
	}
	t.Run("two controllers", func(t *testing.T) {
		require.Equal(t, []string{"AbnormalControllerState"}, fired(t, injected{controller: 2, Picture: healthy()}))
	})
}
