package groupcoord

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/coordlog"
	"ottla/coordlog/memlog"
	"ottla/internal/cluster"
	"ottla/logstore"
)

func txnCommit(offset int64) *TxnCommit {
	return &TxnCommit{
		Commit: Commit{Group: "g", Generation: -1, Entries: []CommitEntry{
			{TopicPartition: tp("t", 0), Committed: Committed{Offset: offset, LeaderEpoch: -1, ExpireMs: -1}},
		}},
		Producer: coordlog.Producer{ID: 9},
	}
}

// commitInTransaction returns a channel that is closed when the commit is answered.
func (b *bench) commitInTransaction(r *TxnCommit) chan struct{} {
	done := make(chan struct{})
	b.CommitInTransaction(r, func() { close(done) })
	return done
}

// marker appends a marker and tells of it, as the broker does.
func (b *bench) marker(commit bool) {
	m := logstore.EndTxnMarker{ProducerID: 9, Commit: commit}
	b.log.Append(logstore.NewEndTxnBatch(m), coordlog.Append{Epoch: 1}, func(at int64, err error) {
		require.NoError(b.t, err)
		b.EndTransaction(0, m, at)
	})
}

func (b *bench) stable() error {
	fetched, err := b.fetch(&Fetch{Group: "g", Partitions: []cluster.TopicPartition{tp("t", 0)}, RequireStable: true})
	require.NoError(b.t, err)
	return fetched[0].Err
}

func TestOffsetsOfATransactionCountWithItsMarker(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	want := int64(-1)
	for n, commit := range []bool{true, false, true} {
		r := txnCommit(int64(10 * (n + 1)))
		<-b.commitInTransaction(r)
		require.NoError(t, r.Entries[0].Err)
		require.Equal(t, kerr.UnstableOffsetCommit, b.stable())
		require.Equal(t, want, b.offset("g", tp("t", 0)))
		b.marker(commit)
		require.NoError(t, b.stable())
		if commit {
			want = int64(10 * (n + 1))
		}
		require.Equal(t, want, b.offset("g", tp("t", 0)))
	}
	b.Resigned(0)
	b.elect(2)
	require.EqualValues(t, 30, b.offset("g", tp("t", 0)), "after a load")
}

// A producer that gives up waiting can have its transaction ended before its commit is known to be replicated.
func TestAMarkerMayOvertakeTheCommitsAnswer(t *testing.T) {
	for _, commit := range []bool{true, false} {
		b := newBench(t, nil)
		b.elect(1)
		b.log.Hold(true)
		done := b.commitInTransaction(txnCommit(7))
		require.Equal(t, kerr.UnstableOffsetCommit, b.stable())
		b.EndTransaction(0, logstore.EndTxnMarker{ProducerID: 9, Commit: commit}, 1)
		require.Equal(t, kerr.UnstableOffsetCommit, b.stable())
		b.log.Hold(false)
		<-done
		require.NoError(t, b.stable())
		require.Equal(t, map[bool]int64{true: 7, false: -1}[commit], b.offset("g", tp("t", 0)))
	}
}

// slowLog holds the loader up until it is let go.
type slowLog struct {
	*memlog.Log
	reading, proceed chan struct{}
}

func (l *slowLog) Read(offset int64, maxBytes int, buf []byte) ([]byte, error) {
	data, err := l.Log.Read(offset, maxBytes, buf)
	l.reading <- struct{}{}
	<-l.proceed
	return data, err
}

func TestAMarkerThatComesDuringALoadCounts(t *testing.T) {
	b := newBench(t, nil)
	b.elect(1)
	<-b.commitInTransaction(txnCommit(7))
	slow := &slowLog{b.log, make(chan struct{}), make(chan struct{})}
	b.log.SetEpoch(3)
	b.setLeaderEpoch(3)
	b.Elected(0, 3, slow)
	<-slow.reading
	m := logstore.EndTxnMarker{ProducerID: 9, Commit: true}
	_, at := b.log.Bounds()
	b.EndTransaction(0, m, at)
	close(slow.proceed)
	require.Eventually(t, func() bool { _, err := b.usable("g"); return err == nil }, 10*time.Second, time.Millisecond)
	require.Eventually(t, func() bool { return b.stable() == nil }, 10*time.Second, time.Millisecond)
	require.EqualValues(t, 7, b.offset("g", tp("t", 0)))
}

func TestOffsetsInTransactionsAreRefused(t *testing.T) {
	b := newBench(t, nil)
	try := func(r *TxnCommit) error {
		<-b.commitInTransaction(r)
		return r.Entries[0].Err
	}
	require.Equal(t, kerr.NotCoordinator, try(txnCommit(1)))
	b.elect(1)
	nobody := txnCommit(1)
	nobody.Group = ""
	require.Equal(t, kerr.InvalidGroupID, try(nobody))
	stranger := txnCommit(1)
	stranger.MemberID, stranger.Generation = "stranger", 3
	require.Equal(t, kerr.UnknownMemberID, try(stranger))
	large := txnCommit(1)
	large.Entries[0].Metadata = string(make([]byte, 101))
	require.Equal(t, kerr.OffsetMetadataTooLarge, try(large))
	b.log.Refuse(kerr.InvalidTxnState)
	require.Equal(t, kerr.InvalidTxnState, try(txnCommit(1)))
	require.NoError(t, b.stable(), "what failed is not pending")
	b.log.Refuse(nil)
	inZooKeeper := newBench(t, func(o *Options) { o.InZooKeeper = true })
	inZooKeeper.elect(1)
	r := txnCommit(1)
	<-inZooKeeper.commitInTransaction(r)
	require.Equal(t, kerr.UnsupportedVersion, r.Entries[0].Err)
}
