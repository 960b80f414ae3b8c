package integration

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"ottla/integration/harness"
)

// TestAnotherBrokerIsControllerSoonAfterKill kills the controller with -9: within the session timeout and a second another
// broker is controller with the next epoch, and topics can be created again.
func TestAnotherBrokerIsControllerSoonAfterKill(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), ZooKeepers: 3})
	for round := range harness.Pick(1, 5) {
		old, epoch := c.WaitController()
		killed := time.Now()
		c.Broker(old).Kill()
		var expired time.Time // when the dead one's session was seen to be over
		var now int
		harness.Eventually(t, harness.SessionTimeout+10*time.Second, "another controller", func() error {
			id, e, err := c.View().Controller()
			if err == nil && id == old {
				return errors.New("still the dead one")
			}
			if expired.IsZero() {
				expired = time.Now()
			}
			if err == nil && e != epoch+1 {
				t.Fatalf("epoch %d after %d", e, epoch)
			}
			now = id
			return err
		})
		// How long ZooKeeper takes to end the session is up to its ticks; what follows is up to the brokers.
		t.Logf("broker %d took over from %d: session over after %v (timeout %v), elected after a further %v", now, old,
			expired.Sub(killed).Round(time.Millisecond), harness.SessionTimeout, time.Since(expired).Round(time.Millisecond))
		if took := time.Since(expired); took > time.Second {
			t.Errorf("elected %v after the session was over, want at most a second", took)
		}
		createTopic(t, c, fmt.Sprint("after-", round), 2, 2, nil)
		produce(t, franz(t, c), fmt.Sprint("after-", round), numbered(10))
		c.Restart(c.Broker(old))
	}
}

// TestPausedControllerResignsAndRegistersAnew stops the controller's process for longer than its session lives.
func TestPausedControllerResignsAndRegistersAnew(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3)})
	createTopic(t, c, "orders", 6, 3, nil)
	old, epoch := c.WaitController()
	b := c.Broker(old)
	before, err := c.View().Registered(old)
	if err != nil {
		t.Fatal(err)
	}
	b.Pause()
	c.WaitGone(b)
	now := waitNextController(t, c, old, epoch)
	b.Resume()
	harness.Eventually(t, 20*time.Second, "it registers anew", func() error {
		owner, err := c.View().Registered(old)
		if err == nil && owner == before {
			err = errors.New("still the old session")
		}
		return err
	})
	if id, e, err := c.View().Controller(); id != now || e != epoch+1 || err != nil {
		t.Errorf("controller %d with epoch %d (%v), want %d with %d: the old one must not act", id, e, err, now, epoch+1)
	}
	c.WaitLed("orders", 6, 3)
	createTopic(t, c, "afterwards", 3, 3, nil)
	produce(t, franz(t, c), "orders", numbered(100))
}

// TestControllerIsElectedAnewWhenItsZnodeIsDeleted is what operators do to move it.
func TestControllerIsElectedAnewWhenItsZnodeIsDeleted(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 2)})
	for range 3 {
		_, epoch := c.WaitController()
		if harness.Default() == harness.Kafka {
			time.Sleep(2 * time.Second) // Kafka 3.9 may stay without a controller when a failover is interrupted
		}
		if err := c.View().Delete("/controller"); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, 10*time.Second, "the next epoch", func() error {
			_, e, err := c.View().Controller()
			if err == nil && e != epoch+1 {
				err = fmt.Errorf("epoch %d", e)
			}
			return err
		})
	}
	createTopic(t, c, "afterwards", 2, 2, nil)
}

// TestLeadershipMovesWithoutLossWhenALeaderStops stops and kills leaders in turn while a producer waits for every in-sync copy.
func TestLeadershipMovesWithoutLossWhenALeaderStops(t *testing.T) {
	c := harness.Start(t, harness.Options{Brokers: harness.Same(harness.Default(), 3), Properties: map[string]string{"min.insync.replicas": "2"}})
	createTopic(t, c, "orders", 3, 3, nil)
	load := startLoad(t, c, "orders")
	leader := func() int {
		s, err := c.View().State("orders", 0)
		if err != nil || s.Leader < 1 {
			t.Fatalf("leader: %+v, %v", s, err)
		}
		return s.Leader
	}
	controller := func() int { id, _ := c.WaitController(); return id }
	kill := func(b *harness.Broker) { b.Kill() }
	terminate := func(b *harness.Broker) { b.Terminate() }
	for _, step := range []struct {
		what string
		who  func() int
		how  func(*harness.Broker)
	}{
		{"leader killed", leader, kill}, {"leader stopped", leader, terminate},
		{"controller killed", controller, kill}, {"controller stopped", controller, terminate},
	} {
		load.waitAcked(t, load.acked()+300)
		b := c.Broker(step.who())
		began := time.Now()
		step.how(b)
		load.waitAcked(t, load.acked()+300)
		t.Logf("%s: broker %d; going on after %v", step.what, b.ID, time.Since(began).Round(time.Millisecond))
		c.Restart(b)
		c.WaitLed("orders", 3, 3)
		t.Logf("%s: all in sync again after %v", step.what, time.Since(began).Round(time.Millisecond))
	}
	load.stop()
	load.check(t, c)
}

