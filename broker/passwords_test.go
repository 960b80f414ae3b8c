package broker

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/zkcoord/zktest"
)

const passwordKey = "listener.name.plaintext.ssl.key.password"

func (c *client) alterBroker(name, key, value string) *kmsg.IncrementalAlterConfigsResponseResource {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	res := kmsg.NewIncrementalAlterConfigsRequestResource()
	res.ResourceType, res.ResourceName = kmsg.ConfigResourceTypeBroker, name
	set := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	set.Name, set.Value = key, &value
	res.Configs = append(res.Configs, set)
	req.Resources = append(req.Resources, res)
	return &ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, req).Resources[0]
}

func (h *house) password() string {
	text, _, _ := h.config.Load().Value(passwordKey)
	return text
}

// A password that is changed at run time is kept encrypted, survives a restart, and is encrypted anew with a new secret.
func TestPasswordsAreKeptEncrypted(t *testing.T) {
	tree := zktest.NewTree()
	h := start(t, tree, settings(t, nil))
	refused := h.client().alterBroker("1", passwordKey, "hush")
	require.Equal(t, kerr.InvalidRequest.Code, refused.ErrorCode, "without a secret")
	h.stopped()

	h = start(t, tree, settings(t, map[string]string{"password.encoder.secret": "one"}))
	require.Zero(t, h.client().alterBroker("1", passwordKey, "hush").ErrorCode)
	h.eventually("the password counts", func() bool { return h.password() == "hush" })
	stored := func() string {
		data, _, err := h.zk.Session().Get("/config/brokers/1")
		require.NoError(t, err)
		require.NotContains(t, string(data), "hush")
		require.Contains(t, string(data), "encryptedPassword:")
		return string(data)
	}
	before := stored()
	require.Zero(t, h.client().alterBroker("1", "log.cleaner.threads", "2").ErrorCode, "beside an encrypted one")
	require.True(t, strings.Contains(stored(), before[strings.Index(before, "salt:"):strings.Index(before, "salt:")+40]), "it is left as it was")
	h.stopped()

	h = start(t, tree, settings(t, map[string]string{"password.encoder.secret": "two", "password.encoder.old.secret": "one"}))
	require.Equal(t, "hush", h.password())
	require.NotEqual(t, before, stored())
	h.stopped()

	h = start(t, tree, settings(t, map[string]string{"password.encoder.secret": "two"}))
	require.Equal(t, "hush", h.password())
	h.stopped()

	h = start(t, tree, settings(t, map[string]string{"password.encoder.secret": "three"}))
	require.Empty(t, h.password(), "it is left out where it cannot be read")
}
