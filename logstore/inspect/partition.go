package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"ottla/internal/cluster"
	"ottla/logstore"
)

// Options say how to read.
type Options struct {
	FS logstore.FS // nil: the operating system's
	// Decode explains a record of an internal topic; an error is a finding. handled is false for other topics. May be nil.
	Decode func(topic string, r logstore.Record) (text string, handled bool, err error)
	// Progress is told of each segment before it is read. May be nil.
	Progress func(path string, bytes int64)
}

func (o Options) fs() logstore.FS {
	if o.FS == nil {
		return logstore.OSFS
	}
	return o.FS
}

// Partition is what is in one partition's directory.
type Partition struct {
	Dir       string            `json:"dir"`
	Topic     string            `json:"topic"`
	Number    int32             `json:"partition"`
	State     logstore.DirState `json:"state,omitempty"`
	TopicID   string            `json:"topic_id,omitempty"`
	LogStart  int64             `json:"log_start_offset"`
	LogEnd    int64             `json:"log_end_offset"`
	Bytes     int64             `json:"bytes"`
	Context   Context           `json:"log_directory"`
	Segments  []Segment         `json:"segments"`
	Epochs    []Epoch           `json:"leader_epochs"`
	Producers []Producer        `json:"producers"` // at the log's end, by replaying the batches
	OpenTxns  int               `json:"open_transactions"`
	Findings  []Finding         `json:"findings"`

	files map[string]int64 // name → size
}

// Context is what the log directory around a partition says of it. Numbers are -1 when it says nothing.
type Context struct {
	Known         bool  `json:"known"` // the folder above is a log directory
	Clean         bool  `json:"clean_stop"`
	RecoveryPoint int64 `json:"recovery_point"`
	LogStart      int64 `json:"log_start_offset"`
	HighWatermark int64 `json:"high_watermark"`
	CleanedTo     int64 `json:"cleaner_offset"`
}

// Segment is one segment: its .log, and what its index files hold.
type Segment struct {
	Base         int64          `json:"base_offset"`
	End          int64          `json:"end_offset"` // exclusive, of what is whole and sound
	Bytes        int64          `json:"bytes"`
	Batches      int            `json:"batches"`
	Records      int64          `json:"records"`
	MinTimestamp int64          `json:"min_timestamp"`
	MaxTimestamp int64          `json:"max_timestamp"`
	Codecs       map[string]int `json:"codecs"` // batches by codec
	Control      int            `json:"control_batches"`
	IndexEntries int            `json:"index_entries"`
	TimeEntries  int            `json:"time_index_entries"`
	Aborted      int            `json:"aborted_transactions"`
	Snapshot     bool           `json:"snapshot"` // there is a producer snapshot at its base
}

// Epoch is one line of leader-epoch-checkpoint.
type Epoch struct {
	Epoch int32 `json:"epoch"`
	Start int64 `json:"start_offset"`
}

// Producer is what the log knows of one producer.
type Producer struct {
	ID           int64 `json:"producer_id"`
	Epoch        int16 `json:"producer_epoch"`
	LastSequence int32 `json:"last_sequence"`
	LastOffset   int64 `json:"last_offset"`
	LastTime     int64 `json:"last_timestamp"`
	TxnStart     int64 `json:"transaction_start_offset"`
}

func producerOf(p logstore.ProducerInfo) Producer {
	return Producer{ID: p.ProducerID, Epoch: p.ProducerEpoch, LastSequence: p.LastSequence, LastOffset: p.LastOffset, LastTime: p.LastTimestamp, TxnStart: p.CurrentTxnStartOffset}
}

