package groupcoord

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Explain puts a record of __consumer_offsets into words, for people. The error says that no coordinator can read the record.
func Explain(key, value []byte) (string, error) {
	k, known, err := decodeKey(key)
	if err != nil {
		return "", err
	}
	if !known {
		return fmt.Sprintf("a record of kind %d, which classic groups do not use", k.kind), nil
	}
	if k.offset {
		return explainOffset(k, value)
	}
	if value == nil {
		return fmt.Sprintf("group %q is removed", k.group), nil
	}
	v, err := decodeGroup(value)
	if err != nil {
		return "", errors.Join(fmt.Errorf("group %q", k.group), err)
	}
	members := make([]string, 0, len(v.Members))
	for i := range v.Members {
		members = append(members, v.Members[i].MemberID)
	}
	return fmt.Sprintf("group %q: generation %d, protocol %q of %q, leader %q, %d members [%s]",
		k.group, v.Generation, orEmpty(v.Protocol), v.ProtocolType, orEmpty(v.Leader), len(members), strings.Join(members, " ")), nil
}

func explainOffset(k loadedKey, value []byte) (string, error) {
	if value == nil {
		return fmt.Sprintf("group %q forgets its offset of %s", k.group, k.tp), nil
	}
	c, err := decodeOffset(value)
	if err != nil {
		return "", errors.Join(fmt.Errorf("group %q, %s", k.group, k.tp), err)
	}
	s := fmt.Sprintf("group %q commits %s to %d", k.group, k.tp, c.Offset)
	if c.LeaderEpoch >= 0 {
		s += fmt.Sprintf(" (leader epoch %d)", c.LeaderEpoch)
	}
	if c.Metadata != "" {
		s += fmt.Sprintf(" with metadata %q", c.Metadata)
	}
	s += " at " + time.UnixMilli(c.CommitMs).UTC().Format(time.RFC3339)
	if c.ExpireMs >= 0 {
		s += ", expires at " + time.UnixMilli(c.ExpireMs).UTC().Format(time.RFC3339)
	}
	return s, nil
}
