package inspect

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"ottla/internal/cluster"
	"ottla/logstore"
)

// Report is what a check of log directories found.
type Report struct {
	Directories []Directory  `json:"directories"`
	Partitions  []*Partition `json:"partitions"`
	Findings    []Finding    `json:"findings"` // of everything, the grave ones first
}

// Directory is one log directory.
type Directory struct {
	Path        string `json:"path"`
	BrokerID    int32  `json:"broker_id"` // -1 unknown
	ClusterID   string `json:"cluster_id,omitempty"`
	DirectoryID string `json:"directory_id,omitempty"`
	Clean       bool   `json:"clean_stop"`
	Partitions  int    `json:"partitions"`
	Bytes       int64  `json:"bytes"`
}

// Count is how many findings are of a severity.
func (r *Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// checker checks log directories that belong to one broker.
type checker struct {
	findings
	o      Options
	report Report
	homes  map[cluster.TopicPartition]string
	ids    map[string]string // topic → id, as first seen
}

// CheckDirectories checks all partitions of log directories, their checkpoints, and what the directories say of one another.
func CheckDirectories(paths []string, o Options) (*Report, error) {
	c := &checker{o: o, homes: map[cluster.TopicPartition]string{}, ids: map[string]string{}}
	for _, path := range paths {
		if err := c.directory(filepath.Clean(path)); err != nil {
			return nil, err
		}
	}
	c.compareDirectories()
	all := c.findings.result()
	for _, p := range c.report.Partitions {
		all = append(all, p.Findings...)
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return rank(a.Severity) - rank(b.Severity) })
	c.report.Findings = all
	return &c.report, nil
}

// IsLogDirectory reports whether path looks like an entry of log.dirs, and not like a partition's directory.
func IsLogDirectory(path string, o Options) bool {
	for _, name := range []string{logstore.MetaPropertiesFile, logstore.RecoveryPointCheckpoint, logstore.HighWatermarkCheckpoint} {
		if _, err := o.fs().Stat(filepath.Join(path, name)); err == nil {
			return true
		}
	}
	return false
}

func (c *checker) directory(path string) error {
	entries, err := c.o.fs().ReadDir(path)
	if err != nil {
		return err
	}
	d := Directory{Path: path, BrokerID: -1}
	c.readMeta(&d)
	var here []cluster.TopicPartition
	for _, e := range entries {
		at := filepath.Join(path, e.Name())
		if !e.IsDir() {
			c.judgeFile(at, e.Name())
			continue
		}
		tp, state, ok := logstore.PartitionDir(e.Name())
		if !ok {
			c.foreignDir(at, e.Name(), state)
			continue
		}
		if state == logstore.DirDeleted {
			c.add(Note, at, -1, -1, "the next start removes it", "a deleted partition that waits for its removal")
			continue
		}
		p, err := ReadPartition(at, c.o)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		d.Partitions, d.Bytes = d.Partitions+1, d.Bytes+p.Bytes
		c.report.Partitions = append(c.report.Partitions, p)
		c.compareTopicID(p)
		if state == logstore.DirLive {
			here = append(here, tp)
			c.home(tp, path)
		}
	}
	c.checkCheckpoints(path, here)
	c.report.Directories = append(c.report.Directories, d)
	return nil
}

func (c *checker) readMeta(d *Directory) {
	path := filepath.Join(d.Path, logstore.MetaPropertiesFile)
	meta, ok, err := logstore.ReadMeta(c.o.fs(), d.Path)
	switch {
	case err != nil:
		c.add(Fault, path, -1, -1, "no broker starts with it", "%v", err)
	case !ok:
		c.add(Note, path, -1, -1, "the first start writes it", "the log directory does not say whose it is")
	default:
		d.BrokerID, d.ClusterID, d.DirectoryID = int32(meta.BrokerID), meta.ClusterID, meta.DirectoryID
	}
	var clean bool
	if _, clean, err = logstore.ReadCleanMarker(c.o.fs(), d.Path); err != nil {
		c.add(Note, filepath.Join(d.Path, logstore.CleanShutdownFile), -1, -1, "", "%v", err)
	}
	d.Clean = clean
}

func (c *checker) foreignDir(path, name string, state logstore.DirState) {
	if name == "remote-log-index-cache" {
		return
	}
	if state != logstore.DirLive {
		c.add(Note, path, -1, -1, "move it away: Kafka does not start with it", "named like a -%s directory, but not TOPIC-NUMBER.ID-%s", state, state)
		return
	}
	c.add(Note, path, -1, -1, "move it away: Kafka does not start with it, Ottla leaves it alone", "not a partition's directory")
}

