package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/urfave/cli/v2"

	"ottla/groupcoord"
	"ottla/logstore"
	"ottla/logstore/inspect"
)

func logCommand() *cli.Command {
	return command(&cli.Command{
		Name: "log", Usage: "look into log directories and partitions on this machine's disks; nothing is ever changed",
		Description: `  ottla log check /var/lib/kafka
  ottla log explain /var/lib/kafka/orders-0
  ottla log dump /var/lib/kafka/__consumer_offsets-12 --records`,
		Subcommands: []*cli.Command{
			command(&cli.Command{
				Name: "check", Usage: "find what is inconsistent in whole log directories", ArgsUsage: "DIR …",
				Description: `Reads every byte of every partition: batches, checksums, records, indexes, leader epochs, transaction indexes, producer
snapshots, checkpoints, group records, and what all of them say of one another. Name all entries of log.dirs together.
A 'fault' is something that no start repairs; 'repaired' is what an unclean stop leaves and the next start puts right; a 'note' is
harmless. Exit code 1 with a fault. While a broker runs, the ends of its logs look unfinished.

  ottla log check /var/lib/kafka-1 /var/lib/kafka-2`,
				Flags:  []cli.Flag{jsonFlag(), &cli.BoolFlag{Name: "notes", Usage: "tell harmless things too"}},
				Action: checkLogs,
			}),
			command(&cli.Command{
				Name: "verify", Usage: "find what is inconsistent in single partitions", ArgsUsage: "PARTITION-DIR …",
				Description: `As 'check', for the directories of single partitions.

  ottla log verify /var/lib/kafka/orders-0`,
				Flags:  []cli.Flag{jsonFlag(), &cli.BoolFlag{Name: "notes", Usage: "tell harmless things too"}},
				Action: verifyLogs,
			}),
			command(&cli.Command{
				Name: "explain", Usage: "say what is in a partition and what a start would do with it", ArgsUsage: "PARTITION-DIR",
				Description: `  ottla log explain /var/lib/kafka/orders-0`,
				Flags:       []cli.Flag{jsonFlag()},
				Action:      explainLog,
			}),
			command(&cli.Command{
				Name: "dump", Usage: "print the content of a partition's files", ArgsUsage: "PARTITION-DIR|FILE …",
				Description: `Batches, index entries, aborted transactions, producers and leader epochs, a line each; with --records the records of the
batches, those of __consumer_offsets and __transaction_state in words.

  ottla log dump /var/lib/kafka/orders-0 --from 1000 --max 10 --records
  ottla log dump /var/lib/kafka/orders-0/00000000000000000000.timeindex --json`,
				Flags: []cli.Flag{
					&cli.BoolFlag{Name: "json", Usage: "print a JSON object a line, for machines"},
					&cli.BoolFlag{Name: "records", Usage: "also every record"},
					&cli.Int64Flag{Name: "from", Usage: "the `OFFSET` to begin with"},
					&cli.IntFlag{Name: "max", Usage: "how many batches at most (default: all)"},
				},
				Action: dumpLog,
			}),
		},
	})
}

func inspectOptions(c *cli.Context) inspect.Options {
	o := inspect.Options{Decode: decodeInternal}
	if f, ok := c.App.ErrWriter.(*os.File); ok && isTerminal(f) {
		o.Progress = func(path string, bytes int64) { fmt.Fprintf(f, "\r\x1b[K%s (%d bytes)", path, bytes) }
	}
	return o
}

// endProgress clears the line that Progress wrote.
func endProgress(c *cli.Context) {
	if f, ok := c.App.ErrWriter.(*os.File); ok && isTerminal(f) {
		fmt.Fprint(f, "\r\x1b[K")
	}
}

// decodeInternal puts the records of Kafka's own topics into words.
func decodeInternal(topic string, r logstore.Record) (string, bool, error) {
	switch topic {
	case "__consumer_offsets":
		text, err := groupcoord.Explain(r.Key, r.Value)
		return text, true, err
	case "__transaction_state":
		text, err := explainTransaction(r.Key, r.Value)
		return text, true, err
	}
	return "", false, nil
}

