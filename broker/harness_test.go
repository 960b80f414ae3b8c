package broker

import (
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"ottla/config"
	"ottla/zkcoord"
	"ottla/zkcoord/zktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is a broker in this process, on a ZooKeeper in memory and the loopback.
type house struct {
	*Broker
	t      testing.TB
	zk     *zktest.Client
	cancel context.CancelFunc
	ended  chan error
}

// settings are those of a broker for tests, with a directory of its own.
func settings(t testing.TB, more map[string]string) *config.Snapshot {
	t.Helper()
	all := map[string]string{
		"broker.id": "1", "zookeeper.connect": "unused:2181", "listeners": "PLAINTEXT://127.0.0.1:0", "log.dirs": t.TempDir(),
		"zookeeper.session.timeout.ms": "2000", "controlled.shutdown.retry.backoff.ms": "100",
		"offsets.topic.replication.factor": "1", "offsets.topic.num.partitions": "2", "log.initial.task.delay.ms": "1000",
	}
	for k, v := range more {
		all[k] = v
	}
	s, err := config.FromMap(all)
	require.NoError(t, err)
	return s
}

// newHouse makes a broker whose ZooKeeper is the tree; it is not started.
func newHouse(t testing.TB, tree *zktest.Tree, s *config.Snapshot) *house {
	t.Helper()
	h := &house{Broker: New(s, zerolog.New(zerolog.NewTestWriter(t)).Level(zerolog.WarnLevel)), t: t, ended: make(chan error, 1)}
	h.connect = func(_ context.Context, o zkcoord.Options) (zooKeeper, error) {
		h.zk = zktest.NewClient(tree, o.Listener)
		return h.zk, nil
	}
	return h
}

// start runs the broker and waits until it serves, is registered and knows the controller.
func start(t testing.TB, tree *zktest.Tree, s *config.Snapshot) *house {
	t.Helper()
	h := newHouse(t, tree, s)
	ctx, cancel := context.WithCancel(context.Background())
	h.cancel = cancel
	go func() { h.ended <- h.Run(ctx) }()
	t.Cleanup(h.stopped)
	select {
	case <-h.Ready():
	case err := <-h.ended:
		h.ended <- err
		t.Fatalf("the broker ended: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("the broker does not come up")
	}
	h.eventually("the controller is known", func() bool { return h.metadata.load().controller >= 0 })
	return h
}

// stopped stops the broker and waits for its end.
func (h *house) stopped() {
	h.t.Helper()
	h.cancel()
	select {
	case err := <-h.ended:
		h.ended <- err
		require.NoError(h.t, err)
	case <-time.After(30 * time.Second):
		h.t.Fatal("the broker does not stop")
	}
}

func (h *house) eventually(what string, holds func() bool) {
	h.t.Helper()
	require.Eventually(h.t, holds, 15*time.Second, 5*time.Millisecond, what)
}

// client is one connection to a broker.
type client struct {
	t    testing.TB
	conn net.Conn
	mu   sync.Mutex
}

func (h *house) client() *client {
	h.t.Helper()
	conn, err := net.Dial("tcp", h.Addr("PLAINTEXT"))
	require.NoError(h.t, err)
	h.t.Cleanup(func() { conn.Close() })
	return &client{t: h.t, conn: conn}
}

// send writes a request, read reads the next answer; ask does both.
func (c *client) send(version int16, req kmsg.Request) {
	c.t.Helper()
	req.SetVersion(version)
	_, err := c.conn.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("test")).AppendRequest(nil, req, int32(version)))
	require.NoError(c.t, err)
}

func (c *client) read(version int16, req kmsg.Request) kmsg.Response {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	var head [4]byte
	_, err := io.ReadFull(c.conn, head[:])
	require.NoError(c.t, err)
	body := make([]byte, binary.BigEndian.Uint32(head[:]))
	_, err = io.ReadFull(c.conn, body)
	require.NoError(c.t, err)
	resp := req.ResponseKind()
	resp.SetVersion(version)
	body = body[4:]
	if resp.IsFlexible() {
		body = body[1:]
	}
	require.NoError(c.t, resp.ReadFrom(body))
	return resp
}