// Faults counts the findings of a severity.
func (p *Partition) Faults(s Severity) int {
	n := 0
	for _, f := range p.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// reader reads one partition. It is thrown away afterwards.
type reader struct {
	*Partition
	findings
	o         Options
	producers *logstore.ProducerState
	update    logstore.ProducerUpdate
	next      int64 // offset that may come next
	lastEpoch cluster.LeaderEpoch
	gaps      int
	unsure    map[int64]bool // producers of which a part may have been removed: retention, compaction
}

// ReadPartition reads every byte of a partition's directory and compares its files with one another. An error means that the
// directory could not be read; what is wrong with its content is a finding.
func ReadPartition(dir string, o Options) (*Partition, error) {
	dir = filepath.Clean(dir)
	tp, state, ok := logstore.PartitionDir(filepath.Base(dir))
	if !ok {
		if abs, err := filepath.Abs(dir); err == nil {
			tp, state, ok = logstore.PartitionDir(filepath.Base(abs))
		}
	}
	if !ok {
		return nil, fmt.Errorf("%s is not named like a partition's directory (TOPIC-NUMBER)", dir)
	}
	p := &Partition{Dir: dir, Topic: tp.Topic, Number: tp.Partition, State: state, files: map[string]int64{}}
	r := &reader{Partition: p, o: o, producers: logstore.NewProducerState(), lastEpoch: cluster.NoLeaderEpoch, unsure: map[int64]bool{}}
	p.Context = readContext(o.fs(), filepath.Dir(dir), tp)
	if state == logstore.DirFuture {
		p.Context.RecoveryPoint = -1 // the checkpoints are of the live replica, elsewhere
	}
	if err := r.read(); err != nil {
		return nil, err
	}
	p.Findings = r.findings.result()
	return p, nil
}

func readContext(fsys logstore.FS, logDir string, tp cluster.TopicPartition) Context {
	c := Context{RecoveryPoint: -1, LogStart: -1, HighWatermark: -1, CleanedTo: -1}
	if _, ok, err := logstore.ReadMeta(fsys, logDir); err == nil && ok {
		c.Known = true
	}
	_, c.Clean, _ = logstore.ReadCleanMarker(fsys, logDir)
	for name, to := range map[string]*int64{
		logstore.RecoveryPointCheckpoint: &c.RecoveryPoint, logstore.LogStartCheckpoint: &c.LogStart,
		logstore.HighWatermarkCheckpoint: &c.HighWatermark, logstore.CleanerCheckpoint: &c.CleanedTo,
	} {
		offsets, err := logstore.ReadOffsetCheckpoint(fsys, filepath.Join(logDir, name))
		if offset, ok := offsets[tp]; err == nil && ok {
			*to = offset
		}
	}
	return c
}

func (r *reader) path(base int64, suffix string) string {
	return filepath.Join(r.Dir, fmt.Sprintf("%020d%s", base, suffix))
}

func (r *reader) has(base int64, suffix string) bool {
	_, ok := r.files[fmt.Sprintf("%020d%s", base, suffix)]
	return ok
}

func (r *reader) read() error {
	if err := r.list(); err != nil {
		return err
	}
	r.readTopicID()
	r.readEpochs()
	bases := r.bases()
	if len(bases) == 0 {
		r.add(Note, r.Dir, -1, -1, "a start creates one", "there is no segment")
		return nil
	}
	r.next = bases[0]
	r.producers.Reset(bases[0])
	r.LogStart = max(bases[0], r.Context.LogStart)
	for i, base := range bases {
		if err := r.segment(base, i == len(bases)-1); err != nil {
			return err
		}
	}
	r.LogEnd = r.next
	for _, p := range r.producers.Producers() {
		r.Producers = append(r.Producers, producerOf(p))
		if p.CurrentTxnStartOffset >= 0 {
			r.OpenTxns++
		}
	}
	r.checkOrphans(bases)
	r.checkEpochs()
	r.checkContext(bases)
	if r.gaps > 0 {
		r.add(Note, r.Dir, -1, -1, "", "offsets are missing in %d places: normal in a compacted topic", r.gaps)
	}
	return nil
}

func (r *reader) list() error {
	entries, err := r.o.fs().ReadDir(r.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(r.Dir, e.Name())
		if e.IsDir() {
			r.add(Note, path, -1, -1, "left alone", "a directory inside of a partition's")
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // a running broker removed it
		}
		if err != nil {
			return err
		}
		r.files[e.Name()] = info.Size()
		r.judgeName(path, e.Name())
	}
	return nil
}

// judgeName tells of leftovers and foreign files.
func (r *reader) judgeName(path, name string) {
	_, suffix, numbered := logstore.FileOffset(name)
	switch {
	case strings.HasSuffix(name, ".deleted"), strings.HasSuffix(name, ".tmp"):
		r.add(Note, path, -1, -1, "the next start removes it", "left over")
	case numbered && strings.HasSuffix(name, ".cleaned"):
		r.add(Repaired, path, -1, -1, "the next start removes it", "the output of a compaction that did not end")
	case numbered && strings.HasSuffix(name, ".swap"):
		r.add(Repaired, path, -1, -1, "the next start completes it", "a compaction's output was being put in its place")
	case numbered && slices.Contains([]string{".log", ".index", ".timeindex", ".txnindex", ".snapshot"}, suffix):
	case name == logstore.EpochCheckpointFile, name == logstore.PartitionMetadataFile:
	case !numbered && slices.ContainsFunc([]string{".log", ".index", ".timeindex", ".txnindex", ".snapshot"}, func(s string) bool { return strings.HasSuffix(name, s) }):
		r.add(Fault, path, -1, -1, "move it away: Kafka does not start with it", "named like a segment's file, but without an offset")
	default:
		r.add(Note, path, -1, -1, "left alone", "not a file of a log")
	}
}

func (r *reader) bases() []int64 {
	var bases []int64
	for name := range r.files {
		if base, suffix, ok := logstore.FileOffset(name); ok && suffix == ".log" {
			bases = append(bases, base)
		}
	}
	slices.Sort(bases)
	return bases
}

func (r *reader) readTopicID() {
	id, ok, err := logstore.ReadPartitionMetadata(r.o.fs(), r.Dir)
	path := filepath.Join(r.Dir, logstore.PartitionMetadataFile)
	switch {
	case err != nil:
		r.add(Fault, path, -1, -1, "the log directory goes offline, or Kafka does not start", "%v", err)
	case !ok:
		r.add(Note, path, -1, -1, "the broker writes it when the controller tells the id", "there is no topic id")
	default:
		r.TopicID = id.String()
	}
}

func (r *reader) readEpochs() {
	path := filepath.Join(r.Dir, logstore.EpochCheckpointFile)
	entries, _, err := logstore.ReadEpochs(r.o.fs(), path)
	if err != nil {
		r.add(Fault, path, -1, -1, "a start of Ottla rebuilds it from the batches, Kafka takes it as empty", "%v", err)
		return
	}
	for i, e := range entries {
		r.Epochs = append(r.Epochs, Epoch{int32(e.Epoch), e.StartOffset})
		if i > 0 && (e.Epoch <= entries[i-1].Epoch || e.StartOffset <= entries[i-1].StartOffset) {
			r.add(Fault, path, -1, e.StartOffset, "a start drops the earlier of the two", "epoch %d from %d follows epoch %d from %d", e.Epoch, e.StartOffset, entries[i-1].Epoch, entries[i-1].StartOffset)
		}
	}
}

// epochAt is the epoch that the checkpoint gives an offset; ok is false below its first entry.
func (r *reader) epochAt(offset int64) (epoch int32, ok bool) {
	for _, e := range r.Epochs {
		if e.Start > offset {
			break
		}
		epoch, ok = e.Epoch, true
	}
	return epoch, ok
}

// covered reports whether an unclean start reads the segment that ends at end, and so repairs what it finds there.
func (r *reader) covered(end int64) bool {
	return r.Context.Known && !r.Context.Clean && end > max(r.Context.RecoveryPoint, 0)
}

// grade is the severity of a fault in a segment's file that recovery rebuilds.
func (r *reader) grade(end int64) (Severity, string) {
	if r.covered(end) {
		return Repaired, "the next start rebuilds it: the directory was not stopped cleanly"
	}
	return Fault, "stop the broker, remove the file, start: it is rebuilt"
}

// checkOrphans finds index files without a segment, and snapshots that nobody needs.
func (r *reader) checkOrphans(bases []int64) {
	for name := range r.files {
		base, suffix, ok := logstore.FileOffset(name)
		if !ok || slices.Contains(bases, base) {
			continue
		}
		path := filepath.Join(r.Dir, name)
		switch {
		case suffix == ".index" || suffix == ".timeindex" || suffix == ".txnindex":
			r.add(Note, path, -1, -1, "the next start removes it", "there is no segment of this offset")
		case suffix == ".snapshot" && base > r.LogEnd:
			s, next := r.grade(r.LogEnd)
			r.add(s, path, -1, base, next, "a producer snapshot above the log's end %d", r.LogEnd)
		}
	}
}

func (r *reader) checkEpochs() {
	path := filepath.Join(r.Dir, logstore.EpochCheckpointFile)
	for _, e := range r.Epochs {
		if e.Start > r.LogEnd {
			r.add(Repaired, path, -1, e.Start, "the next start cuts it", "epoch %d starts above the log's end %d", e.Epoch, r.LogEnd)
		}
	}
}

// checkContext compares the log with the checkpoints of its log directory.
func (r *reader) checkContext(bases []int64) {
	c := r.Context
	above := func(name string, offset int64, next string) {
		if offset > r.LogEnd {
			r.add(Fault, filepath.Join(filepath.Dir(r.Dir), name), -1, offset, next, "claims %d for %s-%d, but the log ends at %d: records are missing", offset, r.Topic, r.Number, r.LogEnd)
		}
	}
	above(logstore.RecoveryPointCheckpoint, c.RecoveryPoint, "the start goes on with what is there; other replicas have the rest")
	above(logstore.HighWatermarkCheckpoint, c.HighWatermark, "committed records are missing: let another replica lead")
	above(logstore.LogStartCheckpoint, c.LogStart, "the start begins the log anew at that offset")
	above(logstore.CleanerCheckpoint, c.CleanedTo, "the cleaner begins at the log's start")
	last := bases[len(bases)-1]
	if c.Clean && r.producers.Len() > 0 && !r.has(r.LogEnd, ".snapshot") {
		r.add(Fault, r.path(r.LogEnd, ".snapshot"), -1, r.LogEnd, "Kafka replays from an older snapshot, and forgets all producers when there is none", "stopped cleanly, but there is no producer snapshot at the log's end (last segment %d)", last)
	}
}

// snapshotAgeMax is how old a producer's last record may be for its absence in a snapshot to be worth a word.
const snapshotAgeMax = 24 * time.Hour
