package logstore

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"ottla/internal/cluster"
)

// Names of the small files in a log directory and in a partition directory.
const (
	RecoveryPointCheckpoint = "recovery-point-offset-checkpoint"
	LogStartCheckpoint      = "log-start-offset-checkpoint"
	HighWatermarkCheckpoint = "replication-offset-checkpoint"
	CleanerCheckpoint       = "cleaner-offset-checkpoint"
	MetaPropertiesFile      = "meta.properties"
	CleanShutdownFile       = ".kafka_cleanshutdown"
	EpochCheckpointFile     = "leader-epoch-checkpoint"
	PartitionMetadataFile   = "partition.metadata"
)

// smallFileBytesMax bounds what is read of a small file: an offset checkpoint of 100,000 partitions has a few MiB.
const smallFileBytesMax = 64 << 20

// ErrCheckpoint marks a small file whose content is not of its format. Kafka treats it as an I/O error of the directory.
var ErrCheckpoint = errors.New("malformed file")

// CheckpointError says which file is malformed, and where. It matches ErrCheckpoint.
type CheckpointError struct {
	Path string
	Line int // 1-based, 0 for the file as a whole
	What string
}

func (e *CheckpointError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("malformed file %s: %s", e.Path, e.What)
	}
	return fmt.Sprintf("malformed file %s: line %d: %s", e.Path, e.Line, e.What)
}

// Is makes every malformed file match ErrCheckpoint.
func (e *CheckpointError) Is(target error) bool { return target == ErrCheckpoint }

// replaceFile replaces a file so that after a crash either the old or the new content is there, complete: temporary file,
// sync, rename, sync of the directory. Callers replace one file from one place at a time.
func replaceFile(fsys FS, path string, data []byte) error {
	if err := writeFile(fsys, path+".tmp", data); err != nil {
		return err
	}
	if err := fsys.Rename(path+".tmp", path); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	if err := fsys.SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("replace %s: %w", path, err)
	}
	return nil
}

