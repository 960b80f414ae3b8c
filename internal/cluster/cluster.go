// Package cluster holds the few domain types that every room of the house shares: identities and epochs.
// They have no behaviour beyond printing and parsing; mixing two of them is a compile error, which is their purpose.
//
// Offsets stay int64. An offset that ends something (log end offset, high watermark, …) is exclusive everywhere.
package cluster

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
)

// BrokerID is a broker's number, as in broker.id. NoBroker stands for "none" (a partition without leader).
type BrokerID int32

// NoBroker means that there is no such broker: a partition without leader, an unknown controller.
const NoBroker BrokerID = -1

// LeaderEpoch counts the leaders of one partition (leader_epoch in the partition state znode). Source: KIP-101, KIP-320.
type LeaderEpoch int32

// NoLeaderEpoch is sent where no leader epoch is known.
const NoLeaderEpoch LeaderEpoch = -1

// DeletedLeaderEpoch marks a partition of a topic that is being deleted, in StopReplica and UpdateMetadata.
const DeletedLeaderEpoch LeaderEpoch = -2

// PartitionEpoch is the data version of a partition's state znode.
type PartitionEpoch int32

// ControllerEpoch counts the controllers of the cluster: the number in /controller_epoch.
type ControllerEpoch int32

// BrokerEpoch names one registration of a broker: the czxid of /brokers/ids/N. Source: KIP-380.
type BrokerEpoch int64

// NoBrokerEpoch is sent where a broker epoch is unknown.
const NoBrokerEpoch BrokerEpoch = -1

// LeaderRecoveryState says whether a leader was elected uncleanly and has not yet recovered. Source: KIP-704.
type LeaderRecoveryState int8

// The two recovery states of a partition's leader.
const (
	Recovered  LeaderRecoveryState = 0
	Recovering LeaderRecoveryState = 1
)

// TopicID is a topic's unique id: 16 random bytes, printed as 22 characters of URL-safe base64. Source: KIP-516.
type TopicID [16]byte

// NewTopicID returns a random id (UUID version 4) whose text does not start with '-', so that command lines can carry it.
func NewTopicID() TopicID {
	for {
		var id TopicID
		_, _ = rand.Read(id[:]) // crypto/rand never fails
		id[6] = id[6]&0x0f | 0x40
		id[8] = id[8]&0x3f | 0x80
		if id.String()[0] != '-' {
			return id
		}
	}
}

// ParseTopicID reads the 22-character form.
func ParseTopicID(s string) (TopicID, error) {
	var id TopicID
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return id, fmt.Errorf("topic id %q: %w", s, err)
	}
	if len(raw) != len(id) {
		return id, fmt.Errorf("topic id %q: %w", s, errIDLength)
	}
	copy(id[:], raw)
	return id, nil
}

var errIDLength = errors.New("want 16 bytes as 22 characters of URL-safe base64")

// IsZero reports whether the id is the all-zero one, which means "no id".
func (id TopicID) IsZero() bool { return id == TopicID{} }

func (id TopicID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// TopicPartition names one partition.
type TopicPartition struct {
	Topic     string
	Partition int32
}

func (tp TopicPartition) String() string {
	return tp.Topic + "-" + strconv.Itoa(int(tp.Partition))
}

// Endpoint is one advertised listener of a broker.
type Endpoint struct {
	Listener string // listener name, upper case
	Protocol string // PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL
	Host     string
	Port     int32
}

// Broker is one registered broker.
type Broker struct {
	ID        BrokerID
	Epoch     BrokerEpoch
	Endpoints []Endpoint
	Rack      string // empty when unset
}

// Endpoint returns the broker's endpoint on the named listener.
func (b Broker) Endpoint(listener string) (Endpoint, bool) {
	for _, e := range b.Endpoints {
		if e.Listener == listener {
			return e, true
		}
	}
	return Endpoint{}, false
}

// DefaultEntity stands, literally, for everybody of a type of entities who has no settings of his own.
const DefaultEntity = "<default>"

// ClientEntity is whom quotas are for: a user, a client id, a client id of a user, or an address. An empty part takes no part.
type ClientEntity struct{ User, Client, IP string }
