package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/urfave/cli/v2"
)

func produceCommand() *cli.Command {
	return command(&cli.Command{
		Name: "produce", Usage: "send lines to a topic", ArgsUsage: "TOPIC [FILE …]",
		Description: `Each line of the files, or of standard input, is one record.

  echo hello | ottla produce greetings
  ottla produce orders orders.txt --key-separator :
  ottla produce orders --header source=shop --compression zstd < orders.txt`,
		Flags: clientFlags(
			&cli.StringFlag{Name: "key-separator", Aliases: []string{"k"}, Usage: "what stands between key and value; without it records have no key"},
			&cli.StringSliceFlag{Name: "header", Usage: "`NAME=VALUE` for every record"},
			&cli.StringFlag{Name: "compression", Value: "none", Usage: "none, gzip, snappy, lz4 or zstd"},
			&cli.StringFlag{Name: "acks", Value: "all", Usage: "all, 1 or 0"},
			&cli.IntFlag{Name: "partition", Value: -1, Usage: "send to this partition only"},
		),
		Action: produce,
	})
}

func produceOptions(c *cli.Context, topic string) ([]kgo.Opt, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	codec, ok := codecs[c.String("compression")]
	if !ok {
		return nil, usagef("--compression %s: want none, gzip, snappy, lz4 or zstd", c.String("compression"))
	}
	options := []kgo.Opt{kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(codec), kgo.AllowAutoTopicCreation(), kgo.RecordDeliveryTimeout(c.Duration("timeout"))}
	switch c.String("acks") {
	case "all", "-1":
	case "1":
		options = append(options, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	case "0":
		options = append(options, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	default:
		return nil, usagef("--acks %s: want all, 1 or 0", c.String("acks"))
	}
	if c.Int("partition") >= 0 {
		options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	return options, nil
}

func produce(c *cli.Context) error {
	if !c.Args().Present() {
		return usagef("which topic? see 'ottla produce --help'")
	}
	topic, files := c.Args().First(), c.Args().Tail()
	options, err := produceOptions(c, topic)
	if err != nil {
		return err
	}
	var headers []kgo.RecordHeader
	for _, kv := range c.StringSlice("header") {
		k, v, ok := strings.Cut(kv, "=")
		if !ok {
			return usagef("--header %s: want NAME=VALUE", kv)
		}
		headers = append(headers, kgo.RecordHeader{Key: k, Value: []byte(v)})
	}
	cl, err := client(c, options...)
	if err != nil {
		return err
	}
	defer cl.Close()
	s := &sender{cl: cl, topic: topic, ctx: c.Context, separator: c.String("key-separator"), headers: headers, partition: int32(c.Int("partition"))}
	began := time.Now()
	if len(files) == 0 {
		err = s.send(c.App.Reader)
	}
	for _, name := range files {
		f, openErr := os.Open(name)
		if openErr != nil {
			return openErr
		}
		err = s.send(f)
		_ = f.Close()
		if err != nil {
			break
		}
	}
	if flushed := cl.Flush(c.Context); err == nil {
		err = flushed
	}
	if err = s.result(err); err != nil {
		return fmt.Errorf("topic %s: %s (%d records were acknowledged)", topic, cause(err), s.acked)
	}
	fmt.Fprintf(c.App.ErrWriter, "%d records, %d bytes in %.2f s\n", s.acked, s.bytes, time.Since(began).Seconds())
	return nil
}

// sender sends lines and remembers the first failure.
type sender struct {
	cl        *kgo.Client
	topic     string
	ctx       context.Context
	separator string
	headers   []kgo.RecordHeader
	partition int32

	mu    sync.Mutex
	acked int
	bytes int
	err   error
}

const lineBytesMax = 64 << 20

func (s *sender) send(in io.Reader) error {
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, lineBytesMax)
	for lines.Scan() {
		if err := s.result(nil); err != nil {
			return err
		}
		r := &kgo.Record{Value: append([]byte(nil), lines.Bytes()...), Headers: s.headers}
		if s.separator != "" {
			k, v, ok := strings.Cut(lines.Text(), s.separator)
			if ok {
				r.Key, r.Value = []byte(k), []byte(v)
			}
		}
		if s.partition >= 0 {
			r.Partition = s.partition
		}
		s.cl.Produce(s.ctx, r, s.done)
	}
	return lines.Err()
}

func (s *sender) done(r *kgo.Record, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && s.err == nil {
		s.err = err
	}
	if err == nil {
		s.acked++
		s.bytes += len(r.Key) + len(r.Value)
	}
}

func (s *sender) result(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return err
}
