package integration

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// TestZnodesAreThoseOfKafka does the same to a cluster of ours and to one of Kafka 3.9, and compares every znode: path, and
// payload with what differs from run to run masked.
func TestZnodesAreThoseOfKafka(t *testing.T) {
	harness.NeedKafka(t)
	trees := map[harness.Kind]map[string]string{}
	for _, kind := range []harness.Kind{harness.Kafka, harness.Ottla} {
		t.Run(string(kind), func(t *testing.T) {
			c := harness.Start(t, harness.Options{Brokers: harness.Same(kind, 2), Chroot: "/kafka/prod", Properties: map[string]string{"broker.rack": "az1"}})
			createTopic(t, c, "plain", 2, 1, nil)
			createTopic(t, c, "compacted", 1, 2, map[string]string{"cleanup.policy": "compact", "segment.bytes": "1048576"})
			createTopic(t, c, "gone", 1, 1, nil)
			deleteTopic(t, c, "gone")
			waitDeleted(t, c, "gone")
			produce(t, franz(t, c), "plain", numbered(5)) // idempotent: takes a block of producer ids
			tree, err := c.View().Tree("/")
			if err != nil {
				t.Fatal(err)
			}
			trees[kind] = shape(c, tree)
		})
	}
	if len(trees) < 2 {
		return // a subtest has said why
	}
	kafka, ours := trees[harness.Kafka], trees[harness.Ottla]
	if diff := cmp.Diff(slices.Sorted(maps.Keys(kafka)), slices.Sorted(maps.Keys(ours))); diff != "" {
		t.Errorf("paths (- Kafka, + ours):\n%s", diff)
	}
	for p, want := range kafka {
		if got, ok := ours[p]; ok && got != want {
			t.Errorf("%s\n  Kafka %s\n  ours  %s", p, want, got)
		}
	}
}

var (
	timestamp = regexp.MustCompile(`^1[0-9]{12}$`)
	uuid      = regexp.MustCompile(`^[A-Za-z0-9_-]{22}$`)
)

// shape is a tree with sorted keys in its payloads and without what differs from run to run: times, ids, ports, and who was
// chosen where Kafka chooses at random.
func shape(c *harness.Cluster, tree map[string][]byte) map[string]string {
	out := map[string]string{}
	for p, data := range tree {
		var v any
		switch {
		case len(data) == 0:
			out[p] = "(nothing)"
			continue
		case json.Unmarshal(data, &v) != nil:
			out[p] = string(data)
			continue
		}
		text, _ := json.Marshal(mask(p, "", v)) // sorts the keys
		for _, b := range c.Brokers {
			text = []byte(strings.ReplaceAll(string(text), b.Address, "HOST:PORT"))
		}
		out[p] = string(text)
	}
	return out
}

func mask(path, key string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			if strings.HasPrefix(k, "block_") {
				v[k] = "N" // each broker that is asked takes a block
				continue
			}
			v[k] = mask(path, k, v[k])
		}
		return v
	case []any:
		for i := range v {
			if _, number := v[i].(float64); number {
				v[i] = "N" // broker ids: assignment starts at a random broker
				continue
			}
			v[i] = mask(path, key, v[i])
		}
		return v
	case string:
		switch {
		case timestamp.MatchString(v):
			return "TIME"
		case uuid.MatchString(v):
			return "UUID"
		}
	case float64:
		switch key {
		case "leader", "brokerid", "broker", "port":
			return "N"
		}
	}
	return v
}

// TestBrokerSurvivesZnodesThatAreNoJSON starts a broker over damaged znodes: it serves what is sound, and says what is not.
func TestBrokerSurvivesZnodesThatAreNoJSON(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: []harness.Kind{harness.Ottla}})
	createTopic(t, c, "good", 1, 1, nil)
	createTopic(t, c, "bad", 1, 1, nil)
	b := c.Broker(1)
	b.Terminate()
	for p, text := range map[string]string{
		"/brokers/topics/bad":                      "{not json",
		"/brokers/topics/good/partitions/7":        "",
		"/config/changes/config_change_0000009999": "\x00\xff",
		"/latest_producer_id_block":                "17",
	} {
		if err := c.View().Set(p, []byte(text)); err != nil {
			if err := c.View().Create(p, []byte(text)); err != nil {
				t.Fatalf("%s: %v", p, err)
			}
		}
	}
	c.Restart(b)
	c.WaitController()
	c.WaitLed("good", 1, 1)
	produce(t, franz(t, c, kgo.DisableIdempotentWrite()), "good", numbered(3)) // producer ids stay unavailable
	if log := b.Log(); strings.Contains(log, "panic") {
		t.Errorf("panicked:\n%s", b.LogTail())
	} else if !strings.Contains(log, "bad") {
		t.Errorf("the log does not name the damaged topic:\n%s", b.LogTail())
	}
}