// writeFile writes and syncs a file; its name is durable only after a sync of the directory.
func writeFile(fsys FS, path string, data []byte) (err error) {
	f, err := fsys.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	defer func() {
		if cerr := f.Close(); err == nil && cerr != nil {
			err = fmt.Errorf("write %s: %w", path, cerr)
		}
	}()
	if _, err := f.WriteAt(data, 0); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := f.Sync(); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

// readFile reads a whole small file. A missing file is fs.ErrNotExist.
func readFile(fsys FS, path string) ([]byte, error) {
	f, err := fsys.OpenFile(path, os.O_RDONLY, 0)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	defer f.Close() //nolint:errcheck // nothing was written
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if info.Size() > smallFileBytesMax {
		return nil, &CheckpointError{Path: path, What: fmt.Sprintf("%d bytes, more than %d", info.Size(), smallFileBytesMax)}
	}
	data := make([]byte, info.Size())
	n, err := f.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data[:n], nil
}

// ---- the common text format: version, count, one entry per line

// checkpointLines returns the entries of a checkpoint file's text. An empty text, or one with only the version, has none.
func checkpointLines(path string, data []byte) ([]string, error) {
	text := strings.TrimSuffix(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	if text == "" {
		return nil, nil
	}
	lines := strings.Split(text, "\n")
	if version, err := strconv.Atoi(lines[0]); err != nil || version != 0 {
		return nil, &CheckpointError{path, 1, fmt.Sprintf("version is %q, want 0", shorten(lines[0]))}
	}
	if len(lines) == 1 {
		return nil, nil
	}
	count, err := strconv.Atoi(lines[1])
	if err != nil || count != len(lines)-2 {
		return nil, &CheckpointError{path, 2, fmt.Sprintf("count is %q, but there are %d entries", shorten(lines[1]), len(lines)-2)}
	}
	return lines[2:], nil
}

func shorten(s string) string { return s[:min(len(s), 60)] }

// ReadOffsetCheckpoint reads one of a log directory's four offset checkpoints. A missing or empty file has no entries; a
// malformed one is an error that matches ErrCheckpoint.
func ReadOffsetCheckpoint(fsys FS, path string) (map[cluster.TopicPartition]int64, error) {
	data, err := readFile(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return map[cluster.TopicPartition]int64{}, nil
	}
	if err != nil {
		return nil, err
	}
	return parseOffsetCheckpoint(path, data)
}

func parseOffsetCheckpoint(path string, data []byte) (map[cluster.TopicPartition]int64, error) {
	lines, err := checkpointLines(path, data)
	if err != nil {
		return nil, err
	}
	offsets := make(map[cluster.TopicPartition]int64, len(lines))
	for i, line := range lines {
		f := strings.Fields(line)
		if len(f) != 3 {
			return nil, &CheckpointError{path, i + 3, "want topic, partition, offset"}
		}
		partition, err1 := strconv.ParseInt(f[1], 10, 32)
		offset, err2 := strconv.ParseInt(f[2], 10, 64)
		if err1 != nil || err2 != nil {
			return nil, &CheckpointError{path, i + 3, "partition or offset is no number"}
		}
		offsets[cluster.TopicPartition{Topic: f[0], Partition: int32(partition)}] = offset
	}
	return offsets, nil
}

// WriteOffsetCheckpoint replaces the file atomically and durably. Entries are sorted, so that people can compare files.
func WriteOffsetCheckpoint(fsys FS, path string, offsets map[cluster.TopicPartition]int64) error {
	return replaceFile(fsys, path, formatOffsetCheckpoint(offsets))
}

func formatOffsetCheckpoint(offsets map[cluster.TopicPartition]int64) []byte {
	partitions := make([]cluster.TopicPartition, 0, len(offsets))
	for tp := range offsets {
		partitions = append(partitions, tp)
	}
	sort.Slice(partitions, func(i, j int) bool {
		a, b := partitions[i], partitions[j]
		return a.Topic < b.Topic || a.Topic == b.Topic && a.Partition < b.Partition
	})
	out := make([]byte, 0, 8+32*len(offsets))
	out = append(out, "0\n"...)
	out = append(strconv.AppendInt(out, int64(len(partitions)), 10), '\n')
	for _, tp := range partitions {
		out = append(append(out, tp.Topic...), ' ')
		out = append(strconv.AppendInt(out, int64(tp.Partition), 10), ' ')
		out = append(strconv.AppendInt(out, offsets[tp], 10), '\n')
	}
	return out
}

func parseEpochCheckpoint(path string, data []byte) ([]EpochEntry, error) {
	lines, err := checkpointLines(path, data)
	if err != nil {
		return nil, err
	}
	entries := make([]EpochEntry, 0, len(lines))
	for i, line := range lines {
		f := strings.Fields(line)
		if len(f) != 2 {
			return nil, &CheckpointError{path, i + 3, "want epoch, start offset"}
		}
		epoch, err1 := strconv.ParseInt(f[0], 10, 32)
		start, err2 := strconv.ParseInt(f[1], 10, 64)
		if err1 != nil || err2 != nil || epoch < 0 || start < 0 {
			return nil, &CheckpointError{path, i + 3, "epoch or start offset is no number"}
		}
		entries = append(entries, EpochEntry{cluster.LeaderEpoch(epoch), start})
	}
	return entries, nil
}

func formatEpochCheckpoint(entries []EpochEntry) []byte {
	out := append(strconv.AppendInt([]byte("0\n"), int64(len(entries)), 10), '\n')
	for _, e := range entries {
		out = append(strconv.AppendInt(out, int64(e.Epoch), 10), ' ')
		out = append(strconv.AppendInt(out, e.StartOffset, 10), '\n')
	}
	return out
}

// ---- partition.metadata

// ReadPartitionMetadata reads the topic id of a partition directory; ok is false when there is no file. A file that is
// malformed or holds the all-zero id is an error that matches ErrCheckpoint.
func ReadPartitionMetadata(fsys FS, dir string) (id cluster.TopicID, ok bool, err error) {
	path := filepath.Join(dir, PartitionMetadataFile)
	data, err := readFile(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return id, false, nil
	}
	if err != nil {
		return id, false, err
	}
	id, err = parsePartitionMetadata(path, data)
	return id, err == nil, err
}

func parsePartitionMetadata(path string, data []byte) (id cluster.TopicID, err error) {
	lines := strings.Split(strings.ReplaceAll(string(data), "\r\n", "\n"), "\n")
	if len(lines) < 2 {
		return id, &CheckpointError{path, 0, "want two lines: version and topic_id"}
	}
	versionText, ok := strings.CutPrefix(lines[0], "version:")
	version, err := strconv.Atoi(strings.TrimSpace(versionText))
	if !ok || err != nil || version < 0 {
		return id, &CheckpointError{path, 1, "want version: 0"}
	}
	idText, ok := strings.CutPrefix(lines[1], "topic_id:")
	id, err = cluster.ParseTopicID(strings.TrimSpace(idText))
	if !ok || err != nil || id.IsZero() {
		return cluster.TopicID{}, &CheckpointError{path, 2, "want topic_id: and an id that is not zero"}
	}
	return id, nil
}

// WritePartitionMetadata writes the topic id, durably: it must be there before the first record. Source: KIP-516.
func WritePartitionMetadata(fsys FS, dir string, id cluster.TopicID) error {
	text := "version: 0\ntopic_id: " + id.String() // Kafka writes no line end here
	return replaceFile(fsys, filepath.Join(dir, PartitionMetadataFile), []byte(text))
}

// ---- meta.properties

// Meta is a log directory's meta.properties: to which broker and cluster the directory belongs.
type Meta struct {
	Version     int // 0: ZooKeeper (broker.id), 1: KRaft (node.id)
	BrokerID    cluster.BrokerID
	ClusterID   string
	DirectoryID string // 22 characters of URL-safe base64, empty when absent (KIP-858)
}

// NewDirectoryID returns a random id for Meta.DirectoryID. It does not begin with '-'.
func NewDirectoryID() string { return cluster.NewTopicID().String() }

// ReadMeta reads dir's meta.properties; ok is false when there is none. Errors about the content match ErrCheckpoint.
func ReadMeta(fsys FS, dir string) (m Meta, ok bool, err error) {
	path := filepath.Join(dir, MetaPropertiesFile)
	data, err := readFile(fsys, path)
	if errors.Is(err, fs.ErrNotExist) {
		return m, false, nil
	}
	if err != nil {
		return m, false, err
	}
	m, err = parseMeta(path, data)
	return m, err == nil, err
}

func parseMeta(path string, data []byte) (Meta, error) {
	m := Meta{BrokerID: cluster.NoBroker}
	p := parseProperties(data)
	if text, ok := p["version"]; ok {
		version, err := strconv.Atoi(text)
		if err != nil || version < 0 || version > 1 {
			return m, &CheckpointError{path, 0, fmt.Sprintf("version is %q, want 0 or 1", shorten(text))}
		}
		m.Version = version
	}
	key := "broker.id"
	if m.Version == 1 {
		key = "node.id"
	}
	if text, ok := p[key]; ok {
		id, err := strconv.ParseInt(text, 10, 32)
		if err != nil || id < 0 {
			return m, &CheckpointError{path, 0, fmt.Sprintf("%s is %q, want a number", key, shorten(text))}
		}
		m.BrokerID = cluster.BrokerID(id)
	}
	m.ClusterID, m.DirectoryID = p["cluster.id"], p["directory.id"]
	if m.Version == 1 && (m.ClusterID == "" || m.BrokerID == cluster.NoBroker) {
		return m, &CheckpointError{path, 0, "cluster.id or node.id is missing"}
	}
	if err := checkDirectoryID(m.DirectoryID); err != "" {
		return m, &CheckpointError{path, 0, err}
	}
	return m, nil
}

func checkDirectoryID(id string) (fault string) {
	if id == "" {
		return ""
	}
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(id, "="))
	if err != nil || len(raw) != 16 {
		return fmt.Sprintf("directory.id is %q, want 22 characters of URL-safe base64", shorten(id))
	}
	// Kafka reserves the ids whose first 120 bits are zero (unassigned, lost, migrating and those to come).
	if bytes.Equal(raw[:15], make([]byte, 15)) && raw[15] < 100 {
		return "directory.id is a reserved id"
	}
	return ""
}

// WriteMeta replaces dir's meta.properties, durably.
func WriteMeta(fsys FS, dir string, m Meta) error {
	return replaceFile(fsys, filepath.Join(dir, MetaPropertiesFile), formatMeta(m))
}

func formatMeta(m Meta) []byte {
	var out strings.Builder
	out.WriteString("#\n")
	fmt.Fprintf(&out, "version=%d\n", m.Version)
	if m.ClusterID != "" {
		fmt.Fprintf(&out, "cluster.id=%s\n", escapeProperty(m.ClusterID))
	}
	key := "broker.id"
	if m.Version == 1 {
		key = "node.id"
	}
	if m.BrokerID != cluster.NoBroker {
		fmt.Fprintf(&out, "%s=%d\n", key, m.BrokerID)
	}
	if m.DirectoryID != "" {
		fmt.Fprintf(&out, "directory.id=%s\n", escapeProperty(m.DirectoryID))
	}
	return []byte(out.String())
}

// parseProperties reads the part of Java's properties format that the file needs: comments, '=' or ':', backslash escapes.
func parseProperties(data []byte) map[string]string {
	p := map[string]string{}
	for line := range strings.Lines(string(data)) {
		line = strings.Trim(line, " \t\f\r\n")
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		key, rest := propertyPart(line, true)
		rest = strings.TrimLeft(rest, " \t\f")
		if rest != "" && (rest[0] == '=' || rest[0] == ':') {
			rest = strings.TrimLeft(rest[1:], " \t\f")
		}
		p[key], _ = propertyPart(rest, false)
	}
	return p
}

// propertyPart unescapes a key (which a blank, '=' or ':' ends) or a value.
func propertyPart(s string, isKey bool) (part, rest string) {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		c := s[i]
		if isKey && strings.IndexByte("=: \t\f", c) >= 0 {
			return out.String(), s[i:]
		}
		if c == '\\' && i+1 < len(s) {
			i++
			c = s[i]
		}
		out.WriteByte(c)
	}
	return out.String(), ""
}

