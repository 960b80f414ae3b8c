package groupcoord

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/coordlog"
	"ottla/internal/cluster"
	"ottla/logstore"
	"ottla/zkcoord"
)

func TestPartitionOfIsJavasHash(t *testing.T) {
	for group, want := range map[string]int32{
		"my-group": 12, "test-group": 12, "my-txn-id": 11, "polygenelubricants": 0, "группа-1": 0, "😀-group": 43, "": 0,
	} {
		require.Equal(t, want, coordlog.PartitionOf(group, 50), group)
	}
}

// consumer_offsets.log was written by Kafka 3.9: a static member joined golden-group, committed twice and stayed; a simple
// group committed once; to-delete was deleted; retained committed with version 3 and a retention of its own; the one member
// of emptied left.
func TestRecordsOfKafkaAreReadAndWrittenByteForByte(t *testing.T) {
	data, err := os.ReadFile("testdata/consumer_offsets.log")
	require.NoError(t, err)
	records := 0
	for rest := data; len(rest) > 0; {
		batch, after, err := logstore.NextBatch(rest)
		require.NoError(t, err)
		rest = after
		for r, err := range batch.Records() {
			require.NoError(t, err)
			records++
			k, known, err := decodeKey(r.Key)
			require.NoError(t, err)
			require.True(t, known)
			if k.offset {
				require.Equal(t, r.Key, offsetKey(k.group, k.tp))
				if r.Value != nil {
					c, err := decodeOffset(r.Value)
					require.NoError(t, err)
					require.Equal(t, r.Value, offsetValue(&c))
				}
				continue
			}
			require.Equal(t, r.Key, groupKey(k.group))
			v, err := decodeGroup(r.Value)
			require.NoError(t, err)
			g := newGroup(k.group, &Limits{MaxSize: 10}, randomID, time.Now())
			g.restore(v, time.Now())
			require.Equal(t, r.Value, g.record(nil))
		}
	}
	require.Equal(t, 9, records)
}

func TestGroupsOfKafkaGoOn(t *testing.T) {
	data, err := os.ReadFile("testdata/consumer_offsets.log")
	require.NoError(t, err)
	b := newBench(t, nil)
	b.log.SetData(data, 9)
	b.elect(4)
	require.Equal(t, "Stable", b.state("golden-group"))
	require.Equal(t, "Empty", b.state("emptied"))
	require.Equal(t, "Empty", b.state("simple-ünïcode-😀"))
	require.Equal(t, "Dead", b.state("to-delete"))
	fetched, err := b.fetch(&Fetch{Group: "golden-group", All: true})
	require.NoError(t, err)
	require.Equal(t, []Fetched{
		{TopicPartition: tp("orders", 0), Offset: 42, LeaderEpoch: 7, Metadata: "up to here"},
		{TopicPartition: tp("orders", 1), Offset: 43, LeaderEpoch: -1},
	}, fetched)
	d, err := b.Describe("golden-group")
	require.NoError(t, err)
	require.Equal(t, "assignment", string(d.Members[0].Assignment))
	require.NoError(t, b.Heartbeat("golden-group", d.Members[0].ID, d.Members[0].Instance, 1))
}

func TestCommitsAndGroupsSurviveAChangeOfLeader(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	id, gen := b.join("g")
	require.Equal(t, []error{nil, nil}, b.commit("simple", 5, tp("t", 0), tp("t", 1)))
	require.Equal(t, []error{kerr.UnknownMemberID}, b.commit("g", 5, tp("t", 0)))

	b.Resigned(0)
	_, err := b.usable("g")
	require.Equal(t, kerr.NotCoordinator, err)
	require.Equal(t, []error{kerr.NotCoordinator}, b.commit("simple", 6, tp("t", 0)))

	b.elect(2)
	require.Equal(t, "Stable", b.state("g"))
	require.NoError(t, b.Heartbeat("g", id, nil, gen))
	require.EqualValues(t, 5, b.offset("simple", tp("t", 1)))
	require.EqualValues(t, -1, b.offset("simple", tp("t", 9)))
}

