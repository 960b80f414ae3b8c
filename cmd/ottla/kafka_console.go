package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

var kafkaConsoleProducer = kafkaScript{
	about: "send the lines of standard input to a topic",
	values: "bootstrap-server broker-list topic producer.config producer-property property compression-codec request-required-acks request-timeout-ms " +
		"timeout message-send-max-retries retry-backoff-ms max-block-ms batch-size max-partition-memory-bytes max-memory-bytes metadata-expiry-ms " +
		"socket-buffer-size line-reader reader-config",
	flags: "sync compression-codec",
	run:   runConsoleProducer,
}

func runConsoleProducer(c *kafkaCall) error {
	topic := c.value("topic")
	if topic == "" {
		return errors.New("missing required argument: --topic")
	}
	settings, err := c.settings([]string{"producer.config"}, "producer-property")
	if err != nil {
		return err
	}
	read, err := pairs(c.values["property"])
	if err != nil {
		return fmt.Errorf("--property: %w", err)
	}
	options, err := c.producerOptions(settings)
	if err != nil {
		return err
	}
	cl, err := c.client(settings, options...)
	if err != nil {
		return err
	}
	defer cl.Close()
	failed := make(chan error, 1)
	lines := bufio.NewReaderSize(c.in, 64<<10)
	for {
		line, readErr := lines.ReadBytes('\n')
		if len(line) > 0 {
			r, err := recordOf(bytes.TrimSuffix(line, []byte("\n")), read)
			if err != nil {
				return err
			}
			r.Topic = topic
			cl.Produce(c.ctx, r, func(_ *kgo.Record, err error) {
				if err != nil {
					select {
					case failed <- err:
					default:
					}
				}
			})
		}
		if errors.Is(readErr, io.EOF) {
			break
		}
		if readErr != nil {
			return readErr
		}
	}
	if err := cl.Flush(c.ctx); err != nil {
		return err
	}
	select {
	case err := <-failed:
		return fmt.Errorf("Error when sending message to topic %s: %s", topic, cause(err))
	default:
		return nil
	}
}

func (c *kafkaCall) producerOptions(settings map[string]string) ([]kgo.Opt, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	name := cmp.Or(c.value("compression-codec"), settings["compression.type"], "none")
	if c.flags["compression-codec"] && c.value("compression-codec") == "" {
		name = "gzip"
	}
	codec, ok := codecs[name]
	if !ok {
		return nil, fmt.Errorf("--compression-codec %s: want none, gzip, snappy, lz4 or zstd", name)
	}
	options := []kgo.Opt{kgo.ProducerBatchCompression(codec), kgo.AllowAutoTopicCreation(), kgo.RecordDeliveryTimeout(2 * time.Minute), kgo.ProducerLinger(5 * time.Millisecond)}
	switch acks := cmp.Or(c.value("request-required-acks"), settings["acks"], "-1"); acks {
	case "-1", "all":
	case "1":
		options = append(options, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite())
	case "0":
		options = append(options, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite())
	default:
		return nil, fmt.Errorf("acks %s: want all, 1 or 0", acks)
	}
	return options, nil
}

// recordOf makes a record of a line: headers, key and value, as far as the properties say that they are there.
func recordOf(line []byte, property map[string]string) (*kgo.Record, error) {
	r := &kgo.Record{}
	null := property["null.marker"]
	cut := func(what, separator string) ([]byte, error) {
		head, rest, ok := bytes.Cut(line, []byte(separator))
		if !ok {
			if property["ignore.error"] == "true" {
				return nil, nil
			}
			return nil, fmt.Errorf("no %s separator found in line %q", what, line)
		}
		line = rest
		if null != "" && string(head) == null {
			return nil, nil
		}
		return head, nil
	}
	if property["parse.headers"] == "true" {
		text, err := cut("headers", cmp.Or(property["headers.delimiter"], "\t"))
		if err != nil {
			return nil, err
		}
		for pair := range strings.SplitSeq(string(text), cmp.Or(property["headers.separator"], ",")) {
			if k, v, ok := strings.Cut(pair, cmp.Or(property["headers.key.separator"], ":")); ok {
				r.Headers = append(r.Headers, kgo.RecordHeader{Key: k, Value: []byte(v)})
			}
		}
	}
	if property["parse.key"] == "true" {
		key, err := cut("key", cmp.Or(property["key.separator"], "\t"))
		if err != nil {
			return nil, err
		}
		r.Key = key
	}
	if null == "" || string(line) != null {
		r.Value = line
	}
	return r, nil
}

var kafkaConsoleConsumer = kafkaScript{
	about: "print the records of a topic",
	values: "bootstrap-server topic include whitelist partition offset group max-messages timeout-ms consumer.config consumer-property property " +
		"formatter formatter-config isolation-level key-deserializer value-deserializer",
	flags: "from-beginning skip-message-on-error enable-systest-events",
	run:   runConsoleConsumer,
}

