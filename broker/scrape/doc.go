// Package scrape is what a broker tells Prometheus, besides what the other rooms register themselves.
//
// A request costs a few atomic additions: nothing is looked up by name on its way. What can be read off the broker's state is
// not counted at all, but gathered into a Picture when somebody scrapes. Families turn a Picture into text, one line of the table for each
// metric; text, because a broker with thousands of partitions has a hundred thousand series, which a registry takes a second
// to gather.
//
// The names are those of Kafka's own metrics as the usual rules for the JMX exporter rewrite them, those of kafka_exporter, and, for
// what neither has, ottla_….
package scrape
