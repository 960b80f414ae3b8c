package config

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A key that is told to have an effect is read somewhere, and one whose effect is told to be missing is read nowhere: whoever
// builds the effect takes the mark away.
func TestEffectsAreAsTold(t *testing.T) {
	outside, inside := sources(t)
	for variable, name := range variablesOfTables(t) {
		i, _ := Lookup(name)
		read := mentions(outside, "config."+variable) || i.Dynamic && strings.Contains(outside, `"`+name+`"`)
		switch {
		case askedToRefuse[variable]:
		case i.Effect == Effective && !read && !strings.Contains(inside, variable+".Of(") && !strings.Contains(inside, variable+".Name") && !givesTopicsTheirDefault(i):
			t.Errorf("%s is read nowhere: mark %s with later or inert", name, variable)
		case i.Effect == Planned && read:
			t.Errorf("%s is read: take the mark 'later' from %s", name, variable)
		}
	}
}

// askedToRefuse are read so that a broker refuses to start without the protection that they promise.
var askedToRefuse = map[string]bool{"AuthorizerClassName": true}

// givesTopicsTheirDefault reports whether a key works by giving topics their default.
func givesTopicsTheirDefault(i *Info) bool {
	for _, topic := range TopicAll() {
		for _, from := range topic.from {
			if from.Info == i {
				return true
			}
		}
	}
	return false
}

// mentions reports whether a text holds a word that does not go on behind it.
func mentions(text, word string) bool {
	for {
		_, rest, found := strings.Cut(text, word)
		if !found {
			return false
		}
		if rest == "" || !isLetter(rest[0]) {
			return true
		}
		text = rest
	}
}

func isLetter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

var tableLine = regexp.MustCompile(`(?m)^\t(\w+)\s+= .*?Key\("([^"]+)"`)

func variablesOfTables(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("keys_*.go")
	require.NoError(t, err)
	out := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range tableLine.FindAllStringSubmatch(string(text), -1) {
			if m[1] != "_" {
				out[m[1]] = m[2]
			}
		}
	}
	require.Greater(t, len(out), 100)
	return out
}

// sources is the code outside and inside this package, tests aside.
func sources(t *testing.T) (outside, inside string) {
	t.Helper()
	var texts [2]strings.Builder
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		own := filepath.Base(filepath.Dir(path)) == "config"
		text, err := os.ReadFile(path)
		switch {
		case err != nil:
			return err
		case !own && strings.Contains(string(text), "ottla/config"):
			texts[0].Write(text)
		case own:
			texts[1].Write(text)
		}
		return nil
	})
	require.NoError(t, err)
	return texts[0].String(), texts[1].String()
}
