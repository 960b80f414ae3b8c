package controller

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
)

// topicConfigs is the whole configuration of a topic, as CreateTopics echoes it since version 5. Sensitive values have no text.
func topicConfigs(snapshot *config.Snapshot, overrides map[string]string) []kmsg.CreateTopicsResponseTopicConfig {
	t, err := config.ResolveTopic(snapshot, overrides)
	if err != nil {
		return nil // it was judged before
	}
	entries := config.DescribeTopic(t)
	out := make([]kmsg.CreateTopicsResponseTopicConfig, len(entries))
	for i, e := range entries {
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		c.Name, c.Value, c.ReadOnly, c.Source, c.IsSensitive = e.Name, e.Value, e.ReadOnly, int8(e.Source), e.Sensitive
		out[i] = c
	}
	return out
}
