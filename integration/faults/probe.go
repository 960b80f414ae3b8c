package faults

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// leaders is what the brokers say about who leads a topic's partitions: the word with the newest leader epoch counts.
type leaders struct {
	topic     string
	addresses map[int32]string // by broker

	mu struct {
		sync.Mutex
		of map[int32]leaderWord
	}
}

type leaderWord struct {
	broker int32 // -1 = none
	epoch  int32
}

// watchLoop asks one broker again and again.
func (l *leaders) watchLoop(ctx context.Context, address string) {
	const every, patience = 50 * time.Millisecond, time.Second
	var conn *wireConn
	for ctx.Err() == nil {
		time.Sleep(every)
		if conn == nil || conn.over() {
			fresh, err := dialWire(address)
			if err != nil {
				conn = nil
				continue
			}
			context.AfterFunc(ctx, func() { fresh.end(context.Canceled) })
			conn = fresh
		}
		req := kmsg.NewPtrMetadataRequest()
		req.Version = 8
		topic := kmsg.NewMetadataRequestTopic()
		topic.Topic = &l.topic
		req.Topics = []kmsg.MetadataRequestTopic{topic}
		resp, err := conn.ask(req, patience)
		if err != nil {
			continue
		}
		for _, t := range resp.(*kmsg.MetadataResponse).Topics {
			l.learn(t.Partitions)
		}
	}
}

func (l *leaders) learn(partitions []kmsg.MetadataResponseTopicPartition) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, p := range partitions {
		if now, ok := l.mu.of[p.Partition]; !ok || p.LeaderEpoch > now.epoch {
			l.mu.of[p.Partition] = leaderWord{p.Leader, p.LeaderEpoch}
		}
	}
}

func (l *leaders) get(partition int32) leaderWord {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w, ok := l.mu.of[partition]; ok {
		return w
	}
	return leaderWord{-1, -1}
}

// probe writes one record to one partition at fixed times, whether earlier ones were answered or not, each once. What it measures
// is the brokers' silence, without a client's back-off.
type probe struct {
	rec       *recorder
	leaders   *leaders
	producer  int32
	partition int32
	every     time.Duration

	conn  *wireConn
	to    leaderWord
	retry time.Time // no new connection before
}

func (p *probe) loop(ctx context.Context) {
	tick := time.NewTicker(p.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.try()
		}
	}
}

func (p *probe) try() {
	index, id := p.rec.begin(p.producer, p.partition)
	conn := p.connect()
	if conn == nil {
		p.rec.settle(index, -1, errNotSent)
		return
	}
	part := kmsg.NewProduceRequestTopicPartition()
	part.Partition, part.Records = p.partition, oneRecord(encodeValue(p.rec.run, p.partition, id, 8))
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.Partitions = p.rec.topic, []kmsg.ProduceRequestTopicPartition{part}
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis, req.Topics = 9, -1, 5000, []kmsg.ProduceRequestTopic{topic}
	var answered atomic.Bool
	sent := conn.send(req, func(resp kmsg.Response, err error) {
		if answered.Swap(true) {
			return
		}
		if err != nil {
			p.rec.settle(index, -1, err)
			return
		}
		r := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		p.rec.settle(index, r.BaseOffset, kerr.ErrorForCode(r.ErrorCode))
	})
	if !sent {
		p.rec.settle(index, -1, errNotSent)
	}
}

// connect is the connection to the newest leader that is known. An older one stays open for a while: its answers count.
func (p *probe) connect() *wireConn {
	now := p.leaders.get(p.partition)
	if p.conn != nil && (now.epoch > p.to.epoch || p.conn.over()) {
		old := p.conn
		time.AfterFunc(15*time.Second, func() { old.end(context.DeadlineExceeded) })
		p.conn = nil
	}
	if p.conn != nil || now.broker < 0 || time.Now().Before(p.retry) {
		return p.conn
	}
	conn, err := dialWire(p.leaders.addresses[now.broker])
	if err != nil {
		p.retry = time.Now().Add(50 * time.Millisecond)
		return nil
	}
	p.conn, p.to = conn, now
	return conn
}
