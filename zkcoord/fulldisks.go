package zkcoord

import (
	"errors"
	"strconv"

	"ottla/internal/cluster"
)

// FullDisksPath has an ephemeral child, named by its id, for each broker whose disk has less free space than its reserve: it takes
// no writes, but follows, so the controller lets others lead. It is made by the first that needs it, and its data is set with each
// change of a child by a living broker, so that one watch is enough. Kafka's brokers and controllers do not know of it.
const FullDisksPath = "/ottla/full_disks"

func fullDiskPath(id cluster.BrokerID) string { return FullDisksPath + "/" + strconv.Itoa(int(id)) }

// TellFullDisk says that the broker's disk is full, until the end of the session, or that it is not any more. ErrNodeExists while
// an earlier session of the broker says so.
func TellFullDisk(s Session, id cluster.BrokerID, full bool) error {
	if !full {
		if err := s.Delete(fullDiskPath(id), AnyVersion); err != nil && !errors.Is(err, ErrNoNode) {
			return err
		}
		return signalFullDisks(s)
	}
	_, err := s.Create(fullDiskPath(id), nil, Ephemeral)
	if errors.Is(err, ErrNoNode) {
		if err := s.CreateAll(FullDisksPath, nil); err != nil && !errors.Is(err, ErrNodeExists) {
			return err
		}
		_, err = s.Create(fullDiskPath(id), nil, Ephemeral)
	}
	if errors.Is(err, ErrNodeExists) {
		if _, stat, look := s.Exists(fullDiskPath(id)); look == nil && stat.EphemeralOwner == s.ID() {
			err = nil
		}
	}
	if err != nil {
		return err
	}
	return signalFullDisks(s)
}

func signalFullDisks(s Session) error {
	_, err := s.Set(FullDisksPath, nil, AnyVersion)
	return err
}

// FullDisks are the brokers whose disk is full.
func FullDisks(s Session) (map[cluster.BrokerID]bool, error) {
	names, _, err := s.Children(FullDisksPath)
	if err != nil && !errors.Is(err, ErrNoNode) {
		return nil, err
	}
	full := map[cluster.BrokerID]bool{}
	for _, name := range names {
		if id, err := strconv.ParseInt(name, 10, 32); err == nil {
			full[cluster.BrokerID(id)] = true
		}
	}
	return full, nil
}
