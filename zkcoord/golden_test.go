package zkcoord

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"ottla/internal/cluster"
)

// recoder decodes a payload and encodes it again.
type recoder struct {
	name  string
	match func(path string) bool
	again func(data []byte) ([]byte, error)
	// sameBytes: Kafka's key order is ours. Otherwise the two are compared as JSON.
	sameBytes bool
}

func recode[T any](decode func([]byte) (T, error), encode func(T) []byte) func([]byte) ([]byte, error) {
	return func(data []byte) ([]byte, error) {
		v, err := decode(data)
		if err != nil {
			return nil, err
		}
		return encode(v), nil
	}
}

func under(prefix string) func(string) bool {
	return func(path string) bool { return strings.HasPrefix(path, prefix+"/") }
}

func is(path string) func(string) bool { return func(p string) bool { return p == path } }

// recoders are all payload families, most special first.
var recoders = []recoder{
	{"registration", under(BrokerIDsPath), recode(DecodeRegistration, EncodeRegistration), true},
	{"state", func(p string) bool { return strings.HasSuffix(p, "/state") }, recode(DecodeState, EncodeState), true},
	{"topic", under(BrokerTopicsPath), recode(DecodeTopic, EncodeTopic), true},
	{"controller", is(ControllerPath), recode(DecodeController, EncodeController), true},
	{"cluster id", is(ClusterIDPath), recode(decodeClusterID, encodeClusterID), true},
	{"features", is(FeaturePath), recode(DecodeFeatures, EncodeFeatures), true},
	{"producer ids", is(ProducerIDBlockPath), recode(decodeProducerIDBlock, producerIDBlock.encode), true},
	{"acl change", under(ACLChangesPath), recode(decodeACLChange, encodeACLChange), true},
	{"extended acl change", under(ExtendedACLChangesPath), recode(decodeExtendedACLChange, encodeExtendedACLChange), true},
	{"acls", func(p string) bool { return under(ACLPath)(p) || under(ExtendedACLPath)(p) }, recode(DecodeACLs, EncodeACLs), true},
	{"config change", under(ConfigChangesPath), recode(decodeConfigChange, encodeConfigChange), true},
	{"config", under(ConfigPath), recode(DecodeConfig, EncodeConfig), false},
	{"reassignment", is(ReassignPartitionsPath), recode(DecodeReassignment, EncodeReassignment), true},
	{"partitions", is(PreferredElectionPath), recode(DecodePartitions, EncodePartitions), true},
	{"log dir event", under(LogDirEventsPath), recode(decodeLogDirEvent, encodeLogDirEvent), true},
}

func TestPayloadsRecordedFromKafkaSurvive(t *testing.T) {
	text, err := os.ReadFile("testdata/kafka39.txt")
	if err != nil {
		t.Fatal(err)
	}
	tested := map[string]int{}
	for line := range strings.Lines(string(text)) {
		path, payload, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		for _, r := range recoders {
			if path[0] != '/' || !r.match(path) {
				continue
			}
			tested[r.name]++
			again, err := r.again([]byte(payload))
			if err != nil {
				t.Errorf("%s: %v", path, err)
			} else if r.sameBytes && string(again) != payload || !r.sameBytes && !sameJSON(t, again, []byte(payload)) {
				t.Errorf("%s\nKafka: %s\nOttla: %s", path, payload, again)
			}
			break
		}
	}
	t.Log(tested)
	for _, name := range []string{"registration", "state", "topic", "controller", "cluster id", "features", "producer ids", "config change", "config", "acls", "acl change", "extended acl change"} {
		if tested[name] == 0 {
			t.Errorf("no payload of the family %q was recorded", name)
		}
	}
}

func sameJSON(t *testing.T, a, b []byte) bool {
	t.Helper()
	var va, vb any
	if err := json.Unmarshal(a, &va); err != nil {
		t.Fatalf("%s: %v", a, err)
	}
	if err := json.Unmarshal(b, &vb); err != nil {
		t.Fatalf("%s: %v", b, err)
	}
	return cmp.Equal(va, vb)
}

