package main

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/urfave/cli/v2"
)

func groupsCommand() *cli.Command {
	return command(&cli.Command{
		Name:  "groups",
		Usage: "show consumer groups, their lag and their members; reset, delete and move their offsets",
		Description: `  ottla groups list
  ottla groups describe billing
  ottla groups reset-offsets billing --topic orders --to earliest --execute
  ottla groups migrate-offsets --from zookeeper --to kafka`,
		Subcommands: []*cli.Command{
			command(&cli.Command{
				Name: "list", Usage: "list groups with their state, coordinator and lag",
				Description: "  ottla groups list\n  ottla groups list --state Empty --json",
				Flags:       clientFlags(jsonFlag(), &cli.StringSliceFlag{Name: "state", Usage: "only groups in this `STATE` (Stable, Empty, …)"}),
				Action:      listGroups,
			}),
			command(&cli.Command{
				Name: "describe", Usage: "show committed offsets, lag and owners, partition by partition", ArgsUsage: "GROUP …",
				Description: "  ottla groups describe billing",
				Flags:       clientFlags(jsonFlag()),
				Action:      describeGroups,
			}),
			command(&cli.Command{
				Name: "members", Usage: "show members and what is assigned to them", ArgsUsage: "GROUP …",
				Description: "  ottla groups members billing",
				Flags:       clientFlags(jsonFlag()),
				Action:      groupMembers,
			}),
			command(&cli.Command{
				Name: "reset-offsets", Usage: "move committed offsets of a group without members; shows what it would do unless --execute is given", ArgsUsage: "GROUP",
				Description: "  ottla groups reset-offsets billing --topic orders --to earliest\n" +
					"  ottla groups reset-offsets billing --topic orders:0,3 --to 4711 --execute\n" +
					"  ottla groups reset-offsets billing --to 2026-01-31T12:00:00Z --execute",
				Flags: clientFlags(jsonFlag(),
					&cli.StringSliceFlag{Name: "topic", Usage: "`TOPIC[:PARTITION,…]` (default: all that the group has committed)"},
					&cli.StringFlag{Name: "to", Usage: "earliest, latest, current, an offset, or a time (RFC 3339)"},
					&cli.Int64Flag{Name: "by", Usage: "move by so many records, back when negative"},
					&cli.BoolFlag{Name: "execute", Usage: "do it"},
				),
				Action: resetOffsets,
			}),
			command(&cli.Command{
				Name: "delete", Usage: "delete groups that have no members, with their offsets", ArgsUsage: "GROUP …",
				Description: "  ottla groups delete billing",
				Flags:       clientFlags(&cli.BoolFlag{Name: "if-exists", Usage: "a missing group is no error"}),
				Action:      deleteGroups,
			}),
			migrateOffsetsCommand(),
		},
	})
}

func groupArgs(c *cli.Context) ([]string, error) {
	if !c.Args().Present() {
		return nil, usagef("which group? see '%s --help'", c.Command.HelpName)
	}
	return c.Args().Slice(), nil
}

type groupReport struct {
	Group       string            `json:"group"`
	State       string            `json:"state"`
	Type        string            `json:"type"` // protocol type: consumer, connect; empty for a group that only stores offsets
	Protocol    string            `json:"protocol"`
	Coordinator int32             `json:"coordinator"`
	Members     int               `json:"members"`
	Lag         int64             `json:"lag"` // -1: unknown
	Partitions  []partitionOffset `json:"partitions,omitempty"`
}

type partitionOffset struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Committed int64  `json:"committed"` // -1: none
	Start     int64  `json:"start"`
	End       int64  `json:"end"`
	Lag       int64  `json:"lag"`
	Metadata  string `json:"metadata,omitempty"`
	Member    string `json:"member,omitempty"`
	Client    string `json:"client,omitempty"`
	Host      string `json:"host,omitempty"`
}

