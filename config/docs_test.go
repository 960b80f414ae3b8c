package config

import (
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write docs/configuration.md anew")

// TestDocsListEveryKey keeps docs/configuration.md equal to the tables: go test ./config -run Docs -update
func TestDocsListEveryKey(t *testing.T) {
	const file = "../docs/configuration.md"
	var want strings.Builder
	require.NoError(t, WriteDocs(&want))
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(want.String()), 0o644))
	}
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	if want.String() != string(have) {
		t.Fatal("docs/configuration.md is not what the tables say; run: go test ./config -run Docs -update")
	}
	for _, i := range All() {
		if !i.Internal {
			require.Contains(t, want.String(), "| `"+i.Name+"` |")
		}
	}
}

func TestEveryKeyIsExplained(t *testing.T) {
	for _, i := range append(append([]*Info{}, All()...), TopicAll()...) {
		require.NotEmpty(t, i.Doc, i.Name)
		require.True(t, strings.HasSuffix(i.Doc, "."), "%s: a sentence", i.Name)
		require.NotContains(t, i.Doc, "\n", i.Name)
	}
}
