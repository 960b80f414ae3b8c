package diff

import (
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
)

// transactionOf is a transactional producer of the scene.
type transactionOf struct {
	s        *script
	id       string
	producer int64
	epoch    int16
	sequence int32
}

// sceneTransactions says what transactional producers, brokers and tools say.
func (s *script) sceneTransactions(led func(topic string, partitions int)) {
	create := kmsg.NewPtrCreateTopicsRequest()
	create.TimeoutMillis = 10_000
	create.Topics = append(create.Topics, newTopic("txn", 2, 1))
	s.say("for transactions", 5, create)
	led("txn", 2)
	s.awaitCoordinator(1, "id-0")
	s.awaitCoordinator(0, "group")
	led("__transaction_state", 50)
	led("__consumer_offsets", 4)
	for v := int16(1); v <= 6; v++ {
		s.say("transactional id", v, finds(1, "id-0"))
	}
	s.sceneInit()
	s.sceneAddPartitions()
	s.sceneTransactionalProduce()
	s.sceneTransactionalOffsets()
	s.sceneEndTxn()
	s.sceneMarkers()
	s.sceneTransactionTools()
}

func finds(kind int8, key string) *kmsg.FindCoordinatorRequest {
	r := kmsg.NewPtrFindCoordinatorRequest()
	r.CoordinatorType, r.CoordinatorKey, r.CoordinatorKeys = kind, key, []string{key}
	return r
}

func (s *script) awaitCoordinator(kind int8, key string) {
	s.t.Helper()
	harness.Eventually(s.t, 30*time.Second, "a coordinator", func() error {
		resp, err := s.ask(2, finds(kind, key))
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.(*kmsg.FindCoordinatorResponse).ErrorCode)
	})
}

func initOf(id string, timeout int32, expected ...int64) *kmsg.InitProducerIDRequest {
	r := kmsg.NewPtrInitProducerIDRequest()
	r.TransactionalID, r.TransactionTimeoutMillis = &id, timeout
	if len(expected) > 0 {
		r.ProducerID, r.ProducerEpoch = expected[0], int16(expected[1])
	}
	return r
}

// begin makes a producer, silently, once its coordinator has loaded.
func (s *script) begin(id string) *transactionOf {
	s.t.Helper()
	x := &transactionOf{s: s, id: id}
	harness.Eventually(s.t, 30*time.Second, id+" is initialised", func() error {
		resp, err := s.ask(4, initOf(id, 60_000))
		if err != nil {
			return err
		}
		r := resp.(*kmsg.InitProducerIDResponse)
		x.producer, x.epoch = r.ProducerID, r.ProducerEpoch
		return kerr.ErrorForCode(r.ErrorCode)
	})
	return x
}

func (x *transactionOf) adds(topic string, partitions ...int32) *kmsg.AddPartitionsToTxnRequest {
	r := kmsg.NewPtrAddPartitionsToTxnRequest()
	r.TransactionalID, r.ProducerID, r.ProducerEpoch = x.id, x.producer, x.epoch
	t := kmsg.NewAddPartitionsToTxnRequestTopic()
	t.Topic, t.Partitions = topic, partitions
	r.Topics = append(r.Topics, t)
	return r
}

func (x *transactionOf) asksForBrokers(verify bool, topic string, partitions ...int32) *kmsg.AddPartitionsToTxnRequest {
	r := kmsg.NewPtrAddPartitionsToTxnRequest()
	txn := kmsg.NewAddPartitionsToTxnRequestTransaction()
	txn.TransactionalID, txn.ProducerID, txn.ProducerEpoch, txn.VerifyOnly = x.id, x.producer, x.epoch, verify
	t := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
	t.Topic, t.Partitions = topic, partitions
	txn.Topics = append(txn.Topics, t)
	r.Transactions = append(r.Transactions, txn)
	return r
}

func (x *transactionOf) ends(commit bool) *kmsg.EndTxnRequest {
	r := kmsg.NewPtrEndTxnRequest()
	r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Commit = x.id, x.producer, x.epoch, commit
	return r
}