func runConsoleConsumer(c *kafkaCall) error {
	settings, err := c.settings([]string{"consumer.config"}, "consumer-property")
	if err != nil {
		return err
	}
	print, err := pairs(c.values["property"])
	if err != nil {
		return fmt.Errorf("--property: %w", err)
	}
	options, err := c.consumerOptions(settings)
	if err != nil {
		return err
	}
	most := -1
	if text := c.value("max-messages"); text != "" {
		if most, err = strconv.Atoi(text); err != nil {
			return fmt.Errorf("--max-messages %s: want a number", text)
		}
	}
	quiet := time.Duration(0)
	if text := c.value("timeout-ms"); text != "" {
		ms, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("--timeout-ms %s: want milliseconds", text)
		}
		quiet = time.Duration(ms) * time.Millisecond
	}
	cl, err := c.client(settings, options...)
	if err != nil {
		return err
	}
	defer cl.Close()
	out := bufio.NewWriter(c.out)
	n, err := c.printRecords(cl, out, print, most, quiet)
	_ = out.Flush()
	if settings["group.id"] != "" || c.has("group") {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), 5*time.Second)
		defer cancel()
		if err := cl.CommitUncommittedOffsets(ctx); err != nil {
			return err
		}
	}
	fmt.Fprintf(c.err, "Processed a total of %d messages\n", n)
	return err
}

func (c *kafkaCall) consumerOptions(settings map[string]string) ([]kgo.Opt, error) {
	topic := c.value("topic")
	pattern := cmp.Or(c.value("include"), c.value("whitelist"))
	if (topic == "") == (pattern == "") {
		return nil, errors.New("exactly one of --include/--topic is required")
	}
	start := kgo.NewOffset().AtEnd()
	if c.flags["from-beginning"] || settings["auto.offset.reset"] == "earliest" {
		start = kgo.NewOffset().AtStart()
	}
	options := []kgo.Opt{kgo.FetchMaxWait(500 * time.Millisecond)}
	if cmp.Or(c.value("isolation-level"), settings["isolation.level"]) == "read_committed" {
		options = append(options, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	if text := c.value("partition"); text != "" {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil || topic == "" {
			return nil, errors.New("--partition wants a number, and a topic")
		}
		switch at := cmp.Or(c.value("offset"), "latest"); at {
		case "earliest":
			start = kgo.NewOffset().AtStart()
		case "latest":
		default:
			offset, err := strconv.ParseInt(at, 10, 64)
			if err != nil || offset < 0 {
				return nil, fmt.Errorf("--offset %s: want earliest, latest or a number", at)
			}
			start = kgo.NewOffset().At(offset)
		}
		return append(options, kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {int32(n): start}})), nil
	}
	if pattern != "" {
		options = append(options, kgo.ConsumeRegex(), kgo.ConsumeTopics("^(?:"+strings.ReplaceAll(pattern, ",", "|")+")$"))
	} else {
		options = append(options, kgo.ConsumeTopics(topic))
	}
	if group := cmp.Or(c.value("group"), settings["group.id"]); group != "" {
		settings["group.id"] = group
		options = append(options, kgo.ConsumerGroup(group), kgo.DisableAutoCommit())
	}
	return append(options, kgo.ConsumeResetOffset(start), kgo.AllowAutoTopicCreation()), nil
}

// printRecords prints until most records have been seen, nothing came for quiet, or the person has seen enough.
func (c *kafkaCall) printRecords(cl *kgo.Client, out *bufio.Writer, print map[string]string, most int, quiet time.Duration) (n int, err error) {
	for most < 0 || n < most {
		ctx, cancel := c.ctx, context.CancelFunc(func() {})
		if quiet > 0 {
			ctx, cancel = context.WithTimeout(c.ctx, quiet)
		}
		left := 10_000
		if most >= 0 {
			left = min(left, most-n)
		}
		fetches := cl.PollRecords(ctx, left)
		cancel()
		for iter := fetches.RecordIter(); !iter.Done(); n++ {
			printRecord(out, iter.Next(), print)
		}
		if err := out.Flush(); err != nil {
			return n, err
		}
		err := fetchError(fetches)
		switch {
		case err == nil || errors.Is(err, kerr.UnknownTopicOrPartition):
		case c.ctx.Err() != nil:
			return n, nil
		case errors.Is(err, context.DeadlineExceeded):
			fmt.Fprintln(c.err, "Timed out waiting for messages")
			return n, nil
		default:
			return n, errors.New(cause(err))
		}
	}
	return n, nil
}

func printRecord(out *bufio.Writer, r *kgo.Record, print map[string]string) {
	separator := cmp.Or(print["key.separator"], "\t")
	null := cmp.Or(print["null.literal"], "null")
	bytesOr := func(b []byte) string {
		if b == nil {
			return null
		}
		return string(b)
	}
	var parts []string
	if print["print.timestamp"] == "true" {
		kind := "CreateTime"
		if r.Attrs.TimestampType() == 1 {
			kind = "LogAppendTime"
		}
		parts = append(parts, kind+":"+strconv.FormatInt(r.Timestamp.UnixMilli(), 10))
	}
	if print["print.partition"] == "true" {
		parts = append(parts, "Partition:"+strconv.Itoa(int(r.Partition)))
	}
	if print["print.offset"] == "true" {
		parts = append(parts, "Offset:"+strconv.FormatInt(r.Offset, 10))
	}
	if print["print.headers"] == "true" {
		var headers []string
		for _, h := range r.Headers {
			headers = append(headers, h.Key+":"+bytesOr(h.Value))
		}
		parts = append(parts, cmp.Or(strings.Join(headers, cmp.Or(print["headers.separator"], ",")), "NO_HEADERS"))
	}
	if print["print.key"] == "true" {
		parts = append(parts, bytesOr(r.Key))
	}
	if print["print.value"] != "false" {
		parts = append(parts, bytesOr(r.Value))
	}
	_, _ = out.WriteString(strings.Join(parts, separator) + cmp.Or(print["line.separator"], "\n"))
}
