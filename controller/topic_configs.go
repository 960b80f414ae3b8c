package controller

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
)

// topicConfigs is the settings that a new topic has, as CreateTopics echoes them from version 5 on.
func topicConfigs(snapshot *config.Snapshot, overrides map[string]string) []kmsg.CreateTopicsResponseTopicConfig {
	t, err := config.ResolveTopic(snapshot, overrides)
	if err != nil {
		return []kmsg.CreateTopicsResponseTopicConfig{} // refused before; null would say that they must not be seen
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
