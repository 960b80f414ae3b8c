package logstore

import "slices"

// cleanedTxns follows the transactions in one pass over the batches of a log, in offset order, and says what may go: the data
// of aborted transactions, and markers whose transaction has no data in the log any more.
type cleanedTxns struct {
	waiting   []AbortedTxn          // not yet reached, by first offset
	aborted   map[int64]*abortedRun // by producer id
	committed map[int64]bool        // producers with data since their last marker
}

type abortedRun struct {
	txn  AbortedTxn
	seen bool // data of it was met
}

func newCleanedTxns() *cleanedTxns {
	return &cleanedTxns{aborted: map[int64]*abortedRun{}, committed: map[int64]bool{}}
}

// add makes aborted transactions known before the pass reaches them. Those already known may be among them.
func (t *cleanedTxns) add(txns []AbortedTxn) {
	t.waiting = append(t.waiting, txns...)
	slices.SortStableFunc(t.waiting, func(a, b AbortedTxn) int { return compareOffsets(a.FirstOffset, b.FirstOffset) })
}

// reach takes up the transactions that have begun at offset. One that has ended below it has no data to come: its marker is
// gone, or behind us.
func (t *cleanedTxns) reach(offset int64) {
	n := 0
	for ; n < len(t.waiting) && t.waiting[n].FirstOffset <= offset; n++ {
		a := t.waiting[n]
		if a.LastOffset >= offset && t.runOf(a.ProducerID, offset) == nil {
			t.aborted[a.ProducerID] = &abortedRun{txn: a}
		}
	}
	t.waiting = t.waiting[n:]
}

// runOf returns the aborted transaction that a producer has open at offset.
func (t *cleanedTxns) runOf(producerID, offset int64) *abortedRun {
	run := t.aborted[producerID]
	if run != nil && run.txn.LastOffset < offset {
		delete(t.aborted, producerID) // its marker was not met
		return nil
	}
	return run
}

// data tells of a data batch; it returns whether its transaction was aborted.
func (t *cleanedTxns) data(b Batch) (aborted bool) {
	t.reach(b.LastOffset())
	if !b.IsTransactional() {
		return false
	}
	if run := t.runOf(b.ProducerID(), b.LastOffset()); run != nil {
		run.seen = true
		return true
	}
	t.committed[b.ProducerID()] = true
	return false
}

// marker tells of a control batch. removable: no data of its transaction was met, so the marker is of no more use. keep, if
// set, is an aborted transaction whose entry must stand in the new index, as some of its data was there.
func (t *cleanedTxns) marker(b Batch) (removable bool, keep *AbortedTxn, err error) {
	t.reach(b.LastOffset())
	m, ok, err := b.EndTxnMarker()
	if err != nil {
		return false, nil, err
	}
	if !ok {
		return b.Count() == 0, nil, nil // emptied before; others are no business of the cleaner
	}
	if m.Commit {
		had := t.committed[m.ProducerID]
		delete(t.committed, m.ProducerID)
		return !had, nil, nil
	}
	run := t.runOf(m.ProducerID, b.LastOffset())
	delete(t.aborted, m.ProducerID)
	if run == nil || !run.seen {
		return true, nil, nil
	}
	return false, &run.txn, nil
}
