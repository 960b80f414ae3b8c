package broker

import "ottla/broker/wire"

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

// authorizer decides whether a request's principal may do something. Source: KIP-11, KIP-504.
type authorizer interface {
	authorize(r *wire.Request, op operation, on resource) bool
}

// allowed asks the authorizer; without one (authorizer.class.name is empty) everything is allowed, as in Kafka.
func (b *Broker) allowed(r *wire.Request, op operation, on resource) bool {
	return b.authorizer == nil || b.authorizer.authorize(r, op, on)
}

// operationsOn lists, per kind of resource, the operations that its mask may show.
var operationsOn = map[resourceKind][]operation{
	kindTopic:   {opRead, opWrite, opCreate, opDelete, opAlter, opDescribe, opDescribeConfigs, opAlterConfigs},
	kindGroup:   {opRead, opDelete, opDescribe},
	kindCluster: {opCreate, opAlter, opDescribe, opClusterAction, opDescribeConfigs, opAlterConfigs, opIdempotentWrite},
}

// authorizedOperations is the mask that Metadata, DescribeCluster and DescribeGroups return.
func (b *Broker) authorizedOperations(r *wire.Request, on resource) int32 {
	var mask int32
	for _, op := range operationsOn[on.kind] {
		if b.allowed(r, op, on) {
			mask |= 1 << op
		}
	}
	return mask
}
