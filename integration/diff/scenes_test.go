package diff

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/integration/harness"
)

// play says everything. led waits until a topic has leaders.
func (s *script) play(led func(topic string, partitions int)) {
	s.sceneCreateTopics()
	for topic, partitions := range map[string]int{"one": 1, "three": 3, "compacted": 1, "both": 1, "append-time": 1, "small": 1, "fetched": 3} {
		led(topic, partitions)
	}
	s.learnIDs()
	for _, scene := range []func(){
		s.sceneCluster, s.sceneMetadata, s.sceneProduce, s.sceneIdempotence, s.sceneListOffsets, s.sceneLeaderEpochs, s.sceneFetch,
		s.sceneFetchSessions, s.sceneProducers, s.sceneDeleteRecords, s.sceneLogDirs, s.sceneDescribeConfigs, s.sceneAlterConfigs,
		s.sceneIncrementalAlterConfigs, s.sceneCreatePartitions, s.sceneReassignments, s.sceneDeleteTopics,
	} {
		scene()
	}
	s.sceneTransactions(led)
}

var text = kmsg.StringPtr

func (s *script) learnIDs() {
	r := kmsg.NewPtrMetadataRequest()
	resp, err := s.ask(12, r)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, t := range resp.(*kmsg.MetadataResponse).Topics {
		var id []any
		for _, b := range t.TopicID {
			id = append(id, b)
		}
		s.ids[fmt.Sprint(id)] = *t.Topic
	}
}

func (s *script) idOf(topic string) (id [16]byte) {
	for text, name := range s.ids {
		if name == topic {
			fields := strings.Fields(strings.Trim(text, "[]"))
			for i, f := range fields {
				_, _ = fmt.Sscan(f, &id[i])
			}
		}
	}
	return id
}

func newTopic(name string, partitions int32, factor int16, configs ...string) kmsg.CreateTopicsRequestTopic {
	t := kmsg.NewCreateTopicsRequestTopic()
	t.Topic, t.NumPartitions, t.ReplicationFactor = name, partitions, factor
	for i := 0; i+1 < len(configs); i += 2 {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = configs[i], text(configs[i+1])
		t.Configs = append(t.Configs, c)
	}
	return t
}

func assigned(t kmsg.CreateTopicsRequestTopic, replicas ...[]int32) kmsg.CreateTopicsRequestTopic {
	for i, r := range replicas {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = int32(i), r
		t.ReplicaAssignment = append(t.ReplicaAssignment, a)
	}
	return t
}

func creates(topics ...kmsg.CreateTopicsRequestTopic) *kmsg.CreateTopicsRequest {
	r := kmsg.NewPtrCreateTopicsRequest()
	r.TimeoutMillis, r.Topics = 10_000, topics
	return r
}

func validated(r *kmsg.CreateTopicsRequest) *kmsg.CreateTopicsRequest {
	r.ValidateOnly = true
	return r
}

func (s *script) sceneCreateTopics() {
	s.say("plain topic", 7, creates(newTopic("one", 1, 1)))
	s.say("several", 5, creates(newTopic("three", 3, 1), newTopic("compacted", 1, 1, "cleanup.policy", "compact"),
		newTopic("both", 1, 1, "cleanup.policy", "compact,delete"), newTopic("append-time", 1, 1, "message.timestamp.type", "LogAppendTime"),
		newTopic("small", 1, 1, "max.message.bytes", "500", "segment.bytes", "1000", "retention.ms", "3600000")))
	s.say("to be read", 2, creates(newTopic("fetched", 3, 1)))
	for _, v := range []int16{0, 1, 4, 5, 7} {
		tried := 0
		newTopic := func(name string, partitions int32, factor int16, configs ...string) kmsg.CreateTopicsRequestTopic {
			if name == "bad" { // each another one: some of them come to be
				tried++
				name = fmt.Sprintf("bad-%d-%d", v, tried)
			}
			return newTopic(name, partitions, factor, configs...)
		}
		creates := func(topics ...kmsg.CreateTopicsRequestTopic) *kmsg.CreateTopicsRequest {
			r := creates(topics...)
			r.TimeoutMillis = 300
			return r
		}
		s.say("existing", v, creates(newTopic("one", 1, 1)))
		s.say("twice", v, creates(newTopic("two", 1, 1), newTopic("two", 2, 1), newTopic("one", 1, 1)))
		s.say("none", v, creates())
		s.say("no partitions", v, creates(newTopic("bad", 0, 1)))
		s.say("negative partitions", v, creates(newTopic("bad", -3, 1)))
		s.say("factor 0", v, creates(newTopic("bad", 1, 0)))
		s.say("factor 2", v, creates(newTopic("bad", 1, 2)))
		s.say("unknown setting", v, creates(newTopic("bad", 1, 1, "no.such.key", "1")))
		s.say("bad value", v, creates(newTopic("bad", 1, 1, "retention.ms", "soon")))
		s.say("value out of range", v, creates(newTopic("bad", 1, 1, "segment.bytes", "1")))
		s.say("bad enumeration", v, creates(newTopic("bad", 1, 1, "cleanup.policy", "burn")))
		s.say("bad throttle list", v, creates(newTopic("bad", 1, 1, "leader.replication.throttled.replicas", "x")))
		null := newTopic("bad", 1, 1, "retention.ms", "1")
		null.Configs[0].Value = nil
		s.say("null value", v, creates(null))
		s.say("assignment and count", v, creates(assigned(newTopic("bad", 2, -1), []int32{1})))
		s.say("unknown broker", v, creates(assigned(newTopic("bad", -1, -1), []int32{9})))
		s.say("broker twice", v, creates(assigned(newTopic("bad", -1, -1), []int32{1, 1})))
		s.say("empty replica list", v, creates(assigned(newTopic("bad", -1, -1), []int32{})))
		s.say("lists of two lengths", v, creates(assigned(newTopic("bad", -1, -1), []int32{1}, []int32{})))
		gap := assigned(newTopic("bad", -1, -1), []int32{1}, []int32{1})
		gap.ReplicaAssignment[1].Partition = 5
		s.say("gap in the assignment", v, creates(gap))
		for _, name := range []string{"", ".", "..", "a b", "ä", strings.Repeat("x", 250), "a/b"} {
			s.say(fmt.Sprintf("name %.10q", name), v, creates(newTopic(name, 1, 1)))
		}
		collides := creates(newTopic("append_time", 1, 1))
		collides.TimeoutMillis = 10_000
		s.say("collision", v, collides)
		if v >= 1 {
			s.say("validate only", v, validated(creates(newTopic("checked", 2, 1, "retention.ms", "5"))))
			s.say("validate only, defaults", v, validated(creates(newTopic("checked", -1, -1))))
			s.say("validate only, assigned", v, validated(creates(assigned(newTopic("checked", -1, -1), []int32{1}, []int32{1}))))
			s.say("validate only, existing", v, validated(creates(newTopic("one", 1, 1))))
		}
	}
	s.say("defaults", 4, creates(newTopic("defaults", -1, -1)))
	for i, timeout := range []int32{0, -1} {
		impatient := creates(newTopic(fmt.Sprint("impatient-", i), 1, 1))
		impatient.TimeoutMillis = timeout
		s.say("no time", 5, impatient)
	}
	time.Sleep(500 * time.Millisecond)
}

