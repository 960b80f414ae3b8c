package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"ottla/broker"
	"ottla/config"
	"ottla/internal/cluster"
	"ottla/security"
	"ottla/zkcoord"
)

func superviseCommand() *cli.Command {
	return command(&cli.Command{
		Name:      "supervise",
		Usage:     "run one broker as a child, and clean up behind it when it is killed",
		ArgsUsage: "[server.properties …]",
		Description: `Runs 'ottla broker' with the same arguments and waits for its end. A broker that was killed leaves its registration in
ZooKeeper until its session expires; its parent knows that it is dead, removes the registration, and leaders move at once.
For containers (as the first process) and local clusters; signals are passed on.

  ottla supervise /etc/ottla/server.properties`,
		Flags: []cli.Flag{
			&cli.StringSliceFlag{Name: "override", Aliases: []string{"o"}, Usage: "`KEY=VALUE` that wins over file and environment"},
			&cli.StringFlag{Name: "pid-file", Usage: "write the broker's pid to this `FILE`"},
			&cli.StringFlag{Name: "log-format", Value: "auto", Usage: "as in 'ottla broker'"},
			&cli.StringFlag{Name: "log-level", Value: "info", Usage: "as in 'ottla broker'"},
		},
		Action: supervise,
	})
}

func supervise(c *cli.Context) error {
	overrides, err := overridesOf(c.StringSlice("override"))
	if err != nil {
		return err
	}
	snapshot, _, err := config.Load(c.Args().Slice(), os.Environ(), overrides)
	if err != nil {
		return err
	}
	program, err := executable()
	if err != nil {
		return err
	}
	args := []string{"broker", "--log-format", c.String("log-format"), "--log-level", c.String("log-level")}
	for _, o := range c.StringSlice("override") {
		args = append(args, "--override", o)
	}
	child := exec.Command(program, append(args, c.Args().Slice()...)...)
	child.Stdin, child.Stdout, child.Stderr = c.App.Reader, c.App.Writer, c.App.ErrWriter
	if err := child.Start(); err != nil {
		return fmt.Errorf("start the broker: %w", err)
	}
	if file := c.String("pid-file"); file != "" {
		if err := os.WriteFile(file, []byte(strconv.Itoa(child.Process.Pid)), 0o644); err != nil {
			return err
		}
	}
	stop := passSignals(child.Process)
	err = child.Wait()
	stop()
	var ended *exec.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &ended):
		return err
	}
	// Whatever ended it: the process is reaped, its session cannot do anything any more.
	if buryErr := bury(snapshot); buryErr != nil {
		return fmt.Errorf("the broker ended (%s) and its registration was not removed, it will expire: %w", ended, buryErr)
	}
	return fmt.Errorf("the broker ended: %s", ended)
}

// passSignals hands the signals that end a process on to the broker.
func passSignals(p *os.Process) (stop func()) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	done := make(chan struct{})
	go func() { // ends with stop
		for {
			select {
			case s := <-signals:
				_ = p.Signal(s)
			case <-done:
				return
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}

// bury removes the dead broker's registration.
func bury(s *config.Snapshot) error {
	session := broker.SavedSession(s)
	id := config.BrokerID.Of(s)
	if session == 0 || id < 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	o, err := security.ZooKeeper(s, zkcoord.Options{
		Connect: config.ZookeeperConnect.Of(s), SessionTimeout: 10 * time.Second, ConnectionTimeout: 5 * time.Second, Logger: zerolog.Nop(),
	})
	if err != nil {
		return err
	}
	zk, err := zkcoord.Connect(ctx, o)
	if err != nil {
		return err
	}
	defer zk.Close()
	_, err = zkcoord.Bury(zk.Session(), cluster.BrokerID(id), session)
	return err
}
