// Package coordlog is what coordinators share: state that lives in a compacted topic of the cluster, of which each partition is
// coordinated by the broker that leads it. Leadership loads the partition's records, resignation drops what was loaded.
//
//	Shards   the partitions that this broker leads: loading, unloading, look-up
//	Shard    one of them, while it is led without a break; after a break there is a new shard, so what was decided in the old
//	         one can neither be written nor be answered as done
//	Writer   appends with acks=all, in the order of the decisions
//	Read     the records from the log's start to its end
package coordlog
