package broker

import (
	"errors"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/config"
	"ottla/controller"
	"ottla/internal/cluster"
)

// The topics that the broker keeps for itself.
const (
	offsetsTopic      = "__consumer_offsets"
	transactionsTopic = "__transaction_state"
)

func internalTopic(name string) bool { return name == offsetsTopic || name == transactionsTopic }

// refusalMessage is the sentence of a verdict that the controller's rules gave.
func refusalMessage(err error) string {
	var refused *controller.Refusal
	if errors.As(err, &refused) {
		return refused.Message
	}
	return errorMessage(err)
}

func validTopicName(name string) error { return controller.CheckTopicName(name) }

// partitionFor finds the partition that a client's request names. Hosted elsewhere: NOT_LEADER_OR_FOLLOWER; nowhere:
// UNKNOWN_TOPIC_OR_PARTITION.
func (b *Broker) partitionFor(topic string, number int32) (*partition.Partition, error) {
	p, err := b.partitions.Get(topic, number)
	if err == kerr.UnknownTopicOrPartition && b.metadata.load().partition(topic, number) != nil {
		return nil, kerr.NotLeaderForPartition
	}
	return p, err
}

// hint tells a client where the leader is now. Source: KIP-951.
type hint struct {
	id    cluster.BrokerID
	epoch cluster.LeaderEpoch
	host  string
	port  int32
	rack  string
}

// servedPartition is partitionFor as Produce and consumers' Fetch use it, as in Kafka: a topic that the metadata has lost is
// being deleted, so it is unknown even while its log is still here.
func (b *Broker) servedPartition(topic string, number int32) (*partition.Partition, error) {
	if b.metadata.load().partition(topic, number) == nil {
		return nil, kerr.UnknownTopicOrPartition
	}
	return b.partitionFor(topic, number)
}

// leaderHint is the newest that this broker knows of a partition's leader, on the client's listener: what the metadata says, or
// what the replica here was told, which is news a moment earlier. A client that is told the leader it has left would ask for
// metadata, and some ask only every few seconds.
func (b *Broker) leaderHint(topic string, number int32, told cluster.BrokerID, epoch cluster.LeaderEpoch, listener string) (hint, bool) {
	m := b.metadata.load()
	p := m.partition(topic, number)
	if p == nil {
		return hint{}, false
	}
	if epoch <= p.leaderEpoch {
		told, epoch = p.leader, p.leaderEpoch
	}
	leader := m.brokers[told]
	e, ok := leader.Endpoint(listener)
	if !ok || told == b.id { // this broker has just said that it does not lead
		return hint{}, false
	}
	return hint{leader.ID, epoch, e.Host, e.Port, leader.Rack}, true
}

func (b *Broker) autoCreates() bool { return config.AutoCreateTopicsEnable.Of(b.config.Load()) }

// autoCreateTopic creates a topic that a client asked for, with the broker's defaults (internal ones with their own), and says
// what Metadata should answer: LEADER_NOT_AVAILABLE while the controller has not yet chosen leaders. It waits for ZooKeeper.
func (b *Broker) autoCreateTopic(name string) *kerr.Error {
	snapshot := b.config.Load()
	spec := controller.TopicSpec{
		Name:              name,
		Partitions:        int32(config.NumPartitions.Of(snapshot)),
		ReplicationFactor: int16(config.DefaultReplicationFactor.Of(snapshot)),
	}
	switch name {
	case offsetsTopic:
		spec = offsetsTopicSpec(snapshot)
	case transactionsTopic:
		spec = transactionsTopicSpec(snapshot)
	}
	m := b.metadata.load()
	brokers := make([]cluster.Broker, 0, len(m.brokers))
	for _, id := range m.brokerIDs {
		brokers = append(brokers, m.brokers[id])
	}
	_, err := controller.CreateTopic(b.zk.Session(), snapshot, brokers, spec)
	switch {
	case err == nil, errors.Is(err, kerr.TopicAlreadyExists):
		return kerr.LeaderNotAvailable
	}
	b.log.Warn().Err(err).Str("topic", name).Msg("automatic creation of a topic failed")
	return b.verdict(err)
}

// offsetsTopicSpec is how __consumer_offsets is made.
func offsetsTopicSpec(s *config.Snapshot) controller.TopicSpec {
	return controller.TopicSpec{
		Name:              offsetsTopic,
		Partitions:        int32(config.OffsetsTopicNumPartitions.Of(s)),
		ReplicationFactor: int16(config.OffsetsTopicReplicationFactor.Of(s)),
		Configs: map[string]string{
			"cleanup.policy":   "compact",
			"compression.type": "producer",
			"segment.bytes":    itoa(int64(config.OffsetsTopicSegmentBytes.Of(s))),
		},
	}
}

// learnTopicConfigs makes sure that the settings of new topics are known before their logs are opened. When ZooKeeper does
// not answer in time the role change goes on with the defaults; the settings follow with their next notification.
func (b *Broker) learnTopicConfigs(req *kmsg.LeaderAndISRRequest) {
	var topics []string
	for i := range req.TopicStates {
		topics = append(topics, strings.Clone(req.TopicStates[i].Topic))
	}
	for i := range req.PartitionStates {
		topics = append(topics, strings.Clone(req.PartitionStates[i].Topic))
	}
	if err := b.topicConfigs.ensureWithin(topics, topicConfigWait); err != nil {
		b.log.Warn().Err(err).Int("topics", len(topics)).Msg("topic settings are not known yet, defaults apply until they are")
	}
}
