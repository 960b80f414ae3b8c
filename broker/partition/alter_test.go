package partition

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/replication"
	"ottla/internal/cluster"
)

// fakeController answers AlterPartition by a function.
type fakeController struct {
	mu     sync.Mutex
	seen   []*kmsg.AlterPartitionRequest
	asked  Asked
	answer func(*kmsg.AlterPartitionRequest) (*kmsg.AlterPartitionResponse, error)
}

func (c *fakeController) RoundTrip(_ context.Context, req kmsg.Request) (kmsg.Response, Asked, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := req.(*kmsg.AlterPartitionRequest)
	c.seen = append(c.seen, r)
	resp, err := c.answer(r)
	if err != nil {
		return nil, c.asked, err
	}
	return resp, c.asked, nil
}

// agree answers every partition with code and the proposed ISR.
func agree(r *kmsg.AlterPartitionRequest, code int16) *kmsg.AlterPartitionResponse {
	resp := kmsg.NewPtrAlterPartitionResponse()
	resp.Version = r.Version
	for _, t := range r.Topics {
		out := kmsg.NewAlterPartitionResponseTopic()
		out.Topic, out.TopidID = t.Topic, t.TopicID
		if r.Version >= 2 {
			out.Topic = ""
		}
		for _, p := range t.Partitions {
			part := kmsg.NewAlterPartitionResponseTopicPartition()
			part.Partition, part.ErrorCode, part.LeaderEpoch, part.ISR = p.Partition, code, p.LeaderEpoch, p.NewISR
			part.PartitionEpoch = p.PartitionEpoch + 1
			out.Partitions = append(out.Partitions, part)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func proposalFor(topic string, partition int32, id cluster.TopicID) AlterProposal {
	return AlterProposal{
		TopicPartition: cluster.TopicPartition{Topic: topic, Partition: partition}, TopicID: id,
		Proposal: replication.Proposal{ISR: []replication.Member{{Broker: 1, Epoch: -1}, {Broker: 2, Epoch: 7}}, LeaderEpoch: 3, PartitionEpoch: 4},
	}
}

func runAlterer(t *testing.T, c *fakeController, test func(a *Alterer)) {
	ctx, cancel := context.WithCancel(t.Context())
	a := NewAlterer(1, func() cluster.BrokerEpoch { return 55 }, c, zerolog.Nop())
	var running sync.WaitGroup
	running.Go(func() { a.Run(ctx) })
	test(a)
	cancel()
	running.Wait()
}

func TestAltererSendsWhatIsQueuedInOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		busy := make(chan struct{})
		c := &fakeController{answer: func(r *kmsg.AlterPartitionRequest) (*kmsg.AlterPartitionResponse, error) {
			<-busy
			return agree(r, 0), nil
		}}
		runAlterer(t, c, func(a *Alterer) {
			results := make(chan AlterResult, 10)
			a.Propose(proposalFor("a", 0, topicID), func(r AlterResult) { results <- r })
			synctest.Wait()
			for i := range int32(3) {
				a.Propose(proposalFor("a", i, topicID), func(r AlterResult) { results <- r })
			}
			close(busy)
			synctest.Wait()
			require.Len(t, results, 4)
			r := <-results
			require.NoError(t, r.Err)
			require.Equal(t, []cluster.BrokerID{1, 2}, r.ISR)
			require.Equal(t, cluster.PartitionEpoch(5), r.PartitionEpoch)
			require.False(t, r.Retried)
		})
		require.Len(t, c.seen, 2)
		first := c.seen[0]
		require.Equal(t, int16(3), first.Version)
		require.Equal(t, int64(55), first.BrokerEpoch)
		require.Equal(t, int64(7), first.Topics[0].Partitions[0].NewEpochISR[1].BrokerEpoch)
		require.Len(t, c.seen[1].Topics[0].Partitions, 3)
	})
}

func TestAltererRepeatsUntilThereIsAVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		try := 0
		c := &fakeController{answer: func(r *kmsg.AlterPartitionRequest) (*kmsg.AlterPartitionResponse, error) {
			try++
			switch try {
			case 1: // not the controller: certainly not carried out
				resp := agree(r, 0)
				resp.ErrorCode = kerr.NotController.Code
				return resp, nil
			case 2:
				return nil, errors.New("connection lost")
			case 3: // undecided
				return agree(r, kerr.UnknownServerError.Code), nil
			default:
				return agree(r, kerr.IneligibleReplica.Code), nil
			}
		}}
		runAlterer(t, c, func(a *Alterer) {
			start := time.Now()
			results := make(chan AlterResult, 1)
			a.Propose(proposalFor("a", 0, cluster.TopicID{}), func(r AlterResult) { results <- r })
			r := <-results
			require.ErrorIs(t, r.Err, kerr.IneligibleReplica)
			require.True(t, r.Retried, "the second sending may still be carried out")
			require.Equal(t, 3*alterRetry, time.Since(start))
		})
		require.Equal(t, int16(1), c.seen[0].Version, "a topic without id")
	})
}

// TestAltererDoubtsOnlyWhatTheAnsweringControllerMayStillCarryOut: a request that was lost to a controller which has been replaced
// cannot be carried out any more, and one that was never sent neither.
func TestAltererDoubtsOnlyWhatTheAnsweringControllerMayStillCarryOut(t *testing.T) {
	for name, c := range map[string]struct {
		lost, answers Asked
		doubtful      bool
	}{
		"the same controller":            {Asked{2, 5}, Asked{2, 5}, true},
		"its successor":                  {Asked{2, 5}, Asked{1, 6}, false},
		"the same broker, elected again": {Asked{2, 5}, Asked{2, 7}, true},
		"never sent":                     {Asked{cluster.NoBroker, 0}, Asked{2, 5}, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fake := &fakeController{asked: c.lost}
				fake.answer = func(r *kmsg.AlterPartitionRequest) (*kmsg.AlterPartitionResponse, error) {
					if len(fake.seen) == 1 {
						return nil, errors.New("connection lost")
					}
					fake.asked = c.answers
					return agree(r, kerr.IneligibleReplica.Code), nil
				}
				runAlterer(t, fake, func(a *Alterer) {
					results := make(chan AlterResult, 1)
					a.Propose(proposalFor("a", 0, topicID), func(r AlterResult) { results <- r })
					r := <-results
					require.Equal(t, c.doubtful, r.Retried)
					require.Equal(t, c.answers.Epoch, r.Controller)
				})
			})
		})
	}
}

// TestAltererUnderstandsUndecodedAnswers: a controller on this very broker hands its answer over as it built it, with topic names
// that version 3 does not carry on the wire.
func TestAltererUnderstandsUndecodedAnswers(t *testing.T) {
	for name, id := range map[string]cluster.TopicID{"version 3": topicID, "version 1": {}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &fakeController{answer: func(r *kmsg.AlterPartitionRequest) (*kmsg.AlterPartitionResponse, error) {
					resp := agree(r, 0)
					resp.Topics[0].Topic, resp.Topics[0].TopidID = r.Topics[0].Topic, r.Topics[0].TopicID
					return resp, nil
				}}
				runAlterer(t, c, func(a *Alterer) {
					results := make(chan AlterResult, 1)
					a.Propose(proposalFor("a", 0, id), func(r AlterResult) { results <- r })
					synctest.Wait()
					require.Len(t, results, 1, "answered at once")
					require.NoError(t, (<-results).Err)
				})
				require.Len(t, c.seen, 1)
			})
		})
	}
}

func TestAltererDropsAReplacedChange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &fakeController{answer: func(r *kmsg.AlterPartitionRequest) (*kmsg.AlterPartitionResponse, error) {
			time.Sleep(time.Second)
			return agree(r, 0), nil
		}}
		runAlterer(t, c, func(a *Alterer) {
			results := make(chan error, 3)
			for range 3 {
				a.Propose(proposalFor("a", 0, topicID), func(r AlterResult) { results <- r.Err })
			}
			time.Sleep(time.Minute)
			require.Len(t, results, 3, "each is told once")
		})
	})
}

func TestPartitionsInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		defer b.close()
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { b.set.Run(ctx) })
		defer running.Wait()
		defer cancel()
		p := b.lead(0, []int32{1, 2}, []int32{1, 2})
		r, later := produce(t, p, 1, -1) // waits a minute
		require.Nil(t, r)
		start := time.Now()
		time.Sleep(40 * time.Second)
		list := b.alter.take()
		require.Len(t, list, 1, "the member that never fetched is removed within the lag time and a tenth")
		require.True(t, list[0].LastMember)
		require.ErrorIs(t, (<-later).Err, kerr.RequestTimedOut, "nobody has confirmed the removal")
		require.Equal(t, time.Minute, time.Since(start))
	})
}
