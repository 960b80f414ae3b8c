// Package mutants breaks the program on purpose, one rule at a time, and looks whether the simulators, checkers and named
// scenarios see it: a checker that has never failed proves nothing.
//
// A mutant is a file in patches: what is broken, which test is to notice, and the lines to exchange. It is compiled in with the
// go command's -overlay, so the sources stay as they are. A patch whose lines are not found any more fails the ordinary tests.
package mutants

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Mutant is one broken build.
type Mutant struct {
	Name    string   // M7
	Breaks  string   // the rule that is left out
	Sees    []string // arguments of go test, one line each, in the order in which they are tried
	Program bool     // the tests run a mutated program in a process of its own
	hunks   []hunk
}

// hunk exchanges lines of one file.
type hunk struct{ file, before, after string }

// Parse reads a patch. Its head is "# key: value" lines, then per file "--- path" and hunks: "@@", then lines that begin with a
// space (kept), "-" (removed) or "+" (added). Lines have no numbers: what is kept and removed must occur exactly once.
func Parse(name, text string) (Mutant, error) {
	m := Mutant{Name: name}
	file := ""
	for i, line := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		key, value, _ := strings.Cut(strings.TrimPrefix(line, "# "), ": ")
		last := len(m.hunks) - 1
		switch {
		case strings.HasPrefix(line, "# "):
			switch key {
			case "breaks":
				m.Breaks = value
			case "sees":
				m.Sees = append(m.Sees, value)
			case "program":
				m.Sees, m.Program = append(m.Sees, value), true
			default:
				return m, fmt.Errorf("%s, line %d: unknown key %q", name, i+1, key)
			}
		case strings.HasPrefix(line, "--- "):
			file = strings.TrimPrefix(line, "--- ")
		case line == "@@":
			m.hunks = append(m.hunks, hunk{file: file})
		case last < 0 || file == "":
			return m, fmt.Errorf("%s, line %d: outside of a hunk", name, i+1)
		case strings.HasPrefix(line, "-"):
			m.hunks[last].before += line[1:] + "\n"
		case strings.HasPrefix(line, "+"):
			m.hunks[last].after += line[1:] + "\n"
		default:
			kept := strings.TrimPrefix(line, " ") + "\n"
			m.hunks[last].before += kept
			m.hunks[last].after += kept
		}
	}
	if m.Breaks == "" || len(m.Sees) == 0 || len(m.hunks) == 0 {
		return m, fmt.Errorf("%s: nothing broken, or nobody to see it", name)
	}
	return m, nil
}

// Load reads every patch of a folder, by number.
func Load(dir string) ([]Mutant, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.patch"))
	if err != nil {
		return nil, err
	}
	var all []Mutant
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(filepath.Base(file), ".patch")
		m, err := Parse(name, string(text))
		if err != nil {
			return nil, err
		}
		all = append(all, m)
	}
	return all, nil
}

// Sources are the files that a mutant changes, by path from root, as they become.
func (m Mutant) Sources(root string) (map[string]string, error) {
	changed := map[string]string{}
	for _, h := range m.hunks {
		text, begun := changed[h.file]
		if !begun {
			raw, err := os.ReadFile(filepath.Join(root, h.file))
			if err != nil {
				return nil, err
			}
			text = string(raw)
		}
		if n := strings.Count(text, h.before); n != 1 {
			return nil, fmt.Errorf("%s: the lines to exchange occur %d times in %s:\n%s", m.Name, n, h.file, h.before)
		}
		changed[h.file] = strings.Replace(text, h.before, h.after, 1)
	}
	return changed, nil
}

// Overlay writes the changed sources to dir and returns the file for the go command's -overlay.
func (m Mutant) Overlay(root, dir string) (string, error) {
	changed, err := m.Sources(root)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, text := range changed {
		to := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(to, []byte(text), 0o644); err != nil {
			return "", err
		}
		replace[filepath.Join(root, file)] = to
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	list := filepath.Join(dir, "overlay.json")
	return list, os.WriteFile(list, text, 0o644)
}
