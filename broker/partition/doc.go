// Package partition holds this broker's replicas: Partition is one of them, Set is all of them (Kafka: ReplicaManager). It is
// the shell around the rules in broker/replication: it gives them the log, the clock and the requests, and carries out what
// they decide.
//
// # Thread safety
//
// Every exported method may be called from any goroutine. Reads for consumers take no lock: they load the published view
// and the log's own published offsets. Of the locks of a Partition only gate may be held while taking mu, and mu while
// taking Set.active; nothing waits, and no foreign code runs, under any of them. What became ready under a lock is
// collected and delivered after it is released.
//
// # Waiting requests
//
// Produce with acks=all and DeleteRecords wait in their partition, with one timer for the partition while somebody waits.
// Whoever moves the high watermark (the handler of a follower's fetch, as a rule) completes them on its own goroutine.
// Fetches that wait are Waiters and are woken, never polled.
//
// # Cost
//
// A partition on which nothing happens costs no goroutine, timer, or periodic visit: the ISR check walks only partitions
// that have something to check.
package partition
