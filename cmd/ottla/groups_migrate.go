package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/urfave/cli/v2"

	"ottla/internal/cluster"
	"ottla/internal/localcluster"
	"ottla/zkcoord"
)

func migrateOffsetsCommand() *cli.Command {
	return command(&cli.Command{
		Name: "migrate-offsets", ArgsUsage: "[GROUP …]",
		Usage: "copy committed offsets between the topic and ZooKeeper; shows what it would do unless --execute is given",
		Description: `  ottla groups migrate-offsets --from zookeeper --to kafka
  ottla groups migrate-offsets --from zookeeper --to kafka --execute billing

The offsets in the topic are read and written through the brokers, those in ZooKeeper directly. So the brokers must run with
offsets.storage=kafka meanwhile. From ZooKeeper to Kafka: restart the brokers with offsets.storage=kafka and
dual.commit.enabled=true, copy, then start the consumers. From Kafka to ZooKeeper: run with offsets.storage=kafka and
dual.commit.enabled=true, copy, then restart the brokers with offsets.storage=zookeeper, one after the other, and only then
without dual.commit.enabled.
An offset never goes back: where the other side is ahead already, it stays.`,
		Flags: clientFlags(jsonFlag(),
			&cli.StringFlag{Name: "from", Usage: "kafka or zookeeper"},
			&cli.StringFlag{Name: "to", Usage: "kafka or zookeeper"},
			&cli.StringFlag{Name: "connect", Usage: "`HOST:PORT,…[/chroot]` of the ensemble (default: that of --dir, else localhost:2181)"},
			&cli.BoolFlag{Name: "execute", Usage: "do it"},
		),
		Action: migrateOffsets,
	})
}

// groupMoves are the offsets of one group that are to be copied; From is what the destination has.
type groupMoves struct {
	Group string `json:"group"`
	Moves []move `json:"moves"`
	Ahead int    `json:"ahead"` // partitions whose destination needs nothing
}

func migrateOffsets(c *cli.Context) error {
	from, to := c.String("from"), c.String("to")
	if !(from == "kafka" && to == "zookeeper") && !(from == "zookeeper" && to == "kafka") {
		return usagef("say --from kafka --to zookeeper, or --from zookeeper --to kafka")
	}
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	if err := needTopicStorage(c, adm); err != nil {
		return err
	}
	zk, err := connectZooKeeper(c)
	if err != nil {
		return err
	}
	defer zk.Close()
	plans, err := planMigration(c, adm, zk.Session(), from == "zookeeper")
	if err != nil {
		return err
	}
	if c.Bool("execute") {
		for _, g := range plans {
			if err := g.copy(c, adm, zk.Session(), to == "kafka"); err != nil {
				return err
			}
		}
	}
	return showMigration(c, plans)
}

// needTopicStorage refuses to run against brokers whose commits do not go where this command believes they go.
func needTopicStorage(c *cli.Context, adm *kadm.Client) error {
	brokers, err := adm.ListBrokers(c.Context)
	if err != nil {
		return fmt.Errorf("list brokers: %s", cause(err))
	}
	configs, err := adm.DescribeBrokerConfigs(c.Context, brokers.NodeIDs()...)
	if err != nil {
		return fmt.Errorf("settings of the brokers: %s", cause(err))
	}
	for _, b := range configs {
		for _, e := range b.Configs {
			if e.Key == "offsets.storage" && e.Value != nil && *e.Value != "kafka" {
				return fmt.Errorf("broker %s runs with offsets.storage=%s: restart it with offsets.storage=kafka and dual.commit.enabled=true, then copy", b.Name, *e.Value)
			}
		}
	}
	return nil
}

func connectZooKeeper(c *cli.Context) (*zkcoord.Client, error) {
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
		return nil, fmt.Errorf("no ZooKeeper server answers at %s: %w", connect, err)
	}
	return zk, nil
}

