package controller

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// TopicSpec is a topic to create.
type TopicSpec struct {
	Name              string
	Partitions        int32 // -1: num.partitions
	ReplicationFactor int16 // -1: default.replication.factor
	// Assignment is the replicas of each partition; nil: they are chosen. With it, the two fields above must be -1.
	Assignment map[int32][]cluster.BrokerID
	Configs    map[string]string
	Rand       *rand.Rand // nil: seeded by the system
}

// TopicCreated is a topic that was, or could be, created.
type TopicCreated struct {
	Name              string
	ID                cluster.TopicID
	Partitions        int32
	ReplicationFactor int16
	Assignment        map[int32][]cluster.BrokerID
}

// topicNameMax is the longest name of a topic: its directories end in "-<partition>" or a suffix of deletion.
const topicNameMax = 249

// ClusterMetadataTopic is the one topic that must never be created. Source: KIP-595.
const ClusterMetadataTopic = "__cluster_metadata"

// CheckTopicName judges a topic's name. The error is a *Refusal with INVALID_TOPIC_EXCEPTION.
func CheckTopicName(name string) error {
	bad := func(why string) error { return refuse(kerr.InvalidTopicException, "Topic name is invalid: %s", why) }
	switch {
	case name == "":
		return bad("the empty string is not allowed")
	case name == ".":
		return bad("'.' is not allowed")
	case name == "..":
		return bad("'..' is not allowed")
	case len(name) > topicNameMax:
		return bad(fmt.Sprintf("the length of '%s' is longer than the max allowed length %d", name, topicNameMax))
	case strings.ContainsFunc(name, func(c rune) bool { return !legalInTopic(c) }):
		return bad(fmt.Sprintf("'%s' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'", name))
	}
	return nil
}

func legalInTopic(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '.' || c == '_' || c == '-'
}

// collides reports whether two names give the same metric names: '.' and '_' are the same there.
func collides(a, b string) bool {
	return strings.ReplaceAll(a, ".", "_") == strings.ReplaceAll(b, ".", "_")
}

// topicsThere is what a new topic is judged against.
type topicsThere struct {
	names     []string // all topics, asked for only where names could collide
	exists    bool     // there is one of this name
	deletable bool     // its name is marked for deletion
}

// plan judges a topic and decides its assignment. Errors are a *Refusal, in the words of Kafka 3.9.
func (spec TopicSpec) plan(snapshot *config.Snapshot, brokers []cluster.Broker, there topicsThere) (TopicCreated, error) {
	if there.exists {
		return TopicCreated{}, refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", spec.Name)
	}
	if len(spec.Assignment) > 0 && (spec.Partitions != -1 || spec.ReplicationFactor != -1) {
		return TopicCreated{}, refuse(kerr.InvalidRequest, "Both numPartitions or replicationFactor and replicasAssignments were set. "+
			"Both cannot be used at the same time.")
	}
	assigned, err := spec.assign(snapshot, brokers)
	if err != nil {
		return TopicCreated{}, err
	}
	if err := CheckTopicName(spec.Name); err != nil {
		return TopicCreated{}, err
	}
	if there.deletable {
		return TopicCreated{}, refuse(kerr.TopicAlreadyExists, "Topic '%s' is marked for deletion.", spec.Name)
	}
	if other := spec.collision(there.names); len(other) > 0 {
		return TopicCreated{}, refuse(kerr.InvalidTopicException, "Topic '%s' collides with existing topics: %s", spec.Name,
			strings.Join(other, ", "))
	}
	if err := checkManualAssignment(assigned); err != nil {
		return TopicCreated{}, err
	}
	if err := config.ValidateTopic(snapshot, spec.Configs); err != nil {
		return TopicCreated{}, invalidConfig(err)
	}
	return TopicCreated{
		Name:              spec.Name,
		ID:                cluster.NewTopicID(),
		Partitions:        int32(len(assigned)),
		ReplicationFactor: int16(len(assigned[0])),
		Assignment:        assigned,
	}, nil
}

func invalidConfig(err error) error {
	var refusal *Refusal
	if errors.As(err, &refusal) {
		return refusal
	}
	return refuse(kerr.InvalidConfig, "%s", err)
}

