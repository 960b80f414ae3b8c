package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/urfave/cli/v2"

	"ottla/internal/cluster"
)

func topicsCommand() *cli.Command {
	return command(&cli.Command{
		Name:  "topics",
		Usage: "create, list, describe and delete topics",
		Description: `  ottla topics create orders --partitions 6 --replicas 3 --config retention.ms=86400000
  ottla topics list
  ottla topics describe orders
  ottla topics delete orders`,
		Subcommands: []*cli.Command{
			command(&cli.Command{
				Name: "create", Usage: "create topics", ArgsUsage: "TOPIC …",
				Description: "  ottla topics create orders --partitions 6 --replicas 3 --config cleanup.policy=compact",
				Flags: clientFlags(jsonFlag(),
					&cli.IntFlag{Name: "partitions", Aliases: []string{"p"}, Value: -1, Usage: "how many (default: the brokers' num.partitions)"},
					&cli.IntFlag{Name: "replicas", Aliases: []string{"r"}, Value: -1, Usage: "copies of each (default: the brokers' default.replication.factor)"},
					&cli.StringSliceFlag{Name: "config", Aliases: []string{"c"}, Usage: "`KEY=VALUE` of the topic"},
					&cli.BoolFlag{Name: "if-not-exists", Usage: "an existing topic is no error"},
					&cli.BoolFlag{Name: "dry-run", Usage: "only ask whether it would work"},
				),
				Action: createTopics,
			}),
			command(&cli.Command{
				Name: "list", Usage: "list topics",
				Description: "  ottla topics list\n  ottla topics list --internal --json",
				Flags:       clientFlags(jsonFlag(), &cli.BoolFlag{Name: "internal", Usage: "show internal topics too"}),
				Action:      listTopics,
			}),
			command(&cli.Command{
				Name: "describe", Usage: "show partitions, leaders, replicas, offsets and settings", ArgsUsage: "TOPIC …",
				Description: "  ottla topics describe orders",
				Flags:       clientFlags(jsonFlag()),
				Action:      describeTopics,
			}),
			command(&cli.Command{
				Name: "delete", Usage: "delete topics", ArgsUsage: "TOPIC …",
				Description: "  ottla topics delete orders payments",
				Flags:       clientFlags(&cli.BoolFlag{Name: "if-exists", Usage: "a missing topic is no error"}),
				Action:      deleteTopics,
			}),
		},
	})
}

func topicArgs(c *cli.Context) ([]string, error) {
	if !c.Args().Present() {
		return nil, usagef("which topic? see '%s --help'", c.Command.HelpName)
	}
	return c.Args().Slice(), nil
}

func createTopics(c *cli.Context) error {
	names, err := topicArgs(c)
	if err != nil {
		return err
	}
	configs := map[string]*string{}
	for _, kv := range c.StringSlice("config") {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return usagef("--config %s: want KEY=VALUE", kv)
		}
		configs[k] = &v
	}
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	create := adm.CreateTopics
	if c.Bool("dry-run") {
		create = adm.ValidateCreateTopics
	}
	made, err := create(c.Context, int32(c.Int("partitions")), int16(c.Int("replicas")), configs, names...)
	if err != nil {
		return fmt.Errorf("create topics: %s", cause(err))
	}
	for _, t := range made.Sorted() {
		if t.Err != nil && !(c.Bool("if-not-exists") && errors.Is(t.Err, kerr.TopicAlreadyExists)) {
			return fmt.Errorf("topic %s: %s", t.Topic, cmp.Or(t.ErrMessage, cause(t.Err)))
		}
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, made.Sorted())
	}
	for _, t := range made.Sorted() {
		switch {
		case t.Err != nil:
			fmt.Fprintf(c.App.Writer, "%s exists\n", t.Topic)
		case c.Bool("dry-run"):
			fmt.Fprintf(c.App.Writer, "%s could be created: %d partitions, %d replicas\n", t.Topic, t.NumPartitions, t.ReplicationFactor)
		default:
			fmt.Fprintf(c.App.Writer, "%s created: %d partitions, %d replicas, id %s\n", t.Topic, t.NumPartitions, t.ReplicationFactor, cluster.TopicID(t.ID))
		}
	}
	return nil
}

func listTopics(c *cli.Context) error {
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	list := adm.ListTopics
	if c.Bool("internal") {
		list = adm.ListTopicsWithInternal
	}
	topics, err := list(c.Context)
	if err != nil {
		return fmt.Errorf("list topics: %s", cause(err))
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, topics.Names())
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOPIC\tPARTITIONS\tREPLICAS\tID")
	for _, t := range topics.Sorted() {
		fmt.Fprintf(w, "%s\t%d\t%d\t%s\n", t.Topic, len(t.Partitions), t.Partitions.NumReplicas(), cluster.TopicID(t.ID))
	}
	return w.Flush()
}

type topicReport struct {
	Name       string            `json:"name"`
	ID         string            `json:"id"`
	Settings   map[string]string `json:"settings"` // those that are not defaults
	Partitions []partitionReport `json:"partitions"`
}

