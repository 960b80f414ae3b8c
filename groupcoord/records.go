package groupcoord

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
)

// The records of __consumer_offsets. A key is an int16 type and its fields; a null value is a tombstone.
//
//	type  key                       value
//	0, 1  group, topic, partition   OffsetCommitValue: version 3 is written, 1 for a commit with its own expiry
//	2     group                     GroupMetadataValue: version 3 is written
//	3 …   the groups of KIP-848     skipped
//
// Burrow, kafka-dump-log and others read them: the bytes are Kafka's.
const (
	keyOffset        = 1
	keyGroup         = 2
	valueOffset      = 3
	valueOffsetUntil = 1 // with expireTimestamp
	valueGroup       = 3
	noTimestamp      = -1
)

func offsetKey(group string, tp cluster.TopicPartition) []byte {
	k := kmsg.OffsetCommitKey{Version: keyOffset, Group: group, Topic: tp.Topic, Partition: tp.Partition}
	return k.AppendTo(make([]byte, 0, 10+len(group)+len(tp.Topic)))
}

func offsetValue(c *Committed) []byte {
	v := kmsg.OffsetCommitValue{
		Version: valueOffset, Offset: c.Offset, LeaderEpoch: int32(c.LeaderEpoch), Metadata: c.Metadata, CommitTimestamp: c.CommitMs,
	}
	if c.ExpireMs != noTimestamp {
		v.Version, v.ExpireTimestamp = valueOffsetUntil, c.ExpireMs
	}
	return v.AppendTo(make([]byte, 0, 32+len(c.Metadata)))
}

func groupKey(group string) []byte {
	k := kmsg.GroupMetadataKey{Version: keyGroup, Group: group}
	return k.AppendTo(nil)
}

// record is the group's value. assignment replaces what the members have, when not nil.
func (g *group) record(assignment map[string][]byte) []byte {
	v := kmsg.GroupMetadataValue{
		Version: valueGroup, ProtocolType: g.protocolType, Generation: g.generation,
		Protocol: nullable(g.protocol), Leader: nullable(g.leader), CurrentStateTimestamp: millis(g.since),
		Members: make([]kmsg.GroupMetadataValueMember, 0, len(g.order)),
	}
	for _, m := range g.order {
		a := m.assignment
		if assignment != nil {
			a = assignment[m.id]
		}
		v.Members = append(v.Members, kmsg.GroupMetadataValueMember{
			MemberID: m.id, InstanceID: m.instance, ClientID: m.clientID, ClientHost: m.clientHost,
			RebalanceTimeoutMillis: int32(m.rebalanceTimeout.Milliseconds()),
			SessionTimeoutMillis:   int32(m.sessionTimeout.Milliseconds()),
			Subscription:           m.metadata(g.protocol), Assignment: a,
		})
	}
	return v.AppendTo(nil)
}

func nullable(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func orEmpty(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return noTimestamp
	}
	return t.UnixMilli()
}

// loadedKey is a decoded key.
type loadedKey struct {
	kind   int16
	group  string
	tp     cluster.TopicPartition // of keyOffset
	offset bool
}

var errRecord = errors.New("malformed record")

// decodeKey reads a key; known is false for kinds that are none of the classic protocol's.
func decodeKey(key []byte) (k loadedKey, known bool, err error) {
	if len(key) < 2 {
		return k, false, fmt.Errorf("%w: key of %d bytes", errRecord, len(key))
	}
	switch k.kind = int16(binary.BigEndian.Uint16(key)); k.kind {
	case 0, keyOffset:
		var v kmsg.OffsetCommitKey
		if err := v.ReadFrom(key); err != nil {
			return k, true, fmt.Errorf("%w: offset key: %w", errRecord, err)
		}
		k.group, k.tp, k.offset = v.Group, cluster.TopicPartition{Topic: v.Topic, Partition: v.Partition}, true
		return k, true, nil
	case keyGroup:
		var v kmsg.GroupMetadataKey
		if err := v.ReadFrom(key); err != nil {
			return k, true, fmt.Errorf("%w: group key: %w", errRecord, err)
		}
		k.group = v.Group
		return k, true, nil
	}
	return k, false, nil
}

func decodeOffset(value []byte) (Committed, error) {
	var v kmsg.OffsetCommitValue
	if len(value) < 2 || int16(binary.BigEndian.Uint16(value)) > 4 {
		return Committed{}, fmt.Errorf("%w: offset value of an unknown version", errRecord)
	}
	if err := v.ReadFrom(value); err != nil {
		return Committed{}, fmt.Errorf("%w: offset value: %w", errRecord, err)
	}
	c := Committed{
		Offset: v.Offset, LeaderEpoch: cluster.NoLeaderEpoch, Metadata: v.Metadata, CommitMs: v.CommitTimestamp, ExpireMs: noTimestamp,
	}
	if v.Version >= 3 {
		c.LeaderEpoch = cluster.LeaderEpoch(v.LeaderEpoch)
	}
	if v.Version == 1 {
		c.ExpireMs = v.ExpireTimestamp
	}
	return c, nil
}

func decodeGroup(value []byte) (*kmsg.GroupMetadataValue, error) {
	var v kmsg.GroupMetadataValue
	if len(value) < 2 || int16(binary.BigEndian.Uint16(value)) > 4 {
		return nil, fmt.Errorf("%w: group value of an unknown version", errRecord)
	}
	if err := v.ReadFrom(value); err != nil {
		return nil, fmt.Errorf("%w: group value: %w", errRecord, err)
	}
	return &v, nil
}

// restore brings a group back from its record: with members it is Stable and their sessions start now, else Empty.
func (g *group) restore(v *kmsg.GroupMetadataValue, now time.Time) {
	g.protocolType, g.generation = v.ProtocolType, v.Generation
	g.protocol, g.leader = orEmpty(v.Protocol), orEmpty(v.Leader)
	g.since = time.Time{}
	if v.Version >= 2 && v.CurrentStateTimestamp >= 0 {
		g.since = time.UnixMilli(v.CurrentStateTimestamp)
	}
	g.state = Empty
	for i := range v.Members {
		f := &v.Members[i]
		m := &member{
			id: f.MemberID, instance: f.InstanceID, clientID: f.ClientID, clientHost: f.ClientHost,
			rebalanceTimeout: time.Duration(f.RebalanceTimeoutMillis) * time.Millisecond,
			sessionTimeout:   time.Duration(f.SessionTimeoutMillis) * time.Millisecond,
			protocols:        []Protocol{{g.protocol, f.Subscription}}, assignment: f.Assignment,
		}
		if v.Version == 0 {
			m.rebalanceTimeout = m.sessionTimeout
		}
		m.heard(now)
		g.members[m.id] = m
		g.order = append(g.order, m)
		if m.instance != nil {
			g.statics[*m.instance] = m.id
		}
		g.state = Stable
	}
	if g.members[g.leader] == nil {
		g.leader = ""
		if len(g.order) > 0 {
			g.leader = g.order[0].id
		}
	}
	g.subscribed = g.subscriptions()
}
