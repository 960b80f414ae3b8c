package controller

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// setError puts an error into the fields of an answer.
func setError(err error, errorCode *int16, errorMessage **string) {
	*errorCode = code(err)
	var refusal *Refusal
	if errors.As(err, &refusal) && refusal.Message != "" {
		*errorMessage = &refusal.Message
	}
}

// await calls done(true) when the broker's own metadata shows what ready asks for, done(false) at the deadline. A timeout of zero or
// less does not wait at all, and counts as a timeout. Source: KIP-4.
func (c *Controller) await(timeoutMs int32, ready func(Metadata) bool, done func(visible bool)) {
	switch {
	case timeoutMs <= 0:
		done(false)
	case c.options.AwaitMetadata == nil:
		done(true)
	default:
		c.options.AwaitMetadata(time.Now().Add(time.Duration(timeoutMs)*time.Millisecond), ready, done)
	}
}

// CreateTopics creates topics and answers once the broker's own metadata shows a leader for each of their partitions. The answer of
// version 5 and above echoes counts and configurations; who may not see them is the caller's business. done is called once, it
// must not block.
func (c *Controller) CreateTopics(req *kmsg.CreateTopicsRequest, done func(*kmsg.CreateTopicsResponse)) {
	c.request("createTopics", func(r *reign, answered func()) error {
		resp, created, err := r.createTopics(req)
		if err != nil {
			return err
		}
		r.flush()
		answered()
		if req.ValidateOnly || len(created) == 0 {
			done(resp)
			return nil
		}
		c.await(req.TimeoutMillis, func(m Metadata) bool { return allLed(m, created) }, func(visible bool) {
			if !visible {
				for i := range resp.Topics {
					timedOut(&resp.Topics[i])
				}
			}
			done(resp)
		})
		return nil
	}, func() {
		resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
		for i := range req.Topics {
			t := kmsg.NewCreateTopicsResponseTopic()
			t.Topic, t.ErrorCode = req.Topics[i].Topic, kerr.NotController.Code
			resp.Topics = append(resp.Topics, t)
		}
		done(resp)
	})
}

// timedOut turns an answer into "not visible in time", without the echo.
func timedOut(t *kmsg.CreateTopicsResponseTopic) {
	if t.ErrorCode != 0 {
		return
	}
	t.ErrorCode = kerr.RequestTimedOut.Code
	t.NumPartitions, t.ReplicationFactor, t.Configs = -1, -1, nil
}

// allLed reports whether every partition of the topics (name to number of partitions) has a leader.
func allLed(m Metadata, topics map[string]int32) bool {
	for name, n := range topics {
		for number := range n {
			if leader, known := m.Leader(name, number); !known || leader == cluster.NoBroker {
				return false
			}
		}
	}
	return true
}

// createTopics handles all topics of a request: judged one by one, written together, started at once. created has the number of
// partitions of each topic that was created.
func (r *reign) createTopics(req *kmsg.CreateTopicsRequest) (*kmsg.CreateTopicsResponse, map[string]int32, error) {
	resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	times := map[string]int{}
	for i := range req.Topics {
		times[req.Topics[i].Topic]++
	}
	deletions, err := r.deletionMarks()
	if err != nil {
		return nil, nil, err
	}
	names := slices.Collect(maps.Keys(r.m.topics))
	var plans []topicPlan
	for i := range req.Topics {
		t := &req.Topics[i]
		if i > 0 && times[t.Topic] == 0 {
			continue
		}
		answer := kmsg.NewCreateTopicsResponseTopic()
		answer.Topic = t.Topic
		spec, created, err := r.planTopic(t, times[t.Topic], names, deletions)
		times[t.Topic] = 0 // answered
		if err != nil {
			setError(err, &answer.ErrorCode, &answer.ErrorMessage)
		} else {
			plans = append(plans, topicPlan{len(resp.Topics), spec, created})
			names = append(names, t.Topic)
			echoTopic(&answer, req.Version, r.config(), spec, created)
			if req.ValidateOnly {
				answer.TopicID = [16]byte{}
			}
		}
		resp.Topics = append(resp.Topics, answer)
	}
	if req.ValidateOnly || len(plans) == 0 {
		return resp, nil, nil
	}
	errs, err := r.writeNewTopics(plans)
	if err != nil {
		return nil, nil, err
	}
	created := map[string]int32{}
	for i, p := range plans {
		if errs[i] == nil {
			created[p.spec.Name] = p.created.Partitions
			continue
		}
		answer := kmsg.NewCreateTopicsResponseTopic()
		answer.Topic = p.spec.Name
		setError(errs[i], &answer.ErrorCode, &answer.ErrorMessage)
		resp.Topics[p.answer] = answer
	}
	if len(created) == 0 {
		return resp, created, nil
	}
	return resp, created, r.startTopics(slices.Sorted(maps.Keys(created)))
}

