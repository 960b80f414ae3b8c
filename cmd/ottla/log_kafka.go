package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// kafkaWriter turns log lines into the shape that log4j gives Kafka's: [time] LEVEL message, facts (component).
type kafkaWriter struct{ out io.Writer }

func (w kafkaWriter) Write(line []byte) (int, error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	var facts map[string]any
	if err := d.Decode(&facts); err != nil {
		return w.out.Write(line)
	}
	take := func(key string) string {
		v, ok := facts[key]
		delete(facts, key)
		if !ok {
			return ""
		}
		return fmt.Sprint(v)
	}
	level, message, component := take("level"), take("message"), take("component")
	take("time")
	if component == "" {
		component = "broker"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[%s] %s %s", time.Now().Format("2006-01-02 15:04:05,000"), strings.ToUpper(level), message)
	for _, key := range slices.Sorted(maps.Keys(facts)) {
		fmt.Fprintf(&b, " %s=%v", key, facts[key])
	}
	fmt.Fprintf(&b, " (%s)\n", component)
	if _, err := io.WriteString(w.out, b.String()); err != nil {
		return 0, err
	}
	return len(line), nil
}
