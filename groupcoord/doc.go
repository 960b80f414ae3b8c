// Package groupcoord coordinates consumer groups: who is a member, who shall read what, and which offsets were committed.
//
// A group belongs to the partition of __consumer_offsets that its id hashes to; the broker that leads this partition
// coordinates it. Leadership loads the partition's records, resignation drops what was loaded:
//
//	Coordinator   look-up, loading, unloading, the requests
//	  shard       one led partition of __consumer_offsets in one leader epoch, with its writer
//	    entry     one group: a small lock around the pure core
//	      group   PURE: membership, generations, timers as deadlines
//	      offsets PURE: what is committed, and what is on its way
//
// A request is decided under the group's lock, by the pure core, into answers and records. The lock is released, the records
// are appended with acks=all in the order of the decisions, and answers that depend on them wait until they are committed.
// One timer serves all groups; an idle group costs its memory only.
//
// Committed offsets live in the topic (offsets.storage=kafka) or below /consumers in ZooKeeper (offsets.storage=zookeeper);
// membership is the same in both. Source: KIP-54, KIP-62, KIP-211, KIP-345, KIP-394, KIP-429, KIP-447, KIP-559, KIP-814.
package groupcoord