func planMigration(c *cli.Context, adm *kadm.Client, zk zkcoord.Session, fromZooKeeper bool) ([]groupMoves, error) {
	groups := c.Args().Slice()
	var err error
	if len(groups) == 0 {
		if groups, err = allGroups(c, adm, zk, fromZooKeeper); err != nil {
			return nil, err
		}
	}
	var plans []groupMoves
	for _, group := range groups {
		inTopic, err := topicOffsets(c, adm, group)
		if err != nil {
			return nil, err
		}
		inZooKeeper, err := zooKeeperOffsets(zk, group)
		if err != nil {
			return nil, err
		}
		source, destination := inTopic, inZooKeeper
		if fromZooKeeper {
			source, destination = inZooKeeper, inTopic
		}
		if plan := planCopy(group, source, destination); len(plan.Moves)+plan.Ahead > 0 {
			plans = append(plans, plan)
		}
	}
	return plans, nil
}

// planCopy lists what the destination lacks or is behind with.
func planCopy(group string, source, destination map[cluster.TopicPartition]int64) groupMoves {
	plan := groupMoves{Group: group}
	for _, tp := range slices.SortedFunc(maps.Keys(source), func(a, b cluster.TopicPartition) int {
		if a.Topic != b.Topic {
			return map[bool]int{true: -1, false: 1}[a.Topic < b.Topic]
		}
		return int(a.Partition - b.Partition)
	}) {
		m := move{Topic: tp.Topic, Partition: tp.Partition, From: -1, To: source[tp]}
		if at, ok := destination[tp]; ok {
			m.From = at
		}
		if m.From >= m.To {
			plan.Ahead++
			continue
		}
		plan.Moves = append(plan.Moves, m)
	}
	return plan
}

func allGroups(c *cli.Context, adm *kadm.Client, zk zkcoord.Session, fromZooKeeper bool) ([]string, error) {
	if fromZooKeeper {
		return zkcoord.Groups(zk)
	}
	listed, err := adm.ListGroups(c.Context)
	if err != nil {
		return nil, fmt.Errorf("list groups: %s", cause(err))
	}
	return listed.Groups(), nil
}

func topicOffsets(c *cli.Context, adm *kadm.Client, group string) (map[cluster.TopicPartition]int64, error) {
	offsets := map[cluster.TopicPartition]int64{}
	fetched, err := adm.FetchOffsets(c.Context, group)
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s: %s", group, cause(err))
	}
	fetched.Each(func(o kadm.OffsetResponse) {
		if o.Err == nil && o.At >= 0 {
			offsets[cluster.TopicPartition{Topic: o.Topic, Partition: o.Partition}] = o.At
		}
	})
	return offsets, nil
}

func zooKeeperOffsets(zk zkcoord.Session, group string) (map[cluster.TopicPartition]int64, error) {
	tps, err := zkcoord.GroupPartitions(zk, group)
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s in ZooKeeper: %w", group, err)
	}
	offsets, err := zkcoord.ReadOffsets(zk, group, tps)
	if err != nil {
		return nil, fmt.Errorf("offsets of group %s in ZooKeeper: %w", group, err)
	}
	return offsets, nil
}

func (g *groupMoves) copy(c *cli.Context, adm *kadm.Client, zk zkcoord.Session, toTopic bool) error {
	if len(g.Moves) == 0 {
		return nil
	}
	if toTopic {
		return commitMoves(c, adm, g.Group, g.Moves)
	}
	offsets := map[cluster.TopicPartition]int64{}
	for _, m := range g.Moves {
		offsets[cluster.TopicPartition{Topic: m.Topic, Partition: m.Partition}] = m.To
	}
	for tp, err := range zkcoord.WriteOffsets(zk, g.Group, offsets) {
		return fmt.Errorf("group %s, %s in ZooKeeper: %w", g.Group, tp, err)
	}
	return nil
}

func showMigration(c *cli.Context, plans []groupMoves) error {
	if c.Bool("json") {
		return printJSON(c.App.Writer, plans)
	}
	copied, ahead := 0, 0
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tTOPIC\tPARTITION\tNOW\tTHEN")
	for _, g := range plans {
		ahead += g.Ahead
		for _, m := range g.Moves {
			copied++
			fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\n", g.Group, m.Topic, m.Partition, known(m.From), m.To)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	did := "copied"
	if !c.Bool("execute") {
		did = "would be copied with --execute"
	}
	fmt.Fprintf(c.App.Writer, "%d offsets of %d groups %s; %d need nothing.\n", copied, len(plans), did, ahead)
	return nil
}
