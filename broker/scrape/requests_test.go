package scrape

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/wire"
	"ottla/internal/invariant"
)

// serve runs a server that answers Produce with an error for partition 1, Metadata later than its handler returns, and Fetch empty.
func serve(t *testing.T, hooks wire.Hooks) net.Conn {
	t.Helper()
	table := wire.NewTable(
		wire.API{Key: 0, Max: 11, Pipelined: true, Borrow: true, Handle: func(r *wire.Request) {
			resp := wire.NewProduceResponse(r.Version)
			for i := range r.Body.(*kmsg.ProduceRequest).Topics[0].Partitions {
				resp.Add(wire.ProducePartition{Topic: "t", Partition: int32(i), ErrorCode: int16(i) * kerr.NotLeaderForPartition.Code})
			}
			r.RespondWith(resp)
		}},
		wire.API{Key: 1, Max: 17, Handle: func(r *wire.Request) { r.RespondWith(wire.NewFetchResponse(r.Version)) }},
		wire.API{Key: 3, Max: 12, Handle: func(r *wire.Request) {
			resp := r.Body.ResponseKind().(*kmsg.MetadataResponse)
			time.AfterFunc(30*time.Millisecond, func() { r.Respond(resp) })
		}},
		wire.API{Key: 32, Max: 4, Handle: func(r *wire.Request) {
			resp := r.Body.ResponseKind().(*kmsg.DescribeConfigsResponse)
			resp.Resources = []kmsg.DescribeConfigsResponseResource{{}, {ErrorCode: kerr.UnknownTopicOrPartition.Code}}
			r.Respond(resp)
		}},
	)
	s, err := wire.NewServer(wire.Options{
		Table: table, Listeners: []wire.Listener{{Name: "PLAINTEXT", Protocol: "PLAINTEXT", Addr: "127.0.0.1:0"}}, Hooks: hooks, Logger: zerolog.Nop(),
	})
	require.NoError(t, err)
	s.Serve()
	t.Cleanup(func() { require.NoError(t, s.Close(context.Background())) })
	nc, err := net.Dial("tcp", s.Addr("PLAINTEXT").String())
	require.NoError(t, err)
	t.Cleanup(func() { _ = nc.Close() })
	return nc
}

func frameOf(req kmsg.Request, version int16) []byte {
	req.SetVersion(version)
	return kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, 1)
}

func exchange(t testing.TB, nc net.Conn, frame, buf []byte) {
	if _, err := nc.Write(frame); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, buf[:4]); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, buf[:binary.BigEndian.Uint32(buf)]); err != nil {
		t.Fatal(err)
	}
}

func produceOf(partitions int) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic = "t"
	for i := range partitions {
		p := kmsg.NewProduceRequestTopicPartition()
		p.Partition, p.Records = int32(i), make([]byte, 100)
		topic.Partitions = append(topic.Partitions, p)
	}
	req.Topics = append(req.Topics, topic)
	return req
}

