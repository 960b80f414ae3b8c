package broker

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/zkcoord/zktest"
)

// Whoever has just changed a topic's setting and looks, sees it: the answer does not wait for this broker to hear of the change.
func TestTopicSettingsAreDescribedAsTheyAreStored(t *testing.T) {
	h := start(t, zktest.NewTree(), settings(t, nil))
	h.create("t", 1)
	c := h.client()
	for _, value := range []string{"200000", "300000", "400000"} {
		alter := kmsg.NewPtrIncrementalAlterConfigsRequest()
		res := kmsg.NewIncrementalAlterConfigsRequestResource()
		res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeTopic, "t"
		set := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
		set.Name, set.Value = "max.message.bytes", &value
		res.Configs = append(res.Configs, set)
		alter.Resources = append(alter.Resources, res)
		require.Zero(t, ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, alter).Resources[0].ErrorCode)

		describe := kmsg.NewPtrDescribeConfigsRequest()
		of := kmsg.NewDescribeConfigsRequestResource()
		of.ResourceType, of.ResourceName, of.ConfigNames = kmsg.ConfigResourceTypeTopic, "t", []string{"max.message.bytes"}
		describe.Resources = append(describe.Resources, of)
		got := ask[*kmsg.DescribeConfigsResponse](c, 4, describe).Resources[0].Configs[0]
		require.Equal(t, value, *got.Value)
	}
}
