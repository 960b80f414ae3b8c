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
// waiting until ZooKeeper expires it. A second line tells which run of the machine that was: a process that dies loses nothing that
// it had written, as long as the machine goes on.

const sessionFileName = "ottla-session"

// saveSession notes the session of a registration in the first log directory.
func saveSession(s *config.Snapshot, id int64) error {
	path := filepath.Join(config.LogDirs.Of(s)[0], sessionFileName)
	return os.WriteFile(path, []byte(fmt.Sprintf("%#x\n%s\n", uint64(id), bootID())), 0o644)
}

// bootID names this run of the machine; "" where the system does not tell.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// sameBoot reports whether the last process with these settings ran since the machine was started.
func sameBoot(s *config.Snapshot) bool {
	text, err := os.ReadFile(filepath.Join(config.LogDirs.Of(s)[0], sessionFileName))
	lines := strings.Fields(string(text))
	return err == nil && len(lines) == 2 && lines[1] == bootID()
}

// SavedSession is the session that the last process with these settings registered with; 0 when there was none.
func SavedSession(s *config.Snapshot) int64 {
	text, err := os.ReadFile(filepath.Join(config.LogDirs.Of(s)[0], sessionFileName))
	if err != nil {
		return 0
	}
	first, _, _ := strings.Cut(string(text), "\n")
	id, err := strconv.ParseUint(strings.TrimSpace(first), 0, 64)
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
