package quota

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ottla/internal/cluster"
)

const everybody = cluster.DefaultEntity

var window = Window{Samples: 11, Span: time.Second}

func rate(key, value string) map[string]string { return map[string]string{key: value} }

func TestNearestLimitCounts(t *testing.T) {
	l := &Limits{}
	find := func(user, client string) (cluster.ClientEntity, float64) {
		whose, most, ok := l.Find(Produce, user, client)
		if !ok {
			return whose, -1
		}
		return whose, most
	}
	_, most := find("u", "c")
	require.Equal(t, -1.0, most)
	// From the farthest to the nearest; each wins over those before it.
	for i, step := range []struct{ of, share cluster.ClientEntity }{
		{cluster.ClientEntity{Client: everybody}, cluster.ClientEntity{Client: "c"}},
		{cluster.ClientEntity{Client: "c"}, cluster.ClientEntity{Client: "c"}},
		{cluster.ClientEntity{User: everybody}, cluster.ClientEntity{User: "u"}},
		{cluster.ClientEntity{User: everybody, Client: everybody}, cluster.ClientEntity{User: "u", Client: "c"}},
		{cluster.ClientEntity{User: everybody, Client: "c"}, cluster.ClientEntity{User: "u", Client: "c"}},
		{cluster.ClientEntity{User: "u"}, cluster.ClientEntity{User: "u"}},
		{cluster.ClientEntity{User: "u", Client: everybody}, cluster.ClientEntity{User: "u", Client: "c"}},
		{cluster.ClientEntity{User: "u", Client: "c"}, cluster.ClientEntity{User: "u", Client: "c"}},
	} {
		value := float64(i + 1)
		l = l.With(step.of, rate("producer_byte_rate", string(rune('1'+i))))
		whose, most := find("u", "c")
		require.Equal(t, value, most, "%+v", step.of)
		require.Equal(t, step.share, whose, "%+v", step.of)
	}
	_, _, ok := l.Find(Fetch, "u", "c")
	require.False(t, ok, "each kind for itself")
	l = l.With(cluster.ClientEntity{User: "u", Client: "c"}, nil)
	_, most = find("u", "c")
	require.Equal(t, 7.0, most, "a limit that is taken away uncovers the next")
	_, most = find("other", "thing")
	require.Equal(t, 4.0, most)
}

func TestClientSettlesAtItsLimit(t *testing.T) {
	c := NewClients(window, window)
	c.Set(cluster.ClientEntity{Client: "slow"}, rate("producer_byte_rate", "100000"))
	now := time.Unix(1000, 0)
	send := func(until time.Time) (sent float64) {
		for now.Before(until) {
			sent += 20_000
			now = now.Add(time.Millisecond + c.TakeBytes("u", "slow", 20_000, now))
		}
		return sent
	}
	for range 20 { // every ten seconds, from the first on
		began := now
		sent := send(now.Add(10 * time.Second))
		require.InEpsilon(t, 100_000, sent/now.Sub(began).Seconds(), 0.1+0.02)
	}
	require.Zero(t, c.TakeBytes("u", "other", 1e9, now), "others are not held back")
}

func TestFetchOverTheLimitIsNotSentAndNotCounted(t *testing.T) {
	c := NewClients(window, window)
	c.Set(cluster.ClientEntity{User: "u"}, rate("consumer_byte_rate", "1000"))
	now := time.Unix(1000, 0)
	require.Equal(t, 1_000, c.FetchMax("u", "c", 1<<20))
	require.Equal(t, 500, c.FetchMax("u", "c", 500))
	require.Equal(t, 1<<20, c.FetchMax("other", "c", 1<<20))
	wait, send := c.TakeFetch("u", "c", 50_000, now)
	require.True(t, send, "or a batch larger than the limit could never be read")
	require.Equal(t, 49*time.Second, wait)
	for range 3 {
		again, send := c.TakeFetch("u", "c", 5_000, now)
		require.False(t, send)
		require.Equal(t, wait, again)
	}
	now = now.Add(wait)
	_, send = c.TakeFetch("u", "c", 5_000, now)
	require.True(t, send, "when the client has waited as it was told")
}

func TestRequestTimeWaitsAtMostASample(t *testing.T) {
	c := NewClients(window, window)
	c.Set(cluster.ClientEntity{User: everybody}, rate("request_percentage", "1"))
	now := time.Unix(1000, 0)
	require.Zero(t, c.TakeTime("u", "c", 5, now)) // 50 ms of one processor
	require.Equal(t, time.Second, c.TakeTime("u", "c", 500, now))
}

func TestChangesToTopicsMayOverdrawOnce(t *testing.T) {
	c := NewClients(window, Window{Samples: 2, Span: time.Second})
	c.Set(cluster.ClientEntity{User: "u"}, rate("controller_mutation_rate", "10"))
	now := time.Unix(1000, 0)
	_, ok := c.MayMutate("u", "c", 50, now)
	require.True(t, ok, "a full bucket of 20 may be overdrawn by one request")
	wait, ok := c.MayMutate("u", "c", 1, now)
	require.False(t, ok)
	require.Equal(t, 3*time.Second, wait)
	require.Zero(t, c.Mutate("u", "c", -30, now), "what came to nothing is given back")
	_, ok = c.MayMutate("u", "c", 0, now)
	require.True(t, ok)
	require.Equal(t, time.Second, c.Mutate("u", "c", 10, now), "those who cannot be refused wait")
	_, ok = c.MayMutate("other", "c", 1000, now)
	require.True(t, ok)
	now = now.Add(time.Hour)
	c.Forget(now)
	require.Empty(t, c.mu.buckets)
}

func TestConnectionsOfAnAddress(t *testing.T) {
	c := NewClients(window, window)
	now := time.Unix(1000, 0)
	require.Zero(t, c.TakeConnection("10.0.0.1", now))
	c.Set(cluster.ClientEntity{IP: everybody}, rate("connection_creation_rate", "1"))
	c.Set(cluster.ClientEntity{IP: "10.0.0.2"}, rate("connection_creation_rate", "1000"))
	for range 10 {
		require.Zero(t, c.TakeConnection("10.0.0.1", now))
	}
	for range 5 {
		require.InDelta(t, time.Second, c.TakeConnection("10.0.0.1", now), float64(time.Millisecond), "those that are turned away do not count")
	}
	require.Zero(t, c.TakeConnection("10.0.0.2", now))
	c.Forget(now.Add(time.Minute))
	require.Empty(t, c.mu.rates)
}