func TestOffsetsAreSeenOnlyOnceTheyAreCommitted(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	b.commit("g", 1, tp("t", 0))
	b.log.Hold(true)
	done := make(chan []error, 1)
	go func() { done <- b.commit("g", 2, tp("t", 0)) }()
	unstable := func() bool {
		fetched, err := b.fetch(&Fetch{Group: "g", Partitions: []cluster.TopicPartition{tp("t", 0)}, RequireStable: true})
		return err == nil && fetched[0].Err == kerr.UnstableOffsetCommit
	}
	require.Eventually(t, unstable, time.Second, time.Millisecond)
	require.EqualValues(t, 1, b.offset("g", tp("t", 0)))
	b.log.Hold(false)
	require.Equal(t, []error{nil}, <-done)
	require.EqualValues(t, 2, b.offset("g", tp("t", 0)))
	require.False(t, unstable())
}

func TestWhoeverWaitsIsToldOfTheResignation(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	id, gen := b.join("g")
	joined := make(chan JoinResult, 1)
	b.Join(&Join{Group: "g", ClientID: "d", ProtocolType: "consumer", SessionTimeout: 10 * time.Second, RebalanceTimeout: time.Minute,
		Protocols: []Protocol{{"range", nil}}}, func(r JoinResult) { joined <- r })
	require.Equal(t, kerr.RebalanceInProgress, b.Heartbeat("g", id, nil, gen))
	b.log.Hold(true)
	committed := make(chan []error, 1)
	go func() { committed <- b.commit("other", 2, tp("t", 0)) }()
	require.Eventually(t, func() bool { return b.log.Waiting() > 0 }, time.Second, time.Millisecond)
	b.Resigned(0)
	require.Equal(t, kerr.NotCoordinator, (<-joined).Err)
	b.log.Hold(false)
	<-committed
}

func TestLoadThatFailsIsTriedAgain(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	b.commit("g", 5, tp("t", 0))
	b.Resigned(0)
	good := b.log.Data()
	_, end := b.log.Bounds()
	b.log.SetData(good[:len(good)-3], end) // the disk gives less than the log should have
	b.setLeaderEpoch(3)
	b.log.SetEpoch(3)
	b.Elected(0, 3, b.log)
	time.Sleep(50 * time.Millisecond)
	_, err := b.fetch(&Fetch{Group: "g", All: true})
	require.Equal(t, kerr.CoordinatorLoadInProgress, err, "better no answer than no offsets")
	b.log.SetData(good, end)
	require.Eventually(t, func() bool {
		fetched, err := b.fetch(&Fetch{Group: "g", All: true})
		return err == nil && len(fetched) == 1 && fetched[0].Offset == 5
	}, 5*time.Second, 10*time.Millisecond)
}

func TestLostLeaseEndsEverything(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	id, gen := b.join("g")
	b.lease = false
	require.Equal(t, kerr.NotCoordinator, b.Heartbeat("g", id, nil, gen))
	require.Equal(t, []error{kerr.NotCoordinator}, b.commit("g", 1, tp("t", 0)))
	_, err := b.fetch(&Fetch{Group: "g", All: true})
	require.Equal(t, kerr.NotCoordinator, err)
}

func TestLateAppendOfAnOldEpochIsRefused(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	b.join("g")
	b.log.SetEpoch(2) // another broker led meanwhile, and nobody told us
	require.Equal(t, []error{kerr.NotCoordinator}, b.commit("simple", 1, tp("t", 0)))
	require.EqualValues(t, -1, b.offset("simple", tp("t", 0)))
}

func TestSessionsExpireByTheOneTimer(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	id, gen := b.join("g")
	b.pass(9 * time.Second)
	require.NoError(t, b.Heartbeat("g", id, nil, gen))
	b.pass(9 * time.Second)
	time.Sleep(20 * time.Millisecond)
	require.Equal(t, "Stable", b.state("g"))
	b.pass(2 * time.Second)
	require.Eventually(t, func() bool { return b.state("g") == "Empty" }, time.Second, time.Millisecond)
	require.Equal(t, kerr.UnknownMemberID, b.Heartbeat("g", id, nil, gen))
}