// produces makes a transactional batch; a batch that is refused takes no sequence number.
func (x *transactionOf) produces(topic string, partition int32, value string) *kmsg.ProduceRequest {
	r := produces(topic, partition, batchOf{records: values(value), attributes: 0x10, producer: x.producer, epoch: x.epoch, sequence: x.sequence}.bytes())
	r.TransactionID = &x.id
	return r
}

func (x *transactionOf) says(what string, version int16, req kmsg.Request) {
	x.s.say(what, version, req)
}

// settled waits until a transaction has its markers.
func (x *transactionOf) settled() {
	x.s.t.Helper()
	r := kmsg.NewPtrDescribeTransactionsRequest()
	r.TransactionalIDs = []string{x.id}
	harness.Eventually(x.s.t, 20*time.Second, x.id+" has its markers", func() error {
		resp, err := x.s.ask(0, r)
		if err != nil {
			return err
		}
		switch state := resp.(*kmsg.DescribeTransactionsResponse).TransactionStates[0]; state.State {
		case "PrepareCommit", "PrepareAbort":
			return fmt.Errorf("state %s", state.State)
		}
		return nil
	})
}

func (s *script) sceneInit() {
	for v := range int16(6) {
		id := fmt.Sprint("init-", v)
		for _, timeout := range []int32{0, -1, 900_001} {
			s.say(fmt.Sprint("timeout ", timeout), v, initOf(id, timeout))
		}
		s.say("first", v, initOf(id, 60_000))
		s.say("second", v, initOf(id, 60_000))
		x := s.begin(id)
		s.say("open", 3, x.adds("txn", 0))
		s.say("while one is open", v, initOf(id, 60_000))
		x.settled()
		s.say("when it was aborted", v, initOf(id, 60_000))
		if v < 3 {
			continue
		}
		x = s.begin(id)
		s.say("goes on", v, initOf(id, 60_000, x.producer, int64(x.epoch)))
		s.say("goes on, again", v, initOf(id, 60_000, x.producer, int64(x.epoch)))
		s.say("is fenced", v, initOf(id, 60_000, x.producer, int64(x.epoch)-1))
		s.say("is another", v, initOf(id, 60_000, x.producer+10_000, int64(x.epoch)))
		s.say("went on after all was forgotten", v, initOf(id+"-forgotten", 60_000, 7, 3))
	}
}

func (s *script) sceneAddPartitions() {
	for v := range int16(4) {
		x := s.begin(fmt.Sprint("adds-", v))
		s.say("unknown id", v, (&transactionOf{id: "unknown"}).adds("txn", 0))
		s.say("no id", v, (&transactionOf{}).adds("txn", 0))
		s.say("other producer", v, (&transactionOf{id: x.id, producer: x.producer + 9000}).adds("txn", 0))
		s.say("older epoch", v, (&transactionOf{id: x.id, producer: x.producer, epoch: x.epoch - 1}).adds("txn", 0))
		s.say("newer epoch", v, (&transactionOf{id: x.id, producer: x.producer, epoch: x.epoch + 1}).adds("txn", 0))
		s.say("missing topic", v, x.adds("missing", 0))
		s.say("missing partition beside others", v, x.adds("txn", 0, 9, 1))
		s.say("internal topic", v, x.adds("__consumer_offsets", 0))
		s.say("no partition", v, x.adds("txn"))
		s.say("good", v, x.adds("txn", 0, 1))
		s.say("good again", v, x.adds("txn", 1))
	}
	for v := int16(4); v <= 5; v++ {
		x := s.begin(fmt.Sprint("adds-", v))
		s.say("verify, nothing is open", v, x.asksForBrokers(true, "txn", 0))
		s.say("add", v, x.asksForBrokers(false, "txn", 0))
		s.say("verify", v, x.asksForBrokers(true, "txn", 0, 1))
		s.say("verify missing", v, x.asksForBrokers(true, "missing", 0))
		s.say("verify older epoch", v, (&transactionOf{id: x.id, producer: x.producer, epoch: x.epoch - 1}).asksForBrokers(true, "txn", 0))
		s.say("verify other producer", v, (&transactionOf{id: x.id, producer: x.producer + 9000}).asksForBrokers(true, "txn", 0))
		s.say("verify unknown id", v, (&transactionOf{id: "unknown"}).asksForBrokers(true, "txn", 0))
		s.say("verify no id", v, (&transactionOf{}).asksForBrokers(true, "txn", 0))
		s.say("add internal topic", v, x.asksForBrokers(false, "__consumer_offsets", 1))
		two := x.asksForBrokers(true, "txn", 0)
		two.Transactions = append(two.Transactions, (&transactionOf{id: "unknown"}).asksForBrokers(true, "txn", 0).Transactions...)
		if resp, err := s.ask(v, two); err != nil || len(resp.(*kmsg.AddPartitionsToTxnResponse).Transactions) != 2 {
			s.t.Errorf("two transactions at once: %v, %v", resp, err)
		}
	}
}

