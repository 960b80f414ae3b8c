package zkcoord

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"ottla/internal/cluster"
)

// ControllerNode is /controller, version 2.
type ControllerNode struct {
	BrokerID       cluster.BrokerID
	KRaftEpoch     int32 // -1; 0 and above: a KRaft controller migrates the cluster
	Timestamp      time.Time
	EphemeralOwner int64 // session id; 0 while a KRaft controller holds it
	Version        int32 // data version
	Czxid          int64 // the election's transaction, which also set /controller_epoch
}

// EncodeController writes version 2.
func EncodeController(n ControllerNode) []byte {
	b := appendInt([]byte(`{"version":2,"brokerid":`), n.BrokerID)
	b = appendTimestamp(append(b, `,"timestamp":`...), n.Timestamp)
	return append(appendInt(append(b, `,"kraftControllerEpoch":`...), n.KRaftEpoch), '}')
}

// DecodeController reads versions 1 and 2; the fields that are not in the payload stay zero.
func DecodeController(data []byte) (ControllerNode, error) {
	o, err := parseObject(data)
	if err != nil {
		return ControllerNode{}, err
	}
	n := ControllerNode{Timestamp: decodeTimestamp(o)}
	if n.BrokerID, err = required[cluster.BrokerID](o, "brokerid"); err != nil {
		return n, err
	}
	n.KRaftEpoch, err = optional(o, "kraftControllerEpoch", int32(-1))
	return n, err
}

// ReadController reads /controller.
func ReadController(s Session) (node ControllerNode, found bool, err error) {
	data, stat, err := s.Get(ControllerPath)
	if errors.Is(err, ErrNoNode) {
		return node, false, nil
	}
	if err != nil {
		return node, false, err
	}
	node, err = DecodeController(data)
	node.EphemeralOwner, node.Version, node.Czxid = stat.EphemeralOwner, stat.Version, stat.Czxid
	return node, true, opError("decode", ControllerPath, err)
}

// controllerEpoch is /controller_epoch: plain decimal text. Its data version, not its value, fences.
type controllerEpoch struct {
	epoch cluster.ControllerEpoch
	stat  Stat
}

func readControllerEpoch(s Session) (controllerEpoch, error) {
	data, stat, err := s.Get(ControllerEpochPath)
	if err != nil {
		return controllerEpoch{}, err
	}
	n, err := strconv.ParseInt(string(data), 10, 32)
	if err != nil {
		return controllerEpoch{}, opError("decode", ControllerEpochPath, fmt.Errorf("%w: %w", ErrInvalid, err))
	}
	return controllerEpoch{epoch: cluster.ControllerEpoch(n), stat: stat}, nil
}

// ReadControllerEpoch reads /controller_epoch and its data version.
func ReadControllerEpoch(s Session) (epoch cluster.ControllerEpoch, version int32, found bool, err error) {
	e, err := readControllerEpoch(s)
	if errors.Is(err, ErrNoNode) {
		return 0, 0, false, nil
	}
	return e.epoch, e.stat.Version, err == nil, err
}

// ensureControllerEpoch reads /controller_epoch, and creates it as 0 where it is missing.
func ensureControllerEpoch(s Session) (controllerEpoch, error) {
	for {
		e, err := readControllerEpoch(s)
		if !errors.Is(err, ErrNoNode) {
			return e, err
		}
		if _, err := s.Create(ControllerEpochPath, []byte("0"), Persistent); err != nil && !retryable(err) {
			return e, err
		}
	}
}

// Election is the outcome of Elect. Epoch and EpochVersion are set when it was won; Current names the controller either way.
type Election struct {
	Won          bool
	Epoch        cluster.ControllerEpoch
	EpochVersion int32 // data version of /controller_epoch: the fence of every write of this controller
	Current      ControllerNode
}

// Elect tries to make the broker controller. It is won if /controller belongs to this very session, whatever id is written in it
// and whichever attempt created it; a node of our id that belongs to another session is somebody else's (see RemoveController).
// Source: KAFKA-6082, KAFKA-13407.
func Elect(s Session, id cluster.BrokerID) (Election, error) {
	for {
		current, found, err := ReadController(s)
		if found && current.EphemeralOwner == s.ID() {
			election, again, err := confirm(s, current)
			if again {
				continue
			}
			return election, err
		}
		if err != nil || found {
			return Election{Current: current}, err
		}
		e, err := ensureControllerEpoch(s)
		if err != nil {
			return Election{}, err
		}
		node := ControllerNode{BrokerID: id, KRaftEpoch: -1, Timestamp: time.Now()}
		_, err = s.Multi(
			CreateOp(ControllerPath, EncodeController(node), Ephemeral),
			SetOp(ControllerEpochPath, []byte(strconv.Itoa(int(e.epoch)+1)), e.stat.Version))
		if err != nil && !retryable(err) {
			return Election{}, err
		}
		// Read back in every case: won, lost, or the reply was lost.
	}
}

// confirm finds the epoch of an election that this session has won. Creation of /controller and the new epoch are one transaction:
// only if their transaction ids agree it is the epoch of that election, and not one of a successor.
func confirm(s Session, current ControllerNode) (e Election, again bool, err error) {
	epoch, err := readControllerEpoch(s)
	if err != nil {
		return Election{Current: current}, false, err
	}
	if epoch.stat.Mzxid == current.Czxid {
		return Election{Won: true, Epoch: epoch.epoch, EpochVersion: epoch.stat.Version, Current: current}, false, nil
	}
	now, found, err := ReadController(s)
	if err != nil || !found || now.Czxid != current.Czxid {
		return Election{}, true, nil
	}
	return Election{Current: current}, false, fmt.Errorf("%w: %s was set outside an election", ErrInvalid, ControllerEpochPath)
}

// Resign deletes /controller, under the fence of the election that created it, so that a successor's is never deleted. ErrFenced if
// there is a successor; no error if it is gone already.
func Resign(s Session, epochVersion int32) error {
	err := retryLost(func() error {
		results, err := s.Multi(CheckOp(ControllerEpochPath, epochVersion), DeleteOp(ControllerPath, AnyVersion))
		if fenced(results) {
			return ErrFenced
		}
		return err
	})
	if errors.Is(err, ErrNoNode) {
		return nil
	}
	return err
}

// RemoveController deletes the given /controller if it is still that one, for example one of our own id that an old session left.
// ErrFenced if there is another by now. Source: KAFKA-13407.
func RemoveController(s Session, node ControllerNode) error {
	e, err := readControllerEpoch(s)
	if err != nil {
		return err
	}
	if e.stat.Mzxid != node.Czxid {
		return ErrFenced
	}
	return Resign(s, e.stat.Version)
}
