package logstore

import (
	"errors"
	"math"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/rs/zerolog"
	"github.com/twmb/franz-go/pkg/kerr"

	"ottla/internal/cluster"
)

// Log is the log of one partition: segments, indexes, leader epochs, producers. It guards itself.
//
// Writers (append, roll, truncation, log start, retention) hold mu: for write(2) and bookkeeping, not for fsync, except in
// a truncation, which must be durable before anything else may happen.
// Readers take no lock: they load view. Flushes run beside appends and share fdatasync calls (see Flush).
//
// Invariant: an offset below LogEndOffset was given to write(2) before the view with that end was stored, so that killing the
// process loses nothing that anybody saw.
type Log struct {
	tp    cluster.TopicPartition // constant
	fs    FS
	owner *logDir // guards itself

	dir     atomic.Pointer[string] // changes when the directory is renamed for deletion
	topicID atomic.Pointer[cluster.TopicID]
	config  atomic.Pointer[Config]
	epochs  *EpochCache // changes need mu, reads none
	view    atomic.Pointer[view]

	flushed      atomic.Int64 // the recovery point; only lowered with mu held
	flushRuns    sharedRun
	flushPending atomic.Bool
	dirDirty     atomic.Bool  // names in the directory were created or changed since its last sync
	rolled       atomic.Bool  // a segment was sealed and is not yet being flushed
	lastFlush    atomic.Int64 // Unix time in ns
	onFlushed    atomic.Pointer[func(int64)]
	recovery     Recovery     // constant after load
	cuts         atomic.Int64 // counts truncations, before anything is cut; for who reads along
	cleaned      atomic.Int64 // see cleanedTo

	mu struct {
		sync.Mutex
		err         error // set: nothing is written any more (closed, deleted, or the state of the files is unknown)
		unreported  error // to be told to owner after the unlock
		tail        tail
		producers   *ProducerState
		update      ProducerUpdate
		completeAt  int64 // log end for which everything is on disk as a clean stop leaves it, -1 none
		truncations int   // counts, so that a flush does not publish what was cut meanwhile
		idleEnd     int64 // log end at the last idle pass
	}
}

// Recovery says what loading the log found.
type Recovery struct {
	New      bool  // the log was created, not found
	Unclean  bool  // the log was recovered: batches from the recovery point on were checked
	CutBytes int64 // that were removed because they were no whole, sound batches
	CutFrom  int64 // log end after the cut; meaningful with CutBytes > 0

	// What the checkpoints said, not clamped into the log: a log that ends below has lost something.
	CheckpointedHighWatermark int64
	CheckpointedRecoveryPoint int64
}

// Dir is the partition's directory.
func (l *Log) Dir() string { return *l.dir.Load() }

// TopicPartition is whose log it is.
func (l *Log) TopicPartition() cluster.TopicPartition { return l.tp }

// LogDir is the log directory (one of log.dirs) in which the partition's directory lies.
func (l *Log) LogDir() string { return l.owner.path }

// Recovery says what loading the log found.
func (l *Log) Recovery() Recovery { return l.recovery }

// TopicID is the topic's id from partition.metadata.
func (l *Log) TopicID() (cluster.TopicID, bool) {
	if id := l.topicID.Load(); id != nil {
		return *id, true
	}
	return cluster.TopicID{}, false
}

// SetTopicID writes partition.metadata, durably; kerr.InconsistentTopicID when the log has another id.
func (l *Log) SetTopicID(id cluster.TopicID) error {
	if known, ok := l.TopicID(); ok {
		if known != id {
			return kerr.InconsistentTopicID
		}
		return nil
	}
	if err := l.lock(); err != nil {
		return err
	}
	defer l.unlock()
	if err := WritePartitionMetadata(l.fs, l.Dir(), id); err != nil {
		return l.faultLocked(storageError("write", filepath.Join(l.Dir(), PartitionMetadataFile), err))
	}
	l.topicID.Store(&id)
	return nil
}

// Config is the current configuration.
func (l *Log) Config() *Config { return l.config.Load() }

// SetConfig replaces the configuration; it applies from the next append or pass on.
func (l *Log) SetConfig(c *Config) { l.config.Store(c) }

// lock takes mu for a change. It refuses when nothing may be written any more.
func (l *Log) lock() error {
	l.mu.Lock()
	err := l.mu.err
	if err == nil {
		err = l.owner.fault()
	}
	if err != nil {
		l.mu.Unlock()
	}
	return err
}

// unlock gives mu back, and only then tells of a fault that happened under it.
func (l *Log) unlock() {
	err := l.mu.unreported
	l.mu.unreported = nil
	l.mu.Unlock()
	if err != nil {
		l.owner.fail(err)
	}
}

// faultLocked judges a failed change of files. A full disk is temporary, provided that what was begun could be taken back;
// after anything else the state of the files is unknown: the log is parked and its directory reported.
func (l *Log) faultLocked(err error) error {
	var fault *StorageError
	if errors.As(err, &fault) && fault.Full {
		l.event(l.owner.logger.Warn()).Err(err).Msg("no space left: append refused and taken back")
		return err
	}
	return l.parkLocked(err)
}

func (l *Log) parkLocked(err error) error {
	if l.mu.err == nil {
		l.mu.err = err
		l.mu.unreported = err
		l.event(l.owner.logger.Error()).Err(err).Msg("log parked after a fault of its files: restart once the disk is sound")
	}
	return err
}