func (s *script) sceneTransactionalProduce() {
	x := s.begin("produces")
	for v := int16(3); v <= 11; v++ {
		s.say("not added", v, x.produces("txn", 0, "not added"))
	}
	s.say("add", 3, x.adds("txn", 0))
	without := x.produces("txn", 0, "without id")
	without.TransactionID = nil
	s.say("without transactional id", 9, without)
	for v := int16(3); v <= 11; v++ {
		s.say("added", v, x.produces("txn", 0, fmt.Sprint("added ", v)))
		x.sequence++
		s.say("not added partition", v, x.produces("txn", 1, "not added"))
	}
	gap := *x
	gap.sequence += 3
	s.say("gap", 9, gap.produces("txn", 0, "gap"))
	plain := produces("txn", 0, batchOf{records: values("plain"), producer: x.producer, epoch: x.epoch, sequence: x.sequence}.bytes())
	s.say("without transaction meanwhile", 9, plain)
	old := *x
	old.epoch--
	s.say("older epoch", 9, old.produces("txn", 0, "old"))
	two := x.produces("txn", 0, "one")
	two.Topics = append(two.Topics, (&transactionOf{id: x.id, producer: x.producer + 9000}).produces("txn", 1, "two").Topics...)
	s.say("two producers", 9, two)
	s.sayEnds("while it is open")
	x.says("commit", 3, x.ends(true))
	x.settled()
	s.sayEnds("after the commit")
	s.say("late", 11, x.produces("txn", 0, "late"))
	s.say("late", 10, x.produces("txn", 0, "late"))
	s.say("add again", 3, x.adds("txn", 0))
	s.say("to be aborted", 11, x.produces("txn", 0, "to be aborted"))
	x.sequence++
	x.says("abort", 3, x.ends(false))
	x.settled()
	s.sayEnds("after the abort")
	s.sayBatches("txn", 0)
}

// sayEnds lists the ends for both isolation levels.
func (s *script) sayEnds(what string) {
	for isolation := range int8(2) {
		r := lists("txn", 0, -1)
		r.IsolationLevel = isolation
		s.say(fmt.Sprint("isolation ", isolation, " ", what), 7, r)
	}
}

// sayBatches tells the headers of a log's batches, and the aborted transactions that a reader is told of.
func (s *script) sayBatches(topic string, partition int32) {
	for v := int16(4); v <= 12; v += 4 {
		r := kmsg.NewPtrFetchRequest()
		r.ReplicaID, r.MaxWaitMillis, r.MinBytes, r.MaxBytes, r.IsolationLevel, r.SessionEpoch = -1, 0, 1, 1<<20, 1, -1
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.PartitionMaxBytes, p.CurrentLeaderEpoch = partition, 1<<20, -1
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.Partitions = topic, []kmsg.FetchRequestTopicPartition{p}
		r.Topics = append(r.Topics, t)
		resp, err := s.ask(v, r)
		if err != nil {
			s.t.Error(err)
			return
		}
		f := resp.(*kmsg.FetchResponse).Topics[0].Partitions[0]
		answer := fmt.Sprintf("high watermark %d, last stable offset %d, aborted %+v:", f.HighWatermark, f.LastStableOffset, f.AbortedTransactions)
		for rest := f.RecordBatches; len(rest) > 61; {
			var b kmsg.RecordBatch
			if err := b.ReadFrom(rest); err != nil {
				s.t.Error(err)
				return
			}
			answer += fmt.Sprintf(" [%d +%d attributes %#x producer %d epoch %d sequence %d records %d]", b.FirstOffset, b.LastOffsetDelta, b.Attributes,
				b.ProducerID, b.ProducerEpoch, b.FirstSequence, b.NumRecords)
			if b.Attributes&0x20 != 0 {
				answer += fmt.Sprintf("%x", b.Records[5:]) // key and value: type and coordinator epoch
			}
			rest = rest[12+b.Length:]
		}
		s.lines = append(s.lines, line{fmt.Sprintf("batches of %s: Fetch v%d", topic, v), answer})
	}
}

