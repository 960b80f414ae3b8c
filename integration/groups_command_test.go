package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"

	"ottla/integration/harness"
)

// ottla runs the program against the cluster and returns what it prints, and its exit code with what it complains of.
func ottla(t testing.TB, c *harness.Cluster, args ...string) (out, complaint string) {
	t.Helper()
	binary, err := harness.Binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = append(cmd.Environ(), "OTTLA_BOOTSTRAP="+c.BootstrapText())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	if err := cmd.Run(); err != nil {
		complaint = fmt.Sprintf("%v: %s", err, stderr.String())
	}
	return stdout.String(), complaint
}

// groupsCommand runs 'ottla groups …'. Columns are told by one space, made-up ids by UUID.
func groupsCommand(t testing.TB, c *harness.Cluster, args string) string {
	t.Helper()
	out, complaint := ottla(t, c, append([]string{"groups"}, strings.Fields(args)...)...)
	out = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}`).ReplaceAllString(out+complaint, "UUID")
	return strings.TrimSpace(regexp.MustCompile(`(?m) +$`).ReplaceAllString(regexp.MustCompile(` {2,}`).ReplaceAllString(out, " "), ""))
}

func TestGroupsCommand(t *testing.T) {
	for _, storage := range []string{"kafka", "zookeeper"} {
		t.Run(storage, func(t *testing.T) {
			if storage == "zookeeper" && harness.Default() == harness.Kafka {
				t.Skip("Kafka 3.9 has no such storage")
			}
			c := harness.Start(t, harness.Options{Properties: map[string]string{"offsets.storage": storage}})
			toolGroups(t, c)
			for _, step := range groupsCommandSteps {
				if diff := cmp.Diff(strings.TrimSpace(step.want), groupsCommand(t, c, step.args)); diff != "" {
					t.Errorf("ottla groups %s: %s", step.args, diff)
				}
			}
			groupsInJSON(t, c)
		})
	}
}

var groupsCommandSteps = []struct{ args, want string }{
	{"list", `
GROUP STATE TYPE PROTOCOL MEMBERS LAG COORDINATOR
billing Stable consumer range 1 16 1
old Empty - - 0 15 1
spare Empty - - 0 29 1`},
	{"list --state Stable", `
GROUP STATE TYPE PROTOCOL MEMBERS LAG COORDINATOR
billing Stable consumer range 1 16 1`},
	{"describe old billing", `
billing Stable, 1 members, lag 16, coordinator 1
TOPIC PARTITION COMMITTED END LAG CLIENT HOST MEMBER
orders 0 4 10 6 reader 127.0.0.1 reader-UUID
orders 1 10 10 0 reader 127.0.0.1 reader-UUID
orders 2 - 10 10 reader 127.0.0.1 reader-UUID

old Empty, 0 members, lag 15, coordinator 1
TOPIC PARTITION COMMITTED END LAG CLIENT HOST MEMBER
orders 0 3 10 7 - - -
orders 1 5 10 5 - - -
orders 2 7 10 3 - - -`},
	{"describe nobody", `exit status 1: ottla: there is no group nobody; 'ottla groups list' shows those there are`},
	{"members billing", `
GROUP MEMBER INSTANCE CLIENT HOST PARTITIONS
billing reader-UUID - reader 127.0.0.1 orders:0,1,2`},
	{"reset-offsets old --to earliest", `
TOPIC PARTITION FROM TO
orders 0 3 0
orders 1 5 0
orders 2 7 0
Nothing was changed; --execute does it.`},
	{"reset-offsets old --to latest", `
TOPIC PARTITION FROM TO
orders 0 3 10
orders 1 5 10
orders 2 7 10
Nothing was changed; --execute does it.`},
	{"reset-offsets old --topic orders:0,2 --to 4711", `
TOPIC PARTITION FROM TO
orders 0 3 10
orders 2 7 10
Nothing was changed; --execute does it.`},
	{"reset-offsets old --to 2026-01-01T05:30:00Z", `
TOPIC PARTITION FROM TO
orders 0 3 6
orders 1 5 6
orders 2 7 6
Nothing was changed; --execute does it.`},
	{"reset-offsets old --by -2 --execute", `
TOPIC PARTITION FROM TO
orders 0 3 1
orders 1 5 3
orders 2 7 5`},
	{"reset-offsets spare --topic other --to latest --execute", `
TOPIC PARTITION FROM TO
other 0 - 1`},
	{"reset-offsets billing --to earliest --execute", `exit status 1: ottla: group billing has members: stop its consumers first ('ottla groups members billing')`},
	{"describe old", `
old Empty, 0 members, lag 21, coordinator 1
TOPIC PARTITION COMMITTED END LAG CLIENT HOST MEMBER
orders 0 1 10 9 - - -
orders 1 3 10 7 - - -
orders 2 5 10 5 - - -`},
	{"delete billing", `exit status 1: ottla: group billing has members: stop its consumers first ('ottla groups members billing')`},
	{"delete spare", `spare deleted`},
	{"delete --if-exists spare", `spare does not exist`},
	{"list", `