func TestOffsetsAndGroupsExpire(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	id, gen := b.join("g")
	commit := &Commit{Group: "g", MemberID: id, Generation: gen}
	for _, topic := range []string{"t", "unsubscribed"} {
		commit.Entries = append(commit.Entries, CommitEntry{TopicPartition: tp(topic, 0), Committed: Committed{Offset: 1, CommitMs: b.now().UnixMilli(), ExpireMs: -1}})
	}
	b.Commit(commit, func() {})
	b.commit("simple", 1, tp("t", 0))
	b.pass(9 * time.Second)
	require.NoError(t, b.Heartbeat("g", id, nil, gen))
	b.pass(time.Second)
	b.Expire(b.now())
	require.EqualValues(t, 1, b.offset("g", tp("unsubscribed", 0)))

	// The group stays, with what it subscribes to. (Its session would be over; the timer is not asked.)
	b.Expire(b.now().Add(time.Hour))
	require.EqualValues(t, -1, b.offset("g", tp("unsubscribed", 0)))
	require.EqualValues(t, 1, b.offset("g", tp("t", 0)))
	require.Equal(t, "Dead", b.state("simple"))

	_, err := b.Leave("g", []Leaving{{MemberID: id}})
	require.NoError(t, err)
	b.Expire(b.now().Add(59 * time.Minute))
	require.EqualValues(t, 1, b.offset("g", tp("t", 0)))
	b.Expire(b.now().Add(time.Hour))
	require.Equal(t, "Dead", b.state("g"))

	b.Resigned(0)
	b.elect(2)
	list, err := b.List(nil)
	require.NoError(t, err)
	require.Empty(t, list, "the tombstones are in the log")
}

func TestDeletedGroupsStayDeleted(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	id, _ := b.join("g")
	require.Equal(t, kerr.NonEmptyGroup, b.delete("g"))
	_, err := b.Leave("g", []Leaving{{MemberID: id}})
	require.NoError(t, err)
	b.commit("g", 7, tp("t", 0), tp("t", 1))
	require.NoError(t, b.delete("g"))
	require.Equal(t, kerr.GroupIDNotFound, b.delete("g"))
	b.Resigned(0)
	b.elect(2)
	require.Equal(t, "Dead", b.state("g"))
	require.EqualValues(t, -1, b.offset("g", tp("t", 0)))
}

func TestOffsetsOfDeletedTopicsGo(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	b.commit("g", 7, tp("t", 0), tp("u", 0))
	b.TopicsDeleted([]cluster.TopicPartition{tp("t", 0)})
	b.Resigned(0)
	b.elect(2)
	require.EqualValues(t, -1, b.offset("g", tp("t", 0)))
	require.EqualValues(t, 7, b.offset("g", tp("u", 0)))
}

func TestManyCommitsShareAppends(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	var wg sync.WaitGroup
	for n := range 50 {
		wg.Go(func() {
			for i := range 20 {
				require.Equal(t, []error{nil}, b.commit(fmt.Sprint("g", n), int64(i), tp("t", 0)))
			}
		})
	}
	wg.Wait()
	b.Resigned(0)
	b.elect(2)
	for n := range 50 {
		require.EqualValues(t, 19, b.offset(fmt.Sprint("g", n), tp("t", 0)))
	}
}

func TestOversizedTogetherFitsOneByOne(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	b.log.Refuse(kerr.MessageTooLarge)
	require.Equal(t, []error{kerr.InvalidCommitOffsetSize}, b.commit("g", 1, tp("t", 0)))
}

func TestTransactionalOffsetsWaitForTheirMarker(t *testing.T) {
	b := newBench(t, nil)
	txn := logstore.PlainBatch()
	txn.ProducerID, txn.ProducerEpoch, txn.BaseSequence, txn.Transactional = 9, 0, 0, true
	add := func(o logstore.BatchOptions, offset int64) {
		bd := logstore.NewBuilder(o)
		c := Committed{Offset: offset, LeaderEpoch: -1, ExpireMs: -1}
		require.NoError(t, bd.AppendNext(1, offsetKey("g", tp("t", 0)), offsetValue(&c)))
		batch, err := bd.Finish()
		require.NoError(t, err)
		b.log.Append(batch, coordlog.Append{}, func(int64, error) {})
	}
	marker := func(commit bool) {
		b.log.Append(logstore.NewEndTxnBatch(logstore.EndTxnMarker{ProducerID: 9, Commit: commit}), coordlog.Append{}, func(int64, error) {})
	}
	add(logstore.PlainBatch(), 1)
	add(txn, 2)
	marker(true)
	add(txn, 3)
	marker(false)
	add(txn, 4)
	add(logstore.PlainBatch(), 5)
	b.elect(1)
	require.EqualValues(t, 5, b.offset("g", tp("t", 0)))
	fetched, err := b.fetch(&Fetch{Group: "g", Partitions: []cluster.TopicPartition{tp("t", 0)}, RequireStable: true})
	require.NoError(t, err)
	require.Equal(t, kerr.UnstableOffsetCommit, fetched[0].Err)
	b.EndTransaction(0, logstore.EndTxnMarker{ProducerID: 9, Commit: true}, 99)
	require.EqualValues(t, 5, b.offset("g", tp("t", 0)), "the plain commit is newer")
}