func (s *script) sceneCluster() {
	for v := range int16(2) {
		r := kmsg.NewPtrDescribeClusterRequest()
		s.say("plain", v, r)
		r.IncludeClusterAuthorizedOperations = true
		s.say("with operations", v, r)
		for _, kind := range []int8{0, 2, 3} {
			if v == 1 {
				r.EndpointType = kind
				s.say(fmt.Sprint("end point type ", kind), v, r)
			}
		}
	}
}

func metadataOf(topics ...string) *kmsg.MetadataRequest {
	r := kmsg.NewPtrMetadataRequest()
	r.Topics = []kmsg.MetadataRequestTopic{}
	for _, topic := range topics {
		t := kmsg.NewMetadataRequestTopic()
		t.Topic = text(topic)
		r.Topics = append(r.Topics, t)
	}
	return r
}

func (s *script) sceneMetadata() {
	for v := range int16(13) {
		if v == 0 {
			s.say("empty list", v, metadataOf())
		} else {
			all := kmsg.NewPtrMetadataRequest()
			s.say("all", v, all)
			s.say("none", v, metadataOf())
		}
		s.say("some", v, metadataOf("three", "missing", "one", "bad name", ""))
		s.say("twice", v, metadataOf("one", "three", "one"))
		s.say("missing twice", v, metadataOf("missing", "missing"))
		create := metadataOf("missing", "..", "missing2")
		create.AllowAutoTopicCreation = true
		s.say("wanting creation", v, create)
		if v >= 8 {
			ops := metadataOf("one", "missing")
			ops.IncludeTopicAuthorizedOperations, ops.IncludeClusterAuthorizedOperations = true, v <= 10
			s.say("operations", v, ops)
		}
		if v >= 10 {
			byID := metadataOf()
			t := kmsg.NewMetadataRequestTopic()
			t.TopicID = s.idOf("one")
			byID.Topics = append(byID.Topics, t)
			s.say("by id, null name", v, byID)
			byID.Topics[0].Topic = text("")
			s.say("by id, empty name", v, byID)
			byID.Topics[0].Topic = text("one")
			s.say("by id and name", v, byID)
			byID.Topics[0].Topic = text("three")
			s.say("by id and another name", v, byID)
			byID.Topics[0].Topic, byID.Topics[0].TopicID = nil, [16]byte{1}
			s.say("unknown id", v, byID)
			byID.Topics[0].TopicID = [16]byte{}
			s.say("neither id nor name", v, byID)
			byID.Topics[0].TopicID = s.idOf("one")
			byID.Topics = append(byID.Topics, kmsg.MetadataRequestTopic{TopicID: s.idOf("three")})
			s.say("two ids", v, byID)
			byID.Topics = append(byID.Topics, kmsg.MetadataRequestTopic{Topic: text("small")})
			s.say("ids and a name", v, byID)
		}
	}
}

// produces builds a Produce of one partition.
func produces(topic string, partition int32, records []byte) *kmsg.ProduceRequest {
	r := kmsg.NewPtrProduceRequest()
	r.Acks, r.TimeoutMillis = -1, 5000
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, records
	t := kmsg.NewProduceRequestTopic()
	t.Topic, t.Partitions = topic, []kmsg.ProduceRequestTopicPartition{p}
	r.Topics = []kmsg.ProduceRequestTopic{t}
	return r
}

func (s *script) sceneProduce() {
	good := batchOf{records: values("a", "b")}.bytes
	for v := int16(3); v < 12; v++ {
		s.say("good", v, produces("one", 0, good()))
		s.say("missing topic", v, produces("missing", 0, good()))
		s.say("missing partition", v, produces("one", 7, good()))
		s.say("negative partition", v, produces("one", -1, good()))
		s.say("internal topic", v, produces("__consumer_offsets", 0, good()))
		for _, acks := range []int16{2, -2, 100} {
			r := produces("one", 0, good())
			r.Acks = acks
			s.say(fmt.Sprint("acks ", acks), v, r)
			r = produces("missing", 0, good())
			r.Acks = acks
			s.say(fmt.Sprint("missing topic, acks ", acks), v, r)
		}
		s.say("empty records", v, produces("one", 0, []byte{}))
		if v == 9 {
			s.say("null records", v, produces("one", 0, nil))
		}
		s.say("two batches", v, produces("one", 0, append(good(), good()...)))
		s.say("a batch and a torn one", v, produces("one", 0, append(good(), good()[:40]...)))
		s.say("a torn batch", v, produces("one", 0, good()[:50]))
		s.say("too short for a header", v, produces("one", 0, good()[:10]))
		s.say("garbage", v, produces("one", 0, bytes.Repeat([]byte{7}, 80)))
		s.say("bad checksum", v, produces("one", 0, batchOf{records: values("a"), after: func(b []byte) { b[17] ^= 1 }}.bytes()))
		for _, magic := range []byte{0, 1, 3} {
			s.say(fmt.Sprint("format ", magic), v, produces("one", 0, batchOf{records: values("a"), after: func(b []byte) { b[16] = magic }}.bytes()))
		}
		s.say("old message 0", v, produces("one", 0, oldMessage(0, "a")))
		s.say("old message 1", v, produces("one", 0, oldMessage(1, "a")))
		s.say("control batch", v, produces("one", 0, batchOf{records: values("a"), attributes: 0x20}.bytes()))
		s.say("transactional batch without id", v, produces("one", 0, batchOf{records: values("a"), attributes: 0x10, producer: 1 << 40}.bytes()))
		s.say("append-time bit", v, produces("one", 0, batchOf{records: values("a"), attributes: 0x08}.bytes()))
		s.say("append-time bit, append time", v, produces("append-time", 0, batchOf{records: values("a"), attributes: 0x08}.bytes()))
		s.say("append time", v, produces("append-time", 0, good()))
		s.say("unknown codec 5", v, produces("one", 0, batchOf{records: values("a"), attributes: 5}.bytes()))
		s.say("says zstd, is not", v, produces("one", 0, batchOf{records: values("a"), attributes: 4}.bytes()))
		s.say("says gzip, is not", v, produces("one", 0, batchOf{records: values("a"), attributes: 1}.bytes()))
		s.say("base offset 5", v, produces("one", 0, batchOf{records: values("a"), baseOffset: 5}.bytes()))
		s.say("no records", v, produces("one", 0, batchOf{records: nil}.bytes()))
		s.say("count too large", v, produces("one", 0, batchOf{records: values("a"), damage: func(b []byte) { b[60] = 2 }}.bytes()))
		s.say("last delta too large", v, produces("one", 0, batchOf{records: values("a"), damage: func(b []byte) { b[26] = 4 }}.bytes()))
		s.say("last delta and count too large", v, produces("one", 0, batchOf{records: values("a"), damage: func(b []byte) { b[26], b[60] = 4, 5 }}.bytes()))
		s.say("record too long", v, produces("one", 0, batchOf{records: values("a"), damage: func(b []byte) { b[61] += 40 }}.bytes()))
		s.say("bytes behind the records", v, produces("one", 0, batchOf{records: values("aaaaaa"), damage: func(b []byte) { b[61] -= 2 }}.bytes()))
		s.say("producer without sequence", v, produces("one", 0, batchOf{records: values("a"), producer: 77, sequence: -1}.bytes()))
		s.say("much too late", v, produces("one", 0, batchOf{records: values("a", "b"), timestamp: began + 2*3600_000}.bytes()))
		s.say("second record too late", v, produces("one", 0, batchOf{records: []record{{value: []byte("a")}, {value: []byte("b"), delta: 2 * 3600_000}}}.bytes()))
		s.say("long ago", v, produces("one", 0, batchOf{records: values("a"), timestamp: 1000}.bytes()))
		s.say("no timestamp", v, produces("one", 0, batchOf{records: values("a"), timestamp: -1}.bytes()))
		s.say("wrong newest timestamp", v, produces("one", 0, batchOf{records: values("a", "b"), damage: func(b []byte) { b[42]++ }}.bytes()))
		s.say("null key, compacted", v, produces("compacted", 0, batchOf{records: []record{{key: []byte("k")}, {value: []byte("x")}, {value: []byte("y")}}}.bytes()))
		s.say("keys, compacted", v, produces("compacted", 0, good()))
		s.say("null key, compacted and deleted", v, produces("both", 0, batchOf{records: []record{{value: []byte("x")}}}.bytes()))
		s.say("too large", v, produces("small", 0, batchOf{records: values(strings.Repeat("x", 600))}.bytes()))
		s.say("nearly too large", v, produces("small", 0, batchOf{records: values(strings.Repeat("x", 400))}.bytes()))
		mixed := produces("one", 0, good())
		mixed.Topics[0].Partitions = append(mixed.Topics[0].Partitions, produces("one", 5, good()).Topics[0].Partitions...)
		mixed.Topics = append(mixed.Topics, produces("missing", 0, good()).Topics...)
		mixed.Topics = append(mixed.Topics, produces("compacted", 0, batchOf{records: []record{{}}}.bytes()).Topics...)
		s.say("good and bad together", v, mixed)
		twice := produces("one", 0, good())
		twice.Topics[0].Partitions = append(twice.Topics[0].Partitions, produces("one", 0, good()).Topics[0].Partitions...)
		s.say("no topics", v, &kmsg.ProduceRequest{Acks: -1, TimeoutMillis: 1000})
		for _, acks := range []int16{1, 0} {
			r := produces("one", 0, good())
			r.Acks = acks
			s.say(fmt.Sprint("acks ", acks), v, r)
			r = produces("missing", 0, good())
			r.Acks = acks
			s.say(fmt.Sprint("missing topic, acks ", acks), v, r)
			if v == 9 {
				r = produces("one", 0, batchOf{records: values("a"), after: func(b []byte) { b[17] ^= 1 }}.bytes())
				r.Acks = acks
				s.say(fmt.Sprint("bad checksum, acks ", acks), v, r)
			}
		}
	}
	s.client = "__admin_client"
	s.say("internal topic that is missing, admin", 9, produces("__consumer_offsets", 0, good()))
	s.client = "diff"
}

