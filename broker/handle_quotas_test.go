package broker

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/quota"
	"ottla/internal/cluster"
	"ottla/zkcoord"
	"ottla/zkcoord/zktest"
)

func quotaEntry(key string, value float64, typesAndNames ...string) kmsg.AlterClientQuotasRequestEntry {
	entry := kmsg.NewAlterClientQuotasRequestEntry()
	for i := 0; i < len(typesAndNames); i += 2 {
		e := kmsg.NewAlterClientQuotasRequestEntryEntity()
		e.Type = typesAndNames[i]
		if typesAndNames[i+1] != cluster.DefaultEntity {
			e.Name = &typesAndNames[i+1]
		}
		entry.Entity = append(entry.Entity, e)
	}
	op := kmsg.NewAlterClientQuotasRequestEntryOp()
	op.Key, op.Value, op.Remove = key, value, value == 0
	entry.Ops = append(entry.Ops, op)
	return entry
}

func (c *client) alterQuotas(entries ...kmsg.AlterClientQuotasRequestEntry) (codes []int16) {
	req := kmsg.NewPtrAlterClientQuotasRequest()
	req.Entries = entries
	for _, e := range ask[*kmsg.AlterClientQuotasResponse](c, 1, req).Entries {
		codes = append(codes, e.ErrorCode)
	}
	return codes
}

