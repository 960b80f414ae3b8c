package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var kafkaACLs = kafkaScript{
	about: "list, add and remove ACLs",
	values: "bootstrap-server command-config allow-principal deny-principal allow-host deny-host operation topic group transactional-id user-principal " +
		"resource-pattern-type principal",
	flags: "add remove list cluster producer consumer idempotent force",
	run:   runKafkaACLs,
}

// rule is one ACL on one resource.
type rule struct {
	kind       kmsg.ACLResourceType
	name       string
	pattern    kmsg.ACLResourcePatternType
	principal  string
	host       string
	operation  kmsg.ACLOperation
	permission kmsg.ACLPermissionType
}

type aclResource struct {
	kind kmsg.ACLResourceType
	name string
}

const clusterName = "kafka-cluster"

func (c *kafkaCall) aclResources() []aclResource {
	var out []aclResource
	for option, kind := range map[string]kmsg.ACLResourceType{
		"topic": kmsg.ACLResourceTypeTopic, "group": kmsg.ACLResourceTypeGroup, "transactional-id": kmsg.ACLResourceTypeTransactionalId,
	} {
		for _, name := range c.values[option] {
			out = append(out, aclResource{kind, name})
		}
	}
	if c.flags["cluster"] {
		out = append(out, aclResource{kmsg.ACLResourceTypeCluster, clusterName})
	}
	slices.SortFunc(out, func(a, b aclResource) int { return int(a.kind) - int(b.kind) })
	return out
}

func (c *kafkaCall) pattern(otherwise kmsg.ACLResourcePatternType) (kmsg.ACLResourcePatternType, error) {
	text := c.value("resource-pattern-type")
	if text == "" {
		return otherwise, nil
	}
	p, err := kmsg.ParseACLResourcePatternType(text)
	if err != nil {
		return 0, fmt.Errorf("--resource-pattern-type %s: want literal, prefixed, any or match", text)
	}
	return p, nil
}

func (c *kafkaCall) operations() ([]kmsg.ACLOperation, error) {
	var out []kmsg.ACLOperation
	for _, text := range c.values["operation"] {
		op, err := kmsg.ParseACLOperation(text)
		if err != nil {
			return nil, fmt.Errorf("--operation %s is unknown", text)
		}
		out = append(out, op)
	}
	if len(out) == 0 {
		out = append(out, kmsg.ACLOperationAll)
	}
	return out, nil
}

// granted is what --producer and --consumer stand for on a kind of resource.
func (c *kafkaCall) granted(kind kmsg.ACLResourceType) (ops []kmsg.ACLOperation) {
	switch {
	case c.flags["producer"] && kind == kmsg.ACLResourceTypeTopic:
		ops = append(ops, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe, kmsg.ACLOperationCreate)
	case c.flags["producer"] && kind == kmsg.ACLResourceTypeTransactionalId:
		ops = append(ops, kmsg.ACLOperationWrite, kmsg.ACLOperationDescribe)
	case c.flags["producer"] && kind == kmsg.ACLResourceTypeCluster && c.flags["idempotent"]:
		ops = append(ops, kmsg.ACLOperationIdempotentWrite)
	}
	switch {
	case c.flags["consumer"] && kind == kmsg.ACLResourceTypeTopic:
		ops = append(ops, kmsg.ACLOperationRead, kmsg.ACLOperationDescribe)
	case c.flags["consumer"] && kind == kmsg.ACLResourceTypeGroup:
		ops = append(ops, kmsg.ACLOperationRead)
	}
	slices.Sort(ops)
	return slices.Compact(ops)
}

