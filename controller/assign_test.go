package controller

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"pgregory.net/rapid"

	"ottla/internal/cluster"
)

// brokersOf reads "1a 2b 3": ids with or without a rack.
func brokersOf(text string) []cluster.Broker {
	var out []cluster.Broker
	for _, f := range strings.Fields(text) {
		var id int32
		var rack string
		_, _ = fmt.Sscanf(f, "%d%s", &id, &rack)
		out = append(out, cluster.Broker{ID: cluster.BrokerID(id), Rack: rack})
	}
	return out
}

// The expected assignments were printed by AdminUtils.assignReplicasToBrokers of Kafka 3.9, with a fixed start index.
func TestAssignReplicasLikeKafka(t *testing.T) {
	for _, c := range []struct {
		brokers                     string
		count, factor, start, first int
		want                        string
	}{
		{"0 1 2 3 4", 12, 3, 0, 0, "0=[0 1 2] 1=[1 2 3] 2=[2 3 4] 3=[3 4 0] 4=[4 0 1] 5=[0 2 3] 6=[1 3 4] 7=[2 4 0] 8=[3 0 1] 9=[4 1 2] 10=[0 3 4] 11=[1 4 0]"},
		{"1 2 3", 7, 2, 1, 0, "0=[2 1] 1=[3 2] 2=[1 3] 3=[2 3] 4=[3 1] 5=[1 2] 6=[2 1]"},
		{"1 2 3 4", 5, 4, 2, 3, "3=[2 1 3 4] 4=[3 4 1 2] 5=[4 1 2 3] 6=[1 2 3 4] 7=[2 3 4 1]"},
		{"7", 2, 1, 0, 0, "0=[7] 1=[7]"},
		{"0rack1 1rack3 2rack3 3rack2 4rack2 5rack1", 7, 3, 0, 0,
			"0=[0 3 1] 1=[3 1 5] 2=[1 5 4] 3=[5 4 2] 4=[4 2 0] 5=[2 0 3] 6=[0 4 2]"},
		{"0rack1 1rack3 2rack3 3rack2 4rack2 5rack1", 13, 4, 3, 0,
			"0=[5 1 4 2] 1=[4 5 2 0] 2=[2 4 0 3] 3=[0 2 3 1] 4=[3 0 1 5] 5=[1 3 5 4] 6=[5 3 1 4] 7=[4 1 5 2] 8=[2 5 4 0] 9=[0 4 2 3] 10=[3 2 0 1] 11=[1 0 3 5] 12=[5 4 2 0]"},
		{"1a 2a 3a 4b", 6, 2, 1, 2, "2=[3 4] 3=[1 4] 4=[4 3] 5=[2 4] 6=[3 4] 7=[1 4]"},
		{"1a 2b 3c 4a 5b", 8, 5, 2, 0,
			"0=[3 1 2 4 5] 1=[4 2 3 5 1] 2=[5 3 4 1 2] 3=[1 5 3 4 2] 4=[2 1 3 4 5] 5=[3 5 1 2 4] 6=[4 2 3 5 1] 7=[5 3 4 1 2]"},
	} {
		got, err := AssignReplicas(brokersOf(c.brokers), c.count, c.factor, int32(c.first), Placement{First: c.start, Shift: c.start})
		require.NoError(t, err)
		var texts []string
		for number := c.first; number < c.first+c.count; number++ {
			texts = append(texts, fmt.Sprintf("%d=%v", number, got[int32(number)]))
		}
		require.Equal(t, c.want, strings.Join(texts, " "), c.brokers)
	}
}

func TestAssignReplicasSpreadsEvenly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "brokers")
		racks := rapid.IntRange(0, n).Draw(t, "racks")
		factor := rapid.IntRange(1, n).Draw(t, "factor")
		count := rapid.IntRange(1, 40).Draw(t, "count")
		var brokers []cluster.Broker
		for i := range n {
			b := cluster.Broker{ID: cluster.BrokerID(i * 3)}
			if racks > 0 {
				b.Rack = fmt.Sprint("rack", i%racks)
			}
			brokers = append(brokers, b)
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		got, err := AssignReplicas(brokers, count, factor, 0, RandomPlacement(rng, n))
		require.NoError(t, err)
		leaders := map[cluster.BrokerID]int{}
		for number, ids := range got {
			require.Len(t, ids, factor)
			require.False(t, hasDuplicates(ids), "%d %v", number, ids)
			leaders[ids[0]]++
			used := map[int]bool{}
			for _, id := range ids {
				if racks > 0 {
					used[int(id)/3%racks] = true
				}
			}
			if racks > 0 {
				require.Len(t, used, min(factor, racks))
			}
		}
		for _, led := range leaders {
			require.LessOrEqual(t, led, (count+n-1)/n)
		}
	})
}

func TestAssignReplicasRefusals(t *testing.T) {
	for _, c := range []struct {
		brokers       string
		count, factor int
		want          *kerr.Error
	}{
		{"1 2", 0, 1, kerr.InvalidPartitions},
		{"1 2", 1, 0, kerr.InvalidReplicationFactor},
		{"1 2", 1, 3, kerr.InvalidReplicationFactor},
		{"", 1, 1, kerr.InvalidReplicationFactor},
		{"1a 2", 1, 1, kerr.UnknownServerError},
	} {
		_, err := AssignReplicas(brokersOf(c.brokers), c.count, c.factor, 0, Placement{})
		require.ErrorIs(t, err, c.want)
	}
}

func TestCheckTopicName(t *testing.T) {
	for _, name := range []string{"a", "A.b_c-9", strings.Repeat("x", 249)} {
		require.NoError(t, CheckTopicName(name))
	}
	for _, name := range []string{"", ".", "..", "a b", "ä", "a/b", "a\x00", strings.Repeat("x", 250)} {
		require.ErrorIs(t, CheckTopicName(name), kerr.InvalidTopicException, "%q", name)
	}
}