func (c *checker) judgeFile(path, name string) {
	if strings.HasSuffix(name, ".tmp") {
		c.add(Note, path, -1, -1, "it is replaced at the next write", "left over by a write that did not end")
	}
}

func (c *checker) home(tp cluster.TopicPartition, dir string) {
	if other, twice := c.homes[tp]; twice {
		c.add(Fault, filepath.Join(dir, tp.String()), -1, -1, "no broker starts so: move the stale one away", "the partition is also in %s", other)
		return
	}
	c.homes[tp] = dir
}

func (c *checker) compareTopicID(p *Partition) {
	if p.TopicID == "" || p.State == logstore.DirStray {
		return
	}
	first, ok := c.ids[p.Topic]
	if !ok {
		c.ids[p.Topic] = p.TopicID
		return
	}
	if first != p.TopicID {
		c.add(Fault, filepath.Join(p.Dir, logstore.PartitionMetadataFile), -1, -1, "one of them is of a topic that was deleted: move it away",
			"topic id %s, but another partition of %s has %s", p.TopicID, p.Topic, first)
	}
}

// checkCheckpoints reads the files whole: entries of partitions that are not here are told once each.
func (c *checker) checkCheckpoints(dir string, here []cluster.TopicPartition) {
	for _, name := range []string{logstore.RecoveryPointCheckpoint, logstore.LogStartCheckpoint, logstore.HighWatermarkCheckpoint, logstore.CleanerCheckpoint} {
		path := filepath.Join(dir, name)
		offsets, err := logstore.ReadOffsetCheckpoint(c.o.fs(), path)
		if err != nil {
			c.add(Fault, path, -1, -1, "a start takes it as empty and reads all segments", "%v", err)
			continue
		}
		for tp, offset := range offsets {
			if !slices.Contains(here, tp) {
				c.add(Note, path, -1, offset, "dropped at the next write", "names %s, which is not in this directory", tp)
			}
		}
		for _, tp := range here {
			if _, ok := offsets[tp]; !ok && name == logstore.RecoveryPointCheckpoint && len(offsets) > 0 {
				c.add(Note, path, -1, -1, "an unclean start reads all of it", "does not name %s", tp)
			}
		}
	}
}

func (c *checker) compareDirectories() {
	var first *Directory
	for i := range c.report.Directories {
		d := &c.report.Directories[i]
		if d.ClusterID == "" {
			continue
		}
		if first == nil {
			first = d
			continue
		}
		if d.ClusterID != first.ClusterID || d.BrokerID != first.BrokerID {
			c.add(Fault, filepath.Join(d.Path, logstore.MetaPropertiesFile), -1, -1, "no broker starts with both",
				"belongs to broker %d of cluster %s, %s to broker %d of %s", d.BrokerID, d.ClusterID, first.Path, first.BrokerID, first.ClusterID)
		}
	}
}

// Story is what a start of the broker would do with a partition, in sentences.
func (p *Partition) Story() []string {
	var s []string
	say := func(format string, args ...any) { s = append(s, fmt.Sprintf(format, args...)) }
	switch c := p.Context; {
	case !c.Known:
		say("The folder above is not a log directory: a start would read every segment.")
	case c.Clean:
		say("The log directory was stopped cleanly: a start reads only the end of the last segment.")
	default:
		n, bytes := 0, int64(0)
		for _, seg := range p.Segments {
			if p.reader().covered(seg.End) {
				n, bytes = n+1, bytes+seg.Bytes
			}
		}
		say("The log directory was not stopped cleanly, or its broker runs: a start reads %d of %d segments (%d bytes), those past the recovery point %d.", n, len(p.Segments), bytes, max(c.RecoveryPoint, 0))
	}
	if hw := p.Context.HighWatermark; hw >= 0 {
		say("The high watermark was %d when it was last noted: %d offsets above it were not yet known to be replicated.", hw, max(p.LogEnd-hw, 0))
	}
	if start := p.LogStart; len(p.Segments) > 0 && start > p.Segments[0].Base {
		say("Records below %d were deleted (DeleteRecords or the leader's log start); their segments go with the next retention.", start)
	}
	if c := p.Context.CleanedTo; c >= 0 {
		say("The cleaner has been here: below offset %d only the last value of each key is left.", c)
	}
	if p.OpenTxns > 0 {
		say("%d transactions are open: read_committed consumers stop before the first of them.", p.OpenTxns)
	}
	if p.State == logstore.DirFuture {
		say("This is a copy on its way into this log directory (AlterReplicaLogDirs).")
	}
	if p.State == logstore.DirStray {
		say("Kafka put it aside: the cluster did not assign the partition to the broker.")
	}
	return s
}

func (p *Partition) reader() *reader { return &reader{Partition: p} }