func ask[R kmsg.Response](c *client, version int16, req kmsg.Request) R {
	c.t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.send(version, req)
	return c.read(version, req).(R)
}

// create makes a topic and waits until it is led.
func (h *house) create(topic string, partitions int32, configs ...string) {
	h.t.Helper()
	r := kmsg.NewPtrCreateTopicsRequest()
	r.TimeoutMillis = 10_000
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = topic, partitions, 1
	for i := 0; i+1 < len(configs); i += 2 {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = configs[i], &configs[i+1]
		t.Configs = append(t.Configs, c)
	}
	r.Topics = append(r.Topics, t)
	require.NoError(h.t, kerr.ErrorForCode(ask[*kmsg.CreateTopicsResponse](h.client(), 5, r).Topics[0].ErrorCode))
	h.eventually(topic+" is led", func() bool { return h.leads(topic, partitions) })
}

func (h *house) leads(topic string, partitions int32) bool {
	for n := range partitions {
		p, err := h.partitions.Get(topic, n)
		if err != nil {
			return false
		}
		if _, leads := p.IsLeader(); !leads || h.metadata.load().partition(topic, n) == nil { // the metadata comes a moment later
			return false
		}
	}
	return true
}

// batch builds a batch of one record.
func batch(value string) []byte {
	record := []byte{0, 0, 0, 2, 'k'}
	record = binary.AppendVarint(record, int64(len(value)))
	record = append(record, value...)
	record = append(record, 0)
	b := make([]byte, 61)
	b[16] = 2
	now := uint64(time.Now().UnixMilli())
	binary.BigEndian.PutUint64(b[27:], now)
	binary.BigEndian.PutUint64(b[35:], now)
	for i := 43; i < 57; i++ {
		b[i] = 255
	}
	b[60] = 1
	b = binary.AppendVarint(b, int64(len(record)))
	b = append(b, record...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], crc32.MakeTable(crc32.Castagnoli)))
	return b
}

func produceOf(topic string, partition int32, acks int16, records []byte) *kmsg.ProduceRequest {
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = acks, 5000
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, records
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.Partitions = topic, []kmsg.ProduceRequestTopicPartition{p}
	r.Topics = []kmsg.ProduceRequestTopic{t}
	return r
}

// produce appends a record and returns its offset.
func (c *client) produce(topic string, partition int32, value string) int64 {
	c.t.Helper()
	p := ask[*kmsg.ProduceResponse](c, 9, produceOf(topic, partition, -1, batch(value))).Topics[0].Partitions[0]
	require.NoError(c.t, kerr.ErrorForCode(p.ErrorCode))
	return p.BaseOffset
}

type want struct {
	topic     string
	partition int32
	offset    int64
}

func fetchRequest(session, epoch int32, wants ...want) *kmsg.FetchRequest {
	r := kmsg.NewPtrFetchRequest()
	r.ReplicaID, r.MaxWaitMillis, r.MinBytes, r.MaxBytes = -1, 0, 1, 1<<20
	r.SessionID, r.SessionEpoch = session, epoch
	for _, w := range wants {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = w.partition, w.offset, 1<<20
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.Partitions = w.topic, []kmsg.FetchRequestTopicPartition{p}
		r.Topics = append(r.Topics, t)
	}
	return r
}

// values are the values of one-record batches.
func values(records []byte) (out []string) {
	for len(records) > 61 {
		length := 12 + int(binary.BigEndian.Uint32(records[8:]))
		body := string(records[61:length])
		out = append(out, strings.TrimRight(body[strings.IndexByte(body, 'k')+2:], "\x00"))
		records = records[length:]
	}
	return out
}
