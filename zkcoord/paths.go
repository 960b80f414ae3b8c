package zkcoord

import (
	"strconv"
	"strings"

	"ottla/internal/cluster"
)

// Fixed paths, relative to the chroot.
const (
	ClusterIDPath             = "/cluster/id"
	BrokerIDsPath             = "/brokers/ids"
	BrokerTopicsPath          = "/brokers/topics"
	BrokerSeqIDPath           = "/brokers/seqid"
	ControllerPath            = "/controller"
	ControllerEpochPath       = "/controller_epoch"
	FeaturePath               = "/feature"
	ProducerIDBlockPath       = "/latest_producer_id_block"
	MigrationPath             = "/migration"
	ConfigPath                = "/config"
	ConfigChangesPath         = "/config/changes"
	DeleteTopicsPath          = "/admin/delete_topics"
	ReassignPartitionsPath    = "/admin/reassign_partitions"
	PreferredElectionPath     = "/admin/preferred_replica_election"
	ISRChangesPath            = "/isr_change_notification"
	LogDirEventsPath          = "/log_dir_event_notification"
	ConsumersPath             = "/consumers"
	ACLPath                   = "/kafka-acl"
	ExtendedACLPath           = "/kafka-acl-extended"
	ACLChangesPath            = "/kafka-acl-changes"
	ExtendedACLChangesPath    = "/kafka-acl-extended-changes"
	DelegationTokensPath      = "/delegation_token/tokens"
	DelegationTokenChangePath = "/delegation_token/token_changes"

	configChangePrefix = ConfigChangesPath + "/config_change_"
	isrChangePrefix    = ISRChangesPath + "/isr_change_"
	logDirEventPrefix  = LogDirEventsPath + "/log_dir_event_"
)

// topLevelPaths are created, if missing, at every start of a broker.
var topLevelPaths = []string{
	ConsumersPath, BrokerIDsPath, BrokerTopicsPath, ConfigChangesPath, DeleteTopicsPath, BrokerSeqIDPath, ISRChangesPath,
	ProducerIDBlockPath, LogDirEventsPath, ConfigPath + "/" + EntityTopics, ConfigPath + "/" + EntityClients,
	ConfigPath + "/" + EntityUsers, ConfigPath + "/" + EntityBrokers, ConfigPath + "/" + EntityIPs,
}

// BrokerPath is the registration of a broker.
func BrokerPath(id cluster.BrokerID) string { return BrokerIDsPath + "/" + strconv.Itoa(int(id)) }

// TopicPath holds a topic's assignment.
func TopicPath(topic string) string { return BrokerTopicsPath + "/" + topic }

// PartitionsPath is the container of a topic's partitions.
func PartitionsPath(topic string) string { return TopicPath(topic) + "/partitions" }

// PartitionPath is the container of one partition's state.
func PartitionPath(tp cluster.TopicPartition) string {
	return PartitionsPath(tp.Topic) + "/" + strconv.Itoa(int(tp.Partition))
}

// StatePath holds one partition's leader and ISR.
func StatePath(tp cluster.TopicPartition) string { return PartitionPath(tp) + "/state" }

// ConfigEntityPath holds the configuration of an entity, for example ("users", "u1/clients/c1").
func ConfigEntityPath(entityType, name string) string {
	return ConfigPath + "/" + entityType + "/" + name
}

// TopicConfigPath holds a topic's configuration.
func TopicConfigPath(topic string) string { return ConfigEntityPath(EntityTopics, topic) }

// DeleteTopicPath asks for the deletion of a topic.
func DeleteTopicPath(topic string) string { return DeleteTopicsPath + "/" + topic }

// GroupPath is the root of a group that keeps its offsets in ZooKeeper.
func GroupPath(group string) string { return ConsumersPath + "/" + group }

// GroupOffsetsPath is the container of a group's offsets.
func GroupOffsetsPath(group string) string { return GroupPath(group) + "/offsets" }

// GroupOffsetPath holds one committed offset.
func GroupOffsetPath(group string, tp cluster.TopicPartition) string {
	return GroupOffsetsPath(group) + "/" + tp.Topic + "/" + strconv.Itoa(int(tp.Partition))
}

func parentPath(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 {
		return "/"
	}
	return path[:i]
}

// Sequence returns the number that ZooKeeper appended to the name of a sequential znode. It is negative after a wrap.
func Sequence(name string) (int32, bool) {
	// The counter prints as %010d: ten digits, or a minus sign and nine or more.
	for _, width := range []int{11, 10} {
		if len(name) < width {
			continue
		}
		digits := name[len(name)-width:]
		if width == 11 && digits[0] != '-' {
			continue
		}
		n, err := strconv.ParseInt(digits, 10, 32)
		if err == nil && digits[0] != '+' {
			return int32(n), true
		}
	}
	return 0, false
}
