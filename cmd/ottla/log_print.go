package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/urfave/cli/v2"

	"ottla/logstore/inspect"
)

// How 'ottla log' shows what it found, for people.

func instant(ms int64) string {
	if ms < 0 {
		return "-"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}

func orDash(n int64) string {
	if n < 0 {
		return "-"
	}
	return fmt.Sprint(n)
}

func printCheck(c *cli.Context, r *inspect.Report) {
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "DIRECTORY\tBROKER\tCLUSTER\tSTOPPED\tPARTITIONS\tBYTES")
	for _, d := range r.Directories {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\n", d.Path, orDash(int64(d.BrokerID)), d.ClusterID, stopped(d.Clean), d.Partitions, d.Bytes)
	}
	_ = w.Flush()
	printFindings(c, r.Findings)
	fmt.Fprintf(c.App.Writer, "%d partitions: %d faults, %d that the next start repairs, %d notes\n", len(r.Partitions), r.Count(inspect.Fault), r.Count(inspect.Repaired), r.Count(inspect.Note))
}

func stopped(clean bool) string {
	if clean {
		return "cleanly"
	}
	return "uncleanly, or running"
}

func printFindings(c *cli.Context, list []inspect.Finding) {
	for _, f := range list {
		if f.Severity != inspect.Note || c.Bool("notes") {
			fmt.Fprintln(c.App.Writer, f)
		}
	}
}

func printVerified(c *cli.Context, partitions []*inspect.Partition) {
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PARTITION\tSTART\tEND\tSEGMENTS\tBATCHES\tRECORDS\tBYTES\tFAULTS\tREPAIRED\tNOTES")
	for _, p := range partitions {
		var batches, records int64
		for _, s := range p.Segments {
			batches, records = batches+int64(s.Batches), records+s.Records
		}
		fmt.Fprintf(w, "%s-%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\n", p.Topic, p.Number, p.LogStart, p.LogEnd, len(p.Segments), batches, records, p.Bytes,
			p.Faults(inspect.Fault), p.Faults(inspect.Repaired), p.Faults(inspect.Note))
	}
	_ = w.Flush()
	for _, p := range partitions {
		printFindings(c, p.Findings)
	}
}

func printPartition(c *cli.Context, p *inspect.Partition) {
	out := c.App.Writer
	fmt.Fprintf(out, "%s-%d", p.Topic, p.Number)
	if p.TopicID != "" {
		fmt.Fprintf(out, "  topic id %s", p.TopicID)
	}
	fmt.Fprintf(out, "\noffsets [%d, %d), %d bytes in %d segments\n", p.LogStart, p.LogEnd, p.Bytes, len(p.Segments))
	for _, line := range p.Story() {
		fmt.Fprintln(out, line)
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\nSEGMENT\tEND\tBYTES\tBATCHES\tRECORDS\tCODECS\tOLDEST\tYOUNGEST\tINDEX\tTIMES\tABORTED\tSNAPSHOT")
	for _, s := range p.Segments {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%d\t%d\t%d\t%t\n", s.Base, s.End, s.Bytes, s.Batches, s.Records, codecs(s.Codecs), instant(s.MinTimestamp), instant(s.MaxTimestamp),
			s.IndexEntries, s.TimeEntries, s.Aborted, s.Snapshot)
	}
	fmt.Fprintln(w, "\nLEADER EPOCH\tFROM")
	for _, e := range p.Epochs {
		fmt.Fprintf(w, "%d\t%d\n", e.Epoch, e.Start)
	}
	if len(p.Producers) > 0 {
		fmt.Fprintln(w, "\nPRODUCER\tEPOCH\tLAST SEQUENCE\tLAST OFFSET\tLAST TIME\tTRANSACTION FROM")
	}
	for _, q := range p.Producers {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%s\t%s\n", q.ID, q.Epoch, q.LastSequence, q.LastOffset, instant(q.LastTime), orDash(q.TxnStart))
	}
	_ = w.Flush()
	if len(p.Findings) > 0 {
		fmt.Fprintln(out)
	}
	for _, f := range p.Findings {
		fmt.Fprintln(out, f)
	}
}

