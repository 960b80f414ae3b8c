// Package ottla holds what is true of the whole tree: which package may import which, and that what is written leads somewhere.
package ottla

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// arrows says which rooms a room may import; each may import itself. Dependencies point down only. A package without a line of
// its own follows the line of the nearest folder above it.
var arrows = map[string][]string{
	"cmd":                {"broker", "controller", "groupcoord", "txncoord", "coordlog", "zkcoord", "logstore", "config", "security", "internal"},
	"broker":             {"broker/wire", "broker/fetcher", "broker/partition", "broker/replication", "broker/quota", "broker/scrape", "controller", "groupcoord", "txncoord", "coordlog", "zkcoord", "logstore", "config", "security", "internal"},
	"broker/wire":        {"internal"},
	"broker/scrape":      {"broker/partition", "broker/wire", "internal"},
	"broker/fetcher":     {"broker/partition", "broker/replication", "logstore", "internal"},
	"broker/partition":   {"broker/replication", "logstore", "internal"},
	"broker/quota":       {"internal"},
	"broker/replication": {"internal"}, // pure
	"controller":         {"zkcoord", "config", "internal"},
	"groupcoord":         {"coordlog", "zkcoord", "logstore", "config", "internal"},
	"txncoord":           {"coordlog", "logstore", "config", "internal"},
	"coordlog":           {"logstore", "internal"},
	"zkcoord":            {"internal"},
	"logstore":           {"internal"},
	"config":             {},
	"security":           {"config", "zkcoord", "internal"},
	"internal":           {},
	"integration":        {"internal"}, // knows the program, the wire and ZooKeeper
}

// TestImportsFollowTheArrows reads the imports of every file that is no test. Tests may look at more.
func TestImportsFollowTheArrows(t *testing.T) {
	for _, file := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") || !strings.Contains(file, "/") {
			continue
		}
		folder := path.Dir(file)
		room := roomOf(folder)
		if room == "" {
			t.Errorf("%s: no room for it in the house; give it a line in arrows", file)
			continue
		}
		for _, imported := range imports(t, file) {
			to, ours := strings.CutPrefix(imported, "ottla/")
			if !ours || within(to, room) && roomOf(to) == room {
				continue
			}
			if !slices.ContainsFunc(arrows[room], func(allowed string) bool { return roomOf(to) == allowed }) {
				t.Errorf("%s imports %s: not an arrow of %s", file, to, room)
			}
		}
	}
}

// keepers are libraries that one room keeps to itself, so that it can be exchanged or patched there.
var keepers = map[string][]string{
	"github.com/go-zookeeper/zk":    {"zkcoord", "integration", "internal/deps"},
	"github.com/urfave/cli/v2":      {"cmd", "internal/deps"},
	"github.com/segmentio/kafka-go": {"cmd", "integration", "internal/deps"},
	"github.com/twmb/franz-go":      {"cmd", "integration", "internal/deps"}, // the client; not its messages, pkg/kmsg
}

func TestLibrariesStayWithTheirKeepers(t *testing.T) {
	for _, file := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		for _, imported := range imports(t, file) {
			for library, rooms := range keepers {
				if !within(imported, library) || strings.HasPrefix(imported, "github.com/twmb/franz-go/pkg/km") || strings.HasPrefix(imported, "github.com/twmb/franz-go/pkg/kerr") {
					continue
				}
				if !slices.ContainsFunc(rooms, func(room string) bool { return within(path.Dir(file), room) }) {
					t.Errorf("%s imports %s, which belongs to %s", file, imported, strings.Join(rooms, ", "))
				}
			}
		}
	}
}

var link = regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`)

// TestLinksInDocumentsLeadSomewhere looks at the relative links of README.md and docs.
func TestLinksInDocumentsLeadSomewhere(t *testing.T) {
	documents, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, document := range append(documents, "README.md") {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(document), m[1])); err != nil {
				t.Errorf("%s: link to %s: %v", document, m[1], err)
			}
		}
	}
}

var target = regexp.MustCompile("(?m)^make ([a-z-]+)|`make ([a-z-]+)`")

// TestMakeTargetsInDocumentsExist looks for every 'make X' of README.md and docs in the Makefile.
func TestMakeTargetsInDocumentsExist(t *testing.T) {
	makefile, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	documents, _ := filepath.Glob("docs/*.md")
	for _, document := range append(documents, "README.md") {
		text, err := os.ReadFile(document)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range target.FindAllStringSubmatch(string(text), -1) {
			if name := m[1] + m[2]; !strings.Contains("\n"+string(makefile), "\n"+name+":") {
				t.Errorf("%s: 'make %s' is no target of the Makefile", document, name)
			}
		}
	}
}

func roomOf(folder string) string {
	for ; folder != "."; folder = path.Dir(folder) {
		if _, ok := arrows[folder]; ok {
			return folder
		}
	}
	return ""
}

func within(name, folder string) bool { return name == folder || strings.HasPrefix(name, folder+"/") }

func goFiles(t *testing.T) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(".", func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if e.IsDir() && name != "." && (strings.HasPrefix(e.Name(), ".") || e.Name() == "testdata") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".go") {
			out = append(out, filepath.ToSlash(name))
		}
		return nil
	})
	if err != nil || len(out) == 0 {
		t.Fatalf("%d files: %v", len(out), err)
	}
	return out
}

func imports(t *testing.T, file string) []string {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, s := range parsed.Imports {
		name, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, name)
	}
	return out
}
