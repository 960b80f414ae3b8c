package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/urfave/cli/v2"
)

func demoCommand() *cli.Command {
	return command(&cli.Command{
		Name: "demo", Usage: "send the Go source tree through the cluster and compare it byte for byte",
		Description: `Every line of the Go standard library's source tree becomes a record (key: the file's path). They are consumed again,
put together per file, and compared with the tree on disk by SHA-256.

  ottla demo
  ottla demo --kill-leader
  ottla demo --bootstrap kafka1:9092 --partitions 12 --tree /usr/local/go/src`,
		Flags: clientFlags(
			&cli.StringFlag{Name: "topic", Value: "go-source", Usage: "topic to use; it is deleted first"},
			&cli.IntFlag{Name: "partitions", Value: 12, Usage: "over how many partitions"},
			&cli.StringFlag{Name: "tree", Usage: "`FOLDER` to send (default: the source of the Go installation)"},
			&cli.StringFlag{Name: "compression", Value: "none", Usage: "none, gzip, snappy, lz4 or zstd"},
			&cli.BoolFlag{Name: "kill-leader", Usage: "kill -9 a leader on the way, and start it again (local clusters only)"},
		),
		Action: demo,
	})
}

func demo(c *cli.Context) error {
	tree, err := sourceTree(c.String("tree"))
	if err != nil {
		return err
	}
	topic := c.String("topic")
	adm, err := admin(c)
	if err != nil {
		return err
	}
	defer adm.Close()
	if err := freshTopic(c, adm, topic); err != nil {
		return err
	}
	d := &demonstration{c: c, topic: topic, tree: tree, out: c.App.Writer, sums: map[string][sha256.Size]byte{}}
	kill, err := planKill(c, adm, topic)
	if err != nil {
		return err
	}
	if err := d.produce(); err != nil {
		return err
	}
	if err := kill.finish(); err != nil {
		return err
	}
	return d.consume(adm)
}

// sourceTree is the folder to send.
func sourceTree(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	text, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", errors.New("no Go installation was found: name another folder with --tree")
	}
	root := strings.TrimSpace(string(text))
	return filepath.Join(root, "src"), nil
}

// demoBatchMax admits the longest line of the tree, which has more than a megabyte (time/tzdata).
const demoBatchMax = 2 << 20

// freshTopic makes the topic anew, so that only this run's records are in it.
func freshTopic(c *cli.Context, adm *kadm.Client, topic string) error {
	deadline := time.Now().Add(c.Duration("timeout"))
	if _, err := adm.DeleteTopic(c.Context, topic); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("delete topic %s: %s", topic, cause(err))
	}
	for {
		largest := strconv.Itoa(demoBatchMax)
		_, err := adm.CreateTopic(c.Context, int32(c.Int("partitions")), -1, map[string]*string{"max.message.bytes": &largest}, topic)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("create topic %s: %s", topic, cause(err))
		}
		time.Sleep(100 * time.Millisecond) // its deletion is still under way
	}
}

// demonstration is one run of the corpus.
type demonstration struct {
	c     *cli.Context
	topic string
	tree  string
	out   io.Writer
	sums  map[string][sha256.Size]byte // of the files on disk, by path

	records, bytes atomic.Int64
}

func (d *demonstration) produce() error {
	options, err := d.options()
	if err != nil {
		return err
	}
	cl, err := client(d.c, options...)
	if err != nil {
		return err
	}
	defer cl.Close()
	began := time.Now()
	p := newProgress(d.out)
	ctx, fail := context.WithCancelCause(d.c.Context)
	defer fail(nil)
	acknowledged := func(r *kgo.Record, err error) {
		if err != nil {
			fail(err)
			return
		}
		d.records.Add(1)
		d.bytes.Add(int64(len(r.Key) + len(r.Value)))
	}
	err = filepath.WalkDir(d.tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		p.show("produced %s", d.rate(began))
		return d.produceFile(ctx, cl, path, acknowledged)
	})
	if err == nil {
		err = cl.Flush(ctx)
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return fmt.Errorf("producing to %s: %s", d.topic, cause(err))
	}
	p.done("produced %s: %s from %s", oneOrMore(len(d.sums), "file"), d.rate(began), d.tree)
	return nil
}