// rules are those that the options describe.
func (c *kafkaCall) rules() ([]rule, error) {
	pattern, err := c.pattern(kmsg.ACLResourcePatternTypeLiteral)
	if err != nil {
		return nil, err
	}
	resources := c.aclResources()
	if c.flags["producer"] && c.flags["idempotent"] && !c.flags["cluster"] {
		resources = append(resources, aclResource{kmsg.ACLResourceTypeCluster, clusterName})
	}
	if len(resources) == 0 {
		return nil, errors.New("you must specify at least one resource: --topic, --group, --cluster or --transactional-id")
	}
	hosts := func(option string) []string {
		if len(c.values[option]) == 0 {
			return []string{"*"}
		}
		return c.values[option]
	}
	var out []rule
	for _, r := range resources {
		ops := c.granted(r.kind)
		if !c.flags["producer"] && !c.flags["consumer"] {
			if ops, err = c.operations(); err != nil {
				return nil, err
			}
		}
		p := pattern
		if r.kind == kmsg.ACLResourceTypeCluster {
			p = kmsg.ACLResourcePatternTypeLiteral
		}
		for _, op := range ops {
			for side, permission := range map[string]kmsg.ACLPermissionType{"allow": kmsg.ACLPermissionTypeAllow, "deny": kmsg.ACLPermissionTypeDeny} {
				for _, principal := range c.values[side+"-principal"] {
					for _, host := range hosts(side + "-host") {
						out = append(out, rule{r.kind, r.name, p, principal, host, op, permission})
					}
				}
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("you must specify --allow-principal or --deny-principal")
	}
	return out, nil
}

func runKafkaACLs(c *kafkaCall) error {
	action, err := c.action("list", "add", "remove")
	if err != nil {
		return err
	}
	adm, err := c.admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	switch action {
	case "list":
		return c.listACLs()
	case "add":
		return c.addACLs()
	}
	return c.removeACLs()
}

func (c *kafkaCall) addACLs() error {
	rules, err := c.rules()
	if err != nil {
		return err
	}
	req := kmsg.NewPtrCreateACLsRequest()
	for _, r := range rules {
		req.Creations = append(req.Creations, kmsg.CreateACLsRequestCreation{
			ResourceType: r.kind, ResourceName: r.name, ResourcePatternType: r.pattern, Principal: r.principal, Host: r.host,
			Operation: r.operation, PermissionType: r.permission,
		})
	}
	resp, err := req.RequestWith(c.ctx, c.cl)
	if err != nil {
		return errors.New(cause(err))
	}
	for _, made := range resp.Results {
		if err := kerr.ErrorForCode(made.ErrorCode); err != nil {
			return fmt.Errorf("Error while executing ACL command: %s", messageOr(made.ErrorMessage, err))
		}
	}
	c.printRules("Adding ACLs for resource `%s`: \n", rules)
	return nil
}

func (c *kafkaCall) removeACLs() error {
	resources := c.aclResources()
	if len(resources) == 0 {
		return errors.New("you must specify at least one resource: --topic, --group, --cluster or --transactional-id")
	}
	req := kmsg.NewPtrDeleteACLsRequest()
	if c.has("allow-principal") || c.has("deny-principal") {
		rules, err := c.rules()
		if err != nil {
			return err
		}
		for _, r := range rules {
			req.Filters = append(req.Filters, kmsg.DeleteACLsRequestFilter{
				ResourceType: r.kind, ResourceName: &r.name, ResourcePatternType: r.pattern, Principal: &r.principal, Host: &r.host,
				Operation: r.operation, PermissionType: r.permission,
			})
		}
	} else {
		pattern, err := c.pattern(kmsg.ACLResourcePatternTypeLiteral)
		if err != nil {
			return err
		}
		for _, r := range resources {
			req.Filters = append(req.Filters, kmsg.DeleteACLsRequestFilter{
				ResourceType: r.kind, ResourceName: &r.name, ResourcePatternType: pattern,
				Operation: kmsg.ACLOperationAny, PermissionType: kmsg.ACLPermissionTypeAny,
			})
		}
	}
	resp, err := req.RequestWith(c.ctx, c.cl)
	if err != nil {
		return errors.New(cause(err))
	}
	for _, r := range resp.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return fmt.Errorf("Error while executing ACL command: %s", messageOr(r.ErrorMessage, err))
		}
	}
	return nil
}

func (c *kafkaCall) listACLs() error {
	pattern, err := c.pattern(kmsg.ACLResourcePatternTypeAny)
	if err != nil {
		return err
	}
	resources := c.aclResources()
	if len(resources) == 0 {
		resources = append(resources, aclResource{kmsg.ACLResourceTypeAny, ""})
	}
	var found []rule
	for _, r := range resources {
		req := kmsg.NewPtrDescribeACLsRequest()
		req.ResourceType, req.ResourcePatternType = r.kind, pattern
		req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
		if r.name != "" {
			req.ResourceName = &r.name
		}
		resp, err := req.RequestWith(c.ctx, c.cl)
		if err != nil {
			return errors.New(cause(err))
		}
		if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
			return fmt.Errorf("Error while executing ACL command: %s", messageOr(resp.ErrorMessage, err))
		}
		for _, res := range resp.Resources {
			for _, a := range res.ACLs {
				if only := c.values["principal"]; len(only) > 0 && !slices.Contains(only, a.Principal) {
					continue
				}
				found = append(found, rule{res.ResourceType, res.ResourceName, res.ResourcePatternType, a.Principal, a.Host, a.Operation, a.PermissionType})
			}
		}
	}
	c.printRules("Current ACLs for resource `%s`: \n", found)
	return nil
}

func (c *kafkaCall) printRules(heading string, rules []rule) {
	resource := func(r rule) string {
		return fmt.Sprintf("ResourcePattern(resourceType=%s, name=%s, patternType=%s)", r.kind, r.name, r.pattern)
	}
	slices.SortStableFunc(rules, func(a, b rule) int { return strings.Compare(resource(a), resource(b)) })
	last := ""
	for _, r := range rules {
		if now := resource(r); now != last {
			if last != "" {
				fmt.Fprintln(c.out)
			}
			fmt.Fprintf(c.out, heading, now)
			last = now
		}
		fmt.Fprintf(c.out, " \t(principal=%s, host=%s, operation=%s, permissionType=%s)\n", r.principal, r.host, r.operation, r.permission)
	}
}
