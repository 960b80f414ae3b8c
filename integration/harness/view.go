package harness

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-zookeeper/zk"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// View reads a cluster's znodes through a ZooKeeper session of its own, as zkCli would.
type View struct {
	conn   *zk.Conn
	chroot string
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}

// viewTimeout is short, so that a view soon leaves a server that was paused.
const viewTimeout = 6 * time.Second

// View is the cluster's znodes. One session serves the whole test.
func (c *Cluster) View() *View {
	c.t.Helper()
	if c.view == nil {
		servers, chroot, _ := strings.Cut(c.Connect, "/")
		conn, events, err := zk.Connect(strings.Split(servers, ","), viewTimeout, zk.WithLogger(quiet{}))
		if err != nil {
			c.t.Fatal(err)
		}
		go func() {
			for range events { // until Close
			}
		}()
		c.t.Cleanup(conn.Close)
		c.view = &View{conn: conn}
		if chroot != "" {
			c.view.chroot = "/" + chroot
		}
	}
	return c.view
}

// Get returns a znode's data and status.
func (v *View) Get(p string) ([]byte, *zk.Stat, error) {
	data, stat, err := v.conn.Get(v.full(p))
	if err != nil {
		err = fmt.Errorf("%s: %w", p, err)
	}
	return data, stat, err
}

// Children returns the names below a znode, sorted.
func (v *View) Children(p string) ([]string, error) {
	names, _, err := v.conn.Children(v.full(p))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p, err)
	}
	slices.Sort(names)
	return names, nil
}

// Set overwrites a znode's data, whatever its version.
func (v *View) Set(p string, data []byte) error {
	_, err := v.conn.Set(v.full(p), data, -1)
	return err
}

// Create makes a persistent znode.
func (v *View) Create(p string, data []byte) error {
	_, err := v.conn.Create(v.full(p), data, 0, zk.WorldACL(zk.PermAll))
	return err
}

// Delete removes a znode.
func (v *View) Delete(p string) error { return v.conn.Delete(v.full(p), -1) }

func (v *View) full(p string) string {
	if p == "/" && v.chroot != "" {
		return v.chroot
	}
	return v.chroot + p
}

// Tree returns the data of every znode below root, by path; ZooKeeper's own are left out.
func (v *View) Tree(root string) (map[string][]byte, error) {
	out := map[string][]byte{}
	var walk func(p string) error
	walk = func(p string) error {
		data, _, err := v.Get(p)
		if err != nil {
			return err
		}
		out[p] = data
		names, err := v.Children(p)
		if err != nil {
			return err
		}
		for _, name := range names {
			child := path.Join(p, name)
			if child == "/zookeeper" {
				continue
			}
			if err := walk(child); err != nil && !errors.Is(err, zk.ErrNoNode) { // may go meanwhile
				return err
			}
		}
		return nil
	}
	return out, walk(root)
}

// Registered reports the session that owns the broker's registration.
func (v *View) Registered(id int) (owner int64, err error) {
	_, stat, err := v.Get("/brokers/ids/" + strconv.Itoa(id))
	if err != nil {
		return 0, err
	}
	return stat.EphemeralOwner, nil
}

// Controller is the elected broker and its epoch.
func (v *View) Controller() (id, epoch int, err error) {
	data, _, err := v.Get("/controller")
	if err != nil {
		return 0, 0, err
	}
	var c struct {
		BrokerID int `json:"brokerid"`
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return 0, 0, fmt.Errorf("/controller: %w", err)
	}
	data, _, err = v.Get("/controller_epoch")
	if err != nil {
		return 0, 0, err
	}
	epoch, err = strconv.Atoi(string(data))
	return c.BrokerID, epoch, err
}

// PartitionState is what the znode of a partition says.
type PartitionState struct {
	Leader          int   `json:"leader"`
	LeaderEpoch     int   `json:"leader_epoch"`
	ISR             []int `json:"isr"`
	ControllerEpoch int   `json:"controller_epoch"`
}

// State reads a partition's state.
func (v *View) State(topic string, partition int) (PartitionState, error) {
	data, _, err := v.Get(fmt.Sprintf("/brokers/topics/%s/partitions/%d/state", topic, partition))
	if err != nil {
		return PartitionState{}, err
	}
	var s PartitionState
	err = json.Unmarshal(data, &s)
	return s, err
}

// WaitRegistered waits until the running broker is registered, serves, and knows the cluster.
func (c *Cluster) WaitRegistered(b *Broker) {
	c.t.Helper()
	Eventually(c.t, 60*time.Second, fmt.Sprintf("broker %d registers", b.ID), func() error {
		if !b.Running() {
			c.t.Fatalf("broker %d ended with exit code %d\n%s", b.ID, b.code, b.LogTail())
		}
		if _, err := c.View().Registered(b.ID); err != nil {
			return err
		}
		known, err := metadata(b.Address)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(known.Brokers, func(m kmsg.MetadataResponseBroker) bool { return int(m.NodeID) == b.ID }) {
			return errors.New("it does not know itself")
		}
		if known.ControllerID < 0 {
			return errors.New("it knows no controller")
		}
		return nil
	})
}

// WaitGone waits until the broker's registration is gone.
func (c *Cluster) WaitGone(b *Broker) {
	c.t.Helper()
	Eventually(c.t, 30*time.Second, fmt.Sprintf("broker %d's registration goes", b.ID), func() error {
		_, err := c.View().Registered(b.ID)
		switch {
		case errors.Is(err, zk.ErrNoNode):
			return nil
		case err == nil:
			return errors.New("still there")
		}
		return err
	})
}

// WaitController waits until a running broker is controller and returns its id and epoch.
func (c *Cluster) WaitController() (id, epoch int) {
	c.t.Helper()
	Eventually(c.t, 30*time.Second, "a controller is elected", func() (err error) {
		id, epoch, err = c.View().Controller()
		if err == nil && (id < 1 || id > len(c.Brokers)) {
			err = fmt.Errorf("controller is broker %d, which is not of this cluster", id)
		}
		return err
	})
	return id, epoch
}

// WaitLed waits until every partition of the topic has a leader and at least this many replicas in sync, and every running
// broker knows the leaders.
func (c *Cluster) WaitLed(topic string, partitions, inSync int) {
	c.t.Helper()
	Eventually(c.t, 60*time.Second, fmt.Sprintf("topic %s is led with %d in sync", topic, inSync), func() error {
		for p := range partitions {
			s, err := c.View().State(topic, p)
			if err != nil {
				return err
			}
			if s.Leader < 0 || len(s.ISR) < inSync {
				return fmt.Errorf("partition %d: leader %d, in sync %v", p, s.Leader, s.ISR)
			}
		}
		for _, b := range c.Brokers {
			if !b.Running() {
				continue
			}
			if err := knowsLeaders(b.Address, topic, partitions); err != nil {
				return fmt.Errorf("broker %d: %w", b.ID, err)
			}
		}
		return nil
	})
}

func knowsLeaders(address, topic string, partitions int) error {
	known, err := metadata(address, topic)
	if err != nil {
		return err
	}
	led := 0
	for _, t := range known.Topics {
		for _, p := range t.Partitions {
			if p.ErrorCode == 0 && p.Leader >= 0 {
				led++
			}
		}
	}
	if led != partitions {
		return fmt.Errorf("knows %d leaders of %d", led, partitions)
	}
	return nil
}