// topicPlan is one topic that a request may create.
type topicPlan struct {
	answer  int // in the response
	spec    TopicSpec
	created TopicCreated
}

// deletionMarks are the topics that are asked to be deleted, known to the model or not.
func (r *reign) deletionMarks() (map[string]bool, error) {
	names, err := zkcoord.TopicDeletions(r.s)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", zkcoord.DeleteTopicsPath, err)
	}
	marks := map[string]bool{}
	for _, name := range names {
		marks[name] = true
	}
	return marks, nil
}

func (r *reign) planTopic(t *kmsg.CreateTopicsRequestTopic, times int, names []string, deletions map[string]bool) (TopicSpec, TopicCreated, error) {
	spec := TopicSpec{
		Name:              t.Topic,
		Partitions:        t.NumPartitions,
		ReplicationFactor: t.ReplicationFactor,
		Configs:           map[string]string{},
		Rand:              r.c.random,
	}
	switch {
	case times > 1:
		return spec, TopicCreated{}, refuse(kerr.InvalidRequest, "Found multiple entries for this topic.")
	case t.Topic == ClusterMetadataTopic:
		return spec, TopicCreated{}, refuse(kerr.InvalidRequest, "Creation of internal topic %s is prohibited.", ClusterMetadataTopic)
	}
	var nulls []string
	for _, c := range t.Configs {
		if c.Value == nil {
			nulls = append(nulls, c.Name)
			continue
		}
		spec.Configs[c.Name] = *c.Value
	}
	if r.m.topics[t.Topic] == nil && len(nulls) > 0 {
		return spec, TopicCreated{}, refuse(kerr.InvalidConfig, "Null value not supported for topic configs: %s", strings.Join(nulls, ","))
	}
	if len(t.ReplicaAssignment) > 0 {
		spec.Assignment = map[int32][]cluster.BrokerID{}
		for _, a := range t.ReplicaAssignment {
			spec.Assignment[a.Partition] = brokerIDs(a.Replicas)
		}
	}
	created, err := spec.plan(r.config(), r.liveBrokers(), topicsThere{
		names:     names,
		exists:    r.m.topics[t.Topic] != nil && !deletions[t.Topic],
		deletable: deletions[t.Topic],
	})
	return spec, created, err
}

func (r *reign) liveBrokers() []cluster.Broker {
	var out []cluster.Broker
	for _, id := range r.m.registeredIDs() { // Kafka's metadata counts those that are shutting down, too
		out = append(out, r.m.brokers[id].Broker)
	}
	return out
}

// echoTopic fills in what version 5 and above tell about a new topic.
func echoTopic(answer *kmsg.CreateTopicsResponseTopic, version int16, snapshot *config.Snapshot, spec TopicSpec, created TopicCreated) {
	answer.TopicID = created.ID
	if version < 5 {
		return
	}
	answer.NumPartitions, answer.ReplicationFactor = created.Partitions, created.ReplicationFactor
	answer.Configs = topicConfigs(snapshot, spec.Configs)
}

