// Package diff says the same requests, byte for byte, to this broker and to Kafka 3.9, and compares all that they answer.
package diff

import (
	"fmt"
	"os"
	"regexp"
	"testing"

	"ottla/integration/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// TestAnswersAreThoseOfKafka fails for every answer that differs and is not in the list of accepted differences, and for every
// entry of that list that has become needless.
func TestAnswersAreThoseOfKafka(t *testing.T) {
	harness.NeedKafka(t)
	var sides [2][]line
	for i, kind := range []harness.Kind{harness.Kafka, harness.Ottla} {
		c := harness.Start(t, harness.Options{Brokers: []harness.Kind{kind}, Properties: map[string]string{
			"auto.create.topics.enable": "false", "delete.topic.enable": "true", "broker.rack": "r1",
		}})
		b := c.Broker(1)
		s := &script{t: t, address: b.Address, dataDir: b.DataDir, client: "diff", ids: map[string]string{}, kind: kind}
		s.play(func(topic string, partitions int) { c.WaitLed(topic, partitions, 1) })
		sides[i] = s.lines
		b.Terminate()
	}
	compare(t, sides[0], sides[1])
}

func compare(t *testing.T, kafka, ottla []line) {
	if out := os.Getenv("OTTLA_DIFF_OUT"); out != "" {
		write(t, out+".kafka", kafka)
		write(t, out+".ottla", ottla)
	}
	if len(kafka) != len(ottla) {
		t.Fatalf("Kafka gave %d answers, Ottla %d", len(kafka), len(ottla))
	}
	used := make([]int, len(accepted))
	differences := 0
	for i := range kafka {
		if kafka[i] == ottla[i] {
			continue
		}
		if at := acceptedAs(kafka[i], ottla[i]); at >= 0 {
			used[at]++
			continue
		}
		differences++
		t.Errorf("%s\nKafka: %s\nOttla: %s", kafka[i].what, near(kafka[i].answer, ottla[i].answer), near(ottla[i].answer, kafka[i].answer))
	}
	for i, n := range used {
		if n == 0 {
			t.Errorf("no answer differs any more for this reason: %s", accepted[i].reason)
		}
	}
	t.Logf("%d answers compared, %d differ", len(kafka), differences)
}

func acceptedAs(kafka, ottla line) int {
	for i, a := range accepted {
		if a.what.MatchString(kafka.what) && a.kafka.MatchString(kafka.answer) && a.ottla.MatchString(ottla.answer) {
			return i
		}
	}
	return -1
}

// near is the part of an answer in which it differs from another.
func near(a, b string) string {
	const around = 300
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	from, to := max(0, i-around), min(len(a), i+around)
	return a[from:to]
}

func write(t *testing.T, path string, lines []line) {
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, l := range lines {
		fmt.Fprintf(f, "%s\n  %s\n", l.what, l.answer)
	}
}

// difference is one that is wanted, with its reason. It holds where all three expressions match.
type difference struct {
	what, kafka, ottla *regexp.Regexp
	reason             string
}

func differs(what, kafka, ottla, reason string) difference {
	return difference{regexp.MustCompile(what), regexp.MustCompile(kafka), regexp.MustCompile(ottla), reason}
}
