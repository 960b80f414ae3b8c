package zkcoord

import (
	"errors"
	"fmt"

	"ottla/internal/cluster"
)

// Bury removes what a dead process of a broker has left in ZooKeeper: its registration, and /controller if it held that. owner is
// the session id of the dead process. Only those call it who have proof of the death (a parent that reaped the process, a
// successor that holds the lock of its log directories), never on suspicion. What belongs to another session stays.
// It reports whether anything was removed.
func Bury(s Session, id cluster.BrokerID, owner int64) (bool, error) {
	if owner == 0 {
		return false, nil
	}
	buried := false
	// /controller first: the successor then finds the registration gone as well, or hears of it at once.
	for _, path := range []string{ControllerPath, BrokerPath(id)} {
		_, stat, err := s.Get(path)
		if errors.Is(err, ErrNoNode) {
			continue
		}
		if err != nil {
			return buried, fmt.Errorf("bury broker %d: %w", id, err)
		}
		if stat.EphemeralOwner != owner {
			continue
		}
		err = s.Delete(path, stat.Version)
		if err != nil && !errors.Is(err, ErrNoNode) {
			return buried, fmt.Errorf("bury broker %d: %w", id, err)
		}
		buried = true
	}
	return buried, nil
}
