package broker

import (
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ottla/broker/partition"
	"ottla/broker/wire"
	"ottla/config"
	"ottla/internal/cluster"
	"ottla/logstore"
)

// Fetch v0–17: session (who asks for what) → plan (partitions and budget) → read → wait → answer.
//   - Partitions are read in order; each gets at most its own maximum and what is left of the response's. From version 3 on
//     the first batch of the first partition with data is given whole even when it is larger (KIP-74).
//   - The answer waits until min.bytes are there or max.wait is over; an error, a diverging epoch or a better replica to read
//     from ends the wait at once. A fetch is completed by whoever made the progress.
//   - Version 4: isolation levels (KIP-98). 7: sessions (KIP-227). 9: leader epochs (KIP-320). 11: racks (KIP-392).
//     12: last fetched epoch (KIP-595). 13: topic ids (KIP-516). 15: replica state (KIP-903). 16: leader hints (KIP-951).
//   - Below version 6 KAFKA_STORAGE_ERROR is told as NOT_LEADER_OR_FOLLOWER, which those clients know.
//   - Records are never decompressed or converted; versions 0–3 would need an older message format and get UNSUPPORTED_VERSION.

// fetch is one request on its way.
type fetch struct {
	b       *Broker
	r       *wire.Request
	req     *kmsg.FetchRequest
	session *fetchSession // one of its own where the client wants none
	private bool
	full    bool // every partition is answered, changed or not
	replica cluster.BrokerID
	epoch   cluster.BrokerEpoch
	max     int
	min     int

	throttle time.Duration // for how long the client has to be quiet, set before the answer

	mu struct {
		sync.Mutex
		items  []fetchItem
		bytes  int
		urgent bool // something must be told without waiting
		done   bool
		timer  *time.Timer
	}
}

// fetchItem is one partition's part of the answer.
type fetchItem struct {
	sp     *sessionPartition
	target fetchTarget
	topic  string
	read   partition.ReadResult
	err    error
	// traffic is the topic's counters, nil until the partition was found.
	traffic *partition.Traffic
}

// bytes is how much the item adds to the answer.
func (it *fetchItem) bytes() int {
	return int(it.read.Slice.Len)
}

// more reports whether the partition holds records from the asked offset on, whether or not there was room for them.
func (it *fetchItem) more(f *fetch) bool {
	switch {
	case f.replica >= 0:
		return it.read.LogEndOffset > it.target.offset
	case f.req.IsolationLevel == partition.ReadCommitted:
		return it.read.LastStableOffset > it.target.offset
	}
	return it.read.HighWatermark > it.target.offset
}

func (it *fetchItem) release() {
	it.read.Slice.Release()
	it.read.Slice.Len = 0
}

func (b *Broker) handleFetch(r *wire.Request, req *kmsg.FetchRequest) kmsg.Response {
	f := &fetch{b: b, r: r, req: req, replica: replicaOf(req), epoch: cluster.NoBrokerEpoch}
	if r.Version >= 15 {
		f.epoch = cluster.BrokerEpoch(req.ReplicaState.Epoch)
	}
	if f.replica < 0 {
		b.noteClient(r)
	}
	f.max = min(int(req.MaxBytes), config.FetchMaxBytes.Of(b.config.Load()))
	if f.replica < 0 {
		f.max = b.quotas.FetchMax(userOf(r.Conn), r.ClientID, f.max)
	}
	f.min = min(int(req.MinBytes), f.max)
	if err := f.openSession(r.ReceivedAt); err != nil {
		return fetchRefused(req, err)
	}
	f.readDue(false)
	if f.enough() || req.MaxWaitMillis <= 0 || f.session.size() == 0 {
		f.answer()
		return nil
	}
	f.park()
	return nil
}

func fetchRefused(req *kmsg.FetchRequest, err error) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.FetchResponse)
	resp.ErrorCode = err.(*kerr.Error).Code
	return resp
}

