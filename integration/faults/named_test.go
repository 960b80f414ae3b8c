package faults

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
)

// The named scenarios that need real processes, sockets and an ensemble. The others are played by the simulators: docs/testing.md
// says which is where. They run in the long form.

func named(t *testing.T) *rig {
	t.Helper()
	if !harness.Long() && !wantedByName() {
		t.Skip("long form only (OTTLA_LONG=1, or by its name)")
	}
	return newRig(t, 1)
}

// S2: the controller dies and keeps its place until its session expires. Another broker dies, is seen to die, and is back before any
// controller acts: it must not be registered while it is still counted as in sync, for nobody knows yet what it has lost.
func TestS02UnseenBounceOfAProcess(t *testing.T) {
	r := named(t)
	ctl, _, err := r.cluster.View().Controller()
	if err != nil {
		t.Fatal(err)
	}
	bounced := r.cluster.Broker(ctl%brokers + 1)
	r.cluster.Broker(ctl).KillWithParent()
	bounced.Kill()
	startAgain(bounced)
	harness.Eventually(t, 40*time.Second, "the broker registers", func() error { return r.registeredOutOfISRs(bounced) })
	startAgain(r.cluster.Broker(ctl))
	r.finish()
}

// registeredOutOfISRs is an error while the broker is not registered. It notes a problem if it registered while it was in sync.
func (r *rig) registeredOutOfISRs(b *harness.Broker) error {
	_, registration, err := r.cluster.View().Get(fmt.Sprint("/brokers/ids/", b.ID))
	if err != nil {
		return err
	}
	for _, topic := range []string{ledgerTopic, probeTopic} {
		for p := range partitions {
			_, written, err := r.cluster.View().Get(fmt.Sprintf("/brokers/topics/%s/partitions/%d/state", topic, p))
			if err != nil {
				return err
			}
			s, err := r.cluster.View().State(topic, p)
			if err != nil {
				return err
			}
			if written.Mzxid < registration.Czxid && slices.Contains(s.ISR, b.ID) && len(s.ISR) > 1 {
				r.problem("broker %d has registered while %s/%d counted it as in sync: %+v", b.ID, topic, p, s)
			}
		}
	}
	return nil
}

// S9: a leader is cut off from ZooKeeper, not from its clients, for longer than its session. From the moment at which another leads it
// must neither acknowledge nor show anything: acks=1 and reads are protected by nothing but its own clock.
func TestS09LeaderWithoutZooKeeper(t *testing.T) {
	r := named(t)
	if r.network == nil {
		t.Skipf("needs links that can be cut: %v", r.leftOut)
	}
	first, err := r.cluster.View().State(probeTopic, 0)
	if err != nil {
		t.Fatal(err)
	}
	old := r.cluster.Broker(first.Leader)
	conn, err := dialWire(old.Address)
	if err != nil {
		t.Fatal(err)
	}
	heal, err := cutZooKeeper(r, planned{}, old)
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, 30*time.Second, "another broker leads", func() error {
		s, err := r.cluster.View().State(probeTopic, 0)
		if err == nil && (s.Leader == old.ID || s.Leader < 0) {
			err = fmt.Errorf("leader %d", s.Leader)
		}
		return err
	})
	asked, refused := 0, 0
	for end := time.Now().Add(harness.Pick(4*time.Second, 60*time.Second)); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if conn.over() {
			if conn, err = dialWire(old.Address); err != nil {
				t.Fatal(err)
			}
		}
		asked++
		refused += r.askDeposed(conn)
	}
	t.Logf("asked the deposed leader %d times, refused %d times; else it was silent", asked, refused)
	if effective, err := heal(); err != nil || !effective {
		r.problem("the cut had no effect: %v", err)
	}
	r.finish()
}

// askDeposed asks a leader of the past for what it must not give any more. It returns the number of refusals.
func (r *rig) askDeposed(conn *wireConn) (refused int) {
	for _, acks := range []int16{1, -1} {
		index, id := r.probes.begin(200, 0)
		resp, err := conn.ask(r.produceRequest(id, acks), time.Second)
		if err != nil {
			r.probes.settle(index, -1, err)
			continue
		}
		part := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		r.probes.settle(index, part.BaseOffset, kerr.ErrorForCode(part.ErrorCode))
		if part.ErrorCode == 0 {
			r.problem("a deposed leader acknowledged a record with acks=%d", acks)
			continue
		}
		refused++
	}
	fetch := kmsg.NewPtrFetchRequest()
	fetch.Version, fetch.ReplicaID, fetch.MaxWaitMillis, fetch.MinBytes, fetch.MaxBytes = 11, -1, 10, 1, 1<<20
	fetch.SessionEpoch = -1
	part := kmsg.NewFetchRequestTopicPartition()
	part.CurrentLeaderEpoch, part.PartitionMaxBytes, part.LogStartOffset = -1, 1<<20, -1
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.Partitions = probeTopic, []kmsg.FetchRequestTopicPartition{part}
	fetch.Topics = []kmsg.FetchRequestTopic{topic}
	resp, err := conn.ask(fetch, time.Second)
	if err != nil {
		return refused
	}
	answer := resp.(*kmsg.FetchResponse)
	if answer.ErrorCode == 0 && len(answer.Topics) > 0 && answer.Topics[0].Partitions[0].ErrorCode == 0 {
		r.problem("a deposed leader answered a read, %d bytes, high watermark %d", len(answer.Topics[0].Partitions[0].RecordBatches), answer.Topics[0].Partitions[0].HighWatermark)
		return refused
	}
	return refused + 1
}

