package zkcoord

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"ottla/internal/cluster"
)

// TopicNode is the payload of /brokers/topics/T, version 3.
type TopicNode struct {
	ID         cluster.TopicID              // zero = none, as old tools write it
	Partitions map[int32][]cluster.BrokerID // the full current set of replicas; during a reassignment the targets come first
	Adding     map[int32][]cluster.BrokerID // only partitions under reassignment
	Removing   map[int32][]cluster.BrokerID
	Version    int32 // data version, as read; not part of the payload
}

// EncodeTopic writes version 3. Source: KIP-455, KIP-516.
func EncodeTopic(t TopicNode) []byte {
	b := make([]byte, 0, 128+20*len(t.Partitions))
	b = appendReplicas(append(b, `{"partitions":`...), t.Partitions)
	if !t.ID.IsZero() {
		b = appendQuoted(append(b, `,"topic_id":`...), t.ID.String())
	}
	b = appendReplicas(append(b, `,"adding_replicas":`...), t.Adding)
	b = appendReplicas(append(b, `,"removing_replicas":`...), t.Removing)
	return append(b, `,"version":3}`...)
}

func appendReplicas(b []byte, m map[int32][]cluster.BrokerID) []byte {
	b = append(b, '{')
	for i, partition := range slices.Sorted(maps.Keys(m)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, '"'), int64(partition), 10)
		b = appendBrokerIDs(append(b, '"', ':'), m[partition])
	}
	return append(b, '}')
}

