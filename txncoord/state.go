package txncoord

// State is where a transactional id stands. The numbers are those of the records.
type State int8

// The states. PrepareEpochFence is never written: in Kafka it stands for a moment between two steps that are one here.
const (
	Empty             State = iota // no transaction yet, or none since the producer was initialised
	Ongoing                        // partitions take part
	PrepareCommit                  // it will be committed: markers are on their way
	PrepareAbort                   // it will be aborted: markers are on their way
	CompleteCommit                 // committed, all markers are written
	CompleteAbort                  // aborted, all markers are written
	Dead                           // expired, the id is being forgotten
	PrepareEpochFence              // known by name only
)

var stateNames = [...]string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"}

func (s State) String() string { return stateNames[s] }

// stateNamed finds a state by the name that tools use.
func stateNamed(name string) (State, bool) {
	for s, n := range stateNames {
		if n == name {
			return State(s), true
		}
	}
	return Empty, false
}

// ending reports whether markers are on their way.
func (s State) ending() bool { return s == PrepareCommit || s == PrepareAbort }

// idle reports whether no transaction is open.
func (s State) idle() bool { return s == Empty || s == CompleteCommit || s == CompleteAbort }

// prepared is the state that decides an end, and completed the one after the last marker.
func prepared(commit bool) State {
	if commit {
		return PrepareCommit
	}
	return PrepareAbort
}

func (s State) completed() State {
	if s == PrepareCommit {
		return CompleteCommit
	}
	return CompleteAbort
}
