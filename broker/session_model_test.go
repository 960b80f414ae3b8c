package broker

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"ottla/zkcoord/zktest"
)

// naiveSession is KIP-227 without any cleverness: every fetch looks at every partition.
type naiveSession struct {
	offsets map[int32]int64 // wanted
	told    map[int32]int64 // high watermark told last; -1: none
}

// answers lists what an incremental fetch must bring: records wherever there are some, and moved high watermarks.
func (s *naiveSession) answers(logs map[int32][]string) map[int32]string {
	out := map[int32]string{}
	for p, offset := range s.offsets {
		end := int64(len(logs[p]))
		if offset > end {
			out[p] = "out of range"
			s.told[p] = -1
			continue
		}
		if offset < end || s.told[p] != end {
			out[p] = fmt.Sprint(end, logs[p][offset:])
		}
		s.told[p] = end
	}
	return out
}

func fetched(resp *kmsg.FetchResponse) map[int32]string {
	out := map[int32]string{}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == kerr.OffsetOutOfRange.Code {
				out[p.Partition] = "out of range"
				continue
			}
			out[p.Partition] = fmt.Sprint(p.HighWatermark, values(p.RecordBatches))
		}
	}
	return out
}

// Sessions that look only at what is named or has moved answer as if they looked at everything.
func TestFetchSessionsAnswerAsIfEveryPartitionWereLookedAt(t *testing.T) {
	h := start(t, zktest.NewTree(), settings(t, nil))
	h.create("t", 4)
	writer := h.client()
	logs := map[int32][]string{}
	rapid.Check(t, func(rt *rapid.T) {
		c := h.client()
		defer c.conn.Close()
		model := &naiveSession{map[int32]int64{}, map[int32]int64{}}
		request := fetchRequest(0, 0)
		name := func(p int32, offset int64) {
			request.Topics = append(request.Topics, fetchRequest(0, 0, want{"t", p, offset}).Topics...)
			if _, known := model.offsets[p]; !known {
				model.told[p] = -1
			}
			model.offsets[p] = offset
		}
		for p := range int32(3) {
			name(p, max(0, int64(len(logs[p]))-3))
		}
		resp := ask[*kmsg.FetchResponse](c, 11, request)
		require.Equal(rt, model.answers(logs), fetched(resp))
		session, epoch := resp.SessionID, int32(1)
		require.NotZero(rt, session)
		for range rapid.IntRange(1, 12).Draw(rt, "fetches") {
			request = fetchRequest(session, epoch)
			for range rapid.IntRange(0, 4).Draw(rt, "changes") {
				p := rapid.Int32Range(0, 3).Draw(rt, "partition")
				switch rapid.IntRange(0, 2).Draw(rt, "change") {
				case 0:
					value := fmt.Sprint("v", len(logs[p]))
					writer.produce("t", p, value)
					logs[p] = append(logs[p], value)
				case 1:
					if !slices.ContainsFunc(request.Topics, func(t kmsg.FetchRequestTopic) bool { return t.Partitions[0].Partition == p }) {
						name(p, max(0, int64(len(logs[p]))+rapid.Int64Range(-3, 1).Draw(rt, "from the end")))
					}
				case 2:
					if len(model.offsets) > 1 && !slices.ContainsFunc(request.Topics, func(t kmsg.FetchRequestTopic) bool { return t.Partitions[0].Partition == p }) {
						f := kmsg.NewFetchRequestForgottenTopic()
						f.Topic, f.Partitions = "t", []int32{p}
						request.ForgottenTopics = append(request.ForgottenTopics, f)
						delete(model.offsets, p)
						delete(model.told, p)
						request.Topics = slices.DeleteFunc(request.Topics, func(t kmsg.FetchRequestTopic) bool { return t.Partitions[0].Partition == p })
					}
				}
			}
			// What is forgotten after it was named anew is gone; the model goes by the last word.
			for _, f := range request.ForgottenTopics {
				if slices.ContainsFunc(request.Topics, func(t kmsg.FetchRequestTopic) bool { return t.Partitions[0].Partition == f.Partitions[0] }) {
					delete(model.offsets, f.Partitions[0])
					delete(model.told, f.Partitions[0])
				}
			}
			if len(model.offsets) == 0 {
				return
			}
			resp := ask[*kmsg.FetchResponse](c, 11, request)
			require.NoError(rt, kerr.ErrorForCode(resp.ErrorCode))
			require.Equal(rt, model.answers(logs), fetched(resp))
			epoch++
		}
		closing := fetchRequest(session, -1)
		ask[*kmsg.FetchResponse](c, 11, closing)
	})
	h.eventually("no session is left", func() bool { sessions, _ := h.fetchSessions.stats(); return sessions <= 5 })
}