// produceRequest is one record for partition 0 of the probes' topic.
func (r *rig) produceRequest(id ident, acks int16) *kmsg.ProduceRequest {
	part := kmsg.NewProduceRequestTopicPartition()
	part.Records = oneRecord(encodeValue(r.probes.run, 0, id, 8))
	topic := kmsg.NewProduceRequestTopic()
	topic.Topic, topic.Partitions = probeTopic, []kmsg.ProduceRequestTopicPartition{part}
	req := kmsg.NewPtrProduceRequest()
	req.Version, req.Acks, req.TimeoutMillis, req.Topics = 9, acks, 2000, []kmsg.ProduceRequestTopic{topic}
	return req
}

// S10: the ensemble's leading server is cut off from the other servers, not from the brokers: whoever is connected to it must find
// another, and lead no longer than the ensemble lets it.
func TestS10ServerOfTheMinority(t *testing.T) {
	var steps []step
	for range harness.Pick(2, 8) {
		steps = append(steps, step{Quiet: time.Second, Settled: true, Faults: []planned{{Kind: "zk-split", Role: ensemble, Hold: 6 * time.Second}}})
	}
	scenarioByName(t, steps...)
}

// S11: a leader is stopped for three sessions with a thousand requests in its sockets. What it acknowledges when it goes on must be
// there afterwards, though it was written with acks=1.
func TestS11LongPause(t *testing.T) {
	r := named(t)
	first, err := r.cluster.View().State(probeTopic, 0)
	if err != nil {
		t.Fatal(err)
	}
	old := r.cluster.Broker(first.Leader)
	var wg sync.WaitGroup
	conn, err := dialWire(old.Address)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.ask(r.metadataRequest(), 5*time.Second); err != nil {
		t.Fatal(err)
	}
	old.Pause()
	queued := 0
	for range outstandingMax {
		index, id := r.probes.begin(201, 0)
		wg.Add(1)
		var once sync.Once
		settle := func(offset int64, err error) { once.Do(func() { r.probes.settle(index, offset, err); wg.Done() }) }
		sent := conn.send(r.produceRequest(id, 1), func(resp kmsg.Response, err error) {
			if err != nil {
				settle(-1, err)
				return
			}
			part := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
			settle(part.BaseOffset, kerr.ErrorForCode(part.ErrorCode))
		})
		if !sent {
			settle(-1, errNotSent)
			continue
		}
		queued++
	}
	time.Sleep(3 * harness.SessionTimeout)
	old.Resume()
	time.AfterFunc(20*time.Second, func() { conn.end(fmt.Errorf("not answered")) })
	wg.Wait()
	t.Logf("%d requests were queued", queued)
	r.finish()
}

func (r *rig) metadataRequest() *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Version = 8
	return req
}

// S15: the leader's disk is full, then a follower's, then there is room again. Nobody needs to repair anything.
func TestS15DiskFullAndBack(t *testing.T) {
	scenarioByName(t,
		step{Quiet: time.Second, Settled: true, Faults: []planned{{Kind: "disk-full", Role: leader, Hold: 5 * time.Second}}},
		step{Quiet: time.Second, Settled: true, Faults: []planned{{Kind: "disk-full", Role: follower, Hold: 5 * time.Second}}},
		step{Quiet: time.Second, Settled: true, Faults: []planned{
			{Kind: "disk-full", Role: leader, Hold: 6 * time.Second}, {Kind: "kill", Role: follower, Hold: 2 * time.Second}}},
	)
}

// S16: ZooKeeper's leader and the controller die together. Somebody must act afterwards, each time.
func TestS16ControllerAfterZooKeeperLeader(t *testing.T) {
	var steps []step
	for i := range harness.Pick(3, 50) {
		steps = append(steps, step{Quiet: 500 * time.Millisecond, Settled: true, Faults: []planned{
			{Kind: "zk-kill", Role: ensemble, Hold: 2 * time.Second, Draw: uint64(i)},
			{Kind: "kill-orphan", Role: controller, Hold: time.Second},
		}})
	}
	scenarioByName(t, steps...)
}

func scenarioByName(t *testing.T, steps ...step) {
	t.Helper()
	if !harness.Long() && !wantedByName() {
		t.Skip("long form only (OTTLA_LONG=1, or by its name)")
	}
	scenario(t, steps...)
}
