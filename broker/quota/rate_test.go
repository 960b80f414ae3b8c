package quota

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestRateSettlesAtWhatIsRecorded(t *testing.T) {
	r, now := NewRate(11, time.Second), time.Unix(1000, 0)
	for range 200 {
		now = now.Add(100 * time.Millisecond)
		r.Record(1000, now)
	}
	require.InEpsilon(t, 10_000, r.PerSecond(now), 0.1)
	require.Zero(t, r.PerSecond(now.Add(12*time.Second)), "what is older than the window does not count")
}

func TestThrottledSenderKeepsTheLimit(t *testing.T) {
	limit := 50_000.0
	th, now := NewThrottle(11, time.Second, func() float64 { return limit }), time.Unix(1000, 0)
	sent := 0
	const seconds = 60
	for range seconds * 100 {
		now = now.Add(10 * time.Millisecond)
		if !th.Exceeded(now) {
			th.Record(10_000, now)
			sent += 10_000
		}
	}
	require.InEpsilon(t, limit, float64(sent)/seconds, 0.25, "one burst of a window at the start, then the limit")
	limit = math.Inf(1)
	require.False(t, th.Exceeded(now))
}

func TestThrottleKnowsItsPartitions(t *testing.T) {
	th := NewThrottle(11, time.Second, func() float64 { return 1 })
	require.False(t, th.Lists("a", 0))
	th.SetTopic("a", false, map[int32]bool{1: true})
	require.False(t, th.Lists("a", 0))
	require.True(t, th.Lists("a", 1))
	th.SetTopic("a", true, nil)
	require.True(t, th.Lists("a", 7))
	th.SetTopic("a", false, nil)
	require.False(t, th.Lists("a", 1))
}
