// Package txncoord coordinates transactions: which producer writes under a transactional id, which partitions take part in its
// transaction, and how that ends. It gives exactly-once: a transaction's records, and the offsets of groups that it commits, count
// all together or not at all, and of the producers with one id only the latest counts.
//
// A transactional id belongs to the partition of __transaction_state that it hashes to; the broker that leads this partition
// coordinates it:
//
//	Coordinator   the requests, timeouts, expiry
//	  shard         one led partition of __transaction_state in one leader epoch
//	    entry         one transactional id: a small lock around the pure core
//	      transaction   PURE: the states and what each request does to them
//	  markers       brings COMMIT and ABORT markers to the leaders of the partitions that took part
//
// A request is decided under the entry's lock into the next image of the transaction, which counts once its record is committed;
// until then every other request is told CONCURRENT_TRANSACTIONS. The end of a transaction is decided by its record in the state
// PrepareCommit or PrepareAbort: from there on markers are sent until every partition has one, by whoever coordinates. Markers carry
// the shard's leader epoch, so that those of a former coordinator are refused.
//
// Source: KIP-98, KIP-360, KIP-447, KIP-588, KIP-664, KIP-890 (part 1), KIP-994.
package txncoord
