package broker

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
	"ottla/zkcoord/zktest"
)

// TestMetadataDoesNotNameALeaderThatHasJustDied: the answer waits for the election, for a while.
func TestMetadataDoesNotNameALeaderThatHasJustDied(t *testing.T) {
	h := start(t, zktest.NewTree(), settings(t, nil))
	leads := func(leader int32) { // brokers 1 and 2 are there, or only 1
		r := told("t", cluster.TopicID{1}, stateOf(0, leader))
		for id := int32(1); id <= leader; id++ {
			live := kmsg.NewUpdateMetadataRequestLiveBroker()
			live.ID = id
			e := kmsg.NewUpdateMetadataRequestLiveBrokerEndpoint()
			e.ListenerName, e.Host, e.Port = "PLAINTEXT", "localhost", 9092
			live.Endpoints = append(live.Endpoints, e)
			r.LiveBrokers = append(r.LiveBrokers, live)
		}
		h.metadata.update(r)
	}
	who := func() int32 {
		r := kmsg.NewPtrMetadataRequest()
		topic, name := kmsg.NewMetadataRequestTopic(), "t"
		topic.Topic = &name
		r.Topics = append(r.Topics, topic)
		return ask[*kmsg.MetadataResponse](h.client(), 9, r).Topics[0].Partitions[0].Leader
	}
	leads(2)
	require.EqualValues(t, 2, who())

	h.suspects.connected(2, io.EOF)
	answered := make(chan int32, 1)
	go func() { answered <- who() }()
	select {
	case leader := <-answered:
		t.Fatalf("answered at once: broker %d leads", leader)
	case <-time.After(50 * time.Millisecond):
	}
	leads(1)
	require.EqualValues(t, 1, <-answered)

	leads(2) // nobody removes its registration
	began := time.Now()
	require.EqualValues(t, 2, who())
	require.Less(t, time.Since(began), suspicionMax+10*time.Second)
	require.EqualValues(t, 2, who())
	h.suspects.connected(2, nil)
	require.False(t, h.suspects.some.Load())
}

func TestOnlyBrokenConnectionsAreSuspect(t *testing.T) {
	var s suspects
	s.connected(2, context.DeadlineExceeded)
	require.False(t, s.some.Load(), "a broker that hangs keeps its registration")
	s.connected(2, io.EOF)
	s.connected(3, errors.New("connection refused"))
	now := time.Now()
	ids, until := s.fresh(now)
	require.ElementsMatch(t, []cluster.BrokerID{2, 3}, ids)
	require.WithinDuration(t, now.Add(suspicionMax), until, time.Second)
	s.connected(2, io.EOF) // again, when it is tried again
	ids, _ = s.fresh(now.Add(suspicionMax + time.Second))
	require.Empty(t, ids)
	s.connected(2, nil)
	ids, _ = s.fresh(now)
	require.Equal(t, []cluster.BrokerID{3}, ids)
}
