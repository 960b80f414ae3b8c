package logstore

// AbortedTxn is one entry of a segment's .txnindex.
type AbortedTxn struct {
	ProducerID       int64
	FirstOffset      int64
	LastOffset       int64 // offset of the ABORT marker
	LastStableOffset int64 // right after the abort
}

// TxnIndex is a segment's list of aborted transactions. The file exists from the first entry on.
// Changes need the log's lock; reads take none.
type TxnIndex struct{}

// OpenTxnIndex opens the index at path; a missing file is an empty index.
func OpenTxnIndex(fs FS, path string) (*TxnIndex, error) { panic("todo") }

// Append adds an entry; entries ascend by LastOffset.
func (x *TxnIndex) Append(a AbortedTxn) error { panic("todo") }

// Entries reads all entries. A torn or wrong entry is an error that matches ErrCorrupt.
func (x *TxnIndex) Entries() ([]AbortedTxn, error) { panic("todo") }

// Collect appends to dst the entries with LastOffset >= from and FirstOffset < to. complete: an entry proves that no later
// segment needs to be asked.
func (x *TxnIndex) Collect(dst []AbortedTxn, from, to int64) (out []AbortedTxn, complete bool, err error) {
	panic("todo")
}

// Check reads all entries and refuses one whose LastOffset is below base.
func (x *TxnIndex) Check(base int64) error { panic("todo") }

// TruncateTo drops the entries with LastOffset >= offset.
func (x *TxnIndex) TruncateTo(offset int64) error { panic("todo") }

// Len is the number of entries; Path is the file.
func (x *TxnIndex) Len() int { panic("todo") }

// Path returns the file's path.
func (x *TxnIndex) Path() string { panic("todo") }

// SetPath tells the index that its file was renamed.
func (x *TxnIndex) SetPath(path string) { panic("todo") }

// Sync makes the entries durable.
func (x *TxnIndex) Sync() error { panic("todo") }

// Close closes the file.
func (x *TxnIndex) Close() error { panic("todo") }
