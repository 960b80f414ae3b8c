package wire

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/internal/cluster"
)

// memRange is a FileRange in memory.
type memRange struct {
	b        []byte
	short    int // bytes missing at the end when read
	released int
}

func (m *memRange) Range() (pos, length int64) { return 0, int64(len(m.b)) }
func (m *memRange) File() *os.File             { return nil }
func (m *memRange) Release()                   { m.released++ }
func (m *memRange) ReadAt(p []byte, off int64) (int, error) {
	b := m.b[:len(m.b)-m.short]
	if off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// fetchPair builds one response twice: with our encoder's type and with kmsg's.
func fetchPair(rng *rand.Rand, version int16, records func(n int) FileRange) (*FetchResponse, *kmsg.FetchResponse) {
	ours, theirs := NewFetchResponse(version), kmsg.NewPtrFetchResponse()
	theirs.Version = version
	ours.ErrorCode, theirs.ErrorCode = 7, 7
	ours.SessionID, theirs.SessionID = 99, 99
	ours.ThrottleMillis, theirs.ThrottleMillis = 12, 12
	for topic := range rng.IntN(4) {
		kt := kmsg.NewFetchResponseTopic()
		kt.Topic = "topic-" + string(rune('a'+topic))
		kt.TopicID[0] = byte(topic + 1)
		for range 1 + rng.IntN(3) {
			p := FetchPartition{
				Topic: kt.Topic, TopicID: cluster.TopicID(kt.TopicID), Partition: rng.Int32(), ErrorCode: int16(rng.IntN(100)),
				HighWatermark: rng.Int64(), LastStableOffset: rng.Int64(), LogStartOffset: rng.Int64(),
				PreferredReadReplica: rng.Int32N(4) - 1,
			}
			kp := kmsg.NewFetchResponseTopicPartition()
			kp.Partition, kp.ErrorCode, kp.HighWatermark = p.Partition, p.ErrorCode, p.HighWatermark
			kp.LastStableOffset, kp.LogStartOffset = p.LastStableOffset, p.LogStartOffset
			kp.PreferredReadReplica, kp.RecordBatches = p.PreferredReadReplica, []byte{}
			if n := []int{0, 0, 61, 5000, 100_000}[rng.IntN(5)]; n > 0 {
				p.Records = records(n)
				kp.RecordBatches = make([]byte, n)
				_, _ = p.Records.ReadAt(kp.RecordBatches, 0)
			}
			if rng.IntN(2) == 0 {
				p.Aborted = []AbortedTransaction{}
				kp.AbortedTransactions = []kmsg.FetchResponseTopicPartitionAbortedTransaction{}
				for range rng.IntN(3) {
					a := AbortedTransaction{rng.Int64(), rng.Int64()}
					p.Aborted = append(p.Aborted, a)
					kp.AbortedTransactions = append(kp.AbortedTransactions,
						kmsg.FetchResponseTopicPartitionAbortedTransaction{ProducerID: a.ProducerID, FirstOffset: a.FirstOffset})
				}
			}
			if rng.IntN(3) == 0 {
				p.SetDiverging(3, 4)
				kp.DivergingEpoch.Epoch, kp.DivergingEpoch.EndOffset = 3, 4
			}
			if rng.IntN(3) == 0 {
				p.SetLeader(5, 6)
				kp.CurrentLeader.LeaderID, kp.CurrentLeader.LeaderEpoch = 5, 6
			}
			ours.Add(p)
			kt.Partitions = append(kt.Partitions, kp)
		}
		theirs.Topics = append(theirs.Topics, kt)
	}
	if version >= 16 {
		for id := range rng.Int32N(4) {
			rack := ""
			kn := kmsg.NewFetchResponseBroker()
			kn.NodeID, kn.Host, kn.Port = id, "host.example", 9092
			if id%2 == 0 {
				rack = "rack"
				kn.Rack = &rack
			}
			ours.AddNode(id, kn.Host, kn.Port, rack)
			ours.AddNode(id, kn.Host, kn.Port, rack)
			theirs.Brokers = append(theirs.Brokers, kn)
		}
	}
	return ours, theirs
}

func randomRange(rng *rand.Rand) func(n int) FileRange {
	return func(n int) FileRange {
		b := make([]byte, n)
		for i := 0; i < len(b); i += 61 {
			b[i] = byte(rng.Uint32())
		}
		return &memRange{b: b}
	}
}

func TestFetchResponseIsEncodedAsKmsgDoes(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for version := int16(0); version <= 17; version++ {
		for range 50 {
			ours, theirs := fetchPair(rng, version, randomRange(rng))
			want := theirs.AppendTo([]byte("head"))
			if got := ours.AppendTo([]byte("head")); !bytes.Equal(want, got) {
				t.Fatalf("v%d: got\n%x\nwant\n%x", version, got[:min(len(got), 300)], want[:min(len(want), 300)])
			}
			ours.recycle()
		}
	}
}

func TestFetchResponseReleasesRecordsOnce(t *testing.T) {
	r := &memRange{b: make([]byte, 100)}
	f := NewFetchResponse(12)
	f.Add(FetchPartition{Topic: "t", Records: r})
	require.EqualValues(t, 100, f.RecordBytes())
	f.AppendTo(nil)
	f.recycle()
	require.Equal(t, 1, r.released)
}

func TestFetchResponseOfAShortFileIsAnError(t *testing.T) {
	f := NewFetchResponse(12)
	f.Add(FetchPartition{Topic: "t", Records: &memRange{b: make([]byte, 100), short: 1}})
	_, _, err := f.encode(nil)
	require.ErrorIs(t, err, errShortFile)
}

func TestProduceResponseIsEncodedAsKmsgDoes(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for version := int16(0); version <= 11; version++ {
		for range 50 {
			ours, theirs := NewProduceResponse(version), kmsg.NewPtrProduceResponse()
			theirs.Version = version
			ours.ThrottleMillis, theirs.ThrottleMillis = 5, 5
			for topic := range rng.IntN(4) {
				kt := kmsg.NewProduceResponseTopic()
				kt.Topic = "topic-" + string(rune('a'+topic))
				for range 1 + rng.IntN(3) {
					i := ours.Add(ProducePartition{Topic: kt.Topic, Partition: rng.Int32()})
					p := ours.Partition(i)
					p.ErrorCode, p.BaseOffset, p.LogAppendTime, p.LogStartOffset = int16(rng.IntN(99)), rng.Int64(), rng.Int64(), rng.Int64()
					kp := kmsg.NewProduceResponseTopicPartition()
					kp.Partition, kp.ErrorCode, kp.BaseOffset = p.Partition, p.ErrorCode, p.BaseOffset
					kp.LogAppendTime, kp.LogStartOffset = p.LogAppendTime, p.LogStartOffset
					if rng.IntN(2) == 0 {
						p.ErrorMessage = "a message"
						kp.ErrorMessage = &p.ErrorMessage
						p.RecordErrors = []RecordError{{1, "first"}, {2, ""}}
						kp.ErrorRecords = []kmsg.ProduceResponseTopicPartitionErrorRecord{
							{RelativeOffset: 1, ErrorMessage: kmsg.StringPtr("first")}, {RelativeOffset: 2},
						}
					}
					if version >= 10 && rng.IntN(2) == 0 {
						p.SetLeader(5, 6)
						kp.CurrentLeader.LeaderID, kp.CurrentLeader.LeaderEpoch = 5, 6
					}
					kt.Partitions = append(kt.Partitions, kp)
				}
				theirs.Topics = append(theirs.Topics, kt)
			}
			if version >= 10 && rng.IntN(2) == 0 {
				kn := kmsg.NewProduceResponseBroker()
				kn.NodeID, kn.Host, kn.Port = 5, "host", 9092
				ours.AddNode(5, "host", 9092, "")
				theirs.Brokers = append(theirs.Brokers, kn)
			}
			require.Equal(t, theirs.AppendTo(nil), ours.AppendTo(nil), "v%d", version)
			ours.recycle()
		}
	}
}

// Kafka 3.9's StopReplica v4 for controller 1, controller epoch 7, broker epoch 5, no topics.
var stopReplicaGolden = []byte{0, 0, 0, 1, 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 5, 1, 0}

func TestStopReplicaV4IsLaidOutAsKafkaDoes(t *testing.T) {
	req := kmsg.NewPtrStopReplicaRequest()
	req.Version, req.ControllerID, req.ControllerEpoch, req.BrokerEpoch = 4, 1, 7, 5
	b := req.AppendTo(nil)
	stopReplicaToKafka(b)
	require.Equal(t, stopReplicaGolden, b)

	decoded, err := decodeBody(&api{API: API{Key: keyStopReplica}}, 4, bytes.Clone(stopReplicaGolden))
	require.NoError(t, err)
	require.Equal(t, req, decoded)

	req.IsKRaftController = true
	b = req.AppendTo(nil)
	stopReplicaToKafka(b)
	require.EqualValues(t, 1, b[4])
	stopReplicaToKafka(nil)
	stopReplicaFromKafka(make([]byte, 8))
}