func (spec TopicSpec) assign(snapshot *config.Snapshot, brokers []cluster.Broker) (map[int32][]cluster.BrokerID, error) {
	if len(spec.Assignment) > 0 {
		return spec.Assignment, nil
	}
	count, factor := int(spec.Partitions), int(spec.ReplicationFactor)
	if count == -1 {
		count = config.NumPartitions.Of(snapshot)
	}
	if factor == -1 {
		factor = config.DefaultReplicationFactor.Of(snapshot)
	}
	rng := spec.Rand
	if rng == nil {
		rng = rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	}
	return AssignReplicas(brokers, count, factor, 0, RandomPlacement(rng, len(brokers)))
}

func (spec TopicSpec) collision(names []string) []string {
	if !strings.ContainsAny(spec.Name, "._") {
		return nil
	}
	var out []string
	for _, name := range names {
		if name != spec.Name && collides(name, spec.Name) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}

// ops create the topic's configuration and the topic, all or nothing. Kafka writes the two one after the other.
func (spec TopicSpec) ops(created TopicCreated, configThere bool) []zkcoord.Op {
	data := zkcoord.EncodeConfig(spec.Configs)
	configOp := zkcoord.CreateOp(zkcoord.TopicConfigPath(spec.Name), data, zkcoord.Persistent)
	if configThere {
		configOp = zkcoord.SetOp(zkcoord.TopicConfigPath(spec.Name), data, zkcoord.AnyVersion)
	}
	node := zkcoord.EncodeTopic(zkcoord.TopicNode{ID: created.ID, Partitions: created.Assignment})
	return []zkcoord.Op{configOp, zkcoord.CreateOp(zkcoord.TopicPath(spec.Name), node, zkcoord.Persistent)}
}

// CreateTopic creates a topic from any broker, which need not be the controller: for automatic creation and internal topics. The
// controller sees the znode and starts the partitions. The error is a *Refusal (TOPIC_ALREADY_EXISTS among them) or a fault of
// ZooKeeper.
func CreateTopic(s zkcoord.Session, snapshot *config.Snapshot, brokers []cluster.Broker, spec TopicSpec) (TopicCreated, error) {
	there, err := lookAround(s, spec.Name)
	if err != nil {
		return TopicCreated{}, err
	}
	created, err := spec.plan(snapshot, brokers, there)
	if err != nil {
		return TopicCreated{}, err
	}
	for range roundsMax {
		configThere, _, err := s.Exists(zkcoord.TopicConfigPath(spec.Name))
		if err != nil {
			return TopicCreated{}, fmt.Errorf("create topic %s: %w", spec.Name, err)
		}
		if _, err = s.Multi(spec.ops(created, configThere)...); err == nil {
			return created, nil
		}
		if !errors.Is(err, zkcoord.ErrNodeExists) && !errors.Is(err, zkcoord.ErrNoNode) && !errors.Is(err, zkcoord.ErrConnectionLost) {
			return TopicCreated{}, fmt.Errorf("create topic %s: %w", spec.Name, err)
		}
		node, found, err := zkcoord.ReadTopic(s, spec.Name)
		switch {
		case err != nil:
			return TopicCreated{}, fmt.Errorf("create topic %s: %w", spec.Name, err)
		case found && node.ID == created.ID:
			return created, nil // the answer was lost
		case found:
			return TopicCreated{}, refuse(kerr.TopicAlreadyExists, "Topic '%s' already exists.", spec.Name)
		}
	}
	return TopicCreated{}, fmt.Errorf("create topic %s: given up after %d attempts", spec.Name, roundsMax)
}

func lookAround(s zkcoord.Session, name string) (topicsThere, error) {
	var there topicsThere
	if err := CheckTopicName(name); err != nil {
		return there, nil // plan says what is wrong with it; it is no path to look at
	}
	for _, look := range []struct {
		path  string
		found *bool
	}{
		{zkcoord.TopicPath(name), &there.exists},
		{zkcoord.DeleteTopicPath(name), &there.deletable},
	} {
		found, _, err := s.Exists(look.path)
		if err != nil {
			return there, fmt.Errorf("look for topic %s: %w", name, err)
		}
		*look.found = found
	}
	if strings.ContainsAny(name, "._") {
		names, err := zkcoord.TopicNames(s)
		if err != nil {
			return there, fmt.Errorf("list topics: %w", err)
		}
		there.names = names
	}
	return there, nil
}
