package groupcoord

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
)

// decision collects what a core decided: answers to give and records to write, once the group's lock is released.
type decision struct {
	now time.Time

	joins  []joinAnswer
	syncs  []syncAnswer
	writes []groupWrite

	notes      []note
	rebalances int // that began
	completed  int // generations that got their assignment
	expired    int // members whose session ended
}

// note is a state change worth a log line.
type note struct{ what, member string }

type joinAnswer struct {
	reply  JoinReply
	result JoinResult
}

type syncAnswer struct {
	reply  SyncReply
	result SyncResult
}

// JoinReply takes the answer to a JoinGroup, exactly once, without blocking.
type JoinReply func(JoinResult)

// SyncReply takes the answer to a SyncGroup, exactly once, without blocking.
type SyncReply func(SyncResult)

// JoinResult is the answer to a JoinGroup.
type JoinResult struct {
	Err            error // nil or a *kerr.Error
	Generation     int32
	ProtocolType   string // "" stands for null
	Protocol       string // "" stands for null
	Leader         string
	MemberID       string
	SkipAssignment bool // the leader must not assign (KIP-814)
	Members        []JoinedMember
}

// JoinedMember is what the leader learns of a member.
type JoinedMember struct {
	ID       string
	Instance *string
	Metadata []byte
}

// SyncResult is the answer to a SyncGroup.
type SyncResult struct {
	Err          error
	ProtocolType string // "" stands for null
	Protocol     string
	Assignment   []byte
}

func joinFailed(member string, err error) JoinResult {
	return JoinResult{Err: err, MemberID: member, Generation: noGeneration}
}

func syncFailed(err error) SyncResult { return SyncResult{Err: err} }

func (d *decision) note(what, member string) { d.notes = append(d.notes, note{what, member}) }

func (d *decision) reply(r JoinReply, result JoinResult) {
	d.joins = append(d.joins, joinAnswer{r, result})
}

// answerJoin answers the member's parked JoinGroup, if there is one.
func (d *decision) answerJoin(m *member, result JoinResult) {
	if m.join != nil {
		d.reply(m.join, result)
		m.join = nil
	}
}

// answerSync answers the member's parked SyncGroup, if there is one, and reports whether there was.
func (d *decision) answerSync(m *member, result SyncResult) bool {
	if m.sync == nil {
		return false
	}
	d.syncs = append(d.syncs, syncAnswer{m.sync, result})
	m.sync = nil
	return true
}

// deliver gives the answers. No lock is held.
func (d *decision) deliver() {
	for _, a := range d.joins {
		a.reply(a.result)
	}
	for _, a := range d.syncs {
		a.reply(a.result)
	}
	d.joins, d.syncs = nil, nil
}

// writeKind says what a group's record is written for.
type writeKind uint8

const (
	writeEmpty      writeKind = iota // the last member has gone
	writeAssignment                  // the leader assigned
	writeStatic                      // a static member came back under a new id
)

// groupWrite is a GroupMetadata record to write; stored is to be told how it went.
type groupWrite struct {
	kind       writeKind
	generation int32
	value      []byte
	assignment map[string][]byte // writeAssignment
	static     staticReturn      // writeStatic
}

// verdict turns a failed write of a group's record into what its members are told.
func groupWriteVerdict(err error) error {
	switch err {
	case nil:
		return nil
	case kerr.UnknownTopicOrPartition, kerr.NotEnoughReplicas, kerr.NotEnoughReplicasAfterAppend:
		return kerr.CoordinatorNotAvailable
	case kerr.NotLeaderForPartition, kerr.KafkaStorageError, kerr.FencedLeaderEpoch, kerr.UnknownLeaderEpoch:
		return kerr.NotCoordinator
	case kerr.RequestTimedOut:
		return kerr.RebalanceInProgress
	case kerr.MessageTooLarge, kerr.RecordListTooLarge, kerr.InvalidFetchSize:
		return kerr.UnknownServerError
	}
	return err
}