func escapeProperty(s string) string {
	return strings.NewReplacer(`\`, `\\`, `=`, `\=`, `:`, `\:`, "#", `\#`, "!", `\!`, "\n", "", "\r", "").Replace(s)
}

// ---- .kafka_cleanshutdown

type cleanMarker struct {
	Version     int   `json:"version"`
	BrokerEpoch int64 `json:"brokerEpoch"`
}

// ReadCleanMarker looks for the mark of a clean stop. Only its existence counts; brokerEpoch is -1 when it is not told.
func ReadCleanMarker(fsys FS, dir string) (brokerEpoch cluster.BrokerEpoch, ok bool, err error) {
	data, err := readFile(fsys, filepath.Join(dir, CleanShutdownFile))
	if errors.Is(err, fs.ErrNotExist) {
		return cluster.NoBrokerEpoch, false, nil
	}
	if err != nil {
		return cluster.NoBrokerEpoch, false, err
	}
	return parseCleanMarker(data), true, nil
}

func parseCleanMarker(data []byte) cluster.BrokerEpoch {
	m := cleanMarker{BrokerEpoch: int64(cluster.NoBrokerEpoch)}
	if json.Unmarshal(data, &m) != nil {
		return cluster.NoBrokerEpoch
	}
	return cluster.BrokerEpoch(m.BrokerEpoch)
}

// WriteCleanMarker marks a clean stop, durably. It must be the last thing written.
func WriteCleanMarker(fsys FS, dir string, brokerEpoch cluster.BrokerEpoch) error {
	text := fmt.Sprintf(`{"version":0,"brokerEpoch":%d}`, brokerEpoch)
	return replaceFile(fsys, filepath.Join(dir, CleanShutdownFile), []byte(text))
}

// RemoveCleanMarker removes the mark, durably: a crash while loading must count as unclean. It must be the first thing done.
func RemoveCleanMarker(fsys FS, dir string) error {
	path := filepath.Join(dir, CleanShutdownFile)
	err := fsys.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = fsys.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}
