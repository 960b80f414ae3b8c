package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"github.com/urfave/cli/v2"

	"ottla/internal/localcluster"
	"ottla/zkcoord"
)

func zkCommand() *cli.Command {
	return command(&cli.Command{
		Name: "zk", Usage: "show the cluster's znodes as a tree", ArgsUsage: "[PATH]",
		Description: `  ottla zk
  ottla zk /brokers --connect localhost:2181/kafka`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "connect", Usage: "`HOST:PORT,…[/chroot]` of the ensemble (default: that of --dir, else localhost:2181)"},
			&cli.StringFlag{Name: "dir", EnvVars: []string{"OTTLA_DIR"}, Value: defaultDir, Usage: "`FOLDER` of a local cluster"},
			&cli.DurationFlag{Name: "timeout", Value: 10 * time.Second, Usage: "how long connecting may take"},
		},
		Action: showTree,
	})
}

func showTree(c *cli.Context) error {
	connect := c.String("connect")
	if connect == "" {
		connect = "localhost:2181"
		if local, err := localcluster.Open(c.String("dir")); err == nil {
			connect = local.Connect()
		}
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	zk, err := zkcoord.Connect(ctx, zkcoord.Options{
		Connect: connect, SessionTimeout: 10 * time.Second, ConnectionTimeout: c.Duration("timeout"), Logger: zerolog.Nop(),
	})
	if err != nil {
		return fmt.Errorf("no ZooKeeper server answers at %s: %w", connect, err)
	}
	defer zk.Close()
	root := "/"
	if c.Args().Present() {
		root = path.Clean("/" + c.Args().First())
	}
	return printTree(c.App.Writer, zk.Session(), root)
}

func printTree(out io.Writer, s zkcoord.Session, at string) error {
	data, stat, err := s.Get(at)
	if errors.Is(err, zkcoord.ErrNoNode) {
		return fmt.Errorf("there is no znode %s", at)
	}
	if err != nil {
		return err
	}
	owner := ""
	if stat.EphemeralOwner != 0 {
		owner = fmt.Sprintf("  (ephemeral, session %#x)", stat.EphemeralOwner)
	}
	fmt.Fprintf(out, "%s  %s  v%d%s\n", at, data, stat.Version, owner)
	children, _, err := s.Children(at)
	if err != nil {
		return err
	}
	slices.Sort(children)
	for _, child := range children {
		next := path.Join(at, child)
		if next == "/zookeeper" {
			continue // ZooKeeper's own
		}
		if err := printTree(out, s, next); err != nil && !errors.Is(err, zkcoord.ErrNoNode) {
			return err
		}
	}
	return nil
}
