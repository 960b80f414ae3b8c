package controller

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/config"
)

// topicConfigs is the whole configuration of a topic, as CreateTopics echoes it.
func topicConfigs(snapshot *config.Snapshot, overrides map[string]string) []kmsg.CreateTopicsResponseTopicConfig {
	return nil
}
