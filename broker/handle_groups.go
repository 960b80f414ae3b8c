package broker

import (
	"bytes"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/groupcoord"
)

// Membership of groups: JoinGroup v0–9, SyncGroup v0–5, Heartbeat v0–4, LeaveGroup v0–5. All need READ on the group.
//   - JoinGroup and SyncGroup are parked until the rebalance or the assignment is done. Version 1 of JoinGroup adds the
//     rebalance timeout, 4 demands a member id (KIP-394), 5 static members (KIP-345), 7 the protocol type in the answer
//     (KIP-559), 8 a reason (KIP-800), 9 skip_assignment (KIP-814).
//   - SyncGroup 5 must name protocol type and protocol (KIP-559).
//   - LeaveGroup 3 removes several members, with an error for each (KIP-345); before, the error stands at the top.
//   - What a request carries of a member's metadata and assignment is copied: the frame goes back with the answer.

func (b *Broker) handleJoinGroup(r *wire.Request, req *kmsg.JoinGroupRequest) kmsg.Response {
	if !b.allowed(r, opRead, groupResource(req.Group)) {
		return joinResponse(r, groupcoord.JoinResult{Err: kerr.GroupAuthorizationFailed, Generation: -1}, b)
	}
	join := &groupcoord.Join{
		Group: req.Group, MemberID: req.MemberID, Instance: req.InstanceID,
		ClientID: r.ClientID, ClientHost: "/" + r.Conn.RemoteHost(),
		SessionTimeout:   time.Duration(req.SessionTimeoutMillis) * time.Millisecond,
		RebalanceTimeout: time.Duration(req.RebalanceTimeoutMillis) * time.Millisecond,
		ProtocolType:     req.ProtocolType,
		RequireMemberID:  r.Version >= 4 && req.InstanceID == nil,
		CanSkip:          r.Version >= 9,
	}
	if r.Version == 0 {
		join.RebalanceTimeout = join.SessionTimeout
	}
	for _, p := range req.Protocols {
		join.Protocols = append(join.Protocols, groupcoord.Protocol{Name: p.Name, Metadata: bytes.Clone(p.Metadata)})
	}
	b.groups.Join(join, func(res groupcoord.JoinResult) { r.Respond(joinResponse(r, res, b)) })
	return nil
}

func joinResponse(r *wire.Request, res groupcoord.JoinResult, b *Broker) kmsg.Response {
	resp := kmsg.NewPtrJoinGroupResponse()
	resp.ErrorCode, resp.Generation, resp.LeaderID, resp.MemberID = b.errorCode(res.Err), res.Generation, res.Leader, res.MemberID
	resp.SkipAssignment = res.SkipAssignment
	resp.ProtocolType, resp.Protocol = textOrNull(res.ProtocolType), textOrNull(res.Protocol)
	if r.Version < 7 && resp.Protocol == nil {
		resp.Protocol = kmsg.StringPtr("")
	}
	for _, m := range res.Members {
		rm := kmsg.NewJoinGroupResponseMember()
		rm.MemberID, rm.InstanceID, rm.ProtocolMetadata = m.ID, m.Instance, m.Metadata
		resp.Members = append(resp.Members, rm)
	}
	return resp
}

func textOrNull(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

func (b *Broker) handleSyncGroup(r *wire.Request, req *kmsg.SyncGroupRequest) kmsg.Response {
	if r.Version >= 5 && (req.ProtocolType == nil || req.Protocol == nil) {
		return b.syncResponse(groupcoord.SyncResult{Err: kerr.InconsistentGroupProtocol})
	}
	if !b.allowed(r, opRead, groupResource(req.Group)) {
		return b.syncResponse(groupcoord.SyncResult{Err: kerr.GroupAuthorizationFailed})
	}
	sync := &groupcoord.Sync{
		Group: req.Group, MemberID: req.MemberID, Instance: req.InstanceID, Generation: req.Generation,
		ProtocolType: req.ProtocolType, Protocol: req.Protocol, Assignments: make(map[string][]byte, len(req.GroupAssignment)),
	}
	for _, a := range req.GroupAssignment {
		sync.Assignments[a.MemberID] = bytes.Clone(a.MemberAssignment)
	}
	b.groups.Sync(sync, func(res groupcoord.SyncResult) { r.Respond(b.syncResponse(res)) })
	return nil
}

func (b *Broker) syncResponse(res groupcoord.SyncResult) kmsg.Response {
	resp := kmsg.NewPtrSyncGroupResponse()
	resp.ErrorCode, resp.MemberAssignment = b.errorCode(res.Err), res.Assignment
	resp.ProtocolType, resp.Protocol = textOrNull(res.ProtocolType), textOrNull(res.Protocol)
	return resp
}

func (b *Broker) handleHeartbeat(r *wire.Request, req *kmsg.HeartbeatRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
	if !b.allowed(r, opRead, groupResource(req.Group)) {
		resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
		return resp
	}
	resp.ErrorCode = b.errorCode(b.groups.Heartbeat(req.Group, req.MemberID, req.InstanceID, req.Generation))
	return resp
}

func (b *Broker) handleLeaveGroup(r *wire.Request, req *kmsg.LeaveGroupRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
	if !b.allowed(r, opRead, groupResource(req.Group)) {
		resp.ErrorCode = kerr.GroupAuthorizationFailed.Code
		return resp
	}
	leaving := []groupcoord.Leaving{{MemberID: req.MemberID}}
	if r.Version >= 3 {
		leaving = leaving[:0]
		for _, m := range req.Members {
			leaving = append(leaving, groupcoord.Leaving{MemberID: m.MemberID, Instance: m.InstanceID})
		}
	}
	each, err := b.groups.Leave(req.Group, leaving)
	resp.ErrorCode = b.errorCode(err)
	if err != nil {
		return resp
	}
	if r.Version < 3 {
		resp.ErrorCode = b.errorCode(each[0])
		return resp
	}
	for i, l := range leaving {
		rm := kmsg.NewLeaveGroupResponseMember()
		rm.MemberID, rm.InstanceID, rm.ErrorCode = l.MemberID, l.Instance, b.errorCode(each[i])
		resp.Members = append(resp.Members, rm)
	}
	return resp
}