func (x *transactionOf) addsOffsets(group string) *kmsg.AddOffsetsToTxnRequest {
	r := kmsg.NewPtrAddOffsetsToTxnRequest()
	r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Group = x.id, x.producer, x.epoch, group
	return r
}

func (x *transactionOf) commits(group, topic string, offset int64) *kmsg.TxnOffsetCommitRequest {
	r := kmsg.NewPtrTxnOffsetCommitRequest()
	r.TransactionalID, r.ProducerID, r.ProducerEpoch, r.Group, r.Generation = x.id, x.producer, x.epoch, group, -1
	p := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	p.Offset, p.Metadata = offset, text("m")
	t := kmsg.NewTxnOffsetCommitRequestTopic()
	t.Topic, t.Partitions = topic, append(t.Partitions, p)
	r.Topics = append(r.Topics, t)
	return r
}

func (s *script) sayOffsets(what, group string) {
	for _, stable := range []bool{false, true} {
		r := kmsg.NewPtrOffsetFetchRequest()
		r.Group, r.RequireStable = group, stable
		r.Topics = append(r.Topics, kmsg.OffsetFetchRequestTopic{Topic: "txn", Partitions: []int32{0, 1}})
		s.say(fmt.Sprint(what, ", stable ", stable), 7, r)
	}
}

func (s *script) sceneTransactionalOffsets() {
	for v := range int16(5) {
		group := fmt.Sprint("group-", v)
		x := s.begin(fmt.Sprint("offsets-", v))
		s.awaitOffsets(group)
		s.say("offsets not added", v, x.commits(group, "txn", 1))
		s.say("unknown id", v, (&transactionOf{id: "unknown"}).addsOffsets(group))
		s.say("older epoch", v, (&transactionOf{id: x.id, producer: x.producer, epoch: x.epoch - 1}).addsOffsets(group))
		s.say("no id", v, (&transactionOf{}).addsOffsets(group))
		s.say("good", v, x.addsOffsets(group))
		s.say("missing topic", v, x.commits(group, "missing", 1))
		s.say("no group", v, x.commits("", "txn", 1))
		s.say("good", v, x.commits(group, "txn", 42))
		s.say("good again", v, x.commits(group, "txn", 43))
		s.say("older epoch", v, (&transactionOf{id: x.id, producer: x.producer, epoch: x.epoch - 1}).commits(group, "txn", 1))
		large := x.commits(group, "txn", 1)
		large.Topics[0].Partitions[0].Metadata = text(string(make([]byte, 5000)))
		s.say("large metadata", v, large)
		if v >= 3 {
			member := x.commits(group, "txn", 1)
			member.MemberID, member.Generation = "somebody", 3
			s.say("unknown member", v, member)
			member = x.commits(group, "txn", 1)
			member.InstanceID = text("somebody")
			s.say("unknown instance", v, member)
			member = x.commits(group, "txn", 1)
			member.Generation = 3
			s.say("generation without member", v, member)
		}
		s.sayOffsets("while it is open", group)
		x.says("end", v, x.ends(v%2 == 0))
		x.settled()
		s.awaitOffsets(group)
		s.sayOffsets("after the end", group)
	}
}