func waitNextController(t testing.TB, c *harness.Cluster, old, epoch int) (id int) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, "another controller", func() error {
		now, e, err := c.View().Controller()
		if err != nil {
			return err
		}
		if now == old || e <= epoch {
			return fmt.Errorf("broker %d with epoch %d", now, e)
		}
		id = now
		return nil
	})
	return id
}

func deleteTopic(t testing.TB, c *harness.Cluster, topic string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	resp, err := kadm.NewClient(franz(t, c)).DeleteTopic(ctx, topic)
	if err := errors.Join(err, resp.Err); err != nil {
		t.Fatalf("delete topic %s: %v", topic, err)
	}
}

// TestS22ControllerFailsOverWithManyPartitions kills a controller that leads a third of all partitions, and measures how long it takes
// until another is elected and everything is led again; then it has /controller deleted, so that nothing but the failover is to do.
func TestS22ControllerFailsOverWithManyPartitions(t *testing.T) {
	topics, each := harness.Pick(4, 50), harness.Pick(25, 100)
	c := harness.Start(t, harness.Options{
		Brokers: harness.Same(harness.Default(), 3), ZooKeepers: harness.Pick(1, 3),
		Prepare: func(b *harness.Broker) { b.Supervised = harness.Default() == harness.Ottla },
	})
	var names []string
	for n := range topics {
		name := fmt.Sprintf("topic-%03d", n)
		names = append(names, name)
		createTopic(t, c, name, each, 3, nil)
	}
	admin := kadm.NewClient(franz(t, c, kgo.MetadataMinAge(10*time.Millisecond)))
	// led waits until nothing is led by a broker, and every partition by some.
	led := func(dead int32) {
		t.Helper()
		harness.Eventually(t, time.Minute, "everything is led", func() error {
			list, err := admin.ListTopics(t.Context(), names...)
			if err := errors.Join(err, list.Error()); err != nil {
				return err
			}
			without, count := 0, 0
			list.EachPartition(func(p kadm.PartitionDetail) {
				count++
				if p.Leader < 0 || p.Leader == dead {
					without++
				}
			})
			if without > 0 || count != topics*each {
				return fmt.Errorf("%d partitions of %d without a leader", without, count)
			}
			return nil
		})
	}
	elected := func(epoch int) (id int) {
		t.Helper()
		harness.Eventually(t, time.Minute, "another controller", func() error {
			now, e, err := c.View().Controller()
			if err == nil && e <= epoch {
				err = errors.New("still the old one")
			}
			id = now
			return err
		})
		return id
	}
	for range harness.Pick(1, 3) {
		old, epoch := c.WaitController()
		b := c.Broker(old)
		b.Kill()
		c.WaitGone(b)
		gone := time.Now()
		now := elected(epoch)
		took := time.Since(gone)
		led(int32(old))
		t.Logf("%d partitions: broker %d elected %v after the registration of %d was gone, everything led after %v", topics*each, now,
			took.Round(time.Millisecond), old, time.Since(gone).Round(time.Millisecond))
		c.Restart(b)
		for _, name := range names {
			c.WaitLed(name, each, 3)
		}

		_, epoch = c.WaitController()
		began := time.Now()
		if err := c.View().Delete("/controller"); err != nil {
			t.Fatal(err)
		}
		elected(epoch)
		took = time.Since(began)
		createTopic(t, c, fmt.Sprint("after-", epoch), 1, 3, nil) // in line behind the failover
		t.Logf("%d partitions: elected %v after /controller was deleted, a topic created and led after %v", topics*each,
			took.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	}
}
