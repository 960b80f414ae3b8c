package main

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// script runs the program under the name of one of Kafka's scripts.
func script(t *testing.T, stdin string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, strings.NewReader(stdin), &out, &errs)
	return out.String(), errs.String(), code
}

func TestTheProgramIsWhatItIsCalled(t *testing.T) {
	for name, s := range kafkaScripts() {
		if s.noNames {
			continue
		}
		for _, call := range [][]string{{"/opt/kafka/bin/" + name + ".sh", "--help"}, {name, "--help"}, {"ottla", name + ".sh", "--help"}} {
			out, errs, code := script(t, "", call...)
			if code != 0 || !strings.Contains(out, s.about) || errs != "" {
				t.Errorf("%v: %d, %q, %q", call, code, out, errs)
			}
		}
	}
	if _, _, _, ok := scriptIn([]string{"ottla", "topics", "kafka-topics"}); ok {
		t.Error("a later argument is no name")
	}
}

func TestScriptsRefuseWhatTheyDoNotKnow(t *testing.T) {
	for _, args := range [][]string{
		{"kafka-topics", "--list", "--nonsense"},
		{"kafka-topics", "--list", "--create"},
		{"kafka-topics", "--list"}, // where?
		{"kafka-topics", "--list", "--bootstrap-server"},
		{"kafka-configs", "--alter", "--entity-type", "users", "--entity-name", "u"},
		{"kafka-configs", "--alter", "--entity-type", "planets", "--entity-name", "u", "--add-config", "a=b"},
		{"kafka-configs", "--describe", "--entity-type", "users", "--entity-type", "ips"},
		{"kafka-console-consumer", "--bootstrap-server", "localhost:1"},
		{"kafka-acls"},
		{"kafka-consumer-groups", "--bootstrap-server", "x"},
	} {
		_, errs, code := script(t, "", args...)
		if code != exitFailed || strings.Count(errs, "\n") != 1 || !strings.HasPrefix(errs, args[0]+": ") {
			t.Errorf("%v: %d, %q", args, code, errs)
		}
	}
}

func call(t *testing.T, s kafkaScript, args ...string) *kafkaCall {
	t.Helper()
	c := &kafkaCall{name: "test", ctx: t.Context(), args: args}
	if err := c.parse(s); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEntitiesOfConfigs(t *testing.T) {
	for _, test := range []struct {
		args string
		want []entity
	}{
		{"--entity-type users --entity-name u", []entity{{"users", "u"}}},
		{"--entity-type clients --entity-name c --entity-type users --entity-default", []entity{{"users", kafkaDefault}, {"clients", "c"}}},
		{"--entity-type=users --entity-name=u", []entity{{"users", "u"}}},
		{"--user u --client c", []entity{{"users", "u"}, {"clients", "c"}}},
		{"--broker-defaults", []entity{{"brokers", kafkaDefault}}},
		{"--entity-type topics", []entity{{"topics", ""}}},
	} {
		got, err := call(t, kafkaConfigs, append([]string{"--describe"}, strings.Fields(test.args)...)...).entities()
		if err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%s: %v, %v", test.args, got, err)
		}
	}
	add, err := call(t, kafkaConfigs, "--add-config", "SCRAM-SHA-256=[iterations=8192,password=a=b],cleanup.policy=[compact,delete],x=1").additions()
	want := map[string]string{"SCRAM-SHA-256": "iterations=8192,password=a=b", "cleanup.policy": "compact,delete", "x": "1"}
	if diff := cmp.Diff(want, add); err != nil || diff != "" {
		t.Error(err, diff)
	}
	if password, n, err := scramOf("iterations=8192,password=a=b"); password != "a=b" || n != 8192 || err != nil {
		t.Error(password, n, err)
	}
	if _, _, err := scramOf("iterations=1,password=a"); err == nil {
		t.Error("one iteration")
	}
}

func TestRecordsOfLines(t *testing.T) {
	r, err := recordOf([]byte("h:1,i:2\tk|v|w"), map[string]string{"parse.headers": "true", "parse.key": "true", "key.separator": "|"})
	if err != nil || string(r.Key) != "k" || string(r.Value) != "v|w" || len(r.Headers) != 2 || r.Headers[1].Key != "i" {
		t.Errorf("%+v, %v", r, err)
	}
	if r, _ := recordOf([]byte("-"), map[string]string{"null.marker": "-"}); r.Value != nil {
		t.Errorf("%q", r.Value)
	}
	if _, err := recordOf([]byte("no separator"), map[string]string{"parse.key": "true"}); err == nil {
		t.Error("a line without separator")
	}
}

func TestACLsThatOptionsStandFor(t *testing.T) {
	rules, err := call(t, kafkaACLs, "--add", "--allow-principal", "User:a", "--producer", "--consumer", "--topic", "t", "--group", "g").rules()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range rules {
		got = append(got, r.name+" "+r.operation.String())
	}
	slices.Sort(got)
	if diff := cmp.Diff([]string{"g READ", "t CREATE", "t DESCRIBE", "t READ", "t WRITE"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := call(t, kafkaACLs, "--add", "--allow-principal", "User:a").rules(); err == nil {
		t.Error("no resource")
	}
}
