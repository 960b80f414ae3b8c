package broker

import (
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/security/acl"
)

// DescribeAcls, CreateAcls, DeleteAcls v0–3, from any broker: ACLs are written straight to ZooKeeper, a notification tells all brokers.
//   - Without an authorizer everything is answered with SECURITY_DISABLED: tools probe for exactly that.
//   - Version 1 adds pattern types (KIP-290); before, every ACL is literal. 3 adds the resource type USER.
//   - An ACL that is there already is created again without error. An unknown type, operation, … is INVALID_REQUEST.

var errSecurityDisabled = withMessage(kerr.SecurityDisabled, "No Authorizer is configured on the broker.")

// mayUseACLs says why a request about ACLs is refused as a whole.
func (b *Broker) mayUseACLs(r *wire.Request, op operation) error {
	switch {
	case b.acls == nil:
		return errSecurityDisabled
	case !b.allowed(r, op, clusterResource):
		return kerr.ClusterAuthorizationFailed
	}
	return nil
}

func (b *Broker) handleDescribeACLs(r *wire.Request, req *kmsg.DescribeACLsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeACLsResponse)
	filter := acl.Filter{
		Type: req.ResourceType, Pattern: req.ResourcePatternType, Name: req.ResourceName, Principal: req.Principal, Host: req.Host,
		Operation: req.Operation, Permission: req.PermissionType,
	}
	literalBefore(&filter, r.Version)
	err := b.mayUseACLs(r, opDescribe)
	if err == nil && filter.Unknown() {
		err = withMessage(kerr.InvalidRequest, "The filter has unknown elements")
	}
	if err != nil {
		resp.ErrorCode, resp.ErrorMessage = b.codeAndMessage(err)
		return resp
	}
	b.tasks.run(func() {
		for resource, entries := range b.acls.Find(filter) {
			out := kmsg.NewDescribeACLsResponseResource()
			out.ResourceType, out.ResourceName, out.ResourcePatternType = resource.Type, resource.Name, resource.Pattern
			for _, e := range entries {
				one := kmsg.NewDescribeACLsResponseResourceACL()
				one.Principal, one.Host, one.Operation, one.PermissionType = e.Principal, e.Host, e.Operation, e.Permission
				out.ACLs = append(out.ACLs, one)
			}
			resp.Resources = append(resp.Resources, out)
		}
		r.Respond(resp)
	})
	return nil
}

// literalBefore gives requests of version 0 the only pattern that there was.
func literalBefore(f *acl.Filter, version int16) {
	if version == 0 {
		f.Pattern = kmsg.ACLResourcePatternTypeLiteral
	}
}

func (b *Broker) handleCreateACLs(r *wire.Request, req *kmsg.CreateACLsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.CreateACLsResponse)
	answer := func(errs []error) kmsg.Response {
		for _, err := range errs {
			one := kmsg.NewCreateACLsResponseResult()
			one.ErrorCode, one.ErrorMessage = b.codeAndMessage(aclError(err))
			resp.Results = append(resp.Results, one)
		}
		return resp
	}
	if err := b.mayUseACLs(r, opAlter); err != nil {
		return answer(slices.Repeat([]error{err}, len(req.Creations)))
	}
	bindings := make([]acl.Binding, len(req.Creations))
	for i, c := range req.Creations {
		bindings[i] = acl.Binding{
			Resource: acl.Resource{Type: c.ResourceType, Name: c.ResourceName, Pattern: c.ResourcePatternType},
			Entry:    acl.Entry{Principal: c.Principal, Host: c.Host, Operation: c.Operation, Permission: c.PermissionType},
		}
		if r.Version == 0 {
			bindings[i].Pattern = kmsg.ACLResourcePatternTypeLiteral
		}
	}
	b.tasks.run(func() { r.Respond(answer(b.acls.Create(b.zk.Session(), bindings))) })
	return nil
}

// aclError words the refusal of an ACL for the client.
func aclError(err error) error {
	var invalid *acl.InvalidError
	if errors.As(err, &invalid) {
		return withMessage(kerr.InvalidRequest, invalid.Text)
	}
	return err
}

func (b *Broker) handleDeleteACLs(r *wire.Request, req *kmsg.DeleteACLsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DeleteACLsResponse)
	refused := b.mayUseACLs(r, opAlter)
	resp.Results = make([]kmsg.DeleteACLsResponseResult, len(req.Filters))
	var filters []acl.Filter
	var at []int // where the answer to a filter goes
	for i, f := range req.Filters {
		filter := acl.Filter{
			Type: f.ResourceType, Pattern: f.ResourcePatternType, Name: f.ResourceName, Principal: f.Principal, Host: f.Host,
			Operation: f.Operation, Permission: f.PermissionType,
		}
		literalBefore(&filter, r.Version)
		err := refused
		if err == nil && filter.Unknown() {
			err = withMessage(kerr.InvalidRequest, "The filter has unknown elements")
		}
		resp.Results[i].ErrorCode, resp.Results[i].ErrorMessage = b.codeAndMessage(err)
		if err == nil {
			filters, at = append(filters, filter), append(at, i)
		}
	}
	if len(filters) == 0 {
		return resp
	}
	b.tasks.run(func() {
		for i, deleted := range b.acls.Delete(b.zk.Session(), filters) {
			for _, d := range deleted {
				one := kmsg.NewDeleteACLsResponseResultMatchingACL()
				one.ErrorCode, one.ErrorMessage = b.codeAndMessage(d.Err)
				one.ResourceType, one.ResourceName, one.ResourcePatternType = d.Type, d.Name, d.Pattern
				one.Principal, one.Host, one.Operation, one.PermissionType = d.Principal, d.Host, d.Operation, d.Permission
				resp.Results[at[i]].MatchingACLs = append(resp.Results[at[i]].MatchingACLs, one)
			}
		}
		r.Respond(resp)
	})
	return nil
}
