package zkcoord

import (
	"context"
	"fmt"
	"time"

	"github.com/rs/zerolog"

	"ottla/internal/cluster"
)

// Client keeps one session open.
type Client struct{}

func Connect(ctx context.Context, o Options) (*Client, error) { panic("todo") }
func (c *Client) Session() Session                            { panic("todo") }
func (c *Client) LeaseValid() bool                            { panic("todo") }
func (c *Client) LeaseRemaining() time.Duration               { panic("todo") }
func (c *Client) LeaseLength() time.Duration                  { panic("todo") }
func (c *Client) Connected() bool                             { panic("todo") }
func (c *Client) Close()                                      { panic("todo") }

func EnsurePaths(s Session) error                                      { panic("todo") }
func ClusterID(s Session) (string, error)                              { panic("todo") }
func NextBrokerID(s Session, reserved int32) (cluster.BrokerID, error) { panic("todo") }

type FeatureRange struct{ Min, Max int16 }
type Registration struct {
	Endpoints []cluster.Endpoint
	Rack      string
	JMXPort   int32
	Timestamp time.Time
	Features  map[string]FeatureRange
}

func EncodeRegistration(r Registration) []byte             { panic("todo") }
func DecodeRegistration(data []byte) (Registration, error) { panic("todo") }
func RegisterBroker(s Session, id cluster.BrokerID, r Registration, previous int64) (cluster.BrokerEpoch, error) {
	panic("todo")
}

type ErrBrokerIDTaken struct {
	ID           cluster.BrokerID
	Owner        int64
	Registration Registration
}

func (e *ErrBrokerIDTaken) Error() string { return fmt.Sprint(e.ID) }

func UpdateRegistration(s Session, id cluster.BrokerID, r Registration) error { panic("todo") }
func Brokers(s Session) ([]cluster.Broker, error)                             { panic("todo") }
func ReadBroker(s Session, id cluster.BrokerID) (cluster.Broker, bool, error) { panic("todo") }

type BadNode struct {
	Path string
	Err  error
}
type BadNodesError struct{ Nodes []BadNode }

func (e *BadNodesError) Error() string { return fmt.Sprint(e.Nodes) }

type ControllerNode struct {
	BrokerID       cluster.BrokerID
	EphemeralOwner int64
	KRaftEpoch     int32
	Version        int32
	Timestamp      time.Time
}
type Election struct {
	Won          bool
	Epoch        cluster.ControllerEpoch
	EpochVersion int32
	Current      ControllerNode
}

func ReadController(s Session) (ControllerNode, bool, error) { panic("todo") }
func ReadControllerEpoch(s Session) (epoch cluster.ControllerEpoch, version int32, found bool, err error) {
	panic("todo")
}
func Elect(s Session, id cluster.BrokerID) (Election, error) { panic("todo") }
func Resign(s Session, epochVersion int32) error             { panic("todo") }

// UnitResult is the outcome of one unit of WriteFenced.
type UnitResult struct {
	Results []OpResult
	Err     error
}

// WriteFenced does many small all-or-nothing units, each under a check of the controller epoch's version.
func WriteFenced(s Session, epochVersion int32, units [][]Op) ([]UnitResult, error) { panic("todo") }

type TopicNode struct {
	ID               cluster.TopicID
	Partitions       map[int32][]cluster.BrokerID
	Adding, Removing map[int32][]cluster.BrokerID
	Version          int32 // data version, as read; not part of the payload
}

func EncodeTopic(t TopicNode) []byte             { panic("todo") }
func DecodeTopic(data []byte) (TopicNode, error) { panic("todo") }

type PartitionState struct {
	Leader          cluster.BrokerID
	LeaderEpoch     cluster.LeaderEpoch
	ISR             []cluster.BrokerID
	ControllerEpoch cluster.ControllerEpoch
	Recovery        cluster.LeaderRecoveryState
}
type StateAndVersion struct {
	State   PartitionState
	Version cluster.PartitionEpoch
}