func listGroups(c *cli.Context) error {
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	listed, err := adm.ListGroups(c.Context, c.StringSlice("state")...)
	if err != nil {
		return fmt.Errorf("list groups: %s", cause(err))
	}
	reports := []groupReport{}
	if len(listed) > 0 {
		if reports, err = reportGroups(c, adm, listed.Groups()); err != nil {
			return err
		}
	}
	for i := range reports {
		reports[i].Partitions = nil
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, reports)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tSTATE\tTYPE\tPROTOCOL\tMEMBERS\tLAG\tCOORDINATOR")
	for _, r := range reports {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%d\n", r.Group, r.State, dash(r.Type), dash(r.Protocol), r.Members, known(r.Lag), r.Coordinator)
	}
	return w.Flush()
}

// reportGroups gathers state, offsets and lag of groups.
func reportGroups(c *cli.Context, adm *kadm.Client, groups []string) ([]groupReport, error) {
	lags, err := adm.Lag(c.Context, groups...)
	if err != nil && len(lags) == 0 {
		return nil, fmt.Errorf("groups %s: %s", strings.Join(groups, ", "), cause(err))
	}
	var reports []groupReport
	for _, l := range lags.Sorted() {
		if err := l.Error(); err != nil {
			return nil, fmt.Errorf("group %s: %s", l.Group, cause(err))
		}
		r := groupReport{
			Group: l.Group, State: l.State, Type: l.ProtocolType, Protocol: l.Protocol, Coordinator: l.Coordinator.NodeID, Members: len(l.Members),
		}
		for _, p := range l.Lag.Sorted() {
			o := partitionOffset{
				Topic: p.Topic, Partition: p.Partition, Committed: p.Commit.At, Start: p.Start.Offset, End: p.End.Offset, Lag: p.Lag, Metadata: p.Commit.Metadata,
			}
			if p.Member != nil {
				o.Member, o.Client, o.Host = p.Member.MemberID, p.Member.ClientID, strings.TrimPrefix(p.Member.ClientHost, "/")
			}
			if p.Lag < 0 {
				r.Lag = -1
			} else if r.Lag >= 0 {
				r.Lag += p.Lag
			}
			r.Partitions = append(r.Partitions, o)
		}
		reports = append(reports, r)
	}
	return reports, nil
}

func describeGroups(c *cli.Context) error {
	groups, err := groupArgs(c)
	if err != nil {
		return err
	}
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	reports, err := reportGroups(c, adm, groups)
	if err != nil {
		return err
	}
	for _, r := range reports {
		if r.State == "Dead" && len(r.Partitions) == 0 {
			return fmt.Errorf("there is no group %s; 'ottla groups list' shows those there are", r.Group)
		}
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, reports)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s  %s, %d members, lag %s, coordinator %d\n", r.Group, r.State, r.Members, known(r.Lag), r.Coordinator)
		fmt.Fprintln(w, "TOPIC\tPARTITION\tCOMMITTED\tEND\tLAG\tCLIENT\tHOST\tMEMBER")
		for _, p := range r.Partitions {
			fmt.Fprintf(w, "%s\t%d\t%s\t%d\t%s\t%s\t%s\t%s\n", p.Topic, p.Partition, known(p.Committed), p.End, known(p.Lag), dash(p.Client), dash(p.Host), dash(p.Member))
		}
	}
	return w.Flush()
}

func dash(s string) string { return cmp.Or(s, "-") }

func known(n int64) string {
	if n < 0 {
		return "-"
	}
	return strconv.FormatInt(n, 10)
}

type memberReport struct {
	Group      string             `json:"group"`
	Member     string             `json:"member"`
	Instance   string             `json:"instance,omitempty"` // of a static member
	Client     string             `json:"client"`
	Host       string             `json:"host"`
	Partitions map[string][]int32 `json:"partitions"`
}

