package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"ottla/config"
)

func TestSessionFileTellsSessionAndBoot(t *testing.T) {
	s := settings(t, nil)
	require.Zero(t, SavedSession(s))
	require.False(t, sameBoot(s), "nothing is known")
	require.NoError(t, saveSession(s, -3))
	require.EqualValues(t, -3, SavedSession(s))
	require.Equal(t, bootID() != "", sameBoot(s))

	file := filepath.Join(config.LogDirs.Of(s)[0], sessionFileName)
	for _, text := range []string{"0x10\n", "0x10\nanother-boot\n"} {
		require.NoError(t, os.WriteFile(file, []byte(text), 0o644))
		require.EqualValues(t, 16, SavedSession(s), fmt.Sprintf("%q", text))
		require.False(t, sameBoot(s), fmt.Sprintf("%q", text))
	}
}
