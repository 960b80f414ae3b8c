package broker

import (
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/config"
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
	for _, e := range entries {
		if res.ConfigNames != nil && !slices.Contains(res.ConfigNames, e.Name) {
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
		if err := b.isThisBroker(res.ResourceName); err != nil {
			return nil, err
		}
		return config.DescribeBroker(b.config.Load()), nil
	case kmsg.ConfigResourceTypeBrokerLogger:
		if !b.allowed(r, opDescribeConfigs, clusterResource) {
			return nil, kerr.ClusterAuthorizationFailed
		}
		if err := b.isThisBroker(res.ResourceName); err != nil {
			return nil, err
		}
		return nil, nil
	}
	return nil, withMessage(kerr.InvalidRequest, "Unsupported resource type: "+strconv.Itoa(int(res.ResourceType)))
}

func (b *Broker) topicEntries(name string) ([]config.Entry, error) {
	if err := validTopicName(name); err != nil {
		return nil, withMessage(kerr.InvalidTopicException, err.Error())
	}
	if b.metadata.load().topics[name] == nil {
		return nil, kerr.UnknownTopicOrPartition
	}
	t, err := b.topicConfigs.get(name)
	if err != nil {
		return nil, err
	}
	return config.DescribeTopic(t), nil
}

// isThisBroker refuses a broker's own resource that was sent to another broker.
func (b *Broker) isThisBroker(name string) error {
	id, err := strconv.Atoi(name)
	if err != nil {
		return withMessage(kerr.InvalidRequest, "Broker id must be an integer, but it is: "+name)
	}
	if id != int(b.id) {
		return withMessage(kerr.InvalidRequest, "Unexpected broker id, expected "+strconv.Itoa(int(b.id))+" or empty string, but received "+name)
	}
	return nil
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
