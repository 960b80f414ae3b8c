package logstore

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestTxnIndexAppearsWithItsFirstEntry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "00000000000000000100.txnindex")
	x, err := OpenTxnIndex(OSFS, path)
	require.NoError(t, err)
	entries, err := x.Entries()
	require.NoError(t, err)
	require.Empty(t, entries)
	require.NoError(t, x.Sync())
	require.NoError(t, x.TruncateTo(0))
	_, err = os.Stat(path)
	require.ErrorIs(t, err, os.ErrNotExist)

	want := []AbortedTxn{{ProducerID: 1, FirstOffset: 90, LastOffset: 110, LastStableOffset: 95}, {ProducerID: 2, FirstOffset: 95, LastOffset: 120, LastStableOffset: 121}}
	for _, a := range want {
		require.NoError(t, x.Append(a))
	}
	require.ErrorIs(t, x.Append(want[0]), ErrCorrupt, "entries ascend")
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, int64(2*txnEntryBytes), info.Size())
	require.NoError(t, x.Sync())
	require.NoError(t, x.Close())

	x, err = OpenTxnIndex(OSFS, path)
	require.NoError(t, err)
	entries, err = x.Entries()
	require.NoError(t, err)
	require.Equal(t, want, entries)
	require.Equal(t, 2, x.Len())
	require.NoError(t, x.Check(100))
	require.ErrorIs(t, x.Check(111), ErrCorrupt)

	some, complete, err := x.Collect(nil, 111, 200)
	require.NoError(t, err)
	require.False(t, complete)
	require.Equal(t, want[1:], some)
	some, complete, err = x.Collect(nil, 90, 95)
	require.NoError(t, err)
	require.True(t, complete, "nothing later can concern offsets below the last stable offset")
	require.Equal(t, want[:1], some)

	require.NoError(t, x.TruncateTo(120))
	require.Equal(t, 1, x.Len())
	require.NoError(t, x.Append(AbortedTxn{ProducerID: 3, FirstOffset: 111, LastOffset: 115, LastStableOffset: 116}))
	require.NoError(t, x.Reset())
	require.Zero(t, x.Len())
	require.NoError(t, x.Close())
}

func FuzzTxnIndex(f *testing.F) {
	f.Add(AbortedTxn{ProducerID: 1, FirstOffset: 90, LastOffset: 110, LastStableOffset: 95}.appendTo(nil))
	f.Fuzz(func(t *testing.T, data []byte) {
		entries, err := parseTxnEntries(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) {
				t.Fatalf("unexpected error %v", err)
			}
			return
		}
		var again []byte
		for _, a := range entries {
			again = a.appendTo(again)
		}
		require.Equal(t, len(data), len(again))
	})
}
