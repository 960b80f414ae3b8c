package inspect

import (
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"ottla/logstore"
)

// DumpOptions choose what is dumped.
type DumpOptions struct {
	Options
	Records bool  // also every record, not only the batches
	From    int64 // the first offset
	Max     int   // how many batches, 0 all
}

// Item is one thing in a file: exactly one of the pointers is set.
type Item struct {
	File     string    `json:"file"`
	Batch    *Batch    `json:"batch,omitempty"`
	Index    *Index    `json:"index,omitempty"`
	Time     *Time     `json:"time,omitempty"`
	Aborted  *Aborted  `json:"aborted,omitempty"`
	Producer *Producer `json:"producer,omitempty"`
	Epoch    *Epoch    `json:"leader_epoch,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// Batch is one batch of a .log.
type Batch struct {
	Position      int64    `json:"position"`
	Size          int      `json:"size"`
	BaseOffset    int64    `json:"base_offset"`
	LastOffset    int64    `json:"last_offset"`
	Count         int32    `json:"count"`
	Magic         int8     `json:"magic"`
	LeaderEpoch   int32    `json:"leader_epoch"`
	Codec         string   `json:"codec"`
	TimestampType string   `json:"timestamp_type"`
	BaseTimestamp int64    `json:"base_timestamp"`
	MaxTimestamp  int64    `json:"max_timestamp"`
	ProducerID    int64    `json:"producer_id"`
	ProducerEpoch int16    `json:"producer_epoch"`
	BaseSequence  int32    `json:"base_sequence"`
	Transactional bool     `json:"transactional,omitempty"`
	Control       string   `json:"control,omitempty"` // COMMIT, ABORT, or OTHER
	DeleteHorizon int64    `json:"delete_horizon,omitempty"`
	CRC           uint32   `json:"crc"`
	Valid         bool     `json:"valid"`
	Records       []Record `json:"records,omitempty"`
}

// Record is one record of a batch.
type Record struct {
	Offset    int64             `json:"offset"`
	Timestamp int64             `json:"timestamp"`
	Key       []byte            `json:"key"`
	Value     []byte            `json:"value"`
	Headers   map[string]string `json:"headers,omitempty"`
	Text      string            `json:"text,omitempty"` // of an internal topic's record
}

// Index is one entry of a .index, Time one of a .timeindex, Aborted one of a .txnindex.
type (
	Index struct {
		Offset   int64 `json:"offset"`
		Position int64 `json:"position"`
	}
	Time struct {
		Timestamp int64 `json:"timestamp"`
		Offset    int64 `json:"offset"`
	}
	Aborted struct {
		ProducerID       int64 `json:"producer_id"`
		FirstOffset      int64 `json:"first_offset"`
		LastOffset       int64 `json:"last_offset"`
		LastStableOffset int64 `json:"last_stable_offset"`
	}
)

type dumper struct {
	o     DumpOptions
	give  func(Item) error
	given int // batches
}

// Dump hands the content of a file, or of all files of a partition's directory, to give.
func Dump(path string, o DumpOptions, give func(Item) error) error {
	d := &dumper{o: o, give: give}
	info, err := o.fs().Stat(path)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return d.file(path)
	}
	entries, err := o.fs().ReadDir(path)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(entries, isLog) {
		return fmt.Errorf("%s has no segment: name the directory of one partition, or a file", path)
	}
	for _, e := range entries {
		if e.IsDir() || !dumpable(e.Name()) {
			continue
		}
		if err := d.file(filepath.Join(path, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func isLog(e fs.DirEntry) bool {
	_, suffix, ok := logstore.FileOffset(e.Name())
	return ok && suffix == ".log"
}

func dumpable(name string) bool {
	_, suffix, ok := logstore.FileOffset(name)
	return ok && slices.Contains([]string{".log", ".index", ".timeindex", ".txnindex", ".snapshot"}, suffix) || name == logstore.EpochCheckpointFile
}

func (d *dumper) file(path string) error {
	name := filepath.Base(path)
	if name == logstore.EpochCheckpointFile {
		return d.epochs(path)
	}
	base, suffix, ok := logstore.FileOffset(name)
	if !ok {
		return fmt.Errorf("%s: not a file of a log", path)
	}
	switch {
	case suffix == ".log" || suffix == ".log.deleted" || suffix == ".log.cleaned" || suffix == ".log.swap":
		return d.log(path)
	case suffix == ".index":
		return d.index(path, base)
	case suffix == ".timeindex":
		return d.times(path, base)
	case suffix == ".txnindex":
		return d.txns(path)
	case suffix == ".snapshot":
		return d.snapshot(path)
	}
	return fmt.Errorf("%s: not a file of a log", path)
}

func (d *dumper) fault(path string, err error) error {
	return d.give(Item{File: path, Error: err.Error()})
}

var errEnough = fmt.Errorf("enough")

func (d *dumper) log(path string) error {
	topic := ""
	if abs, err := filepath.Abs(path); err == nil {
		if tp, _, ok := logstore.PartitionDir(filepath.Base(filepath.Dir(abs))); ok {
			topic = tp.Topic
		}
	}
	end, cause, err := logstore.ReadBatches(d.o.fs(), path, func(pos int64, b logstore.Batch) error {
		if b.LastOffset() < d.o.From {
			return nil
		}
		if d.o.Max > 0 && d.given >= d.o.Max {
			return errEnough
		}
		d.given++
		out, err := d.batch(topic, pos, b)
		if giveErr := d.give(Item{File: path, Batch: out}); giveErr != nil {
			return giveErr
		}
		if err != nil {
			return d.fault(path, fmt.Errorf("records of the batch at %d: %w", pos, err))
		}
		return nil
	})
	if err == errEnough {
		return nil
	}
	if err == nil && cause != nil {
		return d.fault(path, fmt.Errorf("no whole batch at %d: %w", end, cause))
	}
	return err
}

func (d *dumper) batch(topic string, pos int64, b logstore.Batch) (*Batch, error) {
	out := &Batch{
		Position: pos, Size: b.Size(), BaseOffset: b.BaseOffset(), LastOffset: b.LastOffset(), Count: b.Count(), Magic: b.Magic(),
		LeaderEpoch: int32(b.LeaderEpoch()), Codec: b.Codec().String(), TimestampType: b.TimestampType().String(),
		BaseTimestamp: b.BaseTimestamp(), MaxTimestamp: b.MaxTimestamp(), ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch(),
		BaseSequence: b.BaseSequence(), Transactional: b.IsTransactional(), CRC: b.CRC(), Valid: b.VerifyCRC() == nil,
	}
	if horizon, ok := b.DeleteHorizon(); ok {
		out.DeleteHorizon = horizon
	}
	if b.IsControl() {
		out.Control = controlName(b)
	}
	if !d.o.Records || !out.Valid {
		return out, nil
	}
	for r, err := range b.Records() {
		if err != nil {
			return out, err
		}
		out.Records = append(out.Records, d.record(topic, b, r))
	}
	return out, nil
}

func controlName(b logstore.Batch) string {
	m, ok, err := b.EndTxnMarker()
	switch {
	case err != nil || !ok:
		return "OTHER"
	case m.Commit:
		return "COMMIT"
	}
	return "ABORT"
}

func (d *dumper) record(topic string, b logstore.Batch, r logstore.Record) Record {
	out := Record{Offset: r.Offset, Timestamp: r.Timestamp, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		if out.Headers == nil {
			out.Headers = map[string]string{}
		}
		out.Headers[h.Key] = string(h.Value)
	}
	if d.o.Decode != nil && !b.IsControl() {
		text, handled, err := d.o.Decode(topic, r)
		if handled && err != nil {
			text = err.Error()
		}
		out.Text = text
	}
	return out
}

func (d *dumper) index(path string, base int64) error {
	list, torn, err := logstore.ReadOffsetIndex(d.o.fs(), path, base)
	for _, e := range list {
		if err := d.give(Item{File: path, Index: &Index{e.Offset, e.Position}}); err != nil {
			return err
		}
	}
	return d.tail(path, torn, err)
}

func (d *dumper) times(path string, base int64) error {
	list, torn, err := logstore.ReadTimeIndex(d.o.fs(), path, base)
	for _, e := range list {
		if err := d.give(Item{File: path, Time: &Time{e.Timestamp, e.Offset}}); err != nil {
			return err
		}
	}
	return d.tail(path, torn, err)
}

func (d *dumper) tail(path string, torn int, err error) error {
	if err == nil && torn > 0 {
		err = fmt.Errorf("%d bytes follow the last whole entry", torn)
	}
	if err != nil {
		return d.fault(path, err)
	}
	return nil
}

func (d *dumper) txns(path string) error {
	list, err := logstore.ReadTxnIndex(d.o.fs(), path)
	if err != nil {
		return d.fault(path, err)
	}
	for _, a := range list {
		if err := d.give(Item{File: path, Aborted: &Aborted{a.ProducerID, a.FirstOffset, a.LastOffset, a.LastStableOffset}}); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) snapshot(path string) error {
	list, err := logstore.ReadProducerSnapshot(d.o.fs(), path)
	if err != nil {
		return d.fault(path, err)
	}
	for _, p := range list {
		out := producerOf(p)
		if err := d.give(Item{File: path, Producer: &out}); err != nil {
			return err
		}
	}
	return nil
}

func (d *dumper) epochs(path string) error {
	list, _, err := logstore.ReadEpochs(d.o.fs(), path)
	for _, e := range list {
		if err := d.give(Item{File: path, Epoch: &Epoch{int32(e.Epoch), e.StartOffset}}); err != nil {
			return err
		}
	}
	if err != nil {
		return d.fault(path, err)
	}
	return nil
}