// writeNewTopics creates topics; the errors belong to the plans, a lasting one ends the event.
func (r *reign) writeNewTopics(plans []topicPlan) ([]error, error) {
	errs := make([]error, len(plans))
	todo := make([]int, len(plans))
	for i := range plans {
		todo[i] = i
	}
	for round := 0; len(todo) > 0; round++ {
		if round == roundsMax {
			return errs, fmt.Errorf("create topic %s: given up after %d attempts", plans[todo[0]].spec.Name, round)
		}
		paths := make([]string, len(todo))
		for n, i := range todo {
			paths[n] = zkcoord.TopicConfigPath(plans[i].spec.Name)
		}
		configs := r.s.GetMany(paths)
		units := make([][]zkcoord.Op, len(todo))
		for n, i := range todo {
			units[n] = plans[i].spec.ops(plans[i].created, configs[n].Err == nil)
		}
		results, err := zkcoord.WriteFenced(r.s, r.epochVersion, units)
		if err != nil {
			return errs, fmt.Errorf("create topics: %w", err)
		}
		var again []int
		for n, i := range todo {
			if results[n].Err == nil {
				continue
			}
			retry, err := r.judgeNewTopic(plans[i], results[n].Err)
			if err != nil && over(err) {
				return errs, err
			}
			errs[i] = err
			if retry {
				again = append(again, i)
			}
		}
		todo = again
	}
	return errs, nil
}

// judgeNewTopic looks at what a failed creation left: our own topic whose answer was lost, somebody else's, or nothing (again).
func (r *reign) judgeNewTopic(p topicPlan, cause error) (retry bool, err error) {
	node, found, err := zkcoord.ReadTopic(r.s, p.spec.Name)
	switch {
	case err != nil:
		return false, fmt.Errorf("create topic %s: %w", p.spec.Name, err)
	case found && node.ID == p.created.ID:
		return false, nil
	case found:
		return false, refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", p.spec.Name)
	case errors.Is(cause, zkcoord.ErrNodeExists), errors.Is(cause, zkcoord.ErrNoNode), errors.Is(cause, zkcoord.ErrConnectionLost):
		return true, nil
	}
	r.log.Error().Err(cause).Str("topic", p.spec.Name).Msg("could not create topic")
	return false, fmt.Errorf("create topic %s: %w", p.spec.Name, cause)
}

// DeleteTopics marks topics for deletion and answers once the broker's own metadata does not show them any more. Topics may be given
// by name (TopicNames, or Topics since version 6) or by id. done is called once, it must not block.
func (c *Controller) DeleteTopics(req *kmsg.DeleteTopicsRequest, done func(*kmsg.DeleteTopicsResponse)) {
	c.request("deleteTopics", func(r *reign, answered func()) error {
		resp, marked, err := r.deleteTopics(req)
		if err != nil {
			return err
		}
		r.flush()
		answered()
		if len(marked) == 0 {
			done(resp)
			return nil
		}
		gone := func(m Metadata) bool { return !slices.ContainsFunc(marked, m.HasTopic) }
		c.await(req.TimeoutMillis, gone, func(visible bool) {
			for i := range resp.Topics {
				if !visible && resp.Topics[i].ErrorCode == 0 {
					resp.Topics[i].ErrorCode = kerr.RequestTimedOut.Code
				}
			}
			done(resp)
		})
		return nil
	}, func() { done(refusedDeletions(req, kerr.NotController)) })
}

// deletionTargets are the topics that a request names, in the layout of version 6.
func deletionTargets(req *kmsg.DeleteTopicsRequest) []kmsg.DeleteTopicsRequestTopic {
	if req.Version >= 6 {
		return req.Topics
	}
	targets := make([]kmsg.DeleteTopicsRequestTopic, len(req.TopicNames))
	for i := range req.TopicNames {
		targets[i].Topic = &req.TopicNames[i]
	}
	return targets
}

func refusedDeletions(req *kmsg.DeleteTopicsRequest, err *kerr.Error) *kmsg.DeleteTopicsResponse {
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	for _, target := range deletionTargets(req) {
		t := kmsg.NewDeleteTopicsResponseTopic()
		t.Topic, t.TopicID, t.ErrorCode = target.Topic, target.TopicID, err.Code
		resp.Topics = append(resp.Topics, t)
	}
	return resp
}

