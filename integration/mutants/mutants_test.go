package mutants

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const total = 21

func root(t *testing.T) string {
	dir, err := filepath.Abs("../..")
	require.NoError(t, err)
	return dir
}

// TestEveryPatchApplies keeps the patches true to the sources.
func TestEveryPatchApplies(t *testing.T) {
	all, err := Load("patches")
	require.NoError(t, err)
	for _, m := range all {
		_, err := m.Sources(root(t))
		require.NoError(t, err)
	}
	require.Len(t, all, total)
}

// TestBrokenBuildsAreSeen builds each mutant and runs the tests that are to notice it, with OTTLA_MUTANTS=all or a list of names
// (M03,M07). It ends with the table of who saw what, and after how many seeds or how long.
func TestBrokenBuildsAreSeen(t *testing.T) {
	wanted := os.Getenv("OTTLA_MUTANTS")
	if wanted == "" {
		t.Skip("set OTTLA_MUTANTS=all, or to names")
	}
	all, err := Load("patches")
	require.NoError(t, err)
	var table strings.Builder
	tried, seen := 0, 0
	for _, m := range all {
		if wanted != "all" && !strings.Contains(","+wanted+",", ","+m.Name+",") {
			continue
		}
		tried++
		by, how := m.run(t)
		if by == "" {
			t.Errorf("%s (%s) was not seen", m.Name, m.Breaks)
			by = "nobody"
		} else {
			seen++
		}
		fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", m.Name, m.Breaks, by, how)
	}
	t.Logf("seen: %d of %d\n%s", seen, tried, table.String())
}

var (
	failure = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)|^panic: |^fatal error: `)
	seeds   = regexp.MustCompile(`seed (\d+)`)
	drawn   = regexp.MustCompile(`failed after (\d+) tests`)
)

// run returns the test that noticed the mutant, and when; "" if none did.
func (m Mutant) run(t *testing.T) (by, how string) {
	t.Helper()
	dir := t.TempDir()
	overlay, err := m.Overlay(root(t), dir)
	require.NoError(t, err)
	env := os.Environ()
	if m.Program {
		program := filepath.Join(dir, "ottla")
		out, err := m.command("build", "-tags", "invariants", "-overlay", overlay, "-o", program, "./cmd/ottla").CombinedOutput()
		require.NoError(t, err, "%s does not build: %s", m.Name, out)
		env = append(env, "OTTLA_BIN="+program, "OTTLA_BUILD="+m.Name)
	}
	for _, line := range m.Sees {
		arguments := append([]string{"test", "-count=1", "-failfast", "-overlay", overlay}, strings.Fields(line)...)
		cmd := m.command(arguments...)
		cmd.Env = env
		began := time.Now()
		out, err := cmd.CombinedOutput()
		took := time.Since(began).Round(100 * time.Millisecond)
		if err == nil {
			t.Logf("%s: not seen by go test %s (%v)", m.Name, line, took)
			continue
		}
		found := failure.FindSubmatch(out)
		require.NotNil(t, found, "%s: go test %s neither passed nor failed:\n%s", m.Name, line, out)
		by, how = string(found[1]), fmt.Sprint(took)
		if s := seeds.FindSubmatch(out); s != nil {
			how = fmt.Sprintf("seed %s", s[1])
		} else if s := drawn.FindSubmatch(out); s != nil {
			how = fmt.Sprintf("run %s", s[1])
		}
		if by == "" {
			by = "panic in " + strings.Fields(line)[0]
		}
		t.Logf("%s: seen by %s (%s, %v): %s", m.Name, by, how, took, reason(out))
		return by, how
	}
	return "", ""
}

func (m Mutant) command(arguments ...string) *exec.Cmd {
	cmd := exec.Command("go", arguments...)
	cmd.Dir = filepath.Join("..", "..")
	return cmd
}

// reason is the line that tells most.
func reason(out []byte) string {
	for _, line := range bytes.Split(out, []byte("\n")) {
		text := strings.TrimSpace(string(line))
		if strings.Contains(text, "seed ") || strings.Contains(text, "VIOLATION") || strings.Contains(text, "Error:") || strings.Contains(text, "panic: ") {
			return text
		}
	}
	return ""
}

// TestKafkasWayFails compiles Kafka 3.9's own way in, one rule at a time: the tests of these rules must fail with it.
func TestKafkasWayFails(t *testing.T) {
	wanted := os.Getenv("OTTLA_MUTANTS")
	all, err := Load("kafka")
	require.NoError(t, err)
	var table strings.Builder
	for _, m := range all {
		_, err := m.Sources(root(t))
		require.NoError(t, err)
		if wanted == "" || wanted != "all" && !strings.Contains(","+wanted+",", ","+m.Name+",") {
			continue
		}
		by, how := m.run(t)
		if by == "" {
			t.Errorf("%s was not seen", m.Breaks)
			continue
		}
		fmt.Fprintf(&table, "| %s | %s | %s |\n", m.Breaks, by, how)
	}
	t.Log("\n" + table.String())
}
