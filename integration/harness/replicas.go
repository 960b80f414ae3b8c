package harness

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// CompareReplicas reads the files of stopped brokers: the logs of a partition's replicas must be the same bytes from the first to
// the last, and their leader epochs the same wherever there are records. It returns what differs, at most one line per pair.
func CompareReplicas(brokers []*Broker, topic string, partitions int) (differences []string) {
	for p := range partitions {
		name := fmt.Sprintf("%s-%d", topic, p)
		first := filepath.Join(brokers[0].DataDir, name)
		for _, b := range brokers[1:] {
			other := filepath.Join(b.DataDir, name)
			if d := compareFolders(first, other); d != "" {
				differences = append(differences, fmt.Sprintf("%s on brokers %d and %d: %s", name, brokers[0].ID, b.ID, d))
			}
		}
	}
	return differences
}

func compareFolders(a, b string) string {
	logA, err := openLog(a)
	if err != nil {
		return err.Error()
	}
	logB, err := openLog(b)
	if err != nil {
		return err.Error()
	}
	if pos, differ := firstDifference(logA, logB); differ {
		return fmt.Sprintf("the records differ from byte %d on", pos)
	}
	epochsA, epochsB := epochsWithRecords(a), epochsWithRecords(b)
	if epochsA != epochsB {
		return fmt.Sprintf("leader epochs [%s] and [%s]", epochsA, epochsB)
	}
	return ""
}

// openLog is the concatenation of a folder's segments.
func openLog(dir string) (io.Reader, error) {
	names, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil || len(names) == 0 {
		return nil, fmt.Errorf("%s: no segments (%v)", dir, err)
	}
	var parts []io.Reader
	for _, name := range names { // sorted, which is by offset
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		parts = append(parts, bytes.NewReader(text))
	}
	return io.MultiReader(parts...), nil
}

func firstDifference(a, b io.Reader) (pos int64, differ bool) {
	bufA, bufB := make([]byte, 1<<16), make([]byte, 1<<16)
	for {
		n, errA := io.ReadFull(a, bufA)
		m, errB := io.ReadFull(b, bufB)
		for i := range min(n, m) {
			if bufA[i] != bufB[i] {
				return pos + int64(i), true
			}
		}
		if n != m {
			return pos + int64(min(n, m)), true
		}
		if errA != nil || errB != nil {
			return 0, false
		}
		pos += int64(n)
	}
}

// epochsWithRecords reads leader-epoch-checkpoint. Epochs without a record are left out: only who led in them knows of them. Such
// an entry is the last one, when it starts at the log's end, as two entries never start at one offset.
func epochsWithRecords(dir string) string {
	text, err := os.ReadFile(filepath.Join(dir, "leader-epoch-checkpoint"))
	if err != nil {
		return err.Error()
	}
	end := logEnd(dir)
	var out []string
	for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		if i < 2 { // version, count
			continue
		}
		var epoch, start int64
		if _, err := fmt.Sscan(line, &epoch, &start); err != nil {
			return fmt.Sprintf("line %q: %v", line, err)
		}
		if start < end {
			out = append(out, line)
		}
	}
	return strings.Join(out, ", ")
}

// logEnd walks the batches of the newest segment that has any.
func logEnd(dir string) int64 {
	names, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for i := len(names) - 1; i >= 0; i-- {
		text, err := os.ReadFile(names[i])
		if err != nil {
			return -1
		}
		end := int64(-1)
		for len(text) >= 61 {
			size := int(binary.BigEndian.Uint32(text[8:])) + 12
			if size < 61 || size > len(text) {
				break
			}
			end = int64(binary.BigEndian.Uint64(text)) + int64(binary.BigEndian.Uint32(text[23:])) + 1 // base offset + last offset delta + 1
			text = text[size:]
		}
		if end >= 0 {
			return end
		}
	}
	return 0
}
