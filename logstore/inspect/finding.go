// Package inspect reads the files of log directories and says what is in them and what is wrong with them. It never writes,
// creates, removes or locks anything; a running broker is not disturbed.
package inspect

import (
	"cmp"
	"fmt"
	"slices"
)

// Severity says what a finding means for whoever opens the directory next.
type Severity string

const (
	// Fault: something is wrong that no start repairs, or that a start repairs by losing records.
	Fault Severity = "fault"
	// Repaired: what an unclean stop leaves; the next start puts it right and loses nothing that was acknowledged by it.
	Repaired Severity = "repaired"
	// Note: unusual, and harmless.
	Note Severity = "note"
)

// Finding is one inconsistency.
type Finding struct {
	Severity Severity `json:"severity"`
	Path     string   `json:"path"`
	Position int64    `json:"position"` // in the file, -1 where none applies
	Offset   int64    `json:"offset"`   // of the log, -1 where none applies
	What     string   `json:"what"`
	Next     string   `json:"next,omitempty"` // what the next start does about it, or what to do
}

func (f Finding) String() string {
	s := fmt.Sprintf("%s: %s", f.Severity, f.Path)
	if f.Position >= 0 {
		s += fmt.Sprintf(" at %d", f.Position)
	}
	if f.Offset >= 0 {
		s += fmt.Sprintf(" (offset %d)", f.Offset)
	}
	s += ": " + f.What
	if f.Next != "" {
		s += "; " + f.Next
	}
	return s
}

// findingsPerFileMax bounds what is told of one file: a shifted index is wrong in every entry.
const findingsPerFileMax = 5

// findings collects, in order of discovery.
type findings struct {
	list    []Finding
	perFile map[string]int
}

func (f *findings) add(s Severity, path string, position, offset int64, next, format string, args ...any) {
	if f.perFile == nil {
		f.perFile = map[string]int{}
	}
	f.perFile[path]++
	if f.perFile[path] > findingsPerFileMax {
		return
	}
	f.list = append(f.list, Finding{Severity: s, Path: path, Position: position, Offset: offset, What: fmt.Sprintf(format, args...), Next: next})
}

// result is the list with a line for each file of which more was found, the grave ones first.
func (f *findings) result() []Finding {
	out := slices.Clone(f.list)
	for path, n := range f.perFile {
		if n > findingsPerFileMax {
			out = append(out, Finding{Severity: worst(f.list, path), Path: path, Position: -1, Offset: -1, What: fmt.Sprintf("%d more findings in this file", n-findingsPerFileMax)})
		}
	}
	slices.SortStableFunc(out, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(rank(a.Severity), rank(b.Severity)), cmp.Compare(a.Path, b.Path))
	})
	return out
}

func worst(list []Finding, path string) Severity {
	w := Note
	for _, f := range list {
		if f.Path == path && rank(f.Severity) < rank(w) {
			w = f.Severity
		}
	}
	return w
}

func rank(s Severity) int { return slices.Index([]Severity{Fault, Repaired, Note}, s) }
