package broker

import (
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
)

// Administration of groups: DescribeGroups v0–5, ListGroups v0–5, DeleteGroups v0–2.
//   - A group that does not exist is described as "Dead", without an error. 3 adds authorised operations (KIP-430), 4 the
//     instances of static members.
//   - ListGroups shows the groups of this broker only. 4 filters by state (KIP-518), 5 by type (KIP-848): all are "classic".
//   - DeleteGroups deletes groups without members (KIP-229); it answers when that is replicated.

func (b *Broker) handleDescribeGroups(r *wire.Request, req *kmsg.DescribeGroupsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
	for _, group := range req.Groups {
		rg := kmsg.NewDescribeGroupsResponseGroup()
		rg.Group, rg.AuthorizedOperations = group, authorizedOperationsUnset
		if !b.allowed(r, opDescribe, groupResource(group)) {
			rg.ErrorCode = kerr.GroupAuthorizationFailed.Code
			resp.Groups = append(resp.Groups, rg)
			continue
		}
		d, err := b.groups.Describe(group)
		rg.ErrorCode = b.errorCode(err)
		rg.State, rg.ProtocolType, rg.Protocol = d.State, d.ProtocolType, d.Protocol
		for _, m := range d.Members {
			rm := kmsg.NewDescribeGroupsResponseGroupMember()
			rm.MemberID, rm.InstanceID, rm.ClientID, rm.ClientHost = m.ID, m.Instance, m.ClientID, m.ClientHost
			rm.ProtocolMetadata, rm.MemberAssignment = m.Metadata, m.Assignment
			rg.Members = append(rg.Members, rm)
		}
		if req.IncludeAuthorizedOperations && err == nil {
			rg.AuthorizedOperations = b.authorizedOperations(r, groupResource(group))
		}
		resp.Groups = append(resp.Groups, rg)
	}
	return resp
}

const classicGroup = "classic"

func (b *Broker) handleListGroups(r *wire.Request, req *kmsg.ListGroupsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	all := b.visible(r, opDescribe, clusterResource)
	list, err := b.groups.List(req.StatesFilter)
	resp.ErrorCode = b.errorCode(err)
	classic := func(t string) bool { return strings.EqualFold(t, classicGroup) }
	if len(req.TypesFilter) > 0 && !slices.ContainsFunc(req.TypesFilter, classic) {
		return resp
	}
	for _, l := range list {
		if !all && !b.visible(r, opDescribe, groupResource(l.Group)) {
			continue
		}
		rg := kmsg.NewListGroupsResponseGroup()
		rg.Group, rg.ProtocolType, rg.GroupState, rg.GroupType = l.Group, l.ProtocolType, l.State, classicGroup
		resp.Groups = append(resp.Groups, rg)
	}
	return resp
}

func (b *Broker) handleDeleteGroups(r *wire.Request, req *kmsg.DeleteGroupsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	var allowed []string
	var at []int
	for _, group := range req.Groups {
		if slices.ContainsFunc(resp.Groups, func(g kmsg.DeleteGroupsResponseGroup) bool { return g.Group == group }) {
			continue // named twice
		}
		rg := kmsg.NewDeleteGroupsResponseGroup()
		rg.Group = group
		if b.allowed(r, opDelete, groupResource(group)) {
			allowed, at = append(allowed, group), append(at, len(resp.Groups))
		} else {
			rg.ErrorCode = kerr.GroupAuthorizationFailed.Code
		}
		resp.Groups = append(resp.Groups, rg)
	}
	b.groups.Delete(allowed, func(errs []error) {
		for i, err := range errs {
			resp.Groups[at[i]].ErrorCode = b.errorCode(err)
		}
		r.Respond(resp)
	})
	return nil
}