func groupMembers(c *cli.Context) error {
	groups, err := groupArgs(c)
	if err != nil {
		return err
	}
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	described, err := adm.DescribeGroups(c.Context, groups...)
	if err != nil {
		return fmt.Errorf("describe groups: %s", cause(err))
	}
	reports := []memberReport{}
	for _, g := range described.Sorted() {
		if g.Err != nil {
			return fmt.Errorf("group %s: %s", g.Group, cause(g.Err))
		}
		for _, m := range g.Members {
			r := memberReport{Group: g.Group, Member: m.MemberID, Client: m.ClientID, Host: strings.TrimPrefix(m.ClientHost, "/"), Partitions: map[string][]int32{}}
			if m.InstanceID != nil {
				r.Instance = *m.InstanceID
			}
			if a, ok := m.Assigned.AsConsumer(); ok {
				for _, t := range a.Topics {
					r.Partitions[t.Topic] = slices.Sorted(slices.Values(t.Partitions))
				}
			}
			reports = append(reports, r)
		}
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, reports)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tMEMBER\tINSTANCE\tCLIENT\tHOST\tPARTITIONS")
	for _, r := range reports {
		var parts []string
		for _, t := range slices.Sorted(maps.Keys(r.Partitions)) {
			parts = append(parts, t+":"+numbers(r.Partitions[t]))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", r.Group, r.Member, dash(r.Instance), r.Client, r.Host, dash(strings.Join(parts, " ")))
	}
	return w.Flush()
}

func deleteGroups(c *cli.Context) error {
	groups, err := groupArgs(c)
	if err != nil {
		return err
	}
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	gone, err := adm.DeleteGroups(c.Context, groups...)
	if err != nil && len(gone) == 0 {
		return fmt.Errorf("delete groups: %s", cause(err))
	}
	for _, g := range gone.Sorted() {
		switch {
		case g.Err == nil:
			fmt.Fprintf(c.App.Writer, "%s deleted\n", g.Group)
		case c.Bool("if-exists") && errors.Is(g.Err, kerr.GroupIDNotFound):
			fmt.Fprintf(c.App.Writer, "%s does not exist\n", g.Group)
		case errors.Is(g.Err, kerr.NonEmptyGroup):
			return fmt.Errorf("group %s has members: stop its consumers first ('ottla groups members %s')", g.Group, g.Group)
		default:
			return fmt.Errorf("group %s: %s", g.Group, cause(g.Err))
		}
	}
	return nil
}

// move is one committed offset that is to become another.
type move struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	From      int64  `json:"from"` // -1: none
	To        int64  `json:"to"`
}

func resetOffsets(c *cli.Context) error {
	groups, err := groupArgs(c)
	switch {
	case err != nil:
		return err
	case len(groups) != 1:
		return usagef("reset-offsets takes one group at a time")
	case c.IsSet("to") == c.IsSet("by"):
		return usagef("say where to: either --to or --by; see '%s --help'", c.Command.HelpName)
	}
	group := groups[0]
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	moves, err := planReset(c, adm, group)
	if err != nil {
		return err
	}
	if len(moves) == 0 {
		return fmt.Errorf("group %s has no committed offsets there; --topic names a topic", group)
	}
	if c.Bool("execute") {
		if err := commitMoves(c, adm, group, moves); err != nil {
			return err
		}
	}
	return showMoves(c, moves, c.Bool("execute"))
}

