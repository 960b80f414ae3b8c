package wire

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The file has every field of a version set to a value of its own, so that swapped fields show. Fields that a version lacks are in
// the values too (they are the same random fill), and are left out of the comparison by encoding once more.
func TestMessagesBetweenBrokersAreLaidOutAsKafkaDoes(t *testing.T) {
	file, err := os.ReadFile("testdata/kafka39-messages.tsv")
	require.NoError(t, err)
	lines := 0
	for line := range strings.Lines(string(file)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		lines++
		columns := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		key, version := number(t, columns[1]), number(t, columns[2])
		body, err := hex.DecodeString(columns[3])
		require.NoError(t, err)
		fixed := columns[0] == "q" && key == keyStopReplica && version == stopReplicaFixed

		// From values to bytes.
		message := emptyMessage(columns[0], key, version)
		require.NoError(t, json.Unmarshal([]byte(columns[4]), message))
		encoded := message.AppendTo(nil)
		if fixed {
			stopReplicaToKafka(encoded)
		}
		require.Equal(t, hex.EncodeToString(body), hex.EncodeToString(encoded), "%T v%d", message, version)

		// From bytes to values, which encode to the same bytes again.
		decoded := emptyMessage(columns[0], key, version)
		if columns[0] == "q" {
			require.NoError(t, Check(key, version, body))
		}
		if fixed {
			stopReplicaFromKafka(body)
			require.Equal(t, reflect.ValueOf(message).Elem().FieldByName("ControllerEpoch").Int(), int64(2))
		}
		require.NoError(t, decoded.ReadFrom(body))
		if fixed {
			require.EqualValues(t, 2, decoded.(*kmsg.StopReplicaRequest).ControllerEpoch)
		}
		require.Equal(t, body, decoded.AppendTo(nil), "%T v%d", message, version)
	}
	require.Greater(t, lines, 40)
}

type message interface {
	AppendTo([]byte) []byte
	ReadFrom([]byte) error
	SetVersion(int16)
}

func emptyMessage(kind string, key, version int16) (m message) {
	if m = kmsg.RequestForKey(key); kind == "r" {
		m = kmsg.ResponseForKey(key)
	}
	m.SetVersion(version)
	return m
}

func number(t *testing.T, s string) int16 {
	n, err := strconv.Atoi(s)
	require.NoError(t, err)
	return int16(n)
}