func TestOffsetsInZooKeeper(t *testing.T) {
	b := newBench(t, func(o *Options) { o.InZooKeeper = true })
	b.elect(1)
	require.Equal(t, []error{nil, nil}, b.commit("g", 12, tp("t", 0), tp("t", 1)))
	data, _, err := b.session.Get("/consumers/g/offsets/t/1")
	require.NoError(t, err)
	require.Equal(t, "12", string(data))
	require.Zero(t, b.log.Appends())

	// An old consumer's commit is seen.
	_, err = b.session.Set("/consumers/g/offsets/t/1", []byte("30"), -1)
	require.NoError(t, err)
	require.EqualValues(t, 30, b.offset("g", tp("t", 1)))
	fetched, err := b.fetch(&Fetch{Group: "g", All: true})
	require.NoError(t, err)
	require.Len(t, fetched, 2)

	// Another coordinator knows the group, and can delete it.
	b.Resigned(0)
	b.elect(2)
	require.Equal(t, "Empty", b.state("g"))
	b.Expire(b.now().Add(1000 * time.Hour))
	require.EqualValues(t, 12, b.offset("g", tp("t", 0)), "nothing expires there")
	require.NoError(t, b.delete("g"))
	_, _, err = b.session.Get("/consumers/g")
	require.Error(t, err)

	b.commit("g", 1, tp("t", 0))
	b.session.Expire()
	require.Equal(t, []error{kerr.NotCoordinator}, b.commit("g", 2, tp("t", 0)))
}

func TestLateCommitToZooKeeperIsFenced(t *testing.T) {
	b := newBench(t, func(o *Options) { o.InZooKeeper = true })
	b.elect(1)
	require.Equal(t, []error{nil}, b.commit("g", 5, tp("t", 0)))
	b.setLeaderEpoch(1) // the in-sync set changed: another version, the same leader
	require.Equal(t, []error{nil, nil}, b.commit("g", 6, tp("t", 0), tp("t", 1)))
	b.setLeaderEpoch(2) // another broker leads, and nobody has told us
	require.Equal(t, []error{kerr.NotCoordinator}, b.commit("g", 7, tp("t", 0)))
	data, _, err := b.session.Get("/consumers/g/offsets/t/0")
	require.NoError(t, err)
	require.Equal(t, "6", string(data))
}

func TestOddGroupNamesCannotReachOtherZnodes(t *testing.T) {
	b := newBench(t, func(o *Options) { o.InZooKeeper = true })
	b.elect(1)
	for _, name := range []string{"a/b", "..", "."} {
		require.Equal(t, []error{kerr.InvalidGroupID}, b.commit(name, 1, tp("t", 0)), name)
	}
}

func TestDualCommitsGoToBoth(t *testing.T) {
	for _, primary := range []bool{false, true} {
		b := newBench(t, func(o *Options) { o.InZooKeeper, o.Dual = primary, true })
		b.elect(1)
		require.Equal(t, []error{nil}, b.commit("g", 3, tp("t", 0)))
		require.Equal(t, 1, b.log.Appends())
		data, _, err := b.session.Get("/consumers/g/offsets/t/0")
		require.NoError(t, err)
		require.Equal(t, "3", string(data))
		require.EqualValues(t, 3, b.offset("g", tp("t", 0)))
	}
}