// openSession finds, opens or closes the client's session, and marks due what the request names.
func (f *fetch) openSession(now time.Time) error {
	req, sessions := f.req, f.b.fetchSessions
	topicIDs := f.r.Version >= 13
	if req.SessionEpoch != initialSessionEpoch && req.SessionEpoch != sessionlessEpoch {
		s, err := sessions.resume(req, now, f)
		if err != nil {
			return err
		}
		s.apply(fetchTargets(req, true), forgottenKeys(req))
		if s.size() > 0 {
			f.session = s
			return nil
		}
		sessions.remove(s.id) // nothing left to fetch: the session ends
	} else if req.SessionID != 0 {
		sessions.remove(req.SessionID)
	}

	f.full = true
	if req.SessionEpoch == initialSessionEpoch && f.r.Version >= 7 {
		f.session = sessions.open(f.replica >= 0, topicIDs, now, f)
	}
	if f.session == nil {
		f.private = true
		f.session = &fetchSession{topicIDs: topicIDs}
		f.session.mu.inUse = f
		f.session.mu.partitions = make(map[fetchKey]*sessionPartition)
	}
	f.session.apply(fetchTargets(req, !f.private), nil)
	return nil
}

// fetchTargets lists what a request names. With keep the names outlive the request's frame.
func fetchTargets(req *kmsg.FetchRequest, keep bool) []fetchTarget {
	n := 0
	for i := range req.Topics {
		n += len(req.Topics[i].Partitions)
	}
	targets := make([]fetchTarget, 0, n)
	for i := range req.Topics {
		t := &req.Topics[i]
		topic := t.Topic
		if keep {
			topic = strings.Clone(topic)
		}
		for _, p := range t.Partitions {
			target := fetchTarget{
				fetchKey:         fetchKeyOf(req.Version, topic, t.TopicID, p.Partition),
				offset:           p.FetchOffset,
				maxBytes:         p.PartitionMaxBytes,
				leaderEpoch:      cluster.NoLeaderEpoch,
				lastFetchedEpoch: cluster.NoLeaderEpoch,
				logStartOffset:   -1,
			}
			if req.Version >= 5 {
				target.logStartOffset = p.LogStartOffset
			}
			if req.Version >= 9 {
				target.leaderEpoch = optionalEpoch(p.CurrentLeaderEpoch)
			}
			if req.Version >= 12 {
				target.lastFetchedEpoch = optionalEpoch(p.LastFetchedEpoch)
			}
			targets = append(targets, target)
		}
	}
	return targets
}

// optionalEpoch reads an epoch of a Fetch, where any negative number means none.
func optionalEpoch(epoch int32) cluster.LeaderEpoch {
	return max(cluster.LeaderEpoch(epoch), cluster.NoLeaderEpoch)
}

func forgottenKeys(req *kmsg.FetchRequest) []fetchKey {
	var keys []fetchKey
	for _, t := range req.ForgottenTopics {
		for _, p := range t.Partitions {
			keys = append(keys, fetchKeyOf(req.Version, t.Topic, t.TopicID, p))
		}
	}
	return keys
}

func fetchKeyOf(version int16, topic string, id [16]byte, number int32) fetchKey {
	if version >= 13 {
		return fetchKey{id: id, partition: number}
	}
	return fetchKey{topic: topic, partition: number}
}

// readDue reads what is due in the session. again is true for a fetch that has waited.
func (f *fetch) readDue(again bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.mu.done {
		return
	}
	for _, sp := range f.session.takeDue() {
		f.readLocked(f.itemLocked(sp), again)
	}
}

// itemLocked returns the answer's place for a session partition.
func (f *fetch) itemLocked(sp *sessionPartition) *fetchItem {
	if sp.slotOf == f {
		return &f.mu.items[sp.slot]
	}
	sp.slotOf, sp.slot = f, len(f.mu.items)
	f.mu.items = append(f.mu.items, fetchItem{sp: sp, target: sp.target, topic: sp.target.topic})
	return &f.mu.items[sp.slot]
}

func (f *fetch) readLocked(it *fetchItem, again bool) {
	f.mu.bytes -= it.bytes()
	it.release()
	it.read, it.err = partition.ReadResult{HighWatermark: -1, LastStableOffset: -1, LogStartOffset: -1}, nil
	p, err := f.resolve(it)
	if err == nil {
		it.traffic = p.Traffic()
		read := f.readRequest(it, again)
		throttled := f.replica >= 0 && f.b.leaderThrottle.Lists(it.topic, it.target.partition)
		if throttled && !p.InSync(f.replica) && f.b.leaderThrottle.Exceeded(read.Now) {
			read.MaxBytes, read.MinOneBatch = 0, false // an empty answer; the partition stays due
		}
		it.read, err = p.Read(read)
		if throttled {
			f.b.leaderThrottle.Record(it.bytes(), read.Now)
		}
	}
	it.err = err
	f.mu.bytes += it.bytes()
	if err != nil || it.read.Diverging != nil || it.read.PreferredReplica >= 0 {
		f.mu.urgent = true
	}
}