func (r *reign) deleteTopics(req *kmsg.DeleteTopicsRequest) (*kmsg.DeleteTopicsResponse, []string, error) {
	if !config.DeleteTopicEnable.Of(r.config()) {
		verdict := kerr.TopicDeletionDisabled
		if req.Version < 3 {
			verdict = kerr.InvalidRequest
		}
		return refusedDeletions(req, verdict), nil, nil
	}
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	var marked []string
	for _, target := range deletionTargets(req) {
		answer := kmsg.NewDeleteTopicsResponseTopic()
		answer.Topic, answer.TopicID = target.Topic, target.TopicID
		name, err := r.deletionName(target)
		switch {
		case err != nil:
			setError(err, &answer.ErrorCode, &answer.ErrorMessage)
		default:
			answer.Topic = &name
			if !slices.Contains(marked, name) {
				marked = append(marked, name)
			}
		}
		resp.Topics = append(resp.Topics, answer)
	}
	units := make([][]zkcoord.Op, len(marked))
	for i, name := range marked {
		units[i] = []zkcoord.Op{zkcoord.CreateOp(zkcoord.DeleteTopicPath(name), nil, zkcoord.Persistent)}
	}
	for len(units) > 0 {
		results, err := zkcoord.WriteFenced(r.s, r.epochVersion, units)
		if err != nil {
			return nil, nil, fmt.Errorf("mark topics for deletion: %w", err)
		}
		var again [][]zkcoord.Op
		for i, res := range results {
			switch {
			case res.Err == nil, errors.Is(res.Err, zkcoord.ErrNodeExists): // marked already: wait for the same end
			case errors.Is(res.Err, zkcoord.ErrConnectionLost):
				again = append(again, units[i])
			default:
				return nil, nil, fmt.Errorf("mark topics for deletion: %w", res.Err)
			}
		}
		units = again
	}
	return resp, marked, r.onTopicDeletion()
}

func (r *reign) deletionName(target kmsg.DeleteTopicsRequestTopic) (string, error) {
	byID := target.TopicID != [16]byte{}
	switch {
	case byID && target.Topic != nil:
		return "", refuse(kerr.InvalidRequest, "Topic name and topic ID can not both be specified.")
	case byID:
		name, known := r.m.names[target.TopicID]
		if !known {
			return "", kerr.UnknownTopicID
		}
		return name, nil
	case target.Topic == nil:
		return "", refuse(kerr.InvalidRequest, "Neither topic name nor id were specified.")
	case r.m.topics[*target.Topic] == nil:
		return "", kerr.UnknownTopicOrPartition
	}
	return *target.Topic, nil
}

// CreatePartitions adds partitions to topics and answers once the broker's own metadata shows a leader for each of them. done is
// called once, it must not block.
func (c *Controller) CreatePartitions(req *kmsg.CreatePartitionsRequest, done func(*kmsg.CreatePartitionsResponse)) {
	c.request("createPartitions", func(r *reign, answered func()) error {
		resp, added, err := r.createPartitions(req)
		if err != nil {
			return err
		}
		r.flush()
		answered()
		if req.ValidateOnly || len(added) == 0 {
			done(resp)
			return nil
		}
		c.await(req.TimeoutMillis, func(m Metadata) bool { return allLed(m, added) }, func(visible bool) {
			for i := range resp.Topics {
				if !visible && resp.Topics[i].ErrorCode == 0 {
					resp.Topics[i].ErrorCode = kerr.RequestTimedOut.Code
				}
			}
			done(resp)
		})
		return nil
	}, func() {
		resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
		for i := range req.Topics {
			t := kmsg.NewCreatePartitionsResponseTopic()
			t.Topic, t.ErrorCode = req.Topics[i].Topic, kerr.NotController.Code
			resp.Topics = append(resp.Topics, t)
		}
		done(resp)
	})
}