// Records that come while a fetch parks, at any moment of it, wake it: none waits for its deadline.
func TestParkedFetchIsWokenByEveryAppend(t *testing.T) {
	h := start(t, zktest.NewTree(), settings(t, nil))
	h.create("t", 1)
	writer, private, inSession := h.client(), h.client(), h.client()
	r := fetchRequest(0, 0, want{"t", 0, 0})
	session := ask[*kmsg.FetchResponse](inSession, 11, r).SessionID
	rounds := 300
	for n := range rounds {
		plain, incremental := fetchRequest(0, -1, want{"t", 0, int64(n)}), fetchRequest(session, int32(n+1), want{"t", 0, int64(n)})
		plain.MaxWaitMillis, incremental.MaxWaitMillis = 30_000, 30_000
		private.send(11, plain)
		inSession.send(11, incremental)
		if n%3 > 0 {
			time.Sleep(time.Duration(n%7) * 100 * time.Microsecond)
		}
		began := time.Now()
		writer.produce("t", 0, fmt.Sprint("v", n))
		for _, c := range []struct {
			*client
			req kmsg.Request
		}{{private, plain}, {inSession, incremental}} {
			got := values(c.read(11, c.req).(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches)
			require.Equal(t, []string{fmt.Sprint("v", n)}, got)
		}
		require.Less(t, time.Since(began), 10*time.Second)
	}
}

func TestFetchWaitsForItsBytesAndNotLongerThanItMay(t *testing.T) {
	h := start(t, zktest.NewTree(), settings(t, nil))
	h.create("t", 1)
	writer, reader := h.client(), h.client()
	r := fetchRequest(0, -1, want{"t", 0, 0})
	r.MinBytes, r.MaxWaitMillis = 500, 30_000
	reader.send(11, r)
	writer.produce("t", 0, strings.Repeat("x", 200))
	writer.produce("t", 0, strings.Repeat("y", 200))
	require.Len(t, values(reader.read(11, r).(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches), 2)

	r = fetchRequest(0, -1, want{"t", 0, 2})
	r.MaxWaitMillis = 200
	began := time.Now()
	require.Empty(t, ask[*kmsg.FetchResponse](reader, 11, r).Topics[0].Partitions[0].RecordBatches)
	require.GreaterOrEqual(t, time.Since(began), 190*time.Millisecond)
	require.Less(t, time.Since(began), 5*time.Second)
}

func TestFetchPartitionsTakeTurns(t *testing.T) {
	h := start(t, zktest.NewTree(), settings(t, nil))
	h.create("t", 2)
	c := h.client()
	for range 5 {
		c.produce("t", 0, strings.Repeat("x", 300))
		c.produce("t", 1, strings.Repeat("y", 300))
	}
	r := fetchRequest(0, 0, want{"t", 0, 0}, want{"t", 1, 0})
	r.MaxBytes = 100
	resp := ask[*kmsg.FetchResponse](c, 11, r)
	turns := map[int32]int64{}
	for epoch := int32(1); epoch < 7; epoch++ {
		var next []want
		for _, topic := range resp.Topics {
			for _, p := range topic.Partitions {
				if len(p.RecordBatches) > 0 {
					turns[p.Partition]++
					next = append(next, want{"t", p.Partition, turns[p.Partition]})
				}
			}
		}
		r = fetchRequest(resp.SessionID, epoch, next...)
		r.MaxBytes = 100
		resp = ask[*kmsg.FetchResponse](c, 11, r)
	}
	require.EqualValues(t, 3, turns[0])
	require.EqualValues(t, 3, turns[1])
}

// Produces of one connection are answered in their order, each with its own offset, whatever waits.
func TestProducesOfAConnectionKeepTheirOrder(t *testing.T) {
	h := start(t, zktest.NewTree(), settings(t, nil))
	h.create("t", 1)
	c := h.client()
	const n = 200
	go func() {
		for i := range n {
			acks := int16(-1)
			if i%3 == 0 {
				acks = 1
			}
			c.send(9, produceOf("t", 0, acks, batch(fmt.Sprint("v", i))))
		}
	}()
	for i := range n {
		p := c.read(9, produceOf("t", 0, -1, nil)).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		require.Zero(t, p.ErrorCode)
		require.EqualValues(t, i, p.BaseOffset)
	}
}
