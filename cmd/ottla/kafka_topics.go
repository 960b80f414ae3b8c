package main

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
)

var kafkaTopics = kafkaScript{
	about:  "create, delete, describe, or change a topic",
	values: "bootstrap-server command-config topic topic-id partitions replication-factor replica-assignment config",
	flags: "list create describe alter delete if-exists if-not-exists exclude-internal under-replicated-partitions " +
		"unavailable-partitions topics-with-overrides",
	run: runKafkaTopics,
}

func runKafkaTopics(c *kafkaCall) error {
	action, err := c.action("list", "create", "describe", "alter", "delete")
	if err != nil {
		return err
	}
	adm, err := c.admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	switch action {
	case "list":
		topics, err := c.findTopics(adm, false)
		for _, t := range topics {
			fmt.Fprintln(c.out, t.Topic)
		}
		return err
	case "create":
		return c.createTopic(adm)
	case "describe":
		return c.describeTopics(adm)
	case "alter":
		return c.alterTopics(adm)
	}
	return c.deleteTopics(adm)
}

// findTopics lists the topics whose whole name --topic matches; all without. mustExist makes none an error, unless --if-exists is given.
func (c *kafkaCall) findTopics(adm *kadm.Client, mustExist bool) ([]kadm.TopicDetail, error) {
	all, err := adm.ListTopicsWithInternal(c.ctx)
	if err != nil {
		return nil, errors.New(cause(err))
	}
	want, err := regexp.Compile("^(?:" + cmp.Or(c.value("topic"), ".*") + ")$")
	if err != nil {
		return nil, fmt.Errorf("--topic: %w", err)
	}
	found := slices.DeleteFunc(all.Sorted(), func(t kadm.TopicDetail) bool {
		return !want.MatchString(t.Topic) || t.IsInternal && c.flags["exclude-internal"]
	})
	if len(found) == 0 && mustExist && c.has("topic") && !c.flags["if-exists"] {
		return nil, fmt.Errorf("Topic '%s' does not exist as expected", c.value("topic"))
	}
	return found, nil
}

func (c *kafkaCall) createTopic(adm *kadm.Client) error {
	name := c.value("topic")
	if name == "" {
		return errors.New("missing required argument: --topic")
	}
	settings, err := pairs(c.values["config"])
	if err != nil {
		return fmt.Errorf("--config: %w", err)
	}
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = int32(scriptTimeout.Milliseconds())
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, -1, -1
	for _, k := range sortedKeys(settings) {
		v := settings[k]
		t.Configs = append(t.Configs, kmsg.CreateTopicsRequestTopicConfig{Name: k, Value: &v})
	}
	if text := c.value("replica-assignment"); text != "" {
		if t.ReplicaAssignment, err = assignmentOf(text); err != nil {
			return err
		}
	}
	for option, to := range map[string]func(int){
		"partitions": func(n int) { t.NumPartitions = int32(n) }, "replication-factor": func(n int) { t.ReplicationFactor = int16(n) },
	} {
		if c.has(option) {
			n, err := strconv.ParseInt(c.value(option), 10, 16)
			if err != nil || n < 1 {
				return fmt.Errorf("--%s %s: want a number above 0", option, c.value(option))
			}
			to(int(n))
		}
	}
	req.Topics = append(req.Topics, t)
	resp, err := req.RequestWith(c.ctx, c.cl)
	if err != nil {
		return errors.New(cause(err))
	}
	for _, made := range resp.Topics {
		err := kerr.ErrorForCode(made.ErrorCode)
		if err != nil && !(errors.Is(err, kerr.TopicAlreadyExists) && c.flags["if-not-exists"]) {
			return fmt.Errorf("Error while executing topic command : %s", messageOr(made.ErrorMessage, err))
		}
		if err == nil {
			fmt.Fprintf(c.out, "Created topic %s.\n", made.Topic)
		}
	}
	return nil
}

// assignmentOf reads 1:2,2:3 – the replicas of each partition.
func assignmentOf(text string) ([]kmsg.CreateTopicsRequestTopicReplicaAssignment, error) {
	var out []kmsg.CreateTopicsRequestTopicReplicaAssignment
	for i, part := range strings.Split(text, ",") {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition = int32(i)
		for id := range strings.SplitSeq(part, ":") {
			n, err := strconv.ParseInt(strings.TrimSpace(id), 10, 32)
			if err != nil {
				return nil, fmt.Errorf("--replica-assignment %s: %q is no broker id", text, id)
			}
			a.Replicas = append(a.Replicas, int32(n))
		}
		out = append(out, a)
	}
	return out, nil
}