GROUP STATE TYPE PROTOCOL MEMBERS LAG COORDINATOR
billing Stable consumer range 1 16 1
old Empty - - 0 21 1`},
}

func groupsInJSON(t *testing.T, c *harness.Cluster) {
	type partition struct {
		Topic                     string
		Partition                 int32
		Committed, End, Lag       int64
		Member, Client, Host, Was string
	}
	var groups []struct {
		Group, State, Type, Protocol string
		Coordinator, Members         int
		Lag                          int64
		Partitions                   []partition
	}
	read := func(into any, args ...string) {
		t.Helper()
		out, complaint := ottla(t, c, append([]string{"groups"}, args...)...)
		if err := json.Unmarshal([]byte(out), into); err != nil || complaint != "" {
			t.Fatalf("groups %v: %v %s\n%s", args, err, complaint, out)
		}
	}
	read(&groups, "list", "--json")
	if len(groups) != 2 || groups[0].Group != "billing" || groups[0].Lag != 16 || groups[0].Members != 1 || groups[1].State != "Empty" || groups[1].Lag != 21 {
		t.Errorf("list: %+v", groups)
	}
	read(&groups, "describe", "--json", "billing")
	want := partition{Topic: "orders", Partition: 2, Committed: -1, End: 10, Lag: 10, Client: "reader", Host: "127.0.0.1"}
	got := groups[0].Partitions[2]
	got.Member = ""
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("describe: %s", diff)
	}
	var members []struct {
		Group, Client string
		Partitions    map[string][]int32
	}
	read(&members, "members", "--json", "billing")
	if len(members) != 1 || members[0].Client != "reader" || len(members[0].Partitions["orders"]) != 3 {
		t.Errorf("members: %+v", members)
	}
	var moves []struct {
		Partition int32
		From, To  int64
	}
	read(&moves, "reset-offsets", "--json", "--to", "7", "--execute", "old")
	if len(moves) != 3 || moves[1].From != 3 || moves[1].To != 7 {
		t.Errorf("reset-offsets: %+v", moves)
	}
}

// TestOffsetsMigrateBetweenStorages takes a cluster from the topic to ZooKeeper and back, as the command's help says.
func TestOffsetsMigrateBetweenStorages(t *testing.T) {
	if harness.Default() == harness.Kafka {
		t.Skip("Kafka 3.9 has no such storage")
	}
	c := harness.Start(t, harness.Options{})
	b := c.Broker(1)
	restart := func(storage string, dual bool) {
		t.Helper()
		b.Terminate()
		b.ChangeProperties(map[string]string{"offsets.storage": storage, "dual.commit.enabled": fmt.Sprint(dual)})
		c.Restart(b)
		c.WaitLed("__consumer_offsets", 4, 1)
	}
	migrate := func(args string) string {
		t.Helper()
		return groupsCommand(t, c, "migrate-offsets --connect "+c.Connect+" "+args)
	}
	check := func(what, want, got string) {
		t.Helper()
		if diff := cmp.Diff(strings.TrimSpace(want), got); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
	inZooKeeper := func(group string, p int) string {
		data, _, err := c.View().Get(fmt.Sprintf("/consumers/%s/offsets/orders/%d", group, p))
		if err != nil {
			return "none"
		}
		return string(data)
	}
	createTopic(t, c, "orders", 3, 1, nil)
	commitOffsets(t, c, "old", map[int32]int64{0: 3, 1: 5, 2: 7})
	commitOffsets(t, c, "spare", map[int32]int64{0: 1})

	restart("kafka", true)
	commitOffsets(t, c, "old", map[int32]int64{0: 4})
	check("dual commit", "4", inZooKeeper("old", 0))
	check("dry run", `
GROUP TOPIC PARTITION NOW THEN
old orders 1 - 5
old orders 2 - 7
spare orders 0 - 1
3 offsets of 2 groups would be copied with --execute; 1 need nothing.`, migrate("--from kafka --to zookeeper"))
	check("after the dry run", "none", inZooKeeper("old", 1))
	check("one group", `
GROUP TOPIC PARTITION NOW THEN
spare orders 0 - 1
1 offsets of 1 groups copied; 0 need nothing.`, migrate("--from kafka --to zookeeper --execute spare"))
	check("all groups", `
GROUP TOPIC PARTITION NOW THEN
old orders 1 - 5
old orders 2 - 7
2 offsets of 2 groups copied; 2 need nothing.`, migrate("--from kafka --to zookeeper --execute"))
	check("copied", "5 7 1", inZooKeeper("old", 1)+" "+inZooKeeper("old", 2)+" "+inZooKeeper("spare", 0))

	restart("zookeeper", false)
	check("offsets after the move", "map[0:4 1:5 2:7]", committedOffsets(t, c, "old"))
	commitOffsets(t, c, "old", map[int32]int64{0: 9})
	if got := migrate("--from zookeeper --to kafka"); !strings.Contains(got, "broker 1 runs with offsets.storage=zookeeper") {
		t.Errorf("with the wrong storage: %s", got)
	}

	restart("kafka", true)
	check("dry run back", `
GROUP TOPIC PARTITION NOW THEN
old orders 0 4 9
1 offsets of 2 groups would be copied with --execute; 3 need nothing.`, migrate("--from zookeeper --to kafka"))
	check("after the dry run", "map[0:4 1:5 2:7]", committedOffsets(t, c, "old"))
	check("back", `
GROUP TOPIC PARTITION NOW THEN
old orders 0 4 9
1 offsets of 2 groups copied; 3 need nothing.`, migrate("--from zookeeper --to kafka --execute"))
	check("copied back", "map[0:9 1:5 2:7]", committedOffsets(t, c, "old"))
}

// committedOffsets are the group's offsets in orders, as a consumer would find them.
func committedOffsets(t testing.TB, c *harness.Cluster, group string) string {
	t.Helper()
	admin := kadm.NewClient(franz(t, c))
	at := map[int32]int64{}
	harness.Eventually(t, time.Minute, "offsets of "+group, func() error {
		offsets, err := admin.FetchOffsets(t.Context(), group)
		clear(at)
		offsets.Each(func(o kadm.OffsetResponse) { at[o.Partition] = o.At })
		return err
	})
	return fmt.Sprint(at)
}