func codecs(m map[string]int) string {
	var s []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		s = append(s, fmt.Sprintf("%s:%d", name, m[name]))
	}
	return strings.Join(s, ",")
}

// dumpPrinter prints items a line each, under the name of their file.
type dumpPrinter struct {
	out  io.Writer
	file string
}

func newDumpPrinter(out io.Writer) *dumpPrinter { return &dumpPrinter{out: out} }

func (p *dumpPrinter) print(i inspect.Item) error {
	if i.File != p.file {
		p.file = i.File
		fmt.Fprintln(p.out, i.File)
	}
	var err error
	switch {
	case i.Batch != nil:
		err = p.batch(i.Batch)
	case i.Index != nil:
		_, err = fmt.Fprintf(p.out, "  offset %d  position %d\n", i.Index.Offset, i.Index.Position)
	case i.Time != nil:
		_, err = fmt.Fprintf(p.out, "  timestamp %d  %s  offset %d\n", i.Time.Timestamp, instant(i.Time.Timestamp), i.Time.Offset)
	case i.Aborted != nil:
		a := i.Aborted
		_, err = fmt.Fprintf(p.out, "  producer %d  offsets [%d, %d]  last stable offset %d\n", a.ProducerID, a.FirstOffset, a.LastOffset, a.LastStableOffset)
	case i.Producer != nil:
		q := i.Producer
		_, err = fmt.Fprintf(p.out, "  producer %d  epoch %d  last sequence %d  last offset %d  last time %s  transaction from %s\n", q.ID, q.Epoch, q.LastSequence, q.LastOffset, instant(q.LastTime), orDash(q.TxnStart))
	case i.Epoch != nil:
		_, err = fmt.Fprintf(p.out, "  leader epoch %d  from %d\n", i.Epoch.Epoch, i.Epoch.Start)
	default:
		_, err = fmt.Fprintf(p.out, "  FAULT: %s\n", i.Error)
	}
	return err
}

func (p *dumpPrinter) batch(b *inspect.Batch) error {
	fmt.Fprintf(p.out, "  offsets [%d, %d]  count %d  position %d  size %d  magic %d  %s  epoch %d  %s %s", b.BaseOffset, b.LastOffset, b.Count, b.Position, b.Size, b.Magic, b.Codec, b.LeaderEpoch,
		b.TimestampType, instant(b.MaxTimestamp))
	if b.ProducerID >= 0 {
		fmt.Fprintf(p.out, "  producer %d/%d  sequence %d", b.ProducerID, b.ProducerEpoch, b.BaseSequence)
	}
	if b.Transactional {
		fmt.Fprint(p.out, "  transactional")
	}
	if b.Control != "" {
		fmt.Fprintf(p.out, "  control %s", b.Control)
	}
	if b.DeleteHorizon > 0 {
		fmt.Fprintf(p.out, "  delete horizon %s", instant(b.DeleteHorizon))
	}
	verdict := "  valid"
	if !b.Valid {
		verdict = "  WRONG CHECKSUM"
	}
	if _, err := fmt.Fprintf(p.out, "  crc %08x%s\n", b.CRC, verdict); err != nil {
		return err
	}
	for _, r := range b.Records {
		fmt.Fprintf(p.out, "    offset %d  %s  ", r.Offset, instant(r.Timestamp))
		if r.Text != "" {
			fmt.Fprintln(p.out, r.Text)
			continue
		}
		fmt.Fprintf(p.out, "key %s  value %s", shown(r.Key), shown(r.Value))
		for _, name := range slices.Sorted(maps.Keys(r.Headers)) {
			fmt.Fprintf(p.out, "  header %q=%s", name, shown([]byte(r.Headers[name])))
		}
		fmt.Fprintln(p.out)
	}
	return nil
}

// shown is a record's bytes: text in quotes where it is text, else in hex.
func shown(b []byte) string {
	if b == nil {
		return "null"
	}
	if utf8.Valid(b) {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("0x%x", b)
}