// awaitOffsets waits until a group's coordinator has loaded, and has no offsets on their way.
func (s *script) awaitOffsets(group string) {
	s.t.Helper()
	harness.Eventually(s.t, 20*time.Second, "stable offsets of "+group, func() error {
		r := kmsg.NewPtrOffsetFetchRequest()
		r.Group, r.RequireStable = group, true
		r.Topics = append(r.Topics, kmsg.OffsetFetchRequestTopic{Topic: "txn", Partitions: []int32{0}})
		resp, err := s.ask(7, r)
		if err != nil {
			return err
		}
		f := resp.(*kmsg.OffsetFetchResponse)
		if f.ErrorCode != 0 {
			return kerr.ErrorForCode(f.ErrorCode)
		}
		return kerr.ErrorForCode(f.Topics[0].Partitions[0].ErrorCode)
	})
}

func (s *script) sceneEndTxn() {
	for v := range int16(5) {
		x := s.begin(fmt.Sprint("ends-", v))
		s.say("unknown id", v, (&transactionOf{id: "unknown"}).ends(true))
		s.say("no id", v, (&transactionOf{}).ends(true))
		s.say("nothing has begun", v, x.ends(true))
		s.say("nothing has begun", v, x.ends(false))
		s.say("other producer", v, (&transactionOf{id: x.id, producer: x.producer + 9000}).ends(true))
		s.say("older epoch", v, (&transactionOf{id: x.id, producer: x.producer, epoch: x.epoch - 1}).ends(true))
		for _, commit := range []bool{true, false} {
			s.say("add", 3, x.adds("txn", 1))
			s.say(fmt.Sprint("commit ", commit), v, x.ends(commit))
			x.settled()
			s.say(fmt.Sprint("commit ", commit, " again"), v, x.ends(commit))
			s.say(fmt.Sprint("commit ", !commit, " after all"), v, x.ends(!commit))
		}
	}
}

func (s *script) sceneMarkers() {
	marks := func(producer int64, epoch int16, coordinator int32, topic string, partitions ...int32) *kmsg.WriteTxnMarkersRequest {
		r := kmsg.NewPtrWriteTxnMarkersRequest()
		m := kmsg.NewWriteTxnMarkersRequestMarker()
		m.ProducerID, m.ProducerEpoch, m.CoordinatorEpoch, m.Committed = producer, epoch, coordinator, true
		t := kmsg.NewWriteTxnMarkersRequestMarkerTopic()
		t.Topic, t.Partitions = topic, partitions
		m.Topics = append(m.Topics, t)
		r.Markers = append(r.Markers, m)
		return r
	}
	for v := range int16(2) {
		producer := int64(500_000) + int64(v)
		s.say("no markers", v, kmsg.NewPtrWriteTxnMarkersRequest())
		s.say("missing", v, marks(producer, 0, 0, "missing", 0))
		s.say("missing beside others", v, marks(producer, 2, 5, "txn", 0, 7))
		s.say("again", v, marks(producer, 2, 5, "txn", 0))
		s.say("older coordinator", v, marks(producer, 2, 4, "txn", 0))
		s.say("older epoch", v, marks(producer, 1, 5, "txn", 0))
		s.say("newer coordinator", v, marks(producer, 3, 6, "txn", 0))
	}
	r := kmsg.NewPtrDescribeProducersRequest()
	r.Topics = append(r.Topics, kmsg.DescribeProducersRequestTopic{Topic: "txn", Partitions: []int32{0}})
	s.say("producers of transactions", 0, r)
}

func (s *script) sceneTransactionTools() {
	d := kmsg.NewPtrDescribeTransactionsRequest()
	d.TransactionalIDs = []string{"produces", "adds-0", "unknown", ""}
	s.say("transactions", 0, d)
	for v := range int16(2) {
		l := kmsg.NewPtrListTransactionsRequest()
		l.DurationFilterMillis = -1
		s.say("all", v, l)
		l.StateFilters = []string{"Ongoing", "Odd", "ongoing"}
		s.say("by state", v, l)
		l.StateFilters = []string{"Odd"}
		s.say("by an odd state", v, l)
		l.StateFilters, l.ProducerIDFilters = nil, []int64{1 << 40}
		s.say("by producer", v, l)
		if v >= 1 {
			l.ProducerIDFilters, l.DurationFilterMillis = nil, 3600_000
			s.say("open for long", v, l)
		}
	}
}
