package zkcoord

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// machine has the kernel's clocks. Sleep moves the wall clock and the boot clock on, not the monotonic one.
type machine struct {
	wall, monotonic, boot time.Duration
	asked                 int
}

func (m *machine) clock() *bootClock {
	return &bootClock{
		kernel: func() time.Duration { m.asked++; return m.boot },
		clocks: func() (wall, monotonic time.Duration) { return m.wall, m.monotonic },
	}
}

func (m *machine) run(d time.Duration) {
	m.wall, m.monotonic, m.boot = m.wall+d, m.monotonic+d, m.boot+d
}
func (m *machine) sleep(d time.Duration) { m.wall, m.boot = m.wall+d, m.boot+d }
func (m *machine) step(d time.Duration)  { m.wall += d }

func TestBootClockFollowsTheKernelThroughSleepAndSteps(t *testing.T) {
	m := &machine{wall: time.Hour, boot: time.Minute}
	c := m.clock()
	for _, change := range []func(){
		func() {},
		func() { m.run(10 * time.Millisecond) },
		func() { m.sleep(time.Second) },
		func() { m.run(trusted - time.Nanosecond) },
		func() { m.sleep(2 * agreement) },
		func() { m.step(-time.Hour) },
		func() { m.step(time.Hour); m.run(time.Millisecond) },
		func() { m.run(time.Hour) },
		func() { m.step(-time.Hour); m.sleep(30 * time.Minute) },
	} {
		change()
		require.Equal(t, m.boot, c.now())
	}
}

func TestBootClockAsksTheKernelSeldom(t *testing.T) {
	m := &machine{wall: time.Hour}
	c := m.clock()
	for range 1000 {
		m.run(time.Millisecond)
		require.Equal(t, m.boot, c.now())
	}
	require.LessOrEqual(t, m.asked, 1000/int(trusted/time.Millisecond)+1)
}

// A step that undoes a sleep exactly is the one thing that the clocks cannot show; it is seen when the trust ends.
func TestBootClockTrustsNoReadingForLong(t *testing.T) {
	m := &machine{wall: time.Hour}
	c := m.clock()
	c.now()
	m.sleep(time.Minute)
	m.step(-time.Minute)
	m.run(trusted)
	require.Equal(t, m.boot, c.now())
}

func TestBootClockKeepsNoReadingThatWasHeldUp(t *testing.T) {
	m := &machine{wall: time.Hour}
	c := m.clock()
	c.kernel = func() time.Duration {
		boot := m.boot
		m.run(time.Second) // held up after the kernel has answered
		return boot
	}
	c.now()
	require.Nil(t, c.last.Load())
}

func TestBootClockAgreesWithTheKernel(t *testing.T) {
	c := newBootClock()
	for range 1000 {
		before := bootTime()
		now := c.now()
		require.GreaterOrEqual(t, now, before-agreement)
		require.LessOrEqual(t, now, bootTime()+agreement)
	}
}

func BenchmarkBootClock(b *testing.B) {
	c := newBootClock()
	b.Run("kept", func(b *testing.B) {
		for b.Loop() {
			c.now()
		}
	})
	b.Run("kernel", func(b *testing.B) {
		for b.Loop() {
			bootTime()
		}
	})
}