func TestDualOffsetsAreDeletedFromBoth(t *testing.T) {
	for _, primary := range []bool{false, true} {
		b := newBench(t, func(o *Options) { o.InZooKeeper, o.Dual = primary, true })
		b.elect(1)
		b.commit("gone", 3, tp("t", 0))
		b.commit("kept", 3, tp("t", 0), tp("u", 0))
		b.Resigned(0)
		b.elect(2) // the next coordinator has only read the topic
		require.NoError(t, b.delete("gone"))
		_, _, err := b.session.Get("/consumers/gone")
		require.ErrorIs(t, err, zkcoord.ErrNoNode)
		b.TopicsDeleted([]cluster.TopicPartition{tp("t", 0)})
		require.Eventually(t, func() bool {
			_, _, err := b.session.Get("/consumers/kept/offsets/t/0")
			return errors.Is(err, zkcoord.ErrNoNode)
		}, 10*time.Second, time.Millisecond)
		require.EqualValues(t, -1, b.offset("kept", tp("t", 0)))
		require.EqualValues(t, 3, b.offset("kept", tp("u", 0)))
		done := make(chan []error, 1)
		b.DeleteOffsets("kept", []cluster.TopicPartition{tp("u", 0)}, func(each []error, err error) {
			require.NoError(t, err)
			done <- each
		})
		require.Equal(t, []error{nil}, <-done)
		require.EqualValues(t, -1, b.offset("kept", tp("u", 0)))
	}
}

// A group whose id cannot be a znode's name still commits to the topic; only with ZooKeeper as the storage it is refused.
func TestDualCommitOfAnOddNameGoesToTheTopic(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Dual = true })
	b.elect(1)
	require.Equal(t, []error{nil}, b.commit("a/b", 3, tp("t", 0)))
	require.EqualValues(t, 3, b.offset("a/b", tp("t", 0)))
	require.NoError(t, b.delete("a/b"))
}

func TestDualGroupsExpireWithTheTopicsOffsets(t *testing.T) {
	b := newBench(t, func(o *Options) { o.Dual = true })
	b.elect(1)
	b.commit("g", 3, tp("t", 0))
	b.Expire(b.now().Add(2 * time.Hour))
	require.Equal(t, "Dead", b.state("g"))
}

func TestFailedDeletionFromZooKeeperIsTold(t *testing.T) {
	b := newBench(t, func(o *Options) { o.InZooKeeper = true })
	b.elect(1)
	b.commit("g", 3, tp("t", 0))
	b.session.Expire()
	done := make(chan []error, 1)
	b.DeleteOffsets("g", []cluster.TopicPartition{tp("t", 0)}, func(each []error, _ error) { done <- each })
	require.Equal(t, []error{kerr.NotCoordinator}, <-done)
}

// What the former leader wrote may not be in all in-sync replicas yet. It is not told before it is: it could still go.
func TestLoadWaitsUntilWhatWasReadIsCommitted(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	require.Equal(t, []error{nil}, b.commit("g", 5, tp("t", 0)))
	b.log.Hold(true)
	committed := make(chan struct{})
	r := &Commit{Group: "g", Generation: -1, Entries: []CommitEntry{{TopicPartition: tp("t", 0), Committed: Committed{Offset: 6, ExpireMs: -1}}}}
	b.Commit(r, func() { close(committed) })
	b.log.SetEpoch(3)
	b.Elected(0, 3, b.log)
	time.Sleep(4 * 5 * time.Millisecond)
	_, err := b.fetch(&Fetch{Group: "g", All: true})
	require.Equal(t, kerr.CoordinatorLoadInProgress, err)
	b.log.Hold(false)
	<-committed
	require.Eventually(t, func() bool {
		_, err := b.fetch(&Fetch{Group: "g", All: true})
		return err == nil
	}, 10*time.Second, time.Millisecond)
	require.EqualValues(t, 6, b.offset("g", tp("t", 0)))
}

// An id that was given out and never used outlives the deletion of its group; nobody may be woken for it for ever.
func TestDeletedGroupAsksForNothing(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	joined := make(chan JoinResult, 1)
	b.Join(&Join{
		Group: "g", ClientID: "c", ProtocolType: "consumer", SessionTimeout: 10 * time.Second, RebalanceTimeout: time.Second,
		Protocols: []Protocol{{"range", nil}}, RequireMemberID: true,
	}, func(r JoinResult) { joined <- r })
	require.Equal(t, kerr.MemberIDRequired, (<-joined).Err)
	s, err := b.usable("g")
	require.NoError(t, err)
	e := s.get("g")
	require.NoError(t, b.delete("g"))
	e.mu.Lock()
	defer e.mu.Unlock()
	require.Zero(t, e.mu.group.nextDeadline())
}

