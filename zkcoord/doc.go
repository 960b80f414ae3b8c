// Package zkcoord is the broker's view of ZooKeeper: sessions, paths, payloads, watches and conditional writes, laid out
// exactly as Kafka 3.9 lays them out, so that Kafka brokers, its tools and zkCli read the same cluster.
//
// A Client keeps one session open, and opens the next one when a session has expired. A Session is one of them; whatever is
// planned in a session runs in that session or not at all. Payload families (brokers, controller, topics, configs, …) are
// functions over a Session, one file each, so that they run unchanged over zktest's tree in memory.
//
// Encodings: compact JSON, UTF-8, keys in the order Kafka usually writes. Decoding is as strict as Kafka's own: an int is a JSON
// integer within int32, a string is quoted, nothing is coerced, unknown keys are ignored. Payloads are foreign input: decoders
// return errors, never panic.
package zkcoord