func (c *kafkaCall) describeTopics(adm *kadm.Client) error {
	topics, err := c.findTopics(adm, true)
	if err != nil {
		return err
	}
	names := make([]string, len(topics))
	for i, t := range topics {
		names[i] = t.Topic
	}
	overrides := map[string]string{}
	if len(names) > 0 {
		if overrides, err = topicOverrides(c, adm, names); err != nil {
			return err
		}
	}
	only := c.flags["under-replicated-partitions"] || c.flags["unavailable-partitions"]
	for _, t := range topics {
		if c.flags["topics-with-overrides"] && overrides[t.Topic] == "" {
			continue
		}
		if !only {
			fmt.Fprintf(c.out, "Topic: %s\tTopicId: %s\tPartitionCount: %d\tReplicationFactor: %d\tConfigs: %s\n",
				t.Topic, cluster.TopicID(t.ID), len(t.Partitions), t.Partitions.NumReplicas(), overrides[t.Topic])
		}
		if c.flags["topics-with-overrides"] {
			continue
		}
		for _, p := range t.Partitions.Sorted() {
			leader := strconv.Itoa(int(p.Leader))
			if p.Leader < 0 {
				leader = "none"
			}
			if c.flags["under-replicated-partitions"] && len(p.ISR) == len(p.Replicas) || c.flags["unavailable-partitions"] && p.Leader >= 0 {
				continue
			}
			fmt.Fprintf(c.out, "\tTopic: %s\tPartition: %d\tLeader: %s\tReplicas: %s\tIsr: %s\n", t.Topic, p.Partition, leader, ids(p.Replicas), ids(p.ISR))
		}
	}
	return nil
}

// topicOverrides is what is set for topics themselves, as key=value with commas between.
func topicOverrides(c *kafkaCall, adm *kadm.Client, names []string) (map[string]string, error) {
	described, err := adm.DescribeTopicConfigs(c.ctx, names...)
	if err != nil {
		return nil, errors.New(cause(err))
	}
	out := map[string]string{}
	for _, r := range described {
		var own []string
		for _, s := range r.Configs {
			if s.Source == kmsg.ConfigSourceDynamicTopicConfig {
				own = append(own, s.Key+"="+s.MaybeValue())
			}
		}
		slices.Sort(own)
		out[r.Name] = strings.Join(own, ",")
	}
	return out, nil
}

func ids(list []int32) string {
	text := make([]string, len(list))
	for i, id := range list {
		text[i] = strconv.Itoa(int(id))
	}
	return strings.Join(text, ",")
}

func (c *kafkaCall) alterTopics(adm *kadm.Client) error {
	topics, err := c.findTopics(adm, true)
	if err != nil || len(topics) == 0 {
		return err
	}
	n, err := strconv.ParseInt(c.value("partitions"), 10, 32)
	if err != nil {
		return errors.New("missing required argument: --partitions")
	}
	for _, t := range topics {
		made, err := adm.UpdatePartitions(c.ctx, int(n), t.Topic)
		if err != nil {
			return errors.New(cause(err))
		}
		for _, r := range made.Sorted() {
			if r.Err != nil {
				return fmt.Errorf("Error while executing topic command : %s", cmp.Or(r.ErrMessage, cause(r.Err)))
			}
		}
	}
	return nil
}

func (c *kafkaCall) deleteTopics(adm *kadm.Client) error {
	if c.value("topic") == "" {
		return errors.New("missing required argument: --topic")
	}
	topics, err := c.findTopics(adm, true)
	if err != nil || len(topics) == 0 {
		return err
	}
	for _, t := range topics {
		gone, err := adm.DeleteTopic(c.ctx, t.Topic)
		if err != nil {
			return fmt.Errorf("Error while executing topic command : %s", cmp.Or(gone.ErrMessage, cause(err)))
		}
	}
	return nil
}

func messageOr(message *string, err error) string {
	if message != nil && *message != "" {
		return *message
	}
	return cause(err)
}