func TestPayloadsWithoutRecording(t *testing.T) {
	tp := cluster.TopicPartition{Topic: "orders", Partition: 0}
	tests := []struct {
		name      string
		got, want string
	}{
		{"recovering", string(EncodeState(PartitionState{Leader: 1, LeaderEpoch: 3, ISR: []cluster.BrokerID{1}, ControllerEpoch: 7, Recovery: cluster.Recovering})),
			`{"controller_epoch":7,"leader":1,"version":1,"leader_epoch":3,"isr":[1],"leader_recovery_state":1}`},
		{"reassignment", string(EncodeReassignment(map[cluster.TopicPartition][]cluster.BrokerID{tp: {4, 5, 6}})),
			`{"version":1,"partitions":[{"topic":"orders","partition":0,"replicas":[4,5,6]}]}`},
		{"partitions", string(EncodePartitions([]cluster.TopicPartition{tp})),
			`{"version":1,"partitions":[{"topic":"orders","partition":0}]}`},
		{"log dir event", string(encodeLogDirEvent(LogDirEvent{Broker: 2, Event: LogDirFailure})), `{"version":1,"broker":2,"event":1}`},
		{"no plaintext listener", string(EncodeRegistration(Registration{
			Endpoints: []cluster.Endpoint{{Listener: "CLIENT", Protocol: "SASL_SSL", Host: "b1", Port: 9093}}, JMXPort: -1,
			Timestamp: time.UnixMilli(1700000000000), Features: map[string]FeatureRange{"f": {Min: 1, Max: 3}},
		})), `{"features":{"f":{"min_version":1,"max_version":3}},"listener_security_protocol_map":{"CLIENT":"SASL_SSL"},` +
			`"endpoints":["CLIENT://b1:9093"],"jmx_port":-1,"port":-1,"host":null,"version":5,"timestamp":"1700000000000"}`},
		{"no topic id", string(EncodeTopic(TopicNode{Partitions: map[int32][]cluster.BrokerID{10: {1}, 9: {2}}})),
			`{"partitions":{"9":[2],"10":[1]},"adding_replicas":{},"removing_replicas":{},"version":3}`},
		{"escapes", string(EncodeConfig(map[string]string{"a\"\\\n\x01é<": "<default>"})),
			"{\"version\":1,\"config\":{\"a\\\"\\\\\\n\\u0001é<\":\"<default>\"}}"},
	}
	for _, test := range tests {
		if test.got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.name, test.got, test.want)
		}
	}
}

func TestDecodersAreAsStrictAsKafka(t *testing.T) {
	decodes := map[string]func(string) error{
		"state":        func(s string) error { _, err := DecodeState([]byte(s)); return err },
		"topic":        func(s string) error { _, err := DecodeTopic([]byte(s)); return err },
		"registration": func(s string) error { _, err := DecodeRegistration([]byte(s)); return err },
		"controller":   func(s string) error { _, err := DecodeController([]byte(s)); return err },
		"reassignment": func(s string) error { _, err := DecodeReassignment([]byte(s)); return err },
		"config":       func(s string) error { _, err := DecodeConfig([]byte(s)); return err },
		"change":       func(s string) error { _, err := decodeConfigChange([]byte(s)); return err },
		"producer ids": func(s string) error { _, err := decodeProducerIDBlock([]byte(s)); return err },
		"features":     func(s string) error { _, err := DecodeFeatures([]byte(s)); return err },
	}
	tests := []struct {
		kind, payload string
		ok            bool
	}{
		{"state", `{"controller_epoch":7,"leader":1,"version":1,"leader_epoch":3,"isr":[1,2],"later":{"x":[1]}}`, true},
		{"state", `{"controller_epoch":7,"leader":"1","version":1,"leader_epoch":3,"isr":[1]}`, false},
		{"state", `{"controller_epoch":7,"leader":1.0,"version":1,"leader_epoch":3,"isr":[1]}`, false},
		{"state", `{"controller_epoch":7,"leader":3000000000,"version":1,"leader_epoch":3,"isr":[1]}`, false},
		{"state", `{"controller_epoch":7,"Leader":1,"version":1,"leader_epoch":3,"isr":[1]}`, false},
		{"state", `{"controller_epoch":7,"leader":null,"version":1,"leader_epoch":3,"isr":[1]}`, false},
		{"state", `{"controller_epoch":7,"leader":1,"version":1,"leader_epoch":3,"isr":[null]}`, false},
		{"state", `{"controller_epoch":7,"leader":1,"version":1,"leader_epoch":3}`, false},
		{"state", ``, false},
		{"state", `null`, false},
		{"topic", `{"version":1,"partitions":{"0":[1]}}`, true},
		{"topic", `{"version":9,"partitions":{"0":[1]},"adding_replicas":null}`, true},
		{"topic", `{"version":3,"partitions":{"zero":[1]}}`, false},
		{"topic", `{"version":3,"partitions":{"0":["1"]}}`, false},
		{"topic", `{"version":3,"partitions":{"0":null}}`, false},
		{"topic", `{"version":3,"partitions":{"0":[1]},"topic_id":"short"}`, false},
		{"topic", `{"version":3}`, false},
		{"registration", `{"version":1,"host":"h","port":1,"jmx_port":-1}`, true},
		{"registration", `{"version":2,"host":"h","port":1,"jmx_port":-1,"endpoints":["SSL://h:1"],"timestamp":7}`, true},
		{"registration", `{"version":6,"jmx_port":-1,"endpoints":["a://:1"],"rack":null}`, true},
		{"registration", `{"version":5,"endpoints":["A://h:1"]}`, false},
		{"registration", `{"version":5,"jmx_port":-1,"endpoints":["h:1"]}`, false},
		{"registration", `{"version":5,"jmx_port":"-1","endpoints":["A://h:1"]}`, false},
		{"controller", `{"version":1,"brokerid":1,"timestamp":"1"}`, true},
		{"controller", `{"version":1,"brokerid":"1"}`, false},
		{"reassignment", `{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1]}]}`, true},
		{"reassignment", `{"version":1,"partitions":[{"topic":"t","partition":0,"replicas":[1],"log_dirs":["any"]}]}`, false},
		{"config", ``, true},
		{"config", `{"version":1,"config":{"a":"b"}}`, true},
		{"config", `{"version":1,"config":{"a":1}}`, false},
		{"config", `{"version":1,"config":{"a":null}}`, false},
		{"change", `{"version":1,"entity_type":"topics","entity_name":"orders"}`, true},
		{"change", `{"version":3,"entity_path":"topics/orders"}`, false},
		{"producer ids", `{"version":1,"broker":1,"block_start":0,"block_end":999}`, false},
		{"features", `{"version":1,"status":1,"features":{"f":{"min_version_level":1,"max_version_level":2}}}`, true},
		{"features", `{"version":2,"status":2,"features":{}}`, false},
	}
	for _, test := range tests {
		if err := decodes[test.kind](test.payload); (err == nil) != test.ok {
			t.Errorf("%s %s: %v", test.kind, test.payload, err)
		}
	}
}