func TestQuotasAreStoredAsKafkaStoresThem(t *testing.T) {
	tree := zktest.NewTree()
	h := start(t, tree, settings(t, nil))
	c := h.client()
	require.Equal(t, []int16{0, 0, 0, 0, 0}, c.alterQuotas(
		quotaEntry("producer_byte_rate", 1_000_000, "user", "a b"),
		quotaEntry("consumer_byte_rate", 5, "user", "a b", "client-id", "c"),
		quotaEntry("request_percentage", 12.5, "client-id", cluster.DefaultEntity),
		quotaEntry("connection_creation_rate", 7, "ip", "10.0.0.1"),
		quotaEntry("controller_mutation_rate", 10_000_000, "user", cluster.DefaultEntity, "client-id", cluster.DefaultEntity),
	))
	stored := func(path string) string {
		data, _, err := h.zk.Session().Get(path)
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	require.JSONEq(t, `{"version":1,"config":{"producer_byte_rate":"1000000"}}`, stored("/config/users/a%20b"))
	require.JSONEq(t, `{"version":1,"config":{"consumer_byte_rate":"5"}}`, stored("/config/users/a%20b/clients/c"))
	require.JSONEq(t, `{"version":1,"config":{"request_percentage":"12.5"}}`, stored("/config/clients/<default>"))
	require.JSONEq(t, `{"version":1,"config":{"connection_creation_rate":"7"}}`, stored("/config/ips/10.0.0.1"))
	require.JSONEq(t, `{"version":1,"config":{"controller_mutation_rate":"1.0E7"}}`, stored("/config/users/<default>/clients/<default>"))

	invalid := kerr.InvalidRequest.Code
	require.Equal(t, []int16{invalid, invalid, invalid, invalid, invalid, invalid}, c.alterQuotas(
		quotaEntry("producer_byte_rate", 1, "ip", "10.0.0.1", "user", "u"),
		quotaEntry("producer_byte_rate", 1.5, "user", "u"),
		quotaEntry("connection_creation_rate", 1, "user", "u"),
		quotaEntry("nonsense", 1, "user", "u"),
		quotaEntry("producer_byte_rate", 1, "planet", "u"),
		quotaEntry("producer_byte_rate", 1),
	))

	describe := func(strict bool, components ...any) (found []string) {
		req := kmsg.NewPtrDescribeClientQuotasRequest()
		req.Strict = strict
		for i := 0; i < len(components); i += 3 {
			comp := kmsg.NewDescribeClientQuotasRequestComponent()
			comp.EntityType, comp.MatchType = components[i].(string), components[i+1].(kmsg.QuotasMatchType)
			if name, ok := components[i+2].(string); ok {
				comp.Match = &name
			}
			req.Components = append(req.Components, comp)
		}
		resp := ask[*kmsg.DescribeClientQuotasResponse](c, 1, req)
		require.NoError(t, kerr.ErrorForCode(resp.ErrorCode))
		require.NotNil(t, resp.Entries, "Java's client cannot read null")
		for _, e := range resp.Entries {
			found = append(found, entityText(e.Entity))
		}
		return found
	}
	require.Empty(t, describe(false, "user", kmsg.QuotasMatchTypeExact, "nobody"))
	const user, both, all, ip, client = "user=a b\x00", "user=a b\x00client-id=c\x00", "user=<default>\x00client-id=<default>\x00", "ip=10.0.0.1\x00", "client-id=<default>\x00"
	require.ElementsMatch(t, []string{user, both, all, ip, client}, describe(false))
	require.ElementsMatch(t, []string{user, both}, describe(false, "user", kmsg.QuotasMatchTypeExact, "a b"))
	require.ElementsMatch(t, []string{user}, describe(true, "user", kmsg.QuotasMatchTypeAny, nil))
	require.ElementsMatch(t, []string{all}, describe(false, "user", kmsg.QuotasMatchTypeDefault, nil))
	require.ElementsMatch(t, []string{both, all}, describe(true, "user", kmsg.QuotasMatchTypeAny, nil, "client-id", kmsg.QuotasMatchTypeAny, nil))
	require.ElementsMatch(t, []string{ip}, describe(true, "ip", kmsg.QuotasMatchTypeAny, nil))

	require.Equal(t, []int16{0, 0}, c.alterQuotas(
		quotaEntry("producer_byte_rate", 0, "user", "a b"), quotaEntry("consumer_byte_rate", 0, "user", "a b", "client-id", "c")))
	require.Contains(t, stored("/config/users/a%20b"), zkcoord.ErrNoNode.Error(), "nothing is left of an empty user")
}

func TestClientsAreHeldToTheirQuotas(t *testing.T) {
	tree := zktest.NewTree()
	h := start(t, tree, settings(t, nil))
	h.create("t", 1)
	c := h.client()
	limited := func(key string, value float64) {
		require.Equal(t, []int16{0}, c.alterQuotas(quotaEntry(key, value, "client-id", "test")))
		h.eventually(key+" counts", func() bool {
			for k, name := range []string{"producer_byte_rate", "consumer_byte_rate", "request_percentage", "controller_mutation_rate"} {
				if name == key {
					_, ok := h.quotas.Limit(quota.Kind(k), "ANONYMOUS", "test")
					return ok == (value > 0)
				}
			}
			return false
		})
	}
	value := string(make([]byte, 2000))

	limited("producer_byte_rate", 100)
	produced := ask[*kmsg.ProduceResponse](h.client(), 9, produceOf("t", 0, -1, batch(value)))
	require.NoError(t, kerr.ErrorForCode(produced.Topics[0].Partitions[0].ErrorCode), "what is over the quota is taken, and paid for later")
	require.Greater(t, produced.ThrottleMillis, int32(5000))
	silent := h.client()
	silent.send(9, produceOf("t", 0, 0, batch(value)))
	silent.send(1, kmsg.NewPtrMetadataRequest())
	_ = silent.conn.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	_, err := silent.conn.Read(make([]byte, 1))
	var timeout net.Error
	require.ErrorAs(t, err, &timeout, "the connection is muted, with acks=0 too")
	limited("producer_byte_rate", 0)

	limited("consumer_byte_rate", 100)
	fetch := func(version int16) *kmsg.FetchResponse {
		return ask[*kmsg.FetchResponse](h.client(), version, fetchRequest(0, -1, want{"t", 0, 0}))
	}
	first := fetch(9)
	require.NotEmpty(t, first.Topics[0].Partitions[0].RecordBatches)
	second := fetch(9)
	require.Empty(t, second.Topics, "an answer over the quota is empty")
	require.Positive(t, second.ThrottleMillis)
	limited("consumer_byte_rate", 0)
	require.NotEmpty(t, fetch(9).Topics[0].Partitions[0].RecordBatches)

	limited("controller_mutation_rate", 1)
	createTopic := func(version int16, name string, partitions int32) (int16, int32) {
		r := kmsg.NewPtrCreateTopicsRequest()
		r.TimeoutMillis = 10_000
		topic := kmsg.NewCreateTopicsRequestTopic()
		topic.Topic, topic.NumPartitions, topic.ReplicationFactor = name, partitions, 1
		r.Topics = append(r.Topics, topic)
		resp := ask[*kmsg.CreateTopicsResponse](h.client(), version, r)
		return resp.Topics[0].ErrorCode, resp.ThrottleMillis
	}
	code, wait := createTopic(6, "many", 100)
	require.Zero(t, code)
	require.Zero(t, wait)
	code, wait = createTopic(6, "more", 1)
	require.Equal(t, kerr.ThrottlingQuotaExceeded.Code, code)
	require.Greater(t, wait, int32(10_000))
	code, wait = createTopic(5, "older", 1)
	require.Zero(t, code, "an older client does not know the error")
	require.Greater(t, wait, int32(10_000))
	limited("controller_mutation_rate", 0)

	limited("request_percentage", 0.000001)
	meta := ask[*kmsg.MetadataResponse](h.client(), 9, kmsg.NewPtrMetadataRequest())
	require.InDelta(t, 1000, meta.ThrottleMillis, 1)
	require.NoError(t, zkcoord.WriteConfig(h.zk.Session(), zkcoord.EntityClients, "test", nil))
	h.eventually("the quota is gone", func() bool { _, ok := h.quotas.Limit(quota.Request, "ANONYMOUS", "test"); return !ok })
}

func TestAddressesThatConnectTooOftenWait(t *testing.T) {
	tree := zktest.NewTree()
	h := start(t, tree, settings(t, nil))
	require.NoError(t, zkcoord.WriteConfig(h.zk.Session(), zkcoord.EntityIPs, "127.0.0.1", map[string]string{"connection_creation_rate": "1"}))
	h.eventually("connections are turned away", func() bool {
		c := h.client()
		c.send(1, kmsg.NewPtrMetadataRequest())
		_ = c.conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, err := c.conn.Read(make([]byte, 1))
		return err == io.EOF || err != nil
	})
}