// createPartitions returns the answer, and the number of partitions of each topic that was widened.
func (r *reign) createPartitions(req *kmsg.CreatePartitionsRequest) (*kmsg.CreatePartitionsResponse, map[string]int32, error) {
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	times := map[string]int{}
	for i := range req.Topics {
		times[req.Topics[i].Topic]++
	}
	added := map[string]int32{}
	var names []string
	var topics []*topic
	var nodes []zkcoord.TopicNode
	for i := range req.Topics {
		ask := &req.Topics[i]
		if times[ask.Topic] == 0 {
			continue
		}
		answer := kmsg.NewCreatePartitionsResponseTopic()
		answer.Topic = ask.Topic
		node, err := r.planPartitions(ask, times[ask.Topic])
		times[ask.Topic] = 0
		if err != nil {
			setError(err, &answer.ErrorCode, &answer.ErrorMessage)
		} else {
			added[ask.Topic] = ask.Count
			names = append(names, ask.Topic)
			topics, nodes = append(topics, r.m.topics[ask.Topic]), append(nodes, node)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	if req.ValidateOnly || len(topics) == 0 {
		return resp, nil, nil
	}
	if err := r.writeTopicNodes(topics, nodes); err != nil {
		return nil, nil, err
	}
	return resp, added, r.topicsModified(names)
}

// planPartitions judges one topic of a request and returns its znode with the new partitions.
func (r *reign) planPartitions(ask *kmsg.CreatePartitionsRequestTopic, times int) (zkcoord.TopicNode, error) {
	var none zkcoord.TopicNode
	t := r.m.topics[ask.Topic]
	switch {
	case times > 1:
		return none, refuse(kerr.InvalidRequest, "Duplicate topic in request.")
	case t == nil:
		return none, refuse(kerr.UnknownTopicOrPartition, "The topic '%s' does not exist.", ask.Topic)
	case t.deleting():
		return none, refuse(kerr.InvalidTopicException, "The topic is queued for deletion.")
	case t.reassigning():
		return none, refuse(kerr.ReassignmentInProgress, "A partition reassignment is in progress for the topic '%s'.", ask.Topic)
	}
	have := t.count()
	more := int(ask.Count) - have
	switch {
	case more < 0:
		return none, refuse(kerr.InvalidPartitions, "Topic currently has %d partitions, which is higher than the requested %d.", have, ask.Count)
	case more == 0:
		return none, refuse(kerr.InvalidPartitions, "Topic already has %d partitions.", have)
	}
	first := t.partition(0)
	if first == nil {
		return none, refuse(kerr.UnknownServerError, "Unexpected existing replica assignment for topic '%s', partition id 0 is missing.", ask.Topic)
	}
	assigned, err := r.assignAdded(ask, first, have, more)
	if err != nil {
		return none, err
	}
	node := t.node()
	maps.Copy(node.Partitions, assigned)
	return node, nil
}

func (r *reign) assignAdded(ask *kmsg.CreatePartitionsRequestTopic, first *partition, have, more int) (map[int32][]cluster.BrokerID, error) {
	ids := r.m.registeredIDs()
	if ask.Assignment == nil {
		start := max(0, slices.IndexFunc(ids, func(id cluster.BrokerID) bool { return id >= first.preferred() }))
		return AssignReplicas(r.liveBrokers(), more, len(first.replicas), int32(have), Placement{First: start, Shift: start})
	}
	assigned := map[int32][]cluster.BrokerID{}
	var unknown []cluster.BrokerID
	for i, a := range ask.Assignment {
		replicas := brokerIDs(a.Replicas)
		assigned[int32(have+i)] = replicas
		for _, id := range without(replicas, ids) {
			if !slices.Contains(unknown, id) {
				unknown = append(unknown, id)
			}
		}
	}
	switch {
	case len(unknown) > 0:
		return nil, refuse(kerr.InvalidReplicaAssignment, "Unknown broker(s) in replica assignment: %s.", joinIDs(unknown))
	case len(ask.Assignment) != more:
		return nil, refuse(kerr.InvalidReplicaAssignment, "Increasing the number of partitions by %d but %d assignments provided.",
			more, len(ask.Assignment))
	}
	return assigned, checkAddedAssignment(assigned, len(first.replicas), ids)
}
