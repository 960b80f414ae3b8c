package broker

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
)

// DescribeCluster v0–1: cluster id, controller, brokers on the request's listener (KIP-700). Version 1 adds the endpoint type
// (KIP-919): brokers only; asking a ZooKeeper-mode broker for controllers is refused as Kafka does.

const endpointTypeBroker = 1

func (b *Broker) handleDescribeCluster(r *wire.Request, req *kmsg.DescribeClusterRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DescribeClusterResponse)
	resp.ClusterAuthorizedOperations = authorizedOperationsUnset
	if r.Version >= 1 && req.EndpointType != endpointTypeBroker {
		resp.ErrorCode = kerr.UnsupportedEndpointType.Code
		message := "Unsupported endpoint type " + itoa(int64(req.EndpointType))
		if req.EndpointType == 2 {
			resp.ErrorCode = kerr.MismatchedEndpointType.Code
			message = "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER"
		}
		resp.ErrorMessage = &message
		return resp
	}
	m, listener := b.metadata.load(), r.Conn.Listener()
	resp.ClusterID, resp.ControllerID = b.clusterID, -1
	for _, id := range m.brokerIDs {
		e, ok := m.brokers[id].Endpoint(listener)
		if !ok {
			continue
		}
		rb := kmsg.NewDescribeClusterResponseBroker()
		rb.NodeID, rb.Host, rb.Port = int32(id), e.Host, e.Port
		if rack := m.brokers[id].Rack; rack != "" {
			rb.Rack = &rack
		}
		resp.Brokers = append(resp.Brokers, rb)
		if id == m.controller {
			resp.ControllerID = int32(id)
		}
	}
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = 0
		if b.allowed(r, opDescribe, clusterResource) {
			resp.ClusterAuthorizedOperations = b.authorizedOperations(r, clusterResource)
		}
	}
	return resp
}
