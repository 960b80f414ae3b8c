// Package replication holds the rules of replicating one partition: who leads, who is in sync, which records are
// committed, who is fenced, where a log is cut. It is a pure state machine: no I/O, no locks, no clock. Time comes in as an
// Instant, what is known of the cluster comes in as an Env, and what must be done comes back as a value.
//
// # Who calls
//
// One owner (partition.Partition) holds a State under its lock and turns what the methods return into I/O, wake-ups and
// requests. The simulator in the package sim drives the same code with a model of everything else.
//
// # Invariants
//
// The numbers are used in comments, checks and the simulator.
//
//	I1  one leader per epoch      at most one broker appends as leader in a leader epoch of a partition
//	I2  leader completeness       a leader's log holds every record below the true high watermark
//	I3  candidate completeness    so does the log of every member of the ISR in ZooKeeper
//	I4  quorum superset           the leader's maximal ISR contains the ISR in ZooKeeper whenever the high watermark may move
//	I5  log matching              logs that agree on (offset, epoch) of a record agree on everything below it
//	I6  high watermark            the true one never falls; a replica's own never exceeds its log end
//	I7  acknowledged = committed  a positive acks=all answer names records, of the append's own epoch, below the high watermark
//	I8  epochs rise               leader, partition and controller epoch never fall; the epoch cache is strictly increasing
//	I9  clean election            a new leader was in the ISR that it replaces, unless marked as recovering
//	I10 no committed truncation   nothing below the true high watermark is cut, unless the election was unclean
//	I11 visible = committed       consumers see only records below the true high watermark
//	I12 single controller writer  each write of the state passed the controller epoch's check; versions step by one
//	I13 tagged positions          a follower's position counts only if sent in the current leader epoch by its current registration
//	I15 liveness                  with all brokers up: ISR = live assignment, high watermark = log end, nothing pending
//
// State keeps I4 (maximalISR), I6 (advance), I7 (Acknowledged), I8 (Admit) and I13 (RecordFetch) by itself; the truncation
// functions keep I5 and I10; the others need the whole cluster and are checked by the simulator.
//
// Sources: KIP-101, KIP-279, KIP-320 (leader epochs and truncation), KIP-497, KIP-841, KIP-903 (AlterPartition), KIP-227
// (fetch sessions), KIP-966 (no high watermark below min ISR), KIP-207 (offsets after an election).
package replication
