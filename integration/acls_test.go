package integration

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
	"ottla/internal/freeport"
)

// authorized are the settings of a cluster with ACLs. The plain listener is the administrator's and the brokers' door.
var authorized = map[string]string{
	"authorizer.class.name": "kafka.security.authorizer.AclAuthorizer",
	"super.users":           "User:ANONYMOUS;User:root",
}

// grant gives a principal's ACL, written by an administrator with franz-go.
func grant(t testing.TB, c *harness.Cluster, acls ...*kadm.ACLBuilder) {
	t.Helper()
	admin := kadm.NewClient(franz(t, c))
	for _, a := range acls {
		results, err := admin.CreateACLs(t.Context(), a)
		for _, r := range results {
			err = errors.Join(err, r.Err)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func topicACL(pattern kadm.ACLPattern, topic string) *kadm.ACLBuilder {
	return kadm.NewACLs().ResourcePatternType(pattern).Topics(topic)
}

// TestClientsMayDoWhatACLsSay has each client at each kind of door try a topic that it may use, one that a DENY keeps from it although
// there is an ALLOW, and one without any ACL.
func TestClientsMayDoWhatACLsSay(t *testing.T) {
	s := startSecured(t, authorized)
	addScramUser(t, s, alice, aliceScram)
	readWrite := []kadm.ACLOperation{kadm.OpRead, kadm.OpWrite}
	grant(t, s.Cluster,
		topicACL(kadm.ACLPatternPrefixed, "open-").Allow("User:alice").AllowHosts().Operations(readWrite...),
		topicACL(kadm.ACLPatternPrefixed, "shut-").Allow("User:alice").AllowHosts().Operations(readWrite...),
		topicACL(kadm.ACLPatternPrefixed, "shut-").Deny("User:*").DenyHosts("127.0.0.1").Operations(readWrite...),
	)
	for i, d := range s.doors() {
		for j, c := range securityClients {
			if !harness.Long() && (c.name == "java" && i != 4 || c.name != "java" && (i+j)%3 != 0) { // every client, every door, not each with each
				continue
			}
			t.Run(fmt.Sprint(d, " ", c.name), func(t *testing.T) {
				name := strings.ToLower(strings.ReplaceAll(fmt.Sprint(d, "-", c.name), " ", "-"))
				open, shut, absent := "open-"+name, "shut-"+name, "absent-"+name
				for _, topic := range []string{open, shut, absent} {
					createTopic(t, s.Cluster, topic, 1, 1, nil)
					produce(t, franz(t, s.Cluster), topic, []string{"000000 from the administrator"})
				}
				if err := c.write(t, d, open, "hello"); err != nil {
					t.Errorf("write with the right: %v", err)
				}
				want := []string{"000000 from the administrator", "hello"}
				if got, err := c.read(t, d, open, 2); err != nil || !slices.Equal(got, want) {
					t.Errorf("read with the right: %q, %v", got, err)
				}
				d.wrong = true
				for _, topic := range []string{shut, absent} {
					if err := c.write(t, d, topic, "intruder"); err == nil {
						t.Errorf("%s: written", topic)
					}
					if got, err := c.read(t, d, topic, 1); err == nil {
						t.Errorf("%s: read %q", topic, got)
					}
					if total, _ := endOffsets(t, s.Cluster, topic); total != 1 {
						t.Errorf("%s: %d records, want 1", topic, total)
					}
				}
			})
		}
	}
	log := s.Broker(1).Log()
	for _, want := range []string{"access denied", "principal=User:alice", "operation=WRITE", "resource=shut-"} {
		if !strings.Contains(log, want) {
			t.Errorf("no %q in the log", want)
		}
	}
}

// TestNothingIsSeenWithoutTheRight asks for everything that could be listed, counted, described or changed, as somebody without rights
// beyond one topic.
func TestNothingIsSeenWithoutTheRight(t *testing.T) {
	s := startSecured(t, authorized)
	d := s.doors()[0]
	grant(t, s.Cluster, topicACL(kadm.ACLPatternLiteral, "mine").Allow("User:alice").AllowHosts().Operations(kadm.OpDescribe))
	for _, topic := range []string{"mine", "secret"} {
		createTopic(t, s.Cluster, topic, 1, 1, nil)
	}
	produce(t, franz(t, s.Cluster), "secret", []string{"000000 x"})
	consumer := franz(t, s.Cluster, kgo.ConsumeTopics("secret"), kgo.ConsumerGroup("secret-group"))
	if fetches := consumer.PollFetches(t.Context()); fetches.Err() != nil {
		t.Fatal(fetches.Err())
	}
	if err := consumer.CommitUncommittedOffsets(t.Context()); err != nil {
		t.Fatal(err)
	}

	client, err := franzAt(t, d)
	if err != nil {
		t.Fatal(err)
	}
	admin := kadm.NewClient(client)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	topics, err := admin.ListTopicsWithInternal(ctx)
	if diff := cmp.Diff([]string{"mine"}, topics.Names()); err != nil || diff != "" {
		t.Errorf("listed topics: %v %s", err, diff)
	}
	groups, err := admin.ListGroups(ctx)
	if err != nil || len(groups) > 0 {
		t.Errorf("listed groups: %v, %v", groups, err)
	}

	secretID := func() [16]byte {
		all, err := kadm.NewClient(franz(t, s.Cluster)).ListTopics(ctx, "secret")
		if err != nil {
			t.Fatal(err)
		}
		return all["secret"].ID
	}()
	byID := kmsg.NewPtrMetadataRequest()
	byID.Topics = []kmsg.MetadataRequestTopic{{TopicID: secretID}}
	resp, err := byID.RequestWith(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.Topics[0]; got.Topic != nil || got.ErrorCode != kerr.TopicAuthorizationFailed.Code || len(got.Partitions) > 0 {
		t.Errorf("by id: %+v", got)
	}

	topicDenied, groupDenied, clusterDenied := kerr.TopicAuthorizationFailed.Code, kerr.GroupAuthorizationFailed.Code, kerr.ClusterAuthorizationFailed.Code
	for name, row := range map[string]struct {
		req  kmsg.Request
		code func(kmsg.Response) []int16
		want int16
	}{
		"metadata": {
			&kmsg.MetadataRequest{Topics: []kmsg.MetadataRequestTopic{{Topic: kmsg.StringPtr("secret")}, {Topic: kmsg.StringPtr("not-there")}}},
			func(r kmsg.Response) (out []int16) {
				for _, t := range r.(*kmsg.MetadataResponse).Topics {
					out = append(out, t.ErrorCode)
				}
				return out
			}, topicDenied,
		},
		"create topic": {
			&kmsg.CreateTopicsRequest{Topics: []kmsg.CreateTopicsRequestTopic{{Topic: "new", NumPartitions: 1, ReplicationFactor: 1}}},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.CreateTopicsResponse).Topics[0].ErrorCode} }, topicDenied,
		},
		"delete topic": {
			&kmsg.DeleteTopicsRequest{TopicNames: []string{"secret"}, Topics: []kmsg.DeleteTopicsRequestTopic{{Topic: kmsg.StringPtr("secret")}}},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode} }, topicDenied,
		},
		"delete by a look only": {
			&kmsg.DeleteTopicsRequest{TopicNames: []string{"mine"}, Topics: []kmsg.DeleteTopicsRequestTopic{{Topic: kmsg.StringPtr("mine")}}},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.DeleteTopicsResponse).Topics[0].ErrorCode} }, topicDenied,
		},
		"add partitions": {
			&kmsg.CreatePartitionsRequest{Topics: []kmsg.CreatePartitionsRequestTopic{{Topic: "secret", Count: 9}}},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.CreatePartitionsResponse).Topics[0].ErrorCode} }, topicDenied,
		},
		"describe configs": {
			&kmsg.DescribeConfigsRequest{Resources: []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "secret"}}},
			func(r kmsg.Response) []int16 {
				return []int16{r.(*kmsg.DescribeConfigsResponse).Resources[0].ErrorCode}
			}, topicDenied,
		},
		"describe the broker's configs": {
			&kmsg.DescribeConfigsRequest{Resources: []kmsg.DescribeConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeBroker, ResourceName: "1"}}},
			func(r kmsg.Response) []int16 {
				return []int16{r.(*kmsg.DescribeConfigsResponse).Resources[0].ErrorCode}
			}, clusterDenied,
		},
		"alter configs": {
			&kmsg.IncrementalAlterConfigsRequest{Resources: []kmsg.IncrementalAlterConfigsRequestResource{{ResourceType: kmsg.ConfigResourceTypeTopic, ResourceName: "secret",
				Configs: []kmsg.IncrementalAlterConfigsRequestResourceConfig{{Name: "retention.ms", Value: kmsg.StringPtr("1")}}}}},
			func(r kmsg.Response) []int16 {
				return []int16{r.(*kmsg.IncrementalAlterConfigsResponse).Resources[0].ErrorCode}
			}, topicDenied,
		},
		"list offsets": {
			&kmsg.ListOffsetsRequest{ReplicaID: -1, Topics: []kmsg.ListOffsetsRequestTopic{{Topic: "secret", Partitions: []kmsg.ListOffsetsRequestTopicPartition{{Timestamp: -1, CurrentLeaderEpoch: -1}}}}},
			func(r kmsg.Response) []int16 {
				return []int16{r.(*kmsg.ListOffsetsResponse).Topics[0].Partitions[0].ErrorCode}
			}, topicDenied,
		},
		"epoch ends": {
			&kmsg.OffsetForLeaderEpochRequest{ReplicaID: -1, Topics: []kmsg.OffsetForLeaderEpochRequestTopic{{Topic: "secret", Partitions: []kmsg.OffsetForLeaderEpochRequestTopicPartition{{CurrentLeaderEpoch: -1}}}}},
			func(r kmsg.Response) []int16 {
				return []int16{r.(*kmsg.OffsetForLeaderEpochResponse).Topics[0].Partitions[0].ErrorCode}
			}, topicDenied,
		},
		"delete records": {
			&kmsg.DeleteRecordsRequest{TimeoutMillis: 1000, Topics: []kmsg.DeleteRecordsRequestTopic{{Topic: "secret", Partitions: []kmsg.DeleteRecordsRequestTopicPartition{{Offset: -1}}}}},
			func(r kmsg.Response) []int16 {
				return []int16{r.(*kmsg.DeleteRecordsResponse).Topics[0].Partitions[0].ErrorCode}
			}, topicDenied,
		},
		"describe group": {
			&kmsg.DescribeGroupsRequest{Groups: []string{"secret-group"}},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.DescribeGroupsResponse).Groups[0].ErrorCode} }, groupDenied,
		},
		"find coordinator": {
			&kmsg.FindCoordinatorRequest{CoordinatorKey: "secret-group", CoordinatorKeys: []string{"secret-group"}},
			func(r kmsg.Response) []int16 {
				return []int16{r.(*kmsg.FindCoordinatorResponse).Coordinators[0].ErrorCode}
			}, groupDenied,
		},
		"fetched offsets": {
			&kmsg.OffsetFetchRequest{Group: "secret-group", Groups: []kmsg.OffsetFetchRequestGroup{{Group: "secret-group"}}},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.OffsetFetchResponse).Groups[0].ErrorCode} }, groupDenied,
		},
		"delete group": {
			&kmsg.DeleteGroupsRequest{Groups: []string{"secret-group"}},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.DeleteGroupsResponse).Groups[0].ErrorCode} }, groupDenied,
		},
		"list ACLs": {
			&kmsg.DescribeACLsRequest{ResourceType: 1, ResourcePatternType: 1, Operation: 1, PermissionType: 1},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.DescribeACLsResponse).ErrorCode} }, clusterDenied,
		},
		"give oneself rights": {
			&kmsg.CreateACLsRequest{Creations: []kmsg.CreateACLsRequestCreation{{ResourceType: 2, ResourceName: "secret", ResourcePatternType: 3, Principal: "User:alice", Host: "*", Operation: 2, PermissionType: 3}}},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.CreateACLsResponse).Results[0].ErrorCode} }, clusterDenied,
		},
		"take ACLs away": {
			&kmsg.DeleteACLsRequest{Filters: []kmsg.DeleteACLsRequestFilter{{ResourceType: 1, ResourcePatternType: 1, Operation: 1, PermissionType: 1}}},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.DeleteACLsResponse).Results[0].ErrorCode} }, clusterDenied,
		},
		"list users": {
			&kmsg.DescribeUserSCRAMCredentialsRequest{},
			func(r kmsg.Response) []int16 {
				return []int16{r.(*kmsg.DescribeUserSCRAMCredentialsResponse).ErrorCode}
			}, clusterDenied,
		},
		"make a user": {
			&kmsg.AlterUserSCRAMCredentialsRequest{Upsertions: []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{{Name: "root", Mechanism: 1, Iterations: 4096, Salt: []byte("s"), SaltedPassword: []byte("p")}}},
			func(r kmsg.Response) []int16 {
				return []int16{r.(*kmsg.AlterUserSCRAMCredentialsResponse).Results[0].ErrorCode}
			}, clusterDenied,
		},
		"producer id": {
			&kmsg.InitProducerIDRequest{ProducerID: -1, ProducerEpoch: -1},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.InitProducerIDResponse).ErrorCode} }, clusterDenied,
		},
		"elect leaders": {
			&kmsg.ElectLeadersRequest{TimeoutMillis: 1000},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.ElectLeadersResponse).ErrorCode} }, clusterDenied,
		},
		"stop a broker": {
			&kmsg.ControlledShutdownRequest{BrokerID: 1, BrokerEpoch: -1},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.ControlledShutdownResponse).ErrorCode} }, clusterDenied,
		},
		"shrink an ISR": {
			&kmsg.AlterPartitionRequest{BrokerID: 1},
			func(r kmsg.Response) []int16 { return []int16{r.(*kmsg.AlterPartitionResponse).ErrorCode} }, clusterDenied,
		},
	} {
		t.Run(name, func(t *testing.T) {
			resp, err := client.Broker(1).RetriableRequest(ctx, row.req)
			if err != nil {
				t.Fatal(err)
			}
			for _, code := range row.code(resp) {
				if code != row.want {
					t.Errorf("code %d, want %d", code, row.want)
				}
			}
		})
	}

	t.Run("fetch as a replica", func(t *testing.T) { // the class of CVE-2018-1288
		req := kmsg.NewPtrFetchRequest()
		req.ReplicaID, req.MaxBytes, req.MaxWaitMillis, req.MinBytes = 1, 1<<20, 100, 1
		req.Topics = []kmsg.FetchRequestTopic{{Topic: "mine", TopicID: topics["mine"].ID, Partitions: []kmsg.FetchRequestTopicPartition{{PartitionMaxBytes: 1 << 20, CurrentLeaderEpoch: -1, LogStartOffset: -1}}}}
		resp, err := client.Broker(1).RetriableRequest(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		r := resp.(*kmsg.FetchResponse)
		if len(r.Topics) != 1 || r.Topics[0].Partitions[0].ErrorCode != topicDenied || len(r.Topics[0].Partitions[0].RecordBatches) > 0 {
			t.Errorf("%+v", r)
		}
	})
}