var transactionStates = []string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"}

func explainTransaction(key, value []byte) (string, error) {
	var k kmsg.TxnMetadataKey
	if err := k.ReadFrom(key); err != nil {
		return "", fmt.Errorf("transaction key: %w", err)
	}
	if value == nil {
		return fmt.Sprintf("transactional id %q is removed", k.TransactionalID), nil
	}
	var v kmsg.TxnMetadataValue
	if err := v.ReadFrom(value); err != nil {
		return "", fmt.Errorf("transactional id %q: value: %w", k.TransactionalID, err)
	}
	if int(v.State) < 0 || int(v.State) >= len(transactionStates) {
		return "", fmt.Errorf("transactional id %q: unknown state %d", k.TransactionalID, v.State)
	}
	var parts []string
	for _, t := range v.Topics {
		for _, p := range t.Partitions {
			parts = append(parts, fmt.Sprintf("%s-%d", t.Topic, p))
		}
	}
	return fmt.Sprintf("transactional id %q: %s, producer %d epoch %d, timeout %d ms, partitions [%s]",
		k.TransactionalID, transactionStates[v.State], v.ProducerID, v.ProducerEpoch, v.TimeoutMillis, strings.Join(parts, " ")), nil
}

func checkLogs(c *cli.Context) error {
	if !c.Args().Present() {
		return usagef("which log directory? see 'ottla log check --help'")
	}
	o := inspectOptions(c)
	for _, path := range c.Args().Slice() {
		if !inspect.IsLogDirectory(path, o) {
			return fmt.Errorf("%s is not a log directory (no %s, no checkpoints); for one partition see 'ottla log verify'", path, logstore.MetaPropertiesFile)
		}
	}
	report, err := inspect.CheckDirectories(c.Args().Slice(), o)
	endProgress(c)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if err := printJSON(c.App.Writer, report); err != nil {
			return err
		}
	} else {
		printCheck(c, report)
	}
	if n := report.Count(inspect.Fault); n > 0 {
		return fmt.Errorf("%d faults in %s", n, strings.Join(c.Args().Slice(), ", "))
	}
	return nil
}

func verifyLogs(c *cli.Context) error {
	if !c.Args().Present() {
		return usagef("which partition's directory? see 'ottla log verify --help'")
	}
	partitions := []*inspect.Partition{}
	faults := 0
	for _, path := range c.Args().Slice() {
		p, err := inspect.ReadPartition(path, inspectOptions(c))
		endProgress(c)
		if err != nil {
			return err
		}
		partitions = append(partitions, p)
		faults += p.Faults(inspect.Fault)
	}
	if c.Bool("json") {
		if err := printJSON(c.App.Writer, partitions); err != nil {
			return err
		}
	} else {
		printVerified(c, partitions)
	}
	if faults > 0 {
		return fmt.Errorf("%d faults in %s", faults, strings.Join(c.Args().Slice(), ", "))
	}
	return nil
}

func explainLog(c *cli.Context) error {
	if c.NArg() != 1 {
		return usagef("name one partition's directory; see 'ottla log explain --help'")
	}
	p, err := inspect.ReadPartition(c.Args().First(), inspectOptions(c))
	endProgress(c)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return printJSON(c.App.Writer, p)
	}
	printPartition(c, p)
	return nil
}

func dumpLog(c *cli.Context) error {
	if !c.Args().Present() {
		return usagef("which partition's directory or file? see 'ottla log dump --help'")
	}
	o := inspect.DumpOptions{Options: inspect.Options{Decode: decodeInternal}, Records: c.Bool("records"), From: c.Int64("from"), Max: c.Int("max")}
	give := newDumpPrinter(c.App.Writer).print
	if c.Bool("json") {
		e := json.NewEncoder(c.App.Writer)
		give = func(i inspect.Item) error { return e.Encode(i) }
	}
	for _, path := range c.Args().Slice() {
		if err := inspect.Dump(filepath.Clean(path), o, give); err != nil {
			return err
		}
	}
	return nil
}
