package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

var kafkaConsumerGroups = kafkaScript{
	about:  "list, describe, delete and reset consumer groups",
	values: "bootstrap-server command-config group topic to-offset to-datetime shift-by timeout state",
	flags: "list describe delete reset-offsets delete-offsets all-groups all-topics members offsets state verbose to-earliest to-latest to-current " +
		"dry-run execute",
	run: runKafkaConsumerGroups,
}

func runKafkaConsumerGroups(c *kafkaCall) error {
	action, err := c.action("list", "describe", "delete", "reset-offsets", "delete-offsets")
	if err != nil {
		return err
	}
	adm, err := c.admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	listed, err := adm.ListGroups(c.ctx)
	if err != nil {
		return errors.New(cause(err))
	}
	if action == "list" {
		for _, g := range listed.Sorted() {
			switch want := c.value("state"); {
			case !c.has("state"):
				fmt.Fprintln(c.out, g.Group)
			case want == "" || slices.Contains(strings.Split(strings.ToLower(want), ","), strings.ToLower(g.State)):
				fmt.Fprintf(c.out, "%s\t%s\n", g.Group, g.State)
			}
		}
		return nil
	}
	groups := c.values["group"]
	if c.flags["all-groups"] {
		groups = listed.Groups()
	}
	if len(groups) == 0 {
		return errors.New("option --group, or --all-groups, is missing")
	}
	switch action {
	case "describe":
		return c.describeGroups(adm, groups)
	case "delete":
		return c.deleteGroups(adm, groups)
	case "reset-offsets":
		return c.resetGroup(adm, groups[0])
	}
	return c.deleteGroupOffsets(adm, groups[0])
}

