package broker

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"ottla/config"
	"ottla/zkcoord"
)

// The id of the session that a broker registered with is kept beside its logs. Whoever can prove that the process is dead (its
// parent, or the next process that holds the lock of the directory) may remove that session's registration at once instead of
// waiting until ZooKeeper expires it.

const sessionFileName = "ottla-session"

// saveSession notes the session of a registration in the first log directory.
func saveSession(s *config.Snapshot, id int64) error {
	path := filepath.Join(config.LogDirs.Of(s)[0], sessionFileName)
	return os.WriteFile(path, []byte(fmt.Sprintf("%#x\n", uint64(id))), 0o644)
}

// SavedSession is the session that the last process with these settings registered with; 0 when there was none.
func SavedSession(s *config.Snapshot) int64 {
	text, err := os.ReadFile(filepath.Join(config.LogDirs.Of(s)[0], sessionFileName))
	if err != nil {
		return 0
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 0, 64)
	if err != nil {
		return 0
	}
	return int64(id)
}

// buryPredecessor removes the registration of the process before this one: holding the lock of the log directories proves that
// it is dead.
func (b *Broker) buryPredecessor(session zkcoord.Session) {
	buried, err := zkcoord.Bury(session, b.id, SavedSession(b.config.Load()))
	if err != nil {
		b.log.Warn().Err(err).Msg("the registration of the process before this one was not removed, it will expire")
	}
	if buried {
		b.log.Info().Msg("removed the registration of the process before this one, which is dead")
	}
}
