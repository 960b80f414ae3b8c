package txncoord

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"ottla/logstore"
)

// transaction_state-0.log and -1.log were written by Kafka 3.9: two producers of franz-go, golden and golden-ünïcode-😀, had three
// transactions each over two topics of two partitions: committed, aborted, committed; the last one of the second stayed open.
func TestRecordsOfKafkaAreReadAndWrittenByteForByte(t *testing.T) {
	last := map[string]image{}
	states := map[State]int{}
	for _, file := range []string{"testdata/transaction_state-0.log", "testdata/transaction_state-1.log"} {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		for rest := data; len(rest) > 0; {
			batch, after, err := logstore.NextBatch(rest)
			require.NoError(t, err)
			rest = after
			for r, err := range batch.Records() {
				require.NoError(t, err)
				id, known, err := decodeKey(r.Key)
				require.NoError(t, err)
				require.True(t, known)
				require.Equal(t, r.Key, encodeKey(id))
				i, err := decodeImage(r.Value)
				require.NoError(t, err)
				states[i.state]++
				last[id] = i
				again := encodeImage(&i)
				require.Len(t, again, len(r.Value))
				if topics(&i) < 2 { // more are in no order
					require.Equal(t, r.Value, again)
				}
			}
		}
	}
	require.Len(t, last, 2)
	require.Equal(t, CompleteCommit, last["golden"].state)
	open := last["golden-ünïcode-😀"]
	require.Equal(t, Ongoing, open.state)
	require.True(t, open.holds(open.partitions.sorted()))
	require.EqualValues(t, 50_000, open.timeoutMs)
	for _, s := range []State{Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort} {
		require.NotZero(t, states[s], s)
	}
}

func topics(i *image) int {
	names := map[string]bool{}
	for tp := range i.partitions {
		names[tp.Topic] = true
	}
	return len(names)
}

func TestTransactionsOfKafkaGoOn(t *testing.T) {
	for n, file := range []string{"testdata/transaction_state-0.log", "testdata/transaction_state-1.log"} {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		end := int64(0)
		for rest := data; len(rest) > 0; {
			batch, after, err := logstore.NextBatch(rest)
			require.NoError(t, err)
			rest, end = after, batch.NextOffset()
		}
		b := newBench(t)
		b.log.SetData(data, end)
		b.elect(1)
		for id := range b.Count() {
			t.Logf("file %d: %s", n, id)
		}
		for _, id := range []string{"golden", "golden-ünïcode-😀"} {
			if b.state(id) == "TRANSACTIONAL_ID_NOT_FOUND" {
				continue
			}
			d, err := b.Describe(id)
			require.NoError(t, err)
			if d.State == "Ongoing" {
				require.NoError(t, b.end(id, d.Producer, true))
				b.becomes(id, "CompleteCommit")
			}
			next, err := b.init(id, nil)
			require.NoError(t, err)
			require.Equal(t, Producer{d.ID, d.Epoch + 1}, next)
		}
	}
}