func (f *fetch) readRequest(it *fetchItem, again bool) partition.ReadRequest {
	t := &it.target
	read := partition.ReadRequest{
		Offset:             t.offset,
		MaxBytes:           max(0, min(int(t.maxBytes), f.max-f.mu.bytes)),
		MinOneBatch:        f.r.Version >= 3 && f.mu.bytes == 0,
		CurrentLeaderEpoch: t.leaderEpoch,
		LastFetchedEpoch:   t.lastFetchedEpoch,
		Isolation:          f.req.IsolationLevel,
		Replica:            f.replica,
		ReplicaEpoch:       f.epoch,
		ReplicaLogStart:    t.logStartOffset,
		Parked:             again,
		LeaderOnly:         f.r.Version < 11,
		ClientRack:         f.req.Rack,
		ClientID:           f.r.ClientID,
		Now:                f.r.ReceivedAt,
	}
	if f.replica >= 0 && !f.private {
		read.Session = &f.session.touched
	}
	return read
}

// resolve finds the partition of an item, authorised, and lets the session wait on it.
func (f *fetch) resolve(it *fetchItem) (*partition.Partition, error) {
	b := f.b
	if f.session.topicIDs {
		name, ok := b.metadata.load().names[it.target.id]
		if !ok {
			return nil, kerr.UnknownTopicID
		}
		it.topic = name
	}
	switch {
	case f.replica >= 0 && !b.allowed(f.r, opClusterAction, clusterResource):
		return nil, kerr.TopicAuthorizationFailed
	case f.replica < 0 && !b.allowed(f.r, opRead, topicResource(it.topic)):
		return nil, kerr.TopicAuthorizationFailed
	case f.r.Version < 4:
		return nil, kerr.UnsupportedVersion
	}
	find := b.partitionFor
	if f.replica < 0 {
		find = b.servedPartition
	}
	p, err := find(it.topic, it.target.partition)
	if err != nil {
		return nil, err
	}
	if f.session.topicIDs && p.TopicID() != it.target.id {
		return nil, kerr.InconsistentTopicID
	}
	if !f.private {
		it.sp.watch(p, f.wakeOn())
	}
	return p, nil
}

func (f *fetch) wakeOn() partition.WakeOn {
	if f.replica >= 0 {
		// A moved high watermark alone does not complete a follower's fetch, but its next answer must tell it.
		return partition.WakeOnLogEnd | partition.WakeOnHighWatermark
	}
	return partition.WakeOnHighWatermark
}

// enough reports whether there is nothing to wait for (any more).
func (f *fetch) enough() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.urgent || f.mu.bytes >= f.min
}

// park leaves the fetch on its session, to be completed by progress or by the deadline. What moved between the first look
// and the registration is seen by the second look.
func (f *fetch) park() {
	if f.private {
		for i := range f.mu.items {
			it := &f.mu.items[i]
			if p, err := f.b.partitionFor(it.topic, it.target.partition); err == nil {
				it.sp.watch(p, f.wakeOn())
			}
		}
	}
	f.mu.Lock()
	f.mu.timer = time.AfterFunc(f.maxWait(), f.answer)
	f.mu.Unlock()
	f.session.park(f)
	if f.private {
		f.session.keepDueAll()
	}
	f.progress()
}

// After leaderships have come here, replicas' fetches wait at most so long, for so long.
const (
	briefWait = 20 * time.Millisecond
	briefFor  = time.Second
)

func (f *fetch) maxWait() time.Duration {
	wait := time.Duration(f.req.MaxWaitMillis) * time.Millisecond
	if f.replica >= 0 && time.Since(time.Unix(0, f.b.gainedAt.Load())) < briefFor {
		return min(wait, briefWait)
	}
	return wait
}

// progress looks again at what is due and answers when it is enough. It runs on the goroutine that made the progress.
func (f *fetch) progress() {
	f.readDue(true)
	if f.enough() {
		f.answer()
	}
}