func TestRequestsAreCounted(t *testing.T) {
	var q Requests
	nc := serve(t, &q)
	buf := make([]byte, 1<<16)
	for range 5 {
		exchange(t, nc, frameOf(produceOf(2), 9), buf)
	}
	exchange(t, nc, frameOf(produceOf(1), 3), buf)
	consumer, follower := kmsg.NewPtrFetchRequest(), kmsg.NewPtrFetchRequest()
	consumer.ReplicaID, follower.ReplicaState.ID = -1, 2
	exchange(t, nc, frameOf(consumer, 12), buf)
	exchange(t, nc, frameOf(follower, 17), buf)
	exchange(t, nc, frameOf(kmsg.NewPtrMetadataRequest(), 12), buf)
	exchange(t, nc, frameOf(kmsg.NewPtrDescribeConfigsRequest(), 4), buf)

	picture := func() map[string]APIPicture {
		out := map[string]APIPicture{}
		for _, a := range q.Picture(time.Now()) {
			out[a.Name] = a
		}
		return out
	}
	require.Eventually(t, func() bool { return picture()["DescribeConfigs"].Send.Count == 1 }, 5*time.Second, time.Millisecond)
	got := picture()
	require.Equal(t, map[int]int64{3: 1, 9: 5}, got["Produce"].Versions)
	require.Equal(t, map[string]int64{"NONE": 6, "NOT_LEADER_OR_FOLLOWER": 5}, got["Produce"].Errors)
	require.Equal(t, map[string]int64{"NONE": 1, "UNKNOWN_TOPIC_OR_PARTITION": 1}, got["DescribeConfigs"].Errors)
	require.EqualValues(t, 6, got["Produce"].Total.Count)
	require.EqualValues(t, 6, got["Produce"].Send.Count)
	require.Positive(t, got["Produce"].InBytes)
	require.EqualValues(t, 2, got["Fetch"].Total.Count)
	require.EqualValues(t, 1, got["FetchConsumer"].Total.Count)
	require.EqualValues(t, 1, got["FetchFollower"].Total.Count)
	require.Greater(t, got["Metadata"].Remote.Sum, 20*time.Millisecond, "the time of waiting is told apart")
	require.Less(t, got["Metadata"].Local.Sum, got["Metadata"].Remote.Sum)
	require.Zero(t, got["Produce"].Remote.Sum)
	opened, closed, refused := q.Connections()
	require.Equal(t, []int64{1, 0, 0}, []int64{opened, closed, refused})
}

// TestPipelinedAnswersAreAllSent: answers that leave in one write are told one by one.
func TestPipelinedAnswersAreAllSent(t *testing.T) {
	var q Requests
	nc := serve(t, &q)
	const n = 50
	var frames []byte
	for range n {
		frames = append(frames, frameOf(produceOf(1), 9)...)
	}
	_, err := nc.Write(frames)
	require.NoError(t, err)
	buf := make([]byte, 1<<16)
	for range n {
		exchange(t, nc, nil, buf)
	}
	require.Eventually(t, func() bool { return q.Picture(time.Now())[0].Send.Count == n }, 5*time.Second, time.Millisecond)
}

// TestCountingDoesNotAllocate holds a produce with hooks against one without.
func TestCountingDoesNotAllocate(t *testing.T) {
	if invariant.Checked {
		t.Skip("checked builds allocate more")
	}
	frame, buf := frameOf(produceOf(3), 9), make([]byte, 1<<16)
	measure := func(hooks wire.Hooks) float64 {
		nc := serve(t, hooks)
		for range 20 {
			exchange(t, nc, frame, buf)
		}
		return testing.AllocsPerRun(500, func() { exchange(t, nc, frame, buf) })
	}
	without := measure(nil)
	with := measure(&Requests{})
	t.Logf("%.0f allocations without metrics, %.0f with", without, with)
	require.LessOrEqual(t, with, without)
}

func TestNamesAreKafkas(t *testing.T) {
	for key, name := range map[int]string{
		0: "Produce", 2: "ListOffsets", 4: "LeaderAndIsr", 22: "InitProducerId", 67: "AllocateProducerIds", 17: "SaslHandshake", 30: "CreateAcls",
		50: "DescribeUserScramCredentials", 45: "AlterPartitionReassignments", fetchFollower: "FetchFollower",
	} {
		require.Equal(t, name, slotName(key))
	}
	require.Equal(t, "NONE", errorName(0))
	require.Equal(t, "UNKNOWN_SERVER_ERROR", errorName(-1))
}

func BenchmarkRequestDone(b *testing.B) {
	var q Requests
	r := &wire.Request{Key: 0, Version: 9}
	t := wire.RequestTimes{RequestBytes: 100, Total: time.Millisecond, Local: time.Millisecond}
	for b.Loop() {
		q.RequestDone(r, t)
		q.AnswerSent(r, time.Microsecond)
	}
}