func (c *kafkaCall) describeGroups(adm *kadm.Client, groups []string) error {
	lags, err := adm.Lag(c.ctx, groups...)
	if err != nil && len(lags) == 0 {
		return errors.New(cause(err))
	}
	for _, g := range lags.Sorted() {
		if err := g.Error(); err != nil {
			return fmt.Errorf("group %s: %s", g.Group, cause(err))
		}
		if g.State == "Dead" {
			return fmt.Errorf("Consumer group '%s' does not exist.", g.Group)
		}
		if len(g.Members) == 0 {
			fmt.Fprintf(c.err, "\nConsumer group '%s' has no active members.\n", g.Group)
		}
		w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(w)
		switch {
		case c.flags["state"]:
			fmt.Fprintf(w, "GROUP\tCOORDINATOR (ID)\tASSIGNMENT-STRATEGY\tSTATE\t#MEMBERS\n%s\t%s:%d (%d)\t%s\t%s\t%d\n",
				g.Group, g.Coordinator.Host, g.Coordinator.Port, g.Coordinator.NodeID, g.Protocol, g.State, len(g.Members))
		case c.flags["members"]:
			fmt.Fprintln(w, "GROUP\tCONSUMER-ID\tHOST\tCLIENT-ID\t#PARTITIONS")
			for _, m := range g.Members {
				n := 0
				if a, ok := m.Assigned.AsConsumer(); ok {
					for _, t := range a.Topics {
						n += len(t.Partitions)
					}
				}
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\n", g.Group, m.MemberID, m.ClientHost, m.ClientID, n)
			}
		default:
			fmt.Fprintln(w, "GROUP\tTOPIC\tPARTITION\tCURRENT-OFFSET\tLOG-END-OFFSET\tLAG\tCONSUMER-ID\tHOST\tCLIENT-ID")
			for _, p := range g.Lag.Sorted() {
				member, host, client := "-", "-", "-"
				if p.Member != nil {
					member, host, client = p.Member.MemberID, p.Member.ClientHost, p.Member.ClientID
				}
				fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%d\t%s\t%s\t%s\t%s\n", g.Group, p.Topic, p.Partition, known(p.Commit.At), p.End.Offset, known(p.Lag), member, host, client)
			}
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	return nil
}

func (c *kafkaCall) deleteGroups(adm *kadm.Client, groups []string) error {
	gone, err := adm.DeleteGroups(c.ctx, groups...)
	if err != nil {
		return errors.New(cause(err))
	}
	for _, g := range gone.Sorted() {
		if g.Err != nil {
			return fmt.Errorf("Group '%s' could not be deleted due to: %s", g.Group, cause(g.Err))
		}
	}
	fmt.Fprintf(c.out, "Deletion of requested consumer groups ('%s') was successful.\n", strings.Join(groups, "', '"))
	return nil
}

// chosen reads --topic T or T:0,1 against what the group has committed.
func (c *kafkaCall) chosen(adm *kadm.Client, committed kadm.OffsetResponses) (kadm.TopicsSet, error) {
	set := kadm.TopicsSet{}
	if c.flags["all-topics"] {
		committed.Each(func(o kadm.OffsetResponse) { set.Add(o.Topic, o.Partition) })
		return set, nil
	}
	if len(c.values["topic"]) == 0 {
		return nil, errors.New("one of the reset scopes should be defined: --all-topics, --topic")
	}
	for _, text := range c.values["topic"] {
		topic, list, some := strings.Cut(text, ":")
		if !some {
			details, err := adm.ListTopicsWithInternal(c.ctx, topic)
			if err != nil {
				return nil, errors.New(cause(err))
			}
			set.Add(topic, details[topic].Partitions.Numbers()...)
			continue
		}
		for n := range strings.SplitSeq(list, ",") {
			p, err := strconv.ParseInt(n, 10, 32)
			if err != nil {
				return nil, fmt.Errorf("--topic %s: %q is no partition", text, n)
			}
			set.Add(topic, int32(p))
		}
	}
	return set, nil
}

func (c *kafkaCall) resetGroup(adm *kadm.Client, group string) error {
	to, err := c.action("to-earliest", "to-latest", "to-current", "to-offset", "to-datetime", "shift-by")
	if err != nil {
		return err
	}
	described, err := adm.DescribeGroups(c.ctx, group)
	if err != nil {
		return errors.New(cause(err))
	}
	if state := described[group].State; state != "Empty" && state != "Dead" {
		return fmt.Errorf("Assignments can only be reset if the group '%s' is inactive, but the current state is %s.", group, state)
	}
	committed, err := adm.FetchOffsets(c.ctx, group)
	if err != nil {
		return errors.New(cause(err))
	}
	set, err := c.chosen(adm, committed)
	if err != nil {
		return err
	}
	next, err := c.targets(adm, to, set, committed)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tTOPIC\tPARTITION\tNEW-OFFSET")
	for _, o := range next.Sorted() {
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\n", group, o.Topic, o.Partition, o.At)
	}
	if c.flags["execute"] {
		if err := adm.CommitAllOffsets(c.ctx, group, next); err != nil {
			return errors.New(cause(err))
		}
	}
	return w.Flush()
}

// targets are the offsets that the partitions of set are moved to, kept within their logs.
func (c *kafkaCall) targets(adm *kadm.Client, to string, set kadm.TopicsSet, committed kadm.OffsetResponses) (kadm.Offsets, error) {
	starts, err := adm.ListStartOffsets(c.ctx, set.Topics()...)
	if err != nil {
		return nil, errors.New(cause(err))
	}
	ends, err := adm.ListEndOffsets(c.ctx, set.Topics()...)
	if err != nil {
		return nil, errors.New(cause(err))
	}
	aim := ends
	fixed, by := int64(-1), int64(0)
	switch to {
	case "to-earliest":
		aim = starts
	case "to-offset":
		fixed, err = strconv.ParseInt(c.value(to), 10, 64)
	case "shift-by":
		by, err = strconv.ParseInt(c.value(to), 10, 64)
	case "to-datetime":
		var at time.Time
		if at, err = kafkaTime(c.value(to)); err == nil {
			aim, err = adm.ListOffsetsAfterMilli(c.ctx, at.UnixMilli(), set.Topics()...)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("--%s %s: %w", to, c.value(to), err)
	}
	next := kadm.Offsets{}
	for _, t := range set.Sorted() {
		for _, p := range t.Partitions {
			start, _ := starts.Lookup(t.Topic, p)
			end, _ := ends.Lookup(t.Topic, p)
			target, _ := aim.Lookup(t.Topic, p)
			offset := target.Offset
			now, there := committed.Lookup(t.Topic, p)
			switch {
			case fixed >= 0:
				offset = fixed
			case to == "shift-by" && !there:
				return nil, fmt.Errorf("Cannot shift offset for partition %s-%d since there is no current committed offset", t.Topic, p)
			case to == "shift-by":
				offset = now.At + by
			case to == "to-current" && there:
				offset = now.At
			}
			next.AddOffset(t.Topic, p, min(max(offset, start.Offset), end.Offset), -1)
		}
	}
	return next, nil
}

// kafkaTime reads YYYY-MM-DDThh:mm:ss.sss with or without zone.
func kafkaTime(text string) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.000Z0700", "2006-01-02T15:04:05.999"} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errors.New("want YYYY-MM-DDThh:mm:ss.sss")
}

func (c *kafkaCall) deleteGroupOffsets(adm *kadm.Client, group string) error {
	committed, err := adm.FetchOffsets(c.ctx, group)
	if err != nil {
		return errors.New(cause(err))
	}
	set, err := c.chosen(adm, committed)
	if err != nil {
		return err
	}
	gone, err := adm.DeleteOffsets(c.ctx, group, set)
	if err != nil {
		return errors.New(cause(err))
	}
	for topic, partitions := range gone {
		for p, err := range partitions {
			if err != nil {
				return fmt.Errorf("%s-%d: %s", topic, p, cause(err))
			}
		}
	}
	fmt.Fprintf(c.out, "Request succeed for deleting offsets from group %s.\n", group)
	return nil
}
