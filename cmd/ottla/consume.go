package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/urfave/cli/v2"
)

func consumeCommand() *cli.Command {
	return command(&cli.Command{
		Name: "consume", Usage: "print a topic's records", ArgsUsage: "TOPIC …",
		Description: `Prints from the beginning to the end and stops; with --follow it goes on with what comes.

  ottla consume greetings
  ottla consume orders --follow --from end
  ottla consume orders --from 2026-11-24T08:00:00Z --format '%p %o %k=%v'
  ottla consume orders --json --max 10`,
		Flags: clientFlags(jsonFlag(),
			&cli.StringFlag{Name: "from", Value: "start", Usage: "start, end, an offset, or a time like 2026-11-24T08:00:00Z"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on with records as they come"},
			&cli.IntFlag{Name: "max", Aliases: []string{"n"}, Usage: "stop after so many records"},
			&cli.IntFlag{Name: "partition", Value: -1, Usage: "read this partition only"},
			&cli.StringFlag{Name: "format", Value: "%v", Usage: "%t topic, %p partition, %o offset, %T timestamp, %k key, %v value, %h headers"},
		),
		Action: consume,
	})
}

func consume(c *cli.Context) error {
	if !c.Args().Present() {
		return usagef("which topic? see 'ottla consume --help'")
	}
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	from, ends, err := span(c, adm)
	if err != nil {
		return err
	}
	cl, err := client(c, kgo.ConsumePartitions(from), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	out := bufio.NewWriterSize(c.App.Writer, 64<<10)
	defer out.Flush()
	print := recordPrinter(c, out)
	left := ends.remaining(from)
	for n := 0; c.Bool("follow") || left > 0; {
		fetches := cl.PollFetches(c.Context)
		if err := fetchError(fetches); err != nil {
			if errors.Is(err, context.Canceled) {
				return nil // the person has seen enough
			}
			return fmt.Errorf("%s", cause(err))
		}
		for iter := fetches.RecordIter(); !iter.Done(); {
			r := iter.Next()
			if !c.Bool("follow") && r.Offset >= ends[r.Topic][r.Partition] {
				continue
			}
			if err := print(r); err != nil {
				return err
			}
			if n++; c.Int("max") > 0 && n >= c.Int("max") {
				return nil
			}
		}
		left = ends.remainingAt(fetches, left)
		if err := out.Flush(); err != nil {
			return nil // nobody reads any more
		}
	}
	return nil
}

func fetchError(fetches kgo.Fetches) error {
	for _, e := range fetches.Errors() {
		if e.Err != nil {
			return e.Err
		}
	}
	return nil
}

// endOffsets are the exclusive ends at which a consumption without --follow stops.
type endOffsets map[string]map[int32]int64

// remaining counts the partitions that are not at their end yet.
func (e endOffsets) remaining(from map[string]map[int32]kgo.Offset) int {
	n := 0
	for t, ps := range from {
		for p, o := range ps {
			if o.EpochOffset().Offset < e[t][p] {
				n++
			}
		}
	}
	return n
}

// remainingAt takes off those partitions whose last record has now come.
func (e endOffsets) remainingAt(fetches kgo.Fetches, left int) int {
	fetches.EachPartition(func(p kgo.FetchTopicPartition) {
		if len(p.Records) == 0 {
			return
		}
		first, last, end := p.Records[0].Offset, p.Records[len(p.Records)-1].Offset, e[p.Topic][p.Partition]
		if first < end && last >= end-1 {
			left--
		}
	})
	return left
}

// span is where to begin and where to stop, for every partition asked for.
func span(c *cli.Context, adm *kadm.Client) (map[string]map[int32]kgo.Offset, endOffsets, error) {
	topics := c.Args().Slice()
	starts, err := adm.ListStartOffsets(c.Context, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %s", strings.Join(topics, ", "), cause(err))
	}
	ends, err := adm.ListEndOffsets(c.Context, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %s", strings.Join(topics, ", "), cause(err))
	}
	begin, err := beginning(c, adm, topics, starts, ends)
	if err != nil {
		return nil, nil, err
	}
	from, stop := map[string]map[int32]kgo.Offset{}, endOffsets{}
	for t, ps := range begin {
		from[t], stop[t] = map[int32]kgo.Offset{}, map[int32]int64{}
		for p, o := range ps {
			if only := c.Int("partition"); only >= 0 && p != int32(only) {
				continue
			}
			from[t][p] = kgo.NewOffset().At(max(o.Offset, starts[t][p].Offset))
			stop[t][p] = ends[t][p].Offset
		}
		if len(from[t]) == 0 {
			return nil, nil, fmt.Errorf("topic %s has no partition %d", t, c.Int("partition"))
		}
	}
	return from, stop, nil
}

func beginning(c *cli.Context, adm *kadm.Client, topics []string, starts, ends kadm.ListedOffsets) (kadm.ListedOffsets, error) {
	from := c.String("from")
	switch from {
	case "start":
		return starts, nil
	case "end":
		return ends, nil
	}
	if n, err := strconv.ParseInt(from, 10, 64); err == nil {
		out := kadm.ListedOffsets{}
		for t, ps := range starts {
			out[t] = map[int32]kadm.ListedOffset{}
			for p, o := range ps {
				o.Offset = n
				out[t][p] = o
			}
		}
		return out, nil
	}
	at, err := time.Parse(time.RFC3339, from)
	if err != nil {
		return nil, usagef("--from %s: want start, end, an offset, or a time like 2026-11-24T08:00:00Z", from)
	}
	found, err := adm.ListOffsetsAfterMilli(c.Context, at.UnixMilli(), topics...)
	if err != nil {
		return nil, fmt.Errorf("offsets at %s: %s", from, cause(err))
	}
	return found, nil
}

type recordJSON struct {
	Topic     string            `json:"topic"`
	Partition int32             `json:"partition"`
	Offset    int64             `json:"offset"`
	Timestamp time.Time         `json:"timestamp"`
	Key       *string           `json:"key"`
	Value     *string           `json:"value"`
	Headers   map[string]string `json:"headers,omitempty"`
}

func recordPrinter(c *cli.Context, out *bufio.Writer) func(*kgo.Record) error {
	if c.Bool("json") {
		e := json.NewEncoder(out)
		return func(r *kgo.Record) error {
			j := recordJSON{r.Topic, r.Partition, r.Offset, r.Timestamp, text(r.Key), text(r.Value), nil}
			for _, h := range r.Headers {
				if j.Headers == nil {
					j.Headers = map[string]string{}
				}
				j.Headers[h.Key] = string(h.Value)
			}
			return e.Encode(j)
		}
	}
	format := c.String("format")
	return func(r *kgo.Record) error {
		if format == "%v" {
			_, _ = out.Write(r.Value)
			return out.WriteByte('\n')
		}
		var headers []string
		for _, h := range r.Headers {
			headers = append(headers, h.Key+"="+string(h.Value))
		}
		_, err := strings.NewReplacer(
			"%t", r.Topic, "%p", strconv.Itoa(int(r.Partition)), "%o", strconv.FormatInt(r.Offset, 10), "%T", strconv.FormatInt(r.Timestamp.UnixMilli(), 10),
			"%k", string(r.Key), "%v", string(r.Value), "%h", strings.Join(headers, ","), `\n`, "\n", `\t`, "\t",
		).WriteString(out, format+"\n")
		return err
	}
}

func text(b []byte) *string {
	if b == nil {
		return nil
	}
	s := string(b)
	return &s
}
