package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/urfave/cli/v2"

	"ottla/internal/localcluster"
)

// killDelay is how long a demonstration runs before it kills a leader.
const killDelay = time.Second

// leaderKill kills a leader of the topic while records are on their way to it, and starts it again afterwards.
type leaderKill struct {
	c       *cli.Context
	adm     *kadm.Client
	cluster *localcluster.Cluster
	topic   string
	out     io.Writer
	timer   *time.Timer
	ended   chan error
}

// planKill arranges for it, where --kill-leader asks for it.
func planKill(c *cli.Context, adm *kadm.Client, topic string) (*leaderKill, error) {
	if !c.Bool("kill-leader") {
		return nil, nil
	}
	cluster, err := localcluster.Open(c.String("dir"))
	if errors.Is(err, localcluster.ErrNone) {
		return nil, usagef("--kill-leader kills a broker of the local cluster in --dir, and there is none in %s", c.String("dir"))
	}
	if err != nil {
		return nil, err
	}
	if cluster.Replicas() < 2 {
		return nil, usagef("--kill-leader wants at least two brokers, so that another one can lead")
	}
	k := &leaderKill{c: c, adm: adm, cluster: cluster, topic: topic, out: c.App.Writer, ended: make(chan error, 1)}
	k.timer = time.AfterFunc(killDelay, func() { k.ended <- k.kill() })
	return k, nil
}

func (k *leaderKill) kill() error {
	topics, err := k.adm.ListTopics(k.c.Context, k.topic)
	if err != nil {
		return err
	}
	leads := map[int32]int{}
	victim := int32(-1)
	for _, p := range topics[k.topic].Partitions {
		leads[p.Leader]++
		victim = max(victim, p.Leader)
	}
	brokers := k.cluster.Brokers()
	if victim < 1 || int(victim) > len(brokers) {
		return fmt.Errorf("broker %d, which leads %s, is none of the local cluster", victim, k.topic)
	}
	pid, ok := brokers[victim-1].PID()
	if !ok {
		return fmt.Errorf("broker %d does not run", victim)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill broker %d: %w", victim, err)
	}
	_, err = fmt.Fprintf(k.out, "killed broker %d with SIGKILL: it led %s of %s\n", victim, oneOrMore(leads[victim], "partition"), k.topic)
	return err
}

// finish waits for the kill and starts the broker again.
func (k *leaderKill) finish() error {
	if k == nil {
		return nil
	}
	if k.timer.Stop() {
		return errors.New("everything was written before a leader could be killed: give a larger --tree")
	}
	if err := <-k.ended; err != nil {
		return fmt.Errorf("--kill-leader: %s", cause(err))
	}
	program, err := os.Executable()
	if err != nil {
		return err
	}
	if err := k.cluster.StartBrokers(program); err != nil {
		return err
	}
	_, err = fmt.Fprintln(k.out, "started it again")
	return err
}