func TestUsualStatesAreReadTheShortWay(t *testing.T) {
	for _, isr := range [][]cluster.BrokerID{{}, {1}, {1, 2, 1001}} {
		st := PartitionState{Leader: cluster.NoBroker, LeaderEpoch: 123456789, ControllerEpoch: 7, ISR: isr}
		if got, ok := decodeUsualState(EncodeState(st)); !ok || !cmp.Equal(got, st) {
			t.Errorf("%+v became %+v, %v", st, got, ok)
		}
	}
}

func TestOldConfigChangeIsAPath(t *testing.T) {
	path, err := decodeConfigChange([]byte(`{"version":1,"entity_type":"topics","entity_name":"orders"}`))
	if err != nil || path != "topics/orders" {
		t.Errorf("%q %v", path, err)
	}
}

func TestRegistrationDecodes(t *testing.T) {
	r, err := DecodeRegistration([]byte(`{"features":{},"listener_security_protocol_map":{"INTERNAL":"PLAINTEXT","client":"SASL_SSL"},` +
		`"endpoints":["INTERNAL://b1:9092","CLIENT://[::1]:9093"],"rack":"az1","jmx_port":9999,"port":9092,"host":"b1","version":5,"timestamp":"1700000000000"}`))
	if err != nil {
		t.Fatal(err)
	}
	want := Registration{
		Endpoints: []cluster.Endpoint{
			{Listener: "INTERNAL", Protocol: "PLAINTEXT", Host: "b1", Port: 9092}, {Listener: "CLIENT", Protocol: "SASL_SSL", Host: "::1", Port: 9093},
		},
		Rack: "az1", JMXPort: 9999, Timestamp: time.UnixMilli(1700000000000), Features: map[string]FeatureRange{},
	}
	if diff := cmp.Diff(want, r); diff != "" {
		t.Error(diff)
	}
}

func TestSanitizeEntity(t *testing.T) {
	// The second name was recorded from Kafka.
	for name, want := range map[string]string{"plain-1.0_x": "plain-1.0_x", "us er*é": "us%20er%2A%C3%A9", "a+b/c~": "a%2Bb%2Fc%7E", "<default>": "<default>"} {
		if got := SanitizeEntity(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
		if back, err := DesanitizeEntity(want); err != nil || back != name {
			t.Errorf("%q is %q, %v", want, back, err)
		}
	}
}

func TestSequence(t *testing.T) {
	for name, want := range map[string]int32{"config_change_0000000042": 42, "x-2147483648": -2147483648, "a2147483647": 2147483647} {
		if got, ok := Sequence(name); !ok || got != want {
			t.Errorf("%q: %d %v", name, got, ok)
		}
	}
	for _, name := range []string{"", "config_change_42", "config_change_", "a99999999999"} {
		if _, ok := Sequence(name); ok {
			t.Errorf("%q has a sequence", name)
		}
	}
}

func TestParseConnect(t *testing.T) {
	servers, chroot, err := parseConnect(" h1:2181, h2 ,[::1]:2183/kafka/prod/")
	if err != nil || chroot != "/kafka/prod" || !cmp.Equal(servers, []string{"h1:2181", "h2:2181", "[::1]:2183"}) {
		t.Errorf("%q %q %v", servers, chroot, err)
	}
	if _, chroot, err := parseConnect("h/"); err != nil || chroot != "" {
		t.Errorf("%q %v", chroot, err)
	}
	for _, connect := range []string{"", ",", "/chroot", "h//x", "h/../x"} {
		if _, _, err := parseConnect(connect); err == nil {
			t.Errorf("%q is accepted", connect)
		}
	}
}

func TestLeaseLength(t *testing.T) {
	for _, test := range []struct {
		timeout, tick time.Duration
		want          time.Duration
		proven        bool
	}{
		{18 * time.Second, 2 * time.Second, 6 * time.Second, true},
		{6 * time.Second, 500 * time.Millisecond, 3 * time.Second, true},
		{6 * time.Second, 2 * time.Second, 2 * time.Second, false},
	} {
		if got, proven := leaseLength(test.timeout, test.tick, 5); got != test.want || proven != test.proven {
			t.Errorf("%v with ticks of %v: %v %v", test.timeout, test.tick, got, proven)
		}
	}
}
