package scrape

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestBucketsAreCloseToWhatTheyHold(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, int64(4*time.Hour)).Draw(t, "d"))
		m := middleOf(bucketOf(d))
		if off := (m - d).Abs(); off > time.Microsecond && float64(off) > 0.07*float64(d) {
			t.Fatalf("%v is told as %v", d, m)
		}
	})
	require.Equal(t, buckets-1, bucketOf(1000*time.Hour))
	require.Equal(t, 0, bucketOf(-time.Second))
	last := -1
	for us := range 1 << 16 {
		b := bucketOf(time.Duration(us) * time.Microsecond)
		require.GreaterOrEqual(t, b, last)
		require.LessOrEqual(t, b, last+1)
		last = b
	}
}

func TestQuantilesAreOfTheRecentPast(t *testing.T) {
	var h Histogram
	now := time.Unix(1000, 0)
	for range 100 {
		h.Observe(time.Second)
	}
	s := h.Summary(now)
	require.EqualValues(t, 100, s.Count)
	require.Equal(t, 100*time.Second, s.Sum)
	require.InEpsilon(t, time.Second, s.Quantiles[0], 0.07)

	for range 3 {
		now = now.Add(window)
		for range 99 {
			h.Observe(10 * time.Millisecond)
		}
		h.Observe(100 * time.Millisecond)
		s = h.Summary(now)
	}
	require.EqualValues(t, 400, s.Count)
	require.InEpsilon(t, 10*time.Millisecond, s.Quantiles[2], 0.07, "the slow beginning is over")
	require.InEpsilon(t, 100*time.Millisecond, s.Quantiles[5], 0.07)

	now = now.Add(3 * window)
	h.Summary(now)
	require.Zero(t, h.Summary(now.Add(3 * window)).Quantiles[0], "nothing happened lately")
}

func TestObservingDoesNotAllocate(t *testing.T) {
	var h Histogram
	require.Zero(t, testing.AllocsPerRun(100, func() { h.Observe(time.Millisecond) }))
}
