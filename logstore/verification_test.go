package logstore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
)

// txnBatch is a transactional batch of one record.
func txnBatch(t *testing.T, producer int64, epoch int16, sequence int32, at int64) Batch {
	t.Helper()
	o := PlainBatch()
	o.BaseOffset, o.ProducerID, o.ProducerEpoch, o.BaseSequence, o.Transactional = at, producer, epoch, sequence, true
	bd := NewBuilder(o)
	require.NoError(t, bd.AppendNext(1, nil, []byte("v")))
	b, err := bd.Finish()
	require.NoError(t, err)
	return b
}

func marker(producer int64, epoch int16, commit bool, coordinator int32, at int64) Batch {
	b := NewEndTxnBatch(EndTxnMarker{ProducerID: producer, ProducerEpoch: epoch, Commit: commit, CoordinatorEpoch: coordinator})
	b.SetBaseOffset(at)
	return b
}

func TestATransactionBeginsOnlyWithItsGuard(t *testing.T) {
	s := NewProducerState()
	var u ProducerUpdate
	begin := func(epoch int16, sequence int32) Guard { return s.verifying.begin(7, epoch, sequence, time.Unix(0, 0)) }
	try := func(b Batch, origin Origin, g Guard) error {
		if err := s.PrepareGuarded(&u, b, origin, g); err != nil {
			return err
		}
		s.Commit(&u)
		return nil
	}
	unguarded := Guard{Required: true}
	require.ErrorIs(t, try(txnBatch(t, 7, 0, 0, 0), OriginClient, unguarded), kerr.InvalidTxnState)
	require.ErrorIs(t, try(txnBatch(t, 7, 0, 0, 0), OriginCoordinator, unguarded), kerr.InvalidTxnState)
	require.NoError(t, try(txnBatch(t, 9, 0, 0, 0), OriginReplication, unguarded), "what the leader has is taken")
	require.NoError(t, try(txnBatch(t, 11, 0, 0, 0), OriginClient, Guard{}), "nothing is demanded")

	g := begin(0, 0)
	require.Equal(t, g, begin(0, 1), "one question is one guard")
	require.ErrorIs(t, try(txnBatch(t, 7, 0, 1, 10), OriginClient, g), kerr.OutOfOrderSequenceNumber, "its predecessor is on its way")
	require.NoError(t, try(txnBatch(t, 7, 0, 0, 10), OriginClient, g))
	require.NoError(t, try(txnBatch(t, 7, 0, 1, 11), OriginClient, unguarded), "the transaction is open here")
	require.NoError(t, try(marker(7, 0, false, 0, 12), OriginCoordinator, Guard{}))
	require.ErrorIs(t, try(txnBatch(t, 7, 0, 2, 13), OriginClient, unguarded), kerr.InvalidTxnState)

	late := begin(0, 2)
	require.NoError(t, try(marker(7, 1, false, 0, 13), OriginCoordinator, Guard{}))
	require.ErrorIs(t, try(txnBatch(t, 7, 1, 0, 14), OriginClient, late), kerr.InvalidTxnState, "the answer came after the end")
	again := begin(1, 0)
	require.NotEqual(t, late, again)
	require.ErrorIs(t, try(txnBatch(t, 7, 1, 0, 14), OriginClient, late), kerr.InvalidTxnState)
	require.NoError(t, try(txnBatch(t, 7, 1, 0, 14), OriginClient, again))
	require.NoError(t, s.PrepareGuarded(&u, txnBatch(t, 7, 1, 0, 14), OriginClient, unguarded), "a repeated batch is found before anything is asked")
	require.True(t, u.IsDuplicate)

	begin(3, 5)
	s.verifying.expire(time.Unix(10, 0), 10*time.Second)
	require.Empty(t, s.verifying)
}