func (s *script) sceneIdempotence() {
	at := func(epoch int16, first int32, n int) *kmsg.ProduceRequest {
		return produces("three", 0, batchOf{records: values(strings.Split(strings.Repeat("x", n), "")...), producer: 1000, epoch: epoch, sequence: first}.bytes())
	}
	for _, step := range []struct {
		what  string
		epoch int16
		first int32
		n     int
	}{
		{"starts in the middle", 0, 5, 2}, {"next", 0, 7, 1}, {"again", 0, 7, 1}, {"the first again", 0, 5, 2}, {"a part again", 0, 6, 1},
		{"gap", 0, 9, 1}, {"back", 0, 1, 1}, {"next", 0, 8, 3}, {"next epoch in the middle", 1, 5, 1}, {"next epoch", 1, 0, 2},
		{"old epoch", 0, 11, 1}, {"old epoch, known batch", 0, 8, 3}, {"next", 1, 2, 1}, {"next", 1, 3, 1}, {"next", 1, 4, 1}, {"next", 1, 5, 1},
		{"next", 1, 6, 1}, {"too old to be known", 1, 0, 2}, {"oldest known", 1, 2, 1}, {"wrap", 2, 0, 1}, {"negative sequence", 2, -5, 1},
	} {
		s.say(step.what, 9, at(step.epoch, step.first, step.n))
	}
	edge := func(first int32, n int) *kmsg.ProduceRequest {
		return produces("three", 1, batchOf{records: values(strings.Split(strings.Repeat("x", n), "")...), producer: 1001, sequence: first}.bytes())
	}
	s.say("near the largest sequence", 9, edge(2147483646, 1))
	s.say("over the edge", 9, edge(2147483647, 2))
	s.say("after the edge", 9, edge(1, 1))
	s.say("over the edge again", 9, edge(2147483647, 2))
	for v := range int16(6) {
		r := kmsg.NewPtrInitProducerIDRequest()
		r.TransactionTimeoutMillis = 60_000
		s.say("empty transactional id", v, withTransaction(r, ""))
		if v >= 3 {
			odd := kmsg.NewPtrInitProducerIDRequest()
			odd.ProducerID = 5
			s.say("id without epoch", v, odd)
			odd.ProducerID, odd.ProducerEpoch = -1, 5
			s.say("epoch without id", v, odd)
		}
	}
	first := kmsg.NewPtrInitProducerIDRequest()
	harness.Eventually(s.t, 10*time.Second, "a producer id", func() error {
		resp, err := s.ask(4, first)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(resp.(*kmsg.InitProducerIDResponse).ErrorCode)
	})
	for v := range int16(6) {
		s.say("fresh id", v, kmsg.NewPtrInitProducerIDRequest())
		if v >= 3 {
			had := kmsg.NewPtrInitProducerIDRequest()
			had.ProducerID, had.ProducerEpoch = 1, 3
			s.say("had an id", v, had)
		}
	}
}

func withTransaction(r *kmsg.InitProducerIDRequest, id string) *kmsg.InitProducerIDRequest {
	r.TransactionalID = &id
	return r
}

func lists(topic string, partition int32, timestamp int64) *kmsg.ListOffsetsRequest {
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp = partition, timestamp
	t := kmsg.NewListOffsetsRequestTopic()
	t.Topic, t.Partitions = topic, []kmsg.ListOffsetsRequestTopicPartition{p}
	r := kmsg.NewPtrListOffsetsRequest()
	r.ReplicaID, r.Topics = -1, []kmsg.ListOffsetsRequestTopic{t}
	return r
}

func (s *script) sceneListOffsets() {
	for v := int16(1); v < 10; v++ {
		for _, ts := range []int64{-1, -2, -3, -4, -5, -6, -100, 0, 1, 1000, 1001, began, began + 1, began + 2, began + 100_000} {
			s.say(fmt.Sprint("timestamp ", rel(ts)), v, lists("one", 0, ts))
			if v >= 2 {
				r := lists("one", 0, ts)
				r.IsolationLevel = 1
				s.say(fmt.Sprint("committed, timestamp ", rel(ts)), v, r)
			}
		}
		s.say("empty partition", v, lists("three", 2, -1))
		s.say("empty partition, newest", v, lists("three", 2, -3))
		s.say("empty partition, a time", v, lists("three", 2, 5))
		s.say("missing topic", v, lists("missing", 0, -1))
		s.say("missing partition", v, lists("one", 9, -1))
		s.say("missing partition, odd timestamp", v, lists("one", 9, -7))
		s.say("compacted", v, lists("compacted", 0, -3))
		s.say("append time", v, lists("append-time", 0, -1))
		if v >= 4 {
			for _, epoch := range []int32{-1, 0, 1, -2} {
				r := lists("one", 0, -1)
				r.Topics[0].Partitions[0].CurrentLeaderEpoch = epoch
				s.say(fmt.Sprint("leader epoch ", epoch), v, r)
			}
		}
		for _, replica := range []int32{-2, 1, 2, 7} {
			r := lists("one", 0, -1)
			r.ReplicaID = replica
			s.say(fmt.Sprint("replica ", replica), v, r)
		}
		twice := lists("one", 0, -1)
		twice.Topics[0].Partitions = append(twice.Topics[0].Partitions, lists("one", 0, -2).Topics[0].Partitions...)
		twice.Topics = append(twice.Topics, lists("three", 0, -2).Topics...)
		s.say("twice", v, twice)
		r := lists("one", 0, -1)
		r.Topics = nil
		s.say("nothing", v, r)
	}
}