func (d *demonstration) options() ([]kgo.Opt, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	codec, ok := codecs[d.c.String("compression")]
	if !ok {
		return nil, usagef("--compression %s: want none, gzip, snappy, lz4 or zstd", d.c.String("compression"))
	}
	return []kgo.Opt{
		kgo.DefaultProduceTopic(d.topic), kgo.ProducerBatchCompression(codec), kgo.ProducerLinger(5 * time.Millisecond),
		kgo.MaxBufferedRecords(200_000), kgo.ProducerBatchMaxBytes(demoBatchMax - 1024), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
	}, nil
}

// produceFile sends a file's pieces between newlines: joined by newlines they are the file again.
func (d *demonstration) produceFile(ctx context.Context, cl *kgo.Client, path string, done func(*kgo.Record, error)) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	name, err := filepath.Rel(d.tree, path)
	if err != nil {
		return err
	}
	d.sums[name] = sha256.Sum256(content)
	key := []byte(name)
	for line := range bytes.SplitSeq(content, []byte{'\n'}) {
		cl.Produce(ctx, &kgo.Record{Key: key, Value: line}, done)
	}
	return nil
}

func (d *demonstration) rate(began time.Time) string {
	seconds := time.Since(began).Seconds()
	n, b := float64(d.records.Load()), float64(d.bytes.Load())
	return fmt.Sprintf("%.0f records, %.1f MB in %.1f s (%.0f records/s, %.1f MB/s)", n, b/1e6, seconds, n/seconds, b/1e6/seconds)
}

// assembled is a file that is being put together from its records.
type assembled struct {
	hash  hash.Hash
	lines int
}

func (d *demonstration) consume(adm *kadm.Client) error {
	sent := d.records.Swap(0)
	d.bytes.Store(0)
	ends, err := adm.ListEndOffsets(d.c.Context, d.topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return fmt.Errorf("end offsets of %s: %s", d.topic, cause(err))
	}
	cl, err := client(d.c, kgo.ConsumeTopics(d.topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(16<<20), kgo.FetchMaxPartitionBytes(4<<20))
	if err != nil {
		return err
	}
	defer cl.Close()
	began := time.Now()
	p := newProgress(d.out)
	files := map[string]*assembled{}
	var total int64
	ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
	for d.records.Load() < total {
		fetches := cl.PollFetches(d.c.Context)
		if err := fetchError(fetches); err != nil {
			return fmt.Errorf("consuming %s: %s", d.topic, cause(err))
		}
		for iter := fetches.RecordIter(); !iter.Done(); {
			r := iter.Next()
			add(files, r)
			d.records.Add(1)
			d.bytes.Add(int64(len(r.Key) + len(r.Value)))
		}
		p.show("consumed %s", d.rate(began))
	}
	p.done("consumed %s: %s", oneOrMore(len(files), "file"), d.rate(began))
	return d.compare(files, sent)
}

func add(files map[string]*assembled, r *kgo.Record) {
	f := files[string(r.Key)]
	if f == nil {
		f = &assembled{hash: sha256.New()}
		files[string(r.Key)] = f
	} else {
		_, _ = f.hash.Write([]byte{'\n'})
	}
	_, _ = f.hash.Write(r.Value)
	f.lines++
}

// compare holds what came back against the tree.
func (d *demonstration) compare(files map[string]*assembled, sent int64) error {
	var wrong []string
	for name, want := range d.sums {
		f := files[name]
		if f == nil || [sha256.Size]byte(f.hash.Sum(nil)) != want {
			wrong = append(wrong, name)
		}
	}
	for name := range files {
		if _, known := d.sums[name]; !known {
			wrong = append(wrong, name)
		}
	}
	slices.Sort(wrong)
	if got := d.records.Load(); got != sent || len(wrong) > 0 {
		return fmt.Errorf("%d records were acknowledged and %d came back; %s differ%s", sent, got, oneOrMore(len(wrong), "file"), first(wrong))
	}
	fmt.Fprintf(d.out, "identical: %s, every byte as on disk (SHA-256)\n", oneOrMore(len(files), "file"))
	return nil
}

func first(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return ", the first is " + names[0]
}