// TestACLToolsOfKafka runs kafka-acls and kafka-configs, and looks at what they left in ZooKeeper.
func TestACLToolsOfKafka(t *testing.T) {
	s := startSecured(t, authorized)
	server := []string{"--bootstrap-server", s.Broker(1).Address}
	acls := func(args ...string) string { return s.Tool(t, "kafka-acls", append(slices.Clone(server), args...)...) }
	acls("--add", "--allow-principal", "User:alice", "--producer", "--topic", "ord", "--resource-pattern-type", "prefixed")
	acls("--add", "--deny-principal", "User:bob", "--deny-host", "10.0.0.1", "--operation", "Read", "--topic", "*")
	data, _, err := s.View().Get("/kafka-acl-extended/prefixed/Topic/ord")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"version":1`, `"principal":"User:alice"`, `"permissionType":"Allow"`, `"operation":"Write"`, `"operation":"Describe"`, `"operation":"Create"`} {
		if !strings.Contains(string(data), want) {
			t.Errorf("no %s in %s", want, data)
		}
	}
	list := acls("--list")
	for _, want := range []string{"resourceType=TOPIC, name=ord, patternType=PREFIXED", "principal=User:bob, host=10.0.0.1, operation=READ, permissionType=DENY", "name=*, patternType=LITERAL"} {
		if !strings.Contains(list, want) {
			t.Errorf("no %q in\n%s", want, list)
		}
	}
	acls("--remove", "--force", "--topic", "ord", "--resource-pattern-type", "prefixed")
	if list := acls("--list"); strings.Contains(list, "User:alice") || !strings.Contains(list, "User:bob") {
		t.Error(list)
	}

	configs := func(args ...string) string {
		return s.Tool(t, "kafka-configs", append(slices.Clone(server), args...)...)
	}
	configs("--alter", "--entity-type", "users", "--entity-name", alice, "--add-config", "SCRAM-SHA-256=[iterations=8192,password="+aliceScram+"]")
	d := door{protocol: "SASL_PLAINTEXT", mechanism: "SCRAM-SHA-256", address: s.addresses["SASL_PLAINTEXT"], name: alice, password: aliceScram}
	grant(t, s.Cluster, topicACL(kadm.ACLPatternLiteral, "orders").Allow("User:alice").AllowHosts().Operations(kadm.OpWrite))
	createTopic(t, s.Cluster, "orders", 1, 1, nil)
	if err := franzWrite(t, d, "orders", "hello"); err != nil {
		t.Errorf("with a password set through a broker: %v", err)
	}
	described, err := kadm.NewClient(franz(t, s.Cluster)).DescribeUserSCRAMs(t.Context())
	want := []kadm.CredInfo{{Mechanism: kadm.ScramSha256, Iterations: 8192}}
	if diff := cmp.Diff(want, described[alice].CredInfos); err != nil || diff != "" {
		t.Errorf("described users: %v %s", err, diff)
	}
	configs("--alter", "--entity-type", "users", "--entity-name", alice, "--delete-config", "SCRAM-SHA-256")
	d.wrong = true
	if err := franzWrite(t, d, "orders", "hello"); err == nil {
		t.Error("written with a password that was taken away")
	}
}

// TestACLsAreOffWithoutAnAuthorizer: tools probe for exactly this answer.
func TestACLsAreOffWithoutAnAuthorizer(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	results, createErr := kadm.NewClient(franz(t, c)).CreateACLs(t.Context(), topicACL(kadm.ACLPatternLiteral, "x").Allow("User:a").AllowHosts().Operations(kadm.OpRead))
	for _, r := range results {
		createErr = errors.Join(createErr, r.Err)
	}
	if !errors.Is(createErr, kerr.SecurityDisabled) {
		t.Errorf("create: %v", createErr)
	}
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourcePatternType, req.Operation, req.PermissionType = 1, 1, 1, 1
	resp, err := req.RequestWith(t.Context(), franz(t, c))
	if err != nil || resp.ErrorCode != kerr.SecurityDisabled.Code {
		t.Errorf("describe: %v, %+v", err, resp)
	}
}

// TestBrokersTalkThroughADoorOfTheirOwn replicates over SASL_SSL with SCRAM, with ACLs on, and logins that expire. The brokers' user was
// made before the first start.
func TestBrokersTalkThroughADoorOfTheirOwn(t *testing.T) {
	kinds := harness.Same(harness.Default(), 2)
	keys := newTLSKeys(t)
	broker := testKeyStore(t, keys, "broker")
	made := false
	c := harness.Start(t, harness.Options{Brokers: kinds, Prepare: func(b *harness.Broker) {
		own := maps.Clone(broker)
		inside := fmt.Sprintf("127.0.0.1:%d", freeport.Find(t, 1)[0])
		maps.Copy(own, authorized)
		own["super.users"] = "User:ANONYMOUS;User:kafka"
		own["listeners"] = "PLAINTEXT://" + b.Address + ",INSIDE://" + inside
		own["listener.security.protocol.map"] = "PLAINTEXT:PLAINTEXT,INSIDE:SASL_SSL"
		own["inter.broker.listener.name"] = "INSIDE"
		own["sasl.mechanism.inter.broker.protocol"] = "SCRAM-SHA-512"
		own["listener.name.inside.sasl.enabled.mechanisms"] = "SCRAM-SHA-512"
		own["sasl.enabled.mechanisms"] = "SCRAM-SHA-512"
		own["listener.name.inside.scram-sha-512.sasl.jaas.config"] =
			`org.apache.kafka.common.security.scram.ScramLoginModule required username="kafka" password="broker-secret";`
		own["connections.max.reauth.ms"] = "2000"
		addProperties(t, b, own)
		if !made {
			made = true
			connect := ""
			for line := range strings.Lines(propertiesOf(t, b)) {
				if v, ok := strings.CutPrefix(line, "zookeeper.connect="); ok {
					connect = strings.TrimSpace(v)
				}
			}
			runTool(t, "kafka-configs", "--zookeeper", connect, "--alter", "--entity-type", "users", "--entity-name", "kafka",
				"--add-config", "SCRAM-SHA-512=[password=broker-secret]")
		}
	}})
	createTopic(t, c, "replicated", 4, 2, nil)
	client := franz(t, c)
	for i := range 10 { // longer than two logins last
		produce(t, client, "replicated", numbered(10 * (i + 1))[10*i:])
		time.Sleep(500 * time.Millisecond)
	}
	c.WaitLed("replicated", 4, 2)
	if got := len(readAll(t, c, "replicated", 100)); got != 100 {
		t.Errorf("%d records, want 100", got)
	}
	for _, b := range c.Brokers {
		if strings.Contains(b.Log(), "broker-secret") {
			t.Error("a password is in the log")
		}
	}
}