// rel names times near the start of the test.
func rel(ts int64) string {
	if ts >= began-1000 {
		return fmt.Sprint("began+", ts-began)
	}
	return fmt.Sprint(ts)
}

func (s *script) sceneLeaderEpochs() {
	for v := range int16(5) {
		ask := func(topic string, partition, current, epoch, replica int32) *kmsg.OffsetForLeaderEpochRequest {
			p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
			p.Partition, p.CurrentLeaderEpoch, p.LeaderEpoch = partition, current, epoch
			t := kmsg.NewOffsetForLeaderEpochRequestTopic()
			t.Topic, t.Partitions = topic, []kmsg.OffsetForLeaderEpochRequestTopicPartition{p}
			r := kmsg.NewPtrOffsetForLeaderEpochRequest()
			r.ReplicaID, r.Topics = replica, []kmsg.OffsetForLeaderEpochRequestTopic{t}
			return r
		}
		for _, epoch := range []int32{-1, 0, 1, 5, -2} {
			s.say(fmt.Sprint("epoch ", epoch), v, ask("one", 0, -1, epoch, -1))
			s.say(fmt.Sprint("empty, epoch ", epoch), v, ask("three", 2, -1, epoch, -1))
		}
		s.say("current 0", v, ask("one", 0, 0, 0, -1))
		s.say("current 1", v, ask("one", 0, 1, 0, -1))
		s.say("replica 2", v, ask("one", 0, 0, 0, 2))
		s.say("debugging", v, ask("one", 0, 0, 0, -2))
		s.say("missing topic", v, ask("missing", 0, -1, 0, -1))
		s.say("missing partition", v, ask("one", 4, -1, 0, -1))
		none := ask("one", 0, -1, 0, -1)
		none.Topics = nil
		s.say("nothing", v, none)
	}
}

// fetchOf is one partition of a Fetch.
type fetchOf struct {
	topic              string
	partition          int32
	offset             int64
	maxBytes           int32 // 0: 1 MiB
	current, lastEpoch *int32
	id                 *[16]byte
}

func (s *script) fetches(v int16, parts ...fetchOf) *kmsg.FetchRequest {
	r := kmsg.NewPtrFetchRequest()
	r.ReplicaID, r.MaxWaitMillis, r.MinBytes, r.MaxBytes = -1, 100, 1, 1<<20
	r.ReplicaState.ID = -1
	r.SessionID, r.SessionEpoch = 0, -1
	for _, part := range parts {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes = part.partition, part.offset, part.maxBytes
		if part.maxBytes == 0 {
			p.PartitionMaxBytes = 1 << 20
		}
		if part.current != nil {
			p.CurrentLeaderEpoch = *part.current
		}
		if part.lastEpoch != nil {
			p.LastFetchedEpoch = *part.lastEpoch
		}
		t := kmsg.NewFetchRequestTopic()
		t.Topic, t.TopicID = part.topic, s.idOf(part.topic)
		if part.id != nil {
			t.TopicID = *part.id
		}
		if n := len(r.Topics); n > 0 && r.Topics[n-1].Topic == t.Topic && r.Topics[n-1].TopicID == t.TopicID {
			r.Topics[n-1].Partitions = append(r.Topics[n-1].Partitions, p)
			continue
		}
		t.Partitions = []kmsg.FetchRequestTopicPartition{p}
		r.Topics = append(r.Topics, t)
	}
	return r
}

func (s *script) sceneFetch() {
	for i := range 3 {
		for j := range 4 {
			s.must(9, produces("fetched", int32(i), batchOf{records: values(strings.Repeat(string(rune('a'+j)), 100*(i+1)))}.bytes()))
		}
	}
	n := func(e int32) *int32 { return &e }
	for v := int16(4); v < 18; v++ {
		s.say("all", v, s.fetches(v, fetchOf{topic: "fetched"}, fetchOf{topic: "fetched", partition: 1}, fetchOf{topic: "fetched", partition: 2}))
		for _, offset := range []int64{1, 3, 4, 5, -1, 1 << 40} {
			s.say(fmt.Sprint("offset ", offset), v, s.fetches(v, fetchOf{topic: "fetched", offset: offset}))
		}
		s.say("small partition maximum", v, s.fetches(v, fetchOf{topic: "fetched", maxBytes: 1}))
		r := s.fetches(v, fetchOf{topic: "fetched"}, fetchOf{topic: "fetched", partition: 1}, fetchOf{topic: "fetched", partition: 2})
		r.MaxBytes = 1
		s.say("small maximum", v, r)
		r.MaxBytes = 0
		s.say("no maximum", v, r)
		r = s.fetches(v, fetchOf{topic: "fetched"})
		r.MinBytes = 1 << 20
		s.say("many minimum", v, r)
		r.MaxWaitMillis = 0
		s.say("many minimum, no wait", v, r)
		r = s.fetches(v, fetchOf{topic: "fetched"})
		r.IsolationLevel = 1
		s.say("committed", v, r)
		s.say("missing", v, s.fetches(v, fetchOf{topic: "missing", id: &[16]byte{3}}, fetchOf{topic: "fetched", partition: 9}, fetchOf{topic: "fetched"}))
		s.say("empty", v, s.fetches(v, fetchOf{topic: "three", partition: 2}))
		s.say("nothing", v, s.fetches(v))
		s.say("twice", v, s.fetches(v, fetchOf{topic: "fetched"}, fetchOf{topic: "fetched", offset: 3}))
		if v >= 9 {
			for _, epoch := range []int32{-1, 0, 1, -2} {
				s.say(fmt.Sprint("leader epoch ", epoch), v, s.fetches(v, fetchOf{topic: "fetched", current: n(epoch)}))
			}
		}
		if v >= 12 {
			for _, epoch := range []int32{0, 1, -2} {
				s.say(fmt.Sprint("last epoch ", epoch), v, s.fetches(v, fetchOf{topic: "fetched", offset: 2, current: n(0), lastEpoch: n(epoch)}))
				s.say(fmt.Sprint("beyond the end, last epoch ", epoch), v, s.fetches(v, fetchOf{topic: "fetched", offset: 9, current: n(0), lastEpoch: n(epoch)}))
			}
		}
		if v >= 13 {
			other := s.idOf("one")
			s.say("zero id", v, s.fetches(v, fetchOf{topic: "fetched", id: &[16]byte{}}))
			s.say("another topic's id", v, s.fetches(v, fetchOf{topic: "fetched", partition: 2, id: &other}))
		}
		for _, replica := range []int32{2, 1, -2} {
			if v < 9 {
				break // followers name their leader epoch
			}
			r := s.fetches(v, fetchOf{topic: "fetched", current: n(0)})
			r.ReplicaID = replica
			if v >= 15 {
				r.ReplicaState.ID, r.ReplicaState.Epoch = replica, -1
			}
			s.say(fmt.Sprint("replica ", replica), v, r)
		}
	}
}

