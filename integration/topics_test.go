package integration

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-zookeeper/zk"
	kafkago "github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
)

// TestKafkaTopicsCreatesListsDescribesAndDeletes runs Kafka's own tool.
func TestKafkaTopicsCreatesListsDescribesAndDeletes(t *testing.T) {
	harness.NeedKafka(t)
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), ZooKeepers: 1})
	tool := func(args ...string) string {
		return c.Tool(t, "kafka-topics", append([]string{"--bootstrap-server", c.BootstrapText()}, args...)...)
	}
	tool("--create", "--topic", "orders", "--partitions", "6", "--replication-factor", "3", "--config", "retention.ms=3600000")
	tool("--create", "--topic", "placed", "--replica-assignment", "3:1,2:3")
	c.WaitLed("orders", 6, 3)
	c.WaitLed("placed", 2, 2)

	if got := strings.Fields(tool("--list")); strings.Join(got, " ") != "orders placed" {
		t.Errorf("list: %q", got)
	}
	orders := tool("--describe", "--topic", "orders")
	for _, want := range []string{"PartitionCount: 6", "ReplicationFactor: 3", "retention.ms=3600000", "TopicId: "} {
		if !strings.Contains(orders, want) {
			t.Errorf("describe orders lacks %q:\n%s", want, orders)
		}
	}
	placed := tool("--describe", "--topic", "placed")
	for _, want := range []string{"Partition: 0\tLeader: 3\tReplicas: 3,1\tIsr: 3,1", "Partition: 1\tLeader: 2\tReplicas: 2,3\tIsr: 2,3"} {
		if !strings.Contains(placed, want) {
			t.Errorf("describe placed lacks %q:\n%s", want, placed)
		}
	}
	if got := tool("--describe", "--under-replicated-partitions"); strings.TrimSpace(got) != "" {
		t.Errorf("under-replicated: %q", got)
	}
	tool("--alter", "--topic", "placed", "--partitions", "4")
	c.WaitLed("placed", 4, 2)
	tool("--delete", "--topic", "orders")
	waitDeleted(t, c, "orders")
	if got := strings.TrimSpace(tool("--list")); got != "placed" {
		t.Errorf("list after the deletion: %q", got)
	}
}

// TestKafkaGoCreatesAndDeletesTopics asks the controller as kafka-go's users do.
func TestKafkaGoCreatesAndDeletesTopics(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), ZooKeepers: 1})
	conn, err := kafkago.Dial("tcp", c.Broker(1).Address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	controller, err := conn.Controller()
	if err != nil {
		t.Fatal(err)
	}
	admin, err := kafkago.Dial("tcp", fmt.Sprintf("%s:%d", controller.Host, controller.Port))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()

	topic := kafkago.TopicConfig{Topic: "orders", NumPartitions: 4, ReplicationFactor: 2}
	if err := admin.CreateTopics(topic); err != nil {
		t.Fatal(err)
	}
	c.WaitLed("orders", 4, 2)
	client := &kafkago.Client{Addr: kafkago.TCP(c.Broker(controller.ID).Address)}
	again, err := client.CreateTopics(t.Context(), &kafkago.CreateTopicsRequest{Topics: []kafkago.TopicConfig{topic}})
	if err != nil || !errors.Is(again.Errors["orders"], kafkago.TopicAlreadyExists) {
		t.Errorf("creating it again: %v, %v", again, err)
	}
	for name, want := range map[string]error{"no/slash": kafkago.InvalidTopic, "": kafkago.InvalidTopic, "..": kafkago.InvalidTopic, strings.Repeat("x", 250): kafkago.InvalidTopic} {
		r, err := client.CreateTopics(t.Context(), &kafkago.CreateTopicsRequest{Topics: []kafkago.TopicConfig{{Topic: name, NumPartitions: 1, ReplicationFactor: 1}}})
		if err != nil || !errors.Is(r.Errors[name], want) {
			t.Errorf("creating %.20q: %v, %v, want %v", name, r.Errors, err, want)
		}
	}
	if err := admin.DeleteTopics("orders"); err != nil {
		t.Fatal(err)
	}
	waitDeleted(t, c, "orders")
	if err := admin.CreateTopics(topic); err != nil {
		t.Fatalf("creating it anew: %v", err)
	}
	c.WaitLed("orders", 4, 2)
}

// TestCreatedTopicIsUsableAtOnce holds CreateTopics to its word: when it has answered, the broker that answered knows the leaders.
func TestCreatedTopicIsUsableAtOnce(t *testing.T) {
	c := harness.Start(t, harness.Options{})
	conn := harness.Dial(t, c.Broker(1).Address)
	for i := range 20 {
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = fmt.Sprint("topic-", i), 3, 1
		create := kmsg.NewPtrCreateTopicsRequest()
		create.Version, create.TimeoutMillis, create.Topics = 7, 10_000, []kmsg.CreateTopicsRequestTopic{topic}
		if r := harness.Ask[*kmsg.CreateTopicsResponse](conn, create); r.Topics[0].ErrorCode != 0 {
			t.Fatalf("%s: error %d", topic.Topic, r.Topics[0].ErrorCode)
		}
		name := kmsg.NewMetadataRequestTopic()
		name.Topic = &topic.Topic
		ask := kmsg.NewPtrMetadataRequest()
		ask.Version, ask.Topics = 8, []kmsg.MetadataRequestTopic{name}
		got := harness.Ask[*kmsg.MetadataResponse](conn, ask).Topics[0]
		if got.ErrorCode != 0 || len(got.Partitions) != 3 {
			t.Fatalf("%s right after its creation: error %d, %d partitions", topic.Topic, got.ErrorCode, len(got.Partitions))
		}
	}
}

func waitDeleted(t testing.TB, c *harness.Cluster, topic string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for _, p := range []string{"/brokers/topics/", "/admin/delete_topics/", "/config/topics/"} {
		for {
			_, _, err := c.View().Get(p + topic)
			if errors.Is(err, zk.ErrNoNode) {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("%s%s is still there", p, topic)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}