func showMoves(c *cli.Context, moves []move, done bool) error {
	if c.Bool("json") {
		return printJSON(c.App.Writer, moves)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOPIC\tPARTITION\tFROM\tTO")
	for _, m := range moves {
		fmt.Fprintf(w, "%s\t%d\t%s\t%d\n", m.Topic, m.Partition, known(m.From), m.To)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !done {
		fmt.Fprintln(c.App.Writer, "Nothing was changed; --execute does it.")
	}
	return nil
}

func commitMoves(c *cli.Context, adm *kadm.Client, group string, moves []move) error {
	offsets := kadm.Offsets{}
	for _, m := range moves {
		offsets.AddOffset(m.Topic, m.Partition, m.To, -1)
	}
	err := adm.CommitAllOffsets(c.Context, group, offsets)
	if errors.Is(err, kerr.UnknownMemberID) {
		return fmt.Errorf("group %s has members: stop its consumers first ('ottla groups members %s')", group, group)
	}
	if err != nil {
		return fmt.Errorf("commit offsets of group %s: %s", group, cause(err))
	}
	return nil
}

// planReset decides where each partition's offset goes, always within the log.
func planReset(c *cli.Context, adm *kadm.Client, group string) ([]move, error) {
	committed, err := adm.FetchOffsets(c.Context, group)
	if err != nil {
		return nil, fmt.Errorf("group %s: %s", group, cause(err))
	}
	wanted, topics, err := resetTopics(c.StringSlice("topic"), committed)
	if err != nil || len(topics) == 0 {
		return nil, err
	}
	starts, err := adm.ListStartOffsets(c.Context, topics...)
	if err != nil {
		return nil, fmt.Errorf("start offsets: %s", cause(err))
	}
	ends, err := adm.ListEndOffsets(c.Context, topics...)
	if err != nil {
		return nil, fmt.Errorf("end offsets: %s", cause(err))
	}
	target, err := resetTarget(c, adm, topics, starts, ends)
	if err != nil {
		return nil, err
	}
	var moves []move
	for _, topic := range topics {
		for p := range ends[topic] {
			if !wanted(topic, p) {
				continue
			}
			if err := ends[topic][p].Err; err != nil {
				return nil, fmt.Errorf("topic %s: %s", topic, cause(err))
			}
			m := move{Topic: topic, Partition: p, From: -1}
			if o, ok := committed.Lookup(topic, p); ok && o.Err == nil {
				m.From = o.At
			}
			m.To = target(m)
			m.To = max(starts[topic][p].Offset, min(m.To, ends[topic][p].Offset))
			moves = append(moves, m)
		}
	}
	slices.SortFunc(moves, func(a, b move) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	return moves, nil
}

// resetTopics reads --topic; without it all partitions count that the group has committed.
func resetTopics(args []string, committed kadm.OffsetResponses) (wanted func(string, int32) bool, topics []string, err error) {
	if len(args) == 0 {
		return func(topic string, p int32) bool { _, ok := committed.Lookup(topic, p); return ok }, slices.Sorted(maps.Keys(committed)), nil
	}
	parts := map[string][]int32{}
	for _, arg := range args {
		topic, list, some := strings.Cut(arg, ":")
		parts[topic] = nil
		if !some {
			continue
		}
		for _, text := range strings.Split(list, ",") {
			p, err := strconv.ParseInt(text, 10, 32)
			if err != nil {
				return nil, nil, usagef("--topic %s: want TOPIC or TOPIC:PARTITION,…", arg)
			}
			parts[topic] = append(parts[topic], int32(p))
		}
	}
	return func(topic string, p int32) bool {
		list := parts[topic]
		return list == nil || slices.Contains(list, p)
	}, slices.Sorted(maps.Keys(parts)), nil
}

// resetTarget reads --to and --by.
func resetTarget(c *cli.Context, adm *kadm.Client, topics []string, starts, ends kadm.ListedOffsets) (func(move) int64, error) {
	if c.IsSet("by") {
		return func(m move) int64 { return max(m.From, 0) + c.Int64("by") }, nil
	}
	to := c.String("to")
	switch to {
	case "earliest":
		return func(m move) int64 { return starts[m.Topic][m.Partition].Offset }, nil
	case "latest":
		return func(m move) int64 { return ends[m.Topic][m.Partition].Offset }, nil
	case "current":
		return func(m move) int64 {
			if m.From < 0 {
				return ends[m.Topic][m.Partition].Offset
			}
			return m.From
		}, nil
	}
	if offset, err := strconv.ParseInt(to, 10, 64); err == nil {
		return func(move) int64 { return offset }, nil
	}
	when, err := time.Parse(time.RFC3339, to)
	if err != nil {
		return nil, usagef("--to %s: want earliest, latest, current, an offset, or a time such as 2026-01-31T12:00:00Z", to)
	}
	after, err := adm.ListOffsetsAfterMilli(c.Context, when.UnixMilli(), topics...)
	if err != nil {
		return nil, fmt.Errorf("offsets after %s: %s", to, cause(err))
	}
	return func(m move) int64 { return after[m.Topic][m.Partition].Offset }, nil
}