func (s *script) must(v int16, r *kmsg.ProduceRequest) {
	resp, err := s.ask(v, r)
	if err == nil {
		err = kerr.ErrorForCode(resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func (s *script) sceneFetchSessions() {
	for _, v := range []int16{7, 11, 12, 13, 17} {
		all := []fetchOf{{topic: "fetched"}, {topic: "fetched", partition: 1}, {topic: "fetched", partition: 2}, {topic: "three", partition: 2}}
		open := s.fetches(v, all...)
		open.SessionEpoch = 0
		resp, ok := s.say("opens a session", v, open).(*kmsg.FetchResponse)
		if !ok {
			continue
		}
		id, epoch := resp.SessionID, int32(1)
		next := func(what string, change func(*kmsg.FetchRequest), parts ...fetchOf) {
			r := s.fetches(v, parts...)
			r.SessionID, r.SessionEpoch = id, epoch
			if change != nil {
				change(r)
			}
			resp, ok := s.say(what, v, r).(*kmsg.FetchResponse)
			if ok && resp.ErrorCode == 0 {
				epoch++
			}
		}
		forget := func(topic string, partitions ...int32) func(*kmsg.FetchRequest) {
			return func(r *kmsg.FetchRequest) {
				t := kmsg.NewFetchRequestForgottenTopic()
				t.Topic, t.TopicID, t.Partitions = topic, s.idOf(topic), partitions
				r.ForgottenTopics = append(r.ForgottenTopics, t)
			}
		}
		next("nothing named", nil)
		next("moves on", nil, fetchOf{topic: "fetched", offset: 4}, fetchOf{topic: "fetched", partition: 1, offset: 4}, fetchOf{topic: "fetched", partition: 2, offset: 4})
		next("nothing new", nil)
		s.must(9, produces("fetched", 1, batchOf{records: values("new")}.bytes()))
		next("news in one", nil)
		next("the same news again", nil)
		end := int64(5)
		next("moves on", nil, fetchOf{topic: "fetched", partition: 1, offset: end})
		next("a missing one", nil, fetchOf{topic: "missing", id: &[16]byte{9}})
		next("still missing", nil)
		next("forgets the missing one", func(r *kmsg.FetchRequest) {
			t := kmsg.NewFetchRequestForgottenTopic()
			t.Topic, t.TopicID, t.Partitions = "missing", [16]byte{9}, []int32{0}
			r.ForgottenTopics = append(r.ForgottenTopics, t)
		})
		next("out of range", nil, fetchOf{topic: "fetched", offset: 1000})
		next("still out of range", nil)
		next("back in range", nil, fetchOf{topic: "fetched", offset: 4})
		next("nothing new", nil)
		next("wrong epoch", func(r *kmsg.FetchRequest) { r.SessionEpoch += 3 })
		next("negative epoch", func(r *kmsg.FetchRequest) { r.SessionEpoch = -2 })
		next("unknown session", func(r *kmsg.FetchRequest) { r.SessionID = 12345 })
		next("forgets one", forget("fetched", 0))
		s.must(9, produces("fetched", 0, batchOf{records: values("unseen")}.bytes()))
		next("news in the forgotten one", nil)
		next("forgets what it does not have", forget("fetched", 0, 77))
		next("names it again", nil, fetchOf{topic: "fetched", offset: 4})
		if v == 12 || v == 13 {
			other := s.fetches(25-v, fetchOf{topic: "fetched", offset: 4})
			other.SessionID, other.SessionEpoch = id, epoch
			s.say("changes between names and ids", 25-v, other)
		}
		next("forgets and names at once", forget("fetched", 1), fetchOf{topic: "fetched", partition: 1, offset: end})
		next("forgets all", func(r *kmsg.FetchRequest) { forget("fetched", 0, 1, 2)(r); forget("three", 2)(r) })
		next("after that", nil)

		again := s.fetches(v, all...)
		again.SessionEpoch = 0
		resp, ok = s.say("opens another", v, again).(*kmsg.FetchResponse)
		if !ok {
			continue
		}
		id, epoch = resp.SessionID, 1
		replace := s.fetches(v, all[0])
		replace.SessionID, replace.SessionEpoch = id, 0
		next("lives", nil)
		if resp, ok := s.say("replaces it", v, replace).(*kmsg.FetchResponse); ok {
			next("the replaced one", nil)
			id, epoch = resp.SessionID, 1
			next("the new one", nil)
		}
		bye := s.fetches(v, all[0])
		bye.SessionID, bye.SessionEpoch = id, -1
		s.say("closes it", v, bye)
		next("the closed one", nil)
		empty := s.fetches(v)
		empty.SessionEpoch = 0
		resp, ok = s.say("opens one without partitions", v, empty).(*kmsg.FetchResponse)
		if ok {
			id, epoch = resp.SessionID, 1
			next("still without", nil)
		}
		// A partition that always fills the answer must not starve the others.
		fair := s.fetches(v, fetchOf{topic: "fetched"}, fetchOf{topic: "fetched", partition: 1})
		fair.SessionEpoch, fair.MaxBytes = 0, 200
		resp, ok = s.say("opens a narrow one", v, fair).(*kmsg.FetchResponse)
		if ok {
			id, epoch = resp.SessionID, 1
			narrow := func(r *kmsg.FetchRequest) { r.MaxBytes = 200 }
			next("narrow", narrow, fetchOf{topic: "fetched", offset: 1})
			next("narrow", narrow, fetchOf{topic: "fetched", offset: 2})
			next("narrow", narrow, fetchOf{topic: "fetched", partition: 1, offset: 1})
		}
	}
}

func (s *script) sceneProducers() {
	ask := func(topic string, partitions ...int32) *kmsg.DescribeProducersRequest {
		t := kmsg.NewDescribeProducersRequestTopic()
		t.Topic, t.Partitions = topic, partitions
		r := kmsg.NewPtrDescribeProducersRequest()
		r.Topics = []kmsg.DescribeProducersRequestTopic{t}
		return r
	}
	s.say("known", 0, ask("three", 0, 1, 2))
	s.say("missing partition", 0, ask("three", 8))
	s.say("missing topic", 0, ask("missing", 0))
	s.say("nothing", 0, kmsg.NewPtrDescribeProducersRequest())
}

func (s *script) sceneDeleteRecords() {
	ask := func(topic string, partition int32, offset int64) *kmsg.DeleteRecordsRequest {
		p := kmsg.NewDeleteRecordsRequestTopicPartition()
		p.Partition, p.Offset = partition, offset
		t := kmsg.NewDeleteRecordsRequestTopic()
		t.Topic, t.Partitions = topic, []kmsg.DeleteRecordsRequestTopicPartition{p}
		r := kmsg.NewPtrDeleteRecordsRequest()
		r.TimeoutMillis, r.Topics = 5000, []kmsg.DeleteRecordsRequestTopic{t}
		return r
	}
	for v := range int16(3) {
		s.say("missing topic", v, ask("missing", 0, 1))
		s.say("missing partition", v, ask("one", 9, 1))
		s.say("compacted", v, ask("compacted", 0, 1))
		s.say("compacted and deleted", v, ask("both", 0, -1))
		s.say("internal and missing", v, ask("__consumer_offsets", 0, 1))
		s.say("beyond the end", v, ask("one", 0, 1<<40))
		s.say("negative", v, ask("one", 0, -2))
		s.say("raise", v, ask("one", 0, int64(v)+1))
		s.say("lower", v, ask("one", 0, 0))
		s.say("nothing", v, kmsg.NewPtrDeleteRecordsRequest())
		s.say("then earliest", 5, lists("one", 0, -2))
		s.say("then fetch", 11, s.fetches(11, fetchOf{topic: "one"}))
	}
	s.say("all", 2, ask("fetched", 2, -1))
	s.say("then earliest", 5, lists("fetched", 2, -2))
	s.say("then fetch", 11, s.fetches(11, fetchOf{topic: "fetched", partition: 2, offset: 4}))
}

func (s *script) sceneLogDirs() {
	for v := range int16(5) {
		r := kmsg.NewPtrDescribeLogDirsRequest()
		t := kmsg.NewDescribeLogDirsRequestTopic()
		t.Topic, t.Partitions = "fetched", []int32{0, 1, 9}
		r.Topics = []kmsg.DescribeLogDirsRequestTopic{t}
		s.say("some", v, r)
		r.Topics = []kmsg.DescribeLogDirsRequestTopic{}
		s.say("none", v, r)
	}
}

func (s *script) describes(kind kmsg.ConfigResourceType, name string, keys ...string) *kmsg.DescribeConfigsRequest {
	res := kmsg.NewDescribeConfigsRequestResource()
	res.ResourceType, res.ResourceName, res.ConfigNames = kind, name, keys
	r := kmsg.NewPtrDescribeConfigsRequest()
	r.Resources = []kmsg.DescribeConfigsRequestResource{res}
	return r
}

const (
	topicResource  = kmsg.ConfigResourceTypeTopic
	brokerResource = kmsg.ConfigResourceTypeBroker
	loggerResource = kmsg.ConfigResourceTypeBrokerLogger
)

// each says a DescribeConfigs key by key, so that a difference names its key.
func (s *script) each(what string, v int16, r *kmsg.DescribeConfigsRequest) {
	s.t.Helper()
	resp, err := s.ask(v, r)
	if err != nil {
		s.t.Fatal(err)
	}
	res := resp.(*kmsg.DescribeConfigsResponse).Resources[0]
	s.lines = append(s.lines, line{fmt.Sprintf("%s: DescribeConfigs v%d", what, v), fmt.Sprint(errorName(res.ErrorCode), deref(res.ErrorMessage))})
	found := map[string]kmsg.DescribeConfigsResponseResourceConfig{}
	for _, c := range res.Configs {
		found[c.Name] = c
	}
	for _, key := range allKeys {
		answer := "absent"
		if c, ok := found[key]; ok {
			one := kmsg.NewPtrDescribeConfigsResponse()
			one.Resources = []kmsg.DescribeConfigsResponseResource{{Configs: []kmsg.DescribeConfigsResponseResourceConfig{c}}}
			answer = s.render(one)
			delete(found, key)
		}
		s.lines = append(s.lines, line{fmt.Sprintf("%s: DescribeConfigs v%d of %s", what, v, key), answer})
	}
	s.lines = append(s.lines, line{fmt.Sprintf("%s: DescribeConfigs v%d of other keys", what, v), fmt.Sprint(slices.Sorted(maps.Keys(found)))})
}

// allKeys are learned from the first broker that is asked, so that the second is asked for the same.
var allKeys []string

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return " " + *s
}

func (s *script) sceneDescribeConfigs() {
	for v := range int16(5) {
		s.say("missing topic", v, s.describes(topicResource, "missing"))
		s.say("bad topic name", v, s.describes(topicResource, "a b"))
		s.say("no topic name", v, s.describes(topicResource, ""))
		s.say("another broker", v, s.describes(brokerResource, "2"))
		s.say("no number", v, s.describes(brokerResource, "x"))
		s.say("unknown type", v, s.describes(77, "x"))
		s.say("another broker's loggers", v, s.describes(loggerResource, "2"))
		s.say("no broker's loggers", v, s.describes(loggerResource, ""))
		s.say("cluster default", v, s.describes(brokerResource, ""))
		s.say("unknown key", v, s.describes(topicResource, "one", "no.such.key"))
		s.say("empty list of keys", v, s.describes(topicResource, "one", []string{}...))
		s.say("two keys", v, s.describes(topicResource, "small", "retention.ms", "segment.bytes"))
		synonyms := s.describes(topicResource, "small", "retention.ms", "segment.bytes", "max.message.bytes", "cleanup.policy")
		synonyms.IncludeSynonyms, synonyms.IncludeDocumentation = true, true
		s.say("with synonyms and documentation", v, synonyms)
		s.say("nothing", v, kmsg.NewPtrDescribeConfigsRequest())
	}
	// Which keys there are is learned beforehand, from whichever broker comes first.
	for _, r := range []*kmsg.DescribeConfigsRequest{s.describes(topicResource, "small"), s.describes(brokerResource, "1")} {
		r.IncludeSynonyms, r.IncludeDocumentation = true, true
		s.learnKeys(r)
		s.each(r.Resources[0].ResourceName, 4, r)
		r.IncludeSynonyms, r.IncludeDocumentation = false, false
		s.each(r.Resources[0].ResourceName, 0, r)
	}
}

func (s *script) learnKeys(r *kmsg.DescribeConfigsRequest) {
	if learned[r.Resources[0].ResourceName] != nil {
		allKeys = learned[r.Resources[0].ResourceName]
		return
	}
	resp, err := s.ask(4, r)
	if err != nil {
		s.t.Fatal(err)
	}
	allKeys = []string{}
	for _, c := range resp.(*kmsg.DescribeConfigsResponse).Resources[0].Configs {
		allKeys = append(allKeys, c.Name)
	}
	learned[r.Resources[0].ResourceName] = allKeys
}

var learned = map[string][]string{}

func (s *script) sceneAlterConfigs() {
	alters := func(kind kmsg.ConfigResourceType, name string, pairs ...string) *kmsg.AlterConfigsRequest {
		res := kmsg.NewAlterConfigsRequestResource()
		res.ResourceType, res.ResourceName = kind, name
		for i := 0; i+1 < len(pairs); i += 2 {
			c := kmsg.NewAlterConfigsRequestResourceConfig()
			c.Name, c.Value = pairs[i], text(pairs[i+1])
			res.Configs = append(res.Configs, c)
		}
		r := kmsg.NewPtrAlterConfigsRequest()
		r.Resources = []kmsg.AlterConfigsRequestResource{res}
		return r
	}
	for v := range int16(3) {
		s.say("topic", v, alters(topicResource, "three", "retention.ms", "1000000", "segment.bytes", "2000000"))
		s.say("validate only", v, func() *kmsg.AlterConfigsRequest {
			r := alters(topicResource, "three", "retention.ms", "5")
			r.ValidateOnly = true
			return r
		}())
		s.settled("three", "retention.ms", "1000000")
		s.say("replaces", v, alters(topicResource, "three", "retention.ms", "2000000"))
		s.settled("three", "retention.ms", "2000000")
		s.say("then described", 1, s.describes(topicResource, "three", "retention.ms", "segment.bytes"))
		s.say("unknown key", v, alters(topicResource, "three", "no.such.key", "1"))
		s.say("bad value", v, alters(topicResource, "three", "retention.ms", "x"))
		s.say("out of range", v, alters(topicResource, "three", "segment.bytes", "1"))
		s.say("missing topic", v, alters(topicResource, "missing", "retention.ms", "1"))
		s.say("no topic name", v, alters(topicResource, "", "retention.ms", "1"))
		s.say("bad topic name", v, alters(topicResource, "a b", "retention.ms", "1"))
		s.say("key twice", v, alters(topicResource, "three", "retention.ms", "1", "retention.ms", "2"))
		null := alters(topicResource, "three", "retention.ms", "1")
		null.Resources[0].Configs[0].Value = nil
		s.say("null value", v, null)
		twice := alters(topicResource, "three", "retention.ms", "3000000")
		twice.Resources = append(twice.Resources, alters(topicResource, "three", "segment.bytes", "3000000").Resources...)
		if v == 2 {
			s.say("resource twice", v, twice)
		}
		s.say("another broker", v, alters(brokerResource, "2", "log.retention.ms", "1"))
		s.say("no number", v, alters(brokerResource, "x", "log.retention.ms", "1"))
		s.say("read-only key", v, alters(brokerResource, "1", "broker.id", "3"))
		s.say("read-only key of all", v, alters(brokerResource, "", "zookeeper.connect", "x"))
		s.say("unknown key of a broker", v, alters(brokerResource, "1", "no.such.key", "3"))
		s.say("bad value of a broker", v, alters(brokerResource, "1", "num.io.threads", "x"))
		s.say("out of range of a broker", v, alters(brokerResource, "1", "num.io.threads", "0"))
		s.say("broker", v, alters(brokerResource, "1", "log.cleaner.threads", "2"))
		s.say("cluster default", v, alters(brokerResource, "", "log.cleaner.threads", "2"))
		s.say("empty broker", v, alters(brokerResource, "1"))
		s.say("empty cluster default", v, alters(brokerResource, ""))
		s.say("loggers", v, alters(loggerResource, "1", "kafka", "INFO"))
		s.say("unknown type", v, alters(99, "1", "kafka", "INFO"))
		s.say("nothing", v, kmsg.NewPtrAlterConfigsRequest())
		s.say("no settings", v, alters(topicResource, "three"))
		s.settled("three", "retention.ms", "604800000")
	}
}

// settled waits until a broker has heard of a topic's setting. Kafka was once seen not to hear of a change for half a minute, so it
// is told again.
func (s *script) settled(topic, key, want string) {
	s.t.Helper()
	told := time.Now()
	harness.Eventually(s.t, 40*time.Second, topic+"'s "+key+" is "+want, func() error {
		if s.kind == harness.Kafka && time.Since(told) > 10*time.Second {
			s.t.Logf("Kafka has not heard of %s's %s: told again", topic, key)
			s.again()
			told = time.Now()
		}
		resp, err := s.ask(1, s.describes(topicResource, topic, key))
		if err != nil {
			return err
		}
		if got := deref(resp.(*kmsg.DescribeConfigsResponse).Resources[0].Configs[0].Value); got != " "+want {
			return fmt.Errorf("it is%s", got)
		}
		return nil
	})
}

func (s *script) sceneIncrementalAlterConfigs() {
	const (
		set      = kmsg.IncrementalAlterConfigOpSet
		remove   = kmsg.IncrementalAlterConfigOpDelete
		add      = kmsg.IncrementalAlterConfigOpAppend
		subtract = kmsg.IncrementalAlterConfigOpSubtract
	)
	alters := func(kind kmsg.ConfigResourceType, name string, op kmsg.IncrementalAlterConfigOp, pairs ...string) *kmsg.IncrementalAlterConfigsRequest {
		res := kmsg.NewIncrementalAlterConfigsRequestResource()
		res.ResourceType, res.ResourceName = kind, name
		for i := 0; i+1 < len(pairs); i += 2 {
			c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
			c.Name, c.Op, c.Value = pairs[i], op, text(pairs[i+1])
			res.Configs = append(res.Configs, c)
		}
		r := kmsg.NewPtrIncrementalAlterConfigsRequest()
		r.Resources = []kmsg.IncrementalAlterConfigsRequestResource{res}
		return r
	}
	for v := range int16(2) {
		s.say("set", v, alters(topicResource, "three", set, "retention.ms", "1000000", "cleanup.policy", "compact"))
		s.settled("three", "cleanup.policy", "compact")
		s.say("append", v, alters(topicResource, "three", add, "cleanup.policy", "delete"))
		s.settled("three", "cleanup.policy", "compact,delete")
		s.say("append again", v, alters(topicResource, "three", add, "cleanup.policy", "delete"))
		s.say("subtract", v, alters(topicResource, "three", subtract, "cleanup.policy", "compact"))
		s.settled("three", "cleanup.policy", "delete")
		s.say("append to a default", v, alters(topicResource, "fetched", add, "cleanup.policy", "compact"))
		s.settled("fetched", "cleanup.policy", "delete,compact")
		s.say("delete it", v, alters(topicResource, "fetched", remove, "cleanup.policy", ""))
		s.settled("fetched", "cleanup.policy", "delete")
		s.say("subtract all", v, alters(topicResource, "three", subtract, "cleanup.policy", "delete"))
		s.say("append to a number", v, alters(topicResource, "three", add, "retention.ms", "1"))
		s.say("delete what is not set", v, alters(topicResource, "three", remove, "segment.ms", ""))
		s.say("delete an unknown key", v, alters(topicResource, "three", remove, "no.such.key", ""))
		s.say("set an unknown key", v, alters(topicResource, "three", set, "no.such.key", "1"))
		s.say("append to an unknown key", v, alters(topicResource, "three", add, "no.such.key", "1"))
		s.say("bad value", v, alters(topicResource, "three", set, "retention.ms", "x"))
		s.say("out of range", v, alters(topicResource, "three", set, "min.insync.replicas", "0"))
		s.say("unknown operation", v, alters(topicResource, "three", 9, "retention.ms", "1"))
		s.say("key twice", v, alters(topicResource, "three", set, "retention.ms", "1", "retention.ms", "2"))
		null := alters(topicResource, "three", set, "retention.ms", "1")
		null.Resources[0].Configs[0].Value = nil
		s.say("null value", v, null)
		null = alters(topicResource, "three", remove, "retention.ms", "1")
		null.Resources[0].Configs[0].Value = nil
		s.say("null value to delete", v, null)
		s.settled("three", "retention.ms", "604800000")
		twice := alters(topicResource, "three", set, "retention.ms", "3000000")
		twice.Resources = append(twice.Resources, alters(topicResource, "three", set, "segment.bytes", "3000000").Resources...)
		s.say("resource twice", v, twice)
		s.say("missing topic", v, alters(topicResource, "missing", set, "retention.ms", "1"))
		s.say("no topic name", v, alters(topicResource, "", set, "retention.ms", "1"))
		s.say("another broker", v, alters(brokerResource, "2", set, "log.retention.ms", "1"))
		s.say("no number", v, alters(brokerResource, "x", set, "log.retention.ms", "1"))
		s.say("read-only key", v, alters(brokerResource, "1", set, "broker.id", "3"))
		s.say("unknown key of a broker", v, alters(brokerResource, "1", set, "no.such.key", "3"))
		s.say("per-broker key of all", v, alters(brokerResource, "", set, "advertised.listeners", "PLAINTEXT://x:1"))
		s.say("bad value of a broker", v, alters(brokerResource, "1", set, "num.io.threads", "x"))
		s.say("negative of a broker", v, alters(brokerResource, "1", set, "log.cleaner.threads", "-1"))
		s.say("cluster default", v, alters(brokerResource, "", set, "log.retention.ms", "888000"))
		s.settled("one", "retention.ms", "888000")
		s.say("broker", v, alters(brokerResource, "1", set, "log.retention.ms", "777000"))
		s.settled("one", "retention.ms", "777000")
		described := s.describes(topicResource, "one", "retention.ms")
		described.IncludeSynonyms = true
		s.say("then described", 4, described)
		described = s.describes(brokerResource, "1", "log.retention.ms")
		described.IncludeSynonyms = true
		s.say("then described", 4, described)
		described = s.describes(brokerResource, "")
		described.IncludeSynonyms = true
		s.say("then described", 4, described)
		s.say("delete from the broker", v, alters(brokerResource, "1", remove, "log.retention.ms", ""))
		s.settled("one", "retention.ms", "888000")
		s.say("delete from all", v, alters(brokerResource, "", remove, "log.retention.ms", ""))
		s.settled("one", "retention.ms", "604800000")
		s.say("append to a broker's list", v, alters(brokerResource, "1", add, "log.cleanup.policy", "compact"))
		s.say("delete it", v, alters(brokerResource, "1", remove, "log.cleanup.policy", ""))
		s.say("unknown type", v, alters(99, "1", set, "kafka", "INFO"))
		s.say("loggers of another", v, alters(loggerResource, "2", set, "kafka", "INFO"))
		s.say("loggers", v, alters(loggerResource, "1", set, "kafka.server.KafkaServer", "INFO"))
		s.say("unknown logger", v, alters(loggerResource, "1", set, "no.such.logger", "INFO"))
		s.say("bad level", v, alters(loggerResource, "1", set, "kafka.server.KafkaServer", "LOUD"))
		s.say("append to a logger", v, alters(loggerResource, "1", add, "kafka.server.KafkaServer", "INFO"))
		only := alters(topicResource, "three", set, "retention.ms", "5")
		only.ValidateOnly = true
		s.say("validate only", v, only)
		s.say("nothing", v, kmsg.NewPtrIncrementalAlterConfigsRequest())
		s.say("reset", v, alters(topicResource, "three", remove, "cleanup.policy", ""))
	}
}

func (s *script) sceneCreatePartitions() {
	ask := func(topic string, count int32, replicas ...[]int32) *kmsg.CreatePartitionsRequest {
		t := kmsg.NewCreatePartitionsRequestTopic()
		t.Topic, t.Count = topic, count
		for _, r := range replicas {
			t.Assignment = append(t.Assignment, kmsg.CreatePartitionsRequestTopicAssignment{Replicas: r})
		}
		r := kmsg.NewPtrCreatePartitionsRequest()
		r.TimeoutMillis, r.Topics = 10_000, []kmsg.CreatePartitionsRequestTopic{t}
		return r
	}
	for v := range int16(4) {
		s.say("missing topic", v, ask("missing", 5))
		s.say("same count", v, ask("three", 3))
		s.say("fewer", v, ask("three", 2))
		s.say("none", v, ask("three", 0))
		s.say("negative", v, ask("three", -1))
		s.say("wrong number of assignments", v, ask("three", 5, []int32{1}))
		s.say("unknown broker", v, ask("three", 4, []int32{9}))
		s.say("broker twice", v, ask("three", 4, []int32{1, 1}))
		s.say("empty list", v, ask("three", 4, []int32{}))
		s.say("another factor", v, ask("three", 5, []int32{1}, []int32{}))
		only := ask("three", 6)
		only.ValidateOnly = true
		s.say("validate only", v, only)
		twice := ask("three", 6)
		twice.Topics = append(twice.Topics, ask("three", 7).Topics...)
		s.say("twice", v, twice)
		s.say("nothing", v, kmsg.NewPtrCreatePartitionsRequest())
	}
	s.say("more", 3, ask("small", 2))
	s.say("then metadata", 9, metadataOf("small"))
}

func (s *script) sceneReassignments() {
	list := kmsg.NewPtrListPartitionReassignmentsRequest()
	list.TimeoutMillis = 5000
	s.say("none", 0, list)
	list.Topics = []kmsg.ListPartitionReassignmentsRequestTopic{{Topic: "missing", Partitions: []int32{0}}, {Topic: "one", Partitions: []int32{0, 3}}}
	s.say("named", 0, list)
	ask := func(topic string, partition int32, replicas []int32) *kmsg.AlterPartitionAssignmentsRequest {
		p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
		p.Partition, p.Replicas = partition, replicas
		t := kmsg.NewAlterPartitionAssignmentsRequestTopic()
		t.Topic, t.Partitions = topic, []kmsg.AlterPartitionAssignmentsRequestTopicPartition{p}
		r := kmsg.NewPtrAlterPartitionAssignmentsRequest()
		r.TimeoutMillis, r.Topics = 5000, []kmsg.AlterPartitionAssignmentsRequestTopic{t}
		return r
	}
	s.say("missing topic", 0, ask("missing", 0, []int32{1}))
	s.say("missing partition", 0, ask("one", 9, []int32{1}))
	s.say("unknown broker", 0, ask("one", 0, []int32{9}))
	s.say("twice", 0, ask("one", 0, []int32{1, 1}))
	s.say("empty", 0, ask("one", 0, []int32{}))
	s.say("negative", 0, ask("one", 0, []int32{-1}))
	s.say("cancel nothing", 0, ask("one", 0, nil))
	s.say("as it is", 0, ask("one", 0, []int32{1}))
	for v := range int16(3) {
		e := kmsg.NewPtrElectLeadersRequest()
		e.TimeoutMillis = 5000
		s.say("all", v, e)
		e.Topics = []kmsg.ElectLeadersRequestTopic{{Topic: "one", Partitions: []int32{0, 9}}, {Topic: "missing", Partitions: []int32{0}}}
		s.say("some", v, e)
		if v >= 1 {
			e.ElectionType = 1
			s.say("unclean", v, e)
		}
	}
}

func (s *script) sceneDeleteTopics() {
	for v := range int16(7) {
		ask := func(topics ...string) *kmsg.DeleteTopicsRequest {
			r := kmsg.NewPtrDeleteTopicsRequest()
			r.TimeoutMillis, r.TopicNames = 10_000, topics
			for _, topic := range topics {
				t := kmsg.NewDeleteTopicsRequestTopic()
				t.Topic = text(topic)
				r.Topics = append(r.Topics, t)
			}
			return r
		}
		s.say("missing", v, ask("missing"))
		s.say("bad name", v, ask("a b"))
		s.say("none", v, ask())
		s.say("missing twice", v, ask("missing", "missing"))
		if v == 6 {
			byID := ask()
			byID.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: [16]byte{1}}}
			s.say("unknown id", v, byID)
			byID.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: s.idOf("append-time"), Topic: text("append-time")}}
			s.say("name and id", v, byID)
			byID.Topics = []kmsg.DeleteTopicsRequestTopic{{}}
			s.say("neither", v, byID)
			byID.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: s.idOf("append-time")}, {TopicID: s.idOf("append-time")}}
			s.say("id twice", v, byID)
			time.Sleep(2 * time.Second) // it is gone then
			byID.Topics = []kmsg.DeleteTopicsRequestTopic{{TopicID: s.idOf("append-time")}, {Topic: text("append-time")}}
			s.say("by id and by name", v, byID)
			byID.Topics = byID.Topics[:1]
			s.say("by id", v, byID)
		}
	}
	impatient := kmsg.NewPtrDeleteTopicsRequest()
	impatient.TopicNames = []string{"both"}
	s.say("no time", 3, impatient)
	r := kmsg.NewPtrDeleteTopicsRequest()
	r.TimeoutMillis, r.TopicNames = 10_000, []string{"one", "three", "missing"}
	s.say("several", 5, r)
	s.say("then metadata", 9, metadataOf("one", "three"))
	s.say("then fetch", 11, s.fetches(11, fetchOf{topic: "one"}))
	s.say("then produce", 9, produces("one", 0, batchOf{records: values("a")}.bytes()))
	// Offsets are not asked for: that is answered for as long as the replica is there, which ends a moment after the metadata does.
}
