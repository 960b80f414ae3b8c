package groupcoord

import (
	"ottla/internal/cluster"
)

// Committed is one committed offset.
type Committed struct {
	Offset      int64
	LeaderEpoch cluster.LeaderEpoch // of the last record that was handled, NoLeaderEpoch if not told (KIP-320)
	Metadata    string
	CommitMs    int64 // ms since 1970
	ExpireMs    int64 // ms since 1970, of commits with their own retention (versions 2–4), else -1
	at          int64 // offset of the record in __consumer_offsets: the newer one counts
}

// offsets are a group's committed offsets. PURE; the group's entry guards it.
//
// A commit is pending from its decision to its replication, and visible afterwards. Commits of transactions are pending from
// their replication to the end of the transaction, whose marker decides. Source: KIP-98, KIP-447.
type offsets struct {
	topics  map[string]map[int32]Committed
	count   int
	pending map[cluster.TopicPartition]int
	txns    map[int64]map[cluster.TopicPartition]Committed // by producer id
}

// get returns what is committed.
func (o *offsets) get(topic string, partition int32) (Committed, bool) {
	c, ok := o.topics[topic][partition]
	return c, ok
}

// put takes a committed offset, unless a newer one is known.
func (o *offsets) put(tp cluster.TopicPartition, c Committed) {
	partitions := o.topics[tp.Topic]
	if partitions == nil {
		if o.topics == nil {
			o.topics = map[string]map[int32]Committed{}
		}
		partitions = map[int32]Committed{}
		o.topics[tp.Topic] = partitions
	}
	old, known := partitions[tp.Partition]
	if known && old.at > c.at {
		return
	}
	if !known {
		o.count++
	}
	partitions[tp.Partition] = c
}

// forget is remove for a partition that does not exist any more: what an open transaction commits for it goes, too.
func (o *offsets) forget(tp cluster.TopicPartition) bool {
	for _, txn := range o.txns {
		delete(txn, tp)
	}
	return o.remove(tp)
}

// remove forgets an offset and reports whether there was one.
func (o *offsets) remove(tp cluster.TopicPartition) bool {
	partitions := o.topics[tp.Topic]
	if _, ok := partitions[tp.Partition]; !ok {
		return false
	}
	delete(partitions, tp.Partition)
	if len(partitions) == 0 {
		delete(o.topics, tp.Topic)
	}
	o.count--
	return true
}

// begin and end frame a commit that is on its way.
func (o *offsets) begin(tp cluster.TopicPartition) {
	if o.pending == nil {
		o.pending = map[cluster.TopicPartition]int{}
	}
	o.pending[tp]++
}

func (o *offsets) end(tp cluster.TopicPartition) {
	if o.pending[tp]--; o.pending[tp] <= 0 {
		delete(o.pending, tp)
	}
}

// unstable reports whether a commit of the partition is on its way, or in an open transaction.
func (o *offsets) unstable(tp cluster.TopicPartition) bool {
	if o.pending[tp] > 0 {
		return true
	}
	for _, txn := range o.txns {
		if _, ok := txn[tp]; ok {
			return true
		}
	}
	return false
}

// putTxn takes an offset that is committed in a transaction.
func (o *offsets) putTxn(producer int64, tp cluster.TopicPartition, c Committed) {
	if o.txns == nil {
		o.txns = map[int64]map[cluster.TopicPartition]Committed{}
	}
	txn := o.txns[producer]
	if txn == nil {
		txn = map[cluster.TopicPartition]Committed{}
		o.txns[producer] = txn
	}
	txn[tp] = c
}

// endTxn ends a producer's transaction: what it committed before the marker at that offset of the log.
func (o *offsets) endTxn(producer int64, commit bool, at int64) {
	txn := o.txns[producer]
	for tp, c := range txn {
		if c.at > at {
			continue
		}
		if commit {
			o.put(tp, c)
		}
		delete(txn, tp)
	}
	if len(txn) == 0 {
		delete(o.txns, producer)
	}
}

// empty reports whether nothing is committed or on its way.
func (o *offsets) empty() bool { return o.count == 0 && len(o.pending) == 0 && len(o.txns) == 0 }