func (l *Log) event(e *zerolog.Event) *zerolog.Event {
	return e.Str("topic", l.tp.Topic).Int32("partition", l.tp.Partition)
}

// publish stores a changed copy of the view. change may be called more than once.
func (l *Log) publish(change func(v *view)) {
	for {
		old := l.view.Load()
		next := new(view)
		*next = *old
		change(next)
		next.settle()
		if l.view.CompareAndSwap(old, next) {
			return
		}
	}
}

// LogStartOffset is the first offset that can be read.
func (l *Log) LogStartOffset() int64 { return l.view.Load().logStart }

// LogEndOffset is the next offset to be written: the exclusive end of the log (LEO).
func (l *Log) LogEndOffset() int64 { return l.view.Load().logEnd }

// HighWatermark is the exclusive end of what is replicated: LogStartOffset <= HighWatermark <= LogEndOffset.
func (l *Log) HighWatermark() int64 { return l.view.Load().highWatermark }

// LastStableOffset is the exclusive end of what read_committed may see. Source: KIP-98.
func (l *Log) LastStableOffset() int64 { return l.view.Load().lastStable }

// Offsets is one consistent look at all of them.
type Offsets struct{ LogStart, LogEnd, HighWatermark, LastStable int64 }

// Offsets returns the log's offsets as of one moment.
func (l *Log) Offsets() Offsets {
	v := l.view.Load()
	return Offsets{LogStart: v.logStart, LogEnd: v.logEnd, HighWatermark: v.highWatermark, LastStable: v.lastStable}
}

// FreeBytes is what may still be written to the log's volume; very much when the volume does not say.
func (l *Log) FreeBytes() int64 {
	space, err := l.fs.Space(l.Dir())
	if err != nil {
		return math.MaxInt64
	}
	return space.Free
}

// FlushedOffset is the exclusive end of what surely survives a loss of power: the recovery point.
func (l *Log) FlushedOffset() int64 { return l.flushed.Load() }

// Size is the number of bytes of all segments.
func (l *Log) Size() int64 { return l.view.Load().totalSize() }

// Segments is how many segments there are.
func (l *Log) Segments() int { return len(l.view.Load().segments) }

// LatestEpoch is the newest leader epoch in the log's history.
func (l *Log) LatestEpoch() (cluster.LeaderEpoch, bool) {
	e, ok := l.epochs.Latest()
	return e.Epoch, ok
}

// EpochAt is the leader epoch of the record at offset, by the log's history.
func (l *Log) EpochAt(offset int64) (cluster.LeaderEpoch, bool) { return l.epochs.EpochAt(offset) }

// EpochEntries is the history of leader epochs; not to be changed.
func (l *Log) EpochEntries() []EpochEntry { return l.epochs.Entries() }

// EndOffsetForEpoch answers OffsetForLeaderEpoch: the largest known epoch at or below e and its exclusive end; (-1, -1)
// undefined. Source: KIP-279, KIP-320.
func (l *Log) EndOffsetForEpoch(e cluster.LeaderEpoch) (cluster.LeaderEpoch, int64) {
	return l.epochs.EndOffset(e, l.LogEndOffset())
}

// AssignEpochStart notes that epoch starts at the log's end.
//
// Epochs become durable with the records: a flush writes the history before it raises the recovery point, and a loader rebuilds what
// is above from the batches. One without records means nothing after a restart: whoever leads then has a newer one.
func (l *Log) AssignEpochStart(epoch cluster.LeaderEpoch) error {
	if err := l.lock(); err != nil {
		return err
	}
	defer l.unlock()
	l.epochs.Assign(epoch, l.view.Load().logEnd)
	return nil
}

// SetHighWatermark moves the high watermark (clamped into [LogStartOffset, LogEndOffset]) and with it the last stable offset.
// It does not wait for an append in progress, unless transactions are open.
func (l *Log) SetHighWatermark(offset int64) {
	for {
		old := l.view.Load()
		if old.firstUnstable != noUnstable {
			l.setHighWatermarkWithTransactions(offset)
			break
		}
		if old.highWatermark == offset {
			return
		}
		next := new(view)
		*next = *old
		next.highWatermark = offset
		next.settle()
		if l.view.CompareAndSwap(old, next) {
			break
		}
	}
	l.owner.highWatermarks.touch()
}

func (l *Log) setHighWatermarkWithTransactions(offset int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	clamped := max(min(offset, l.view.Load().logEnd), l.view.Load().logStart)
	l.mu.producers.OnHighWatermark(clamped)
	first := l.firstUnstableLocked()
	l.publish(func(v *view) {
		v.highWatermark = clamped
		v.firstUnstable = first
	})
}

func (l *Log) firstUnstableLocked() int64 {
	if first, ok := l.mu.producers.FirstUnstableOffset(); ok {
		return first
	}
	return noUnstable
}

// ActiveProducers lists the known producers.
func (l *Log) ActiveProducers() []ProducerInfo {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.mu.producers.Producers()
}

// OnFlushed sets the function that is called (from the flushing goroutine, without locks) after FlushedOffset moved.
func (l *Log) OnFlushed(fn func(flushed int64)) { l.onFlushed.Store(&fn) }
