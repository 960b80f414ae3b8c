package main

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var kafkaGetOffsets = kafkaScript{
	about:  "get the offsets of topics",
	values: "bootstrap-server broker-list command-config topic topic-partitions partitions time",
	flags:  "exclude-internal-topics",
	run:    runKafkaGetOffsets,
}

func runKafkaGetOffsets(c *kafkaCall) error {
	adm, err := c.admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	topics, err := c.findTopics(adm, true)
	if err != nil {
		return err
	}
	var names []string
	for _, t := range topics {
		names = append(names, t.Topic)
	}
	if len(names) == 0 {
		return nil
	}
	var listed kadm.ListedOffsets
	switch at := c.value("time"); at {
	case "", "-1", "latest":
		listed, err = adm.ListEndOffsets(c.ctx, names...)
	case "-2", "earliest":
		listed, err = adm.ListStartOffsets(c.ctx, names...)
	case "-3", "max-timestamp":
		listed, err = adm.ListMaxTimestampOffsets(c.ctx, names...)
	default:
		ms, bad := strconv.ParseInt(at, 10, 64)
		if bad != nil {
			return fmt.Errorf("--time %s: want earliest, latest, max-timestamp or milliseconds since 1970", at)
		}
		listed, err = adm.ListOffsetsAfterMilli(c.ctx, ms, names...)
	}
	if err != nil {
		return errors.New(cause(err))
	}
	only := strings.FieldsFunc(c.value("partitions"), func(r rune) bool { return r == ',' })
	for _, t := range sortedKeys(listed) {
		for _, o := range slices.SortedFunc(values(listed[t]), func(a, b kadm.ListedOffset) int { return int(a.Partition - b.Partition) }) {
			if len(only) > 0 && !slices.Contains(only, strconv.Itoa(int(o.Partition))) {
				continue
			}
			fmt.Fprintf(c.out, "%s:%d:%d\n", o.Topic, o.Partition, o.Offset)
		}
	}
	return nil
}

func values(m map[int32]kadm.ListedOffset) func(func(kadm.ListedOffset) bool) {
	return func(yield func(kadm.ListedOffset) bool) {
		for _, v := range m {
			if !yield(v) {
				return
			}
		}
	}
}

var kafkaBrokerAPIVersions = kafkaScript{
	about:  "show which requests the brokers speak in which versions",
	values: "bootstrap-server command-config",
	run:    runKafkaBrokerAPIVersions,
}

func runKafkaBrokerAPIVersions(c *kafkaCall) error {
	adm, err := c.admin()
	if err != nil {
		return err
	}
	defer adm.Close()
	brokers, err := adm.ListBrokers(c.ctx)
	if err != nil {
		return errors.New(cause(err))
	}
	versions, err := adm.ApiVersions(c.ctx)
	if err != nil {
		return errors.New(cause(err))
	}
	for _, b := range brokers {
		v, ok := versions[b.NodeID]
		if !ok || v.Err != nil {
			fmt.Fprintf(c.out, "%s:%d (id: %d) -> ERROR: %v\n", b.Host, b.Port, b.NodeID, v.Err)
			continue
		}
		var lines []string
		v.EachKeySorted(func(key, min, max int16) {
			lines = append(lines, fmt.Sprintf("\t%s(%d): %d to %d", kmsg.NameForKey(key), key, min, max))
		})
		fmt.Fprintf(c.out, "%s:%d (id: %d rack: %s isFenced: false) -> (\n%s\n)\n", b.Host, b.Port, b.NodeID, rackOf(b.Rack), strings.Join(lines, ",\n"))
	}
	return nil
}

func rackOf(rack *string) string {
	if rack == nil {
		return "null"
	}
	return *rack
}

// kafkaServerStart runs a broker: kafka-server-start.sh [-daemon] server.properties [--override key=value]…
func kafkaServerStart() kafkaScript {
	return kafkaScript{
		about:   "run a broker: [server.properties] [--override key=value]…",
		noNames: true,
		run: func(c *kafkaCall) error {
			args := []string{"ottla", "supervise"}
			for _, a := range c.args {
				if a != "-daemon" && a != "--daemon" {
					args = append(args, a)
				}
			}
			if code := run(c.ctx, args, c.in, c.out, c.err); code != exitDone {
				return fmt.Errorf("the broker ended with exit code %d", code)
			}
			return nil
		},
	}
}