// answer is called when there is enough or time is up; the first call wins.
func (f *fetch) answer() {
	f.mu.Lock()
	if f.mu.done {
		f.mu.Unlock()
		return
	}
	f.mu.done = true
	if f.mu.timer != nil {
		f.mu.timer.Stop()
	}
	items := f.mu.items
	if f.holdBackLocked() {
		f.mu.Unlock()
		f.answerNothing(items)
		return
	}
	f.mu.Unlock()

	resp := wire.NewFetchResponse(f.r.Version)
	resp.ThrottleMillis = int32(f.throttle.Milliseconds())
	if !f.private {
		resp.SessionID = f.session.id
	}
	// What had records comes last next time, so that a partition which always fills the answer starves no other.
	var again, last []*sessionPartition
	for i := range items {
		it := &items[i]
		f.fetched(it)
		news := f.tell(resp, it)
		switch {
		case f.private:
		case it.err == nil && it.read.Diverging == nil && !it.more(f): // a look that found nothing new ends it
		case it.bytes() > 0:
			last = append(last, it.sp)
		default:
			again = append(again, it.sp)
		}
		if !news {
			it.release()
		}
	}
	if f.private {
		f.session.close()
	} else {
		f.session.keepDue(append(again, last...))
	}
	f.session.leave(f) // before the answer goes out: the client's next fetch comes right after it
	f.r.RespondWith(resp)
}

// holdBackLocked counts what would be sent against the client's quota, and reports whether the client has to wait for it.
func (f *fetch) holdBackLocked() bool {
	if f.replica >= 0 || f.mu.bytes == 0 {
		return false
	}
	wait, send := f.b.quotas.TakeFetch(userOf(f.r.Conn), f.r.ClientID, f.mu.bytes, time.Now())
	if wait > 0 {
		f.throttle = wait
		f.r.Throttle(wait)
	}
	return !send
}

// answerNothing answers a client that is over its quota; everything stays due for its next fetch.
func (f *fetch) answerNothing(items []fetchItem) {
	resp := wire.NewFetchResponse(f.r.Version)
	resp.ThrottleMillis = int32(max(1, f.throttle.Milliseconds()))
	due := make([]*sessionPartition, len(items))
	for i := range items {
		items[i].release()
		due[i] = items[i].sp
	}
	if f.private {
		f.session.close()
	} else {
		resp.SessionID = f.session.id
		f.session.keepDue(due)
	}
	f.session.leave(f)
	f.r.RespondWith(resp)
}

// tell adds an item to the answer, unless it is a session's and brings no news. It takes the item's slice over.
func (f *fetch) tell(resp *wire.FetchResponse, it *fetchItem) bool {
	code := f.b.errorCode(it.err)
	if code == kerr.KafkaStorageError.Code && f.r.Version < 6 {
		code = kerr.NotLeaderForPartition.Code
	}
	sp := it.sp
	if !f.full && code == 0 && it.bytes() == 0 && it.read.Diverging == nil && it.read.PreferredReplica < 0 &&
		sp.sentHighWatermark == it.read.HighWatermark && sp.sentLogStart == it.read.LogStartOffset {
		return false
	}
	sp.sentHighWatermark, sp.sentLogStart = it.read.HighWatermark, it.read.LogStartOffset
	if code != 0 {
		sp.sentHighWatermark = -1
	}
	out := wire.FetchPartition{
		Topic: it.topic, TopicID: it.target.id, Partition: it.target.partition, ErrorCode: code,
		HighWatermark: it.read.HighWatermark, LastStableOffset: it.read.LastStableOffset, LogStartOffset: it.read.LogStartOffset,
		PreferredReadReplica: int32(it.read.PreferredReplica), Aborted: abortedOf(it.read.Aborted),
	}
	if it.err != nil {
		out.HighWatermark, out.LastStableOffset, out.LogStartOffset = -1, -1, -1
		out.PreferredReadReplica = int32(cluster.NoBroker)
	}
	if !it.read.Slice.Empty() {
		out.Records = &it.read.Slice // lives as long as this fetch's items, which the answer keeps
	}
	if d := it.read.Diverging; d != nil {
		out.SetDiverging(d.Epoch, d.EndOffset)
	}
	if f.r.Version >= 16 && (code == kerr.NotLeaderForPartition.Code || code == kerr.FencedLeaderEpoch.Code) {
		told, epoch := it.read.CurrentLeader, it.read.CurrentEpoch
		if h, ok := f.b.leaderHint(it.topic, it.target.partition, told, epoch, f.r.Conn.Listener()); ok {
			out.SetLeader(h.id, h.epoch)
			resp.AddNode(int32(h.id), h.host, h.port, h.rack)
		}
	}
	resp.Add(out)
	return true
}

func abortedOf(aborted []logstore.AbortedTxn) []wire.AbortedTransaction {
	if aborted == nil {
		return nil
	}
	out := make([]wire.AbortedTransaction, len(aborted))
	for i, a := range aborted {
		out[i] = wire.AbortedTransaction{ProducerID: a.ProducerID, FirstOffset: a.FirstOffset}
	}
	return out
}