func TestPendingIDsAreBounded(t *testing.T) {
	g := newGroup("g", &Limits{SessionTimeoutMax: time.Hour, MaxSize: 10}, randomID, time.Unix(0, 0))
	var first string
	for i := range pendingMax + 10 {
		d := decision{now: time.Unix(int64(i), 0)}
		g.join(&d, &Join{
			Group: "g", ProtocolType: "consumer", SessionTimeout: time.Hour, Protocols: []Protocol{{"range", nil}}, RequireMemberID: true,
		}, func(r JoinResult) {
			require.Equal(t, kerr.MemberIDRequired, r.Err)
			if first == "" {
				first = r.MemberID
			}
		})
		d.deliver()
	}
	require.Len(t, g.pending, pendingMax)
	require.NotContains(t, g.pending, first)
}

func TestSnapshotsShowGroups(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	b.join("g")
	b.commit("simple", 40, tp("t", 0), tp("elsewhere", 0))
	got := map[string]Snapshot{}
	for _, s := range b.Snapshots() {
		got[s.Group] = s
	}
	require.Len(t, got, 2)
	require.Equal(t, Stable, got["g"].State)
	require.Equal(t, 1, got["g"].Members)
	require.EqualValues(t, 1, got["g"].Generation)
	require.ElementsMatch(t, []CommittedOffset{{tp("t", 0), 40}, {tp("elsewhere", 0), 40}}, got["simple"].Offsets)
}

// TestHundredThousandOffsetsLoadQuickly: the time that a fail-over may take is two seconds.
func TestHundredThousandOffsetsLoadQuickly(t *testing.T) {
	b := newBench(t, func(o *Options) { o.LoadBytes = 5 << 20 })
	b.elect(1)
	const groups, partitions = 1000, 100
	tps := make([]cluster.TopicPartition, partitions)
	for p := range tps {
		tps[p] = tp("a-topic-with-a-usual-name", int32(p))
	}
	for g := range groups {
		b.commit(fmt.Sprint("group-", g), 1, tps...)
	}
	b.Resigned(0)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	b.elect(2)
	took := time.Since(began)
	runtime.GC()
	runtime.ReadMemStats(&after)
	t.Logf("%d offsets of %d groups loaded in %s, %d bytes each", groups*partitions, groups, took, (after.HeapAlloc-before.HeapAlloc)/(groups*partitions))
	require.EqualValues(t, 1, b.offset("group-999", tps[99]))
}

// The controller raises the leader epoch when it takes a dead follower out of the in-sync set.
func TestGroupsGoOnWhenAFollowerLeaves(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	id, gen := b.join("g")
	b.log.SetEpoch(2)
	b.setLeaderEpoch(2)
	b.Elected(0, 2, b.log)
	require.NoError(t, b.Heartbeat("g", id, nil, gen), "nothing is loaded anew")
	r := &Commit{
		Group: "g", MemberID: id, Generation: gen,
		Entries: []CommitEntry{{TopicPartition: tp("t", 0), Committed: Committed{Offset: 6, ExpireMs: -1}}},
	}
	done := make(chan struct{})
	b.Commit(r, func() { close(done) })
	<-done
	require.NoError(t, r.Entries[0].Err, "and appends carry the new epoch")
	require.EqualValues(t, 6, b.offset("g", tp("t", 0)))
}

// Whoever takes over a partition reads after the commit that its predecessor has under way.
func TestReadersOfZooKeeperWaitForTheCommitsBeforeThem(t *testing.T) {
	q := &zkQueue{}
	require.False(t, q.readAfter(nil), "nothing to wait for")
	q.enqueue(&pendingCommit{}, nil)
	read := false
	require.True(t, q.readAfter(func() { read = true }))
	q.enqueue(&pendingCommit{}, nil)
	require.NotNil(t, q.take(false)[0].p)
	require.True(t, q.readAfter(func() {}), "one is being written")
	head := q.take(true)
	require.Len(t, head, 1)
	head[0].read()
	require.True(t, read)
	require.Len(t, q.take(true), 1)
	require.Len(t, q.take(true), 1)
	require.Empty(t, q.take(true))
	require.False(t, q.readAfter(nil))
}