func EncodeState(st PartitionState) []byte            { panic("todo") }
func DecodeState(data []byte) (PartitionState, error) { panic("todo") }
func TopicNames(s Session) ([]string, error)          { panic("todo") }
func ReadTopic(s Session, topic string) (TopicNode, bool, error) {
	panic("todo")
}
func ReadTopics(s Session, names []string) (map[string]TopicNode, error) { panic("todo") }
func Topics(s Session) (map[string]TopicNode, error)                     { panic("todo") }
func States(s Session, tps []cluster.TopicPartition) (map[cluster.TopicPartition]StateAndVersion, error) {
	panic("todo")
}
func ReadState(s Session, tp cluster.TopicPartition) (StateAndVersion, bool, error) { panic("todo") }

const (
	EntityTopics  = "topics"
	EntityBrokers = "brokers"
	EntityUsers   = "users"
	EntityClients = "clients"
	EntityIPs     = "ips"
	DefaultEntity = "<default>"
)

var ErrNoController error

func SanitizeEntity(name string) string                                        { panic("todo") }
func DesanitizeEntity(name string) (string, error)                             { panic("todo") }
func EncodeConfig(config map[string]string) []byte                             { panic("todo") }
func DecodeConfig(data []byte) (map[string]string, error)                      { panic("todo") }
func ReadConfig(s Session, entityType, name string) (map[string]string, error) { panic("todo") }
func ReadConfigs(s Session, entityType string, names []string) (map[string]map[string]string, error) {
	panic("todo")
}
func WriteConfig(s Session, entityType, name string, config map[string]string) error { panic("todo") }
func EntityNames(s Session, entityType string) ([]string, error)                     { panic("todo") }
func NotifyConfigChange(s Session, entityPath string) error                          { panic("todo") }

type ConfigChanges struct{}

// WatchConfigChanges calls fn, from a goroutine of its own, with the entity path ("topics/orders") of every change; existing ones first.
func WatchConfigChanges(s Session, logger zerolog.Logger, fn func(entityPath string)) (*ConfigChanges, error) {
	panic("todo")
}
func (c *ConfigChanges) Close() { panic("todo") }

func AllocateProducerIDs(s Session, broker cluster.BrokerID) (first, count int64, err error) {
	panic("todo")
}

func RequestTopicDeletion(s Session, topic string) error { panic("todo") }
func TopicDeletions(s Session) ([]string, error)         { panic("todo") }

type Reassignment struct {
	Partitions map[cluster.TopicPartition][]cluster.BrokerID
	Version    int32
}

func EncodeReassignment(p map[cluster.TopicPartition][]cluster.BrokerID) []byte { panic("todo") }
func DecodeReassignment(data []byte) (map[cluster.TopicPartition][]cluster.BrokerID, error) {
	panic("todo")
}
func ReadReassignment(s Session) (Reassignment, bool, error)                  { panic("todo") }
func EncodePartitions(tps []cluster.TopicPartition) []byte                    { panic("todo") }
func DecodePartitions(data []byte) ([]cluster.TopicPartition, error)          { panic("todo") }
func ReadPreferredElection(s Session) ([]cluster.TopicPartition, bool, error) { panic("todo") }

type ISRChange struct {
	Path       string
	Partitions []cluster.TopicPartition
}
type LogDirEvent struct {
	Path   string
	Broker cluster.BrokerID
	Event  int32
}

func NotifyISRChange(s Session, tps []cluster.TopicPartition) error { panic("todo") }
func ISRChanges(s Session) ([]ISRChange, error)                     { panic("todo") }
func NotifyLogDirFailure(s Session, broker cluster.BrokerID) error  { panic("todo") }
func LogDirEvents(s Session) ([]LogDirEvent, error)                 { panic("todo") }

type Features struct {
	Enabled   bool
	Finalized map[string]FeatureRange
	Version   int32
}

func ReadFeatures(s Session) (Features, bool, error) { panic("todo") }
func EnsureFeatures(s Session) error                 { panic("todo") }

func ReadOffsets(s Session, group string, tps []cluster.TopicPartition) (map[cluster.TopicPartition]int64, error) {
	panic("todo")
}
func WriteOffsets(s Session, group string, offsets map[cluster.TopicPartition]int64) map[cluster.TopicPartition]error {
	panic("todo")
}
func GroupPartitions(s Session, group string) ([]cluster.TopicPartition, error) { panic("todo") }
func Groups(s Session) ([]string, error)                                        { panic("todo") }
