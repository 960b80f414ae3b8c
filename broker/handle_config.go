package broker

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/config"
	"ottla/internal/cluster"
	"ottla/zkcoord"
)

// DescribeConfigs v0–4: values with their sources.
//   - Topics from any broker; a broker's (and its loggers') only from that broker, with an empty name the cluster's defaults.
//   - Version 1 adds sources and synonyms (KIP-226), 3 types and documentation (KIP-569). Sensitive values are null.
//   - A null list of names means all keys.

func (b *Broker) handleDescribeConfigs(r *wire.Request, req *kmsg.DescribeConfigsRequest) kmsg.Response {
	b.tasks.run(func() {
		resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
		for i := range req.Resources {
			resp.Resources = append(resp.Resources, b.describeResource(r, req, &req.Resources[i]))
		}
		r.Respond(resp)
	})
	return nil
}

func (b *Broker) describeResource(r *wire.Request, req *kmsg.DescribeConfigsRequest, res *kmsg.DescribeConfigsRequestResource) kmsg.DescribeConfigsResponseResource {
	out := kmsg.NewDescribeConfigsResponseResource()
	out.ResourceType, out.ResourceName = res.ResourceType, res.ResourceName
	entries, err := b.resourceEntries(r, res)
	if err != nil {
		out.ErrorCode = b.errorCode(err)
		out.ErrorMessage = kmsg.StringPtr(errorMessage(err))
		return out
	}
	out.ErrorMessage = kmsg.StringPtr("")
	for _, e := range entries {
		if len(res.ConfigNames) > 0 && !slices.Contains(res.ConfigNames, e.Name) {
			continue
		}
		out.Configs = append(out.Configs, configEntry(e, req))
	}
	return out
}

func (b *Broker) resourceEntries(r *wire.Request, res *kmsg.DescribeConfigsRequestResource) ([]config.Entry, error) {
	switch res.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		if !b.allowed(r, opDescribeConfigs, topicResource(res.ResourceName)) {
			return nil, kerr.TopicAuthorizationFailed
		}
		return b.topicEntries(res.ResourceName)
	case kmsg.ConfigResourceTypeBroker:
		if !b.allowed(r, opDescribeConfigs, clusterResource) {
			return nil, kerr.ClusterAuthorizationFailed
		}
		if res.ResourceName == "" {
			return config.DescribeClusterDefault(b.config.Load()), nil
		}
		switch id, err := brokerNumber(res.ResourceName, "Broker"); {
		case err != nil:
			return nil, err
		case id != b.id:
			return nil, withMessage(kerr.InvalidRequest, fmt.Sprintf("Unexpected broker id, expected %d or empty string, but received %s", b.id, res.ResourceName))
		}
		return config.DescribeBroker(b.config.Load()), nil
	case kmsg.ConfigResourceTypeBrokerLogger:
		if !b.allowed(r, opDescribeConfigs, clusterResource) {
			return nil, kerr.ClusterAuthorizationFailed
		}
		switch id, err := brokerNumber(res.ResourceName, "Broker"); {
		case res.ResourceName == "":
			return nil, withMessage(kerr.InvalidRequest, "Broker id must not be empty")
		case err != nil:
			return nil, err
		case id != b.id:
			return nil, withMessage(kerr.InvalidRequest, fmt.Sprintf("Unexpected broker id, expected %d but received %s", b.id, res.ResourceName))
		}
		return nil, nil
	}
	return nil, withMessage(kerr.InvalidRequest, "This most likely occurs because of a request being malformed by the client library or "+
		"the message was sent to an incompatible broker. See the broker logs for more details.")
}

func (b *Broker) topicEntries(name string) ([]config.Entry, error) {
	if err := validTopicName(name); err != nil {
		return nil, withMessage(kerr.InvalidTopicException, refusalMessage(err))
	}
	if b.metadata.load().topics[name] == nil {
		return nil, withMessage(kerr.UnknownTopicOrPartition, "")
	}
	// From ZooKeeper, not from memory: whoever has just changed a setting looks whether it took.
	overrides, err := zkcoord.ReadConfig(b.zk.Session(), zkcoord.EntityTopics, name)
	if err != nil {
		return nil, err
	}
	t, err := config.ResolveTopic(b.config.Load(), overrides)
	if err != nil {
		return nil, err
	}
	return config.DescribeTopic(t), nil
}

// brokerNumber reads the name of a broker's resource.
func brokerNumber(name, what string) (cluster.BrokerID, error) {
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		return cluster.NoBroker, withMessage(kerr.InvalidRequest, what+" id must be an integer, but it is: "+name)
	}
	return cluster.BrokerID(id), nil
}

func configEntry(e config.Entry, req *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	out := kmsg.NewDescribeConfigsResponseResourceConfig()
	out.Name, out.Value, out.ReadOnly, out.IsSensitive = e.Name, e.Value, e.ReadOnly, e.Sensitive
	out.Source = kmsg.ConfigSource(e.Source)
	out.IsDefault = e.Source == config.Default
	out.ConfigType = kmsg.ConfigType(e.Type)
	if req.IncludeSynonyms {
		for _, s := range e.Synonyms {
			rs := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			rs.Name, rs.Value, rs.Source = s.Name, s.Value, kmsg.ConfigSource(s.Source)
			out.ConfigSynonyms = append(out.ConfigSynonyms, rs)
		}
	}
	if req.IncludeDocumentation {
		out.Documentation = kmsg.StringPtr(e.Doc)
	}
	return out
}
