package broker

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/config"
	"ottla/security/acl"
)

// operation is an ACL operation; its number is the bit in authorised-operations masks. Source: KIP-430.
type operation uint8

const (
	opRead            operation = 3
	opWrite           operation = 4
	opCreate          operation = 5
	opDelete          operation = 6
	opAlter           operation = 7
	opDescribe        operation = 8
	opClusterAction   operation = 9
	opDescribeConfigs operation = 10
	opAlterConfigs    operation = 11
	opIdempotentWrite operation = 12
)

type resourceKind uint8

const (
	kindTopic resourceKind = iota
	kindGroup
	kindCluster
	kindTransactionalID
)

// resource is what an operation is asked on.
type resource struct {
	kind resourceKind
	name string
}

var clusterResource = resource{kindCluster, "kafka-cluster"}

func topicResource(name string) resource { return resource{kindTopic, name} }
func groupResource(name string) resource { return resource{kindGroup, name} }

// aclTypes are the kinds of resources as ACLs name them.
var aclTypes = [...]acl.Type{
	kindTopic: kmsg.ACLResourceTypeTopic, kindGroup: kmsg.ACLResourceTypeGroup, kindCluster: kmsg.ACLResourceTypeCluster,
	kindTransactionalID: kmsg.ACLResourceTypeTransactionalId,
}

// authorizerClasses are the Java classes that authorizer.class.name may name: ACLs in ZooKeeper.
var authorizerClasses = []string{"kafka.security.authorizer.AclAuthorizer", "kafka.security.auth.SimpleAclAuthorizer"}

// openAuthorizer makes the authorizer that the settings ask for; its ACLs are loaded later.
func (b *Broker) openAuthorizer(s *config.Snapshot) error {
	class := config.AuthorizerClassName.Of(s)
	if class == "" {
		return nil
	}
	if !slices.Contains(authorizerClasses, class) {
		return fmt.Errorf("authorizer.class.name=%s is not available; it may be %s", class, authorizerClasses[0])
	}
	supers, err := acl.ParseSuperUsers(config.SuperUsers.Of(s))
	if err != nil {
		return fmt.Errorf("%s: %w", config.SuperUsers.Name, err)
	}
	b.acls = acl.NewStore(acl.Settings{SuperUsers: supers, Everyone: config.AllowEveryoneIfNoACLFound.Of(s)}, b.log)
	return nil
}

// allowed asks the authorizer, and tells of a denial; without one (authorizer.class.name is empty) everything is allowed, as in Kafka.
// Source: KIP-11, KIP-504.
func (b *Broker) allowed(r *wire.Request, op operation, on resource) bool {
	if b.visible(r, op, on) {
		return true
	}
	b.denied(r, op, on)
	return false
}

// visible is allowed without a word about a denial: for lists from which the forbidden is left out, and for what would merely be nice
// to know.
func (b *Broker) visible(r *wire.Request, op operation, on resource) bool {
	return b.acls == nil || b.acls.May(acl.Question{
		Principal: r.Conn.Principal(), Host: r.Conn.RemoteHost(), Operation: acl.Operation(op), Type: aclTypes[on.kind], Name: on.name,
	})
}

// allowedAny asks whether there is any resource of a kind on which the operation is allowed. Source: KIP-679.
func (b *Broker) allowedAny(r *wire.Request, op operation, kind resourceKind) bool {
	return b.acls == nil || b.acls.MayAny(r.Conn.Principal(), r.Conn.RemoteHost(), acl.Operation(op), aclTypes[kind])
}

// denied writes the audit line of a denial.
func (b *Broker) denied(r *wire.Request, op operation, on resource) {
	b.log.Info().Str("component", "authorizer").Str("principal", r.Conn.Principal()).Str("host", r.Conn.RemoteHost()).
		Stringer("operation", acl.Operation(op)).Stringer("resource_type", aclTypes[on.kind]).Str("resource", on.name).
		Str("api", kmsg.NameForKey(r.Key)).Str("client_id", r.ClientID).Str("listener", r.Conn.Listener()).
		Str("result", "denied").Msg("access denied")
}

// operationsOn lists, per kind of resource, the operations that its mask may show.
var operationsOn = map[resourceKind][]operation{
	kindTopic:   {opRead, opWrite, opCreate, opDelete, opAlter, opDescribe, opDescribeConfigs, opAlterConfigs},
	kindGroup:   {opRead, opDelete, opDescribe},
	kindCluster: {opCreate, opAlter, opDescribe, opClusterAction, opDescribeConfigs, opAlterConfigs, opIdempotentWrite},
}

// authorizedOperations is the mask that Metadata, DescribeCluster and DescribeGroups return.
func (b *Broker) authorizedOperations(r *wire.Request, on resource) int32 {
	if on.kind == kindCluster && !b.visible(r, opDescribe, on) {
		return 0
	}
	var mask int32
	for _, op := range operationsOn[on.kind] {
		if b.visible(r, op, on) {
			mask |= 1 << op
		}
	}
	return mask
}