type partitionReport struct {
	Partition   int32   `json:"partition"`
	Leader      int32   `json:"leader"`
	LeaderEpoch int32   `json:"leaderEpoch"`
	Replicas    []int32 `json:"replicas"`
	ISR         []int32 `json:"isr"`
	Start       int64   `json:"start"`
	End         int64   `json:"end"`
	Adding      []int32 `json:"adding,omitempty"` // while the partition is reassigned
	Removing    []int32 `json:"removing,omitempty"`
}

// move is what a reassignment is doing to the partition, "" when there is none.
func (p *partitionReport) move() string {
	var parts []string
	if len(p.Adding) > 0 {
		parts = append(parts, "to "+numbers(p.Adding))
	}
	if len(p.Removing) > 0 {
		parts = append(parts, "from "+numbers(p.Removing))
	}
	return strings.Join(parts, " ")
}

func describeTopics(c *cli.Context) error {
	names, err := topicArgs(c)
	if err != nil {
		return err
	}
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	topics, err := adm.ListTopicsWithInternal(c.Context, names...)
	if err != nil {
		return fmt.Errorf("describe topics: %s", cause(err))
	}
	for _, t := range topics.Sorted() {
		if t.Err != nil {
			return fmt.Errorf("topic %s: %s", t.Topic, cause(t.Err))
		}
	}
	starts, _ := adm.ListStartOffsets(c.Context, names...)
	ends, _ := adm.ListEndOffsets(c.Context, names...)
	settings, _ := adm.DescribeTopicConfigs(c.Context, names...)
	var reports []topicReport
	for _, t := range topics.Sorted() {
		reports = append(reports, reportTopic(t, starts, ends, settings))
	}
	addMoves(c.Context, adm, reports)
	if c.Bool("json") {
		return printJSON(c.App.Writer, reports)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s  id %s\n", r.Name, r.ID)
		for _, k := range slices.Sorted(maps.Keys(r.Settings)) {
			fmt.Fprintf(w, "  %s=%s\n", k, r.Settings[k])
		}
		fmt.Fprintln(w, "PARTITION\tLEADER\tEPOCH\tREPLICAS\tIN SYNC\tSTART\tEND\tMOVING")
		for _, p := range r.Partitions {
			fmt.Fprintf(w, "%d\t%d\t%d\t%s\t%s\t%d\t%d\t%s\n", p.Partition, p.Leader, p.LeaderEpoch, numbers(p.Replicas), numbers(p.ISR), p.Start, p.End, p.move())
		}
	}
	return w.Flush()
}

func reportTopic(t kadm.TopicDetail, starts, ends kadm.ListedOffsets, settings kadm.ResourceConfigs) topicReport {
	r := topicReport{Name: t.Topic, ID: cluster.TopicID(t.ID).String(), Settings: map[string]string{}}
	for _, s := range settings {
		if s.Name != t.Topic {
			continue
		}
		for _, e := range s.Configs {
			if e.Source.String() == "DYNAMIC_TOPIC_CONFIG" && e.Value != nil {
				r.Settings[e.Key] = *e.Value
			}
		}
	}
	for _, p := range t.Partitions.Sorted() {
		start, _ := starts.Lookup(t.Topic, p.Partition)
		end, _ := ends.Lookup(t.Topic, p.Partition)
		r.Partitions = append(r.Partitions, partitionReport{
			Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas, ISR: p.ISR, Start: start.Offset, End: end.Offset,
		})
	}
	return r
}

// addMoves tells which partitions are being reassigned. Who may not ask does without.
func addMoves(ctx context.Context, adm *kadm.Client, reports []topicReport) {
	set := kadm.TopicsSet{}
	for _, r := range reports {
		for _, p := range r.Partitions {
			set.Add(r.Name, p.Partition)
		}
	}
	moves, err := adm.ListPartitionReassignments(ctx, set)
	if err != nil {
		return
	}
	for _, r := range reports {
		for i := range r.Partitions {
			p := &r.Partitions[i]
			move := moves[r.Name][p.Partition]
			p.Adding, p.Removing = move.AddingReplicas, move.RemovingReplicas
		}
	}
}

func numbers(list []int32) string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(list), " ", ","), "[]")
}

func deleteTopics(c *cli.Context) error {
	names, err := topicArgs(c)
	if err != nil {
		return err
	}
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	gone, err := adm.DeleteTopics(c.Context, names...)
	if err != nil {
		return fmt.Errorf("delete topics: %s", cause(err))
	}
	for _, t := range gone.Sorted() {
		switch {
		case t.Err == nil:
			fmt.Fprintf(c.App.Writer, "%s deleted\n", t.Topic)
		case c.Bool("if-exists") && errors.Is(t.Err, kerr.UnknownTopicOrPartition):
			fmt.Fprintf(c.App.Writer, "%s does not exist\n", t.Topic)
		default:
			return fmt.Errorf("topic %s: %s", t.Topic, cmp.Or(t.ErrMessage, cause(t.Err)))
		}
	}
	return nil
}