// DecodeTopic reads versions 1 to 3; like Kafka it does not look at the version.
func DecodeTopic(data []byte) (TopicNode, error) {
	o, err := parseObject(data)
	if err != nil {
		return TopicNode{}, err
	}
	var t TopicNode
	if !o.has("partitions") {
		return t, fmt.Errorf("%w: no %q", ErrInvalid, "partitions")
	}
	for _, part := range []struct {
		key  string
		into *map[int32][]cluster.BrokerID
	}{{"partitions", &t.Partitions}, {"adding_replicas", &t.Adding}, {"removing_replicas", &t.Removing}} {
		if *part.into, err = decodeReplicas(o, part.key); err != nil {
			return t, err
		}
	}
	id, err := optional(o, "topic_id", "")
	if err != nil || id == "" {
		return t, err
	}
	if t.ID, err = cluster.ParseTopicID(id); err != nil {
		err = fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return t, err
}

func decodeReplicas(o object, key string) (map[int32][]cluster.BrokerID, error) {
	raw, err := optional[map[string][]*cluster.BrokerID](o, key, nil)
	if err != nil {
		return nil, err
	}
	replicas := make(map[int32][]cluster.BrokerID, len(raw))
	for name, ids := range raw {
		partition, err := strconv.ParseInt(name, 10, 32)
		if err != nil || partition < 0 {
			return nil, fmt.Errorf("%w: %q: partition %q", ErrInvalid, key, name)
		}
		if ids == nil {
			return nil, fmt.Errorf("%w: %q: partition %q has no list", ErrInvalid, key, name)
		}
		if replicas[int32(partition)], err = notNull(ids); err != nil {
			return nil, err
		}
	}
	return replicas, nil
}

func notNull(ids []*cluster.BrokerID) ([]cluster.BrokerID, error) {
	values := make([]cluster.BrokerID, len(ids))
	for i, id := range ids {
		if id == nil {
			return nil, fmt.Errorf("%w: a broker id is null", ErrInvalid)
		}
		values[i] = *id
	}
	return values, nil
}

// TopicNames lists the topics, sorted.
func TopicNames(s Session) ([]string, error) {
	names, _, err := s.Children(BrokerTopicsPath)
	slices.Sort(names)
	return names, err
}

// ReadTopic reads one topic.
func ReadTopic(s Session, topic string) (node TopicNode, found bool, err error) {
	nodes, err := ReadTopics(s, []string{topic})
	node, found = nodes[topic]
	return node, found, err
}

// ReadTopics reads the named topics; those that do not exist are missing in the result. Unreadable ones are named by a
// *BadNodesError beside the result.
func ReadTopics(s Session, names []string) (map[string]TopicNode, error) {
	paths := make([]string, len(names))
	for i, name := range names {
		paths[i] = TopicPath(name)
	}
	topics := make(map[string]TopicNode, len(names))
	err := readMany(s, paths, func(i int, r GetResult) error {
		node, err := DecodeTopic(r.Data)
		if err != nil {
			return err
		}
		node.Version = r.Stat.Version
		topics[names[i]] = node
		return nil
	})
	return topics, err
}

// Topics reads all topics; see ReadTopics.
func Topics(s Session) (map[string]TopicNode, error) {
	names, err := TopicNames(s)
	if err != nil {
		return nil, err
	}
	return ReadTopics(s, names)
}

// readMany reads many znodes and hands over those that exist. What take refuses is named by a *BadNodesError.
func readMany(s Session, paths []string, take func(i int, r GetResult) error) error {
	var bad badNodes
	for i, r := range s.GetMany(paths) {
		if errors.Is(r.Err, ErrNoNode) {
			continue
		}
		if r.Err != nil {
			return r.Err
		}
		if err := take(i, r); err != nil {
			bad.add(paths[i], err)
		}
	}
	return bad.err()
}

// PartitionState is the payload of a partition's state znode, version 1.
type PartitionState struct {
	Leader          cluster.BrokerID // NoBroker = none
	LeaderEpoch     cluster.LeaderEpoch
	ISR             []cluster.BrokerID
	ControllerEpoch cluster.ControllerEpoch // of the controller that decided
	Recovery        cluster.LeaderRecoveryState
}

// StateAndVersion is a state with the data version it was read at, the partition epoch.
type StateAndVersion struct {
	State   PartitionState
	Version cluster.PartitionEpoch
	Zxid    int64 // of the last write
}

// EncodeState writes version 1. The recovery state is written only while recovering. Source: KIP-704.
func EncodeState(st PartitionState) []byte {
	b := make([]byte, 0, 112)
	b = appendInt(append(b, `{"controller_epoch":`...), int32(st.ControllerEpoch))
	b = appendInt(append(b, `,"leader":`...), int32(st.Leader))
	b = appendInt(append(b, `,"version":1,"leader_epoch":`...), int32(st.LeaderEpoch))
	b = appendBrokerIDs(append(b, `,"isr":`...), st.ISR)
	if st.Recovery != cluster.Recovered {
		b = appendInt(append(b, `,"leader_recovery_state":`...), int8(st.Recovery))
	}
	return append(b, '}')
}

// DecodeState reads version 1.
func DecodeState(data []byte) (st PartitionState, err error) {
	if st, ok := decodeUsualState(data); ok {
		return st, nil
	}
	return decodeAnyState(data)
}

// decodeUsualState reads what Kafka and this package write, byte for byte in that order: there are as many states as partitions, and
// this costs a fifteenth of the general way. Anything else, valid or not, is not its business.
func decodeUsualState(data []byte) (st PartitionState, ok bool) {
	r := usualReader(data)
	controllerEpoch := r.after(`{"controller_epoch":`)
	leader := r.after(`,"leader":`)
	version := r.after(`,"version":`)
	leaderEpoch := r.after(`,"leader_epoch":`)
	if version != 1 || !r.literal(`,"isr":[`) {
		return st, false
	}
	st = PartitionState{
		Leader: cluster.BrokerID(leader), LeaderEpoch: cluster.LeaderEpoch(leaderEpoch),
		ControllerEpoch: cluster.ControllerEpoch(controllerEpoch), ISR: make([]cluster.BrokerID, 0, 4),
	}
	for separator := ""; !r.literal("]"); separator = "," {
		st.ISR = append(st.ISR, cluster.BrokerID(r.after(separator)))
		if r == nil {
			return st, false
		}
	}
	return st, string(r) == "}"
}

// usualReader is what is left to read; nil after the first surprise.
type usualReader []byte

func (r *usualReader) literal(text string) bool {
	rest, found := bytes.CutPrefix(*r, []byte(text))
	if found {
		*r = rest
	}
	return found
}

// after reads a literal and the number behind it: at most nine digits, as JSON writes them.
func (r *usualReader) after(text string) int32 {
	if !r.literal(text) {
		*r = nil
		return 0
	}
	b, negative, value, digits := *r, false, int32(0), 0
	if len(b) > 0 && b[0] == '-' {
		b, negative = b[1:], true
	}
	for digits < len(b) && digits < 10 && b[digits] >= '0' && b[digits] <= '9' {
		if digits < 9 {
			value = value*10 + int32(b[digits]-'0')
		}
		digits++
	}
	if digits == 0 || digits > 9 || b[0] == '0' && (digits > 1 || negative) {
		*r = nil
		return 0
	}
	*r = b[digits:]
	if negative {
		return -value
	}
	return value
}

func decodeAnyState(data []byte) (st PartitionState, err error) {
	o, err := parseObject(data)
	if err != nil {
		return st, err
	}
	if st.Leader, err = required[cluster.BrokerID](o, "leader"); err != nil {
		return st, err
	}
	if st.LeaderEpoch, err = required[cluster.LeaderEpoch](o, "leader_epoch"); err != nil {
		return st, err
	}
	if st.ControllerEpoch, err = required[cluster.ControllerEpoch](o, "controller_epoch"); err != nil {
		return st, err
	}
	isr, err := required[[]*cluster.BrokerID](o, "isr")
	if err != nil {
		return st, err
	}
	if st.ISR, err = notNull(isr); err != nil {
		return st, err
	}
	if st.Recovery, err = optional(o, "leader_recovery_state", cluster.Recovered); err != nil {
		return st, err
	}
	if st.Recovery != cluster.Recovered && st.Recovery != cluster.Recovering {
		return st, fmt.Errorf("%w: leader_recovery_state %d", ErrInvalid, st.Recovery)
	}
	return st, nil
}

// ReadState reads one partition's state.
func ReadState(s Session, tp cluster.TopicPartition) (state StateAndVersion, found bool, err error) {
	states, err := States(s, []cluster.TopicPartition{tp})
	state, found = states[tp]
	return state, found, err
}

// States reads the states of many partitions; those without a state znode are missing in the result. Unreadable ones are named by a
// *BadNodesError beside the result.
func States(s Session, tps []cluster.TopicPartition) (map[cluster.TopicPartition]StateAndVersion, error) {
	paths := make([]string, len(tps))
	for i, tp := range tps {
		paths[i] = StatePath(tp)
	}
	states := make(map[cluster.TopicPartition]StateAndVersion, len(tps))
	err := readMany(s, paths, func(i int, r GetResult) error {
		st, err := DecodeState(r.Data)
		if err != nil {
			return err
		}
		states[tps[i]] = StateAndVersion{State: st, Version: cluster.PartitionEpoch(r.Stat.Version), Zxid: r.Stat.Mzxid}
		return nil
	})
	return states, err
}

// WriteState sets a partition's state if it still has the given version, and returns the new one. A write whose answer was lost
// is compared with what is there: it succeeded if the next version holds exactly this state. ErrBadVersion: read again, decide
// again. Other writes to check in the same transaction, such as the controller's fence, come first in checks.
func WriteState(s Session, tp cluster.TopicPartition, st PartitionState, version cluster.PartitionEpoch, checks ...Op) (cluster.PartitionEpoch, error) {
	payload := EncodeState(st)
	for {
		results, err := s.Multi(append(slices.Clone(checks), SetOp(StatePath(tp), payload, int32(version)))...)
		if err == nil {
			return cluster.PartitionEpoch(results[len(checks)].Stat.Version), nil
		}
		if !errors.Is(err, ErrConnectionLost) {
			return 0, err
		}
		data, stat, err := s.Get(StatePath(tp))
		if err != nil {
			return 0, err
		}
		if stat.Version == int32(version)+1 && string(data) == string(payload) {
			return cluster.PartitionEpoch(stat.Version), nil
		}
		if stat.Version != int32(version) {
			return 0, opError("set", StatePath(tp), ErrBadVersion)
		}
	}
}
